//! What every encoding of records keeps, and what bad records become.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_connectors::{Cell, Metadata, NoMetadata, OutRecord, Record, RecordDecoder, RecordEncoder, Rows};
use freshet_core::{Batch, Counts, Diffs, Encode, Epoch, Format, MetadataColumn, NodeId, SinkDef, SourceBatch, SourceDef, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A schema that fits `wide`, for ENCODE PROTOBUF.
pub const PROTO: &str = r#"
syntax = "proto3";
package test;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Wide {
  int64 id = 1;
  optional string name = 2;
  optional google.protobuf.Timestamp at = 3;
  optional double amount = 4;
  optional bool flag = 5;
  optional sint32 small = 16;
  optional float ratio = 17;
  optional bytes raw = 18;
  optional string price = 19;
  optional string day = 20;
  google.protobuf.Timestamp fine = 300;
  google.protobuf.Int64Value count = 301;
}
"#;

/// A column of every type that records can hold.
pub fn wide() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("amount", DataType::Float64, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("small", DataType::Int32, true),
        Field::new("ratio", DataType::Float32, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("price", DataType::Decimal128(20, 4), true),
        Field::new("day", DataType::Date32, true),
        Field::new("fine", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("count", DataType::Int64, true),
    ]))
}

pub fn source(schema: SchemaRef, format: Format, encode: Encode, options: &[(&str, &str)]) -> SourceDef {
    SourceDef { options: map(options), ..SourceDef::new("events", schema, "kafka", format, encode) }
}

pub fn sink(schema: SchemaRef, format: Format, encode: Encode, options: &[(&str, &str)], key: &[usize]) -> SinkDef {
    SinkDef {
        name: "out".into(),
        node: NodeId(0),
        from: "totals".into(),
        schema,
        connector: "kafka".into(),
        options: map(options),
        format,
        encode,
        key: key.to_vec(),
    }
}

fn map(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Decodes these payloads at offsets from 0.
pub fn decode(def: &SourceDef, payloads: &[&[u8]]) -> SourceBatch {
    let records: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.to_vec()))).collect();
    decode_keyed(def, &records)
}

pub fn decode_keyed(def: &SourceDef, records: &[(Option<Vec<u8>>, Option<Vec<u8>>)]) -> SourceBatch {
    let mut decoder = RecordDecoder::open(def).unwrap();
    let mut rows = Rows::new(def.schema.clone());
    for (offset, (key, payload)) in records.iter().enumerate() {
        let record = Record { key: key.as_deref(), payload: payload.as_deref(), offset: offset as u64, origin: "t/0", metadata: &NoMetadata };
        decoder.decode(&record, &mut rows).unwrap();
    }
    rows.finish(0, records.len() as u64).unwrap()
}

pub fn encode(def: &SinkDef, changes: &Batch) -> Vec<OutRecord> {
    let mut out = Vec::new();
    RecordEncoder::open(def).unwrap().encode(changes, &mut out).unwrap();
    out
}

pub fn values(batch: &RecordBatch) -> Vec<Vec<Value>> {
    Value::rows_of(batch).unwrap()
}

pub fn letters(batch: &SourceBatch) -> Vec<(u64, String, String)> {
    batch.dead_letters.iter().map(|letter| (letter.offset, letter.field.clone(), letter.reason.clone())).collect()
}

/// Rows of `wide` from a seed; one cell in four is NULL.
pub fn random_rows(seed: u64, count: usize) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let texts = ["", "plain", "comma, \"quote\"\nline \\ é", " edges ", "{}", "null", "🦀\u{1}"];
    let floats = [0.0, -0.0, 0.1, 5e-324, f64::MAX, f64::NAN, f64::INFINITY, -1.5];
    let mut rows = Vec::new();
    for id in 0..count {
        let mut maybe = |value: Value| if random.random_range(0..4) == 0 { Value::Null } else { value };
        let mut own = StdRng::seed_from_u64(seed * 1_000 + id as u64);
        let float = floats[own.random_range(0..floats.len())];
        rows.push(vec![
            Value::Int(i128::from(own.random::<i64>())),
            maybe(Value::Text(texts[own.random_range(0..texts.len())].into())),
            maybe(Value::Int(own.random_range(-2_000_000_000_000..4_000_000_000_000))),
            maybe(Value::Float(float)),
            maybe(Value::Bool(own.random())),
            maybe(Value::Int(i128::from(own.random::<i32>()))),
            maybe(Value::Float(f64::from(float as f32))),
            maybe(Value::Bytes((0..own.random_range(0..9)).map(|_| own.random()).collect())),
            maybe(Value::Int(own.random_range(-99_999_999_999_999_999_999..=99_999_999_999_999_999_999))),
            maybe(Value::Int(own.random_range(-100_000..100_000))),
            maybe(Value::Int(i128::from(own.random::<i64>()) / 4)),
            maybe(Value::Int(own.random_range(-3..3))),
        ]);
    }
    Value::batch_of(&wide(), &rows).unwrap()
}

