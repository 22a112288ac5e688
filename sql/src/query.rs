//! Ad-hoc SELECT over the views of a running pipeline: all of DataFusion's batch SQL over one snapshot at one epoch.
//!
//! In: text, parameters and a reader. Out: batches of the announced schema, and the instant they are true at. now() is that instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{Query, Spanned};
use datafusion::sql::sqlparser::tokenizer::Location;
use freshet_core::{
    CatalogView, Epoch, Error, EventTime, FeatureRequest, Plan, ReadMode, ReadPoint, Reader, ServiceDef, Status, SubscribeRequest, runs_schema,
    versions_schema,
};

use crate::ast::Subscribe;
use crate::bind::{placed, plan_query};
use crate::compile::on_large_stack;
use crate::context::{Catalog, FEATURES_SCHEMA, Relation};
use crate::error::SqlError;
use crate::execute::{execute, memory_table, with_now};
use crate::lower::is_work_table;
use crate::optimise::analyse;
use crate::parse::{parse_query, parse_subscribe};
use crate::predict::refuse_predictions;
use crate::refusal::{Refusal, Result};
use crate::relation::service_input;
use crate::system;
use crate::temporal::{joins_at_arrival, without_asof};

/// The name queries have in errors.
const FILE: &str = "query";

/// The most keys one FEATURES(…) asks for, which IN lists multiply.
const FEATURE_ROWS_MAX: usize = 100_000;

/// A query that has been checked against the catalog of a reader.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Of every answer; all columns may be NULL.
    pub schema: SchemaRef,
    /// `$1`, `$2`, … in order. A parameter whose type nothing tells is Utf8.
    pub parameters: SchemaRef,
    /// The views it reads, in name order.
    pub views: Vec<String>,
    /// The services it asks.
    pub services: Vec<String>,
    /// Whether it reads what the pipeline says of itself, and so needs no complete epoch.
    system: bool,
    query: Query,
}

/// What a SUBSCRIBE asks for, and whether it wants to hear of progress; None if the text is something else. Errors: what is wrong with it, by
/// line and column. Whether the view exists is the reader's to say.
pub fn subscription(text: &str) -> Result<Option<(SubscribeRequest, bool)>, SqlError> {
    let Some(Subscribe { view, snapshot, progress, as_of, up_to }) = parse_subscribe(text)? else { return Ok(None) };
    let request = SubscribeRequest { view, snapshot, as_of: as_of.map(Epoch), up_to: up_to.map(Epoch), reader: String::new() };
    Ok(Some((request, progress)))
}

/// Checks a SELECT. Errors: what is wrong with the text, by line and column.
pub fn plan(text: &str, reader: &dyn Reader) -> Result<Planned, SqlError> {
    let query = parse_query(&system::selected(text, reader)?)?;
    let (views, services) = (reader.views(), reader.services().into_iter().map(|service| service.def).collect::<Vec<_>>());
    let sources: Vec<String> = reader.status().sources.into_iter().map(|source| source.name).collect();
    on_large_stack(|| plan_here(*query, &views, &services, &sources))
        .unwrap_or_else(|reason| Err(Refusal::new(format!("the planner failed: {reason}"))))
        .map_err(|refusal| refusal.into_error(FILE, Location { line: 1, column: 1 }))
}

/// Runs it: once without parameters, else once per row of `parameters` (by position), the answers one behind the other. Everything is
/// read at one instant. Errors: Invalid for wrong parameters or a value that cannot be computed, and what the reader says.
pub fn run(
    planned: &Planned,
    parameters: Option<&RecordBatch>,
    reader: &dyn Reader,
) -> freshet_core::Result<(SchemaRef, Vec<RecordBatch>, ReadPoint)> {
    on_large_stack(|| run_here(planned, parameters, reader)).unwrap_or_else(|reason| Err(Error::internal(format!("the query failed: {reason}"))))
}

