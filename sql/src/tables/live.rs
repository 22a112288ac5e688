//! Statements of clients over the tables of a running pipeline. In: text, parameters and a reader. Out: what is to be pushed into the table, as one
//! change at one epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Location;
use freshet_core::{Epoch, Error, Format, Reader};

use super::{Stored, change};
use crate::ast::{Stmt, Write, normal_name};
use crate::compile::on_large_stack;
use crate::context::Catalog;
use crate::error::{SqlError, nearest};
use crate::execute::{memory_table, with_now};
use crate::parse::parse_write;
use crate::query::{parameter_rows_of, parameters_of_plan};
use crate::refusal::{Refusal, Result};

/// What clients are told of a statement that writes: how many rows it changed.
pub fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("rows", DataType::Int64, true)]))
}

/// The tables of a pipeline that statements may change.
#[derive(Debug, Clone, Default)]
pub struct Tables(Arc<BTreeMap<String, Stored>>);

/// What a statement asks for.
#[derive(Debug, Clone)]
pub enum Written {
    /// Rows for the push source `table`, +1 or −1 each; all of them enter at one epoch.
    /// `returned` are the rows of RETURNING.
    Change { table: String, rows: RecordBatch, diffs: Vec<i64>, count: u64, returned: Option<RecordBatch> },
    /// Wait until everything that was written is visible.
    Flush,
}

impl Tables {
    pub(crate) fn new(tables: &BTreeMap<String, Stored>) -> Tables {
        Tables(Arc::new(tables.clone()))
    }

    /// Their names.
    pub fn live(&self) -> Vec<String> {
        self.0.values().filter(|table| table.def.is_live_table()).map(|table| table.def.name.clone()).collect()
    }

    /// True if the text is no query but a statement that writes. Errors: what is wrong with it.
    pub fn writes(&self, text: &str) -> std::result::Result<bool, SqlError> {
        Ok(parse_write(text)?.is_some())
    }

    /// The table a statement writes to, whose writers take turns; None for FLUSH.
    pub fn target(&self, text: &str) -> std::result::Result<Option<String>, SqlError> {
        match parse_write(text)? {
            Some(Stmt::Write(write)) => Ok(Some(normal_name(&write.table))),
            _ => Ok(None),
        }
    }

    /// What a statement that writes answers, and its parameters. Errors: what is wrong with it, by line and column.
    pub fn prepare(&self, text: &str, reader: &dyn Reader) -> std::result::Result<(SchemaRef, SchemaRef), SqlError> {
        let written = self.understood(text)?;
        let Some(write) = written else { return Ok((count_schema(), Arc::new(Schema::empty()))) };
        let planned = on_large_stack(|| {
            let write = &at_last_epoch(write, reader)?;
            let table = self.table(write)?;
            let nothing = RecordBatch::new_empty(change::nullable(&table.def.schema));
            let planned = change::plan(write, table, &nothing, &catalog_of(reader))?;
            Ok((planned.answer().unwrap_or_else(count_schema), parameters_of_plan(&planned.plan)?))
        });
        placed(planned)
    }

    /// Computes what the statement changes, from what its tables hold now. One writer of a table at a time may do so, until its change is visible.
    pub fn write(&self, text: &str, parameters: Option<&RecordBatch>, reader: &dyn Reader) -> freshet_core::Result<Written> {
        let invalid = |error: SqlError| Error::invalid(error.to_string());
        let Some(write) = self.understood(text).map_err(invalid)? else { return Ok(Written::Flush) };
        placed(on_large_stack(|| self.change(&write, parameters, reader))).map_err(invalid)
    }

