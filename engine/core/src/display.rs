//! How values print: as PostgreSQL prints them. In: columns. Out: the text of a cell, None for NULL.
//!
//! Whoever shows values to people or compares them with a golden file prints them here, so that they look the same everywhere.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::Result;

const DAY_NS: i128 = 86_400_000_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// The text of each cell of a column; None is NULL. Errors: Invalid for types that have no text.
pub fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    (0..column.len()).map(|row| text(column, row)).collect()
}

/// The text of one cell; None is NULL.
///
/// Booleans are t and f, floats the shortest text that reads back the same (Infinity, NaN, 1e+20), timestamps have no T and no zeros at
/// their end, bytes are \x…, lists {1,NULL,"a b"}, structs (1,,"a b"). A map prints as hstore does; nanoseconds print although PostgreSQL has none.
pub fn text(column: &ArrayRef, row: usize) -> Result<Option<String>> {
    if column.is_null(row) {
        return Ok(None);
    }
    macro_rules! of {
        ($type:ty) => {
            column.as_primitive::<$type>().value(row)
        };
    }
    Ok(Some(match column.data_type() {
        DataType::Null => return Ok(None),
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_string(),
        DataType::Utf8View => column.as_string_view().value(row).to_string(),
        DataType::Binary => bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().value(row)),
        DataType::Float32 => single(of!(Float32Type)),
        DataType::Float64 => double(of!(Float64Type)),
        DataType::Date32 => date(i64::from(of!(Date32Type))),
        DataType::Date64 => timestamp(i128::from(of!(Date64Type)) * 1_000_000),
        DataType::Timestamp(unit, zone) => {
            let ticks = match unit {
                TimeUnit::Second => of!(TimestampSecondType),
                TimeUnit::Millisecond => of!(TimestampMillisecondType),
                TimeUnit::Microsecond => of!(TimestampMicrosecondType),
                TimeUnit::Nanosecond => of!(TimestampNanosecondType),
            };
            // What has a zone is shown in UTC: the session has no zone of its own.
            timestamp(nanoseconds(i128::from(ticks), *unit)) + if zone.is_some() { "+00" } else { "" }
        }
        DataType::Time32(TimeUnit::Second) => clock(i128::from(of!(Time32SecondType)) * SECOND_NS),
        DataType::Time32(_) => clock(i128::from(of!(Time32MillisecondType)) * 1_000_000),
        DataType::Time64(TimeUnit::Microsecond) => clock(i128::from(of!(Time64MicrosecondType)) * 1_000),
        DataType::Time64(_) => clock(i128::from(of!(Time64NanosecondType))),
        DataType::Duration(unit) => {
            let ticks = match unit {
                TimeUnit::Second => of!(DurationSecondType),
                TimeUnit::Millisecond => of!(DurationMillisecondType),
                TimeUnit::Microsecond => of!(DurationMicrosecondType),
                TimeUnit::Nanosecond => of!(DurationNanosecondType),
            };
            // The difference of two timestamps: whole days, then the rest.
            let ns = nanoseconds(i128::from(ticks), *unit);
            interval(0, (ns / DAY_NS) as i64, ns % DAY_NS)
        }
        DataType::Interval(IntervalUnit::YearMonth) => interval(i64::from(of!(IntervalYearMonthType)), 0, 0),
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = of!(IntervalDayTimeType);
            interval(0, i64::from(value.days), i128::from(value.milliseconds) * 1_000_000)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = of!(IntervalMonthDayNanoType);
            interval(i64::from(value.months), i64::from(value.days), i128::from(value.nanoseconds))
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(_, _) => list(&column.as_fixed_size_list().value(row))?,
        DataType::Struct(_) => record(column.as_struct().columns(), row)?,
        DataType::Map(_, _) => map(&column.as_map().value(row))?,
        DataType::Dictionary(_, _) => {
            let values = column.as_any_dictionary();
            return text(values.values(), values.normalized_keys()[row]);
        }
        // Integers, decimals with their scale, and what else arrow knows.
        _ => ArrayFormatter::try_new(column, &FormatOptions::default())?.value(row).to_string(),
    }))
}

fn nanoseconds(ticks: i128, unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => ticks * SECOND_NS,
        TimeUnit::Millisecond => ticks * 1_000_000,
        TimeUnit::Microsecond => ticks * 1_000,
        TimeUnit::Nanosecond => ticks,
    }
}

fn bytes(value: &[u8]) -> String {
    let mut text = String::from("\\x");
    value.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes every write"));
    text
}

