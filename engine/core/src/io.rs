//! Where changes come from and where they go: plain polling, no runtime, so that the engine needs none.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::{Batch, DeadLetter, Epoch, Error, ExprRef, LetterLimits, NodeId, Result};

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
    /// Columns of PRIMARY KEY (…) NOT ENFORCED: what FORMAT UPSERT replaces by.
    pub key: Vec<usize>,
    /// Columns that the record's surroundings fill, not its bytes.
    pub metadata: Vec<MetadataColumn>,
    pub limits: TimeLimits,
    pub letters: LetterLimits,
    /// Columns that the engine computes of the others of a record; connectors know nothing of them, see [`SourceDef::carried`].
    pub computed: Vec<ComputedColumn>,
    /// What the script itself inserts: carried columns, epoch 0 in wall clock (T13), partition [`SCRIPT_PARTITION`].
    pub rows: Vec<RecordBatch>,
}

impl SourceDef {
    /// A source without times, key, metadata or options, whose limits are the defaults.
    pub fn new(name: &str, schema: SchemaRef, connector: &str, format: Format, encode: Encode) -> SourceDef {
        SourceDef {
            name: name.into(),
            schema,
            event_time: None,
            watermark_delay_ms: 0,
            lateness_ms: None,
            arrival: None,
            connector: connector.into(),
            options: BTreeMap::new(),
            format,
            encode,
            bad_data: BadData::default(),
            key: Vec::new(),
            metadata: Vec::new(),
            limits: TimeLimits::default(),
            letters: LetterLimits::default(),
            computed: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Rows that statements of a script or of a client wrote, kept and changed by them.
    pub fn is_table(&self) -> bool {
        self.connector == TABLE_CONNECTOR
    }

    /// A table that takes rows while the pipeline runs.
    pub fn is_live_table(&self) -> bool {
        self.is_table() && self.options.contains_key(TABLE_LIVE)
    }

    /// Columns that come from outside, ascending.
    pub fn carried_columns(&self) -> Vec<usize> {
        (0..self.schema.fields().len()).filter(|column| self.computed.iter().all(|one| one.column != *column)).collect()
    }

    /// The source as its connector sees it: without computed columns and what is said of them.
    pub fn carried(&self) -> SourceDef {
        if self.computed.is_empty() {
            return self.clone();
        }
        let kept = self.carried_columns();
        let place = |column: usize| kept.iter().position(|known| *known == column);
        let fields: Vec<_> = kept.iter().map(|column| self.schema.fields()[*column].clone()).collect();
        let metadata = self.metadata.iter().filter_map(|one| Some(MetadataColumn { column: place(one.column)?, name: one.name.clone() }));
        SourceDef {
            schema: Arc::new(Schema::new(fields)),
            event_time: self.event_time.and_then(place),
            arrival: self.arrival.and_then(place),
            key: self.key.iter().filter_map(|column| place(*column)).collect(),
            metadata: metadata.collect(),
            computed: Vec::new(),
            ..self.clone()
        }
    }
}

/// A column whose value is computed from those its connector fills.
#[derive(Debug, Clone)]
pub struct ComputedColumn {
    pub column: usize,
    /// Over the columns of [`SourceDef::carried`].
    pub expr: ExprRef,
}

/// The connector of stored tables: their rows come from the script, and from statements while the pipeline runs.
pub const TABLE_CONNECTOR: &str = "table";

/// The option of a stored table that statements may change while the pipeline runs.
pub const TABLE_LIVE: &str = "live";

/// Where the rows of a script stand: a partition of their own, so that positions of what is pushed begin at 0.
pub const SCRIPT_PARTITION: u32 = 1;

/// A column that is filled with what the connector knows beside the bytes: `INCLUDE offset AS o`, `o BIGINT METADATA FROM 'offset'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataColumn {
    pub column: usize,
    /// Lower case but for the name of a header itself, for example `timestamp`, `offset`, `partition`, `topic`, `key`, `headers`, `header.trace`, `level.2`; the connector says
    /// which it has and of what types.
    pub name: String,
}

/// How far times may stray before a row is set aside or a partition is no longer waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// A row further ahead of its partition is quarantined (T0a, event clock). 30 days.
    pub max_jump_ms: u64,
    /// A row further ahead of the machine's clock is quarantined, one less far waits for its time (T13, wall clock). 60 s.
    pub max_skew_ms: u64,
    /// A partition without rows for so long has no part in the watermark (T12, wall clock). 30 s; None: it always has.
    pub idle_ms: Option<u64>,
}

