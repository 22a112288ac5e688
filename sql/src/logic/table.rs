//! A table's rows. In: INSERT, UPDATE and DELETE. Out: the changes each makes, as one epoch, and the content after it.
//!
//! DataFusion evaluates what a statement says over the content of all tables. A row whose primary key is there already replaces the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray, UInt32Array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches, filter_record_batch, take_arrays};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::FormatOptions;
use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, FromTable, Insert, OnInsert, Statement, TableFactor, TableObject, Update, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::parser::Parser;
use freshet_core::Epoch;

use crate::ast::{Stmt, normal_name};
use crate::bind::plan_query;
use crate::compile::{Program, on_large_stack};
use crate::context::{Catalog, Relation};
use crate::dialect::FreshetDialect;
use crate::execute::{execute, memory_table, with_now};
use crate::logic::declaration::Declared;
use crate::parse::parse_query;
use crate::print::query_text;
use crate::tables::spell_constants;
use crate::tokens;

/// The number of a row in its table, while a statement looks for the rows it changes.
const ROW: &str = "freshet$row";

/// A stored table.
#[derive(Debug)]
pub(crate) struct Table {
    pub declared: Declared,
    /// What its users see.
    pub schema: SchemaRef,
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

/// What a statement does to the rows of a table.
struct Changes {
    table: usize,
    /// Numbers of rows that go.
    removed: Vec<u32>,
    /// The user's columns of those that come.
    added: RecordBatch,
    count: usize,
}

impl Table {
    /// `schema` is that of its source.
    pub fn new(declared: Declared, source: SchemaRef, time: Option<usize>) -> Table {
        let columns = source.fields()[..source.fields().len() - 1].to_vec();
        Table { declared, schema: Arc::new(Schema::new(columns)), time, content: RecordBatch::new_empty(source), writes: Vec::new() }
    }

    fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// The user's columns of its rows.
    fn rows(&self) -> RecordBatch {
        self.content.project(&(0..self.width()).collect::<Vec<_>>()).expect("the written time comes last")
    }

    /// As it was at an epoch, with the time of writing.
    pub fn content_at(&self, epoch: Epoch) -> RecordBatch {
        let last = self.writes.iter().rev().find(|write| write.epoch <= epoch);
        last.map_or_else(|| RecordBatch::new_empty(self.content.schema()), |write| write.content.clone())
    }

    fn key(&self) -> Vec<usize> {
        self.declared.key.iter().filter_map(|name| self.schema.index_of(name).ok()).collect()
    }

    /// The greatest event time of these rows, as an epoch.
    fn latest(&self, rows: &RecordBatch) -> Option<u64> {
        let times = cast(rows.column(self.time?), &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?;
        let times = cast(&times, &DataType::Int64).ok()?;
        arrow::compute::max(times.as_primitive::<Int64Type>()).map(|nanoseconds| (nanoseconds.max(0) as u64).div_ceil(1_000_000))
    }
}

impl Tables {
    /// Carries the statement out; the number of rows it changed. Errors: what is wrong with it; nothing has changed then.
    pub fn write(&mut self, text: &str, program: &Program) -> Result<usize, String> {
        let parsed = tokens::tokenize("statement", text, None).map_err(|error| error.to_string())?;
        let mut parsed = Parser::new(&FreshetDialect).with_tokens_with_locations(tokens::rewrite(parsed));
        let statement = parsed.parse_statement().map_err(|error| error.to_string())?;
        let changes = match statement {
            Statement::Insert(insert) => self.insert(&insert, program)?,
            Statement::Update(update) => self.update(&update, program)?,
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                let [target] = from.as_slice() else { return Err("DELETE takes rows from one table".into()) };
                let (table, mut tables) = self.target(&target.relation)?;
                tables.extend(delete.using.iter().flatten().map(ToString::to_string));
                let condition = delete.selection.as_ref().map_or("TRUE".to_string(), ToString::to_string);
                let found = self.evaluate(&format!("SELECT DISTINCT {ROW:?} FROM {} WHERE {condition}", tables.join(", ")), Some(table), program)?;
                let removed = numbers(found.column(0));
                Changes { table, count: removed.len(), removed, added: RecordBatch::new_empty(self.all[table].schema.clone()) }
            }
            _ => return Err("only INSERT, UPDATE and DELETE change rows".into()),
        };
        let count = changes.count;
        self.apply(changes)?;
        Ok(count)
    }

