//! What an INSERT, UPDATE or DELETE changes. In: the statement and the rows it sees. Out: rows taken out and rows put in, or why not, with its place.
//!
//! DataFusion plans the statement and computes its rows in one batch: a value that cannot be computed refuses the statement as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Insert, ObjectName, SetExpr, Spanned, Statement, Value, ValueWithSpan, Values};
use datafusion::sql::sqlparser::tokenizer::Span;
use freshet_core::{SourceDef, evaluate_rows};

use super::Stored;
use super::content::keys_of;
use super::literals::spell_constants;
use crate::ast::{Write, normal_name};
use crate::bind::parser_options;
use crate::context::Catalog;
use crate::execute::execute;
use crate::refusal::{Refusal, Result};

/// Rows of the columns that a table carries.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Each of them is in the table.
    pub removed: RecordBatch,
    pub added: RecordBatch,
    /// What the client is told.
    pub count: usize,
}

/// Plans the statement. Its plan takes the values of parameters; `content` are rows with all columns of the table.
pub(crate) fn plan(write: &Write, table: &Stored, content: Vec<RecordBatch>, catalog: &Catalog) -> Result<LogicalPlan> {
    let mut catalog = catalog.clone();
    let name = normal_name(&write.table);
    let is_insert = write.inserted().is_some();
    catalog.relations.insert(name, target(table, content, is_insert)?);
    if let Statement::Update(update) = &write.statement {
        for assignment in &update.assignments {
            let column = assignment.target.to_string().trim_matches('"').to_lowercase();
            if table.computed_names().any(|computed| computed == column) {
                return Err(Refusal::new(format!("{column} is computed and cannot be set"))
                    .help("set the columns it is computed from")
                    .at(assignment.span()));
            }
        }
    }
    let mut statement = write.statement.clone();
    if let Statement::Insert(insert) = &mut statement {
        insert.on = None;
        let (carried, columns) = (&table.carried, insert.columns.clone());
        let named = |name: &ObjectName| carried.field_with_name(&normal_name(name.0.last()?.as_ident()?)).ok().map(|field| field.data_type().clone());
        let types: Option<Vec<DataType>> = match columns[..] {
            [] => Some(carried.fields().iter().map(|field| field.data_type().clone()).collect()),
            _ => columns.iter().map(named).collect(),
        };
        if let (Some(query), Some(types)) = (insert.source.as_mut(), types) {
            spell_constants(query, &types);
        }
    }
    let planner = SqlToRel::new_with_options(&catalog, parser_options());
    let whole = |error: datafusion::common::DataFusionError| in_our_words(error.into(), write, table);
    let LogicalPlan::Dml(dml) = planner.sql_statement_to_plan(statement).map_err(whole)? else {
        return Err(Refusal::new("this statement changes nothing"));
    };
    let input = Arc::unwrap_or_clone(dml.input);
    match (&write.statement, input) {
        // Old and new side by side.
        (Statement::Update(_), LogicalPlan::Projection(projection)) => {
            let old = projection.input.schema().columns().into_iter().map(Expr::Column);
            let new = projection.expr.iter().enumerate().map(|(index, expr)| expr.clone().unalias().alias(format!("new${index}")));
            let both = old.chain(new).collect::<Vec<_>>();
            Ok(LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(both).and_then(|builder| builder.build())?)
        }
        (_, input) => Ok(input),
    }
}

/// The table as DataFusion sees it: without computed columns where rows are inserted.
fn target(table: &Stored, content: Vec<RecordBatch>, is_insert: bool) -> Result<Arc<dyn TableSource>> {
    let schema = nullable(if is_insert { &table.carried } else { &table.def.schema });
    let own = |rows: &RecordBatch| with_schema(&if is_insert { table.carried_of(rows) } else { rows.clone() }, &schema);
    let content = content.iter().map(own).collect::<Result<Vec<_>>>()?;
    let memory = MemTable::try_new(schema, vec![content])?;
    let defaults: HashMap<String, Expr> = table.defaults.iter().map(|(name, expr)| (name.clone(), expr.clone())).collect();
    Ok(provider_as_source(Arc::new(memory.with_column_defaults(defaults))))
}

