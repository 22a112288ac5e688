//! FORMAT DEBEZIUM ENCODE JSON: envelopes of before and after. In: {"op":…}. Out: insertions and retractions at the record's offset.

use std::fmt;

use arrow::datatypes::Schema;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::json::{CellSeed, Names, ObjectSeed, parse};
use super::record::{ChangeDecoder, Refusal, RowEnd};
use super::{Cell, Fault, Rows};

pub struct DebeziumDecoder {
    names: Names,
}

impl DebeziumDecoder {
    /// Reads these columns of the schema.
    pub fn new(schema: &Schema, columns: &[usize]) -> DebeziumDecoder {
        DebeziumDecoder { names: Names::new(schema, columns) }
    }
}

impl ChangeDecoder for DebeziumDecoder {
    /// An update is a retraction and an insertion at one offset. A tombstone (null) is nothing.
    fn changes(&mut self, payload: &[u8], rows: &mut Rows, end: &mut RowEnd) -> Result<(), Refusal> {
        let Some(envelope) = parse(payload, EnvelopeSeed(&self.names))? else { return Ok(()) };
        let op = match &envelope.op {
            Cell::Text(op) => op.as_ref(),
            Cell::Null => return Err(Fault::new("op", "missing: a Debezium record has op, before and after").into()),
            other => return Err(Fault::new("op", format!("expected c, r, u or d, found {other}")).into()),
        };
        let (retracts, inserts) = effect(op)?;
        if retracts {
            self.fill(envelope.before.ok_or_else(|| no_before(op))?, rows)?;
            end(rows, -1)?;
        }
        if inserts {
            self.fill(envelope.after.ok_or_else(|| no_after(op))?, rows)?;
            end(rows, 1)?;
        }
        Ok(())
    }
}

impl DebeziumDecoder {
    fn fill(&self, cells: Vec<Cell>, rows: &mut Rows) -> Result<(), Fault> {
        self.names.columns().iter().zip(&cells).try_for_each(|(column, cell)| rows.set(*column, cell))
    }
}

/// Whether an operation takes a row back, and whether it brings one.
pub fn effect(op: &str) -> Result<(bool, bool), Fault> {
    match op {
        "c" | "r" => Ok((false, true)),
        "u" => Ok((true, true)),
        "d" => Ok((true, false)),
        other => Err(Fault::new("op", format!("expected c, r, u or d, found \"{other}\""))),
    }
}

pub fn no_before(op: &str) -> Fault {
    Fault::new("before", format!("missing in op {op}: the upstream table must log whole old rows (PostgreSQL: REPLICA IDENTITY FULL)"))
}

pub fn no_after(op: &str) -> Fault {
    Fault::new("after", format!("missing in op {op}"))
}

struct Envelope<'de> {
    op: Cell<'de>,
    before: Option<Vec<Cell<'de>>>,
    after: Option<Vec<Cell<'de>>>,
}

/// `null`, an envelope, or an envelope under "payload" as Kafka Connect writes it with schemas.
struct EnvelopeSeed<'n>(&'n Names);

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = Option<Envelope<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = Option<Envelope<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with op, before and after")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope { op: Cell::Null, before: None, after: None };
        let mut wrapped = None;
        while let Some(name) = members.next_key::<std::borrow::Cow<str>>()? {
            match name.as_ref() {
                "op" => envelope.op = members.next_value_seed(CellSeed)?,
                "before" => envelope.before = members.next_value_seed(RowSeed(self.0))?,
                "after" => envelope.after = members.next_value_seed(RowSeed(self.0))?,
                "payload" => wrapped = Some(members.next_value_seed(EnvelopeSeed(self.0))?),
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(wrapped.unwrap_or(Some(envelope)))
    }
}

/// A row, or null.
struct RowSeed<'n>(&'n Names);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Option<Vec<Cell<'de>>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Option<Vec<Cell<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a row or null")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        ObjectSeed(self.0).deserialize(deserializer).map(Some)
    }
}
