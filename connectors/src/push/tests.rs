//! Queue, journal and intake together, as a server and a pipeline use them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit};
use freshet_core::{
    BadData, Connectors, Encode, Format, Ingress, Kind, MetadataColumn, Poll, Push, PushBody, Pushed, Source, SourceBatch, SourceDef,
};

use super::{PipelineConnectors, Pushes, check_source};

/// `rides (city VARCHAR NOT NULL, fare DOUBLE, at BIGINT METADATA FROM 'offset', got TIMESTAMP METADATA FROM 'received')`
fn rides() -> SourceDef {
    let schema = Schema::new(vec![
        Field::new("city", DataType::Utf8, false),
        Field::new("at", DataType::Int64, false),
        Field::new("fare", DataType::Float64, true),
        Field::new("got", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]);
    let metadata = [(1, "offset"), (3, "received")].map(|(column, name)| MetadataColumn { column, name: name.into() }).to_vec();
    SourceDef { metadata, ..SourceDef::new("rides", Arc::new(schema), "push", Format::Plain, Encode::Json) }
}

fn with(def: SourceDef, option: &str, value: &str) -> SourceDef {
    let mut def = def;
    def.options.insert(option.into(), value.into());
    def
}

struct Opened {
    pushes: Arc<Pushes>,
    source: Box<dyn Source>,
}

fn open(def: &SourceDef, data_dir: Option<&Path>, offset: Option<u64>) -> Opened {
    let connectors = PipelineConnectors::new(data_dir);
    let mut source = connectors.open_source(def).unwrap();
    if let Some(offset) = offset {
        source.seek(0, offset).unwrap();
    }
    assert!(matches!(source.poll(1).unwrap(), Poll::Pending));
    Opened { pushes: connectors.pushes(), source }
}

fn json(pushes: &Pushes, id: Option<&str>, lines: &str) -> Pushed {
    pushes.push(Push { source: "rides".into(), id: id.map(Into::into), body: PushBody::Bytes(Encode::Json, lines.into()) }).unwrap()
}

impl Opened {
    fn push(&self, id: Option<&str>, body: PushBody) -> freshet_core::Result<Pushed> {
        self.pushes.push(Push { source: "rides".into(), id: id.map(Into::into), body })
    }

    fn json(&self, id: Option<&str>, lines: &str) -> Pushed {
        json(&self.pushes, id, lines)
    }

    fn batch(&mut self, rows_max: usize) -> SourceBatch {
        match self.source.poll(rows_max).unwrap() {
            Poll::Batch(batch) => batch,
            other => panic!("a batch, not {other:?}"),
        }
    }
}

fn cities(batch: &SourceBatch) -> Vec<&str> {
    batch.rows.column(0).as_string::<i32>().iter().flatten().collect()
}

fn of_cities(cities: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([("city", Arc::new(StringArray::from(cities.to_vec())) as ArrayRef)]).unwrap()
}

#[test]
fn pushes_are_read_whole_in_the_order_of_their_positions_with_metadata() {
    let mut rides = open(&rides(), None, None);
    let first = rides.json(None, "{\"city\": \"Bern\", \"fare\": 1.5}\n{\"city\": \"Genf\"}\n");
    assert_eq!(first, Pushed { partition: 0, position: 2, records: 2, dead_letters: 0, duplicate: false });
    assert_eq!(rides.push(None, PushBody::Rows(of_cities(&["Zug", "Chur"]))).unwrap().position, 4);
    assert_eq!(rides.source.report().lag_rows, Some(4));
    let batch = rides.batch(1);
    assert_eq!((cities(&batch), batch.next_offset), (vec!["Bern", "Genf"], 2), "a push is never cut");
    rides.json(None, "{\"city\": \"Biel\"}");
    let batch = rides.batch(100);
    assert_eq!(cities(&batch), ["Zug", "Chur", "Biel"], "small pushes are joined");
    assert_eq!(batch.rows.column(1).as_primitive::<Int64Type>().values(), &[2, 3, 4]);
    assert_eq!(batch.offsets, [2, 3, 4]);
    assert_eq!(batch.rows.column(3).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().iter().flatten().count(), 3);
    assert!(matches!(rides.source.poll(1).unwrap(), Poll::Pending));
}

#[test]
fn c3_a_bad_record_is_a_dead_letter_with_its_place_and_the_rest_comes_in() {
    let mut rides = open(&rides(), None, None);
    rides.json(None, "{\"city\": \"Bern\"}");
    let pushed = rides.json(None, "{\"city\": \"Genf\"}\r\n\n{\"city\": 7}\nnot json\n{\"fare\": 1}\n{\"city\": \"Zug\", \"fare\": 2}");
    assert_eq!((pushed.position, pushed.records, pushed.dead_letters), (6, 5, 3));
    let batch = rides.batch(100);
    assert_eq!((cities(&batch), &batch.offsets[..], batch.next_offset), (vec!["Bern", "Genf", "Zug"], &[0, 1, 5][..], 6));
    let letters: Vec<_> = batch.dead_letters.iter().map(|letter| (letter.offset, letter.field.as_str(), letter.raw.as_slice())).collect();
    assert_eq!(letters, [(2, "city", &b"{\"city\": 7}"[..]), (3, "", b"not json"), (4, "city", b"{\"fare\": 1}")]);
}

#[test]
fn a_push_of_columns_that_do_not_fit_is_refused_whole() {
    let rides = open(&rides(), None, None);
    let fares = RecordBatch::try_from_iter([("fare", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]).unwrap();
    let error = rides.push(None, PushBody::Rows(fares)).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::Invalid, "source rides: column city is NOT NULL and the rows do not have it; they have fare")
    );
    let error = rides.pushes.push(Push { source: "taxis".into(), id: None, body: PushBody::Rows(of_cities(&[])) }).unwrap_err();
    assert_eq!(error.message, "there is no push source taxis; known: rides");
    assert_eq!(rides.source.report().lag_rows, Some(0));
    let error = rides.push(Some(""), PushBody::Rows(of_cities(&["Bern"]))).unwrap_err();
    assert!(error.message.contains("a batch id has 1 to 256 bytes"), "{error}");
}