impl Default for TimeLimits {
    fn default() -> TimeLimits {
        TimeLimits { max_jump_ms: 30 * 86_400_000, max_skew_ms: 60_000, idle_ms: Some(30_000) }
    }
}

/// How rows change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    /// A record is the row of its key from now on, or says that the key has none. In a [`SourceBatch`] that is diff +1 with the row, or −1 with
    /// the key columns and NULLs; the engine takes the former row back (T8).
    Upsert,
    Debezium,
}

/// How bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encode {
    Json,
    Csv,
    Parquet,
    Avro,
    Protobuf,
    /// The record's bytes are its one column that is no metadata.
    Bytes,
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
    /// Columns of the option `primary_key`, or none.
    pub key: Vec<usize>,
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
    /// Nothing more will come from this partition; others may go on.
    PartitionEnded(u32),
    /// Nothing now; more may come.
    Pending,
    /// Nothing more will ever come.
    Ended,
}

/// Reads one source. Called from one thread, never concurrently.
pub trait Source: Send {
    /// At most about `rows_max` rows. May block for some milliseconds in event clock, where nothing else can go on; not in wall clock,
    /// where a source that has nothing says so at once. Errors: Data (a broken file); Unavailable: the caller polls again later, and nothing
    /// is lost.
    fn poll(&mut self, rows_max: usize) -> Result<Poll>;

    /// Goes on at this offset of the partition, as an earlier batch's `next_offset` said. Before the first poll, once for each partition
    /// that a checkpoint knows.
    fn seek(&mut self, partition: u32, offset: u64) -> Result<()>;

    /// True if `Ended` will come (T0a: event clock needs it).
    fn is_bounded(&self) -> bool;

    /// The partitions there are; None: not known yet, ask again. In event clock they are fixed and each is waited for; in wall clock others
    /// may join.
    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        Ok(Some(vec![0]))
    }

    /// The engine has enough of this partition for now, because others are behind it, or wants more of it again. A source that cannot read
    /// one partition without the other goes on as it was.
    fn pause(&mut self, _partition: u32, _paused: bool) -> Result<()> {
        Ok(())
    }

    /// Everything of the partition before `offset` has been taken in, and survives a crash as far as the pipeline does: who sent it may
    /// forget it. Called now and then, with growing offsets.
    fn accepted(&mut self, _partition: u32, _offset: u64) -> Result<()> {
        Ok(())
    }

    /// Whether everything the partition ever had is read (T23): false where reading begins behind its first record. Asked once, when its first
    /// batch has come.
    fn is_whole(&self, _partition: u32) -> bool {
        true
    }

    /// Whether the partition has records that have not been polled; None: unknown. What is away is not read: true if there may be some.
    fn has_more(&self, _partition: u32) -> Option<bool> {
        None
    }

    /// How it fares; cheap.
    fn report(&self) -> SourceReport {
        SourceReport::default()
    }
}

/// What a source says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Why it has nothing to give although there may be something: a broker that is away. None: all is well.
    pub trouble: Option<String>,
    /// Records that are there and have not been polled; None: unknown.
    pub lag_rows: Option<u64>,
}

/// Takes rows from clients into sources that are pushed to. Any thread, any time.
pub trait Ingress: Send + Sync {
    /// The sources that take rows.
    fn sources(&self) -> Vec<PushSource>;

    /// Takes all of it or nothing. Errors: Invalid (no such source, columns that do not fit), Unavailable (the queue is full: try again
    /// later).
    fn push(&self, push: Push) -> Result<Pushed>;

    /// Why there are no sources now although clients may know some; None: what is not in `sources` does not exist.
    fn away(&self) -> Option<Error> {
        None
    }
}

