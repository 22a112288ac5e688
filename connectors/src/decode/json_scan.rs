//! The plain case of a JSON record, in one pass: an object of scalars straight into columns. In: a record. Out: the cells of a row, or nothing.
//!
//! It takes only what serde_json would take, with the same values. What is unusual (a fault, a member that stands twice, a number that says
//! nothing of its kind) is left to `json.rs`, which reads the record again from its start and has the words for what is wrong.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::column::{ColumnBuilder, integer_range};
use super::json::Seen;
use super::{Cell, Rows};

/// Above so many columns a name is looked up in a table.
const SEARCHED_MAX: usize = 24;
/// Digits that a u64 holds whatever they are.
const DIGITS_MAX: u32 = 19;

/// How the value of a column is mostly written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Integers of this range.
    Integer(i64, i64),
    Double,
    Bool,
    Text,
    /// By way of a cell.
    Any,
}

struct Member {
    name: String,
    column: usize,
    kind: Kind,
}

/// The columns that a record's members go to.
pub struct Scanner {
    members: Vec<Member>,
    /// Name to its place in `members`; empty where there are few.
    places: HashMap<String, usize>,
    seen: Seen,
}

impl Scanner {
    /// None: some name is not written in JSON as it is.
    pub fn new(schema: &Schema, columns: &[usize]) -> Option<Scanner> {
        let member = |column: &usize| {
            let field = schema.field(*column);
            Member { name: field.name().clone(), column: *column, kind: kind_of(field.data_type()) }
        };
        let members: Vec<Member> = columns.iter().map(member).collect();
        if members.iter().any(|member| plain_length(member.name.as_bytes()) < member.name.len()) {
            return None;
        }
        let many = members.len() > SEARCHED_MAX;
        let places = if many { members.iter().map(|member| member.name.clone()).zip(0..).collect() } else { HashMap::new() };
        Some(Scanner { members, places, seen: Seen::default() })
    }

    /// Sets the cells of one row. None: it did not get to the end, and some cells may have been set.
    pub fn fill(&mut self, text: &str, rows: &mut Rows) -> Option<()> {
        self.seen.begin(self.members.len());
        let mut input = Input { text, bytes: text.as_bytes(), at: 0 };
        input.skip_space();
        input.expect(b'{')?;
        input.skip_space();
        let mut expected = 0;
        if input.peek() != Some(b'}') {
            loop {
                let place = self.member(&mut input, expected)?;
                input.skip_space();
                input.expect(b':')?;
                input.skip_space();
                match place {
                    Some(place) => {
                        let Member { column, kind, .. } = self.members[place];
                        if !self.seen.add(place) {
                            return None;
                        }
                        match rows.next_cell(column) {
                            Some(builder) => input.value(kind, builder)?,
                            None => input.skip_value()?,
                        }
                        expected = place + 1;
                    }
                    None => input.skip_value()?,
                }
                input.skip_space();
                match input.next()? {
                    b',' => input.skip_space(),
                    b'}' => break,
                    _ => return None,
                }
            }
        } else {
            input.at += 1;
        }
        input.skip_space();
        (input.at == text.len()).then_some(())
    }

    /// The place of the next member, if it is a column. Members mostly come in the order of the columns.
    fn member(&self, input: &mut Input, expected: usize) -> Option<Option<usize>> {
        input.expect(b'"')?;
        if let Some(member) = self.members.get(expected) {
            let end = input.at + member.name.len();
            if input.bytes.get(end) == Some(&b'"') && input.bytes[input.at..end] == *member.name.as_bytes() {
                input.at = end + 1;
                return Some(Some(expected));
            }
        }
        let name = input.plain_string()?;
        if self.places.is_empty() {
            return Some(self.members.iter().position(|member| member.name == name));
        }
        Some(self.places.get(name).copied())
    }
}

fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Float64 => Kind::Double,
        DataType::Boolean => Kind::Bool,
        DataType::Utf8 => Kind::Text,
        _ => integer_range(data_type).map_or(Kind::Any, |(least, greatest)| Kind::Integer(least, greatest)),
    }
}

/// What is left of a record.
struct Input<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

/// A number as it is written.
struct Number {
    negative: bool,
    /// The digits without the point; exact up to 19 of them.
    digits: u64,
    exact: bool,
    /// The power of ten behind the digits.
    exponent: i32,
    integer: bool,
}

