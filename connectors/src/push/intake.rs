//! One push becomes rows. In: records in an encoding, or columns. Out: rows of the columns that clients send, offsets counted from 0, and a
//! dead letter for each record that cannot be read; or the reason why nothing of it is taken. Has no state: clients decode side by side.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use freshet_core::{DeadLetter, Encode, Error, Format, MetadataColumn, PushBody, Result, SourceDef};
use serde::Deserialize;

use super::columns::{DELETED, conform, deleted_rows};
use crate::decode::{Cell, Metadata, Record, RecordDecoder, Rows};
use crate::options::Csv;

/// Decoders kept for the next push; more are opened when more clients push at once.
const DECODERS_KEPT_MAX: usize = 16;

/// The rows of one push.
#[derive(Debug)]
pub struct Taken {
    pub rows: RecordBatch,
    pub diffs: Option<Vec<i64>>,
    /// The record behind each row, from 0.
    pub offsets: Vec<u64>,
    pub dead_letters: Vec<DeadLetter>,
    pub records: u64,
    pub bytes: usize,
}

/// Reads pushes of one source.
pub struct Intake {
    /// The source as clients see it: without the columns that are metadata.
    payload: SourceDef,
    decoders: Mutex<Vec<(Encode, RecordDecoder)>>,
}

impl Intake {
    pub fn new(def: &SourceDef) -> Intake {
        let kept: Vec<usize> = (0..def.schema.fields().len()).filter(|column| def.metadata.iter().all(|known| known.column != *column)).collect();
        let fields: Vec<_> = kept.iter().map(|column| def.schema.fields()[*column].clone()).collect();
        let place = |wanted: usize| kept.iter().position(|column| *column == wanted);
        let key = def.key.iter().filter_map(|key| place(*key)).collect();
        let (event_time, arrival) = (def.event_time.and_then(place), def.arrival.and_then(place));
        // Statements change a table row by row; what clients send are plain rows.
        let format = if def.is_table() && def.format == Format::Debezium { Format::Plain } else { def.format };
        let payload = SourceDef { schema: Arc::new(Schema::new(fields)), key, metadata: Vec::new(), event_time, arrival, format, ..def.clone() };
        Intake { payload, decoders: Mutex::default() }
    }

    /// The columns that clients send.
    pub fn schema(&self) -> &SchemaRef {
        &self.payload.schema
    }

    /// Errors: Invalid (columns, encoding or header do not fit), Unavailable (a schema that has not come yet). Cost: that of decoding.
    pub fn take(&self, body: &PushBody) -> Result<Taken> {
        match body {
            PushBody::Rows(rows) => self.take_rows(rows),
            PushBody::Changes(rows, diffs) => self.take_changes(rows, diffs),
            PushBody::Bytes(encode, bytes) => self.take_bytes(*encode, bytes),
        }
    }

    fn take_rows(&self, rows: &RecordBatch) -> Result<Taken> {
        let upsert = match self.payload.format {
            Format::Plain => false,
            Format::Upsert => true,
            Format::Debezium => return Err(Error::invalid("it is FORMAT DEBEZIUM, which has no Arrow form; send its JSON lines by POST")),
        };
        let deleted = if upsert { deleted_rows(rows)? } else { None };
        let taken = conform(rows, self.schema(), deleted.as_ref(), &self.payload.key)?;
        let key_with_null = self.payload.key.iter().find(|column| upsert && taken.column(**column).null_count() > 0);
        if let Some(column) = key_with_null {
            return Err(Error::invalid(format!("column {} is in the PRIMARY KEY, a row has NULL", self.schema().field(*column).name())));
        }
        let diffs = deleted.map(|deleted| deleted.values().iter().map(|deleted| if deleted { -1 } else { 1 }).collect());
        let records = taken.num_rows() as u64;
        Ok(Taken { bytes: bytes_of(&taken), rows: taken, diffs, offsets: (0..records).collect(), dead_letters: Vec::new(), records })
    }

    fn take_changes(&self, rows: &RecordBatch, diffs: &[i64]) -> Result<Taken> {
        if !self.payload.is_table() {
            return Err(Error::invalid("its rows are not changed by statements"));
        }
        assert_eq!(rows.num_rows(), diffs.len());
        let records = rows.num_rows() as u64;
        let rows = RecordBatch::try_new(self.schema().clone(), rows.columns().to_vec())?;
        let diffs = diffs.iter().any(|diff| *diff < 0).then(|| diffs.to_vec());
        Ok(Taken { bytes: bytes_of(&rows), rows, diffs, offsets: (0..records).collect(), dead_letters: Vec::new(), records })
    }

