//! FORMAT DEBEZIUM ENCODE JSON: envelopes of before and after. In: {"op":…}. Out: insertions and retractions at the record's offset.

use std::fmt;

use arrow::datatypes::Schema;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::json::{CellSeed, Names, ObjectSeed, parse};
use super::{Cell, Decoder, Fault, Rows};

pub struct DebeziumDecoder {
    names: Names,
}

impl DebeziumDecoder {
    pub fn new(schema: &Schema) -> DebeziumDecoder {
        DebeziumDecoder { names: Names::new(schema) }
    }
}

impl Decoder for DebeziumDecoder {
    /// An update is a retraction and an insertion at one offset. A tombstone (null) is nothing.
    fn decode(&mut self, record: &[u8], offset: u64, rows: &mut Rows) -> Result<(), Fault> {
        let Some(envelope) = parse(record, EnvelopeSeed(&self.names))? else { return Ok(()) };
        let op = match &envelope.op {
            Cell::Text(op) => op.as_ref(),
            Cell::Null => return Err(fault("op", "missing: a Debezium record has op, before and after")),
            other => return Err(fault("op", format!("expected c, r, u or d, found {other}"))),
        };
        let (retracts, inserts) = match op {
            "c" | "r" => (false, true),
            "u" => (true, true),
            "d" => (true, false),
            other => return Err(fault("op", format!("expected c, r, u or d, found \"{other}\""))),
        };
        if retracts {
            let reason = format!("missing in op {op}: the upstream table must log whole old rows (PostgreSQL: REPLICA IDENTITY FULL)");
            rows.push(&envelope.before.ok_or_else(|| fault("before", reason))?, -1, offset)?;
        }
        if inserts {
            rows.push(&envelope.after.ok_or_else(|| fault("after", format!("missing in op {op}")))?, 1, offset)?;
        }
        Ok(())
    }
}

fn fault(field: &str, reason: impl Into<String>) -> Fault {
    Fault { field: field.into(), reason: reason.into() }
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
