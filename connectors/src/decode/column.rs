//! Builds one column from cells. In: cells of any encoding. Out: an Arrow array of the declared type; every value fits or is refused with the reason.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::*;
use base64::prelude::{BASE64_STANDARD, Engine};
use chrono::Utc;

use super::Cell;

/// Room for texts that a column keeps from one batch to the next, at most.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// A column under construction. Unlike Arrow's builders it can be cut back, because a row is taken whole or not at all.
pub struct ColumnBuilder {
    data_type: DataType,
    values: Values,
    len: usize,
    /// Empty while every cell has a value.
    valid: Vec<bool>,
    held: bool,
}

enum Values {
    Bool(Vec<bool>),
    /// Every integer, date and timestamp that fits; narrowed at the end.
    Int(Vec<i64>),
    UInt(Vec<u64>),
    Float(Vec<f64>),
    Decimal(Vec<i128>),
    /// Texts and bytes alike.
    Text {
        bytes: Vec<u8>,
        ends: Vec<i32>,
    },
}

/// The type as a script writes it.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary => "BYTEA".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(TimeUnit::Second, _) => "TIMESTAMP(0)".into(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => "TIMESTAMP(3)".into(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "TIMESTAMP(9)".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        other => other.to_string(),
    }
}

/// Errors: the first column whose type cannot be read from text.
pub fn check_types(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        if Values::empty(field.data_type()).is_none() {
            let name = sql_name(field.data_type());
            return Err(format!(
                "column {} has type {name}, which JSON and CSV files cannot hold; declare it VARCHAR or use ENCODE PARQUET",
                field.name()
            ));
        }
    }
    Ok(())
}

impl Values {
    fn empty(data_type: &DataType) -> Option<Values> {
        Some(match data_type {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Values::Int(Vec::new()),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::Date32 | DataType::Timestamp(_, _) => Values::Int(Vec::new()),
            DataType::UInt64 => Values::UInt(Vec::new()),
            DataType::Float32 | DataType::Float64 => Values::Float(Vec::new()),
            DataType::Decimal128(_, _) => Values::Decimal(Vec::new()),
            DataType::Utf8 | DataType::Binary => Values::Text { bytes: Vec::new(), ends: Vec::new() },
            _ => return None,
        })
    }

    /// Empty ones of the same kind, with room for as much: batches come one like the other.
    fn next(&self) -> Values {
        match self {
            Values::Bool(values) => Values::Bool(Vec::with_capacity(values.len())),
            Values::Int(values) => Values::Int(Vec::with_capacity(values.len())),
            Values::UInt(values) => Values::UInt(Vec::with_capacity(values.len())),
            Values::Float(values) => Values::Float(Vec::with_capacity(values.len())),
            Values::Decimal(values) => Values::Decimal(Vec::with_capacity(values.len())),
            Values::Text { bytes, ends } => {
                Values::Text { bytes: Vec::with_capacity(bytes.len().min(ROOM_BYTES_MAX)), ends: Vec::with_capacity(ends.len()) }
            }
        }
    }
}

impl ColumnBuilder {
    /// Panics if the type did not pass `check_types`.
    pub fn new(data_type: &DataType) -> ColumnBuilder {
        let values = Values::empty(data_type).expect("types are checked when the source is declared");
        ColumnBuilder { data_type: data_type.clone(), values, len: 0, valid: Vec::new(), held: false }
    }

    /// Errors: why the cell does not fit; the column is then unchanged.
    pub fn push(&mut self, cell: &Cell) -> Result<(), String> {
        if *cell == Cell::Null {
            self.push_null();
            return Ok(());
        }
        let data_type = &self.data_type;
        let fitted = match &mut self.values {
            Values::Bool(values) => boolean(cell).map(|value| values.push(value)),
            Values::Int(values) => integer_of(data_type, cell).map(|value| values.push(value)),
            Values::UInt(values) => unsigned(cell).map(|value| values.push(value)),
            Values::Float(values) => float(data_type, cell).map(|value| values.push(value)),
            Values::Decimal(values) => decimal(data_type, cell).map(|value| values.push(value)),
            Values::Text { bytes, ends } => content(data_type, cell).and_then(|content| {
                let end = i32::try_from(bytes.len() + content.len()).ok()?;
                bytes.extend_from_slice(&content);
                ends.push(end);
                Some(())
            }),
        };
        fitted.ok_or_else(|| format!("expected {}, found {cell}", sql_name(data_type)))?;
        self.note(true);
        Ok(())
    }

