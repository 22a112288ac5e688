//! Serves a running pipeline on loopback: Arrow Flight SQL, Flight lookups, HTTP. Sees the core only; SQL comes in through [`Queries`].
//!
//! | file | what it is |
//! |---|---|
//! | `server.rs` | the two listeners and their end |
//! | `flight/` | Flight SQL and plain Flight |
//! | `http/` | health, metrics, status, Feast's lookups |
//! | `lookup.rs` | one feature lookup, whoever asks |
//! | `pushing.rs` | rows of clients on their way into the pipeline, whichever way they come |
//! | `replaying.rs` | dead letters that are to come in again |
//! | `positions.rs` | reads that wait for what their client has written |
//! | `ask.rs` | what a path or a ticket may ask for |
//! | `query.rs` | the seam to the SQL planner |
//! | `foreign.rs` | Arrow messages as anybody may send them |
//! | `wire.rs`, `columns.rs` | Arrow out, columns in |
//! | `histogram.rs`, `pulse.rs` | what is measured here |
//! | `limits.rs` | every bound, with its reason |
//! | `error.rs` | errors as gRPC and HTTP say them |
#![forbid(unsafe_code)]

mod ask;
mod columns;
mod error;
mod flight;
mod foreign;
mod histogram;
mod http;
pub mod limits;
mod lookup;
mod positions;
mod pulse;
mod pushing;
mod query;
mod replaying;
mod server;
mod wire;

pub use ask::{FeaturesAsk, Mode, parse_mode};
pub use columns::to_json;
pub use foreign::reads_foreign_bytes;
pub use http::{epoch_date, listen, reasons_not_ready};
pub use positions::{MIN_POSITION_HEADER, Position, Positions};
pub use query::{Prepared, Queries, QueryAnswer};
pub use replaying::{CorrectedAsk, REPLAY_ACTION, RangeAsk, ReplayAsk, from_hexadecimal};
pub use server::{Listeners, Server};