/// Runs the plan of [`plan`], once for each row of parameters.
pub(crate) fn evaluate(
    write: &Write,
    table: &Stored,
    planned: &LogicalPlan,
    parameters: Vec<Vec<ScalarValue>>,
    existing: &[RecordBatch],
) -> Result<Change> {
    let mut parts = Vec::new();
    for row in parameters {
        let plan = planned.clone().with_param_values(row)?;
        let found = execute(plan).map_err(|error| failed(write, table, error.message))?;
        parts.extend(found);
    }
    let (schema, width) = (nullable(&table.def.schema), table.def.schema.fields().len());
    let side = |from: usize, schema: &SchemaRef| -> Result<RecordBatch> {
        let slices = parts.iter().map(|part| {
            let columns: Vec<ArrayRef> = part.columns()[from..from + schema.fields().len()].to_vec();
            typed(columns, part.num_rows(), schema)
        });
        concat_batches(schema, &slices.collect::<Result<Vec<_>>>()?).map_err(of_arrow)
    };
    let carried = nullable(&table.carried);
    let (removed, added) = match &write.statement {
        Statement::Insert(_) => (RecordBatch::new_empty(carried.clone()), side(0, &carried)?),
        Statement::Update(_) => (table.carried_of(&side(0, &schema)?), table.carried_of(&side(width, &schema)?)),
        _ => (table.carried_of(&side(0, &schema)?), RecordBatch::new_empty(carried.clone())),
    };
    refuse_nulls(write, table, &added)?;
    let (removed, mut added) = (with_schema(&removed, &table.carried)?, with_schema(&added, &table.carried)?);
    if let Statement::Insert(Insert { on: Some(_), .. }) = &write.statement {
        added = without_known(added, table, existing)?;
    }
    if matches!(write.statement, Statement::Update(_)) {
        refuse_taken_keys(write, table, (&removed, &added), existing)?;
    }
    let count = removed.num_rows().max(added.num_rows());
    Ok(Change { removed, added, count })
}

/// The rows with their computed columns, for statements that read them.
pub(crate) fn complete(def: &SourceDef, rows: &RecordBatch) -> Result<RecordBatch> {
    if def.computed.is_empty() {
        return Ok(rows.clone());
    }
    let mut columns: BTreeMap<usize, ArrayRef> = def.carried_columns().into_iter().zip(rows.columns().iter().cloned()).collect();
    for computed in &def.computed {
        let found = evaluate_rows(computed.expr.as_ref(), rows);
        if let Some((_, reason)) = found.errors.first() {
            let name = def.schema.field(computed.column).name();
            return Err(Refusal::new(format!("the column {name} cannot be computed: {reason}")));
        }
        columns.insert(computed.column, found.values);
    }
    typed(columns.into_values().collect(), rows.num_rows(), &nullable(&def.schema))
}

/// ON CONFLICT DO NOTHING: only rows whose key is new, the first of each.
fn without_known(added: RecordBatch, table: &Stored, existing: &[RecordBatch]) -> Result<RecordBatch> {
    if table.def.key.is_empty() {
        return Ok(added);
    }
    let mut known = known_keys(table, existing)?;
    let kept: BooleanArray = keys_of(&added, &table.carried_key()).map_err(core_error)?.into_iter().map(|key| Some(known.insert(key))).collect();
    filter_record_batch(&added, &kept).map_err(of_arrow)
}

fn known_keys(table: &Stored, existing: &[RecordBatch]) -> Result<BTreeSet<Vec<u8>>> {
    let mut known = BTreeSet::new();
    for rows in existing {
        known.extend(keys_of(rows, &table.def.key).map_err(core_error)?);
    }
    Ok(known)
}

/// An UPDATE may not give a row the key of another.
fn refuse_taken_keys(write: &Write, table: &Stored, (removed, added): (&RecordBatch, &RecordBatch), existing: &[RecordBatch]) -> Result<()> {
    if table.def.key.is_empty() {
        return Ok(());
    }
    let key = table.carried_key();
    let (old, new) = (keys_of(removed, &key).map_err(core_error)?, keys_of(added, &key).map_err(core_error)?);
    if old == new {
        return Ok(());
    }
    let mut known = known_keys(table, existing)?;
    known.retain(|key| !old.contains(key));
    match new.into_iter().position(|key| !known.insert(key)) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(format!("two rows of {} would have the same PRIMARY KEY", write.table))
            .help("DELETE the other row first")
            .at(write.table.span)),
    }
}

