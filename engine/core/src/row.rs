//! Typed tuples as bytes that compare and hash like the tuple. In: columns. Out: one byte string per row (T7).

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use crate::{Error, Result};

/// Turns columns of fixed types into comparable bytes and back. (1,12) and (11,2) differ; NULL is a value of its own.
#[derive(Debug)]
pub struct KeyCodec {
    converter: RowConverter,
}

impl KeyCodec {
    /// Errors: Invalid if a type has no order (a map, say).
    pub fn new(types: &[DataType]) -> Result<KeyCodec> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| Error::invalid(format!("these types cannot be a key: {error}")))?;
        Ok(KeyCodec { converter })
    }

    pub fn for_schema(schema: &SchemaRef) -> Result<KeyCodec> {
        KeyCodec::new(&schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>())
    }

    /// One row of bytes per row of the columns.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The columns back from the bytes of `encode`.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes)))?)
    }

    /// As `decode`, as a batch. Errors: Internal if the bytes are of another schema.
    pub fn decode_batch<'a>(&self, schema: &SchemaRef, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let rows: Vec<&[u8]> = rows.into_iter().collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = if schema.fields().is_empty() { Vec::new() } else { self.decode(rows)? };
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}
