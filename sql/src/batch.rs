//! The oracle: DataFusion's batch answer to a view's SQL over given tables, as if all had been there at once.
//!
//! It shares the parser with the engine's way, the resolution of names and what decides ties; not our rules, the lowering or any operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr, Query, SetExpr};
use freshet_core::{Epoch, Error, Format, Result, SourceDef};

use crate::ast::{CreateFeatureView, Stmt, normal_name};
use crate::bind::plan_query;
use crate::compile::{Program, on_large_stack};
use crate::context::{Catalog, Relation};
use crate::dependent::unfolded;
use crate::execute::{execute_plainly, memory_table, with_now};
use crate::parse::parse_query;
use crate::tables::complete;
use crate::temporal::without_asof;
use crate::ties::settle_ties;
use crate::windowing::{in_batch_form, with_event_time};
use crate::windows::{TIME_COLUMN, expand};

/// Columns that records have beside those of their source.
const ORDER: &str = "freshet$order";
const DIFF: &str = "freshet$diff";

/// The content of `view` at epoch `at`: the rows of `tables` must be those with an epoch ≤ `at`.
///
/// `tables` holds sources by name (those with FORMAT UPSERT as their records, see [`record_schema`]), and may hold views: those are taken as given, which is how the SQL above a lookup is judged. A
/// missing source is empty. A feature view is T1 at (at + 1, at + 1), every key with a visible row being known; of rows that T8 cannot
/// tell apart by event time, any may win. Errors: Invalid for an unknown view, a lookup below it, or a HOP.
pub fn evaluate(program: &Program, view: &str, tables: &BTreeMap<String, RecordBatch>, at: Epoch) -> Result<RecordBatch> {
    on_large_stack(|| evaluate_here(program, view, tables, at)).unwrap_or_else(|reason| Err(Error::internal(format!("the oracle failed: {reason}"))))
}

fn evaluate_here(program: &Program, view: &str, tables: &BTreeMap<String, RecordBatch>, at: Epoch) -> Result<RecordBatch> {
    let schema = program.plan.view(view).ok_or_else(|| Error::invalid(format!("there is no view named {view}")))?.schema.clone();
    let plan = plan_of(program, view, tables, at)?;
    let settled = unfolded(plan)
        .and_then(settle_ties)
        .and_then(without_asof)
        .and_then(in_batch_form)
        .map_err(|error| Error::invalid(error.strip_backtrace()))?;
    refuse_lookups(&settled, view)?;
    let batches = execute_plainly(settled)?;
    let parts = batches
        .iter()
        .map(|batch| {
            let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| Ok(arrow::compute::cast(column, field.data_type())?));
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<Vec<_>>>()?, &options)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(&schema, &parts)?)
}

/// Every relation below the view written into one plan.
fn plan_of(program: &Program, view: &str, tables: &BTreeMap<String, RecordBatch>, at: Epoch) -> Result<LogicalPlan> {
    let services = program.plan.services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    let mut catalog = Catalog::new(services);
    program.plan.models.iter().for_each(|model| catalog.add_model(model.clone()));
    for source in &program.plan.sources {
        let rows = match (source.format, tables.get(&source.name)) {
            (Format::Upsert, Some(records)) => upserted(source, records)?,
            // What the script itself inserts.
            (_, None) if source.is_table() => {
                let whole = source.rows.iter().map(|rows| complete(source, rows));
                whole.collect::<std::result::Result<_, _>>().map_err(|refusal| Error::invalid(refusal.message))?
            }
            (_, rows) => rows.cloned().into_iter().collect(),
        };
        catalog.relations.insert(source.name.clone(), memory_table(with_event_time(&source.schema, source.event_time), rows)?);
    }
    for statement in &program.statements {
        let (name, plan) = match &statement.body {
            Stmt::CreateView(create) => (normal_name(&create.name), plan_at(&create.query, &catalog, at)?),
            Stmt::CreateMaterializedView(create) => (normal_name(&create.name), plan_at(&create.query, &catalog, at)?),
            Stmt::CreateFeatureView(create) => (normal_name(&create.name), feature_plan(create, &catalog, at)?),
            _ => continue,
        };
        if name == view {
            return Ok(plan);
        }
        match (tables.get(&name), program.plan.view(&name)) {
            (Some(rows), Some(def)) => {
                catalog.relations.insert(name, memory_table(def.schema.clone(), vec![rows.clone()])?);
            }
            _ => catalog.add(&name, Relation::inlined(plan)),
        }
    }
    Err(Error::invalid(format!("no statement creates {view}")))
}

/// The records of a FORMAT UPSERT source: its columns, then their order (Int64: a later record has a greater one) and their diff (Int64).
pub fn record_schema(source: &SourceDef) -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let fields = source.schema.fields().iter().map(|field| field.as_ref().clone());
    Arc::new(Schema::new(fields.chain([number(ORDER), number(DIFF)]).collect::<Vec<_>>()))
}

