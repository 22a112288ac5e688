//! One decoded value before it has the type of its column.

use std::borrow::Cow;

use arrow::datatypes::TimeUnit;

/// What an encoding can say about a value. Text is known to be text; Raw is a CSV field, which its column's type gives a meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above i64.
    UInt(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Raw(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Since 1970 in this unit, from an encoding that has types of its own.
    Instant(i64, TimeUnit),
    /// Days since 1970.
    Day(i32),
    /// The digits of a decimal number, and how many of them stand behind the point.
    Decimal(i128, i8),
    /// An object or an array of an encoding that is no text, by that name.
    Nested(&'static str),
    /// An object or an array as it stands in the record.
    Json(&'a str),
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Int(value) => write!(f, "{value}"),
            Cell::UInt(value) => write!(f, "{value}"),
            Cell::Float(value) => write!(f, "{value:?}"),
            Cell::Text(text) => write!(f, "the string \"{}\"", shortened(text)),
            Cell::Raw(text) => write!(f, "\"{}\"", shortened(text)),
            Cell::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Cell::Instant(value, unit) => write!(f, "the instant {value} {}", unit_name(*unit)),
            Cell::Day(day) => write!(f, "the day {day} since 1970"),
            Cell::Decimal(digits, scale) => write!(f, "the decimal {digits}e{}", -i32::from(*scale)),
            Cell::Nested(name) => write!(f, "an {name}"),
            Cell::Json(text) => f.write_str(if text.starts_with('{') { "an object" } else { "an array" }),
        }
    }
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Messages stay readable whatever the record holds.
fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN_CHARS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
