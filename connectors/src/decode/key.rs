//! FORMAT UPSERT: key columns from a record's key, where its value does not have them.

use std::borrow::Cow;

use freshet_core::{OptionError, Result, SourceDef};

use super::record::{KEY_ENCODE, Refusal, RowDecoder};
use super::{Cell, Fault, JsonDecoder, Rows};
use crate::options;

/// How keys read: `key.encode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// An object is JSON; anything else is the text of the one column.
    Guess,
    Text,
    Json,
}

pub struct KeyDecoder {
    columns: Vec<usize>,
    names: Vec<String>,
    encoding: Encoding,
    json: JsonDecoder,
}

impl KeyDecoder {
    pub fn check(def: &SourceDef) -> Result<(), OptionError> {
        let encoding = encoding(def)?;
        if encoding == Encoding::Text && def.key.len() != 1 {
            return Err(options::wrong(KEY_ENCODE, "a key of several columns is no text; use key.encode = 'json'"));
        }
        Ok(())
    }

    pub fn open(def: &SourceDef) -> Result<KeyDecoder> {
        let encoding = encoding(def).map_err(|error| freshet_core::Error::invalid(error.message))?;
        let names = def.key.iter().map(|column| def.schema.field(*column).name().clone()).collect();
        Ok(KeyDecoder { columns: def.key.clone(), names, encoding, json: JsonDecoder::new(&def.schema, &def.key) })
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Fills the key columns that the row under construction does not have. Faults: one is still NULL then.
    pub fn complete(&mut self, key: Option<&[u8]>, rows: &mut Rows) -> Result<(), Refusal> {
        let missing: Vec<usize> = self.columns.iter().copied().filter(|column| !rows.is_set(*column)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(key) = key {
            self.fill(key, &missing, rows)?;
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

    fn fill(&mut self, key: &[u8], missing: &[usize], rows: &mut Rows) -> Result<(), Refusal> {
        let object = key.first() == Some(&b'{');
        match self.encoding {
            Encoding::Json if object => self.json.fill_only(key, missing, rows),
            Encoding::Guess if object || self.columns.len() > 1 => self.json.fill_only(key, missing, rows),
            Encoding::Json if self.columns.len() == 1 => {
                let cell = super::json::parse(key, super::json::CellSeed).map_err(in_key)?;
                Ok(rows.set(self.columns[0], &cell).map_err(in_key)?)
            }
            Encoding::Json => self.json.fill_only(key, missing, rows),
            Encoding::Text | Encoding::Guess => {
                let text = std::str::from_utf8(key)
                    .map_err(|error| Fault::of_record(format!("the key is not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
                Ok(rows.set(self.columns[0], &Cell::Raw(Cow::Borrowed(text))).map_err(in_key)?)
            }
        }
    }
}

/// Says that it was the key.
pub fn in_key(fault: Fault) -> Fault {
    Fault { field: fault.field, reason: format!("in the record's key: {}", fault.reason) }
}

fn encoding(def: &SourceDef) -> Result<Encoding, OptionError> {
    match def.options.get(KEY_ENCODE).map(|text| text.to_ascii_lowercase()).as_deref() {
        None => Ok(Encoding::Guess),
        Some("text") => Ok(Encoding::Text),
        Some("json") => Ok(Encoding::Json),
        Some(other) => Err(options::wrong(KEY_ENCODE, format!("key.encode is 'text' or 'json', not '{other}'"))),
    }
}

impl JsonDecoder {
    /// Fills these columns only, from a key.
    fn fill_only(&mut self, key: &[u8], columns: &[usize], rows: &mut Rows) -> Result<(), Refusal> {
        // A key has few columns: decoding them all again costs less than choosing.
        let kept: Vec<usize> = self.columns().iter().copied().filter(|column| !columns.contains(column)).collect();
        if kept.is_empty() {
            return self.fill(key, rows).map_err(refused_in_key);
        }
        JsonDecoder::new(&rows.schema().clone(), columns).fill(key, rows).map_err(refused_in_key)
    }
}

fn refused_in_key(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Fault(fault) => Refusal::Fault(in_key(fault)),
        wait => wait,
    }
}
