//! FORMAT UPSERT: key columns from a record's key, where its value does not have them.

use std::borrow::Cow;

use freshet_core::{Encode, OptionError, Result, SourceDef};

use super::avro::Datum;
use super::record::{KEY_ENCODE, Refusal, RowDecoder};
use super::{AvroDecoder, BytesDecoder, Cell, Fault, JsonDecoder, Rows};
use crate::options;

/// `key.encode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    /// An object, or the value of the one column.
    Json,
    /// Framed like the values: an object or the value of the one column.
    Avro,
    Bytes,
}

enum Reader {
    /// An object is JSON, a schema id means Avro where values are Avro; anything else is the text of the one column.
    Guess(JsonDecoder, Option<AvroDecoder>),
    Text,
    Json(JsonDecoder),
    Row(Box<dyn RowDecoder>),
}

pub struct KeyDecoder {
    columns: Vec<usize>,
    names: Vec<String>,
    reader: Reader,
    /// What the value has of the key columns that the key fills again.
    kept: Vec<usize>,
}

impl KeyDecoder {
    pub fn check(def: &SourceDef) -> Result<(), OptionError> {
        let single = def.key.len() == 1;
        match encoding(def)? {
            Some(Encoding::Text) if !single => Err(options::wrong(KEY_ENCODE, "a key of several columns is no text; use key.encode = 'json'")),
            Some(Encoding::Bytes) => BytesDecoder::new(&def.schema, &def.key).map(|_| ()).map_err(|message| options::wrong(KEY_ENCODE, message)),
            Some(Encoding::Avro) if !def.options.contains_key(crate::schema_text::REGISTRY) => {
                Err(options::wrong(KEY_ENCODE, "key.encode = 'avro' needs schema.registry = 'http://…', where the schemas of keys are"))
            }
            _ => Ok(()),
        }
    }

    pub fn open(def: &SourceDef) -> Result<KeyDecoder> {
        let invalid = |message: String| freshet_core::Error::invalid(format!("source {}: {message}", def.name));
        let json = JsonDecoder::new(&def.schema, &def.key);
        let framed = def.encode == Encode::Avro && def.options.contains_key(crate::schema_text::REGISTRY);
        let reader = match encoding(def).map_err(|error| invalid(error.message))? {
            None if framed => Reader::Guess(json, Some(AvroDecoder::open(def, &def.key, Datum::Key)?)),
            None => Reader::Guess(json, None),
            Some(Encoding::Text) => Reader::Text,
            Some(Encoding::Json) => Reader::Json(json),
            Some(Encoding::Avro) => Reader::Row(Box::new(AvroDecoder::open(def, &def.key, Datum::Key)?)),
            Some(Encoding::Bytes) => Reader::Row(Box::new(BytesDecoder::new(&def.schema, &def.key).map_err(invalid)?)),
        };
        let names = def.key.iter().map(|column| def.schema.field(*column).name().clone()).collect();
        Ok(KeyDecoder { columns: def.key.clone(), names, reader, kept: Vec::new() })
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Fills the key columns that the row under construction does not have. Faults: one is still NULL then.
    pub fn complete(&mut self, key: Option<&[u8]>, rows: &mut Rows) -> Result<(), Refusal> {
        if self.columns.iter().all(|column| rows.is_set(*column)) {
            return Ok(());
        }
        if let Some(key) = key {
            self.kept.clear();
            self.kept.extend(self.columns.iter().copied().filter(|column| rows.is_set(*column)));
            // What the value says counts.
            rows.hold(&self.kept, true);
            let filled = self.fill(key, rows).map_err(refused_in_key);
            rows.hold(&self.kept, false);
            filled?;
        }
        match self.columns.iter().position(|column| !rows.is_set(*column)) {
            None => Ok(()),
            Some(index) => {
                let place =
                    if key.is_some() { "neither the value nor the key has it" } else { "the record has no key, and its value does not have it" };
                Err(Fault::new(&self.names[index], format!("{place}, but it is a column of PRIMARY KEY")).into())
            }
        }
    }

    fn fill(&mut self, key: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        let object = key.first() == Some(&b'{');
        let single = self.columns.len() == 1;
        match &mut self.reader {
            Reader::Row(decoder) => decoder.fill(key, rows),
            Reader::Json(json) if object || !single => json.fill(key, rows),
            Reader::Guess(_, Some(avro)) if key.len() > 5 && key[0] == 0 => avro.fill(key, rows),
            Reader::Guess(json, _) if object || !single => json.fill(key, rows),
            Reader::Json(_) => {
                let cell = super::json::parse(key, super::json::CellSeed)?;
                Ok(rows.set(self.columns[0], &cell)?)
            }
            Reader::Text | Reader::Guess(..) => {
                let text = std::str::from_utf8(key).map_err(|error| Fault::of_record(format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
                Ok(rows.set(self.columns[0], &Cell::Raw(Cow::Borrowed(text)))?)
            }
        }
    }
}

fn encoding(def: &SourceDef) -> Result<Option<Encoding>, OptionError> {
    Ok(Some(match def.options.get(KEY_ENCODE).map(|text| text.to_ascii_lowercase()).as_deref() {
        None => return Ok(None),
        Some("text") => Encoding::Text,
        Some("json") => Encoding::Json,
        Some("avro") => Encoding::Avro,
        Some("bytes") => Encoding::Bytes,
        Some(other) => return Err(options::wrong(KEY_ENCODE, format!("key.encode is 'text', 'json', 'avro' or 'bytes', not '{other}'"))),
    }))
}

/// Says that it was the key.
fn refused_in_key(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Fault(fault) => Refusal::Fault(Fault { field: fault.field, reason: format!("in the record's key: {}", fault.reason) }),
        wait => wait,
    }
}
