//! The rows that UPDATE, DELETE and ON CONFLICT DO UPDATE reach. In: the statement and the rows of its table. Out: a plan that yields the number of
//! each row with what is set in it, and from its answer the rows that go and those that come.
//!
//! It is a SELECT over the table with a column of row numbers, joined with what FROM, USING or `excluded` name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take, take_arrays};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, Expr as SqlExpr, Ident, Query, SelectItem, SetExpr, Spanned, Statement, TableAlias, TableFactor,
    TableWithJoins, UpdateTableFromKind, visit_expressions_mut,
};
use freshet_core::KeyCodec;

use super::Stored;
use super::change::{core_error, nullable, of_arrow, with_schema};
use crate::ast::{Write, normal_name};
use crate::bind::plan_query;
use crate::context::Catalog;
use crate::execute::memory_table;
use crate::parse::parse_query;
use crate::refusal::{Refusal, Result};

/// The number of a row in its table.
const ROW: &str = "freshet$row";
/// What ON CONFLICT DO UPDATE calls the row that was to be inserted.
pub(super) const EXCLUDED: &str = "excluded";

/// Which rows of a table are reached, and what is set in them.
pub(super) struct Reach<'a> {
    /// How FROM reads, beside the table itself.
    pub others: Vec<TableWithJoins>,
    /// What the statement calls the table.
    pub alias: Ident,
    pub assignments: &'a [Assignment],
    pub selection: Option<SqlExpr>,
}

/// Rows of a table that a statement changes.
pub(super) struct Reached {
    /// Numbers of rows, each once.
    pub rows: Vec<u32>,
    /// These rows with what is set in them: all columns.
    pub changed: RecordBatch,
}

impl<'a> Reach<'a> {
    /// Of UPDATE and DELETE.
    pub fn of(write: &'a Write) -> Option<Reach<'a>> {
        let (others, assignments, selection) = match &write.statement {
            Statement::Update(update) => {
                let others = match &update.from {
                    Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from.clone(),
                    None => Vec::new(),
                };
                (others, &update.assignments[..], &update.selection)
            }
            Statement::Delete(delete) => (delete.using.clone().unwrap_or_default(), &[][..], &delete.selection),
            _ => return None,
        };
        Some(Reach { others, alias: write.alias(), assignments, selection: selection.clone() })
    }

    /// The columns that are set. Errors: one that is not there, is computed, or is set twice.
    fn columns(&self, table: &Stored) -> Result<Vec<usize>> {
        let schema = &table.def.schema;
        let mut columns = Vec::new();
        for assignment in self.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(Refusal::new("SET takes one column at a time").help("write SET a = …, b = …").at(assignment.span()));
            };
            let place = name.span();
            let name = name.0.last().and_then(|part| part.as_ident()).map(normal_name).unwrap_or_default();
            let Ok(column) = schema.index_of(&name) else {
                let refusal = Refusal::new(format!("{} has no column {name}", table.def.name)).at(place);
                return Err(refusal.nearest(&name, schema.fields().iter().map(|field| field.name().as_str())));
            };
            if table.computed_names().any(|computed| computed == name) {
                return Err(Refusal::new(format!("{name} is computed and cannot be set")).help("set the columns it is computed from").at(place));
            }
            if columns.contains(&column) {
                return Err(Refusal::new(format!("{name} is set twice")).help("leave one of them out").at(place));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// Yields the number of each row that is reached, and a column for each one that is set. `content`: all columns of the table.
    pub fn plan(&self, table: &Stored, content: &RecordBatch, catalog: &Catalog) -> Result<LogicalPlan> {
        let columns = self.columns(table)?;
        let mut catalog = catalog.clone();
        let name = &table.def.name;
        let numbered = format!("{name}$rows");
        catalog.relations.insert(name.clone(), memory_table(content.schema(), vec![content.clone()]).map_err(core_error)?);
        let with_numbers = with_numbers(content)?;
        catalog.relations.insert(numbered.clone(), memory_table(with_numbers.schema(), vec![with_numbers]).map_err(core_error)?);
        let query = self.query(&numbered)?;
        let plan = plan_query(&query, &catalog)?;
        let LogicalPlan::Projection(projection) = &plan else { return Err(Refusal::new("the rows to change cannot be planned")) };
        // As an INSERT, it casts to the types of the columns.
        let mut exprs = vec![projection.expr[0].clone()];
        for (expr, column) in projection.expr[1..].iter().zip(&columns) {
            let field = table.def.schema.field(*column);
            let typed = match expr.clone().unalias() {
                Expr::Placeholder(mut value) if value.field.is_none() => {
                    value.field = Some(Arc::new(field.clone().with_nullable(true)));
                    Expr::Placeholder(value)
                }
                other => other,
            };
            exprs.push(typed.cast_to(field.data_type(), projection.input.schema())?.alias(format!("set${column}")));
        }
        Ok(LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(exprs).and_then(|builder| builder.build())?)
    }

    /// `SELECT alias."freshet$row", value, … FROM "t$rows" AS alias, others WHERE selection`.
    fn query(&self, numbered: &str) -> Result<Query> {
        let quoted = Ident::with_quote('"', numbered);
        let mut query = *parse_query(&format!("SELECT 1 FROM {quoted}")).map_err(|error| Refusal::new(error.message))?;
        let SetExpr::Select(select) = query.body.as_mut() else { return Err(Refusal::new("the rows to change cannot be planned")) };
        if let Some(TableWithJoins { relation: TableFactor::Table { alias, .. }, .. }) = select.from.first_mut() {
            *alias = Some(TableAlias { explicit: true, name: self.alias.clone(), columns: Vec::new(), at: None });
        }
        select.from.extend(self.others.iter().cloned());
        let row = SqlExpr::CompoundIdentifier(vec![self.alias.clone(), Ident::with_quote('"', ROW)]);
        let set = |(index, one): (usize, &Assignment)| SelectItem::ExprWithAlias {
            expr: one.value.clone(),
            alias: Ident::with_quote('"', format!("set${index}")),
        };
        select.projection = std::iter::once(SelectItem::UnnamedExpr(row)).chain(self.assignments.iter().enumerate().map(set)).collect();
        select.selection = self.selection.clone();
        Ok(query)
    }

    /// What the answer of its plan says. A row that several rows of FROM meet takes the least of what they say, so that the same statement over the
    /// same rows does the same.
    pub fn reached(&self, table: &Stored, content: &RecordBatch, answer: &[RecordBatch]) -> Result<Reached> {
        let columns = self.columns(table)?;
        let fields = columns.iter().map(|column| table.def.schema.field(*column).clone().with_nullable(true));
        let schema = Arc::new(Schema::new(std::iter::once(Field::new(ROW, DataType::Int64, true)).chain(fields).collect::<Vec<_>>()));
        let parts = answer.iter().map(|part| with_schema(part, &schema)).collect::<Result<Vec<_>>>()?;
        let answer = concat_batches(&schema, &parts).map_err(of_arrow)?;
        let order = KeyCodec::for_schema(&schema).and_then(|codec| codec.encode(answer.columns())).map_err(core_error)?;
        let mut least: BTreeMap<u32, usize> = BTreeMap::new();
        for (at, number) in answer.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            let found = least.entry(*number as u32).or_insert(at);
            if order.row(at) < order.row(*found) {
                *found = at;
            }
        }
        let rows: Vec<u32> = least.keys().copied().collect();
        let mut changed = take_arrays(content.columns(), &UInt32Array::from(rows.clone()), None).map_err(of_arrow)?;
        let from = UInt32Array::from(least.values().map(|at| *at as u32).collect::<Vec<_>>());
        for (index, column) in columns.iter().enumerate() {
            changed[*column] = take(answer.column(index + 1), &from, None).map_err(of_arrow)?;
        }
        let changed = RecordBatch::try_new_with_options(
            nullable(&content.schema()),
            changed,
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len())),
        );
        Ok(Reached { rows, changed: changed.map_err(of_arrow)? })
    }
}

