//! FORMAT PLAIN ENCODE JSON: one object a record, columns by name; missing is NULL, other members are skipped. Values go straight into cells, no tree
//! is built; an object or an array is the text of a VARCHAR column. `json_scan.rs` takes what is plain.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use arrow::datatypes::{DataType, Schema};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json_scan::Scanner;
use super::record::{Refusal, RowDecoder};
use super::{Cell, Fault, Rows};

pub struct JsonDecoder {
    /// Takes the plain records; the rest is for the others.
    scanner: Option<Scanner>,
    names: Names,
    seen: Seen,
}

/// Which columns the object under way has named, without a reset per record.
#[derive(Default)]
pub(super) struct Seen {
    record: u64,
    last: Vec<u64>,
}

impl Seen {
    pub fn begin(&mut self, columns: usize) {
        self.last.resize(columns, 0);
        self.record += 1;
    }

    /// False if it was named before.
    pub fn add(&mut self, place: usize) -> bool {
        std::mem::replace(&mut self.last[place], self.record) != self.record
    }
}

impl JsonDecoder {
    /// Reads these columns of the schema.
    pub fn new(schema: &Schema, columns: &[usize]) -> JsonDecoder {
        JsonDecoder { scanner: Scanner::new(schema, columns), names: Names::new(schema, columns), seen: Seen::default() }
    }
}

#[cfg(test)]
impl JsonDecoder {
    /// Without the scanner.
    pub fn by_serde(schema: &Schema, columns: &[usize]) -> JsonDecoder {
        JsonDecoder { scanner: None, ..JsonDecoder::new(schema, columns) }
    }
}

impl RowDecoder for JsonDecoder {
    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        let text = utf8(payload)?;
        if self.scanner.as_mut().is_some_and(|scanner| scanner.fill(text, rows).is_some()) {
            return Ok(());
        }
        let mut fault = None;
        self.seen.begin(self.names.columns.len());
        let seed = RowSeed { names: &self.names, seen: &mut self.seen, rows, fault: &mut fault };
        match parse_text(text, seed) {
            Ok(()) => Ok(()),
            Err(of_record) => Err(Refusal::Fault(fault.unwrap_or(of_record))),
        }
    }
}

/// The whole record by this seed. Faults: not JSON, or not what the seed wants.
pub fn parse<'de, S: DeserializeSeed<'de>>(record: &'de [u8], seed: S) -> Result<S::Value, Fault> {
    parse_text(utf8(record)?, seed)
}

/// Checked once here, so that strings are borrowed without a second look.
fn utf8(record: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(record).map_err(|error| Fault::of_record(format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))
}

fn parse_text<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer).map_err(|error| Fault::of_record(message(&error)))?;
    deserializer.end().map_err(|error| Fault::of_record(message(&error)))?;
    Ok(value)
}

/// A record is one line: its own line number says nothing.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let sentence = text.split(" at line ").next().unwrap_or(&text);
    if sentence == "number out of range" {
        return format!("{sentence} at byte {}", error.column());
    }
    if error.is_data() { sentence.to_string() } else { format!("not a JSON object: {sentence} at byte {}", error.column()) }
}

/// Columns by name.
pub struct Names {
    /// Name to place in `columns`.
    places: HashMap<String, usize>,
    names: Vec<String>,
    columns: Vec<usize>,
    /// Whether the column takes the text of an object.
    texts: Vec<bool>,
}

impl Names {
    pub fn new(schema: &Schema, columns: &[usize]) -> Names {
        let names: Vec<String> = columns.iter().map(|column| schema.field(*column).name().clone()).collect();
        let texts = columns.iter().map(|column| *schema.field(*column).data_type() == DataType::Utf8).collect();
        Names { places: names.iter().cloned().zip(0..).collect(), names, columns: columns.to_vec(), texts }
    }

    fn value<'de, A: MapAccess<'de>>(&self, place: usize, members: &mut A) -> Result<Cell<'de>, A::Error> {
        if self.texts[place] { members.next_value_seed(TextSeed) } else { members.next_value_seed(CellSeed) }
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Members mostly come in the order of the columns: `expected` is tried before the table.
    fn find(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|candidate| candidate == name) {
            return Some(expected);
        }
        self.places.get(name).copied()
    }
}

/// An object straight into the row under construction. A member that stands twice says two things, so the record says none.
struct RowSeed<'s> {
    names: &'s Names,
    seen: &'s mut Seen,
    rows: &'s mut Rows,
    /// Why a value did not fit; serde's own errors carry text only.
    fault: &'s mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a member per column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(place) = members.next_key_seed(NameSeed { names: self.names, expected })? {
            let Some(place) = place else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if !self.seen.add(place) {
                *self.fault = Some(Fault::new(&self.names.names[place], "the member stands twice in its object"));
                return Err(A::Error::custom("a member stands twice"));
            }
            let cell = self.names.value(place, &mut members)?;
            if let Err(fault) = self.rows.set(self.names.columns[place], &cell) {
                *self.fault = Some(fault);
                return Err(A::Error::custom("a value does not fit its column"));
            }
            expected = place + 1;
        }
        Ok(())
    }
}

/// An object as a cell per column, for rows that are not yet known to count.
pub struct ObjectSeed<'n>(pub &'n Names);

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Vec<Cell<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Vec<Cell<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a member per column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut cells = vec![Cell::Null; self.0.names.len()];
        let mut expected = 0;
        while let Some(place) = members.next_key_seed(NameSeed { names: self.0, expected })? {
            match place {
                Some(place) => {
                    cells[place] = self.0.value(place, &mut members)?;
                    expected = place + 1;
                }
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(cells)
    }
}

/// The name of a member as the place of its column.
struct NameSeed<'n> {
    names: &'n Names,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.names.find(name, self.expected))
    }
}

/// Any value as a cell; of an object or an array only that it is one.
pub struct CellSeed;

/// Any value as a cell, objects and arrays with their text.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        if text.starts_with(['{', '[']) {
            return Ok(Cell::Json(text));
        }
        CellSeed.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
            let whole = error.to_string();
            let sentence = whole.split(" at line ").next().unwrap_or(&whole);
            D::Error::custom(if error.is_data() { sentence.to_string() } else { format!("not a JSON object: {sentence}") })
        })
    }
}

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Cell::UInt(value), Cell::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Cell::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cell::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cell::Text(Cow::Owned(text.to_string())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Json("{}"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Json("[]"))
    }
}