fn double(value: f64) -> String {
    // PostgreSQL writes an exponent from 1e15 on; for REAL from 1e6 on.
    if value.is_finite() { shortest(&format!("{value:e}"), 15) } else { not_finite(value) }
}

fn single(value: f32) -> String {
    if value.is_finite() { shortest(&format!("{value:e}"), 6) } else { not_finite(value.into()) }
}

fn not_finite(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
    .to_string()
}

/// `scientific` has the fewest digits that read back the same, as `-1.25e-7`.
fn shortest(scientific: &str, fixed_below: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    if !(-4..fixed_below).contains(&exponent) {
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{direction}{:02}", exponent.unsigned_abs());
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let whole = exponent + 1;
    let number = match usize::try_from(whole) {
        Ok(whole) if whole >= digits.len() => format!("{digits}{}", "0".repeat(whole - digits.len())),
        Ok(whole) if whole > 0 => format!("{}.{}", &digits[..whole], &digits[whole..]),
        _ => format!("0.{}{digits}", "0".repeat(whole.unsigned_abs() as usize)),
    };
    format!("{sign}{number}")
}

/// Days since 1970 in the Gregorian calendar, which counts 1 BC before 1 AD.
fn date(days: i64) -> String {
    let (day, before_christ) = civil(days);
    format!("{day}{}", if before_christ { " BC" } else { "" })
}

/// The calendar of 400 years repeats itself; years begin in March here, so that the leap day is a year's last.
fn civil(days: i64) -> (String, bool) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let before_christ = year <= 0;
    (format!("{:04}-{month:02}-{day:02}", if before_christ { 1 - year } else { year }), before_christ)
}

fn timestamp(ns: i128) -> String {
    let (day, before_christ) = civil(ns.div_euclid(DAY_NS) as i64);
    format!("{day} {}{}", clock(ns.rem_euclid(DAY_NS)), if before_christ { " BC" } else { "" })
}

/// Hours, minutes, seconds and what is left of them, without zeros at the end.
fn clock(ns: i128) -> String {
    let seconds = ns / SECOND_NS;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let rest = ns % SECOND_NS;
    if rest != 0 {
        let digits = format!("{rest:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// `1 year 2 mons -3 days +04:05:06.5`, each part with its sign; nothing at all is `00:00:00`.
fn interval(months: i64, days: i64, ns: i128) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut negative_before = false;
    for (amount, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if amount != 0 {
            let sign = if negative_before && amount > 0 { "+" } else { "" };
            parts.push(format!("{sign}{amount} {unit}{}", if amount == 1 { "" } else { "s" }));
            negative_before = amount < 0;
        }
    }
    if ns != 0 || parts.is_empty() {
        let sign = match ns {
            ns if ns < 0 => "-",
            _ if negative_before => "+",
            _ => "",
        };
        parts.push(format!("{sign}{}", clock(ns.abs())));
    }
    parts.join(" ")
}

fn list(values: &ArrayRef) -> Result<String> {
    let nested = values.data_type().is_list();
    let mut elements = Vec::with_capacity(values.len());
    for element in texts(values)? {
        elements.push(match element {
            None => "NULL".to_string(),
            Some(text) if nested => text,
            Some(text) => {
                let special = |letter: char| matches!(letter, '{' | '}' | ',' | '"' | '\\') || is_space(letter);
                let quoted = text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special);
                if quoted { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) } else { text }
            }
        });
    }
    Ok(format!("{{{}}}", elements.join(",")))
}

/// What PostgreSQL takes for white space in arrays and records.
fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn record(columns: &[ArrayRef], row: usize) -> Result<String> {
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        fields.push(match text(column, row)? {
            None => String::new(),
            Some(text) => {
                let special = |letter: char| matches!(letter, '(' | ')' | ',' | '"' | '\\') || is_space(letter);
                let quoted = text.is_empty() || text.contains(special);
                if quoted { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")) } else { text }
            }
        });
    }
    Ok(format!("({})", fields.join(",")))
}

fn map(entries: &arrow::array::StructArray) -> Result<String> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let (keys, values) = (texts(entries.column(0))?, texts(entries.column(1))?);
    let entry = |(key, value): (&Option<String>, &Option<String>)| {
        let value = value.as_deref().map_or("NULL".to_string(), quoted);
        format!("{}=>{value}", quoted(key.as_deref().unwrap_or_default()))
    };
    Ok(keys.iter().zip(&values).map(entry).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[path = "display_tests.rs"]
mod tests;