    fn take_bytes(&self, encode: Encode, bytes: &[u8]) -> Result<Taken> {
        let bytes = if matches!(encode, Encode::Json | Encode::Csv) { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes) } else { bytes };
        let mut records = records_of(encode, bytes, self.schema().fields().len() == 1).into_iter();
        let header = match encode {
            Encode::Csv if self.csv()?.header => records.next().map(|range| &bytes[range]),
            _ => None,
        };
        let mut decoder = self.decoder(encode, header)?;
        let mut rows = Rows::new(self.schema().clone());
        let mut count = 0;
        for range in records {
            let line = &bytes[range];
            // What ends a key is itself the key, as a record without a value.
            let (key, payload) = if self.ends_key(encode, line) { (Some(line), None) } else { (None, Some(line)) };
            let record = Record { key, payload, offset: count, origin: "", metadata: &Nothing };
            decoder.decode(&record, &mut rows).map_err(|wait| Error::unavailable(format!("{}; try again later", wait.reason)))?;
            count += 1;
        }
        if header.is_none() {
            self.keep(encode, decoder);
        }
        let batch = rows.finish(0, count)?;
        let letters: usize = batch.dead_letters.iter().map(|letter| letter.raw.len() + letter.reason.len()).sum();
        Ok(Taken {
            bytes: bytes_of(&batch.rows) + letters,
            rows: batch.rows,
            diffs: batch.diffs,
            offsets: batch.offsets,
            dead_letters: batch.dead_letters,
            records: count,
        })
    }

    /// A record of FORMAT UPSERT that says of its key that it has no row any more.
    fn ends_key(&self, encode: Encode, record: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Mark {
            #[serde(rename = "__deleted", default)]
            deleted: serde_json::Value,
        }
        let upsert = self.payload.format == Format::Upsert && encode == Encode::Json;
        upsert
            && memchr::memmem::find(record, DELETED.as_bytes()).is_some()
            && serde_json::from_slice::<Mark>(record).is_ok_and(|mark| mark.deleted == true || mark.deleted == "true")
    }

    fn csv(&self) -> Result<Csv> {
        Csv::parse(&self.payload.options).map_err(|error| Error::invalid(error.message))
    }

    fn decoder(&self, encode: Encode, header: Option<&[u8]>) -> Result<RecordDecoder> {
        let mut kept = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|(known, _)| *known == encode)
            && header.is_none()
        {
            return Ok(kept.swap_remove(index).1);
        }
        drop(kept);
        let mut def = SourceDef { encode, ..self.payload.clone() };
        if let Some(header) = header {
            def.metadata = self.absent(header)?;
        }
        let mut decoder = RecordDecoder::open(&def)?;
        decoder.begin(header).map_err(Error::invalid)?;
        Ok(decoder)
    }

    fn keep(&self, encode: Encode, decoder: RecordDecoder) {
        let mut kept = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < DECODERS_KEPT_MAX {
            kept.push((encode, decoder));
        }
    }

    /// Columns that may be NULL and that the header does not name: the decoder need not find them.
    fn absent(&self, header: &[u8]) -> Result<Vec<MetadataColumn>> {
        let text = String::from_utf8_lossy(header);
        let delimiter = char::from(self.csv()?.delimiter);
        let named: Vec<&str> = text.split(delimiter).map(|name| name.trim().trim_matches('"')).collect();
        let fields = self.schema().fields().iter().enumerate();
        let absent = fields.filter(|(_, field)| field.is_nullable() && !named.contains(&field.name().as_str()));
        let absent: Vec<_> = absent.map(|(column, _)| MetadataColumn { column, name: String::new() }).collect();
        if absent.len() == self.schema().fields().len() {
            return Err(Error::invalid(format!("the header has none of its columns; it has {}", named.join(", "))));
        }
        Ok(absent)
    }
}

/// Columns that a client leaves out.
struct Nothing;

impl Metadata for Nothing {
    fn cell(&self, _name: &str) -> Option<Cell<'_>> {
        Some(Cell::Null)
    }
}

/// Where the records lie: lines of JSON and CSV, else the whole body. Blank lines are none, save for CSV of one column.
fn records_of(encode: Encode, bytes: &[u8], one_column: bool) -> Vec<Range<usize>> {
    if !matches!(encode, Encode::Json | Encode::Csv) {
        return if bytes.is_empty() { Vec::new() } else { std::iter::once(0..bytes.len()).collect() };
    }
    let blank_counts = encode == Encode::Csv && one_column;
    let (mut records, mut begin, mut quoted) = (Vec::new(), 0, false);
    let mut line = |begin: usize, end: usize| {
        let end = if end > begin && bytes[end - 1] == b'\r' { end - 1 } else { end };
        if blank_counts || !bytes[begin..end].iter().all(u8::is_ascii_whitespace) {
            records.push(begin..end);
        }
    };
    for at in memchr::memchr2_iter(b'\n', b'"', bytes) {
        if bytes[at] == b'"' {
            quoted ^= encode == Encode::Csv;
        } else if !quoted {
            line(begin, at);
            begin = at + 1;
        }
    }
    if begin < bytes.len() {
        line(begin, bytes.len());
    }
    records
}

/// What the rows themselves take, not the buffers they are slices of.
fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())).sum()
}
