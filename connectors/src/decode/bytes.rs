//! ENCODE BYTES: the record is its one column, BYTEA as it is, VARCHAR if it is UTF-8.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Schema};

use super::record::{Refusal, RowDecoder};
use super::{Cell, Fault, Rows};

pub struct BytesDecoder {
    column: usize,
    text: bool,
}

impl BytesDecoder {
    /// Errors: it is not one column, or neither BYTEA nor VARCHAR.
    pub fn new(schema: &Schema, columns: &[usize]) -> Result<BytesDecoder, String> {
        let [column] = columns else {
            let count = columns.len();
            return Err(format!("ENCODE BYTES fills one column, but {count} are declared; others can be metadata: INCLUDE … AS column"));
        };
        match schema.field(*column).data_type() {
            DataType::Binary => Ok(BytesDecoder { column: *column, text: false }),
            DataType::Utf8 => Ok(BytesDecoder { column: *column, text: true }),
            _ => Err(format!("ENCODE BYTES fills a column of type BYTEA or VARCHAR, and {} is neither", schema.field(*column).name())),
        }
    }
}

impl RowDecoder for BytesDecoder {
    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        if !self.text {
            return Ok(rows.set(self.column, &Cell::Bytes(Cow::Borrowed(payload)))?);
        }
        let text = std::str::from_utf8(payload);
        let text = text.map_err(|error| {
            let field = rows.schema().field(self.column).name().clone();
            Fault::new(&field, format!("not UTF-8 at byte {}; declare the column BYTEA", error.valid_up_to() + 1))
        })?;
        Ok(rows.set(self.column, &Cell::Text(Cow::Borrowed(text)))?)
    }
}
