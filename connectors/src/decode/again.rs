//! Records of dead letters, decoded once more. In: letters with what surrounded their records. Out: rows, or letters with today's reason.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, TimeUnit};
use freshet_core::{DeadLetter, Encode, Error, Format, LetterForm, MetadataColumn, Result, SourceBatch, SourceDef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Cell, Fault, Metadata, Record, RecordDecoder, Rows, data_columns};
use crate::options::Csv;

const ENCODINGS: [(Encode, &str); 6] = [
    (Encode::Json, "JSON"),
    (Encode::Csv, "CSV"),
    (Encode::Parquet, "PARQUET"),
    (Encode::Avro, "AVRO"),
    (Encode::Protobuf, "PROTOBUF"),
    (Encode::Bytes, "BYTES"),
];

/// What a dead letter keeps of its record's surroundings, as JSON.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Context {
    /// A client may push another encoding than the source's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    encode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    /// The letter stands for a whole file, or for the rest of one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    file: bool,
}

/// Of a letter that stands for a file: there is no record to decode again.
pub fn context_of_file() -> String {
    serde_json::to_string(&Context { file: true, ..Context::default() }).unwrap_or_default()
}

/// Surroundings of one record as text.
pub fn context_of(encode: Encode, header: Option<&[u8]>, columns: &[MetadataColumn], metadata: &dyn Metadata) -> String {
    let encode = ENCODINGS.iter().find(|known| known.0 == encode).map_or(String::new(), |known| known.1.to_string());
    let header = header.map(|header| String::from_utf8_lossy(header).into_owned());
    let named = columns.iter().filter(|column| !column.name.is_empty());
    let cells = named.filter_map(|column| Some((column.name.clone(), to_value(&metadata.cell(&column.name)?))));
    serde_json::to_string(&Context { encode, header, metadata: cells.collect(), file: false }).unwrap_or_default()
}

/// With one more cell that only the connector knew.
pub fn with_cell(context: &str, name: &str, cell: &Cell) -> String {
    let mut context: Context = serde_json::from_str(context).unwrap_or_default();
    context.metadata.insert(name.to_string(), to_value(cell));
    serde_json::to_string(&context).unwrap_or_default()
}

/// As [`freshet_core::Connectors::decode_again`].
pub fn decode_again(def: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
    let mut again = Again { def, decoders: BTreeMap::new() };
    let mut partitions: BTreeMap<u32, Vec<&DeadLetter>> = BTreeMap::new();
    letters.iter().for_each(|letter| partitions.entry(letter.partition).or_default().push(letter));
    let mut batches = Vec::new();
    for (partition, mut letters) in partitions {
        letters.sort_by_key(|letter| letter.offset);
        let mut rows = Rows::new(def.schema.clone());
        for letter in &letters {
            again.decode(letter, &mut rows)?;
        }
        let next_offset = letters.last().map_or(0, |letter| letter.offset + 1);
        batches.push(rows.finish(partition, next_offset)?);
    }
    Ok(batches)
}

struct Again<'d> {
    def: &'d SourceDef,
    /// By form, encoding and header.
    decoders: BTreeMap<(bool, String, Option<String>), RecordDecoder>,
}

impl Again<'_> {
    fn decode(&mut self, letter: &DeadLetter, rows: &mut Rows) -> Result<()> {
        let context: Context = serde_json::from_str(&letter.context).unwrap_or_default();
        let surroundings = Surroundings { letter, metadata: &context.metadata };
        // A key alone says that its row has gone.
        let payload = (!letter.raw.is_empty() || letter.key.is_none()).then_some(letter.raw.as_slice());
        let record = Record { key: letter.key.as_deref(), payload, offset: letter.offset, origin: &letter.origin, metadata: &surroundings };
        if context.file {
            rows.bury(Fault::of_record(letter.reason.clone()), &record);
            rows.keep_context(context_of_file);
            return Ok(());
        }
        let is_row = letter.form != LetterForm::Record;
        let key = (is_row, context.encode.clone(), context.header.clone());
        if !self.decoders.contains_key(&key) {
            let decoder = self.open(is_row, &context)?;
            self.decoders.insert(key.clone(), decoder);
        }
        let decoder = self.decoders.get_mut(&key).expect("it was opened above");
        decoder.decode(&record, rows).map_err(|wait| Error::unavailable(format!("source {}: {}", self.def.name, wait.reason)))
    }

    fn open(&self, is_row: bool, context: &Context) -> Result<RecordDecoder> {
        let mut def = self.def.clone();
        if is_row {
            // Its metadata columns are in the row.
            (def.format, def.encode, def.metadata) = (Format::Plain, Encode::Json, Vec::new());
            return RecordDecoder::open(&def);
        }
        def.encode = ENCODINGS.iter().find(|known| known.1 == context.encode).map_or(def.encode, |known| known.0);
        if def.encode == Encode::Parquet {
            def.encode = Encode::Json;
        }
        let header = context.header.as_deref();
        if let (Encode::Csv, Some(header)) = (def.encode, header) {
            def.metadata.extend(absent(&def, header)?);
        }
        let mut decoder = RecordDecoder::open(&def)?;
        decoder.begin(header.map(str::as_bytes)).map_err(Error::invalid)?;
        Ok(decoder)
    }
}

/// Columns that the header of a push left out: they are NULL.
fn absent(def: &SourceDef, header: &str) -> Result<Vec<MetadataColumn>> {
    let delimiter = char::from(Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?.delimiter);
    let named: Vec<&str> = header.split(delimiter).map(|name| name.trim().trim_matches('"')).collect();
    let absent = data_columns(def).into_iter().filter(|column| {
        let field = def.schema.field(*column);
        field.is_nullable() && !named.contains(&field.name().as_str())
    });
    Ok(absent.map(|column| MetadataColumn { column, name: String::new() }).collect())
}

