//! Avro against its other implementation, schemas that change, and what is no record of its schema.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SchemaStore};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use freshet_connectors::RecordDecoder;
use freshet_core::{Batch, Encode, Epoch, Format, Value};

use crate::encodings::*;

fn avro(schema: SchemaRef, text: &str, payloads: &[&[u8]]) -> freshet_core::SourceBatch {
    decode(&source(schema, Format::Plain, Encode::Avro, &[("schema", text)]), payloads)
}

fn fields(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

/// The zigzag number of Avro.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn text(value: &str) -> Vec<u8> {
    [long(value.len() as i64), value.as_bytes().to_vec()].concat()
}

#[test]
fn what_the_other_implementation_writes_is_read_alike() {
    let columns: Vec<usize> = (0..12).filter(|column| *column != 10).collect();
    for seed in 0..10 {
        let rows = random_rows(seed, 30).project(&columns).unwrap();
        let writer = WriterBuilder::new(rows.schema().as_ref().clone()).with_fingerprint_strategy(FingerprintStrategy::Id(7));
        let mut encoder = writer.build_encoder::<AvroSoeFormat>().unwrap();
        encoder.encode(&rows).unwrap();
        let schema = AvroSchema::try_from(rows.schema().as_ref()).unwrap().json_string;
        let records: Vec<_> = encoder.flush().iter().map(|record| record.slice(5..)).collect();
        let payloads: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
        let back = avro(rows.schema(), &schema, &payloads);
        assert_eq!(letters(&back), [], "{schema}");
        assert_eq!(values(&back.rows), values(&rows), "seed {seed}");
    }
}

#[test]
fn what_we_write_the_other_implementation_reads_alike() {
    let columns: Vec<usize> = (0..12).filter(|column| *column != 10).collect();
    let rows = random_rows(5, 50).project(&columns).unwrap();
    let schema = AvroSchema::try_from(rows.schema().as_ref()).unwrap();
    let def = sink(rows.schema(), Format::Plain, Encode::Avro, &[("schema", &schema.json_string)], &[]);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(7), schema).unwrap();
    let mut decoder = ReaderBuilder::new().with_batch_size(64).with_writer_schema_store(store).build_decoder().unwrap();
    for record in encode(&def, &Batch::inserts(rows.clone(), Epoch(1))) {
        decoder.decode(&[&[0, 0, 0, 0, 7][..], &record.payload.unwrap()].concat()).unwrap();
    }
    let back = decoder.flush().unwrap().unwrap();
    for (index, field) in rows.schema().fields().iter().enumerate() {
        let theirs = arrow::compute::cast(back.column_by_name(field.name()).unwrap(), field.data_type()).unwrap();
        let of = |column: &arrow::array::ArrayRef| (0..50).map(|row| Value::of(column, row).unwrap()).collect::<Vec<_>>();
        assert_eq!(of(&theirs), of(rows.column(index)), "{}", field.name());
    }
}

#[test]
fn logical_types_promotions_and_enums_fit_declared_columns() {
    let schema = r#"{"type":"record","name":"r","namespace":"n","fields":[
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"at","type":{"type":"long","logicalType":"local-timestamp-micros"}},
        {"name":"nanos","type":{"type":"long","logicalType":"timestamp-nanos"}},
        {"name":"price","type":{"type":"fixed","name":"f","size":3,"logicalType":"decimal","precision":6,"scale":2}},
        {"name":"id","type":{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}},
        {"name":"color","type":{"type":"enum","name":"c","symbols":["RED","GREEN"]}},
        {"name":"again","type":"n.c"},
        {"name":"wide","type":"int"},
        {"name":"ratio","type":"float"},
        {"name":"either","type":["null","long","string"]},
        {"name":"unused","type":{"type":"map","values":["null",{"type":"array","items":"double"}]}}]}"#;
    let columns = fields(&[
        ("either", DataType::Utf8),
        ("ratio", DataType::Float64),
        ("wide", DataType::Float64),
        ("again", DataType::Utf8),
        ("color", DataType::Utf8),
        ("id", DataType::Utf8),
        ("price", DataType::Decimal128(10, 3)),
        ("nanos", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("day", DataType::Timestamp(TimeUnit::Second, None)),
        ("missing", DataType::Int64),
    ]);
    let datum = |either: Vec<u8>| {
        let unused =
            [long(1), text("k"), long(1), long(-2), long(16), 1.0_f64.to_le_bytes().to_vec(), 2.0_f64.to_le_bytes().to_vec(), long(0), long(0)];
        let parts = [
            long(-1),
            long(1_500_000),
            long(-1),
            vec![0xff, 0xff, 0x38],
            (0..16).collect(),
            long(1),
            long(0),
            long(-9),
            0.5_f32.to_le_bytes().to_vec(),
        ];
        [parts.concat(), either, unused.concat()].concat()
    };
    let as_text = datum([long(2), text("x")].concat());
    let batch = avro(columns.clone(), schema, &[&as_text, &datum(long(0)), &datum([long(1), long(3)].concat())]);
    let expected = |either: Value| {
        vec![
            either,
            Value::Float(0.5),
            Value::Float(-9.0),
            Value::Text("RED".into()),
            Value::Text("GREEN".into()),
            Value::Text("00010203-0405-0607-0809-0a0b0c0d0e0f".into()),
            Value::Int(-2_000),
            Value::Int(-1),
            Value::Int(1_500_000_000),
            Value::Int(-86_400),
            Value::Null,
        ]
    };
    assert_eq!(letters(&batch), [(2, "either".into(), "expected VARCHAR, found 3".into())]);
    assert_eq!(values(&batch.rows), [expected(Value::Text("x".into())), expected(Value::Null)]);
}

