//! One record of any connector to rows. In: key, payload and what surrounds them. Out: rows, a dead letter, or the wish to wait.
//!
//! FORMAT says what a record does, ENCODE how its bytes read, metadata columns come from the connector. A record is taken whole or not at all.

use freshet_core::{Encode, Error, Format, MetadataColumn, OptionError, Result, SourceDef};

use super::again::context_of;
use super::avro::Datum;
use super::key::KeyDecoder;
use super::{AvroDecoder, BytesDecoder, Cell, CsvDecoder, DebeziumDecoder, Fault, JsonDecoder, ProtobufDecoder, Rows, check_types};
use crate::options::{self, Csv};
use crate::protobuf::MESSAGE;
use crate::registry::{REGISTRY_OPTIONS, RegistryOptions};
use crate::schema_text::{self, REGISTRY, SCHEMA, SCHEMA_FILE};

pub const MAX_RECORD_BYTES: &str = "max_record_bytes";
pub const KEY_ENCODE: &str = "key.encode";
/// 16 MiB: above what brokers let through by default, below what a batch of them would cost.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// A record as its connector has it.
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub payload: Option<&'a [u8]>,
    pub offset: u64,
    /// Where the partition is to be found, for dead letters.
    pub origin: &'a str,
    pub metadata: &'a dyn Metadata,
}

/// What a connector knows of a record beside its bytes.
pub trait Metadata {
    /// The cell of this name, as in [`MetadataColumn`]; NULL where this record has none. None: the connector has no such name, which it has
    /// refused when the source was declared.
    fn cell(&self, name: &str) -> Option<Cell<'_>>;
}

/// For connectors without metadata.
pub struct NoMetadata;

impl Metadata for NoMetadata {
    fn cell(&self, _name: &str) -> Option<Cell<'_>> {
        None
    }
}

/// The record cannot be read yet: its schema is still on its way. Nothing has changed; decode it again later, and none behind it before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Wait {
    /// For [`freshet_core::SourceReport::trouble`].
    pub reason: String,
}

/// Why a record has given no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Fault(Fault),
    Wait(Wait),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

/// Decodes the bytes of one row.
pub trait RowDecoder: Send {
    /// A new file begins; `header` is its first record where the encoding has one. Errors: the file cannot be this source.
    fn begin(&mut self, _header: Option<&[u8]>) -> Result<(), String> {
        Ok(())
    }

    /// Sets the cells of one row. On a refusal some may have been set; the caller cuts back.
    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal>;
}

/// Decodes the bytes of one change with the rows before and after it.
pub trait ChangeDecoder: Send {
    /// Fills one row after the other and calls `end` with its diff after each. Nothing is a change too.
    fn changes(&mut self, payload: &[u8], rows: &mut Rows, end: &mut RowEnd) -> Result<(), Refusal>;
}

/// Ends a row with this diff: metadata columns are set here.
pub type RowEnd<'a> = dyn FnMut(&mut Rows, i64) -> Result<(), Fault> + 'a;

enum Bytes {
    Rows(Box<dyn RowDecoder>),
    Changes(Box<dyn ChangeDecoder>),
    Upserts { value: Box<dyn RowDecoder>, key: Box<KeyDecoder> },
}

/// FORMAT, ENCODE, metadata columns and size limit of one source.
pub struct RecordDecoder {
    bytes: Bytes,
    metadata: Vec<MetadataColumn>,
    record_bytes_max: usize,
    encode: Encode,
    header: Option<Vec<u8>>,
    /// The columns of WATERMARK and ARRIVAL, and what they are to a person.
    times: Vec<(usize, &'static str)>,
}

impl RecordDecoder {
    /// Errors: Invalid as `check_source` finds it, or a schema file that cannot be read.
    pub fn open(def: &SourceDef) -> Result<RecordDecoder> {
        let invalid = |error: OptionError| Error::invalid(format!("source {}: {}", def.name, error.message));
        check_source(def).map_err(invalid)?;
        let record_bytes_max = record_bytes_max(def).map_err(invalid)?;
        let data = data_columns(def);
        let bytes = match (def.format, def.encode) {
            (Format::Debezium, Encode::Json) => Bytes::Changes(Box::new(DebeziumDecoder::new(&def.schema, &data))),
            (Format::Debezium, _) => Bytes::Changes(Box::new(AvroDecoder::open(def, &data, Datum::Envelope)?)),
            (Format::Upsert, _) => Bytes::Upserts { value: value_decoder(def, &data)?, key: Box::new(KeyDecoder::open(def)?) },
            _ => Bytes::Rows(value_decoder(def, &data)?),
        };
        let arrival = def.arrival.filter(|arrival| Some(*arrival) != def.event_time);
        let times = def.event_time.map(|column| (column, "event time")).into_iter().chain(arrival.map(|column| (column, "arrival"))).collect();
        Ok(RecordDecoder { bytes, metadata: def.metadata.clone(), record_bytes_max, encode: def.encode, header: None, times })
    }

