//! Rows to records with keys. In: changes of complete epochs. Out: key and payload of each record, the same bytes in every run.
//!
//! FORMAT PLAIN writes insertions, FORMAT DEBEZIUM every change, FORMAT UPSERT what an epoch has made of each key.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use freshet_core::{Batch, Encode, Epoch, Error, Format, OptionError, Result, SinkDef};

use super::check_types;
use super::columns::Cells;
use super::csv::CsvRows;
use super::json::JsonObject;
use super::schemas::{AvroValues, BytesValues, ProtobufValues};
use crate::decode::encode_options;
use crate::options::{self, Csv};
use crate::protobuf::MESSAGE;
use crate::registry::{REGISTRY_OPTIONS, RegistryOptions};
use crate::reject::Rejects;
use crate::schema_text::{self, REGISTRY, SCHEMA, SCHEMA_FILE};

const KEY_ENCODE: &str = "key.encode";

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    pub key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub payload: Option<Vec<u8>>,
    pub epoch: Epoch,
    /// The row of the changes it was made of; of a tombstone, a row with its key.
    pub row: usize,
}

/// Writes rows of one batch after another.
pub trait ValueEncoder: Send {
    /// The rows that `write` speaks of from now on. Errors: Unavailable while a schema cannot be registered.
    fn begin(&mut self, rows: &RecordBatch) -> Result<()>;

    /// One row. Errors: Data, naming the column.
    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()>;

    /// Whether the row has no bytes at all here, as a text cannot say NULL.
    fn is_none(&self, _row: usize) -> bool {
        false
    }

    /// One row inside a change, for FORMAT DEBEZIUM.
    fn write_change(&mut self, _row: usize, _inserted: bool, _epoch: Epoch, _out: &mut Vec<u8>) -> Result<()> {
        Err(Error::internal("this encoding has no envelope"))
    }
}

/// FORMAT and ENCODE of one sink, and its keys.
pub struct RecordEncoder {
    name: String,
    from: String,
    format: Format,
    key_columns: Vec<usize>,
    key: Option<Box<dyn ValueEncoder>>,
    value: Box<dyn ValueEncoder>,
    rejects: Rejects,
}

impl RecordEncoder {
    /// Errors: Invalid as `check_sink` finds it, or a schema file that cannot be read.
    pub fn open(def: &SinkDef) -> Result<RecordEncoder> {
        check_sink(def).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        let key = if def.key.is_empty() { None } else { Some(key_encoder(def)?) };
        Ok(RecordEncoder {
            name: def.name.clone(),
            from: def.from.clone(),
            format: def.format,
            key_columns: def.key.clone(),
            key,
            value: value_encoder(def)?,
            rejects: Rejects::parse(&def.name, &def.options).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?,
        })
    }

    /// Appends the records of these changes. On an error nothing is appended. Errors: Invalid where FORMAT PLAIN would have to take a row back,
    /// Data for a NULL that a key cannot be, unless such rows are dropped, Unavailable while a registry is away: try again.
    pub fn encode(&mut self, changes: &Batch, out: &mut Vec<OutRecord>) -> Result<()> {
        let len = out.len();
        let result = self.append(changes, out);
        if result.is_err() {
            out.truncate(len);
        }
        result.map_err(|error| Error { kind: error.kind, message: format!("sink {}: {}", self.name, error.message) })
    }

    fn append(&mut self, changes: &Batch, out: &mut Vec<OutRecord>) -> Result<()> {
        self.value.begin(changes.rows())?;
        if let Some(key) = &mut self.key {
            key.begin(&changes.rows().project(&self.key_columns)?)?;
        }
        match self.format {
            Format::Plain => self.plain(changes, out),
            Format::Debezium => self.debezium(changes, out),
            Format::Upsert => self.upserts(changes, out),
        }
    }

    fn plain(&mut self, changes: &Batch, out: &mut Vec<OutRecord>) -> Result<()> {
        for row in 0..changes.len() {
            let (diff, epoch) = (changes.diff(row), changes.epoch(row));
            if diff < 0 {
                let from = &self.from;
                return Err(Error::invalid(format!(
                    "FORMAT PLAIN holds insertions only, but {from} retracted a row at epoch {epoch}; use FORMAT UPSERT with a KEY, or FORMAT DEBEZIUM"
                )));
            }
            let record = OutRecord { key: self.key(row)?, payload: self.payload(row)?, epoch, row };
            out.extend(std::iter::repeat_n(record, diff as usize));
        }
        Ok(())
    }

    fn debezium(&mut self, changes: &Batch, out: &mut Vec<OutRecord>) -> Result<()> {
        for row in 0..changes.len() {
            let (diff, epoch) = (changes.diff(row), changes.epoch(row));
            let mut payload = Vec::new();
            self.value.write_change(row, diff > 0, epoch, &mut payload)?;
            let record = OutRecord { key: self.key(row)?, payload: Some(payload), epoch, row };
            out.extend(std::iter::repeat_n(record, diff.unsigned_abs() as usize));
        }
        Ok(())
    }

