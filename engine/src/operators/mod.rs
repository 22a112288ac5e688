//! One file per operator. Stateless ones act on arrival, stateful ones at the close of a step (`harness.rs`).

mod aggregate;
mod drift;
mod feature;
mod filter;
mod harness;
mod join;
mod live;
mod lookup;
mod materialize;
mod offloaded;
mod predict;
mod project;
mod scoring;
mod sink;
mod stateful;
mod stateless;
mod temporal_filter;
mod upsert;

pub use aggregate::Aggregate;
pub use drift::Drift;
pub use feature::Feature;
pub use filter::filter;
pub use harness::{Bundle, Output, Route, StepOperator, step_operator};
pub use join::Join;
pub use live::Live;
pub use lookup::Lookup;
pub use materialize::Materialize;
pub use offloaded::{OffloadedOperator, WorkOf, offloaded_operator};
pub use predict::Predict;
pub use project::project;
pub use scoring::Scoring;
pub use sink::ToSink;
pub use stateful::{Stateful, shared};
pub use stateless::{ErrorRows, error_schema, map_batches};
pub use temporal_filter::TemporalFilter;
pub use upsert::Upsert;
