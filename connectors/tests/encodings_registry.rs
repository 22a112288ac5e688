//! Schemas of a real registry: Apicurio's, which speaks Confluent's REST API. One process serves all tests; each has topics of its own.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_connectors::{NoMetadata, OutRecord, Record, RecordDecoder, RecordEncoder, Rows};
use freshet_core::{Batch, Encode, Epoch, Format, Kind, SinkDef, SourceBatch, SourceDef, Value};

use crate::encodings::{PROTO, encode, letters, random_rows, sink, source, values, wide};

/// Java starts slowly where everything else runs too.
const DEADLINE: Duration = Duration::from_secs(180);

struct Server {
    address: String,
    _child: Child,
}

/// The address for `schema.registry`.
pub fn registry() -> &'static str {
    static SERVER: OnceLock<Server> = OnceLock::new();
    &SERVER.get_or_init(start).address
}

/// The registry ends with this process: the launcher waits for the end of its standard input.
fn start() -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/registry/registry.py");
    let mut child = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert!(line.starts_with("http://"), "the launcher said why above: {line}");
    Server { address: line.trim().to_string(), _child: child }
}

fn post(path: &str, body: &serde_json::Value) -> serde_json::Value {
    let client = reqwest::blocking::Client::new();
    let request = client.post(format!("{}{path}", registry())).header("Content-Type", "application/vnd.schemaregistry.v1+json");
    let response = request.body(body.to_string()).send().unwrap();
    let (status, text) = (response.status(), response.text().unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The id of a schema under a subject of its own.
fn register(subject: &str, kind: &str, schema: &str, references: serde_json::Value) -> u32 {
    let body = serde_json::json!({"schema": schema, "schemaType": kind, "references": references});
    post(&format!("/subjects/{subject}/versions"), &body)["id"].as_u64().unwrap() as u32
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), datum].concat()
}

/// Decodes what may have to wait for its schema, as a connector does: the same record again and again.
fn decode(def: &SourceDef, records: &[(Option<&[u8]>, Option<&[u8]>)]) -> SourceBatch {
    let mut decoder = RecordDecoder::open(def).unwrap();
    let mut rows = Rows::new(def.schema.clone());
    let begun = Instant::now();
    for (offset, (key, payload)) in records.iter().enumerate() {
        let record = Record { key: *key, payload: *payload, offset: offset as u64, origin: "t/0", metadata: &NoMetadata };
        while let Err(wait) = decoder.decode(&record, &mut rows) {
            assert!(begun.elapsed() < DEADLINE, "{}", wait.reason);
            std::thread::yield_now();
        }
    }
    rows.finish(0, records.len() as u64).unwrap()
}

fn payloads(out: &[OutRecord]) -> Vec<(Option<&[u8]>, Option<&[u8]>)> {
    out.iter().map(|record| (record.key.as_deref(), record.payload.as_deref())).collect()
}

fn fields(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

#[test]
fn rows_written_with_a_registered_schema_read_back_through_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.proto");
    std::fs::write(&path, PROTO).unwrap();
    let path = path.display().to_string();
    for (encode_as, format, topic, options) in [
        (Encode::Avro, Format::Plain, "avro-plain", vec![]),
        (Encode::Avro, Format::Debezium, "avro-debezium", vec![]),
        (Encode::Avro, Format::Upsert, "avro-upsert", vec![("key.encode", "avro")]),
        (Encode::Protobuf, Format::Plain, "protobuf-plain", vec![("schema.file", path.as_str()), ("message", "test.Wide")]),
    ] {
        let rows = random_rows(17, 25);
        let common = [("schema.registry", registry()), ("topic", topic)];
        let def = sink(wide(), format, encode_as, &[&common[..], &options].concat(), &[0]);
        let out = encode(&def, &Batch::inserts(rows.clone(), Epoch(3)));
        assert_eq!(out, encode(&def, &Batch::inserts(rows.clone(), Epoch(3))), "a second run registers the same schema");
        let keys: Vec<_> = options.iter().copied().filter(|(name, _)| *name == "key.encode").collect();
        let mut def = source(wide(), format, encode_as, &[&common[..1], &keys].concat());
        def.key = vec![0];
        let mut records = payloads(&out);
        if format == Format::Upsert {
            records.push((records[4].0, None));
        }
        let back = decode(&def, &records);
        assert_eq!(letters(&back), [], "{topic}");
        assert_eq!(values(&back.rows)[..25], values(&rows), "{topic}");
        if format == Format::Upsert {
            assert_eq!((values(&back.rows)[25][0].clone(), back.diffs.unwrap()[25]), (values(&rows)[4][0].clone(), -1));
        }
    }
}