#[test]
fn csv_comes_with_a_header_in_any_order_and_without_columns_that_may_be_null() {
    let mut rides = open(&rides(), None, None);
    let csv = |text: &str| rides.push(None, PushBody::Bytes(Encode::Csv, text.into()));
    assert_eq!(csv("fare,city\n1.5,\"a \"\"b\"\",\nc\"\n,Genf\n").unwrap().records, 2);
    assert_eq!(csv("\u{feff}city\r\nZug\r\n").unwrap().records, 1);
    assert_eq!(csv("fare\n1\n").unwrap_err().message.split(';').next().unwrap(), "source rides: it has no column city");
    assert!(csv("a,b\n1,2\n").is_err());
    let batch = rides.batch(100);
    assert_eq!(cities(&batch), ["a \"b\",\nc", "Genf", "Zug"]);
    assert_eq!(batch.rows.column(2).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(1.5), None, None]);
}

#[test]
fn a_name_that_comes_again_gets_the_same_answer_and_changes_nothing() {
    let mut rides = open(&rides(), None, None);
    let first = rides.json(Some("a"), "{\"city\": \"Bern\"}\n7");
    rides.json(None, "{\"city\": \"Genf\"}");
    let again = rides.json(Some("a"), "{\"city\": \"Zug\"}");
    assert_eq!(again, Pushed { duplicate: true, ..first });
    assert_eq!(cities(&rides.batch(100)), ["Bern", "Genf"]);
    assert!(rides.json(Some("a"), "").duplicate, "also once it has been read");
}

#[test]
fn two_clients_at_once_lose_nothing_and_share_no_position() {
    let mut rides = open(&rides(), None, None);
    let pushed: Vec<Pushed> = std::thread::scope(|scope| {
        let client = |name: &'static str| {
            let pushes = rides.pushes.clone();
            scope.spawn(move || {
                (0..200).map(|push| json(&pushes, Some(&format!("{name}{}", push % 150)), &"{\"city\": \"Bern\"}\n".repeat(3))).collect::<Vec<_>>()
            })
        };
        let clients = [client("a"), client("b")];
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let mut positions: Vec<u64> = pushed.iter().filter(|pushed| !pushed.duplicate).map(|pushed| pushed.position).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=300).map(|push| push * 3).collect::<Vec<_>>());
    let batch = rides.batch(10_000);
    assert_eq!(batch.offsets, (0..900).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_refuses_until_it_has_been_read() {
    let mut rides = open(&with(rides(), "max_queue_bytes", "4096"), None, None);
    let large = of_cities(&["Bern"; 100]);
    let mut taken = 0;
    let error = loop {
        match rides.push(None, PushBody::Rows(large.clone())) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("of 4096 bytes of max_queue_bytes wait to be read; try again later"), "{error}");
    assert!((2..5).contains(&taken), "{taken}");
    let described = &rides.pushes.sources()[0];
    assert!(described.queue_bytes <= 4096 && described.queue_bytes_max == 4096);
    assert_eq!(rides.batch(usize::MAX).offsets.len(), taken * 100);
    assert!(rides.push(None, PushBody::Rows(large)).is_ok());
    let error = rides.push(None, PushBody::Rows(of_cities(&["Bern"; 10_000]))).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "waiting would not help: {error}");
}

