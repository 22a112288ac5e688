//! The cells of a batch, ready to be written row by row. In: columns of any flat type. Out: their text, the same in every run.
//!
//! Floats are the shortest text that reads back as the same bits. Timestamps are RFC 3339 in UTC with the digits of their unit.

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use base64::prelude::{BASE64_STANDARD, Engine};
use freshet_core::{Error, Result};

const SECONDS_PER_DAY: i64 = 86_400;

/// One column, reduced to the few forms that text knows.
pub enum Cells {
    Null,
    Bool(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Text(StringArray),
    /// Base64, as bytes have no text of their own.
    Bytes(BinaryArray),
    Date(Date32Array),
    Timestamp {
        values: Int64Array,
        unit: TimeUnit,
    },
}

/// Errors: the first column that has no text form.
pub fn check_types(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        if field.data_type().is_nested() && !matches!(field.data_type(), DataType::Dictionary(_, _)) {
            let data_type = field.data_type();
            return Err(format!(
                "column {} has type {data_type}, which JSON and CSV sinks cannot write; leave it out or cast it to VARCHAR",
                field.name()
            ));
        }
    }
    Ok(())
}

impl Cells {
    /// Errors: Internal where the type has no text form.
    pub fn of(column: &ArrayRef) -> Result<Cells> {
        Ok(match column.data_type() {
            DataType::Null => Cells::Null,
            DataType::Boolean => Cells::Bool(column.as_boolean().clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Cells::Int(cast(column, &DataType::Int64)?.as_primitive().clone())
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Cells::UInt(cast(column, &DataType::UInt64)?.as_primitive().clone())
            }
            DataType::Float32 => Cells::Float32(column.as_primitive().clone()),
            DataType::Float64 => Cells::Float64(column.as_primitive().clone()),
            DataType::Date32 => Cells::Date(column.as_primitive().clone()),
            DataType::Timestamp(unit, _) => Cells::Timestamp { values: instants(column, *unit), unit: *unit },
            other if other.is_binary() || matches!(other, DataType::FixedSizeBinary(_)) => {
                Cells::Bytes(cast(column, &DataType::Binary)?.as_binary().clone())
            }
            // Decimals are text too, because a JSON number would be read as a float.
            other if other.is_nested() && !matches!(other, DataType::Dictionary(_, _)) => {
                return Err(Error::internal(format!("a value of type {other} has no text form")));
            }
            _ => Cells::Text(cast(column, &DataType::Utf8)?.as_string().clone()),
        })
    }

    /// Every column of a batch.
    pub fn of_all(rows: &RecordBatch) -> Result<Vec<Cells>> {
        rows.columns().iter().map(Cells::of).collect()
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Null => true,
            Cells::Bool(values) => values.is_null(row),
            Cells::Int(values) | Cells::Timestamp { values, .. } => values.is_null(row),
            Cells::UInt(values) => values.is_null(row),
            Cells::Float32(values) => values.is_null(row),
            Cells::Float64(values) => values.is_null(row),
            Cells::Text(values) => values.is_null(row),
            Cells::Bytes(values) => values.is_null(row),
            Cells::Date(values) => values.is_null(row),
        }
    }

    /// The text of a cell that is not NULL, without quotes.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Cells::Null => {}
            Cells::Bool(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Cells::Int(values) => write_int(values.value(row), out),
            Cells::UInt(values) => out.extend_from_slice(itoa::Buffer::new().format(values.value(row)).as_bytes()),
            Cells::Float32(values) => write_float(values.value(row), f64::from(values.value(row)), out),
            Cells::Float64(values) => write_float(values.value(row), values.value(row), out),
            Cells::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Cells::Bytes(values) => out.extend_from_slice(BASE64_STANDARD.encode(values.value(row)).as_bytes()),
            Cells::Date(values) => write_date(i64::from(values.value(row)), out),
            Cells::Timestamp { values, unit } => write_instant(values.value(row), *unit, out),
        }
    }
}

fn instants(column: &ArrayRef, unit: TimeUnit) -> Int64Array {
    match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().reinterpret_cast(),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().reinterpret_cast(),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().reinterpret_cast(),
    }
}

pub fn write_int(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub fn write_float<F: ryu::Float>(value: F, wide: f64, out: &mut Vec<u8>) {
    if wide.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

fn write_digits(value: i64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    for _ in text.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    if year < 0 {
        out.push(b'-');
    }
    write_digits(year.abs(), 4, out);
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
}

pub fn write_instant(value: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let (per_second, digits) = match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    };
    let seconds = value.div_euclid(per_second);
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    write_date(seconds.div_euclid(SECONDS_PER_DAY), out);
    for (mark, part) in [(b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)] {
        out.push(mark);
        write_digits(part, 2, out);
    }
    if digits > 0 {
        out.push(b'.');
        write_digits(value.rem_euclid(per_second), digits, out);
    }
    out.push(b'Z');
}

/// Days since 1970 as year, month and day of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn instants_are_written_as_chrono_writes_them() {
        for seconds in (-3_000_000_000_i64..5_000_000_000).step_by(7_777_777) {
            let mut out = Vec::new();
            write_instant(seconds * 1000 + 7, TimeUnit::Millisecond, &mut out);
            let expected = DateTime::from_timestamp_millis(seconds * 1000 + 7).unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn floats_read_back_as_the_same_bits() {
        for value in [0.1, -0.0, 1e300, 5e-324, 1.0 / 3.0, 123_456_789.0, f64::MAX] {
            let mut out = Vec::new();
            write_float(value, value, &mut out);
            let read: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            assert_eq!(read.to_bits(), value.to_bits());
        }
    }
}
