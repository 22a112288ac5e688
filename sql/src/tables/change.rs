//! What an INSERT, UPDATE or DELETE changes. In: the statement and the rows it sees. Out: rows taken out, rows put in and what RETURNING tells, or
//! why not, with its place.
//!
//! DataFusion plans the statement and computes its rows in one batch: a value that cannot be computed refuses the statement as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_arrays};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{ObjectName, OnConflictAction, Statement};
use freshet_core::{KeyCodec, SourceDef, evaluate_rows};

use super::Stored;
use super::affected::{EXCLUDED, Reach, Reached, of_conflict};
use super::content::keys_of;
use super::literals::spell_constants;
use super::refused::{check_conflict, check_width, failed, placed, refuse_nulls, refuse_taken_keys};
use super::returning::Returning;
use crate::ast::{Write, normal_name};
use crate::bind::parser_options;
use crate::context::Catalog;
use crate::execute::{execute, memory_table};
use crate::refusal::{Refusal, Result};

/// Rows of the columns that a table carries.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Each of them is in the table.
    pub removed: RecordBatch,
    pub added: RecordBatch,
    /// What the client is told.
    pub count: usize,
    /// The rows of RETURNING.
    pub returned: Option<RecordBatch>,
}

/// A statement planned against its table.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Yields the rows of an INSERT, or what is set in which rows. Takes the values of parameters.
    pub plan: LogicalPlan,
    /// What is told of each changed row.
    returning: Option<Returning>,
}

/// What one statement does, with one row of parameters.
struct Step {
    /// Numbers of rows that go.
    removed: Vec<u32>,
    /// Rows that come: all columns.
    added: RecordBatch,
    /// Rows that RETURNING tells of: all columns.
    told: RecordBatch,
}

impl Planned {
    /// The columns of RETURNING.
    pub fn answer(&self) -> Option<SchemaRef> {
        self.returning.as_ref().map(Returning::schema)
    }
}

/// Plans the statement. `content` are the rows of its table, all columns.
pub(crate) fn plan(write: &Write, table: &Stored, content: &RecordBatch, catalog: &Catalog) -> Result<Planned> {
    check_conflict(write, table)?;
    let plan = match Reach::of(write) {
        Some(reach) => reach.plan(table, content, catalog).map_err(|refusal| placed(refusal, write))?,
        None => insertion(write, table, content, catalog)?,
    };
    Ok(Planned { plan, returning: Returning::plan(write, table, catalog)? })
}