#[test]
fn positions_and_names_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(&rides(), Some(folder.path()), None);
    first.json(Some("kept"), "{\"city\": \"Bern\"}\n{\"city\": \"Bern\"}");
    assert_eq!(first.batch(100).next_offset, 2);
    // Answered, but never part of a checkpoint.
    first.json(Some("lost"), "{\"city\": \"Genf\"}");
    drop(first);
    let mut second = open(&rides(), Some(folder.path()), Some(2));
    assert!(second.json(Some("kept"), "{\"city\": \"Bern\"}\n{\"city\": \"Bern\"}").duplicate);
    let again = second.json(Some("lost"), "{\"city\": \"Genf\"}");
    assert_eq!((again.position, again.duplicate), (4, false), "position 3 was given before");
    assert_eq!(second.batch(100).offsets, [3]);
}

#[test]
fn nothing_is_taken_before_the_pipeline_says_where_it_goes_on_or_after_it_stops() {
    let connectors = PipelineConnectors::new(None);
    let mut source = connectors.open_source(&rides()).unwrap();
    let push = || connectors.pushes().push(Push { source: "rides".into(), id: None, body: PushBody::Rows(of_cities(&["Bern"])) });
    assert!(push().unwrap_err().message.contains("is starting"));
    source.seek(0, 7).unwrap();
    assert!(source.seek(1, 7).is_err());
    source.poll(1).unwrap();
    assert_eq!(push().unwrap().position, 8);
    assert!(!connectors.pushes().drain(std::time::Duration::ZERO), "a row waits");
    assert!(push().unwrap_err().message.contains("is stopping"));
    source.poll(1).unwrap();
    assert!(connectors.pushes().drain(std::time::Duration::ZERO));
}

#[test]
fn upserts_end_a_key_in_json_and_in_columns() {
    let schema = Schema::new(vec![Field::new("city", DataType::Utf8, false), Field::new("fare", DataType::Float64, false)]);
    let def = SourceDef { key: vec![0], ..SourceDef::new("rides", Arc::new(schema), "push", Format::Upsert, Encode::Json) };
    let mut rides = open(&def, None, None);
    rides.json(None, "{\"city\": \"Bern\", \"fare\": 1}\n{\"city\": \"Bern\", \"__deleted\": true}\n{\"fare\": 1}");
    let marks: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![Some(false), Some(true)]));
    let fares: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), None]));
    let columns = [("city", Arc::new(StringArray::from(vec!["Genf", "Genf"])) as ArrayRef), ("fare", fares), ("__deleted", marks)];
    rides.push(None, PushBody::Rows(RecordBatch::try_from_iter(columns).unwrap())).unwrap();
    let batch = rides.batch(100);
    assert_eq!((cities(&batch), batch.diffs.clone()), (vec!["Bern", "Bern", "Genf", "Genf"], Some(vec![1, -1, 1, -1])));
    assert_eq!(batch.dead_letters.len(), 1);
}

#[test]
fn options_and_metadata_are_checked_when_the_source_is_declared() {
    assert_eq!(check_source(&rides()), Ok(()));
    let message = |def: SourceDef| check_source(&def).unwrap_err().message;
    assert!(message(with(rides(), "max_queue_byte", "1")).contains("did you mean max_queue_bytes?"));
    assert!(message(with(rides(), "max_queue_bytes", "lots")).contains("is a number of bytes"));
    assert!(message(with(rides(), "secret", "short")).contains("at least 8 characters"));
    assert!(message(SourceDef { bad_data: BadData::Fail, ..rides() }).contains("any client"));
    assert!(message(SourceDef { encode: Encode::Parquet, ..rides() }).contains("ENCODE PARQUET is for files"));
    let wrong = vec![MetadataColumn { column: 0, name: "offset".into() }];
    assert!(message(SourceDef { metadata: wrong, ..rides() }).contains("offset is BIGINT"));
    let unknown = vec![MetadataColumn { column: 1, name: "topic".into() }];
    assert!(message(SourceDef { metadata: unknown, ..rides() }).contains("no metadata topic"));
    let secret = PipelineConnectors::new(None);
    secret.open_source(&with(rides(), "secret", "swordfish")).unwrap();
    assert_eq!(secret.pushes().sources()[0].secret.as_deref(), Some(&b"swordfish"[..]));
    assert!(!format!("{secret:?}").contains("swordfish"));
}
