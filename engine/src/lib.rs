//! The engine: a plan becomes one timely dataflow that keeps every view true, epoch by epoch.
//!
//! Follow the data: [`bridge::Ingest`] polls sources, gives rows their epochs and cuts steps → [`worker`] feeds them → [`render`] has
//! built one operator per plan node → [`operators`] act when a step closes, over [`state`] and [`drift`] → views end in [`bridge::ViewLog`] and
//! [`bridge::FeatureStore`], sinks in [`bridge::SinkQueue`] → [`bridge::EngineReader`] answers from any thread at one (q, s).
//! [`checkpoint`] makes a drained step boundary durable, shard by shard.
#![forbid(unsafe_code)]

mod bridge;
mod checkpoint;
mod config;
mod drift;
mod edge;
mod engine;
mod metrics;
mod operators;
mod render;
mod state;
mod worker;

pub use bridge::{QuestionTimes, Stop, letter_of_row};
pub use config::{EngineConfig, StepCut, StepJournal, StepRecords};
pub use engine::Engine;
pub use render::describe;
