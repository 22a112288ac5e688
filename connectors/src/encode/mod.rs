//! Rows to bytes that depend on the rows alone.

mod columns;
mod csv;
mod json;
mod record;

pub use columns::{Cells, check_types};
pub use csv::CsvRows;
pub use json::{DebeziumRows, JsonRows, RowText};
pub use record::{OutRecord, RecordEncoder, check_sink, sink_options};

use freshet_core::{Batch, Result};

/// Appends changes as text. On an error nothing is appended.
pub trait TextEncoder: Send {
    /// What a file begins with.
    fn header(&self) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&mut self, changes: &Batch, out: &mut Vec<u8>) -> Result<()>;
}