/// What the last record of each key says.
fn upserted(source: &SourceDef, records: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let mut catalog = Catalog::default();
    catalog.relations.insert("records".into(), memory_table(record_schema(source), vec![records.clone()])?);
    let quoted = |column: &usize| format!("\"{}\"", source.schema.field(*column).name().replace('"', "\"\""));
    let (key, columns) = (source.key.iter().map(quoted), (0..source.schema.fields().len()).map(|column| quoted(&column)));
    let (key, columns): (Vec<String>, Vec<String>) = (key.collect(), columns.collect());
    let text = format!(
        "SELECT {} FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY \"{ORDER}\" DESC) AS \"freshet$rank\" FROM records WHERE {}) AS ranked \
         WHERE \"freshet$rank\" = 1 AND \"{DIFF}\" > 0",
        columns.join(", "),
        key.join(", "),
        key.iter().map(|column| format!("{column} IS NOT NULL")).collect::<Vec<_>>().join(" AND "),
    );
    let query = parse_query(&text).map_err(|error| Error::internal(error.to_string()))?;
    let batches = execute_plainly(plan_query(&query, &catalog).map_err(|refusal| Error::internal(refusal.message))?)?;
    let typed = |batch: &RecordBatch| Ok(RecordBatch::try_new(source.schema.clone(), batch.columns().to_vec())?);
    batches.iter().map(typed).collect()
}

fn plan_at(query: &Query, catalog: &Catalog, at: Epoch) -> Result<LogicalPlan> {
    plan_query(&with_now(query, at), catalog).map_err(|refusal| Error::invalid(refusal.message))
}

/// Visible rows only; the entity columns first; without the hidden time.
fn feature_plan(view: &CreateFeatureView, catalog: &Catalog, at: Epoch) -> Result<LogicalPlan> {
    if view.hop.is_some() {
        return Err(Error::invalid(format!("{} has a HOP, which no batch query says", view.name)));
    }
    let invalid = |message: String| Error::invalid(message);
    let expanded = expand(view).map_err(|refusal| invalid(refusal.message))?;
    let now = if view.include_now() { at } else { at.next() };
    let mut query = expanded.query;
    restrict(&mut query, view)?;
    if !expanded.grouped {
        query = latest_of(&query, view)?;
    }
    let plan = plan_at(&query, catalog, now)?;
    let entity: Vec<String> = view.entity.iter().map(normal_name).collect();
    let columns = plan.schema().columns();
    let of_entity = entity.iter().filter_map(|name| columns.iter().find(|column| column.name == *name));
    let others = columns.iter().filter(|column| !entity.contains(&column.name) && !column.name.starts_with("freshet$"));
    let wanted: Vec<Expr> = of_entity.chain(others).cloned().map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(wanted).and_then(|builder| builder.build()).map_err(|error| invalid(error.strip_backtrace()))
}

/// `… WHERE (…) AND time < now()`
fn restrict(query: &mut Query, view: &CreateFeatureView) -> Result<()> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(Error::internal("a feature view is one SELECT")) };
    let comparison = if view.include_now() { "<=" } else { "<" };
    let visible = parse_expression(&format!("{} {comparison} now()", view.timestamp))?;
    select.selection = Some(match select.selection.take() {
        Some(condition) => {
            SqlExpr::BinaryOp { left: Box::new(SqlExpr::Nested(Box::new(condition))), op: BinaryOperator::And, right: Box::new(visible) }
        }
        None => visible,
    });
    Ok(())
}

/// The row with the greatest time of each entity.
fn latest_of(query: &Query, view: &CreateFeatureView) -> Result<Query> {
    let entity: Vec<String> = view.entity.iter().map(ToString::to_string).collect();
    let text = format!(
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY \"{TIME_COLUMN}\" DESC) AS \"freshet$rank\" FROM ({query}) AS found) AS ranked \
         WHERE \"freshet$rank\" = 1",
        entity.join(", ")
    );
    parse_query(&text).map(|query| *query).map_err(|error| Error::internal(error.to_string()))
}

fn parse_expression(text: &str) -> Result<SqlExpr> {
    let query = parse_query(&format!("SELECT 1 WHERE {text}")).map_err(|error| Error::internal(error.to_string()))?;
    match *query.body {
        SetExpr::Select(select) => select.selection.ok_or_else(|| Error::internal("the condition was lost")),
        _ => Err(Error::internal("the condition was lost")),
    }
}

fn refuse_lookups(plan: &LogicalPlan, view: &str) -> Result<()> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Extension(_));
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| Error::internal(error.strip_backtrace()))?;
    if found {
        return Err(Error::invalid(format!(
            "{view} looks features up or predicts, which is a fact about each row's own epoch; give its content in `tables`"
        )));
    }
    Ok(())
}