pub fn avro_schema() -> String {
    r#"{"type":"record","name":"wide","fields":[
        {"name":"id","type":"long"},
        {"name":"name","type":["null","string"]},
        {"name":"at","type":[{"type":"long","logicalType":"timestamp-millis"},"null"]},
        {"name":"amount","type":["null","double"]},
        {"name":"flag","type":["null","boolean"]},
        {"name":"small","type":["null","int"]},
        {"name":"ratio","type":["null","float"]},
        {"name":"raw","type":["null","bytes"]},
        {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}]},
        {"name":"day","type":["null",{"type":"int","logicalType":"date"}]},
        {"name":"fine","type":["null",{"type":"long","logicalType":"timestamp-nanos"}]},
        {"name":"count","type":["null","long"]}]}"#
        .to_string()
}

type Options = Vec<(&'static str, String)>;

/// Every encoding that holds rows of `wide`, with its options.
fn encodings() -> Vec<(Encode, Options)> {
    vec![
        (Encode::Json, vec![]),
        (Encode::Csv, vec![("null", "\\N".to_string())]),
        (Encode::Avro, vec![("schema", avro_schema())]),
        (Encode::Protobuf, vec![("schema", PROTO.to_string()), ("message", "test.Wide".to_string())]),
    ]
}

fn borrowed<'a>(options: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    options.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn rows_of_every_type_survive_every_encoding() {
    for (encode_as, options) in encodings() {
        let options = borrowed(&options);
        for seed in 0..30 {
            let rows = random_rows(seed, 20);
            let out = encode(&sink(wide(), Format::Plain, encode_as, &options, &[]), &Batch::inserts(rows.clone(), Epoch(7)));
            let again = encode(&sink(wide(), Format::Plain, encode_as, &options, &[]), &Batch::inserts(rows.clone(), Epoch(7)));
            assert_eq!(out, again, "{encode_as:?} seed {seed}: the bytes differ between two runs");
            let payloads: Vec<&[u8]> = out.iter().map(|record| record.payload.as_deref().unwrap()).collect();
            let back = decode(&source(wide(), Format::Plain, encode_as, &options), &payloads);
            assert_eq!(letters(&back), [], "{encode_as:?} seed {seed}");
            assert_eq!(values(&back.rows), values(&rows), "{encode_as:?} seed {seed}");
        }
    }
}

#[test]
fn changes_survive_a_debezium_envelope() {
    let rows = random_rows(3, 6);
    let changes = Batch::new(rows.clone(), Counts::Const(9), Diffs::Each(vec![1, -1, 2, 1, -1, 1].into()), Counts::Const(0));
    let out = encode(&sink(wide(), Format::Debezium, Encode::Json, &[], &[0]), &changes);
    let payloads: Vec<&[u8]> = out.iter().map(|record| record.payload.as_deref().unwrap()).collect();
    let back = decode(&source(wide(), Format::Debezium, Encode::Json, &[]), &payloads);
    assert_eq!(back.diffs.unwrap(), [1, -1, 1, 1, 1, -1, 1]);
    let expected: Vec<Vec<Value>> = [0, 1, 2, 2, 3, 4, 5].iter().map(|row| values(&rows)[*row].clone()).collect();
    assert_eq!(values(&back.rows), expected);
    assert_eq!(out[0].key, out[0].key.clone().filter(|key| !key.is_empty()), "keys are texts of the id");
}

fn small() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
    ]))
}