    /// The last inserted row of a key is its payload; a key that only loses rows gets a tombstone. Keys in the order in which the changes
    /// first name them.
    fn upserts(&mut self, changes: &Batch, out: &mut Vec<OutRecord>) -> Result<()> {
        let mut begin = 0;
        while begin < changes.len() {
            let epoch = changes.epoch(begin);
            let end = (begin..changes.len()).find(|row| changes.epoch(*row) != epoch).unwrap_or(changes.len());
            let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
            let mut last: Vec<(Vec<u8>, usize, bool)> = Vec::new();
            for row in begin..end {
                let Some(key) = self.key(row)? else {
                    let from = &self.from;
                    self.rejects.reject_as(&format!("a row of epoch {epoch}"), "its key is NULL", || {
                        format!("{from} has a NULL in its key at epoch {epoch}; leave such rows out of the view, or set on_reject = 'drop'")
                    })?;
                    continue;
                };
                let place = *places.entry(key.clone()).or_insert(last.len());
                if place == last.len() {
                    last.push((key, row, false));
                }
                if changes.diff(row) > 0 {
                    (last[place].1, last[place].2) = (row, true);
                }
            }
            for (key, row, inserted) in last {
                let mut payload = Vec::new();
                if inserted {
                    self.value.write(row, &mut payload)?;
                }
                out.push(OutRecord { key: Some(key), payload: inserted.then_some(payload), epoch, row });
            }
            begin = end;
        }
        Ok(())
    }

    /// None: the row is one NULL.
    fn payload(&mut self, row: usize) -> Result<Option<Vec<u8>>> {
        if self.value.is_none(row) {
            return Ok(None);
        }
        let mut payload = Vec::new();
        self.value.write(row, &mut payload)?;
        Ok(Some(payload))
    }

    /// None: there is no key, or its one column is NULL.
    fn key(&mut self, row: usize) -> Result<Option<Vec<u8>>> {
        let Some(encoder) = self.key.as_mut().filter(|encoder| !encoder.is_none(row)) else { return Ok(None) };
        let mut key = Vec::new();
        encoder.write(row, &mut key)?;
        Ok(Some(key))
    }
}

fn value_encoder(def: &SinkDef) -> Result<Box<dyn ValueEncoder>> {
    Ok(match def.encode {
        Encode::Json => Box::new(JsonValues::new(&def.schema)),
        Encode::Csv => {
            let options = Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?;
            Box::new(CsvValues { rows: CsvRows::new(&def.schema, options), columns: Vec::new() })
        }
        Encode::Avro => Box::new(AvroValues::open(def, &def.schema, false, def.format == Format::Debezium)?),
        Encode::Protobuf => Box::new(ProtobufValues::open(def)?),
        Encode::Bytes => Box::new(BytesValues::new()),
        Encode::Parquet => return Err(Error::internal("a record is no Parquet file")),
    })
}

fn key_encoder(def: &SinkDef) -> Result<Box<dyn ValueEncoder>> {
    let schema = def.schema.project(&def.key)?;
    Ok(match key_encode(def).map_err(|error| Error::invalid(error.message))? {
        KeyEncode::Text => Box::new(TextKeys { column: Cells::Null }),
        KeyEncode::Json => Box::new(JsonValues::new(&schema)),
        KeyEncode::Avro => Box::new(AvroValues::open(def, &std::sync::Arc::new(schema), true, false)?),
        KeyEncode::Bytes => Box::new(BytesValues::new()),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyEncode {
    Text,
    Json,
    Avro,
    Bytes,
}

/// One column is text by default; several are Avro where the values are and a registry is named, else JSON.
fn key_encode(def: &SinkDef) -> Result<KeyEncode, OptionError> {
    let framed = def.options.contains_key(REGISTRY);
    let wrong = |message: &str| Err(options::wrong(KEY_ENCODE, message));
    match def.options.get(KEY_ENCODE).map(|text| text.to_ascii_lowercase()).as_deref() {
        None if def.key.len() <= 1 => Ok(KeyEncode::Text),
        None if framed && def.encode == Encode::Avro => Ok(KeyEncode::Avro),
        None | Some("json") => Ok(KeyEncode::Json),
        Some("text") if def.key.len() <= 1 => Ok(KeyEncode::Text),
        Some("text") => wrong("a key of several columns is no text; use key.encode = 'json'"),
        Some("bytes") if def.key.len() <= 1 => Ok(KeyEncode::Bytes),
        Some("bytes") => wrong("a key of several columns is no bytes; use key.encode = 'json'"),
        Some("avro") if framed => Ok(KeyEncode::Avro),
        Some("avro") => wrong("key.encode = 'avro' needs schema.registry = 'http://…', where the schema of keys is kept"),
        Some(other) => wrong(&format!("key.encode is 'text', 'json', 'avro' or 'bytes', not '{other}'")),
    }
}

struct JsonValues {
    object: JsonObject,
    columns: Vec<Cells>,
}

impl JsonValues {
    fn new(schema: &Schema) -> JsonValues {
        JsonValues { object: JsonObject::new(schema), columns: Vec::new() }
    }
}

impl ValueEncoder for JsonValues {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.columns = Cells::of_all(rows)?;
        Ok(())
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        self.object.write(&self.columns, row, out);
        Ok(())
    }

    fn write_change(&mut self, row: usize, inserted: bool, epoch: Epoch, out: &mut Vec<u8>) -> Result<()> {
        self.object.write_change(&self.columns, row, inserted, epoch, out);
        Ok(())
    }
}

struct CsvValues {
    rows: CsvRows,
    columns: Vec<Cells>,
}

impl ValueEncoder for CsvValues {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.columns = Cells::of_all(rows)?;
        Ok(())
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        self.rows.write_record(&self.columns, row, out);
        Ok(())
    }
}

/// The text of the one key column.
struct TextKeys {
    column: Cells,
}

impl ValueEncoder for TextKeys {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.column = Cells::of(rows.column(0))?;
        Ok(())
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        self.column.write(row, out);
        Ok(())
    }

    fn is_none(&self, row: usize) -> bool {
        self.column.is_null(row)
    }
}