/// ON CONFLICT DO UPDATE as an UPDATE … FROM excluded. Names without a table mean the row that is there, as in PostgreSQL.
pub(super) fn of_conflict<'a>(table: &Stored, alias: &Ident, assignments: &'a mut [Assignment], selection: Option<SqlExpr>) -> Result<Reach<'a>> {
    let mut own = |expr: &mut SqlExpr| {
        let _ = visit_expressions_mut(expr, |part| {
            if let SqlExpr::Identifier(name) = part {
                *part = SqlExpr::CompoundIdentifier(vec![alias.clone(), name.clone()]);
            }
            std::ops::ControlFlow::<()>::Continue(())
        });
    };
    assignments.iter_mut().for_each(|assignment| own(&mut assignment.value));
    let mut selection = selection;
    selection.iter_mut().for_each(&mut own);
    for key in &table.def.key {
        let column = |of: Ident| SqlExpr::CompoundIdentifier(vec![of, Ident::with_quote('"', table.def.schema.field(*key).name())]);
        let same = SqlExpr::BinaryOp {
            left: Box::new(column(alias.clone())),
            op: BinaryOperator::Eq,
            right: Box::new(column(Ident::with_quote('"', EXCLUDED))),
        };
        selection = Some(match selection {
            None => same,
            Some(others) => SqlExpr::BinaryOp { left: Box::new(same), op: BinaryOperator::And, right: Box::new(SqlExpr::Nested(Box::new(others))) },
        });
    }
    let mut excluded = *parse_query(&format!("SELECT 1 FROM \"{EXCLUDED}\"")).map_err(|error| Refusal::new(error.message))?;
    let SetExpr::Select(select) = excluded.body.as_mut() else { return Err(Refusal::new("the rows to change cannot be planned")) };
    Ok(Reach { others: std::mem::take(&mut select.from), alias: alias.clone(), assignments, selection })
}

fn with_numbers(content: &RecordBatch) -> Result<RecordBatch> {
    let fields = content.schema().fields().iter().cloned().chain([Arc::new(Field::new(ROW, DataType::Int64, false))]).collect::<Vec<_>>();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..content.num_rows() as i64));
    let columns = content.columns().iter().cloned().chain([numbers]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(of_arrow)
}
