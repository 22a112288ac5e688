//! Records of dead letters, decoded once more: with their keys, headers, metadata and encodings, as if they came for the first time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_connectors::{BuiltIn, Cell, Metadata, Record, RecordDecoder, Rows};
use freshet_core::{Connectors, DeadLetter, Encode, Format, LetterForm, MetadataColumn, SourceBatch, SourceDef, Value};

struct Surroundings;

impl Metadata for Surroundings {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        match name {
            "timestamp" => Some(Cell::Instant(5_000, TimeUnit::Millisecond)),
            "header.trace" => Some(Cell::Bytes(vec![0, 255].into())),
            "offset" => Some(Cell::Int(41)),
            _ => None,
        }
    }
}

fn schema(nullable: bool) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, nullable),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("trace", DataType::Binary, true),
        Field::new("o", DataType::Int64, true),
    ]))
}

/// The same source, before and after its column `name` may be NULL.
fn source(nullable: bool, format: Format, encode: Encode, options: &[(&str, &str)]) -> SourceDef {
    let mut def = SourceDef::new("s", schema(nullable), "kafka", format, encode);
    def.options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let metadata = |column, name: &str| MetadataColumn { column, name: name.into() };
    def.metadata = vec![metadata(2, "timestamp"), metadata(3, "header.trace"), metadata(4, "offset")];
    def.key = vec![0];
    def
}

fn dead(def: &SourceDef, header: Option<&[u8]>, key: Option<&[u8]>, payload: Option<&[u8]>) -> DeadLetter {
    let mut decoder = RecordDecoder::open(def).unwrap();
    decoder.begin(header).unwrap();
    let mut rows = Rows::new(def.schema.clone());
    decoder.decode(&Record { key, payload, offset: 41, origin: "t/3", metadata: &Surroundings }, &mut rows).unwrap();
    let batch = rows.finish(3, 42).unwrap();
    assert_eq!((batch.rows.num_rows(), batch.dead_letters.len()), (0, 1), "{:?}", batch.rows);
    batch.dead_letters[0].clone()
}

fn again(def: &SourceDef, letters: &[DeadLetter]) -> SourceBatch {
    let mut batches = BuiltIn.decode_again(def, letters).unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

fn row(id: i128, name: Option<&str>) -> Vec<Value> {
    let name = name.map_or(Value::Null, |name| Value::Text(name.into()));
    vec![Value::Int(id), name, Value::Int(5_000), Value::Bytes(vec![0, 255]), Value::Int(41)]
}

#[test]
fn a_record_that_can_be_read_now_has_its_metadata_and_its_place() {
    for format in [Format::Plain, Format::Upsert] {
        let letter = dead(&source(false, format, Encode::Json, &[]), None, Some(b"k"), Some(b"{\"id\":7}"));
        assert_eq!((letter.partition, letter.offset, letter.origin.as_str(), letter.key.as_deref()), (3, 41, "t/3", Some(&b"k"[..])));
        let batch = again(&source(true, format, Encode::Json, &[]), &[letter]);
        assert_eq!(Value::rows_of(&batch.rows).unwrap(), [row(7, None)]);
        assert_eq!((batch.partition, batch.offsets), (3, vec![41]));
    }
}

#[test]
fn a_csv_record_is_read_by_the_header_it_came_under() {
    let options = [("header", "true"), ("null", "-")];
    let letter = dead(&source(false, Format::Plain, Encode::Csv, &options), Some(b"name,id"), None, Some(b"-,7"));
    let batch = again(&source(true, Format::Plain, Encode::Csv, &options), std::slice::from_ref(&letter));
    assert_eq!(Value::rows_of(&batch.rows).unwrap(), [row(7, None)]);
    let corrected = DeadLetter { raw: b"x,8".to_vec(), ..letter };
    let batch = again(&source(false, Format::Plain, Encode::Csv, &options), &[corrected]);
    assert_eq!(Value::rows_of(&batch.rows).unwrap(), [row(8, Some("x"))]);
}

#[test]
fn what_still_cannot_be_read_says_why_and_leaves_the_others_alone() {
    let def = source(true, Format::Plain, Encode::Json, &[]);
    let bad = dead(&def, None, None, Some(b"{\"id\":\"x\"}"));
    let good = DeadLetter { raw: b"{\"id\":9}".to_vec(), offset: 40, ..bad.clone() };
    let batch = again(&def, &[bad.clone(), good]);
    assert_eq!(batch.offsets, [40]);
    assert_eq!((batch.dead_letters[0].offset, &batch.dead_letters[0].reason, &batch.dead_letters[0].context), (41, &bad.reason, &bad.context));
}

#[test]
fn a_row_that_was_read_before_its_fault_was_found_needs_no_encoding() {
    for encode in [Encode::Json, Encode::Csv, Encode::Bytes] {
        let mut def = source(true, Format::Plain, Encode::Json, &[]);
        def.encode = encode;
        let raw = br#"{"id":7,"name":"a","t":5000,"trace":"AP8=","o":41}"#.to_vec();
        let batch = again(&def, &[DeadLetter { partition: 1, offset: 41, raw, form: LetterForm::Row, ..DeadLetter::default() }]);
        assert_eq!(Value::rows_of(&batch.rows).unwrap(), [row(7, Some("a"))], "{encode:?}");
    }
}

#[test]
fn t13_a_row_without_a_usable_time_keeps_the_bytes_it_came_in() {
    let mut def = source(true, Format::Plain, Encode::Json, &[]);
    def.metadata.remove(0);
    def.event_time = Some(2);
    for (time, reason) in [("null", "is NULL"), ("-1", "is before 1970"), ("\"2201-01-01\"", "is after 2200")] {
        let payload = format!("{{\"id\": 1,  \"t\": {time}}}");
        let letter = dead(&def, None, None, Some(payload.as_bytes()));
        assert_eq!((letter.field.as_str(), letter.reason.as_str()), ("t", format!("event time {reason}").as_str()));
        assert_eq!((letter.raw, letter.form), (payload.into_bytes(), LetterForm::Record));
    }
}