    /// A new file begins; see [`RowDecoder::begin`].
    pub fn begin(&mut self, header: Option<&[u8]>) -> Result<(), String> {
        self.header = header.map(<[u8]>::to_vec);
        match &mut self.bytes {
            Bytes::Rows(rows) | Bytes::Upserts { value: rows, .. } => rows.begin(header),
            Bytes::Changes(_) => Ok(()),
        }
    }

    /// Appends what the record says, which may be nothing; a bad record becomes a dead letter. Errors: the record must be decoded again later,
    /// and nothing has changed.
    pub fn decode(&mut self, record: &Record<'_>, rows: &mut Rows) -> Result<(), Wait> {
        let len = rows.len();
        match self.take(record, rows) {
            Ok(()) => {}
            Err(Refusal::Fault(fault)) => {
                rows.cut_back(len);
                rows.bury(fault, record);
                rows.keep_context(|| context_of(self.encode, self.header.as_deref(), &self.metadata, record.metadata));
            }
            Err(Refusal::Wait(wait)) => {
                rows.cut_back(len);
                return Err(wait);
            }
        }
        rows.weigh(record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len));
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>, rows: &mut Rows) -> Result<(), Refusal> {
        let RecordDecoder { bytes, metadata, record_bytes_max, times, .. } = self;
        let found = record.payload.map_or(0, <[u8]>::len);
        if found > *record_bytes_max {
            let reason = format!("the record has {found} bytes, {MAX_RECORD_BYTES} is {record_bytes_max}; raise it, or send smaller records");
            return Err(Fault::of_record(reason).into());
        }
        match bytes {
            Bytes::Rows(decoder) => {
                let Some(payload) = record.payload else {
                    return Err(Fault::of_record("the record has no payload; a deletion needs FORMAT UPSERT").into());
                };
                decoder.fill(payload, rows)?;
                surround(metadata, record, rows)?;
                rows.end_row(1, record.offset)?;
                check_times(times, rows)
            }
            Bytes::Changes(decoder) => {
                let Some(payload) = record.payload else { return Ok(()) };
                decoder.changes(payload, rows, &mut |rows, diff| {
                    surround(metadata, record, rows)?;
                    rows.end_row(diff, record.offset)
                })
            }
            Bytes::Upserts { value, key } => {
                let payload = record.payload.filter(|payload| !payload.is_empty());
                if let Some(payload) = payload {
                    value.fill(payload, rows)?;
                }
                surround(metadata, record, rows)?;
                key.complete(record.key, rows)?;
                match payload {
                    Some(_) => {
                        rows.end_row(1, record.offset)?;
                        check_times(times, rows)
                    }
                    None => Ok(rows.end_key_row(key.columns(), -1, record.offset)?),
                }
            }
        }
    }
}