/// The rows of an INSERT in the carried columns, with defaults.
fn insertion(write: &Write, table: &Stored, content: &RecordBatch, catalog: &Catalog) -> Result<LogicalPlan> {
    check_width(write, table)?;
    let mut catalog = catalog.clone();
    catalog.relations.insert(normal_name(&write.table), target(table, content)?);
    let mut statement = write.statement.clone();
    if let Statement::Insert(insert) = &mut statement {
        (insert.on, insert.returning, insert.table_alias) = (None, None, None);
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
    let LogicalPlan::Dml(dml) = planner.sql_statement_to_plan(statement).map_err(|error| placed(error.into(), write))? else {
        return Err(Refusal::new("this statement changes nothing"));
    };
    Ok(Arc::unwrap_or_clone(dml.input))
}

/// The table as DataFusion sees it where rows are inserted: without computed columns.
fn target(table: &Stored, content: &RecordBatch) -> Result<Arc<dyn TableSource>> {
    let schema = nullable(&table.carried);
    let memory = MemTable::try_new(schema.clone(), vec![vec![with_schema(&table.carried_of(content), &schema)?]])?;
    let defaults: HashMap<String, Expr> = table.defaults.iter().map(|(name, expr)| (name.clone(), expr.clone())).collect();
    Ok(provider_as_source(Arc::new(memory.with_column_defaults(defaults))))
}

/// Runs what was planned, once for each row of parameters, each over what the one before has left.
pub(crate) fn evaluate(
    write: &Write,
    table: &Stored,
    planned: &Planned,
    parameters: Vec<Vec<ScalarValue>>,
    (content, catalog): (&RecordBatch, &Catalog),
) -> Result<Change> {
    let schema = nullable(&table.def.schema);
    let mut now = with_schema(content, &schema)?;
    let (mut counts, mut told) = (Counts::new(table)?, Vec::new());
    let only_adds = Reach::of(write).is_none() && write.conflict().is_none();
    let several = parameters.len() > 1;
    let mut count = 0;
    for values in parameters {
        let plan = match Reach::of(write) {
            // Planned again over the rows as they are now.
            Some(reach) if several => reach.plan(table, &now, catalog)?,
            _ => planned.plan.clone(),
        };
        let answer = execute(plan.with_param_values(values)?).map_err(|error| failed(write, table, error.message))?;
        let step = step(write, table, &answer, (&now, catalog))?;
        count += step.removed.len().max(step.added.num_rows());
        if !only_adds {
            counts.change(&table.carried_of(&take_rows(&now, &step.removed)?), -1)?;
            counts.change(&table.carried_of(&step.added), 1)?;
        }
        told.push(step.told);
        if several && !only_adds {
            now = concat_batches(&schema, [&without_rows(&now, &step.removed)?, &step.added]).map_err(of_arrow)?;
        }
    }
    let told = concat_batches(&schema, &told).map_err(of_arrow)?;
    let (removed, added) = match only_adds {
        // In their order: of a key that stands twice the last row counts.
        true => (RecordBatch::new_empty(table.carried.clone()), with_schema(&table.carried_of(&told), &table.carried)?),
        false => counts.finish(table)?,
    };
    let returned = planned.returning.as_ref().map(|returning| returning.of(&told)).transpose()?;
    Ok(Change { removed, added, count, returned })
}

fn step(write: &Write, table: &Stored, answer: &[RecordBatch], (now, catalog): (&RecordBatch, &Catalog)) -> Result<Step> {
    if let Some(reach) = Reach::of(write) {
        let Reached { rows, changed } = reach.reached(table, now, answer)?;
        if write.verb() == "DELETE" {
            return Ok(Step { removed: rows, added: now.slice(0, 0), told: changed });
        }
        let added = finished(write, table, &table.carried_of(&changed))?;
        refuse_taken_keys(write, table, (&rows, &added), now)?;
        return Ok(Step { removed: rows, told: added.clone(), added });
    }
    let carried = nullable(&table.carried);
    let parts = answer.iter().map(|part| with_schema(part, &carried)).collect::<Result<Vec<_>>>()?;
    let inserted = finished(write, table, &concat_batches(&carried, &parts).map_err(of_arrow)?)?;
    let Some(conflict) = write.conflict().filter(|_| !table.def.key.is_empty()) else {
        return Ok(Step { removed: Vec::new(), told: inserted.clone(), added: inserted });
    };
    let mut known: BTreeSet<Vec<u8>> = keys_of(now, &table.def.key).map_err(core_error)?.into_iter().collect();
    let keys = keys_of(&inserted, &table.def.key).map_err(core_error)?;
    let OnConflictAction::DoUpdate(update) = &conflict.action else {
        // Only rows whose key is new, the first of each.
        let kept: BooleanArray = keys.into_iter().map(|key| Some(known.insert(key))).collect();
        let added = filter_record_batch(&inserted, &kept).map_err(of_arrow)?;
        return Ok(Step { removed: Vec::new(), told: added.clone(), added });
    };
    if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
        return Err(Refusal::new("two rows of the INSERT have the same PRIMARY KEY, so that ON CONFLICT DO UPDATE would change a row twice")
            .help("insert one row for each key")
            .at(write.table.span));
    }
    let is_new: BooleanArray = keys.iter().map(|key| Some(!known.contains(key))).collect();
    let new = filter_record_batch(&inserted, &is_new).map_err(of_arrow)?;
    let mut assignments = update.assignments.clone();
    let reach = of_conflict(table, &write.alias(), &mut assignments, update.selection.clone())?;
    let mut catalog = catalog.clone();
    catalog.relations.insert(EXCLUDED.into(), memory_table(inserted.schema(), vec![inserted.clone()]).map_err(core_error)?);
    let plan = reach.plan(table, now, &catalog).map_err(|refusal| placed(refusal, write))?;
    let answer = execute(plan).map_err(|error| Refusal::new(error.message).at(write.table.span))?;
    let Reached { rows, changed } = reach.reached(table, now, &answer)?;
    let changed = finished(write, table, &table.carried_of(&changed))?;
    let added = concat_batches(&changed.schema(), [&changed, &new]).map_err(of_arrow)?;
    refuse_taken_keys(write, table, (&rows, &added), now)?;
    Ok(Step { removed: rows, told: added.clone(), added })
}

