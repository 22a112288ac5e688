//! Consistent reads of a running pipeline, from any thread: the seam between the engine and what serves it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{Epoch, EventTime, ReadPoint, Result, ServiceDef, Status};

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

    /// F of these views: the lowest epoch not yet complete in all of them. Errors: Invalid for an unknown name.
    fn frontier(&self, views: &[&str]) -> Result<Epoch>;

    /// The content of these views at the last complete epoch of them all, or at `as_of`.
    /// Errors: Invalid for an unknown name, or an epoch outside the kept history (names the earliest).
    fn snapshot(&self, views: &[&str], as_of: Option<Epoch>) -> Result<Snapshot>;

    /// Features at one (q, s). Errors: Invalid for an unknown service, a missing column or a wrong type.
    fn features(&self, request: &FeatureRequest) -> Result<FeatureAnswer>;

    fn status(&self) -> PipelineStatus;
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
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceStatus {
    pub name: String,
    pub rows: u64,
    pub ended: bool,
    /// How far the source's last epoch is behind the newest one of the pipeline, in ms.
    pub lag_ms: u64,
    pub watermark: Option<Epoch>,
    /// (reason, count), reasons in order.
    pub dead_letters: Vec<(String, u64)>,
    pub late_rows: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewStatus {
    pub name: String,
    /// The last complete epoch; None before the first.
    pub closed: Option<Epoch>,
    /// How far `closed` is behind the newest epoch handed out, in ms.
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
    pub rows: u64,
    pub queue_depth: u64,
    pub queue_limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStatus {
    pub name: String,
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
    pub runs: u64,
    pub promoted: u64,
    /// The decision point of the run under way.
    pub running: Option<Epoch>,
}