    /// Fills a table that CREATE TABLE … AS has just made.
    pub fn fill(&mut self, table: usize, query: &str, program: &Program) -> Result<usize, String> {
        let rows = self.evaluate(query, None, program)?;
        let columns = rows.columns().iter().zip(self.all[table].schema.fields()).map(|(column, field)| cast_to(column, field.data_type()));
        let added = batch(&self.all[table].schema, columns.collect::<Result<_, _>>()?, rows.num_rows())?;
        self.apply(Changes { table, removed: Vec::new(), count: added.num_rows(), added })?;
        Ok(rows.num_rows())
    }

    /// The columns of a query's answer: what CREATE TABLE … AS declares.
    pub fn schema_of(&self, query: &str, program: &Program) -> Result<SchemaRef, String> {
        Ok(self.evaluate(query, None, program)?.schema())
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        self.named.get(name).copied().ok_or_else(|| format!("there is no table named {name} to write to"))
    }

    /// The table of an UPDATE or DELETE, and how its FROM reads.
    fn target(&self, relation: &TableFactor) -> Result<(usize, Vec<String>), String> {
        let TableFactor::Table { name, .. } = relation else { return Err(format!("{relation} is no table")) };
        let last = name.0.last().and_then(|part| part.as_ident()).ok_or("the table has no name")?;
        Ok((self.index(&normal_name(last))?, vec![relation.to_string()]))
    }

    fn insert(&self, insert: &Insert, program: &Program) -> Result<Changes, String> {
        let TableObject::TableName(name) = &insert.table else { return Err("INSERT takes the name of a table".into()) };
        let last = name.0.last().and_then(|part| part.as_ident()).ok_or("the table has no name")?;
        let index = self.index(&normal_name(last))?;
        let table = &self.all[index];
        let query = insert.source.as_ref().ok_or("INSERT needs VALUES or a query")?;
        let writable = table.declared.columns.iter().filter(|column| column.computed.is_none()).map(|column| column.name.clone());
        let named = insert.columns.iter().filter_map(|name| name.0.last()?.as_ident()).map(normal_name);
        let mut names: Vec<String> = if insert.columns.is_empty() { writable.collect() } else { named.collect() };
        let mut query = query.clone();
        if let Ok(types) =
            names.iter().map(|name| Ok(table.schema.field_with_name(name)?.data_type().clone())).collect::<Result<Vec<_>, ArrowError>>()
        {
            spell_constants(&mut query, &types);
        }
        let given = self.evaluate(&query_text(&query), None, program)?;
        if insert.columns.is_empty() {
            names.truncate(given.num_columns());
        }
        if let Some(unknown) = names.iter().find(|name| table.schema.index_of(name).is_err()) {
            return Err(format!("table {} has no column {unknown}", table.declared.name));
        }
        if names.len() != given.num_columns() {
            return Err(format!("{} columns are named and {} given", names.len(), given.num_columns()));
        }
        let mut columns = Vec::new();
        for (declared, field) in table.declared.columns.iter().zip(table.schema.fields()) {
            let column = match (names.iter().position(|name| *name == declared.name), &declared.default) {
                (Some(at), _) => given.column(at).clone(),
                (None, Some(default)) => {
                    let value = self.evaluate(&format!("SELECT {default}"), None, program)?;
                    arrow::compute::take(value.column(0), &UInt32Array::from(vec![0; given.num_rows()]), None).map_err(|error| error.to_string())?
                }
                (None, None) => arrow::array::new_null_array(field.data_type(), given.num_rows()),
            };
            columns.push(cast_to(&column, field.data_type()).map_err(|error| format!("column {}: {error}", declared.name))?);
        }
        let added = self.computed(index, batch(&table.schema, columns, given.num_rows())?, program)?;
        let count = added.num_rows();
        match &insert.on {
            None => self.replacing(index, added, false),
            Some(OnInsert::OnConflict(conflict)) if conflict.action.to_string() == "DO NOTHING" => self.replacing(index, added, true),
            Some(other) => Err(format!("{other} is not supported; an INSERT of a key that is there replaces its row")),
        }
        .map(|changes| Changes { count: changes.count.min(count), ..changes })
    }

