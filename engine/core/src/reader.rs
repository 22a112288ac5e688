//! Consistent reads of a running pipeline, from any thread: the seam between the engine and what serves it.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{Batch, Epoch, EventTime, ReadPoint, Result, ServiceDef, Status};

/// A view that can be read.
#[derive(Debug, Clone)]
pub struct CatalogView {
    pub name: String,
    pub schema: SchemaRef,
    /// "VIEW", "FEATURE VIEW", "ERRORS", "DEAD LETTERS", "LATE", "RUNS" or "VERSIONS".
    pub kind: &'static str,
    pub entity: Vec<String>,
}

/// A service that can be looked up.
#[derive(Debug, Clone)]
pub struct CatalogService {
    pub def: ServiceDef,
    /// Entity columns of all parts, each name once, then the request columns: what a lookup brings.
    pub input: SchemaRef,
}

/// Which instant an answer is about (T15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// q = s = min(request time, F).
    #[default]
    Fresh,
    /// q = the least watermark of the views' sources, s = F.
    Consistent,
    /// q = request time, s = F.
    RequestTime,
    /// q = s = this epoch; an error names the earliest one that is kept.
    AsOf(Epoch),
}

/// A lookup of many entities at one instant.
#[derive(Debug, Clone)]
pub struct FeatureRequest {
    pub service: String,
    /// Columns by name: every entity and request column of the service; others are ignored.
    pub rows: RecordBatch,
    pub mode: ReadMode,
}

/// One output row per request row, in its order.
#[derive(Debug, Clone)]
pub struct FeatureAnswer {
    /// The service's output list.
    pub features: RecordBatch,
    /// Per output column and row; request columns are PRESENT or NULL_VALUE.
    pub statuses: Vec<Vec<Status>>,
    /// Per output column and row: e_last of the entity in the view behind it; None for request columns and unknown keys.
    pub event_times: Vec<Vec<Option<EventTime>>>,
    pub point: ReadPoint,
    /// Everything up to here survives a crash.
    pub durable_epoch: Option<Epoch>,
}

/// The content of several views at one epoch (C2), duplicates repeated. A view that retracts has its rows in the order of their encoding.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub point: ReadPoint,
    /// In the order asked for.
    pub views: Vec<Vec<RecordBatch>>,
    pub durable_epoch: Option<Epoch>,
}

/// Reads at one instant. All methods may be called from any thread at any time and never block a worker for long.
pub trait Reader: Send + Sync {
    fn views(&self) -> Vec<CatalogView>;
    fn services(&self) -> Vec<CatalogService>;

    /// Names and columns of the sources, which cannot be read.
    fn sources(&self) -> Vec<(String, SchemaRef)> {
        Vec::new()
    }

    /// F of these views: the lowest epoch not yet complete in all of them. Errors: Invalid for an unknown name.
    fn frontier(&self, views: &[&str]) -> Result<Epoch>;

    /// The content of these views at the last complete epoch of them all, or at `as_of`.
    /// Errors: Invalid for an unknown name, or an epoch outside the kept history (names the earliest).
    fn snapshot(&self, views: &[&str], as_of: Option<Epoch>) -> Result<Snapshot>;

    /// Features at one (q, s). Errors: Invalid for an unknown service, a missing column or a wrong type.
    fn features(&self, request: &FeatureRequest) -> Result<FeatureAnswer>;

    fn status(&self) -> PipelineStatus;

    /// The epoch at which everything of the partition before `offset` is input: a read at a frontier above it sees it all (C2). None: it has
    /// not been read yet. Errors: Invalid for an unknown source.
    fn reached(&self, source: &str, partition: u32, offset: u64) -> Result<Option<Epoch>>;

    /// The changes of a view from now on. Errors: Invalid for an unknown name, or an epoch outside the kept history (names the earliest).
    fn subscribe(&self, request: &SubscribeRequest) -> Result<Box<dyn Subscription>>;
}

/// Which changes are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscribeRequest {
    pub view: String,
    /// Begin with the content, as insertions at one epoch; else with the changes after it.
    pub snapshot: bool,
    /// The epoch of that content; None: the last complete one.
    pub as_of: Option<Epoch>,
    /// End once everything below this epoch has been told.
    pub up_to: Option<Epoch>,
    /// Who reads, for whoever has to find a slow reader: a name of its own choice, or its address.
    pub reader: String,
}

