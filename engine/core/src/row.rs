//! Typed tuples as bytes that compare and hash like the tuple. In: columns. Out: one byte string per row (T7).

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use crate::{Error, Result};

/// How many virtual shards the state of a pipeline is cut into, whatever the number of workers.
pub const SHARDS: usize = 256;

/// A hash of bytes that is the same on every machine and in every process, because checkpoints are cut by it.
/// Folded 128-bit multiplication over 8-byte words (as in wyhash); not meant against adversaries.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ ((product >> 64) as u64)
    }
    if bytes.is_empty() {
        // The one group without keys belongs to shard 0, where an exchange without keys sends its rows.
        return 0;
    }
    let mut hash = K ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = fold(hash ^ u64::from_le_bytes(word.try_into().expect("chunks of eight")), 0xd6e8_feb8_6659_fd93);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    fold(hash ^ u64::from_le_bytes(last), 0xa076_1d64_78bd_642f)
}

/// The virtual shard of a key's hash: its high bits; tables use the low ones.
pub fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

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
