//! What operators remember, without dataflow, threads or locks: accumulators, event trees, latest rows, and their bytes.

mod bytes;
mod cells;
mod latest;
mod ranks;
mod rolling;
mod sharded;

pub use bytes::{Bytes, put_bytes, put_cell, put_datum, put_i64, put_u64, put_value};
pub use cells::{Cell, CellKind, Datum, DatumReader};
pub use latest::{LatestKey, LatestRow};
pub use ranks::Ranks;
pub use rolling::{Overlay, RollingKey, RollingLayout};
pub use sharded::ShardedMap;

#[cfg(test)]
mod rolling_tests;