/// Checks a SELECT of a script, which no one has started to run yet.
pub(crate) fn check(query: &Query, plan: &Plan) -> Result<()> {
    let view = |name: String, schema: SchemaRef| CatalogView { name, schema, kind: "VIEW", entity: Vec::new() };
    let mut views: Vec<CatalogView> = plan.views.iter().map(|known| view(known.name.clone(), known.schema.clone())).collect();
    views.extend(plan.retraining.iter().map(|job| view(format!("runs({})", job.name), runs_schema())));
    views.extend(plan.models.iter().map(|model| view(format!("versions({})", model.name), versions_schema())));
    let sources: Vec<String> = plan.sources.iter().map(|source| source.name.clone()).collect();
    plan_here(query.clone(), &views, &plan.services, &sources).map(|_| ())
}

fn plan_here(query: Query, views: &[CatalogView], services: &[ServiceDef], sources: &[String]) -> Result<Planned> {
    refuse_predictions(&query, "scores rows as they come, not when they are read")?;
    let mut catalog = Catalog::default();
    for view in views {
        catalog.add(&view.name, Relation::stored(view.schema.clone()));
    }
    for service in services {
        catalog.add(&features_table(&service.name), Relation::stored(features_schema(service)));
    }
    for (name, schema) in system::tables() {
        catalog.add(name, Relation::stored(schema));
    }
    let raw = plan_query(&query, &catalog).map_err(|refusal| about_source(refusal, sources))?;
    let refused = |refusal: Refusal| placed(refusal, &query);
    let types = raw.get_parameter_types().map_err(|error| refused(error.into()))?;
    let parameters = parameters_of(&types).map_err(refused)?;
    let (mut views, asked) = relations_of(&raw).map_err(refused)?;
    let found = views.len();
    views.retain(|view| system::tables().iter().all(|(name, _)| view != name));
    let system = views.len() < found;
    for service in services.iter().filter(|service| asked.contains(&service.name)) {
        bindings(&raw, service).map_err(|refusal| if refusal.place.is_some() { refusal } else { refusal.at(query.span()) })?;
    }
    if joins_at_arrival(&raw) {
        return Err(refused(
            Refusal::new("FOR SYSTEM_TIME AS OF says what was there when a row came, which no content tells")
                .help("join plainly, to see what is there now; or let a materialized view keep the answers as rows come"),
        ));
    }
    let analysed = analyse(raw, catalog.options()).map_err(|error| refused(error.into()))?;
    let schema = served_schema(analysed.schema().as_arrow());
    Ok(Planned { schema, parameters, views, services: asked, system, query })
}

fn run_here(
    planned: &Planned,
    parameters: Option<&RecordBatch>,
    reader: &dyn Reader,
) -> freshet_core::Result<(SchemaRef, Vec<RecordBatch>, ReadPoint)> {
    let rows = parameter_rows_of(&planned.parameters, parameters)?;
    let names: Vec<&str> = planned.views.iter().map(String::as_str).collect();
    let catalog_views = reader.views();
    let mut catalog = Catalog::default();
    let mut point = None;
    if planned.system {
        for (name, schema) in system::tables() {
            catalog.relations.insert(name.to_string(), memory_table(schema, vec![system::rows(name, reader)?])?);
        }
        point = Some(ReadPoint::at(reader.frontier(&[])?));
    }
    if !names.is_empty() || (planned.services.is_empty() && !planned.system) {
        let snapshot = reader.snapshot(&names, None)?;
        for (name, batches) in names.iter().zip(snapshot.views) {
            let view = catalog_views.iter().find(|view| view.name == *name);
            let schema = view.map(|view| view.schema.clone()).ok_or_else(|| Error::invalid(format!("there is no view named {name} any more")))?;
            catalog.relations.insert(name.to_string(), memory_table(schema, batches)?);
        }
        point = Some(snapshot.point);
    }
    let services: Vec<ServiceDef> =
        reader.services().into_iter().map(|service| service.def).filter(|def| planned.services.contains(&def.name)).collect();
    let mut answers = Vec::new();
    for row in rows {
        for service in &services {
            let (batch, at) = ask(planned, service, &row, reader, &catalog, point)?;
            point = Some(at);
            catalog.relations.insert(features_table(&service.name), memory_table(features_schema(service), vec![batch])?);
        }
        let at = point.expect("a query without services has a snapshot");
        let plan = plan_query(&with_now(&planned.query, at.q), &catalog).map_err(invalid)?;
        let plan = plan.with_param_values(row).map_err(|error| Error::invalid(error.strip_backtrace()))?;
        for batch in execute(without_asof(plan).map_err(|error| Error::invalid(error.strip_backtrace()))?)? {
            answers.push(served(&batch, &planned.schema)?);
        }
    }
    let at = point.map_or_else(|| reader.frontier(&names).map(ReadPoint::at), Ok)?;
    Ok((planned.schema.clone(), answers, at))
}

