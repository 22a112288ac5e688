//! Rows under construction. In: cells of one record, column by column. Out: a `SourceBatch`; a record is taken whole or becomes a dead letter.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{DeadLetter, Result, SourceBatch};

use super::column::ColumnBuilder;
use super::record::Record;
use super::{Cell, again};

/// Records of one decoded batch, at most: what the engine asks for at a time.
pub const BATCH_RECORDS_MAX: usize = 8192;
/// Bytes of records behind one decoded batch, at most and but for its last record: large records must not multiply by 8192.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// What a dead letter keeps of its record.
pub const RAW_BYTES_MAX: usize = 64 << 10;

/// Why a record cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Empty where it is the record as a whole.
    pub field: String,
    pub reason: String,
}

impl Fault {
    pub fn new(field: &str, reason: impl Into<String>) -> Fault {
        Fault { field: field.into(), reason: reason.into() }
    }

    pub fn of_record(reason: impl Into<String>) -> Fault {
        Fault::new("", reason)
    }
}

/// The rows and dead letters of one partition since the last `finish`.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    diffs: Vec<i64>,
    offsets: Vec<u64>,
    dead_letters: Vec<DeadLetter>,
    bytes: usize,
}

impl Rows {
    /// Panics if a type did not pass `check_types`.
    pub fn new(schema: SchemaRef) -> Rows {
        let columns = schema.fields().iter().map(|field| ColumnBuilder::new(field.data_type())).collect();
        Rows { schema, columns, diffs: Vec::new(), offsets: Vec::new(), dead_letters: Vec::new(), bytes: 0 }
    }

    /// Finished rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// Rows and dead letters.
    pub fn records(&self) -> usize {
        self.offsets.len() + self.dead_letters.len()
    }

    /// True once a batch is as large as one should be: time for `finish`.
    pub fn is_full(&self) -> bool {
        self.records() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether cells for these columns are left out: what the row has of them counts.
    pub fn hold(&mut self, columns: &[usize], held: bool) {
        columns.iter().for_each(|column| self.columns[*column].hold(held));
    }

    /// Whether the row under construction has a cell here, NULL or not.
    pub fn has(&self, column: usize) -> bool {
        self.columns[column].len() > self.offsets.len()
    }

    /// A cell of the row under construction; a second one takes the first one's place. Faults: the cell does not fit its column.
    #[inline]
    pub fn set(&mut self, column: usize, cell: &Cell) -> Result<(), Fault> {
        let Some(builder) = self.next_cell(column) else { return Ok(()) };
        builder.push(cell).map_err(|reason| Fault::new(self.schema.field(column).name(), reason))
    }

    /// Where the next cell of the row under construction goes; None: the one it has here counts.
    #[inline]
    pub(crate) fn next_cell(&mut self, column: usize) -> Option<&mut ColumnBuilder> {
        let len = self.offsets.len();
        let builder = &mut self.columns[column];
        if builder.len() > len {
            if builder.is_held() {
                return None;
            }
            builder.truncate(len);
        }
        Some(builder)
    }

    /// Whether the row under construction has a value here that is not NULL.
    pub fn is_set(&self, column: usize) -> bool {
        let builder = &self.columns[column];
        builder.len() > self.offsets.len() && builder.ends_valid()
    }

    /// Ends the row under construction; columns without a cell are NULL. Faults: a NULL in a column that is NOT NULL.
    pub fn end_row(&mut self, diff: i64, offset: u64) -> Result<(), Fault> {
        let len = self.offsets.len();
        for (builder, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            if builder.len() == len {
                builder.push_null();
            }
            if !field.is_nullable() && !builder.ends_valid() {
                return Err(Fault::new(field.name(), "NULL or missing, but the column is NOT NULL"));
            }
        }
        self.diffs.push(diff);
        self.offsets.push(offset);
        Ok(())
    }

    /// Ends a row that stands for a key only: its other columns are NULL, or their type's zero where they are NOT NULL.
    pub fn end_key_row(&mut self, key: &[usize], diff: i64, offset: u64) -> Result<(), Fault> {
        for (column, field) in self.schema.fields().iter().enumerate() {
            if !key.contains(&column) && !field.is_nullable() && !self.is_set(column) {
                self.columns[column].truncate(self.offsets.len());
                self.columns[column].push_zero();
            }
        }
        self.end_row(diff, offset)
    }

    /// Forgets the row under construction and every row after the first `len`.
    pub fn cut_back(&mut self, len: usize) {
        for column in &mut self.columns {
            column.truncate(len);
        }
        self.diffs.truncate(len);
        self.offsets.truncate(len);
    }

    /// Sets a record aside.
    pub fn bury(&mut self, fault: Fault, record: &Record) {
        let payload = record.payload.unwrap_or_default();
        self.dead_letters.push(DeadLetter {
            partition: 0,
            offset: record.offset,
            origin: record.origin.to_string(),
            field: fault.field,
            reason: fault.reason,
            raw: payload[..payload.len().min(RAW_BYTES_MAX)].to_vec(),
            bytes_whole: if payload.len() > RAW_BYTES_MAX { payload.len() as u64 } else { 0 },
            key: record.key.map(|key| key[..key.len().min(RAW_BYTES_MAX)].to_vec()),
            ..DeadLetter::default()
        });
    }

    /// Sets a record of so many bytes aside of which there is only the beginning.
    pub fn bury_beginning(&mut self, fault: Fault, record: &Record, bytes: u64) {
        self.bury(fault, record);
        if let Some(letter) = self.dead_letters.last_mut() {
            letter.bytes_whole = bytes;
        }
    }

    /// What decoding the last dead letter again would need.
    pub(super) fn keep_context(&mut self, context: impl FnOnce() -> String) {
        if let Some(letter) = self.dead_letters.last_mut() {
            letter.context = context();
        }
    }

    /// Why the last row has no place in time (T13); None: it has one.
    pub(super) fn fault_of_time(&self, column: usize) -> Option<&'static str> {
        again::fault_of_time(self.schema.field(column).data_type(), self.columns[column].last_integer())
    }

    /// Counts a record's bytes towards `is_full`.
    pub(super) fn weigh(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The rows and dead letters so far; nothing is left behind.
    pub fn finish(&mut self, partition: u32, next_offset: u64) -> Result<SourceBatch> {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let diffs = std::mem::take(&mut self.diffs);
        let offsets = std::mem::take(&mut self.offsets);
        let mut dead_letters = std::mem::take(&mut self.dead_letters);
        for letter in &mut dead_letters {
            letter.partition = partition;
        }
        self.bytes = 0;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(offsets.len()));
        Ok(SourceBatch {
            partition,
            rows: RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?,
            diffs: diffs.iter().any(|diff| *diff != 1).then_some(diffs),
            offsets,
            dead_letters,
            next_offset,
        })
    }
}