/// What surrounded the record, as far as it is known.
struct Surroundings<'l> {
    letter: &'l DeadLetter,
    metadata: &'l Map<String, Value>,
}

impl Metadata for Surroundings<'_> {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        if let Some(value) = self.metadata.get(name) {
            return Some(from_value(value));
        }
        Some(match name {
            "offset" => Cell::Int(i64::try_from(self.letter.offset).unwrap_or(i64::MAX)),
            "partition" => Cell::Int(i64::from(self.letter.partition)),
            "key" => self.letter.key.as_deref().map_or(Cell::Null, |key| Cell::Bytes(key.into())),
            _ => Cell::Null,
        })
    }
}

const UNITS: [(TimeUnit, &str); 4] =
    [(TimeUnit::Second, "s"), (TimeUnit::Millisecond, "ms"), (TimeUnit::Microsecond, "us"), (TimeUnit::Nanosecond, "ns")];

fn to_value(cell: &Cell) -> Value {
    match cell {
        Cell::Null | Cell::Nested(_) | Cell::Json(_) => Value::Null,
        Cell::Bool(value) => json!(value),
        Cell::Int(value) => json!(value),
        Cell::UInt(value) => json!(value),
        Cell::Float(value) => json!({ "float": value.to_string() }),
        Cell::Text(text) => json!(text),
        Cell::Raw(text) => json!({ "raw": text }),
        Cell::Bytes(bytes) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        Cell::Instant(value, unit) => {
            let name = UNITS.iter().find(|known| known.0 == *unit).map_or("ms", |known| known.1);
            json!({ name: value })
        }
        Cell::Day(day) => json!({ "day": day }),
        Cell::Decimal(digits, scale) => json!({ "raw": format!("{digits}e{}", -i32::from(*scale)) }),
    }
}

fn from_value(value: &Value) -> Cell<'_> {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::String(text) => Cell::Text(text.as_str().into()),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Cell::Int(value),
            (None, Some(value)) => Cell::UInt(value),
            _ => Cell::Null,
        },
        Value::Object(tagged) => tagged.iter().next().map_or(Cell::Null, |(tag, value)| from_tagged(tag, value)),
        Value::Null | Value::Array(_) => Cell::Null,
    }
}

fn from_tagged<'v>(tag: &str, value: &'v Value) -> Cell<'v> {
    let unit = UNITS.iter().find(|known| known.1 == tag).map(|known| known.0);
    match (tag, value) {
        ("float", Value::String(text)) => text.parse().map_or(Cell::Null, Cell::Float),
        ("raw", Value::String(text)) => Cell::Raw(text.as_str().into()),
        ("hex", Value::String(text)) => {
            let pairs = (0..text.len() / 2).map(|pair| text.get(2 * pair..2 * pair + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()));
            pairs.collect::<Option<Vec<u8>>>().map_or(Cell::Null, |bytes| Cell::Bytes(bytes.into()))
        }
        ("day", Value::Number(day)) => day.as_i64().and_then(|day| i32::try_from(day).ok()).map_or(Cell::Null, Cell::Day),
        (_, Value::Number(value)) => match (unit, value.as_i64()) {
            (Some(unit), Some(value)) => Cell::Instant(value, unit),
            _ => Cell::Null,
        },
        _ => Cell::Null,
    }
}

/// Why a time cannot be one (T13), in the column's unit; the engine says it in the same words where it is the first to see it.
pub fn fault_of_time(data_type: &DataType, value: Option<i64>) -> Option<&'static str> {
    const LATEST_SECONDS: i64 = 7_258_118_400;
    let DataType::Timestamp(unit, _) = data_type else { return None };
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    match value {
        None => Some("is NULL"),
        Some(value) if value < 0 => Some("is before 1970"),
        Some(value) if value.div_euclid(per_second) >= LATEST_SECONDS => Some("is after 2200"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_survive_the_way_through_text() {
        let cells = [
            Cell::Null,
            Cell::Bool(true),
            Cell::Int(-7),
            Cell::UInt(u64::MAX),
            Cell::Float(f64::NEG_INFINITY),
            Cell::Text("a \"b\"".into()),
            Cell::Raw("7.5".into()),
            Cell::Bytes(vec![0, 255, 16].into()),
            Cell::Instant(-5, TimeUnit::Nanosecond),
            Cell::Instant(1_700_000_000_000, TimeUnit::Millisecond),
            Cell::Day(-3),
        ];
        for cell in cells {
            let text = with_cell("", "it", &cell);
            let context: Context = serde_json::from_str(&text).unwrap();
            assert_eq!(from_value(&context.metadata["it"]), cell, "{text}");
        }
    }

    #[test]
    fn t13_the_ends_of_time_are_those_of_the_engine() {
        let unit = |unit| DataType::Timestamp(unit, None);
        for (unit, per_second) in [(unit(TimeUnit::Second), 1), (unit(TimeUnit::Millisecond), 1_000), (unit(TimeUnit::Nanosecond), 1_000_000_000)] {
            assert_eq!(fault_of_time(&unit, Some(7_258_118_400 * per_second)), Some("is after 2200"));
            assert_eq!(fault_of_time(&unit, Some(7_258_118_400 * per_second - 1)), None);
            assert_eq!(fault_of_time(&unit, Some(-1)), Some("is before 1970"));
            assert_eq!(fault_of_time(&unit, None), Some("is NULL"));
        }
    }
}
