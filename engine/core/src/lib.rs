//! The narrow waist of Freshet: the nouns every crate shares, and the seams heavy libraries hang on.
//!
//! | noun | file | what it is |
//! |---|---|---|
//! | [`Epoch`], [`EventTime`], [`ReadPoint`] | `time.rs` | the four times of the system, kept apart |
//! | [`Batch`] | `batch.rs` | Arrow rows with the epoch, diff and position of each |
//! | [`Value`] | `value.rs` | one cell, for oracles and messages; never in a hot path |
//! | [`display`] | `display.rs` | the text of a value, as PostgreSQL prints it |
//! | [`KeyCodec`] | `row.rs` | typed tuples as comparable bytes |
//! | [`Expr`] | `expr.rs` | the expression seam, and its row-by-row meaning (C4) |
//! | [`ExactSum`] | `exact.rs` | float sums that do not depend on order (T19) |
//! | [`Horizon`] | `horizon.rs` | which times are over, and so what state may be freed |
//! | [`Plan`], [`Op`] | `plan.rs`, `feature.rs`, `windows.rs` | the closed list of what the engine can do |
//! | [`Source`], [`Sink`], [`Connectors`] | `io.rs` | where changes come from and go |
//! | [`DeadLetter`], [`Replay`] | `dead_letter.rs` | records that could not be taken in, and how they come in again |
//! | [`ModelDef`], [`Model`], [`Models`] | `model.rs` | models, and the seam behind which rows are scored |
//! | [`Control`], [`ControlRecord`] | `control.rs` | decisions in logical time and the records they make |
//! | [`DriftSpec`], [`Reference`] | `drift.rs` | monitors and what they compare with |
//! | [`RetrainingDef`] | `retraining.rs` | training sets and retraining jobs |
//! | [`Reader`] | `reader.rs` | consistent reads of a running pipeline |
//! | [`Error`], [`Kind`] | `error.rs` | what went wrong and who can mend it |
#![forbid(unsafe_code)]

mod batch;
mod blobs;
mod control;
mod dead_letter;
pub mod display;
mod drift;
mod error;
mod exact;
mod explain;
mod expr;
mod feature;
mod horizon;
mod io;
mod model;
mod over;
mod pairs;
mod plan;
mod reader;
mod retraining;
mod row;
mod sketch;
mod time;
mod value;
mod windows;

pub use batch::{Batch, Counts, Diffs};
pub use blobs::Blobs;
pub use control::{Control, ControlOutput, ControlRecord, runs_schema, versions_schema};
pub use dead_letter::{Corrected, DeadLetter, LetterForm, LetterLimits, OffsetRange, Refused, Replay, ReplayRequest, Replayed};
pub use drift::{DriftCondition, DriftMethod, DriftSpec, Histogram, Reference};
pub use error::{Error, Kind, Result};
pub use exact::{ExactSum, add_square, variance};
pub use explain::{do_the_same, duration, explain, fingerprint};
pub use expr::{Apart, Column, Compare, Comparison, Evaluated, Expr, ExprRef, Literal, evaluate_rows};
pub use feature::{
    FeatureColumn, FeatureSpec, LatestSpec, RollingAggregate, RollingSpec, ServiceColumn, ServiceDef, ServicePart, Status, Window, WindowEdge,
};
pub use horizon::{Bound, Horizon, Horizons, unit_ns};
pub use io::{
    BadData, ComputedColumn, Connectors, Encode, Format, Ingress, MetadataColumn, OptionError, Poll, Push, PushBody, PushSource, Pushed,
    SCRIPT_PARTITION, SecretFrom, Sink, SinkDef, Source, SourceBatch, SourceDef, SourceReport, TABLE_CONNECTOR, TABLE_LIVE, TimeLimits,
};
pub use model::{Missing, Model, ModelDef, Models};
pub use over::{Frame, FrameBound, FrameUnit, OverCall, OverFunction, RankKind};
pub use pairs::PairMoments;
pub use plan::{
    AggregateCall, AggregateFunction, AggregateParameter, ClockKind, Fraction, JoinKind, LookupPart, LookupTime, Node, NodeId, Op, Plan, PredictCall,
    PredictOutput, PredictRoute, RECURSION_ROUNDS_MAX, RecursionBody, SetOperation, SortKey, TemporalBound, ViewDef, ViewKind,
};
pub use reader::{
    CatalogService, CatalogView, FeatureAnswer, FeatureRequest, JobStatus, ModelStatus, ObjectState, OperatorStatus, PipelineStatus, ReadMode,
    Reader, SinkStatus, Snapshot, SourceStatus, State, SubscribeRequest, Subscription, ViewChanges, ViewStatus,
};
pub use retraining::{Metric, RetrainingDef, RetrainingTrigger, TrainingMode, TrainingSetDef, Validation};
pub use row::{KeyCodec, SHARDS, SortCodec, hash_bytes, shard_of};
pub use sketch::{
    DISTINCT_EXACT_MAX, REGISTERS, distinct_estimate, distinct_hash, percentile_bucket, percentile_value, register_and_rank, register_share,
};
pub use time::{Epoch, EventTime, ReadPoint, event_times};
pub use value::{Interval, Value};
pub use windows::Windows;
