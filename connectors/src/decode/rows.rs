//! Rows under construction. In: cells of one record. Out: a `SourceBatch`; a record is taken whole or becomes a dead letter.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{DeadLetter, Result, SourceBatch};

use super::Cell;
use super::column::ColumnBuilder;

/// Why a record cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Empty where it is the record as a whole.
    pub field: String,
    pub reason: String,
}

impl Fault {
    pub fn of_record(reason: impl Into<String>) -> Fault {
        Fault { field: String::new(), reason: reason.into() }
    }
}

pub struct Rows {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    diffs: Vec<i64>,
    offsets: Vec<u64>,
    dead_letters: Vec<DeadLetter>,
}

impl Rows {
    pub fn new(schema: SchemaRef) -> Rows {
        let columns = schema.fields().iter().map(|field| ColumnBuilder::new(field.data_type())).collect();
        Rows { schema, columns, diffs: Vec::new(), offsets: Vec::new(), dead_letters: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Rows and dead letters.
    pub fn records(&self) -> usize {
        self.offsets.len() + self.dead_letters.len()
    }

    /// One row, a cell per column of the schema. On a fault the row is half written: `cut_back` to the length before.
    pub fn push(&mut self, cells: &[Cell], diff: i64, offset: u64) -> Result<(), Fault> {
        assert_eq!(cells.len(), self.columns.len());
        for ((column, cell), field) in self.columns.iter_mut().zip(cells).zip(self.schema.fields()) {
            if *cell == Cell::Null && !field.is_nullable() {
                return Err(Fault { field: field.name().clone(), reason: "NULL or missing, but the column is NOT NULL".into() });
            }
            column.push(cell).map_err(|reason| Fault { field: field.name().clone(), reason })?;
        }
        self.diffs.push(diff);
        self.offsets.push(offset);
        Ok(())
    }

    pub fn cut_back(&mut self, len: usize) {
        for column in &mut self.columns {
            column.truncate(len);
        }
        self.diffs.truncate(len);
        self.offsets.truncate(len);
    }

    pub fn bury(&mut self, fault: Fault, offset: u64, raw: &[u8]) {
        self.dead_letters.push(DeadLetter { offset, field: fault.field, reason: fault.reason, raw: raw.to_vec(), ..DeadLetter::default() });
    }

    /// The rows so far; nothing is left behind.
    pub fn finish(&mut self, next_offset: u64) -> Result<SourceBatch> {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let diffs = std::mem::take(&mut self.diffs);
        let offsets = std::mem::take(&mut self.offsets);
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(offsets.len()));
        Ok(SourceBatch {
            partition: 0,
            rows: RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?,
            diffs: diffs.iter().any(|diff| *diff != 1).then_some(diffs),
            offsets,
            dead_letters: std::mem::take(&mut self.dead_letters),
            next_offset,
        })
    }
}