fn row(id: i128, name: Option<&str>, amount: Option<f64>) -> Vec<Value> {
    vec![Value::Int(id), name.map_or(Value::Null, |text| Value::Text(text.into())), amount.map_or(Value::Null, Value::Float)]
}

#[test]
fn an_object_or_an_array_is_the_text_of_a_varchar_column() {
    let payloads: [&[u8]; 3] =
        [b"{\"id\":1,\"name\":{\"b\": [1, 2.50], \"a\": \"x}\"},\"amount\":1}", b"{\"name\":[ ],\"id\":2}", b"{\"id\":3,\"name\":\"{}\"}"];
    let batch = decode(&source(small(), Format::Plain, Encode::Json, &[]), &payloads);
    let text = "{\"b\": [1, 2.50], \"a\": \"x}\"}";
    assert_eq!(values(&batch.rows), [row(1, Some(text), Some(1.0)), row(2, Some("[ ]"), None), row(3, Some("{}"), None)]);
}

#[test]
fn c3_every_bad_json_record_is_a_dead_letter_of_its_own() {
    let deep = format!("{{\"other\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_column = format!("{{\"id\":1,\"amount\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_objects = format!("{}1{}", "{\"id\":".repeat(10_000), "}".repeat(10_000));
    let records: Vec<(&[u8], &str, &str)> = vec![
        (b"{\"id\":1,\"name\":\"a", "", "not a JSON object: EOF while parsing a string"),
        (b"", "", "not a JSON object: EOF while parsing a value"),
        (b"{\"id\":\"x\"}", "id", "expected BIGINT, found the string \"x\""),
        (b"{\"name\":\"no id\"}", "id", "NULL or missing"),
        (b"{\"id\":null}", "id", "NULL or missing"),
        (b"{\"id\":1,\"name\":\"\xff\"}", "", "not UTF-8 at byte 17"),
        (b"{\"id\":1,\"name\":\"\\ud800\"}", "", "not a JSON object: unexpected end of hex escape"),
        (deep.as_bytes(), "id", "NULL or missing"),
        (deep_column.as_bytes(), "amount", "expected DOUBLE, found an array"),
        (deep_objects.as_bytes(), "id", "expected BIGINT, found an object"),
        (b"{\"id\":1,\"amount\":NaN}", "", "not a JSON object: expected value"),
        (b"{\"id\":1,\"amount\":-Infinity}", "", "not a JSON object: invalid number"),
        (b"{\"id\":1,\"amount\":1e999}", "", "number out of range"),
        (b"{\"id\":123456789012345678901234567890}", "id", "expected BIGINT, found 1.2345678901234568e29"),
        (b"{\"id\":9223372036854775808}", "id", "expected BIGINT, found 9223372036854775808"),
        (b"[1,2]", "", "invalid type: sequence"),
        (b"7", "", "invalid type: integer `7`"),
        (b"null", "", "invalid type: null"),
        (b"{\"id\":1} {\"id\":2}", "", "not a JSON object: trailing characters"),
        (b"{\"id\":1,}", "", "not a JSON object: trailing comma"),
        (b"{\"id\":1,\"name\":7}", "name", "expected VARCHAR, found 7"),
    ];
    let good = b"{\"id\":5,\"name\":\"kept\"}";
    let mut payloads: Vec<&[u8]> = Vec::new();
    for (record, _, _) in &records {
        payloads.extend([*record, good]);
    }
    let batch = decode(&source(small(), Format::Plain, Encode::Json, &[]), &payloads);
    assert_eq!(batch.rows.num_rows(), records.len(), "each good record between them is a row");
    assert!(values(&batch.rows).iter().all(|found| *found == row(5, Some("kept"), None)));
    assert_eq!(batch.offsets, (0..records.len() as u64).map(|index| index * 2 + 1).collect::<Vec<_>>());
    for ((letter, (record, field, reason)), index) in batch.dead_letters.iter().zip(&records).zip(0..) {
        assert_eq!((letter.offset, letter.field.as_str(), letter.origin.as_str()), (index * 2, *field, "t/0"), "{letter:?}");
        assert!(letter.reason.starts_with(reason), "{} is not {reason}", letter.reason);
        assert!(letter.raw == record[..record.len().min(64 << 10)], "{}", letter.reason);
    }
}

#[test]
fn a_json_number_is_the_nearest_double_to_what_is_written() {
    // A reader that rounds twice makes 12.65858 of the first.
    for written in ["12.658579999999999", "0.1", "1e23", "8.5e-304"] {
        let batch = decode(&source(small(), Format::Plain, Encode::Json, &[]), &[format!("{{\"id\":1,\"amount\":{written}}}").as_bytes()]);
        assert_eq!(values(&batch.rows), [row(1, None, Some(written.parse().unwrap()))], "{written}");
    }
}

#[test]
fn c3_a_record_whose_member_stands_twice_is_a_dead_letter() {
    let records: [&[u8]; 3] = [b"{\"id\":1,\"name\":\"a\",\"id\":2}", b"{\"id\":3,\"more\":1,\"more\":2}", b"{\"id\":4}"];
    let batch = decode(&source(small(), Format::Plain, Encode::Json, &[]), &records);
    assert_eq!(values(&batch.rows), [row(3, None, None), row(4, None, None)], "members that are no columns are not looked at");
    assert_eq!(letters(&batch), [(0, "id".to_string(), "the member stands twice in its object".to_string())]);
}

#[test]
fn random_and_mutated_bytes_never_panic_in_any_encoding() {
    for (encode_as, options) in encodings() {
        let options = borrowed(&options);
        let out = encode(&sink(wide(), Format::Plain, encode_as, &options, &[]), &Batch::inserts(random_rows(1, 40), Epoch(1)));
        for format in [Format::Plain, Format::Upsert] {
            let mut def = source(wide(), format, encode_as, &options);
            def.key = vec![0];
            let mut decoder = RecordDecoder::open(&def).unwrap();
            let mut rows = Rows::new(def.schema.clone());
            for seed in 0..3_000_u64 {
                let mut random = StdRng::seed_from_u64(seed);
                let mut bytes = out[random.random_range(0..out.len())].payload.clone().unwrap();
                match seed % 3 {
                    0 => bytes = (0..random.random_range(0..64)).map(|_| random.random()).collect(),
                    1 => bytes.truncate(random.random_range(0..=bytes.len())),
                    _ => {
                        for _ in 0..random.random_range(1..4) {
                            let at = random.random_range(0..bytes.len());
                            bytes[at] = random.random();
                        }
                    }
                }
                let key: Vec<u8> = (0..random.random_range(0..9)).map(|_| random.random()).collect();
                let record = Record { key: Some(&key), payload: Some(&bytes), offset: seed, origin: "", metadata: &NoMetadata };
                decoder.decode(&record, &mut rows).unwrap();
            }
            let batch = rows.finish(0, 3_000).unwrap();
            assert_eq!(batch.rows.num_rows() + batch.dead_letters.len(), 3_000, "every record is a row or a dead letter");
        }
    }
}

#[test]
fn an_oversized_record_is_set_aside_with_its_beginning() {
    let def = source(small(), Format::Plain, Encode::Json, &[("max_record_bytes", "100000")]);
    let long = format!("{{\"id\":1,\"name\":\"{}\"}}", "x".repeat(100_000));
    let batch = decode(&def, &[long.as_bytes(), b"{\"id\":2}"]);
    assert_eq!(values(&batch.rows), [row(2, None, None)]);
    let letter = &batch.dead_letters[0];
    assert_eq!(letter.reason, "the record has 100018 bytes, max_record_bytes is 100000; raise it, or send smaller records");
    assert_eq!(letter.raw, long.as_bytes()[..64 << 10]);
    let wrong = source(small(), Format::Plain, Encode::Json, &[("max_record_bytes", "lots")]);
    assert_eq!(RecordDecoder::open(&wrong).err().unwrap().message, "source events: max_record_bytes is a number of bytes from 1 to 1073741824");
}

struct Told;

impl Metadata for Told {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        match name {
            "offset" => Some(Cell::Int(41)),
            "timestamp" => Some(Cell::Instant(5_000, TimeUnit::Millisecond)),
            "header.trace" => Some(Cell::Null),
            _ => None,
        }
    }
}

#[test]
fn metadata_columns_come_from_the_connector_in_every_format() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("o", DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("h", DataType::Utf8, true),
    ]));
    for (format, payload) in [(Format::Plain, "{\"id\":1,\"o\":99}"), (Format::Debezium, "{\"op\":\"u\",\"before\":{\"id\":1},\"after\":{\"id\":1}}")]
    {
        let mut def = source(schema.clone(), format, Encode::Json, &[]);
        def.metadata =
            [(0, "offset"), (2, "timestamp"), (3, "header.trace")].map(|(column, name)| MetadataColumn { column, name: name.into() }).to_vec();
        let mut rows = Rows::new(schema.clone());
        let record = Record { key: None, payload: Some(payload.as_bytes()), offset: 0, origin: "", metadata: &Told };
        RecordDecoder::open(&def).unwrap().decode(&record, &mut rows).unwrap();
        let batch = rows.finish(3, 1).unwrap();
        let expected = vec![Value::Int(41), Value::Int(1), Value::Int(5_000_000), Value::Null];
        assert!(batch.rows.num_rows() > 0 && values(&batch.rows).iter().all(|found| *found == expected), "{format:?}");
        assert_eq!(batch.partition, 3);
    }
}

