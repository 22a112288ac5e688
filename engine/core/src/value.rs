//! One cell, for the oracles, messages and golden output, and for what operators remember of values of any type. In: arrays. Out: arrays.
//! Hot paths work on Arrow arrays instead.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;

use crate::{Error, Result};

/// A typed cell. Integers, dates, times, timestamps, durations and decimals are all `Int` in the unit of their column.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Interval(Box<Interval>),
    List(Vec<Value>),
    /// One value per field.
    Struct(Vec<Value>),
    /// Keys and values in the order of the entries.
    Map(Vec<(Value, Value)>),
}

/// Months, days and nanoseconds, which no calendar turns into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub nanoseconds: i64,
}

impl Value {
    /// Cell `row` of `column`. Errors: Invalid for types that no view can hold.
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
            DataType::Time32(TimeUnit::Second) => int!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => int!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => int!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => int!(Time64NanosecondType),
            DataType::Duration(TimeUnit::Second) => int!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => int!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => int!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => int!(DurationNanosecondType),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let found = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
                Value::Interval(Box::new(Interval { months: found.months, days: found.days, nanoseconds: found.nanoseconds }))
            }
            DataType::Float32 => Value::Float(f64::from(column.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_string()),
            DataType::LargeUtf8 => Value::Text(column.as_string::<i64>().value(row).to_string()),
            DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_string()),
            DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
            DataType::LargeBinary => Value::Bytes(column.as_binary::<i64>().value(row).to_vec()),
            DataType::BinaryView => Value::Bytes(column.as_binary_view().value(row).to_vec()),
            DataType::List(_) => Value::List(Value::all_of(&column.as_list::<i32>().value(row))?),
            DataType::LargeList(_) => Value::List(Value::all_of(&column.as_list::<i64>().value(row))?),
            DataType::FixedSizeList(_, _) => Value::List(Value::all_of(&column.as_fixed_size_list().value(row))?),
            DataType::Struct(_) => Value::Struct(column.as_struct().columns().iter().map(|field| Value::of(field, row)).collect::<Result<_>>()?),
            DataType::Map(_, _) => {
                let entries = column.as_map().value(row);
                let (keys, values) = (Value::all_of(entries.column(0))?, Value::all_of(entries.column(1))?);
                Value::Map(keys.into_iter().zip(values).collect())
            }
            other => return Err(Error::invalid(format!("a value of type {other} cannot be read cell by cell"))),
        })
    }

    /// All cells of a column.
    pub fn all_of(column: &ArrayRef) -> Result<Vec<Value>> {
        (0..column.len()).map(|row| Value::of(column, row)).collect()
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
            DataType::Time32(TimeUnit::Second) => ints!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => ints!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => ints!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => ints!(Time64NanosecondType),
            DataType::Duration(TimeUnit::Second) => ints!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => ints!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => ints!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => ints!(DurationNanosecondType),
            DataType::Interval(IntervalUnit::MonthDayNano) => Arc::new(collect!(IntervalMonthDayNanoArray, Value::Interval(v) => {
                IntervalMonthDayNano { months: v.months, days: v.days, nanoseconds: v.nanoseconds }
            })),
            DataType::Utf8 => Arc::new(collect!(StringArray, Value::Text(v) => v.as_str())),
            DataType::LargeUtf8 => Arc::new(collect!(LargeStringArray, Value::Text(v) => v.as_str())),
            DataType::Utf8View => Arc::new(collect!(StringViewArray, Value::Text(v) => v.as_str())),
            DataType::Binary => Arc::new(collect!(BinaryArray, Value::Bytes(v) => v.as_slice())),
            DataType::LargeBinary => Arc::new(collect!(LargeBinaryArray, Value::Bytes(v) => v.as_slice())),
            DataType::List(item) => {
                let lists = collect_nested(values, data_type, |value| if let Value::List(cells) = value { Some(cells) } else { None })?;
                let items = column_of_cells(item.data_type(), lists.iter().flatten().copied().flatten().collect())?;
                let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
                Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), items, valid(&lists))?)
            }
            DataType::Struct(fields) => {
                let structs = collect_nested(values, data_type, |value| match value {
                    Value::Struct(cells) if cells.len() == fields.len() => Some(cells),
                    _ => None,
                })?;
                let cells = |index: usize| -> Vec<&Value> { structs.iter().map(|cells| cells.map_or(&Value::Null, |cells| &cells[index])).collect() };
                let columns = fields.iter().enumerate().map(|(index, field)| column_of_cells(field.data_type(), cells(index)));
                let columns = columns.collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), columns, valid(&structs), structs.len())?)
            }
            DataType::Map(entries, sorted) => {
                let maps = collect_nested(values, data_type, |value| if let Value::Map(cells) = value { Some(cells) } else { None })?;
                let DataType::Struct(fields) = entries.data_type() else { return Err(Error::invalid("the entries of a map are a struct")) };
                let cells = || maps.iter().flatten().copied().flatten();
                let keys = column_of_cells(fields[0].data_type(), cells().map(|(key, _)| key).collect())?;
                let contents = column_of_cells(fields[1].data_type(), cells().map(|(_, value)| value).collect())?;
                let pairs = StructArray::try_new(fields.clone(), vec![keys, contents], None)?;
                let offsets = OffsetBuffer::from_lengths(maps.iter().map(|map| map.map_or(0, Vec::len)));
                Arc::new(MapArray::try_new(entries.clone(), offsets, pairs, valid(&maps), *sorted)?)
            }
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
            Value::Interval(_) => 6,
            Value::List(_) => 7,
            Value::Struct(_) => 8,
            Value::Map(_) => 9,
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
            (Value::Interval(a), Value::Interval(b)) => a.cmp(b),
            (Value::List(a), Value::List(b)) | (Value::Struct(a), Value::Struct(b)) => a.cmp(b),
            (Value::Map(a), Value::Map(b)) => a.cmp(b),
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

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => state.write_u8(0),
            Value::Bool(value) => value.hash(state),
            // Most integers are short, and a short hash of one is as good.
            Value::Int(value) => state.write_u64((*value >> 64) as u64 ^ *value as u64),
            Value::Float(value) => state.write_u64(if value.is_nan() { f64::NAN } else { *value }.to_bits()),
            Value::Text(value) => value.hash(state),
            Value::Bytes(value) => value.hash(state),
            Value::Interval(value) => value.hash(state),
            Value::List(values) | Value::Struct(values) => values.hash(state),
            Value::Map(entries) => entries.hash(state),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v:?}"),
            Value::Text(v) => write!(f, "{v}"),
            Value::Bytes(v) => write!(f, "{} bytes", v.len()),
            Value::Interval(v) => write!(f, "{} months {} days {} ns", v.months, v.days, v.nanoseconds),
            Value::List(v) => write!(f, "[{}]", v.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
            Value::Struct(v) => write!(f, "({})", v.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
            Value::Map(v) => write!(f, "{{{}}}", v.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// The cells of a nested column, None where NULL. Errors: Invalid for a value that is something else.
fn collect_nested<'a, T>(
    values: impl Iterator<Item = &'a Value>,
    data_type: &DataType,
    cells: impl Fn(&'a Value) -> Option<&'a Vec<T>>,
) -> Result<Vec<Option<&'a Vec<T>>>> {
    let one = |value: &'a Value| match (value, cells(value)) {
        (Value::Null, _) => Ok(None),
        (_, Some(cells)) => Ok(Some(cells)),
        _ => Err(Error::invalid(format!("{value} is not a value of type {data_type}"))),
    };
    values.map(one).collect()
}

/// Recursion on one type of iterator.
fn column_of_cells(data_type: &DataType, cells: Vec<&Value>) -> Result<ArrayRef> {
    Value::column_of(data_type, cells.into_iter())
}

fn valid<T>(cells: &[Option<T>]) -> Option<NullBuffer> {
    cells.iter().any(Option::is_none).then(|| cells.iter().map(Option::is_some).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_column_is_what_its_cells_are() {
        let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
        let fields = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::List(item(DataType::Utf8)), true)]);
        let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Float64, true)]);
        let text = |text: &str| Value::Text(text.into());
        let row = |a, b| Value::Struct(vec![a, b]);
        let cases = [
            (
                DataType::List(item(DataType::Struct(fields.clone()))),
                vec![
                    Value::Null,
                    Value::List(vec![]),
                    Value::List(vec![Value::Null, row(Value::Int(1), Value::List(vec![text("x"), Value::Null])), row(Value::Null, Value::Null)]),
                ],
            ),
            (
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false),
                vec![Value::Map(vec![(text("k"), Value::Float(1.5)), (text("l"), Value::Null)]), Value::Null, Value::Map(vec![])],
            ),
            (
                DataType::Interval(IntervalUnit::MonthDayNano),
                vec![Value::Interval(Box::new(Interval { months: 1, days: -2, nanoseconds: 3 })), Value::Null],
            ),
            (DataType::Time64(TimeUnit::Nanosecond), vec![Value::Int(86_399_999_999_999), Value::Null]),
        ];
        for (data_type, values) in cases {
            let column = Value::column_of(&data_type, values.iter()).unwrap();
            assert_eq!(*column.data_type(), data_type);
            assert_eq!(Value::all_of(&column).unwrap(), values);
            let codec = crate::KeyCodec::new(std::slice::from_ref(&data_type)).unwrap();
            let keys = codec.encode(std::slice::from_ref(&column)).unwrap();
            let back = codec.decode(keys.iter().map(|key| key.data().to_vec()).collect::<Vec<_>>().iter().map(Vec::as_slice)).unwrap();
            assert_eq!(Value::all_of(&back[0]).unwrap(), values, "{data_type}");
            assert!(Value::column_of(&data_type, [&text("x")].into_iter()).is_err());
        }
    }
}