/// A row without a usable time is set aside here (T13), where its bytes are still at hand.
fn check_times(times: &[(usize, &'static str)], rows: &Rows) -> Result<(), Refusal> {
    for (column, what) in times {
        if let Some(fault) = rows.fault_of_time(*column) {
            return Err(Fault::new(rows.schema().field(*column).name(), format!("{what} {fault}")).into());
        }
    }
    Ok(())
}

/// Sets the metadata columns of the row under construction.
fn surround(metadata: &[MetadataColumn], record: &Record<'_>, rows: &mut Rows) -> Result<(), Fault> {
    for column in metadata {
        let Some(cell) = record.metadata.cell(&column.name) else {
            let field = rows.schema().field(column.column).name().clone();
            return Err(Fault::new(&field, format!("this connector has no metadata {}", column.name)));
        };
        rows.set(column.column, &cell)?;
    }
    Ok(())
}

/// The columns that a record's bytes fill.
pub fn data_columns(def: &SourceDef) -> Vec<usize> {
    (0..def.schema.fields().len()).filter(|column| def.metadata.iter().all(|metadata| metadata.column != *column)).collect()
}

fn value_decoder(def: &SourceDef, data: &[usize]) -> Result<Box<dyn RowDecoder>> {
    Ok(match def.encode {
        Encode::Json => Box::new(JsonDecoder::new(&def.schema, data)),
        Encode::Csv => {
            let options = Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?;
            Box::new(CsvDecoder::new(def.schema.clone(), data, options))
        }
        Encode::Avro => Box::new(AvroDecoder::open(def, data, Datum::Row)?),
        Encode::Protobuf => Box::new(ProtobufDecoder::open(def, data)?),
        Encode::Bytes => Box::new(BytesDecoder::new(&def.schema, data).map_err(Error::invalid)?),
        Encode::Parquet => return Err(Error::internal(format!("source {}: a record is no Parquet file", def.name))),
    })
}

/// The options that FORMAT and ENCODE of this source take, beside the connector's own.
pub fn source_options(format: Format, encode: Encode) -> Vec<&'static str> {
    let mut names = vec![MAX_RECORD_BYTES];
    if format == Format::Upsert {
        names.push(KEY_ENCODE);
        if !matches!(encode, Encode::Avro | Encode::Protobuf) {
            names.extend(REGISTRY_OPTIONS);
        }
    }
    names.extend(encode_options(encode));
    names
}

/// The options of an encoding, for sources and sinks alike.
pub fn encode_options(encode: Encode) -> Vec<&'static str> {
    match encode {
        Encode::Csv => options::CSV.to_vec(),
        Encode::Avro => [&[SCHEMA, SCHEMA_FILE][..], &REGISTRY_OPTIONS].concat(),
        Encode::Protobuf => [&[SCHEMA, SCHEMA_FILE, MESSAGE][..], &REGISTRY_OPTIONS].concat(),
        Encode::Json | Encode::Bytes | Encode::Parquet => Vec::new(),
    }
}

/// Errors: what is wrong with FORMAT, ENCODE, their options or the columns. Asks no one outside.
pub fn check_source(def: &SourceDef) -> Result<(), OptionError> {
    let whole = |message: String| OptionError { option: None, message };
    record_bytes_max(def)?;
    if def.encode == Encode::Parquet {
        return Err(whole("ENCODE PARQUET is for files; a record is JSON, CSV, AVRO, PROTOBUF or BYTES".into()));
    }
    if def.format == Format::Debezium && !matches!(def.encode, Encode::Json | Encode::Avro) {
        return Err(crate::connectors::combination(def.encode, "FORMAT DEBEZIUM is read from ENCODE JSON and AVRO only"));
    }
    if def.format == Format::Upsert && def.key.is_empty() {
        return Err(whole("FORMAT UPSERT replaces rows by their key; declare PRIMARY KEY (…) NOT ENFORCED".into()));
    }
    RegistryOptions::parse(&def.options)?;
    match def.encode {
        Encode::Csv => drop(Csv::parse(&def.options)?),
        Encode::Avro => schema_text::check(&def.options, "AVRO", &[REGISTRY, SCHEMA, SCHEMA_FILE])?,
        Encode::Protobuf => {
            schema_text::check(&def.options, "PROTOBUF", &[REGISTRY, SCHEMA_FILE, SCHEMA])?;
            if !def.options.contains_key(REGISTRY) && !def.options.contains_key(MESSAGE) {
                return Err(whole("ENCODE PROTOBUF needs message = 'package.Type', the message that a record is".into()));
            }
        }
        Encode::Bytes => BytesDecoder::new(&def.schema, &data_columns(def)).map(|_| ()).map_err(whole)?,
        Encode::Json | Encode::Parquet => {}
    }
    if def.format == Format::Upsert {
        KeyDecoder::check(def)?;
    }
    check_types(&def.schema).map_err(whole)
}

/// The size limit of this source.
pub fn record_bytes_max(def: &SourceDef) -> Result<usize, OptionError> {
    match def.options.get(MAX_RECORD_BYTES).map(|text| text.parse::<usize>()) {
        None => Ok(RECORD_BYTES_MAX),
        Some(Ok(bytes)) if (1..=1 << 30).contains(&bytes) => Ok(bytes),
        Some(_) => Err(options::wrong(MAX_RECORD_BYTES, format!("{MAX_RECORD_BYTES} is a number of bytes from 1 to 1073741824"))),
    }
}