#[test]
fn records_of_several_writers_are_read_each_by_its_own_schema() {
    let old = register("evolution-a-value", "AVRO", r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"}]}"#, serde_json::json!([]));
    let new_text =
        r#"{"type":"record","name":"r","fields":[{"name":"more","type":"string"},{"name":"b","type":["null","string"]},{"name":"a","type":"long"}]}"#;
    let new = register("evolution-b-value", "AVRO", new_text, serde_json::json!([]));
    let number = register("evolution-c-value", "AVRO", "\"long\"", serde_json::json!([]));
    let def = source(fields(&[("a", DataType::Int64), ("b", DataType::Utf8)]), Format::Plain, Encode::Avro, &[("schema.registry", registry())]);
    let records = [
        framed(old, &[2]),
        framed(new, &[2, b'x', 2, 2, b'y', 4]),
        framed(old, &[6]),
        framed(number, &[2]),
        framed(987_654, &[2]),
        vec![1, 2, 3],
        vec![0, 0],
    ];
    let records: Vec<_> = records.iter().map(|record| (None, Some(&record[..]))).collect();
    let back = decode(&def, &records);
    let text = |text: &str| Value::Text(text.into());
    assert_eq!(values(&back.rows), [vec![Value::Int(1), Value::Null], vec![Value::Int(2), text("y")], vec![Value::Int(3), Value::Null]]);
    let reasons: Vec<(u64, String)> = letters(&back).into_iter().map(|(offset, _, reason)| (offset, reason)).collect();
    assert_eq!(reasons.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [3, 4, 5, 6]);
    for ((_, reason), part) in reasons.iter().zip([
        "its schema is no record",
        "says of schema 987654: ",
        "it begins with byte 1, not with 0 and a schema id; was it written without a registry?",
        "2 bytes are too few for a schema id",
    ]) {
        assert!(reason.contains(part), "{reason} does not say: {part}");
    }
}

#[test]
fn keys_with_a_schema_id_are_avro_and_others_are_text() {
    let number = register("framed-key", "AVRO", "\"long\"", serde_json::json!([]));
    let text = register("framed-text-key", "AVRO", "\"string\"", serde_json::json!([]));
    let object = r#"{"type":"record","name":"k","fields":[{"name":"a","type":"int"}]}"#;
    let object = register("framed-object-key", "AVRO", object, serde_json::json!([]));
    let mut def = source(fields(&[("a", DataType::Int64), ("b", DataType::Utf8)]), Format::Upsert, Encode::Avro, &[("schema.registry", registry())]);
    def.key = vec![0];
    let keys = [framed(number, &[14]), framed(object, &[16]), b"9".to_vec(), framed(text, &[2, b'x']), framed(number, &[])];
    let records: Vec<_> = keys.iter().map(|key| (Some(&key[..]), None)).collect();
    let back = decode(&def, &records);
    assert_eq!(values(&back.rows), [7, 8, 9].map(|id| vec![Value::Int(id), Value::Null]));
    assert_eq!(back.diffs.as_deref(), Some(&[-1, -1, -1][..]));
    let reasons: Vec<String> = letters(&back).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(reasons[0], "in the record's key: expected BIGINT, found the string \"x\"");
    assert!(reasons[1].starts_with("in the record's key: "), "{}", reasons[1]);
}

#[test]
fn schemas_may_refer_to_others_and_messages_stand_anywhere_in_their_file() {
    let part = "syntax = \"proto3\"; package p; message Part { string name = 1; }";
    register("part-subject", "PROTOBUF", part, serde_json::json!([]));
    let whole = "syntax = \"proto3\"; package p; import \"part.proto\"; message First { int64 id = 1; } \
                 message Second { message Inner { int64 id = 1; Part part = 2; } int64 other = 1; }";
    let references = serde_json::json!([{"name": "part.proto", "subject": "part-subject", "version": 1}]);
    let id = register("whole-value", "PROTOBUF", whole, references);
    let columns = fields(&[("id", DataType::Int64), ("part", DataType::Utf8)]);
    let def = source(columns, Format::Plain, Encode::Protobuf, &[("schema.registry", registry())]);
    // Indexes: none but a 0 is the first message; [1, 0] is the first one in the second. They are signed varints.
    let records = [framed(id, &[0, 8, 5]), framed(id, &[4, 2, 0, 8, 6, 0x12, 3, 10, 1, b'x']), framed(id, &[2, 18, 8, 7])];
    let records: Vec<_> = records.iter().map(|record| (None, Some(&record[..]))).collect();
    let back = decode(&def, &records);
    assert_eq!(letters(&back), [(2, String::new(), format!("schema {id}: the Protobuf schema has no message at [9]"))]);
    assert_eq!(values(&back.rows), [vec![Value::Int(5), Value::Null], vec![Value::Int(6), Value::Text("{\"name\":\"x\"}".into())]]);

    let base = r#"{"type":"record","name":"base","namespace":"n","fields":[{"name":"x","type":"long"}]}"#;
    register("base-subject", "AVRO", base, serde_json::json!([]));
    let text = r#"{"type":"record","name":"r","namespace":"n","fields":[{"name":"id","type":"long"},{"name":"part","type":"base"}]}"#;
    let id = register("uses-value", "AVRO", text, serde_json::json!([{"name": "n.base", "subject": "base-subject", "version": 1}]));
    let columns = fields(&[("id", DataType::Int64), ("part", DataType::Utf8)]);
    let def = source(columns, Format::Plain, Encode::Avro, &[("schema.registry", registry())]);
    let back = decode(&def, &[(None, Some(&framed(id, &[2, 4])))]);
    assert_eq!(letters(&back), []);
    assert_eq!(values(&back.rows), [vec![Value::Int(1), Value::Text("{\"x\":2}".into())]]);
}

#[test]
fn a_schema_that_does_not_fit_its_subject_is_refused_with_the_registrys_words() {
    let def = |schema: SchemaRef| sink(schema, Format::Plain, Encode::Avro, &[("schema.registry", registry()), ("topic", "clash")], &[]);
    let one = fields(&[("a", DataType::Int64)]);
    encode(&def(one.clone()), &Batch::inserts(Value::batch_of(&one, &[vec![Value::Int(1)]]).unwrap(), Epoch(1)));
    post_config("clash-value", "FULL");
    let two = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, false)]));
    let rows = Value::batch_of(&two, &[vec![Value::Text("x".into())]]).unwrap();
    let error = RecordEncoder::open(&def(two)).unwrap().encode(&Batch::inserts(rows, Epoch(1)), &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("says of subject clash-value: "), "{}", error.message);
}

