//! Bytes of one record to typed cells of a row, or the reason why not.

mod cell;
mod column;
mod csv;
mod debezium;
mod json;
mod rows;

pub use cell::Cell;
pub use column::{check_types, sql_name};
pub use csv::CsvDecoder;
pub use debezium::DebeziumDecoder;
pub use json::JsonDecoder;
pub use rows::{Fault, Rows};

/// Decodes records of one encoding. On a fault it may leave part of a row behind; the caller rolls back.
pub trait Decoder: Send {
    /// A new file begins; `header` is its first record where the encoding has one. Errors: the file cannot be this source.
    fn begin(&mut self, _header: Option<&[u8]>) -> Result<(), String> {
        Ok(())
    }

    /// Appends what the record says, which may be nothing, at this offset.
    fn decode(&mut self, record: &[u8], offset: u64, rows: &mut Rows) -> Result<(), Fault>;
}
