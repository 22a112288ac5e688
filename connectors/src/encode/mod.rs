//! Rows to text whose bytes depend on the rows alone.

mod columns;
mod csv;
mod json;

pub use columns::check_types;
pub use csv::CsvRows;
pub use json::{DebeziumRows, JsonRows, RowText};

use freshet_core::{Batch, Result};

/// Appends changes as text. On an error nothing is appended.
pub trait TextEncoder: Send {
    /// What a file begins with.
    fn header(&self) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&mut self, changes: &Batch, out: &mut Vec<u8>) -> Result<()>;
}
