//! A table's rows. In: INSERT, UPDATE and DELETE, as the product carries them out. Out: the changes each makes, as one epoch, and the content after
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMillisecondArray, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_arrays};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::Location;
use freshet_core::{Epoch, KeyCodec};

use crate::ast::{Query, Stmt, normal_name};
use crate::bind::plan_query;
use crate::compile::{Program, on_large_stack};
use crate::context::{Catalog, Relation};
use crate::execute::{execute, memory_table, with_now};
use crate::logic::declaration::Declared;
use crate::parse::parse_write;
use crate::refusal::Refusal;
use crate::tables::{Stored, change, keys_of};

/// A stored table.
#[derive(Debug)]
pub(crate) struct Table {
    pub declared: Declared,
    stored: Stored,
    /// The column of WATERMARK.
    time: Option<usize>,
    /// The user's columns, and when each row was written.
    content: RecordBatch,
    pub writes: Vec<Write>,
}

/// What one statement changed.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub epoch: Epoch,
    pub rows: RecordBatch,
    pub diffs: Vec<i64>,
    /// Within this write: rows of one record enter as one.
    pub records: Vec<u64>,
    /// All rows of the table after it.
    pub content: RecordBatch,
}

/// The tables that a statement may name, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub all: Vec<Table>,
    /// Those that have not been dropped.
    pub named: BTreeMap<String, usize>,
    /// The epoch of the last write; before the first one, an instant at which nothing has happened yet.
    pub clock: u64,
}

/// What a statement did: how many rows it changed, and the rows of RETURNING.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub count: usize,
    pub returned: Option<RecordBatch>,
}

impl Done {
    pub fn of(count: usize) -> Done {
        Done { count, returned: None }
    }
}

impl Table {
    /// `source` is the schema of its source.
    pub fn new(declared: Declared, stored: Stored, source: SchemaRef, time: Option<usize>) -> Table {
        Table { declared, stored, time, content: RecordBatch::new_empty(source), writes: Vec::new() }
    }

    /// The user's columns of its rows.
    fn rows(&self) -> RecordBatch {
        let width = self.content.num_columns() - 1;
        self.content.project(&(0..width).collect::<Vec<_>>()).expect("the written time comes last")
    }

    /// As it was at an epoch, with the time of writing.
    pub fn content_at(&self, epoch: Epoch) -> RecordBatch {
        let last = self.writes.iter().rev().find(|write| write.epoch <= epoch);
        last.map_or_else(|| RecordBatch::new_empty(self.content.schema()), |write| write.content.clone())
    }

    /// The greatest event time of these rows, as an epoch.
    fn latest(&self, rows: &RecordBatch) -> Option<u64> {
        let times = cast(rows.column(self.time?), &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?;
        let times = cast(&times, &DataType::Int64).ok()?;
        arrow::compute::max(times.as_primitive::<Int64Type>()).map(|nanoseconds| (nanoseconds.max(0) as u64).div_ceil(1_000_000))
    }

    /// Rows that are in the table, by number; each stands for one.
    fn numbers_of(&self, rows: &RecordBatch) -> Result<Vec<u32>, String> {
        let encoded = |rows: &RecordBatch| -> freshet_core::Result<Vec<Vec<u8>>> {
            let codec = KeyCodec::for_schema(&rows.schema())?;
            let encoded = codec.encode(rows.columns())?;
            Ok((0..rows.num_rows()).map(|row| encoded.row(row).as_ref().to_vec()).collect())
        };
        let mut places: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        let own = encoded(&self.stored.carried_of(&self.rows())).map_err(|error| error.message)?;
        own.into_iter().enumerate().for_each(|(row, bytes)| places.entry(bytes).or_default().push(row as u32));
        let wanted = encoded(rows).map_err(|error| error.message)?;
        Ok(wanted.iter().filter_map(|bytes| places.get_mut(bytes)?.pop()).collect())
    }
}

impl Tables {
    /// Carries the statement out. Errors: what is wrong with it; nothing has changed then.
    pub fn write(&mut self, text: &str, program: &Program) -> Result<Done, String> {
        let now = Epoch(self.clock + 1);
        let Some(Stmt::Write(mut write)) = parse_write(text).map_err(|error| error.to_string())? else {
            return Err("only INSERT, UPDATE and DELETE change rows".into());
        };
        write.statement = with_now(&write.statement, now);
        let index = *self.named.get(&normal_name(&write.table)).ok_or("there is no such table")?;
        let table = &self.all[index];
        let carried_out = on_large_stack(|| -> Result<change::Change, Refusal> {
            let catalog = self.catalog(program).map_err(Refusal::new)?;
            let content = change::one_batch(&table.stored.def.schema, &[table.rows()])?;
            let planned = change::plan(&write, &table.stored, &content, &catalog)?;
            change::evaluate(&write, &table.stored, &planned, vec![Vec::new()], (&content, &catalog))
        });
        let placed = |refusal: Refusal| refusal.into_error("statement", Location { line: 1, column: 1 }).to_string();
        let change = carried_out?.map_err(placed)?;
        let done = Done { count: change.count, returned: change.returned };
        let (mut removed, mut added) = (table.numbers_of(&change.removed)?, change.added);
        let key = &table.stored.def.key;
        if !key.is_empty() {
            // A row whose key is there replaces it; of several the last one.
            let new = keys_of(&added, &table.stored.carried_key()).map_err(|error| error.message)?;
            let last: HashMap<&Vec<u8>, usize> = new.iter().zip(0..).collect();
            let gone: BTreeSet<u32> = removed.iter().copied().collect();
            let old = keys_of(&table.rows(), key).map_err(|error| error.message)?;
            removed.extend((0..).zip(&old).filter(|(row, key)| last.contains_key(key) && !gone.contains(row)).map(|(row, _)| row));
            let kept: BooleanArray = (0..new.len()).map(|row| Some(last[&new[row]] == row)).collect();
            added = filter_record_batch(&added, &kept).map_err(|error| error.to_string())?;
        }
        let added = change::complete(&table.stored.def, &added).map_err(|refusal| refusal.message)?;
        self.apply(index, removed, added)?;
        Ok(done)
    }

