//! Rows to bytes that depend on the rows alone.

mod columns;
mod csv;
mod json;
mod record;
mod schemas;

pub use columns::{Cells, check_types, write_date, write_float, write_instant, write_int};
pub use csv::CsvRows;
pub use json::{DebeziumRows, JsonRows, RowText, write_string};
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