fn post_config(subject: &str, level: &str) {
    let client = reqwest::blocking::Client::new();
    let request = client.put(format!("{}/config/{subject}", registry())).header("Content-Type", "application/vnd.schemaregistry.v1+json");
    let response = request.body(serde_json::json!({"compatibility": level}).to_string()).send().unwrap();
    assert!(response.status().is_success(), "{}", response.text().unwrap());
}

/// A registry that refuses until it is told not to, and wants a login. It answers one request a connection.
fn moody(open: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let open = open.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), open.load(Ordering::SeqCst));
        }
    });
    address
}

fn answer(mut stream: TcpStream, open: bool) {
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut bytes).unwrap();
        request.extend_from_slice(&bytes[..count]);
    }
    let text = String::from_utf8(request).unwrap().to_lowercase();
    let (status, body) = if !open {
        ("503 Service Unavailable", "{\"error_code\":50003,\"message\":\"not now\"}".to_string())
    } else if !text.contains("authorization: basic y2xlcms6c2vjcmv0") {
        ("401 Unauthorized", "{\"error_code\":40101,\"message\":\"who are you\"}".to_string())
    } else {
        let schema = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#;
        ("200 OK", serde_json::json!({"schema": schema, "id": 5}).to_string())
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

#[test]
fn an_address_without_a_registry_makes_records_wait() {
    let wrong = format!("{}/wrong", registry());
    let columns = fields(&[("a", DataType::Int64)]);
    let def = source(columns.clone(), Format::Plain, Encode::Avro, &[("schema.registry", wrong.as_str())]);
    let mut decoder = RecordDecoder::open(&def).unwrap();
    let mut rows = Rows::new(columns);
    let record = framed(5, &[2]);
    let record = Record { key: None, payload: Some(&record), offset: 0, origin: "", metadata: &NoMetadata };
    let begun = Instant::now();
    loop {
        let wait = decoder.decode(&record, &mut rows).expect_err("what is not known yet is no dead letter");
        if wait.reason.ends_with("is schema.registry the address of a registry, with its path?") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{}", wait.reason);
    }
    assert_eq!(rows.records(), 0);
}

#[test]
fn a_registry_that_is_away_makes_records_wait_and_loses_none() {
    let open = Arc::new(AtomicBool::new(false));
    let address = moody(&open);
    let login = [("schema.registry", address.as_str()), ("schema.registry.username", "clerk"), ("schema.registry.password", "secret")];
    let columns = fields(&[("a", DataType::Int64)]);
    let def = source(columns.clone(), Format::Plain, Encode::Avro, &login);
    let mut decoder = RecordDecoder::open(&def).unwrap();
    let mut rows = Rows::new(columns.clone());
    let record = framed(5, &[2]);
    let record = Record { key: None, payload: Some(&record), offset: 0, origin: "", metadata: &NoMetadata };
    let begun = Instant::now();
    loop {
        let wait = decoder.decode(&record, &mut rows).unwrap_err();
        assert_eq!(rows.records(), 0, "nothing is a row or a dead letter meanwhile");
        if wait.reason == format!("the schema registry at {address} says of schema 5: not now") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{}", wait.reason);
    }
    let mut writer = RecordEncoder::open(&away_sink(&columns, &login)).unwrap();
    let changes = Batch::inserts(Value::batch_of(&columns, &[vec![Value::Int(1)]]).unwrap(), Epoch(1));
    let mut out = Vec::new();
    assert_eq!(writer.encode(&changes, &mut out).unwrap_err().kind, Kind::Unavailable);
    assert!(out.is_empty());
    open.store(true, Ordering::SeqCst);
    writer.encode(&changes, &mut out).unwrap();
    assert_eq!(out[0].payload.as_deref(), Some(&[0, 0, 0, 0, 5, 2, 2][..]));
    while decoder.decode(&record, &mut rows).is_err() {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    assert_eq!(values(&rows.finish(0, 1).unwrap().rows), [[Value::Int(1)]]);
}

fn away_sink(columns: &SchemaRef, login: &[(&str, &str)]) -> SinkDef {
    sink(columns.clone(), Format::Plain, Encode::Avro, &[login, &[("topic", "t")]].concat(), &[])
}