    /// A value of a column of integers or times, which it fits.
    #[inline]
    pub fn push_integer(&mut self, value: i64) {
        let Values::Int(values) = &mut self.values else { unreachable!("the caller knows the type") };
        values.push(value);
        self.note(true);
    }

    /// A value of a DOUBLE column.
    #[inline]
    pub fn push_double(&mut self, value: f64) {
        let Values::Float(values) = &mut self.values else { unreachable!("the caller knows the type") };
        values.push(value);
        self.note(true);
    }

    /// A value of a BOOLEAN column.
    #[inline]
    pub fn push_bool(&mut self, value: bool) {
        let Values::Bool(values) = &mut self.values else { unreachable!("the caller knows the type") };
        values.push(value);
        self.note(true);
    }

    /// A value of a VARCHAR column. None: the column would have more bytes than it can, and is unchanged.
    #[inline]
    pub fn push_text(&mut self, text: &str) -> Option<()> {
        let Values::Text { bytes, ends } = &mut self.values else { unreachable!("the caller knows the type") };
        let end = i32::try_from(bytes.len() + text.len()).ok()?;
        bytes.extend_from_slice(text.as_bytes());
        ends.push(end);
        self.note(true);
        Some(())
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Another cell has been pushed.
    #[inline]
    fn note(&mut self, valid: bool) {
        if !valid && self.valid.is_empty() {
            self.valid = vec![true; self.len];
        }
        if !valid || !self.valid.is_empty() {
            self.valid.push(valid);
        }
        self.len += 1;
    }

    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    #[inline]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the last cell is not NULL.
    pub fn ends_valid(&self) -> bool {
        self.len > 0 && *self.valid.last().unwrap_or(&true)
    }

    /// The last cell of a column of integers or times; None: it is NULL.
    pub fn last_integer(&self) -> Option<i64> {
        match &self.values {
            Values::Int(values) if self.ends_valid() => values.last().copied(),
            _ => None,
        }
    }

    pub fn push_null(&mut self) {
        self.push_nothing();
        self.note(false);
    }

    /// Zero, nothing, the beginning of time: what stands where no value matters.
    pub fn push_zero(&mut self) {
        self.push_nothing();
        self.note(true);
    }

    fn push_nothing(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::Int(values) => values.push(0),
            Values::UInt(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Text { bytes, ends } => ends.push(bytes.len() as i32),
        }
    }

    /// Forgets what was pushed after the first `rows` cells.
    pub fn truncate(&mut self, rows: usize) {
        self.len = self.len.min(rows);
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int(values) => values.truncate(rows),
            Values::UInt(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
            Values::Text { bytes, ends } => {
                ends.truncate(rows);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    /// The column so far; the builder is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        self.len = 0;
        let valid = std::mem::take(&mut self.valid);
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        let next = self.values.next();
        match std::mem::replace(&mut self.values, next) {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Int(values) => narrowed(&self.data_type, values, nulls),
            Values::UInt(values) => Arc::new(UInt64Array::new(values.into(), nulls)),
            Values::Float(values) if self.data_type == DataType::Float32 => {
                Arc::new(Float32Array::new(values.into_iter().map(|value| value as f32).collect(), nulls))
            }
            Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Decimal(values) => Arc::new(Decimal128Array::new(values.into(), nulls).with_data_type(self.data_type.clone())),
            Values::Text { bytes, ends } => {
                let offsets = OffsetBuffer::new(std::iter::once(0).chain(ends).collect::<ScalarBuffer<i32>>());
                if self.data_type == DataType::Binary {
                    return Arc::new(BinaryArray::new(offsets, bytes.into(), nulls));
                }
                Arc::new(StringArray::new(offsets, bytes.into(), nulls))
            }
        }
    }
}

fn narrowed(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    macro_rules! array {
        ($type:ty) => {{
            let values = values.into_iter().map(|value| value as <$type as ArrowPrimitiveType>::Native).collect();
            Arc::new(PrimitiveArray::<$type>::new(values, nulls).with_data_type(data_type.clone()))
        }};
    }
    match data_type {
        DataType::Int8 => array!(Int8Type),
        DataType::Int16 => array!(Int16Type),
        DataType::Int32 => array!(Int32Type),
        DataType::UInt8 => array!(UInt8Type),
        DataType::UInt16 => array!(UInt16Type),
        DataType::UInt32 => array!(UInt32Type),
        DataType::Date32 => array!(Date32Type),
        DataType::Timestamp(TimeUnit::Second, _) => array!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array!(TimestampNanosecondType),
        _ => array!(Int64Type),
    }
}

/// The bytes of a text or byte column. Encodings of text write bytes in base64; bytes that are UTF-8 are text.
fn content<'a>(data_type: &DataType, cell: &'a Cell) -> Option<Cow<'a, [u8]>> {
    match (data_type, cell) {
        (DataType::Utf8, Cell::Text(text) | Cell::Raw(text)) => Some(Cow::Borrowed(text.as_bytes())),
        // What is in it is found by the operators of JSON.
        (DataType::Utf8, Cell::Json(text)) => Some(Cow::Borrowed(text.as_bytes())),
        (DataType::Utf8, Cell::Bytes(bytes)) => std::str::from_utf8(bytes).is_ok().then_some(Cow::Borrowed(bytes)),
        (DataType::Binary, Cell::Bytes(bytes)) => Some(Cow::Borrowed(bytes)),
        (DataType::Binary, Cell::Text(text) | Cell::Raw(text)) => BASE64_STANDARD.decode(text.as_ref()).ok().map(Cow::Owned),
        _ => None,
    }
}

fn boolean(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::Bool(value) => Some(*value),
        Cell::Raw(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Some(true),
            "false" | "f" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// JSON has one kind of number: 2.0 is an integer, 2.5 is none.
fn integer(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) | Cell::Instant(value, _) => Some(*value),
        Cell::Day(day) => Some(i64::from(*day)),
        Cell::Decimal(digits, scale) => rescaled(*digits, *scale, 0).and_then(|value| i64::try_from(value).ok()),
        Cell::Float(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => Some(*value as i64),
        Cell::Raw(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn integer_of(data_type: &DataType, cell: &Cell) -> Option<i64> {
    match data_type {
        DataType::Date32 => date(cell),
        DataType::Timestamp(unit, _) => timestamp(*unit, cell),
        _ => {
            let (least, greatest) = integer_range(data_type)?;
            integer(cell).filter(|value| (least..=greatest).contains(value))
        }
    }
}

/// The integers that a column of this type holds, a time by its own unit. None: it holds none, or more than an i64.
pub fn integer_range(data_type: &DataType) -> Option<(i64, i64)> {
    Some(match data_type {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 | DataType::Date32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int64 | DataType::Timestamp(_, _) => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, i64::from(u8::MAX)),
        DataType::UInt16 => (0, i64::from(u16::MAX)),
        DataType::UInt32 => (0, i64::from(u32::MAX)),
        _ => return None,
    })
}

fn unsigned(cell: &Cell) -> Option<u64> {
    match cell {
        Cell::UInt(value) => Some(*value),
        Cell::Raw(text) => text.trim().parse().ok(),
        _ => integer(cell).and_then(|value| u64::try_from(value).ok()),
    }
}

fn float(data_type: &DataType, cell: &Cell) -> Option<f64> {
    let value = match cell {
        Cell::Int(value) => *value as f64,
        Cell::UInt(value) => *value as f64,
        Cell::Float(value) => *value,
        Cell::Decimal(digits, scale) => *digits as f64 / 10_f64.powi(i32::from(*scale)),
        Cell::Text(text) => match text.as_ref() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return None,
        },
        Cell::Raw(text) => {
            let value: f64 = text.trim().parse().ok()?;
            // Rust reads 1e999 as infinity; only a text that says so means it.
            if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
                return None;
            }
            value
        }
        _ => return None,
    };
    let overflows = *data_type == DataType::Float32 && value.is_finite() && (value as f32).is_infinite();
    (!overflows).then_some(value)
}

fn decimal(data_type: &DataType, cell: &Cell) -> Option<i128> {
    let DataType::Decimal128(precision, scale) = data_type else { return None };
    let text = match cell {
        Cell::Int(value) => value.to_string(),
        Cell::UInt(value) => value.to_string(),
        Cell::Float(value) => value.to_string(),
        Cell::Text(text) | Cell::Raw(text) => text.trim().to_string(),
        Cell::Decimal(digits, from) => {
            return rescaled(*digits, *from, *scale).filter(|value| Decimal128Type::is_valid_decimal_precision(*value, *precision));
        }
        _ => return None,
    };
    let value = decimal_of(&text, *scale).filter(|value| Decimal128Type::is_valid_decimal_precision(*value, *precision))?;
    (!matches!(cell, Cell::Float(_)) || is_exact(&text, value)).then_some(value)
}

/// Whether a float was exact to the digits that count: it has lost what stood behind its fifteenth digit. A number as text keeps all.
fn is_exact(float: &str, value: i128) -> bool {
    const DIGITS_MAX: usize = 15;
    let digits: Vec<u8> = float.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').collect();
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    digits.len() - zeros <= DIGITS_MAX || value.unsigned_abs() < 1_000_000_000_000_000
}

/// A number as text, with or without a point and an exponent, in digits of this scale; what is finer is rounded half away from zero. Arrow's
/// own parser overflows on long exponents.
fn decimal_of(text: &str, scale: i8) -> Option<i128> {
    const EXPONENT_MAX: i64 = 1_000;
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i64>().ok().filter(|exponent| exponent.abs() <= EXPONENT_MAX)?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // How many of the digits count; the next one rounds.
    let kept = whole.len() as i64 + exponent + i64::from(scale);
    let mut value = 0_i128;
    for place in 0..kept.max(0) {
        let digit = usize::try_from(place).ok().and_then(|place| digits().nth(place)).map_or(0, |digit| digit - b'0');
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let next = usize::try_from(kept).ok().and_then(|kept| digits().nth(kept));
    value += i128::from(next.is_some_and(|digit| digit >= b'5'));
    Some(if negative { -value } else { value })
}

/// The same number with other digits behind the point; None if that would round.
fn rescaled(digits: i128, from: i8, to: i8) -> Option<i128> {
    let power = 10_i128.checked_pow(u32::from(from.abs_diff(to)))?;
    if to >= from { digits.checked_mul(power) } else { (digits % power == 0).then_some(digits / power) }
}

fn date(cell: &Cell) -> Option<i64> {
    let days = match cell {
        Cell::Int(value) => i32::try_from(*value).ok(),
        Cell::Day(day) => Some(*day),
        Cell::Text(text) | Cell::Raw(text) => Date32Type::parse(text.trim()),
        _ => None,
    };
    days.map(i64::from)
}

/// RFC 3339, or 'YYYY-MM-DD HH:MM:SS[.fff]' in UTC, or an integer in the column's unit. Finer digits are cut off.
fn timestamp(unit: TimeUnit, cell: &Cell) -> Option<i64> {
    let text = match cell {
        Cell::Int(value) => return Some(*value),
        Cell::Instant(value, from) => return in_unit(*value, *from, unit),
        Cell::Day(day) => return in_unit(i64::from(*day) * 86_400, TimeUnit::Second, unit),
        Cell::Raw(text) if text.trim().parse::<i64>().is_ok() => return text.trim().parse().ok(),
        Cell::Text(text) | Cell::Raw(text) => text.trim(),
        _ => return None,
    };
    let instant = string_to_datetime(&Utc, text).ok()?;
    match unit {
        TimeUnit::Second => Some(instant.timestamp()),
        TimeUnit::Millisecond => Some(instant.timestamp_millis()),
        TimeUnit::Microsecond => Some(instant.timestamp_micros()),
        TimeUnit::Nanosecond => instant.timestamp_nanos_opt(),
    }
}

/// Finer digits are cut off.
fn in_unit(value: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let per_second = |unit| match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let (from, to): (i64, i64) = (per_second(from), per_second(to));
    if to >= from { value.checked_mul(to / from) } else { Some(value.div_euclid(from / to)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(data_type: DataType, cell: Cell) -> String {
        ColumnBuilder::new(&data_type).push(&cell).unwrap_err()
    }

    fn int(data_type: DataType, cell: Cell) -> i64 {
        let mut builder = ColumnBuilder::new(&data_type);
        builder.push(&cell).unwrap();
        let Values::Int(values) = &builder.values else { panic!("not an integer column") };
        values[0]
    }

    #[test]
    fn a_value_that_does_not_fit_names_type_and_value() {
        assert_eq!(reason(DataType::Int32, Cell::Int(3_000_000_000)), "expected INT, found 3000000000");
        assert_eq!(reason(DataType::Int64, Cell::Float(1.5)), "expected BIGINT, found 1.5");
        assert_eq!(reason(DataType::Int64, Cell::Text("7".into())), "expected BIGINT, found the string \"7\"");
        assert_eq!(reason(DataType::Utf8, Cell::Int(7)), "expected VARCHAR, found 7");
        assert_eq!(reason(DataType::Float64, Cell::Raw("1e999".into())), "expected DOUBLE, found \"1e999\"");
        assert_eq!(reason(DataType::Boolean, Cell::Json("{}")), "expected BOOLEAN, found an object");
    }

    #[test]
    fn timestamps_come_in_three_forms() {
        let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
        for text in ["2013-01-01T10:15:00.250Z", "2013-01-01 10:15:00.250", "2013-01-01T11:15:00.250+01:00", "1357035300250"] {
            assert_eq!(int(ms.clone(), Cell::Raw(text.into())), 1_357_035_300_250, "{text}");
        }
        assert_eq!(int(ms.clone(), Cell::Int(5)), 5);
        assert_eq!(int(DataType::Timestamp(TimeUnit::Second, None), Cell::Text("1970-01-01T00:01:00Z".into())), 60);
        assert_eq!(reason(ms, Cell::Text("yesterday".into())), "expected TIMESTAMP(3), found the string \"yesterday\"");
    }

    #[test]
    fn decimals_are_read_whole_or_refused() {
        let read = |text: &str| decimal_of(text, 2);
        assert_eq!([read("1"), read("-1.5"), read("+.25"), read("1.005"), read("-1.004")], [100, -150, 25, 101, -100].map(Some));
        assert_eq!([read("12e-1"), read("1.5E2"), read("4e-3"), read("5e-3"), read("0e999")], [120, 15_000, 0, 1, 0].map(Some));
        for text in ["", "-", ".", "1e", "1e99", "1e5000", "1,5", "0x1", "1.2.3", "NaN", "99999999999999999999999999999999999999999"] {
            assert_eq!(read(text), None, "{text}");
        }
        let float = |data_type: &DataType, value: f64| decimal(data_type, &Cell::Float(value));
        assert_eq!(float(&DataType::Decimal128(38, 0), 1e20), Some(10_i128.pow(20)));
        assert_eq!(float(&DataType::Decimal128(38, 20), 0.1), Some(10_i128.pow(19)));
        assert_eq!(float(&DataType::Decimal128(10, 2), 0.1 + 0.2), Some(30));
        assert_eq!(float(&DataType::Decimal128(38, 0), 123_456_789_012_345_678_901_234_567_890.0), None, "a float cannot say this number");
        assert_eq!(reason(DataType::Decimal128(5, 2), Cell::Int(1_000)), "expected DECIMAL(5, 2), found 1000");
    }

    #[test]
    fn truncate_restores_the_column_before_the_row() {
        let mut builder = ColumnBuilder::new(&DataType::Utf8);
        builder.push(&Cell::Text("kept".into())).unwrap();
        builder.push(&Cell::Text("lost".into())).unwrap();
        builder.truncate(1);
        builder.push(&Cell::Null).unwrap();
        let array = builder.finish();
        assert_eq!(array.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("kept"), None]);
    }
}