fn invalid(refusal: Refusal) -> Error {
    Error::invalid(refusal.message)
}

/// A source is known, and has no rows to select from.
fn about_source(refusal: Refusal, sources: &[String]) -> Refusal {
    let unknown = refusal.message.strip_prefix("there is no source or view named ").and_then(|rest| rest.split(';').next());
    match sources.iter().find(|source| Some(source.as_str()) == unknown) {
        Some(source) => Refusal { message: format!("{source} is a source, whose rows pass by and are not kept"), ..refusal }
            .help(format!("keep what you want to read: CREATE MATERIALIZED VIEW kept AS SELECT * FROM {source}")),
        None => refusal,
    }
}

/// The types that clients of every kind read, all of them with NULL.
fn served_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let data_type = match field.data_type() {
                DataType::Utf8View => DataType::Utf8,
                DataType::BinaryView => DataType::Binary,
                other => other.clone(),
            };
            Field::new(field.name(), data_type, true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn served(batch: &RecordBatch, schema: &SchemaRef) -> freshet_core::Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            Ok(if column.data_type() == field.data_type() { column.clone() } else { arrow::compute::cast(column, field.data_type())? })
        })
        .collect::<freshet_core::Result<Vec<ArrayRef>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn parameters_of(types: &std::collections::HashMap<String, Option<DataType>>) -> Result<SchemaRef> {
    let mut numbered = BTreeMap::new();
    for (name, data_type) in types {
        let number: usize = name
            .trim_start_matches('$')
            .parse()
            .map_err(|_| Refusal::new(format!("the parameter {name} is not a number")).help("write ? or $1, $2, …"))?;
        numbered.insert(number, data_type.clone().unwrap_or(DataType::Utf8));
    }
    let count = numbered.keys().last().copied().unwrap_or(0);
    if numbered.len() != count || numbered.contains_key(&0) {
        return Err(Refusal::new(format!("the parameters must be $1 to ${count} without gaps")));
    }
    Ok(Arc::new(Schema::new(numbered.into_iter().map(|(number, data_type)| Field::new(format!("${number}"), data_type, true)).collect::<Vec<_>>())))
}

/// `$1`, `$2`, … of a plan, with their types.
pub(crate) fn parameters_of_plan(plan: &LogicalPlan) -> Result<SchemaRef> {
    parameters_of(&plan.get_parameter_types()?)
}

