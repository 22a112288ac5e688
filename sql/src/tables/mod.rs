//! Tables and what statements write: rows that a script or a client keeps, and streams that INSERT INTO leads into pipes and sinks.
//!
//! One meaning for a table without connector: what statements write (VALUES, or a SELECT over such tables) is kept and can be changed; what a SELECT
//! over streams inserts flows through, and such a table is a pipe.

mod affected;
pub(crate) mod change;
mod content;
mod declare;
mod drop;
mod literals;
mod live;
mod names;
mod refused;
mod returning;
mod stream;

pub(crate) use change::{Change, complete};
pub(crate) use content::{Content, keys_of};
pub(crate) use declare::{SinkTable, Stored, define_computed};
pub(crate) use drop::kept_after;
pub use live::{Tables, Written, count_schema};
pub(crate) use names::{Survey, relations_in};
