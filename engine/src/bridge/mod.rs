//! The only place where a worker meets another thread: queues, locks and atomics live here and in `metrics.rs`.

mod answers;
mod clock;
mod decisions;
mod egress;
mod features;
mod ingest;
mod offload;
mod pace;
mod partition;
mod progress;
mod reader;
mod routes;
mod start;
mod views;

pub use answers::FeatureRows;
pub use decisions::Decisions;
pub use egress::{SinkQueue, SinkThread};
pub use features::{FeatureStore, Floors, Folded, ReadError};
pub use ingest::{Ingest, SourceInput};
pub use offload::{Desk, Scorers, Work};
pub use pace::Pace;
pub use partition::SourceOffset;
pub use progress::{Progress, entries};
pub use reader::{EngineReader, sources_of_views};
pub use routes::{Routes, Version};
pub use start::{Command, Commands, Part, Running, Stop, start_workers, text_of};
pub use views::ViewLog;