    /// Fills a table that CREATE TABLE … AS has just made.
    pub fn fill(&mut self, table: usize, query: &Query, program: &Program) -> Result<usize, String> {
        let rows = self.evaluate(query, program)?;
        let schema = self.all[table].stored.def.schema.clone();
        let added = change::with_schema(&rows, &change::nullable(&schema)).map_err(|refusal| refusal.message)?;
        let count = added.num_rows();
        self.apply(table, Vec::new(), added)?;
        Ok(count)
    }

    /// The columns of a query's answer: what CREATE TABLE … AS declares.
    pub fn schema_of(&self, query: &Query, program: &Program) -> Result<SchemaRef, String> {
        Ok(self.evaluate(query, program)?.schema())
    }

    /// Makes a write of it, at the next epoch.
    fn apply(&mut self, table: usize, mut removed: Vec<u32>, added: RecordBatch) -> Result<(), String> {
        removed.sort_unstable();
        if removed.is_empty() && added.num_rows() == 0 {
            return Ok(());
        }
        let table = &mut self.all[table];
        if table.declared.append_only && !removed.is_empty() {
            return Err(format!("table {} is APPEND ONLY: its rows stay", table.declared.name()));
        }
        let epoch = (self.clock + 1).max(table.latest(&added).unwrap_or(0));
        let schema = table.content.schema();
        let at = |rows: usize| -> ArrayRef { Arc::new(TimestampMillisecondArray::from(vec![epoch as i64; rows])) };
        let timed = |columns: &[ArrayRef], rows: usize| batch(&schema, columns.iter().cloned().chain([at(rows)]).collect(), rows);
        let gone = take_arrays(table.content.columns(), &UInt32Array::from(removed.clone()), None).map_err(|error| error.to_string())?;
        let gone = batch(&schema, gone, removed.len())?;
        let added = timed(added.columns(), added.num_rows())?;
        // What goes has old times. A row that comes and goes with it makes the record one of now.
        let marker = timed(&gone.columns()[..gone.num_columns() - 1], gone.num_rows())?.slice(0, gone.num_rows().min(1));
        let parts = [&marker, &marker, &gone, &added];
        let rows = concat_batches(&schema, parts).map_err(|error| error.to_string())?;
        let diffs = parts.iter().zip([1, -1, -1, 1]).flat_map(|(part, diff)| vec![diff; part.num_rows()]).collect();
        let first = u64::from(!removed.is_empty());
        let records = (0..rows.num_rows() - added.num_rows()).map(|_| 0).chain((0..added.num_rows()).map(|row| first + row as u64)).collect();
        let kept = BooleanArray::from((0..table.content.num_rows()).map(|row| !removed.contains(&(row as u32))).collect::<Vec<_>>());
        let kept = filter_record_batch(&table.content, &kept).map_err(|error| error.to_string())?;
        table.content = concat_batches(&schema, [&kept, &added]).map_err(|error| error.to_string())?;
        table.writes.push(Write { epoch: Epoch(epoch), rows, diffs, records, content: table.content.clone() });
        self.clock = epoch;
        Ok(())
    }

    /// Tables and views by name.
    fn catalog(&self, program: &Program) -> Result<Catalog, String> {
        let mut catalog = Catalog::default();
        for (name, index) in &self.named {
            let rows = self.all[*index].rows();
            catalog.relations.insert(name.clone(), memory_table(rows.schema(), vec![rows]).map_err(|error| error.message)?);
        }
        for statement in &program.statements {
            let (Stmt::CreateView(crate::ast::CreateView { name, query, .. })
            | Stmt::CreateMaterializedView(crate::ast::CreateMaterializedView { name, query, .. })) = &statement.body
            else {
                continue;
            };
            let name = normal_name(name);
            if !self.named.contains_key(&name)
                && let Ok(plan) = plan_query(&with_now(query.as_ref(), Epoch(self.clock + 1)), &catalog)
            {
                catalog.add(&name, Relation::inlined(plan));
            }
        }
        Ok(catalog)
    }

    fn evaluate(&self, query: &Query, program: &Program) -> Result<RecordBatch, String> {
        let found = on_large_stack(|| -> Result<RecordBatch, String> {
            let plan = plan_query(&with_now(query, Epoch(self.clock + 1)), &self.catalog(program)?).map_err(|refusal| refusal.message)?;
            let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
            let batches = execute(plan).map_err(|error| error.message)?;
            change::one_batch(&schema, &batches).map_err(|refusal| refusal.message)
        });
        found.unwrap_or_else(Err)
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| error.to_string())
}