    fn update(&self, update: &Update, program: &Program) -> Result<Changes, String> {
        let (index, mut tables) = self.target(&update.table.relation)?;
        let table = &self.all[index];
        if let Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) = &update.from {
            tables.extend(from.iter().map(ToString::to_string));
        }
        let mut set = Vec::new();
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else { return Err("SET takes one column at a time".into()) };
            let name = name.0.last().and_then(|part| part.as_ident()).map(normal_name).unwrap_or_default();
            let column = table.schema.index_of(&name).map_err(|_| format!("table {} has no column {name}", table.declared.name))?;
            set.push((column, format!("{} AS {:?}", assignment.value, format!("freshet${column}"))));
        }
        let wanted = std::iter::once(format!("{ROW:?}")).chain(set.iter().map(|(_, text)| text.clone())).collect::<Vec<_>>().join(", ");
        let condition = update.selection.as_ref().map_or("TRUE".to_string(), ToString::to_string);
        let found = self.evaluate(&format!("SELECT {wanted} FROM {} WHERE {condition}", tables.join(", ")), Some(index), program)?;
        // A row that several rows of FROM meet takes its values from one of them.
        let mut firsts: BTreeMap<u32, u32> = BTreeMap::new();
        numbers(found.column(0)).into_iter().enumerate().for_each(|(at, row)| {
            firsts.entry(row).or_insert(at as u32);
        });
        let (removed, at): (Vec<u32>, Vec<u32>) = firsts.into_iter().unzip();
        let pick =
            |columns: &[ArrayRef], rows: &[u32]| take_arrays(columns, &UInt32Array::from(rows.to_vec()), None).map_err(|error| error.to_string());
        let mut columns = pick(table.rows().columns(), &removed)?;
        let values = pick(found.columns(), &at)?;
        for (value, (column, _)) in values[1..].iter().zip(&set) {
            columns[*column] = cast_to(value, table.schema.field(*column).data_type())?;
        }
        let added = self.computed(index, batch(&table.schema, columns, removed.len())?, program)?;
        Ok(Changes { table: index, count: removed.len(), removed, added })
    }

    /// With the columns that are computed from others, and no NULL where none may be.
    fn computed(&self, index: usize, rows: RecordBatch, program: &Program) -> Result<RecordBatch, String> {
        let table = &self.all[index];
        let mut columns = rows.columns().to_vec();
        for (at, declared) in table.declared.columns.iter().enumerate() {
            if let Some(expression) = &declared.computed {
                let mut catalog = self.catalog(None, program)?;
                let relation = memory_table(nullable(&rows.schema()), vec![rows.clone()]).map_err(|error| error.message)?;
                catalog.relations.insert("freshet$new".into(), relation);
                let values = run(&format!("SELECT {expression} FROM \"freshet$new\""), &catalog, Epoch(self.clock + 1))?;
                columns[at] = cast_to(values.column(0), table.schema.field(at).data_type())?;
            }
            if (declared.not_null || table.declared.key.contains(&declared.name)) && columns[at].null_count() > 0 {
                return Err(format!("column {} of {} takes no NULL", declared.name, table.declared.name));
            }
        }
        batch(&table.schema, columns, rows.num_rows())
    }

    /// Rows of a key that is there replace it, or are left out.
    fn replacing(&self, index: usize, added: RecordBatch, keep_old: bool) -> Result<Changes, String> {
        let table = &self.all[index];
        let key = table.key();
        if key.is_empty() {
            return Ok(Changes { table: index, removed: Vec::new(), count: added.num_rows(), added });
        }
        let (old, new) = (keys(&table.rows(), &key)?, keys(&added, &key)?);
        let places: BTreeMap<&OwnedRow, u32> = old.iter().enumerate().map(|(at, key)| (key, at as u32)).collect();
        let mut last: BTreeMap<&OwnedRow, usize> = BTreeMap::new();
        for (at, key) in new.iter().enumerate() {
            if keep_old && (places.contains_key(key) || last.contains_key(key)) {
                continue;
            }
            last.insert(key, at);
        }
        let kept = BooleanArray::from((0..new.len()).map(|at| last.get(&new[at]) == Some(&at)).collect::<Vec<_>>());
        let removed = last.keys().filter_map(|key| places.get(*key).copied()).collect();
        let added = filter_record_batch(&added, &kept).map_err(|error| error.to_string())?;
        let count = if keep_old { added.num_rows() } else { new.len() };
        Ok(Changes { table: index, removed, count, added })
    }

    /// Makes a write of it, at the next epoch.
    fn apply(&mut self, changes: Changes) -> Result<(), String> {
        let Changes { table, removed, added, .. } = changes;
        if removed.is_empty() && added.num_rows() == 0 {
            return Ok(());
        }
        let table = &mut self.all[table];
        if table.declared.append_only && !removed.is_empty() {
            return Err(format!("table {} is APPEND ONLY: its rows stay", table.declared.name));
        }
        let epoch = (self.clock + 1).max(table.latest(&added).unwrap_or(0));
        let schema = table.content.schema();
        let at = |rows: usize| -> ArrayRef { Arc::new(TimestampMillisecondArray::from(vec![epoch as i64; rows])) };
        let timed = |columns: &[ArrayRef], rows: usize| batch(&schema, columns.iter().cloned().chain([at(rows)]).collect(), rows);
        let gone = take_arrays(table.content.columns(), &UInt32Array::from(removed.clone()), None).map_err(|error| error.to_string())?;
        let gone = batch(&schema, gone, removed.len())?;
        let added = timed(added.columns(), added.num_rows())?;
        // What goes has old times. A row that comes and goes with it makes the record one of now.
        let marker = timed(&gone.columns()[..table.schema.fields().len()], gone.num_rows())?.slice(0, gone.num_rows().min(1));
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

    /// Tables and views by name; `numbered` has the column of row numbers.
    fn catalog(&self, numbered: Option<usize>, program: &Program) -> Result<Catalog, String> {
        let mut catalog = Catalog::default();
        for (name, index) in &self.named {
            let mut rows = self.all[*index].rows();
            if numbered == Some(*index) {
                let fields = rows.schema().fields().iter().cloned().chain([Arc::new(Field::new(ROW, DataType::Int64, false))]).collect::<Vec<_>>();
                let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64));
                let columns = rows.columns().iter().cloned().chain([numbers]).collect();
                rows = batch(&Arc::new(Schema::new(fields)), columns, rows.num_rows())?;
            }
            let relation = memory_table(rows.schema(), vec![rows]).map_err(|error| error.message)?;
            catalog.relations.insert(name.clone(), relation);
        }
        for statement in &program.statements {
            let (Stmt::CreateView(crate::ast::CreateView { name, query, .. })
            | Stmt::CreateMaterializedView(crate::ast::CreateMaterializedView { name, query, .. })) = &statement.body
            else {
                continue;
            };
            let name = normal_name(name);
            if !self.named.contains_key(&name)
                && let Ok(plan) = plan_query(&with_now(query, Epoch(self.clock + 1)), &catalog)
            {
                catalog.add(&name, Relation::inlined(plan));
            }
        }
        Ok(catalog)
    }

    fn evaluate(&self, query: &str, numbered: Option<usize>, program: &Program) -> Result<RecordBatch, String> {
        on_large_stack(|| run(query, &self.catalog(numbered, program)?, Epoch(self.clock + 1))).unwrap_or_else(Err)
    }
}