/// The values of each row of parameters; one empty row where there are none.
pub(crate) fn parameter_rows_of(expected: &SchemaRef, parameters: Option<&RecordBatch>) -> freshet_core::Result<Vec<Vec<ScalarValue>>> {
    let expected = expected.fields();
    let Some(batch) = parameters else {
        return if expected.is_empty() {
            Ok(vec![Vec::new()])
        } else {
            Err(Error::invalid(format!("the query has {} parameters and got none", expected.len())))
        };
    };
    if batch.num_columns() != expected.len() {
        return Err(Error::invalid(format!("the query has {} parameters and got {}", expected.len(), batch.num_columns())));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(expected)
        .map(|(column, field)| {
            let wrong = |error| Error::invalid(format!("parameter {} cannot be {}: {error}", field.name(), field.data_type()));
            arrow::compute::cast(column, field.data_type()).map_err(wrong)
        })
        .collect::<freshet_core::Result<Vec<ArrayRef>>>()?;
    (0..batch.num_rows())
        .map(|row| {
            columns.iter().map(|column| ScalarValue::try_from_array(column, row).map_err(|error| Error::invalid(error.strip_backtrace()))).collect()
        })
        .collect()
}

/// Views and services a plan reads, each once, in name order.
fn relations_of(plan: &LogicalPlan) -> Result<(Vec<String>, Vec<String>)> {
    let (mut views, mut services) = (Vec::new(), Vec::new());
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && !is_work_table(scan)
        {
            let list = if scan.table_name.schema() == Some(FEATURES_SCHEMA) { &mut services } else { &mut views };
            list.push(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for list in [&mut views, &mut services] {
        list.sort_unstable();
        list.dedup();
    }
    Ok((views, services))
}

pub(crate) fn features_table(service: &str) -> String {
    format!("{FEATURES_SCHEMA}.{service}")
}

/// What `SELECT * FROM FEATURES(service)` shows: keys and request columns, the output list, then status and event_time.
fn features_schema(service: &ServiceDef) -> SchemaRef {
    let mut fields: Vec<Field> = service_input(service).into_iter().map(|field| field.with_nullable(true)).collect();
    let status = Field::new("status", DataType::Utf8, true);
    let event_time = Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
    for field in service.schema.fields().iter().map(|field| field.as_ref().clone()).chain([status, event_time]) {
        if !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(field.with_nullable(true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// For each input column of the service, the values its WHERE gives. Errors: a column without `=` or IN.
fn bindings(plan: &LogicalPlan, service: &ServiceDef) -> Result<Vec<Vec<Expr>>> {
    let mut predicates: Vec<Expr> = Vec::new();
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Filter(filter) if is_features(&filter.input, &service.name) => {
                predicates.extend(split_conjunction(&filter.predicate).into_iter().cloned());
            }
            LogicalPlan::TableScan(_) if is_features(node, &service.name) => scans += 1,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if scans > 1 {
        return Err(Refusal::new(format!("FEATURES({}) stands more than once in one query", service.name)).help("use IN (…) to ask for several keys"));
    }
    service_input(service)
        .iter()
        .map(|field| {
            predicates.iter().find_map(|predicate| values_for(predicate, field.name())).ok_or_else(|| {
                let names: Vec<String> = service_input(service).iter().map(|field| field.name().clone()).collect();
                Refusal::new(format!("FEATURES({}) needs to know {}", service.name, field.name()))
                    .help(format!("WHERE {} = … (each by = or IN, joined by AND)", names.join(" = … AND ")))
            })
        })
        .collect()
}

fn is_features(plan: &LogicalPlan, service: &str) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.table_name.schema() == Some(FEATURES_SCHEMA) && scan.table_name.table() == service,
        LogicalPlan::SubqueryAlias(alias) => is_features(&alias.input, service),
        _ => false,
    }
}

fn values_for(predicate: &Expr, name: &str) -> Option<Vec<Expr>> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == name);
    let is_constant = |expr: &Expr| expr.column_refs().is_empty();
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_column(left) && is_constant(right) => Some(vec![right.as_ref().clone()]),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_column(right) && is_constant(left) => Some(vec![left.as_ref().clone()]),
        Expr::InList(list) if !list.negated && is_column(&list.expr) && list.list.iter().all(is_constant) => Some(list.list.clone()),
        _ => None,
    }
}

/// Looks up every combination of the keys asked for.
fn ask(
    planned: &Planned,
    service: &ServiceDef,
    parameters: &[ScalarValue],
    reader: &dyn Reader,
    catalog: &Catalog,
    point: Option<ReadPoint>,
) -> freshet_core::Result<(RecordBatch, ReadPoint)> {
    let mut planning = catalog.clone();
    for service in &planned.services {
        if let Some(found) = reader.services().into_iter().find(|known| known.def.name == *service) {
            planning.add(&features_table(service), Relation::stored(features_schema(&found.def)));
        }
    }
    let at = point.map_or(Epoch::ZERO, |point| point.q);
    let raw = plan_query(&with_now(&planned.query, at), &planning).map_err(invalid)?;
    let raw = raw.with_param_values(parameters.to_vec()).map_err(|error| Error::invalid(error.strip_backtrace()))?;
    let input = service_input(service);
    let values = bindings(&raw, service)
        .map_err(invalid)?
        .iter()
        .zip(&input)
        .map(|(values, field)| constants(values, field.data_type()))
        .collect::<freshet_core::Result<Vec<ArrayRef>>>()?;
    let rows = combinations(&input, &values)?;
    let mode = point.map_or(ReadMode::Fresh, |point| ReadMode::AsOf(point.q));
    let answer = reader.features(&FeatureRequest { service: service.name.clone(), rows: rows.clone(), mode })?;
    let schema = features_schema(service);
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            if let Some(column) = rows.column_by_name(field.name()).or_else(|| answer.features.column_by_name(field.name())) {
                return Ok(column.clone());
            }
            Ok(match field.name().as_str() {
                "status" => worst_statuses(&answer.statuses, rows.num_rows()),
                _ => latest_times(&answer.event_times, rows.num_rows()),
            })
        })
        .collect::<freshet_core::Result<Vec<ArrayRef>>>()?;
    Ok((RecordBatch::try_new(schema, columns)?, answer.point))
}