    fn change(&self, write: &Write, parameters: Option<&RecordBatch>, reader: &dyn Reader) -> Result<Written> {
        let write = &at_last_epoch(write.clone(), reader)?;
        let table = self.table(write)?;
        let name = table.def.name.clone();
        let mut read = relations_of_write(write);
        read.retain(|read| *read != name);
        if write.reads_itself() {
            read.push(name.clone());
        }
        let views = reader.views();
        read.retain(|read| views.iter().any(|view| view.name == *read));
        read.sort_unstable();
        read.dedup();
        let names: Vec<&str> = read.iter().map(String::as_str).collect();
        let mut catalog = catalog_of(reader);
        let mut content = RecordBatch::new_empty(change::nullable(&table.def.schema));
        if !names.is_empty() {
            let snapshot = reader.snapshot(&names, None).map_err(change::core_error)?;
            for (view, batches) in names.iter().zip(snapshot.views) {
                let schema = views.iter().find(|known| known.name == *view).map(|known| known.schema.clone());
                let rows = change::one_batch(&schema.expect("it was found above"), &batches)?;
                if **view == name {
                    content = rows.clone();
                }
                catalog.relations.insert(view.to_string(), memory_table(rows.schema(), vec![rows]).map_err(change::core_error)?);
            }
        }
        let planned = change::plan(write, table, &content, &catalog)?;
        let expected = parameters_of_plan(&planned.plan)?;
        let rows = parameter_rows_of(&expected, parameters).map_err(change::core_error)?;
        let change = change::evaluate(write, table, &planned, rows, (&content, &catalog))?;
        let both = concat_batches(&table.carried, [&change.removed, &change.added]).map_err(|error| Refusal::new(error.to_string()))?;
        let diffs = (0..both.num_rows()).map(|row| if row < change.removed.num_rows() { -1 } else { 1 }).collect();
        debug_assert!(table.def.format != Format::Plain);
        Ok(Written::Change { table: name, rows: both, diffs, count: change.count as u64, returned: change.returned })
    }

    /// None: FLUSH.
    fn understood(&self, text: &str) -> std::result::Result<Option<Write>, SqlError> {
        match parse_write(text)? {
            Some(Stmt::Write(write)) => Ok(Some(*write)),
            Some(Stmt::Drop(dropped)) => {
                let error =
                    SqlError::new("query", dropped.name.span.start, format!("DROP {} is no statement for a running pipeline yet", dropped.kind));
                Err(error.help("write it into the pipeline's script, or take its CREATE out, and start the pipeline again"))
            }
            _ => Ok(None),
        }
    }

    fn table(&self, write: &Write) -> Result<&Stored> {
        let name = normal_name(&write.table);
        match self.0.get(&name) {
            Some(table) if table.def.is_live_table() => Ok(table),
            Some(table) if table.pipe => {
                Err(Refusal::new(format!("{name} is a pipe: the script inserts a stream into it, and its rows are not kept"))
                    .help("write into a table that only statements write to")
                    .at(write.table.span))
            }
            Some(_) => Err(Refusal::new(format!("{name} is as the script leaves it: with clock = 'event' all input is there from the start"))
                .help("write it into the script, or SET clock = 'wall'")
                .at(write.table.span)),
            None => {
                let refusal = Refusal::new(format!("there is no table named {name} that statements can change")).at(write.table.span);
                Err(match nearest(&name, self.0.keys().map(String::as_str)) {
                    Some(close) => refusal.help(format!("did you mean {close}?")),
                    None => refusal.help("declare it in the script: CREATE TABLE name (column TYPE, …); sources are written by their connectors"),
                })
            }
        }
    }
}

/// now() is the last epoch that can be read.
fn at_last_epoch(mut write: Write, reader: &dyn Reader) -> Result<Write> {
    let now = reader.frontier(&[]).map_err(change::core_error)?;
    write.statement = with_now(&write.statement, Epoch(now.0.saturating_sub(1)));
    Ok(write)
}

/// Everything a statement may read, without rows.
fn catalog_of(reader: &dyn Reader) -> Catalog {
    let mut catalog = Catalog::default();
    for view in reader.views() {
        catalog.add(&view.name, crate::context::Relation::stored(view.schema));
    }
    catalog
}

/// Everything a statement names: its table, FROM, USING, subqueries.
pub(super) fn relations_of_write(write: &Write) -> Vec<String> {
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::{ObjectNamePart, visit_relations};
    let mut names = Vec::new();
    let _ = visit_relations(&write.statement, |relation| {
        if let Some(ObjectNamePart::Identifier(name)) = relation.0.last() {
            names.push(normal_name(name));
        }
        ControlFlow::<()>::Continue(())
    });
    names
}

fn placed<T>(done: std::result::Result<Result<T>, String>) -> std::result::Result<T, SqlError> {
    let done = done.unwrap_or_else(|reason| Err(Refusal::new(format!("the planner failed: {reason}"))));
    done.map_err(|refusal| refusal.into_error("query", Location { line: 1, column: 1 }))
}