/// The options that FORMAT and ENCODE of this sink take, beside the connector's own.
pub fn sink_options(_format: Format, encode: Encode) -> Vec<&'static str> {
    let mut names = vec![KEY_ENCODE];
    names.extend(encode_options(encode));
    if !matches!(encode, Encode::Avro | Encode::Protobuf) {
        // Keys may be Avro whatever the values are.
        names.extend(REGISTRY_OPTIONS);
    }
    names
}

/// Errors: what is wrong with FORMAT, ENCODE, their options or the columns. Asks no one outside.
pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    let whole = |message: String| OptionError { option: None, message };
    if def.encode == Encode::Parquet {
        return Err(whole("ENCODE PARQUET is for files; a record is JSON, CSV, AVRO, PROTOBUF or BYTES".into()));
    }
    if def.format == Format::Debezium && !matches!(def.encode, Encode::Json | Encode::Avro) {
        return Err(crate::connectors::combination(def.encode, "FORMAT DEBEZIUM is written with ENCODE JSON and AVRO only"));
    }
    if def.format == Format::Upsert && def.key.is_empty() {
        return Err(whole("FORMAT UPSERT replaces rows by their key; name its columns: FROM … KEY (a, b)".into()));
    }
    RegistryOptions::parse(&def.options)?;
    match def.encode {
        Encode::Csv => drop(Csv::parse(&def.options)?),
        Encode::Avro => check_avro(def)?,
        Encode::Protobuf => {
            schema_text::check(&def.options, "PROTOBUF", &[SCHEMA_FILE, SCHEMA])?;
            if !def.options.contains_key(MESSAGE) {
                return Err(whole("ENCODE PROTOBUF needs message = 'package.Type', the message that a record is".into()));
            }
        }
        Encode::Bytes => BytesValues::check(&def.schema).map_err(whole)?,
        Encode::Json | Encode::Parquet => {}
    }
    if !def.key.is_empty() && key_encode(def)? == KeyEncode::Bytes {
        let key = def.schema.project(&def.key).map_err(|error| whole(error.to_string()))?;
        BytesValues::check(&key).map_err(|message| options::wrong(KEY_ENCODE, message))?;
    }
    check_types(&def.schema).map_err(whole)
}

fn check_avro(def: &SinkDef) -> Result<(), OptionError> {
    let whole = |message: String| OptionError { option: None, message };
    let given = [SCHEMA, SCHEMA_FILE].into_iter().filter(|name| def.options.contains_key(*name)).count();
    if given > 1 {
        return Err(options::wrong(SCHEMA_FILE, "a schema comes from one place; leave out schema or schema.file"));
    }
    if given == 1 && def.format == Format::Debezium {
        return Err(whole("FORMAT DEBEZIUM ENCODE AVRO makes its own schema; leave out schema and schema.file".into()));
    }
    // Without a schema of its own the sink makes one, which readers must get from somewhere.
    if given == 0 && !def.options.contains_key(REGISTRY) {
        return Err(whole("ENCODE AVRO needs schema.registry = 'http://…' to keep its schema, or the schema itself: schema or schema.file".into()));
    }
    if given == 0 {
        crate::avro::schema_of(&def.schema, &def.name).map_err(whole)?;
    }
    Ok(())
}