fn worst_statuses(statuses: &[Vec<Status>], rows: usize) -> ArrayRef {
    let worst = |row: usize| statuses.iter().map(|column| column[row]).max().map(Status::name);
    Arc::new(arrow::array::StringArray::from((0..rows).map(worst).collect::<Vec<_>>()))
}

fn latest_times(times: &[Vec<Option<EventTime>>], rows: usize) -> ArrayRef {
    let latest = |row: usize| times.iter().filter_map(|column| column[row]).max().map(|time| time.0);
    Arc::new(arrow::array::TimestampNanosecondArray::from((0..rows).map(latest).collect::<Vec<_>>()))
}

fn constants(values: &[Expr], data_type: &DataType) -> freshet_core::Result<ArrayRef> {
    let one_row = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    let parts = values
        .iter()
        .map(|value| {
            let cast = Expr::Cast(Cast::new(Box::new(value.clone()), data_type.clone()));
            crate::expr::compile(&cast, &DFSchema::empty()).map_err(invalid)?.evaluate(&one_row)
        })
        .collect::<freshet_core::Result<Vec<ArrayRef>>>()?;
    Ok(arrow::compute::concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?)
}

fn combinations(input: &[Field], values: &[ArrayRef]) -> freshet_core::Result<RecordBatch> {
    let count = values.iter().try_fold(1usize, |count, column| count.checked_mul(column.len())).filter(|count| *count <= FEATURE_ROWS_MAX);
    let count = count.ok_or_else(|| Error::invalid(format!("the IN lists ask for more than {FEATURE_ROWS_MAX} keys; ask in several queries")))?;
    let mut repeat = count;
    let mut columns = Vec::with_capacity(values.len());
    for column in values {
        repeat /= column.len().max(1);
        let indexes: UInt32Array = (0..count).map(|row| (row / repeat % column.len()) as u32).collect();
        columns.push(arrow::compute::take(column, &indexes, None)?);
    }
    let fields: Vec<Field> = input.iter().map(|field| field.clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
