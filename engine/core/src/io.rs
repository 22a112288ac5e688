//! Where changes come from and where they go: plain polling, no runtime, so that the engine needs none.

use std::collections::BTreeMap;
use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{Batch, Epoch, NodeId, Result};

/// A source as the script declares it.
#[derive(Debug, Clone)]
pub struct SourceDef {
    pub name: String,
    pub schema: SchemaRef,
    /// The column of WATERMARK: event time e of T0.
    pub event_time: Option<usize>,
    /// How far WATERMARK's expression lies behind its column.
    pub watermark_delay_ms: u64,
    /// LATENESS; None: nothing is too late.
    pub lateness_ms: Option<u64>,
    /// The column of ARRIVAL FOR (T0, T0b).
    pub arrival: Option<usize>,
    pub connector: String,
    /// WITH options but `connector`, names lower case.
    pub options: BTreeMap<String, String>,
    pub format: Format,
    pub encode: Encode,
    pub bad_data: BadData,
}

/// How rows change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    Debezium,
}

/// How bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encode {
    Json,
    Csv,
    Parquet,
}

/// What happens to a record that cannot be decoded (C3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadData {
    #[default]
    DeadLetter,
    Drop,
    Fail,
}

/// A sink as the script declares it.
#[derive(Debug, Clone)]
pub struct SinkDef {
    pub name: String,
    pub node: NodeId,
    /// The view it was declared FROM.
    pub from: String,
    pub schema: SchemaRef,
    pub connector: String,
    pub options: BTreeMap<String, String>,
    pub format: Format,
    pub encode: Encode,
}

/// A record that could not be decoded, with its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub partition: u32,
    pub offset: u64,
    pub field: String,
    pub reason: String,
    pub raw: Vec<u8>,
}

/// Rows of one partition in offset order. Every record between the first and `next_offset` is a row or a dead letter.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    pub partition: u32,
    /// All columns of the source's schema.
    pub rows: RecordBatch,
    /// One per row; None: all are insertions.
    pub diffs: Option<Vec<i64>>,
    /// Offset of the record behind each row, ascending; two rows of one record share it.
    pub offsets: Vec<u64>,
    pub dead_letters: Vec<DeadLetter>,
    /// Where reading goes on after this batch.
    pub next_offset: u64,
}

#[derive(Debug)]
pub enum Poll {
    Batch(SourceBatch),
    /// Nothing now; more may come.
    Pending,
    /// Nothing more will ever come.
    Ended,
}

/// Reads one source. Called from one thread, never concurrently.
pub trait Source: Send {
    /// At most about `rows_max` rows. May block for some milliseconds. Errors: Data (a broken file), Unavailable.
    fn poll(&mut self, rows_max: usize) -> Result<Poll>;

    /// Goes on at this offset of the partition, as an earlier batch's `next_offset` said. Before the first poll.
    fn seek(&mut self, partition: u32, offset: u64) -> Result<()>;

    /// True if `Ended` will come (T0a: event clock needs it).
    fn is_bounded(&self) -> bool;
}

/// Writes one sink. Called from one thread, never concurrently.
pub trait Sink: Send {
    /// Changes of complete epochs, in (epoch, all columns) order. Errors: Unavailable (try again with the same changes).
    fn write(&mut self, changes: &Batch) -> Result<()>;

    /// Everything up to and including `closed` is written; make it visible. Returns the position to restore to.
    fn flush(&mut self, closed: Epoch) -> Result<u64>;

    /// Cuts off what was written after this position of an earlier `flush`. Before the first write.
    fn restore(&mut self, position: u64) -> Result<()>;
}

/// What is wrong with a WITH option; the caller knows where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The option to point at; None: the whole statement.
    pub option: Option<String>,
    pub message: String,
}

/// The connectors of this build. `check_*` at CREATE, `open_*` at start.
pub trait Connectors: Debug + Send + Sync {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError>;
    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError>;
    /// Errors: Invalid or Unavailable, naming the source and its path or address.
    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>>;
    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>>;
}
