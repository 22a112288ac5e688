//! One decoded value before it has the type of its column.

use std::borrow::Cow;

/// What an encoding can say about a value. Text is known to be text; Raw is a CSV field, which its column's type gives a meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above i64.
    UInt(u64),
    Float(f64),
    /// Milliseconds since 1970: what connectors know of a record's time.
    Instant(i64),
    Text(Cow<'a, str>),
    Raw(Cow<'a, str>),
    /// An object or an array, by that name.
    Nested(&'static str),
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Int(value) => write!(f, "{value}"),
            Cell::UInt(value) => write!(f, "{value}"),
            Cell::Float(value) => write!(f, "{value:?}"),
            Cell::Instant(millis) => write!(f, "the time {millis} ms"),
            Cell::Text(text) => write!(f, "the string \"{}\"", shortened(text)),
            Cell::Raw(text) => write!(f, "\"{}\"", shortened(text)),
            Cell::Nested(name) => write!(f, "an {name}"),
        }
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
