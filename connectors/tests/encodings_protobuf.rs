//! Protobuf against its other implementation, presence, and what is no such message.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_core::{Batch, Encode, Epoch, Format, Value};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, MessageDescriptor};

use crate::encodings::*;

const TEXT: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Color { RED = 0; GREEN = 1; }
message Order {
  message Line { string item = 1; int64 count = 2; google.protobuf.Timestamp at = 3; }
  int64 id = 1;
  string note = 2;
  optional string hint = 3;
  Color color = 4;
  repeated Line lines = 5;
  map<string, double> prices = 6;
  oneof paid { string card = 7; sint64 cash = 8; }
  google.protobuf.Timestamp at = 9;
  google.protobuf.StringValue wrapped = 10;
  repeated int32 numbers = 11;
  fixed64 big = 12;
  bytes raw = 13;
  Line first = 14;
  float ratio = 2000;
}
"#;

fn descriptor() -> MessageDescriptor {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.proto"), TEXT).unwrap();
    let set = protox::compile(["order.proto"], [folder.path()]).unwrap();
    DescriptorPool::from_file_descriptor_set(set).unwrap().get_message_by_name("shop.Order").unwrap()
}

fn columns() -> SchemaRef {
    let column = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        column("id", DataType::Int64),
        column("note", DataType::Utf8),
        column("hint", DataType::Utf8),
        column("color", DataType::Utf8),
        column("lines", DataType::Utf8),
        column("prices", DataType::Utf8),
        column("card", DataType::Utf8),
        column("cash", DataType::Int64),
        column("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("wrapped", DataType::Utf8),
        column("numbers", DataType::Utf8),
        column("big", DataType::UInt64),
        column("raw", DataType::Binary),
        column("first", DataType::Utf8),
        column("ratio", DataType::Float64),
    ]))
}