#[test]
fn upsert_records_insert_and_tombstones_retract_by_key() {
    let mut def = source(small(), Format::Upsert, Encode::Json, &[]);
    def.key = vec![0];
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let records = [
        (text("1"), text("{\"id\":1,\"name\":\"a\"}")),
        (text("2"), text("{\"name\":\"the key fills id\"}")),
        (text("{\"id\":3}"), text("{\"name\":\"as does an object\"}")),
        (text("1"), None),
        (text("{\"id\":3,\"more\":true}"), text("")),
        (None, text("{\"id\":4}")),
        (None, None),
        (text("x"), None),
        (text("5"), text("{\"id\":6}")),
    ];
    let batch = decode_keyed(&def, &records);
    let expected = [
        row(1, Some("a"), None),
        row(2, Some("the key fills id"), None),
        row(3, Some("as does an object"), None),
        row(1, None, None),
        row(3, None, None),
        row(4, None, None),
        row(6, None, None),
    ];
    assert_eq!(values(&batch.rows), expected);
    assert_eq!(batch.diffs.as_deref(), Some(&[1, 1, 1, -1, -1, 1, 1][..]));
    assert_eq!(
        letters(&batch),
        [
            (6, "id".into(), "the record has no key, and its value does not have it, but it is a column of PRIMARY KEY".into()),
            (7, "id".into(), "in the record's key: expected BIGINT, found \"x\"".into()),
        ]
    );
    assert_eq!(batch.dead_letters[1].key.as_deref(), Some(&b"x"[..]));
}