fn run(query: &str, catalog: &Catalog, now: Epoch) -> Result<RecordBatch, String> {
    let query = parse_query(query).map_err(|error| error.to_string())?;
    let plan = plan_query(&with_now(&query, now), catalog).map_err(|refusal| refusal.message)?;
    let schema: SchemaRef = nullable(&Arc::new(plan.schema().as_arrow().clone()));
    let batches = execute(plan).map_err(|error| error.message)?;
    let typed = |found: &RecordBatch| batch(&schema, found.columns().to_vec(), found.num_rows());
    let batches = batches.iter().map(typed).collect::<Result<Vec<_>, _>>()?;
    concat_batches(&schema, &batches).map_err(|error| error.to_string())
}

/// All columns may be NULL, and names play no part any more.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| error.to_string())
}

fn numbers(column: &ArrayRef) -> Vec<u32> {
    column.as_primitive::<Int64Type>().values().iter().map(|number| *number as u32).collect()
}

/// A value that does not fit is an error.
fn cast_to(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(column, data_type, &options).map_err(|error| error.to_string())
}

fn keys(rows: &RecordBatch, key: &[usize]) -> Result<Vec<OwnedRow>, String> {
    let fields = key.iter().map(|column| SortField::new(rows.schema().field(*column).data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(|error| error.to_string())?;
    let columns: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
    let rows = converter.convert_columns(&columns).map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|row| row.owned()).collect())
}
