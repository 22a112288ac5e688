//! HTTP: health, metrics, status and feature lookups.
//!
//! | file | what |
//! |---|---|
//! | `router.rs` | the paths and the limits around them |
//! | `listen.rs` | connections: how many, how long |
//! | `health.rs` | `/healthz`, `/readyz` |
//! | `metrics.rs` | `/metrics` |
//! | `status.rs` | `/v1/status` and the page that shows it |
//! | `ingest.rs`, `lines.rs` | `/v1/ingest/{source}`: rows of clients |
//! | `online.rs` | `/get-online-features`, as Feast's |
//! | `unread.rs` | the rest of a body that was refused early |
mod health;
mod ingest;
mod lines;
mod listen;
mod metrics;
mod online;
mod router;
mod status;
mod unread;

pub use health::reasons_not_ready;
pub use listen::listen;
pub use router::{HttpState, router};
pub use status::epoch_date;