/// A source that clients push to.
#[derive(Debug, Clone)]
pub struct PushSource {
    pub name: String,
    /// What a client sends: the columns that are no metadata.
    pub schema: SchemaRef,
    pub encode: Encode,
    /// The key of HMAC-SHA256 over the body, if requests must be signed.
    pub secret: Option<Vec<u8>>,
    /// Behind the last record taken.
    pub position: u64,
    /// Bytes taken and not read yet, and how many there may be.
    pub queue_bytes: usize,
    pub queue_bytes_max: usize,
}

/// Rows for one source.
#[derive(Debug, Clone)]
pub struct Push {
    pub source: String,
    /// The client's own name of these rows: a second push of the same name is answered like the first and changes nothing.
    pub id: Option<String>,
    pub body: PushBody,
}

#[derive(Debug, Clone)]
pub enum PushBody {
    /// Columns by name; a missing one is NULL.
    Rows(RecordBatch),
    /// Changes of a table, as a statement makes them: all columns, and +1 or -1 for each row. Of other sources: Invalid.
    Changes(RecordBatch, Vec<i64>),
    /// Records in this encoding, one a line where it has lines; CSV with a header unless the source says otherwise.
    Bytes(Encode, Vec<u8>),
}

/// Where pushed rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    pub partition: u32,
    /// Offset behind the last record: a read that waits for it sees them all.
    pub position: u64,
    pub records: u64,
    /// How many of the records became dead letters (C3).
    pub dead_letters: u64,
    /// The rows were there already.
    pub duplicate: bool,
}

/// Writes one sink. Called from one thread, never concurrently.
pub trait Sink: Send {
    /// Changes of complete epochs, in (epoch, all columns) order. Errors: Unavailable (try again with the same changes).
    fn write(&mut self, changes: &Batch) -> Result<()>;

    /// Everything up to and including `closed` is written; make it visible. Returns the position to restore to.
    fn flush(&mut self, closed: Epoch) -> Result<u64>;

    /// Cuts off what was written after this position of an earlier `flush`. Before the first write.
    fn restore(&mut self, position: u64) -> Result<()>;

    /// Whether changes must come consolidated and in order. Where not, `write` is given the changes of each worker as they are, and a
    /// `flush` says nothing of other workers.
    fn is_ordered(&self) -> bool {
        true
    }
}

/// What is wrong with a WITH option; the caller knows where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The option to point at, or `metadata.NAME` for the column of that metadata; None: the whole statement.
    pub option: Option<String>,
    pub message: String,
}

impl OptionError {
    /// Stands before the name of a metadata column in `option`.
    pub const METADATA: &'static str = "metadata.";

    /// Points at the column that this metadata fills.
    pub fn metadata(name: &str, message: impl Into<String>) -> OptionError {
        OptionError { option: Some(format!("{}{name}", OptionError::METADATA)), message: message.into() }
    }
}

/// Where the value of a secret is to be found. It stands in a script instead of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// A variable of the environment.
    Env(String),
    /// A file, without the line break at its end.
    File(String),
}

/// The connectors of this build. `check_*` at CREATE, `open_*` at start.
pub trait Connectors: Debug + Send + Sync {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError>;
    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError>;
    /// Errors: Invalid or Unavailable, naming the source and its path or address.
    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>>;
    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>>;

    /// Whether rows of this connector are bytes, so that a script must say how they read: FORMAT and ENCODE.
    fn has_bytes(&self, _connector: &str) -> bool {
        true
    }

    /// The value of a secret, looked up when a pipeline is compiled and kept nowhere but in the options it is used for. Errors: Invalid,
    /// naming the variable or file.
    fn secret(&self, _from: &SecretFrom) -> Result<String> {
        Err(Error::invalid("secrets cannot be read here"))
    }

    /// Decodes records of dead letters as their source would today, metadata included; those that still cannot be read are dead letters of the
    /// batches. One batch per partition, in order. Errors: Invalid for connectors whose records cannot be decoded apart from their source,
    /// Unavailable (a schema that has not come yet).
    fn decode_again(&self, source: &SourceDef, _letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
        Err(Error::invalid(format!("source {}: the connector {} cannot decode records again", source.name, source.connector)))
    }

    /// These connectors for longer than a call: what is Unavailable at start is then opened later, when it is there. None: that is an error
    /// of the start.
    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        None
    }
}