fn proto(schema: SchemaRef, payloads: &[&[u8]]) -> freshet_core::SourceBatch {
    decode(&source(schema, Format::Plain, Encode::Protobuf, &[("schema", TEXT), ("message", "Order")]), payloads)
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

#[test]
fn what_the_other_implementation_writes_is_read_field_by_field() {
    use prost_reflect::Value as Field;
    let order = descriptor();
    let line = order.child_messages().find(|message| message.name() == "Line").unwrap();
    let timestamp = order.get_field_by_name("at").unwrap().kind().as_message().unwrap().clone();
    let wrapper = order.get_field_by_name("wrapped").unwrap().kind().as_message().unwrap().clone();
    let mut at = DynamicMessage::new(timestamp);
    at.set_field_by_name("seconds", Field::I64(-1));
    at.set_field_by_name("nanos", Field::I32(250_000_999));
    let mut one = DynamicMessage::new(line);
    one.set_field_by_name("item", Field::String("a\"".into()));
    one.set_field_by_name("at", Field::Message(at.clone()));
    let mut message = DynamicMessage::new(order.clone());
    message.set_field_by_name("id", Field::I64(-7));
    message.set_field_by_name("color", Field::EnumNumber(1));
    message.set_field_by_name("lines", Field::List(vec![Field::Message(one.clone()), Field::Message(one)]));
    let prices = [("b", 2.0), ("a", 0.5)].map(|(key, price)| (MapKey::String(key.into()), Field::F64(price)));
    message.set_field_by_name("prices", Field::Map(prices.into()));
    message.set_field_by_name("cash", Field::I64(-3));
    message.set_field_by_name("at", Field::Message(at));
    message.set_field_by_name("wrapped", Field::Message(DynamicMessage::new(wrapper)));
    message.set_field_by_name("numbers", Field::List(vec![Field::I32(1), Field::I32(-1)]));
    message.set_field_by_name("big", Field::U64(u64::MAX));
    message.set_field_by_name("raw", Field::Bytes(vec![0, 255].into()));
    message.set_field_by_name("ratio", Field::F32(0.5));
    let full = message.encode_to_vec();
    let batch = proto(columns(), &[&full, &[]]);
    assert_eq!(letters(&batch), []);
    let line = r#"{"item":"a\"","at":"1969-12-31T23:59:59.250000999Z"}"#;
    assert_eq!(
        values(&batch.rows)[0],
        [
            Value::Int(-7),
            text(""),
            Value::Null,
            text("GREEN"),
            text(&format!("[{line},{line}]")),
            text(r#"{"a":0.5,"b":2.0}"#),
            Value::Null,
            Value::Int(-3),
            Value::Int(-749_999 - 1),
            text(""),
            text("[1,-1]"),
            Value::Int(i128::from(u64::MAX)),
            Value::Bytes(vec![0, 255]),
            Value::Null,
            Value::Float(0.5),
        ]
    );
    // The empty message: zeros where there is no presence, NULL where there is.
    assert_eq!(
        values(&batch.rows)[1],
        [
            Value::Int(0),
            text(""),
            Value::Null,
            text("RED"),
            text("[]"),
            text("{}"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            text("[]"),
            Value::Int(0),
            Value::Bytes(vec![]),
            Value::Null,
            Value::Float(0.0),
        ]
    );
}

#[test]
fn what_we_write_the_other_implementation_reads_and_writes_alike() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wide.proto"), PROTO).unwrap();
    let set = protox::compile(["wide.proto"], [folder.path()]).unwrap();
    let wide_message = DescriptorPool::from_file_descriptor_set(set).unwrap().get_message_by_name("test.Wide").unwrap();
    let path = folder.path().join("wide.proto").display().to_string();
    let def = sink(wide(), Format::Plain, Encode::Protobuf, &[("schema.file", &path), ("message", "test.Wide")], &[]);
    for record in encode(&def, &Batch::inserts(random_rows(11, 60), Epoch(1))) {
        let payload = record.payload.unwrap();
        let theirs = DynamicMessage::decode(wide_message.clone(), &payload[..]).unwrap();
        assert_eq!(theirs.unknown_fields().count(), 0);
        assert_eq!(theirs.encode_to_vec(), payload, "{theirs}");
    }
}

#[test]
fn the_last_field_of_a_oneof_counts_and_unknown_fields_are_skipped() {
    let columns = Arc::new(columns().project(&[0, 6, 7]).unwrap());
    // cash = 1, card = "x", then fields 100 to 103 of every wire type and an old group.
    let record = b"\x40\x02\x3a\x01x\xa0\x06\x01\xa9\x06\0\0\0\0\0\0\0\0\xb2\x06\x02ab\xbd\x06\0\0\0\0\xc3\x06\x08\x01\xc4\x06\x08\x05";
    let batch = proto(columns, &[record]);
    assert_eq!(letters(&batch), []);
    assert_eq!(values(&batch.rows), [[Value::Int(5), text("x"), Value::Null]]);
}

#[test]
fn bytes_that_are_no_such_message_are_dead_letters() {
    let bad: Vec<(&[u8], &str, &str)> = vec![
        (b"\x08", "id", "it ends in the middle of a field"),
        (b"\x0a\x01x", "id", "field 1 has wire type 2 instead of 0"),
        (b"\x12\x05ab", "note", "it ends in the middle of a field"),
        (b"\x12\x01\xff", "note", "a text is not UTF-8 at its byte 1"),
        (b"\x07", "", "a field has no number"),
        (b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "", "a number has more than ten bytes"),
        (b"\x4a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "at", "a timestamp has -1 nanoseconds"),
        (b"\x4a\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "at", "9223372036854775807 seconds since 1970 are out of range"),
        (b"\x9b\x06\x9b\x06", "", "it ends in the middle of a field"),
    ];
    let narrow = Arc::new(columns().project(&[0, 1, 8]).unwrap());
    let payloads: Vec<&[u8]> = bad.iter().flat_map(|(bytes, _, _)| [*bytes, b"\x08\x01"]).collect();
    let batch = proto(narrow, &payloads);
    assert_eq!(batch.rows.num_rows(), bad.len(), "each good record between them is a row");
    for ((letter, (_, field, reason)), index) in batch.dead_letters.iter().zip(&bad).zip(0..) {
        assert_eq!((letter.offset, letter.field.as_str()), (index * 2, *field), "{letter:?}");
        assert!(letter.reason.starts_with(reason), "{} is not {reason}", letter.reason);
    }
}

#[test]
fn a_descriptor_set_serves_as_well_as_a_text() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.proto"), TEXT).unwrap();
    let set = protox::compile(["order.proto"], [folder.path()]).unwrap();
    let path = folder.path().join("order.desc");
    std::fs::write(&path, set.encode_to_vec()).unwrap();
    let narrow = Arc::new(columns().project(&[0, 1]).unwrap());
    let path = path.display().to_string();
    let def = source(narrow, Format::Plain, Encode::Protobuf, &[("schema.file", &path), ("message", "shop.Order")]);
    assert_eq!(values(&decode(&def, &[b"\x08\x01"]).rows), [[Value::Int(1), text("")]]);
}