/// One reader of a view's changes. A reader that falls too far behind gets an error that says so; nothing waits for it.
pub trait Subscription: Send {
    /// What has happened since the last call; waits at most so long for something to happen. None: `up_to` has been reached, or the pipeline
    /// has ended. Errors: Unavailable for a reader that was cut off.
    fn next(&mut self, wait: Duration) -> Result<Option<ViewChanges>>;
}

/// Changes of complete epochs, in epoch order.
#[derive(Debug, Clone)]
pub struct ViewChanges {
    pub changes: Option<Batch>,
    /// Everything below this epoch has been told.
    pub progress: Epoch,
}

/// What /metrics, /readyz and the status page tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineStatus {
    pub clock: &'static str,
    pub workers: usize,
    /// Every bounded source has ended and every view is complete.
    pub finished: bool,
    /// Why the pipeline has stopped, if it has.
    pub failure: Option<String>,
    /// The last epoch handed to the workers.
    pub epoch: Epoch,
    /// Jumps of the machine's clock that epochs did not follow (T0c), and how far epochs are ahead of it.
    pub clock_jumps: u64,
    pub clock_offset_ms: i64,
    pub events: u64,
    /// The epoch of the checkpoint this generation went on from, and the events before it.
    pub resumed: Option<(Epoch, u64)>,
    pub sources: Vec<SourceStatus>,
    pub views: Vec<ViewStatus>,
    pub operators: Vec<OperatorStatus>,
    pub sinks: Vec<SinkStatus>,
    pub models: Vec<ModelStatus>,
    pub jobs: Vec<JobStatus>,
    /// Steps handed out but not closed, and how many there may be.
    pub queue_depth: u64,
    pub queue_limit: u64,
    pub checkpoint_epoch: Option<Epoch>,
    pub checkpoint_age_ms: Option<u64>,
    pub checkpoint_bytes: u64,
    /// Whether checkpoints can be written; None: there are none.
    pub checkpoints: Option<ObjectState>,
    /// One is being written: epochs do not close meanwhile.
    pub checkpointing: bool,
}

/// How an object of a running pipeline fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectState {
    pub state: State,
    /// Why, where there is more to say.
    pub reason: Option<String>,
    /// Since when it is in this state, and when it last got on, by the machine's clock.
    pub since: Epoch,
    pub progress: Option<Epoch>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Not ready yet.
    #[default]
    Starting,
    Running,
    /// Something it needs is away; it tries again by itself.
    Retrying,
    /// Nothing has come for its idle timeout.
    Idle,
    /// All its input has been taken in.
    Ended,
    Failed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Idle => "idle",
            State::Ended => "ended",
            State::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceStatus {
    pub name: String,
    pub state: ObjectState,
    /// Records that are there and have not been read; None: unknown.
    pub lag_rows: Option<u64>,
    pub rows: u64,
    pub ended: bool,
    /// How far the source's last epoch is behind the newest one of the pipeline, in ms; 0 if nothing waits to be read.
    pub lag_ms: u64,
    pub watermark: Option<Epoch>,
    /// (reason, count), reasons in order.
    pub dead_letters: Vec<(String, u64)>,
    /// From this epoch on everything it has is read (T23). None: from its beginning.
    pub complete_since: Option<Epoch>,
    /// Dead letters that are kept now and their bytes, those that made room for others or grew too old, and those that came in again.
    pub letters_kept: u64,
    pub letters_bytes: u64,
    pub letters_dropped: u64,
    pub letters_replayed: u64,
    pub late_rows: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewStatus {
    pub name: String,
    pub state: ObjectState,
    /// The last complete epoch; None before the first.
    pub closed: Option<Epoch>,
    /// How far `closed` is behind the newest epoch handed out, in wall clock behind the machine's time, in ms.
    pub lag_ms: u64,
    pub rows: u64,
    pub errors: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorStatus {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkStatus {
    pub name: String,
    pub state: ObjectState,
    pub rows: u64,
    /// Changes that wait to be written, and how far what has been written is behind them, in ms.
    pub lag_rows: u64,
    pub lag_ms: u64,
    pub queue_depth: u64,
    pub queue_limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStatus {
    pub name: String,
    pub state: ObjectState,
    /// The version that scores rows now, if there is one.
    pub live: Option<u32>,
    /// How many versions there are.
    pub versions: u32,
    /// Rows scored, and rows whose scoring failed.
    pub rows: u64,
    pub errors: u64,
}

/// A retraining job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobStatus {
    pub name: String,
    pub state: ObjectState,
    pub runs: u64,
    pub promoted: u64,
    /// The decision point of the run under way.
    pub running: Option<Epoch>,
}