fn refuse_nulls(write: &Write, table: &Stored, added: &RecordBatch) -> Result<()> {
    for (index, field) in table.carried.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()) {
        let column = added.column(index);
        let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) else { continue };
        let place = value_place(write, table, row, index).unwrap_or(write.table.span);
        let rule =
            if table.def.key.iter().any(|key| table.def.schema.field(*key).name() == field.name()) { "is in the PRIMARY KEY" } else { "is NOT NULL" };
        return Err(Refusal::new(format!("column {} of {} {rule}, and a row has NULL", field.name(), write.table)).at(place));
    }
    Ok(())
}

/// Where the value of a carried column stands in VALUES.
fn value_place(write: &Write, table: &Stored, row: usize, column: usize) -> Option<Span> {
    let (values, named) = values_of(write)?;
    let name = table.carried.field(column).name();
    let cell = if named.is_empty() { column } else { named.iter().position(|known| known == name)? };
    let row = values.rows.get(row)?;
    row.content.get(cell).map(Spanned::span)
}

fn values_of(write: &Write) -> Option<(&Values, Vec<String>)> {
    let (query, columns) = write.inserted()?;
    let SetExpr::Values(values) = query.body.as_ref() else { return None };
    Some((values, columns.iter().filter_map(|name| name.0.last()?.as_ident().map(normal_name)).collect()))
}

/// At the value of VALUES that is to blame, if it is one: the statement is tried again with that value alone.
fn failed(write: &Write, table: &Stored, message: String) -> Refusal {
    let refusal = Refusal::new(message);
    let Some((values, _)) = values_of(write) else { return refusal.at(write.table.span) };
    for (row, cells) in values.rows.iter().enumerate() {
        for cell in 0..cells.content.len() {
            let mut alone = write.clone();
            let Statement::Insert(Insert { source: Some(query), .. }) = &mut alone.statement else { continue };
            let SetExpr::Values(values) = query.body.as_mut() else { continue };
            let mut content = values.rows.swap_remove(row);
            let null = |span: Span| SqlExpr::Value(ValueWithSpan { value: Value::Null, span });
            content.content.iter_mut().enumerate().filter(|(index, _)| *index != cell).for_each(|(_, value)| *value = null(value.span()));
            values.rows = vec![content];
            let tried = plan(&alone, table, Vec::new(), &Catalog::default()).map(execute);
            if !matches!(tried, Ok(Ok(_))) {
                return refusal.at(cells.content[cell].span());
            }
        }
    }
    refusal.at(write.table.span)
}

/// DataFusion's sentence about the number of values, and places of its own that it leaves out.
fn in_our_words(refusal: Refusal, write: &Write, table: &Stored) -> Refusal {
    if refusal.message.starts_with("Column count doesn't match") {
        let wanted = match write.inserted() {
            Some((_, columns)) if !columns.is_empty() => columns.len(),
            _ => table.carried.fields().len(),
        };
        let names: Vec<&str> = table.carried.fields().iter().map(|field| field.name().as_str()).collect();
        return Refusal::new(format!("INSERT INTO {} gives another number of values than there are columns, {wanted}", write.table))
            .help(format!("columns are {}", names.join(", ")))
            .at(write.table.span);
    }
    if refusal.place.is_some() { refusal } else { refusal.at(write.table.span) }
}

pub(crate) fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

pub(crate) fn with_schema(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    typed(rows.columns().to_vec(), rows.num_rows(), schema)
}

fn typed(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let cast = |(column, field): (&ArrayRef, &Arc<Field>)| {
        if column.data_type() == field.data_type() { Ok(column.clone()) } else { arrow::compute::cast(column, field.data_type()).map_err(of_arrow) }
    };
    let columns = columns.iter().zip(schema.fields()).map(cast).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(of_arrow)
}

fn of_arrow(error: arrow::error::ArrowError) -> Refusal {
    Refusal::new(error.to_string())
}

pub(crate) fn core_error(error: freshet_core::Error) -> Refusal {
    Refusal::new(error.message)
}
