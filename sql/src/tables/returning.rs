//! RETURNING. In: the rows that a statement has inserted or changed, or those it has deleted. Out: what it tells of each.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, SetExpr, Spanned, TableAlias, TableFactor, Value, ValueWithSpan, visit_expressions};

use super::Stored;
use super::change::{core_error, nullable, one_batch};
use crate::ast::{Query, Write, normal_name};
use crate::bind::plan_query;
use crate::context::Catalog;
use crate::execute::{execute, memory_table};
use crate::parse::parse_query;
use crate::refusal::{Refusal, Result};

/// The items of a RETURNING clause, as a query over the changed rows.
#[derive(Debug)]
pub(super) struct Returning {
    query: Box<Query>,
    table: String,
    catalog: Catalog,
    schema: SchemaRef,
}

impl Returning {
    /// None: the statement has no such clause. Errors: it names what is no column of the table.
    pub fn plan(write: &Write, table: &Stored, catalog: &Catalog) -> Result<Option<Returning>> {
        let Some(items) = write.returning() else { return Ok(None) };
        let place = items.first().map_or(write.table.span, Spanned::span);
        for item in items {
            let mut placeholder = None;
            let _ = visit_expressions(item, |part| {
                if let SqlExpr::Value(ValueWithSpan { value: Value::Placeholder(_), span }) = part {
                    placeholder = Some(*span);
                }
                std::ops::ControlFlow::<()>::Continue(())
            });
            if let Some(span) = placeholder {
                return Err(Refusal::new("a parameter cannot stand in RETURNING").help("tell the columns, and compute with them").at(span));
            }
        }
        let name = normal_name(&write.table);
        let mut query = parse_query("SELECT 1 FROM t").map_err(|error| Refusal::new(error.message))?;
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.projection = items.to_vec();
            if let Some(TableFactor::Table { name: of, alias, .. }) = select.from.first_mut().map(|from| &mut from.relation) {
                *of = vec![write.table.clone()].into();
                *alias = Some(TableAlias { explicit: true, name: write.alias(), columns: Vec::new(), at: None });
            }
        }
        let nothing = RecordBatch::new_empty(nullable(&table.def.schema));
        let mut returning = Returning { query, table: name, catalog: catalog.clone(), schema: nothing.schema() };
        let plan = returning.planned(&nothing).map_err(|refusal| if refusal.place.is_some() { refusal } else { refusal.at(place) })?;
        returning.schema = nullable(&std::sync::Arc::new(plan.schema().as_arrow().clone()));
        Ok(Some(returning))
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// What is told of these rows: all columns of the table.
    pub fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let answer = execute(self.planned(rows)?).map_err(core_error)?;
        one_batch(&self.schema, &answer)
    }

    fn planned(&self, rows: &RecordBatch) -> Result<datafusion::logical_expr::LogicalPlan> {
        let mut catalog = self.catalog.clone();
        catalog.relations.insert(self.table.clone(), memory_table(rows.schema(), vec![rows.clone()]).map_err(core_error)?);
        plan_query(&self.query, &catalog)
    }
}
