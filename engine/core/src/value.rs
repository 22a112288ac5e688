//! One cell, for the oracles, messages and golden output. Never in a hot path: those work on Arrow arrays.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use crate::{Error, Result};

/// A typed cell. Integers, dates, timestamps and decimals are all `Int` in the unit of their column.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    /// Cell `row` of `column`. Errors: Invalid for nested types.
    pub fn of(column: &ArrayRef, row: usize) -> Result<Value> {
        if column.is_null(row) {
            return Ok(Value::Null);
        }
        macro_rules! int {
            ($type:ty) => {
                Value::Int(column.as_primitive::<$type>().value(row) as i128)
            };
        }
        Ok(match column.data_type() {
            DataType::Null => Value::Null,
            DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
            DataType::Int8 => int!(Int8Type),
            DataType::Int16 => int!(Int16Type),
            DataType::Int32 => int!(Int32Type),
            DataType::Int64 => int!(Int64Type),
            DataType::UInt8 => int!(UInt8Type),
            DataType::UInt16 => int!(UInt16Type),
            DataType::UInt32 => int!(UInt32Type),
            DataType::UInt64 => int!(UInt64Type),
            DataType::Date32 => int!(Date32Type),
            DataType::Date64 => int!(Date64Type),
            DataType::Decimal128(_, _) => int!(Decimal128Type),
            DataType::Timestamp(TimeUnit::Second, _) => int!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => int!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => int!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => int!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Microsecond) => int!(DurationMicrosecondType),
            DataType::Float32 => Value::Float(f64::from(column.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_string()),
            DataType::LargeUtf8 => Value::Text(column.as_string::<i64>().value(row).to_string()),
            DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_string()),
            DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
            other => return Err(Error::invalid(format!("a value of type {other} cannot be read cell by cell"))),
        })
    }

    /// All rows of a batch, cell by cell.
    pub fn rows_of(batch: &RecordBatch) -> Result<Vec<Vec<Value>>> {
        (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| Value::of(column, row)).collect()).collect()
    }

    /// The batch that holds these rows. Errors: Invalid where a cell does not fit its column's type.
    pub fn batch_of(schema: &SchemaRef, rows: &[Vec<Value>]) -> Result<RecordBatch> {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| Value::column_of(field.data_type(), rows.iter().map(|row| &row[index])))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }

    /// A column of these cells. Errors: Invalid where a cell does not fit the type.
    pub fn column_of<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> Result<ArrayRef> {
        fn misfit(value: &Value, data_type: &DataType) -> Error {
            Error::invalid(format!("{value} is not a value of type {data_type}"))
        }
        macro_rules! collect {
            ($array:ty, $pattern:pat => $cell:expr) => {{
                let cells = values
                    .map(|value| match value {
                        Value::Null => Ok(None),
                        $pattern => Ok(Some($cell)),
                        other => Err(misfit(other, data_type)),
                    })
                    .collect::<Result<Vec<_>>>()?;
                <$array>::from(cells)
            }};
        }
        macro_rules! ints {
            ($type:ty) => {
                Arc::new(collect!(PrimitiveArray<$type>, Value::Int(v) => *v as <$type as ArrowPrimitiveType>::Native).with_data_type(data_type.clone()))
            };
        }
        Ok(match data_type {
            DataType::Null => Arc::new(NullArray::new(values.count())),
            DataType::Boolean => Arc::new(collect!(BooleanArray, Value::Bool(v) => *v)),
            DataType::Int8 => ints!(Int8Type),
            DataType::Int16 => ints!(Int16Type),
            DataType::Int32 => ints!(Int32Type),
            DataType::Int64 => ints!(Int64Type),
            DataType::UInt8 => ints!(UInt8Type),
            DataType::UInt16 => ints!(UInt16Type),
            DataType::UInt32 => ints!(UInt32Type),
            DataType::UInt64 => ints!(UInt64Type),
            DataType::Date32 => ints!(Date32Type),
            DataType::Date64 => ints!(Date64Type),
            DataType::Decimal128(_, _) => ints!(Decimal128Type),
            DataType::Timestamp(TimeUnit::Second, _) => ints!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => ints!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => ints!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => ints!(TimestampNanosecondType),
            DataType::Float32 => Arc::new(collect!(Float32Array, Value::Float(v) => *v as f32)),
            DataType::Float64 => Arc::new(collect!(Float64Array, Value::Float(v) => *v)),
            DataType::Utf8 => Arc::new(collect!(StringArray, Value::Text(v) => v.as_str())),
            DataType::Binary => Arc::new(collect!(BinaryArray, Value::Bytes(v) => v.as_slice())),
            other => return Err(Error::invalid(format!("a column of type {other} cannot be built cell by cell"))),
        })
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            Value::Text(_) => 4,
            Value::Bytes(_) => 5,
        }
    }
}

/// A total order: NULL first, NaN greatest of the floats (T20), −0.0 below 0.0, types by rank.
impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => match (a.is_nan(), b.is_nan()) {
                (false, false) => a.total_cmp(b),
                (a, b) => a.cmp(&b),
            },
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v:?}"),
            Value::Text(v) => write!(f, "{v}"),
            Value::Bytes(v) => write!(f, "{} bytes", v.len()),
        }
    }
}