#[test]
fn keys_of_several_columns_are_objects_and_the_value_counts_first() {
    let mut def = source(small(), Format::Upsert, Encode::Json, &[]);
    def.key = vec![0, 1];
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let key = text("{\"id\":1,\"name\":\"k\"}");
    let batch = decode_keyed(&def, &[(key.clone(), text("{\"name\":\"v\",\"amount\":2}")), (key, None)]);
    assert_eq!(values(&batch.rows), [row(1, Some("v"), Some(2.0)), row(1, Some("k"), None)]);
    assert_eq!(batch.diffs.as_deref(), Some(&[1, -1][..]));
}

#[test]
fn an_epoch_writes_each_key_once_and_reads_back_as_the_same_table() {
    let rows = [row(1, Some("a"), None), row(1, Some("b"), None), row(2, None, Some(2.0)), row(3, Some("c"), None), row(3, Some("d"), None)];
    let changes = Batch::new(
        Value::batch_of(&small(), &rows).unwrap(),
        Counts::Each(vec![5, 5, 5, 5, 6].into()),
        Diffs::Each(vec![-1, 1, -1, 1, -1].into()),
        Counts::Const(0),
    );
    let def = sink(small(), Format::Upsert, Encode::Json, &[], &[0]);
    let out = encode(&def, &changes);
    let told: Vec<(u64, &str, Option<&str>)> = out
        .iter()
        .map(|record| {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_string().leak() as &str;
            (record.epoch.0, text(record.key.as_ref().unwrap()), record.payload.as_deref().map(text))
        })
        .collect();
    assert_eq!(
        told,
        [
            (5, "1", Some(r#"{"id":1,"name":"b","amount":null}"#)),
            (5, "2", None),
            (5, "3", Some(r#"{"id":3,"name":"c","amount":null}"#)),
            (6, "3", None),
        ]
    );
    let json = sink(small(), Format::Upsert, Encode::Json, &[("key.encode", "json")], &[0]);
    assert_eq!(encode(&json, &changes)[0].key.as_deref(), Some(&br#"{"id":1}"#[..]));
    let mut read = source(small(), Format::Upsert, Encode::Json, &[]);
    read.key = vec![0];
    let records: Vec<_> = out.into_iter().map(|record| (record.key, record.payload)).collect();
    let back = decode_keyed(&read, &records);
    assert_eq!(back.diffs.as_deref(), Some(&[1, -1, 1, -1][..]));
}

#[test]
fn bytes_are_one_column_as_it_is() {
    let of = |data_type: DataType| Arc::new(Schema::new(vec![Field::new("body", data_type, true)]));
    let records: [&[u8]; 3] = [b"plain", b"\xff\x00", b""];
    let batch = decode(&source(of(DataType::Binary), Format::Plain, Encode::Bytes, &[]), &records);
    assert_eq!(values(&batch.rows), records.map(|record| vec![Value::Bytes(record.to_vec())]));
    let out = encode(&sink(of(DataType::Binary), Format::Plain, Encode::Bytes, &[], &[]), &Batch::inserts(batch.rows, Epoch(1)));
    assert_eq!(out.iter().map(|record| record.payload.as_deref().unwrap()).collect::<Vec<_>>(), records);
    let batch = decode(&source(of(DataType::Utf8), Format::Plain, Encode::Bytes, &[]), &records);
    assert_eq!(values(&batch.rows), [vec![Value::Text("plain".into())], vec![Value::Text(String::new())]]);
    assert_eq!(letters(&batch), [(1, "body".into(), "not UTF-8 at byte 1; declare the column BYTEA".into())]);
    let two = source(small(), Format::Plain, Encode::Bytes, &[]);
    assert!(RecordDecoder::open(&two).err().unwrap().message.contains("ENCODE BYTES fills one column, but 3 are declared"));
}

#[test]
fn wrong_declarations_of_encodings_name_the_option_and_the_remedy() {
    let refused = |format, encode, options: &[(&str, &str)]| {
        RecordDecoder::open(&source(small(), format, encode, options)).err().map(|error| error.message).unwrap()
    };
    for (message, part) in [
        (refused(Format::Upsert, Encode::Json, &[]), "declare PRIMARY KEY (…) NOT ENFORCED"),
        (refused(Format::Plain, Encode::Avro, &[]), "ENCODE AVRO needs a schema: name one of schema.registry, schema, schema.file"),
        (refused(Format::Plain, Encode::Avro, &[("schema", "x")]), "the Avro schema is not JSON"),
        (refused(Format::Plain, Encode::Avro, &[("schema", "\"long\"")]), "its schema is no record"),
        (refused(Format::Plain, Encode::Avro, &[("schema.file", "/no/such")]), "cannot read schema.file '/no/such'"),
        (refused(Format::Plain, Encode::Avro, &[("schema.registry", "registry:8081")]), "schema.registry is an address such as"),
        (refused(Format::Plain, Encode::Protobuf, &[("schema", PROTO)]), "ENCODE PROTOBUF needs message = 'package.Type'"),
        (refused(Format::Plain, Encode::Protobuf, &[("schema", PROTO), ("message", "Nope")]), "has no message Nope; it has test.Wide"),
        (refused(Format::Plain, Encode::Protobuf, &[("schema", "syntax = 3"), ("message", "A")]), "the Protobuf schema cannot be compiled"),
        (refused(Format::Debezium, Encode::Csv, &[]), "FORMAT DEBEZIUM is read from ENCODE JSON and AVRO only"),
        (refused(Format::Plain, Encode::Parquet, &[]), "ENCODE PARQUET is for files"),
    ] {
        assert!(message.contains(part), "{message} does not say: {part}");
    }
}