#[test]
fn nested_values_become_json_in_varchar_columns_only() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"n","type":{"type":"record","name":"p","fields":[
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"tags","type":{"type":"array","items":["null","string"]}},
            {"name":"next","type":["null","p"]},
            {"name":"raw","type":"bytes"},
            {"name":"by","type":{"type":"map","values":"double"}}]}}]}"#;
    let inner = [long(0), long(0), long(0), text("\u{1}"), long(0)].concat();
    let datum = [
        long(250),
        long(2),
        long(1),
        text("a\"b"),
        long(0),
        long(0),
        long(1),
        inner,
        text("xyz"),
        long(1),
        text("k"),
        f64::NAN.to_le_bytes().to_vec(),
        long(0),
    ]
    .concat();
    let batch = avro(fields(&[("n", DataType::Utf8)]), schema, &[&datum]);
    let json = r#"{"at":"1970-01-01T00:00:00.250Z","tags":["a\"b",null],"next":{"at":"1970-01-01T00:00:00.000Z","tags":[],"next":null,"raw":"AQ==","by":{}},"raw":"eHl6","by":{"k":"NaN"}}"#;
    assert_eq!(letters(&batch), []);
    assert_eq!(values(&batch.rows), [vec![Value::Text(json.into())]]);
    let batch = avro(fields(&[("n", DataType::Int64)]), schema, &[&datum]);
    assert_eq!(letters(&batch), [(0, "n".into(), "expected BIGINT, found an object".into())]);
    let deep: Vec<u8> = (0..100).flat_map(|_| [long(0), long(0), long(1)].concat()).collect();
    let batch = avro(fields(&[("n", DataType::Utf8)]), schema, &[&deep]);
    assert_eq!(letters(&batch), [(0, "n".into(), "values nest more than 64 deep".into())]);
}

#[test]
fn bytes_that_are_no_datum_of_the_schema_are_dead_letters() {
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"},
        {"name":"c","type":["null",{"type":"array","items":"null"}]}]}"#;
    let good = [long(1), text("x"), long(0)].concat();
    let bad: Vec<(Vec<u8>, &str, &str)> = vec![
        (vec![], "a", "it ends after 0 bytes"),
        (vec![0xff; 12], "a", "a number has more than ten bytes"),
        ([long(1), long(-3)].concat(), "b", "a length is -3"),
        ([long(1), long(1 << 40)].concat(), "b", "it ends after"),
        ([long(1), long(1), vec![0xff]].concat(), "b", "a text is not UTF-8 at its byte 1"),
        ([long(1), text(""), long(2)].concat(), "c", "branch 2 of a union of 2"),
        ([long(1), text(""), long(1), long(1 << 50)].concat(), "c", "an array of"),
        ([good.clone(), vec![1]].concat(), "", "1 bytes are left at its end"),
    ];
    let payloads: Vec<&[u8]> = bad.iter().flat_map(|(bytes, _, _)| [&bytes[..], &good[..]]).collect();
    let batch = avro(fields(&[("a", DataType::Int64), ("b", DataType::Utf8), ("c", DataType::Utf8)]), schema, &payloads);
    assert_eq!(batch.rows.num_rows(), bad.len(), "each good record between them is a row");
    for ((letter, (_, field, reason)), index) in batch.dead_letters.iter().zip(&bad).zip(0..) {
        assert_eq!((letter.offset, letter.field.as_str()), (index * 2, *field), "{letter:?}");
        assert!(letter.reason.starts_with(reason), "{} is not {reason}", letter.reason);
    }
}

#[test]
fn an_avro_envelope_is_read_as_its_changes() {
    let schema = r#"{"type":"record","name":"Envelope","fields":[
        {"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"long"},{"name":"name","type":"string"}]}]},
        {"name":"after","type":["null","Value"]},
        {"name":"source","type":{"type":"record","name":"s","fields":[{"name":"lsn","type":"long"}]}},
        {"name":"op","type":"string"},
        {"name":"ts_ms","type":["null","long"]}]}"#;
    let value = |id: i64, name: &str| [long(1), long(id), text(name)].concat();
    let change = |before: Vec<u8>, after: Vec<u8>, op: &str| [before, after, long(99), text(op), long(0)].concat();
    let records = [
        change(long(0), value(1, "a"), "c"),
        change(value(1, "a"), value(1, "b"), "u"),
        change(value(1, "b"), long(0), "d"),
        change(long(0), long(0), "d"),
        change(long(0), long(0), "t"),
    ];
    let payloads: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
    let columns = fields(&[("name", DataType::Utf8), ("id", DataType::Int64)]);
    let batch = decode(&source(columns, Format::Debezium, Encode::Avro, &[("schema", schema)]), &payloads);
    let of = |name: &str| vec![Value::Text(name.into()), Value::Int(1)];
    assert_eq!(values(&batch.rows), [of("a"), of("a"), of("b"), of("b")]);
    assert_eq!(batch.diffs.unwrap(), [1, -1, 1, -1]);
    let fields: Vec<(u64, &str)> = batch.dead_letters.iter().map(|letter| (letter.offset, letter.field.as_str())).collect();
    assert_eq!(fields, [(3, "before"), (4, "op")]);
}

#[test]
fn a_schema_without_any_of_the_columns_is_refused_at_open() {
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"},{"name":"b","type":"long"}]}"#;
    let def = source(fields(&[("x", DataType::Int64)]), Format::Plain, Encode::Avro, &[("schema", schema)]);
    assert_eq!(RecordDecoder::open(&def).err().unwrap().message, "source events: its schema has none of the columns; it has a, b");
}
