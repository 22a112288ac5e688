//! Typed tuples as bytes that compare and hash like the tuple. In: columns. Out: one byte string per row (T7).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use crate::{Error, Result, SortKey};

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

    /// One row of bytes per row of the columns. Every NaN is the same, whatever computed it.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        if columns.iter().any(has_other_nan) {
            let columns: Vec<ArrayRef> = columns.iter().map(with_one_nan).collect();
            return Ok(self.converter.convert_columns(&columns)?);
        }
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The columns back from the bytes of `encode`.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes)))?;
        Ok(columns.into_iter().map(zero_below_nulls).collect())
    }

    /// As `decode`, as a batch. Errors: Internal if the bytes are of another schema.
    pub fn decode_batch<'a>(&self, schema: &SchemaRef, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let rows: Vec<&[u8]> = rows.into_iter().collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = if schema.fields().is_empty() { Vec::new() } else { self.decode(rows)? };
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

/// Decoding leaves the least number below a NULL, and kernels that compute on all numbers overflow there.
fn zero_below_nulls(column: ArrayRef) -> ArrayRef {
    if column.null_count() == 0 {
        return column;
    }
    let values = column.as_ref();
    arrow::array::downcast_primitive_array!(
        values => zeroed(values),
        _ => column,
    )
}

fn zeroed<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>) -> ArrayRef {
    let values: Vec<T::Native> = column.iter().map(Option::unwrap_or_default).collect();
    Arc::new(PrimitiveArray::<T>::new(values.into(), column.nulls().cloned()).with_data_type(column.data_type().clone()))
}

/// Turns the columns of an ORDER BY into bytes whose order is that of the rows. NaN of either sign is the greatest float (T20).
#[derive(Debug)]
pub struct SortCodec {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl SortCodec {
    /// Errors: Invalid if a type has no order.
    pub fn new(schema: &SchemaRef, keys: &[SortKey]) -> Result<SortCodec> {
        let field = |key: &SortKey| {
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            SortField::new_with_options(schema.field(key.column).data_type().clone(), options)
        };
        let converter = RowConverter::new(keys.iter().map(field).collect())
            .map_err(|error| Error::invalid(format!("rows cannot be ordered by these types: {error}")))?;
        Ok(SortCodec { columns: keys.iter().map(|key| key.column).collect(), converter })
    }

    /// One row of bytes per row of a batch; None without keys, where all rows are equal.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Option<Rows>> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|column| batch.column(*column).clone()).collect();
        self.encode_columns(&columns)
    }

    /// As `encode`, of the columns of the keys.
    pub fn encode_columns(&self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        if columns.is_empty() {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = columns.iter().map(with_one_nan).collect();
        Ok(Some(self.converter.convert_columns(&columns)?))
    }
}

/// A NaN with its sign bit set would sort below all floats, and be another key: infinity less infinity has one.
fn with_one_nan(column: &ArrayRef) -> ArrayRef {
    if !has_other_nan(column) {
        return column.clone();
    }
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            Arc::new(floats.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value }))
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            Arc::new(floats.unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value }))
        }
        _ => column.clone(),
    }
}

/// Whether there is a NaN of other bits than the usual one.
fn has_other_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().values().iter().any(|value| value.is_nan() && value.to_bits() != f64::NAN.to_bits())
        }
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().any(|value| value.is_nan() && value.to_bits() != f32::NAN.to_bits())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn t20_a_nan_of_either_sign_is_the_greatest() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(-f64::NAN), Some(f64::INFINITY), Some(-1.0), None, Some(f64::NAN)]));
        let codec = SortCodec::new(&schema, &[SortKey { column: 0, descending: false, nulls_first: true }]).unwrap();
        let rows = codec.encode_columns(&[values]).unwrap().unwrap();
        assert!(rows.row(0) == rows.row(4));
        assert!(rows.row(3) < rows.row(2) && rows.row(2) < rows.row(1) && rows.row(1) < rows.row(0));
    }

    #[test]
    fn t20_every_nan_is_one_key() {
        let codec = KeyCodec::new(&[DataType::Float64]).unwrap();
        let payload = f64::from_bits(f64::NAN.to_bits() | 1);
        let values: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN, payload, f64::INFINITY - f64::INFINITY, 1.0]));
        let rows = codec.encode(&[values]).unwrap();
        assert!((1..4).all(|row| rows.row(row) == rows.row(0)));
        assert!(rows.row(4) != rows.row(0));
    }
}
