//! What operators remember, without dataflow, threads or locks: accumulators, event trees, latest rows, rows in order, and their bytes.

mod bytes;
mod cells;
mod counted;
mod distinct;
mod frames;
mod latest;
mod ordered;
mod outputs;
mod pending;
mod ranks;
mod reach;
mod rolling;
mod rows;
mod sequence;
mod sessions;
mod sharded;

pub use bytes::{Bytes, put_bytes, put_cell, put_datum, put_i64, put_u64};
pub use cells::{Cell, CellKind, Datum, DatumReader};
pub use counted::Counted;
pub use distinct::DistinctSketch;
pub use frames::{Shown, Stretch, Whole};
pub use latest::{LatestKey, LatestRow};
pub use ordered::{Held, OrderedRows, after_prefix};
pub use pending::{Due, Pending};
pub use ranks::Ranks;
pub use reach::{Interval, Reach, head_rows};
pub use rolling::{Overlay, RollingKey, RollingLayout};
pub use rows::{LiveRow, RowBag};
pub use sequence::{EntryCodec, Sequence};
pub use sessions::{Moved, Sessions};
pub use sharded::{Kept, ShardedMap};

#[cfg(test)]
mod rolling_tests;
