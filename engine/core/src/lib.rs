//! The narrow waist of Freshet: the nouns every crate shares, and the seams heavy libraries hang on.
//!
//! | noun | file | what it is |
//! |---|---|---|
//! | [`Epoch`], [`EventTime`], [`ReadPoint`] | `time.rs` | the four times of the system, kept apart |
//! | [`Batch`] | `batch.rs` | Arrow rows with the epoch, diff and position of each |
//! | [`Value`] | `value.rs` | one cell, for oracles and messages; never in a hot path |
//! | [`KeyCodec`] | `row.rs` | typed tuples as comparable bytes |
//! | [`Expr`] | `expr.rs` | the expression seam, and its row-by-row meaning (C4) |
//! | [`ExactSum`] | `exact.rs` | float sums that do not depend on order (T19) |
//! | [`Plan`], [`Op`] | `plan.rs`, `feature.rs` | the closed list of what the engine can do |
//! | [`Source`], [`Sink`], [`Connectors`] | `io.rs` | where changes come from and go |
//! | [`Reader`] | `reader.rs` | consistent reads of a running pipeline |
//! | [`Error`], [`Kind`] | `error.rs` | what went wrong and who can mend it |
#![forbid(unsafe_code)]

mod batch;
mod blobs;
mod error;
mod exact;
mod explain;
mod expr;
mod feature;
mod io;
mod plan;
mod reader;
mod row;
mod time;
mod value;

pub use batch::{Batch, Counts, Diffs};
pub use blobs::Blobs;
pub use error::{Error, Kind, Result};
pub use exact::{ExactSum, add_square, variance};
pub use explain::{explain, fingerprint};
pub use expr::{Column, Compare, Comparison, Evaluated, Expr, ExprRef, Literal, evaluate_rows};
pub use feature::{
    FeatureColumn, FeatureSpec, LatestSpec, RollingAggregate, RollingSpec, ServiceColumn, ServiceDef, ServicePart, Status, Window, WindowEdge,
};
pub use io::{BadData, Connectors, DeadLetter, Encode, Format, OptionError, Poll, Sink, SinkDef, Source, SourceBatch, SourceDef};
pub use plan::{AggregateCall, AggregateFunction, ClockKind, LookupPart, Node, NodeId, Op, Plan, TemporalBound, ViewDef, ViewKind};
pub use reader::{
    CatalogService, CatalogView, FeatureAnswer, FeatureRequest, OperatorStatus, PipelineStatus, ReadMode, Reader, SinkStatus, Snapshot, SourceStatus,
    ViewStatus,
};
pub use row::{KeyCodec, SHARDS, hash_bytes, shard_of};
pub use time::{Epoch, EventTime, ReadPoint, event_times};
pub use value::Value;