/// Rows of carried columns as the table will have them: with computed columns. Errors: a NULL where none may be.
fn finished(write: &Write, table: &Stored, carried: &RecordBatch) -> Result<RecordBatch> {
    refuse_nulls(write, table, carried)?;
    with_schema(&complete(&table.def, carried)?, &nullable(&table.def.schema))
}

fn take_rows(rows: &RecordBatch, numbers: &[u32]) -> Result<RecordBatch> {
    let columns = take_arrays(rows.columns(), &UInt32Array::from(numbers.to_vec()), None).map_err(of_arrow)?;
    typed(columns, numbers.len(), &rows.schema())
}

fn without_rows(rows: &RecordBatch, numbers: &[u32]) -> Result<RecordBatch> {
    let gone: BTreeSet<u32> = numbers.iter().copied().collect();
    let kept: BooleanArray = (0..rows.num_rows() as u32).map(|row| Some(!gone.contains(&row))).collect();
    filter_record_batch(rows, &kept).map_err(of_arrow)
}

/// What all steps together take out and put in, in the order of first mention.
struct Counts {
    schema: SchemaRef,
    codec: KeyCodec,
    order: Vec<Vec<u8>>,
    counts: HashMap<Vec<u8>, i64>,
}

impl Counts {
    fn new(table: &Stored) -> Result<Counts> {
        let schema = nullable(&table.carried);
        Ok(Counts { codec: KeyCodec::for_schema(&schema).map_err(core_error)?, schema, order: Vec::new(), counts: HashMap::new() })
    }

    fn change(&mut self, rows: &RecordBatch, diff: i64) -> Result<()> {
        let encoded = self.codec.encode(with_schema(rows, &self.schema)?.columns()).map_err(core_error)?;
        for row in 0..rows.num_rows() {
            let bytes = encoded.row(row).as_ref().to_vec();
            if !self.counts.contains_key(&bytes) {
                self.order.push(bytes.clone());
            }
            *self.counts.entry(bytes).or_default() += diff;
        }
        Ok(())
    }

    fn finish(self, table: &Stored) -> Result<(RecordBatch, RecordBatch)> {
        let side = |sign: i64| {
            let times = |bytes: &Vec<u8>| (self.counts[bytes] * sign).max(0) as usize;
            let rows = self.order.iter().flat_map(|bytes| std::iter::repeat_n(bytes.as_slice(), times(bytes)));
            let rows = self.codec.decode_batch(&self.schema, rows).map_err(core_error)?;
            with_schema(&rows, &table.carried)
        };
        Ok((side(-1)?, side(1)?))
    }
}

/// All rows of these batches in one. Errors: they are of another schema.
pub(crate) fn one_batch(schema: &SchemaRef, parts: &[RecordBatch]) -> Result<RecordBatch> {
    let schema = nullable(schema);
    let parts = parts.iter().map(|part| with_schema(part, &schema)).collect::<Result<Vec<_>>>()?;
    concat_batches(&schema, &parts).map_err(of_arrow)
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

pub(super) fn of_arrow(error: arrow::error::ArrowError) -> Refusal {
    Refusal::new(error.to_string())
}

pub(crate) fn core_error(error: freshet_core::Error) -> Refusal {
    Refusal::new(error.message)
}