impl<'t> Input<'t> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// The next value into its column.
    fn value(&mut self, kind: Kind, builder: &mut ColumnBuilder) -> Option<()> {
        let first = self.peek()?;
        if first == b'n' {
            self.word(b"null")?;
            builder.push_null();
            return Some(());
        }
        match kind {
            Kind::Integer(least, greatest) if first != b'"' => {
                let value = self.number()?.0.as_integer()?;
                (least <= value && value <= greatest).then(|| builder.push_integer(value))
            }
            Kind::Double if first != b'"' => {
                let (number, written) = self.number()?;
                builder.push_double(number.as_double(written)?);
                Some(())
            }
            Kind::Bool => {
                builder.push_bool(self.boolean()?);
                Some(())
            }
            Kind::Text if first == b'"' => {
                self.at += 1;
                let text = self.string()?;
                builder.push_text(&text)
            }
            _ => {
                let cell = self.cell(first)?;
                builder.push(&cell).ok()
            }
        }
    }

    /// A scalar as serde_json has it.
    fn cell(&mut self, first: u8) -> Option<Cell<'t>> {
        Some(match first {
            b'"' => {
                self.at += 1;
                Cell::Text(self.string()?)
            }
            b't' | b'f' => Cell::Bool(self.boolean()?),
            b'{' | b'[' => return None,
            _ => {
                let (number, written) = self.number()?;
                match number.as_integer() {
                    Some(value) => Cell::Int(value),
                    None if number.integer => return None,
                    None => Cell::Float(number.as_double(written)?),
                }
            }
        })
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.peek()? {
            b't' => self.word(b"true").map(|()| true),
            _ => self.word(b"false").map(|()| false),
        }
    }

    /// Behind the opening quote.
    fn string(&mut self) -> Option<Cow<'t, str>> {
        let begin = self.at;
        if let Some(plain) = self.plain_string() {
            return Some(Cow::Borrowed(plain));
        }
        self.at = begin - 1;
        self.by_serde::<String>().map(Cow::Owned)
    }

    /// A string without escapes, behind the opening quote: it stands in the record as it is.
    fn plain_string(&mut self) -> Option<&'t str> {
        let begin = self.at;
        let end = begin + plain_length(&self.bytes[begin..]);
        if self.bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        // The borders are ASCII, so this is a check of two bytes.
        self.text.get(begin..end)
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string().map(drop)
            }
            b't' | b'f' => self.boolean().map(drop),
            b'n' => self.word(b"null"),
            b'{' | b'[' => self.by_serde::<IgnoredAny>().map(drop),
            _ => self.number().map(drop),
        }
    }

    /// One value that ends by itself: a string, an object or an array.
    fn by_serde<T: Deserialize<'t>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_str(self.text.get(self.at..)?).into_iter::<T>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    /// By the grammar of JSON, with what is written.
    fn number(&mut self) -> Option<(Number, &'t str)> {
        let begin = self.at;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let (mut digits, mut count, mut exponent) = (0_u64, 0_u32, 0_i32);
        let whole = self.at;
        self.digits(&mut digits, &mut count);
        let length = self.at - whole;
        if length == 0 || (length > 1 && self.bytes[whole] == b'0') {
            return None;
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let fraction = self.at;
            self.digits(&mut digits, &mut count);
            let length = self.at - fraction;
            if length == 0 || length > 1_000 {
                return None;
            }
            (integer, exponent) = (false, -(length as i32));
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            let below = self.peek()? == b'-';
            self.at += usize::from(below || self.peek()? == b'+');
            let begin = self.at;
            let (mut power, mut count) = (0, 0);
            self.digits(&mut power, &mut count);
            if self.at == begin || count > 3 {
                return None;
            }
            integer = false;
            exponent += if below { -(power as i32) } else { power as i32 };
        }
        let number = Number { negative, digits, exact: count <= DIGITS_MAX, exponent, integer };
        Some((number, &self.text[begin..self.at]))
    }

    /// Appends digits; `count` leaves out zeros in front.
    fn digits(&mut self, value: &mut u64, count: &mut u32) {
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            *count += u32::from(*count > 0 || byte != b'0');
            self.at += 1;
        }
    }
}

impl Number {
    /// -0 is none: it is a float to serde_json.
    fn as_integer(&self) -> Option<i64> {
        if !self.integer || !self.exact || (self.negative && self.digits == 0) {
            return None;
        }
        let value = i64::try_from(self.digits).ok()?;
        Some(if self.negative { -value } else { value })
    }

    /// The nearest double.
    fn as_double(&self, written: &str) -> Option<f64> {
        const POWERS: [f64; 23] =
            [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        match power {
            // Both are exact, so the one operation rounds right.
            Some(power) if self.exact && self.digits <= 1 << 53 => {
                let digits = self.digits as f64;
                let value = if self.exponent < 0 { digits / power } else { digits * power };
                Some(if self.negative { -value } else { value })
            }
            _ => written.parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

/// Bytes before the first quote, backslash or control character, eight at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The lowest bit that is set is right; above it a borrow may have set others.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks have eight bytes"));
        let found = below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + chunks.remainder().iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')).unwrap_or(chunks.remainder().len())
}

#[cfg(test)]
#[path = "json_scan_tests.rs"]
mod tests;
