use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use freshet_connectors::{BuiltIn, PipelineConnectors};
use freshet_core::{Connectors, DeadLetter, Encode, Format, Kind, MetadataColumn, Poll, Source, SourceDef, Value};
use rdkafka::admin::TopicReplication;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use crate::kafka_broker::{self as broker, DEADLINE, Kafka};
use crate::setup::schema;

/// A source of JSON lines with `id`.
pub fn source(servers: &str, topic: &str, options: &[(&str, &str)]) -> SourceDef {
    let mut def = SourceDef::new("events", schema(), "kafka", Format::Plain, Encode::Json);
    def.options = [("properties.bootstrap.server", servers), ("topic", topic)]
        .iter()
        .chain(options)
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    def
}

pub fn bounded<'a>(options: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [options, &[("scan.bounded.mode", "latest-offset")]].concat()
}

pub fn open(def: &SourceDef) -> Box<dyn Source> {
    BuiltIn.open_source(def).unwrap_or_else(|error| panic!("{error}"))
}

/// What a source has delivered, per partition.
#[derive(Debug, Default)]
pub struct Got {
    pub rows: BTreeMap<u32, Vec<(u64, Vec<Value>)>>,
    pub diffs: Vec<i64>,
    pub dead_letters: Vec<DeadLetter>,
    pub next: BTreeMap<u32, u64>,
    /// Rows of the first batch of each partition, and where it ends.
    pub begun: BTreeMap<u32, (usize, u64)>,
    pub ended: Vec<u32>,
    pub all_ended: bool,
}

impl Got {
    /// Polls until the condition holds.
    pub fn poll_until(&mut self, source: &mut dyn Source, done: impl Fn(&Got, &dyn Source) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(self, source) {
            assert!(Instant::now() < deadline, "got {} rows, {:?}, {:?}", self.len(), self.ended, source.report());
            match source.poll(1_000).unwrap_or_else(|error| panic!("{error}")) {
                Poll::Batch(batch) => {
                    assert_eq!(batch.rows.num_rows(), batch.offsets.len());
                    self.begun.entry(batch.partition).or_insert((batch.rows.num_rows(), batch.next_offset));
                    let last = self.next.insert(batch.partition, batch.next_offset).unwrap_or(0);
                    assert!(batch.offsets.first().is_none_or(|first| *first >= last), "nothing comes twice");
                    assert!(batch.offsets.iter().all(|offset| *offset < batch.next_offset));
                    let rows = self.rows.entry(batch.partition).or_default();
                    rows.extend(batch.offsets.iter().copied().zip(Value::rows_of(&batch.rows).unwrap()));
                    self.diffs.extend(batch.diffs.unwrap_or_else(|| vec![1; batch.offsets.len()]));
                    self.dead_letters.extend(batch.dead_letters);
                }
                Poll::PartitionEnded(partition) => self.ended.push(partition),
                Poll::Ended => {
                    self.all_ended = true;
                    assert!(done(self, source), "it has ended with {} rows", self.len());
                }
                Poll::Pending => broker::pause(),
            }
        }
    }

    pub fn len(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    pub fn ids(&self, partition: u32) -> Vec<i128> {
        let id = |row: &Vec<Value>| if let Value::Int(id) = row[0] { id } else { panic!("id is NOT NULL") };
        self.rows.get(&partition).map(|rows| rows.iter().map(|(_, row)| id(row)).collect()).unwrap_or_default()
    }

    pub fn offsets(&self, partition: u32) -> Vec<u64> {
        self.rows.get(&partition).map(|rows| rows.iter().map(|(offset, _)| *offset).collect()).unwrap_or_default()
    }
}

/// Everything up to the end of a bounded source.
pub fn read(def: &SourceDef) -> Got {
    let mut got = Got::default();
    got.poll_until(open(def).as_mut(), |got, _| got.all_ended);
    got
}

/// Polls until `count` rows have come.
pub fn take(source: &mut dyn Source, count: usize) -> Got {
    let mut got = Got::default();
    got.poll_until(source, |got, _| got.len() >= count);
    got
}

/// The error in which a source ends.
fn failure(def: &SourceDef, seeks: &[(u32, u64)]) -> freshet_core::Error {
    let mut source = open(def);
    for (partition, offset) in seeks {
        source.seek(*partition, *offset).unwrap();
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline);
        match source.poll(100) {
            Err(error) => {
                assert_eq!(source.poll(100).unwrap_err().message, error.message, "it stays failed");
                return error;
            }
            Ok(Poll::Batch(batch)) => assert_eq!(batch.rows.num_rows(), 0),
            Ok(_) => broker::pause(),
        }
    }
}

/// The error in which a source ends that reads meanwhile.
fn end(source: &mut dyn Source) -> freshet_core::Error {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "it goes on: {:?}", source.report());
        match source.poll(100) {
            Err(error) => return error,
            Ok(_) => broker::pause(),
        }
    }
}

fn ids(range: std::ops::Range<i128>) -> Vec<i128> {
    range.collect()
}

#[test]
fn each_start_mode_begins_where_it_says() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let producer = kafka.producer(&[]);
    for id in 0..10_i64 {
        let payload = format!("{{\"id\":{id}}}");
        broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(0).timestamp(1_000_000 + id * 1_000).payload(&payload));
    }
    broker::flush(&producer);
    let begin = |options: &[(&str, &str)]| read(&source(&kafka.servers, &topic, &bounded(options))).ids(0);
    assert_eq!(begin(&[]), ids(0..10));
    assert_eq!(begin(&[("scan.startup.mode", "earliest")]), ids(0..10));
    assert_eq!(begin(&[("scan.startup.mode", "latest")]), ids(0..0));
    assert_eq!(begin(&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp.millis", "1003001")]), ids(4..10));
    assert_eq!(begin(&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp.millis", "1970-01-01T01:00:00Z")]), ids(0..0));
    assert_eq!(begin(&[("scan.startup.mode", "offsets"), ("scan.startup.specific-offsets", "partition:0,offset:7")]), ids(7..10));

    let mut latest = open(&source(&kafka.servers, &topic, &[("scan.startup.mode", "latest")]));
    let mut got = Got::default();
    got.poll_until(latest.as_mut(), |got, _| got.next.get(&0) == Some(&10));
    kafka.send_ids(&topic, 0, 10..13);
    got.poll_until(latest.as_mut(), |got, _| got.len() == 3);
    assert_eq!((got.ids(0), got.offsets(0)), (ids(10..13), vec![10, 11, 12]));
}

#[test]
fn bounded_mode_ends_each_partition_where_it_ended_at_the_start() {
    let kafka = broker::shared();
    let topic = kafka.topic(4);
    for partition in 0..3 {
        kafka.send_ids(&topic, partition, 0..2_500);
    }
    let mut source = open(&source(&kafka.servers, &topic, &bounded(&[])));
    assert!(source.is_bounded());
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.begun.len() == 4);
    let deadline = Instant::now() + DEADLINE;
    let partitions = loop {
        assert!(Instant::now() < deadline);
        match source.partitions().unwrap() {
            Some(partitions) => break partitions,
            None => broker::pause(),
        }
    };
    assert_eq!(partitions, [0, 1, 2, 3]);
    kafka.send_ids(&topic, 1, 2_500..3_000);
    got.poll_until(source.as_mut(), |got, _| got.all_ended);
    got.ended.sort_unstable();
    assert_eq!(got.ended, [0, 1, 2, 3]);
    for partition in 0..3 {
        assert_eq!((got.ids(partition), got.offsets(partition)), (ids(0..2_500), (0..2_500).collect()));
    }
    assert_eq!(got.len(), 7_500);
    assert_eq!(source.report().lag_rows, Some(0));
}

#[test]
fn bounded_mode_ends_at_offsets_that_are_named() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    kafka.send_ids(&topic, 0, 0..20);
    kafka.send_ids(&topic, 1, 0..20);
    let mut source = open(&source(&kafka.servers, &topic, &[("scan.bounded.specific-offsets", "partition:0,offset:25")]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.len() == 20);
    assert_eq!(got.ended, [1], "it waits for the records that are still to come");
    kafka.send_ids(&topic, 0, 20..30);
    got.poll_until(source.as_mut(), |got, _| got.all_ended);
    assert_eq!((got.ids(0), got.ended), (ids(0..25), vec![1, 0]));
}

#[test]
fn markers_and_aborted_transactions_are_gaps_that_end_nothing() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let producer = kafka.producer(&[("transactional.id", &topic)]);
    producer.init_transactions(DEADLINE).unwrap();
    for (round, commit) in [(0, true), (1, false), (2, true)] {
        producer.begin_transaction().unwrap();
        for id in round * 10..round * 10 + 5 {
            broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(0).payload(&format!("{{\"id\":{id}}}")));
        }
        broker::flush(&producer);
        if commit { producer.commit_transaction(DEADLINE) } else { producer.abort_transaction(DEADLINE) }.unwrap();
    }
    let got = read(&source(&kafka.servers, &topic, &bounded(&[])));
    assert_eq!(got.ids(0), [ids(0..5), ids(20..25)].concat());
    assert_eq!(got.offsets(0), [0, 1, 2, 3, 4, 12, 13, 14, 15, 16]);
    let dirty = read(&source(&kafka.servers, &topic, &bounded(&[("properties.isolation.level", "read_uncommitted")])));
    assert_eq!(dirty.ids(0), [ids(0..5), ids(10..15), ids(20..25)].concat());
}

#[test]
fn partition_that_is_added_while_running_is_read_from_its_first_record() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    kafka.send_ids(&topic, 0, 0..5);
    let options = [("scan.startup.mode", "latest"), ("partition.discovery.interval", "100ms")];
    let mut source = open(&source(&kafka.servers, &topic, &options));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.begun.contains_key(&0));
    kafka.add_partitions(&topic, 3);
    kafka.send_ids(&topic, 2, 100..110);
    got.poll_until(source.as_mut(), |got, _| got.len() == 10);
    assert_eq!((got.ids(2), source.partitions().unwrap()), (ids(100..110), Some(vec![0, 1, 2])));
}

#[test]
fn seek_goes_on_at_the_offset_and_reads_added_partitions_whole() {
    let kafka = broker::shared();
    let topic = kafka.topic(3);
    for partition in 0..3 {
        kafka.send_ids(&topic, partition, 0..100);
    }
    let mut source = open(&source(&kafka.servers, &topic, &bounded(&[("scan.startup.mode", "latest")])));
    source.seek(0, 60).unwrap();
    source.seek(1, 100).unwrap();
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.all_ended);
    assert_eq!([got.ids(0), got.ids(1), got.ids(2)], [ids(60..100), ids(0..0), ids(0..100)]);
}

#[test]
fn records_that_retention_has_deleted_are_an_error_that_names_them() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    kafka.send_ids(&topic, 0, 0..10);
    kafka.delete_before(&topic, 6);
    let error = failure(&source(&kafka.servers, &topic, &[]), &[(0, 2)]);
    assert_eq!(error.kind, Kind::Data);
    let start = format!("source events: partition 0 of topic {topic} goes on at offset 2, but its earliest is 6: retention has deleted 4 records");
    assert!(error.message.starts_with(&start) && error.message.contains("--skip-offsets"), "{error}");
    let whole = read(&source(&kafka.servers, &topic, &bounded(&[])));
    assert_eq!(whole.ids(0), ids(6..10), "earliest is what there is");
    assert_eq!(whole.begun[&0], (0, 6), "and a checkpoint before the first row knows it");
}

#[test]
fn records_that_retention_deletes_before_they_are_read_are_an_error() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    kafka.send_ids(&topic, 0, 0..10);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    let mut got = take(source.as_mut(), 10);
    source.pause(0, true).unwrap();
    kafka.send_ids(&topic, 1, 0..1);
    got.poll_until(source.as_mut(), |got, _| got.len() == 11);
    // Pauses are looked at before rows are handed over, so it is in force.
    kafka.send_ids(&topic, 0, 10..20);
    kafka.delete_before(&topic, 15);
    source.pause(0, false).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let error = loop {
        assert!(Instant::now() < deadline);
        match source.poll(100) {
            Err(error) => break error,
            Ok(Poll::Batch(batch)) => assert_eq!(batch.rows.num_rows(), 0, "they are gone"),
            Ok(_) => broker::pause(),
        }
    };
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("goes on at offset 10, but its earliest is 15: retention has deleted 5 records"), "{error}");
}

#[test]
fn a_topic_that_was_created_again_is_not_read_on_running_or_at_a_restart() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    kafka.send_ids(&topic, 0, 0..10);
    let folder = tempfile::tempdir().unwrap();
    let connectors = PipelineConnectors::new(Some(folder.path()));
    let def = source(&kafka.servers, &topic, &[("partition.discovery.interval", "1s")]);
    let open_at = |offset: Option<u64>| {
        let mut source = connectors.open_source(&def).unwrap();
        offset.into_iter().for_each(|offset| source.seek(0, offset).unwrap());
        source
    };
    take(open_at(None).as_mut(), 10);
    let mut running = open_at(Some(5));
    assert_eq!(take(running.as_mut(), 5).ids(0), ids(5..10), "the same topic goes on");
    kafka.create_again(&topic);
    kafka.send_ids(&topic, 0, 100..115);
    let again = format!("source events: topic {topic} has been deleted and created again: it was ");
    for source in [&mut running, &mut open_at(Some(10))] {
        let error = end(source.as_mut());
        assert_eq!(error.kind, Kind::Data);
        assert!(error.message.starts_with(&again) && error.message.contains("empty data directory"), "{error}");
    }
    assert_eq!(take(open_at(None).as_mut(), 15).ids(0), ids(100..115), "from its first record it may be read");
    assert_eq!(take(open_at(Some(10)).as_mut(), 5).ids(0), ids(110..115), "and is known from then on");
}

#[test]
fn offsets_that_do_not_exist_are_refused() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    kafka.send_ids(&topic, 0, 0..10);
    let error = failure(&source(&kafka.servers, &topic, &[("scan.startup.specific-offsets", "partition:0,offset:11")]), &[]);
    let expected =
        format!("source events: scan.startup.specific-offsets begins at offset 11 of partition 0 of topic {topic}, which has offsets 0 to 10");
    assert!(error.message.starts_with(&expected), "{error}");
    let error = failure(&source(&kafka.servers, &topic, &[("scan.startup.specific-offsets", "partition:5,offset:0")]), &[]);
    assert_eq!(error.message, format!("source events: scan.startup.specific-offsets names partition 5, but topic {topic} has 2 partitions, from 0"));
    let error = failure(&source(&kafka.servers, &topic, &[]), &[(7, 0)]);
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("which has only 2 partitions"), "{error}");
}

#[test]
fn topic_that_does_not_exist_is_trouble_until_it_does() {
    let kafka = broker::shared();
    let topic = broker::unused_topic();
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |_, source| source.report().trouble.is_some());
    let expected = format!("topic {topic} does not exist on {}; create it, or check the name", kafka.servers);
    assert_eq!((source.report().trouble, source.partitions().unwrap()), (Some(expected), None));
    kafka.create(&topic, 1, TopicReplication::Fixed(1), &[]);
    kafka.send_ids(&topic, 0, 0..3);
    got.poll_until(source.as_mut(), |got, source| got.len() == 3 && source.report().trouble.is_none());
    assert_eq!(got.ids(0), ids(0..3));
}

/// The columns of a source with every kind of metadata.
fn with_metadata(servers: &str, topic: &str) -> SourceDef {
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    let us = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = [
        ("", "id", DataType::Int64),
        ("key", "k", DataType::Utf8),
        ("timestamp", "ms", ms),
        ("timestamp", "us", us),
        ("offset", "o", DataType::Int64),
        ("partition", "p", DataType::Int32),
        ("topic", "t", DataType::Utf8),
        ("headers", "h", DataType::Utf8),
        ("header.Trace", "trace", DataType::Utf8),
        ("header.none", "none", DataType::Utf8),
    ];
    let fields: Vec<Field> = columns.iter().map(|(_, name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    let metadata = |(column, (name, _, _)): (usize, &(&str, &str, DataType))| MetadataColumn { column, name: name.to_string() };
    SourceDef {
        schema: Arc::new(Schema::new(fields)),
        metadata: columns.iter().enumerate().skip(1).map(metadata).collect(),
        ..source(servers, topic, &bounded(&[]))
    }
}

#[test]
fn keys_times_offsets_and_headers_are_columns() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    let producer = kafka.producer(&[]);
    let header = |headers: OwnedHeaders, key: &str, value: Option<&[u8]>| headers.insert(Header { key, value });
    let headers = header(header(OwnedHeaders::new(), "Trace", Some(b"first")), "n", Some(b"\xff\x01"));
    let headers = header(header(headers, "Trace", Some(b"se\"cond")), "empty", None);
    broker::send(&producer, BaseRecord::to(&topic).partition(1).key("k1").payload("{\"id\":1}").timestamp(1_700_000_000_123).headers(headers));
    broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(1).payload("{\"id\":2}").timestamp(5));
    broker::flush(&producer);
    let got = read(&with_metadata(&kafka.servers, &topic));
    let text = |text: &str| Value::Text(text.into());
    let all = r#"[{"key":"Trace","value":"first"},{"key":"n","value":"\\xff01"},{"key":"Trace","value":"se\"cond"},{"key":"empty","value":null}]"#;
    let first = vec![
        Value::Int(1),
        text("k1"),
        Value::Int(1_700_000_000_123),
        Value::Int(1_700_000_000_123_000),
        Value::Int(0),
        Value::Int(1),
        text(&topic),
        text(all),
        text("se\"cond"),
        Value::Null,
    ];
    assert_eq!(got.rows[&1][0], (0, first));
    let second = &got.rows[&1][1].1;
    assert_eq!(
        [&second[1], &second[2], &second[4], &second[7], &second[8]],
        [&Value::Null, &Value::Int(5), &Value::Int(1), &text("[]"), &Value::Null]
    );
}

#[test]
fn the_broker_s_time_of_arrival_is_a_timestamp_too() {
    let kafka = broker::shared();
    let topic = kafka.topic_with(1, TopicReplication::Fixed(1), &[("message.timestamp.type", "LogAppendTime")]);
    let producer = kafka.producer(&[]);
    broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(0).payload("{\"id\":2}").timestamp(5));
    broker::flush(&producer);
    let got = read(&with_metadata(&kafka.servers, &topic));
    let Value::Int(millis) = got.rows[&0][0].1[2] else { panic!("{got:?}") };
    assert!(millis > 1_700_000_000_000, "{millis}");
}

#[test]
fn every_compression_is_read() {
    let kafka = broker::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic(1);
        let producer = kafka.producer(&[("compression.type", codec), ("linger.ms", "50")]);
        for id in 0..200 {
            broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(0).payload(&format!("{{\"id\":{id}}}")));
        }
        broker::flush(&producer);
        assert_eq!(read(&source(&kafka.servers, &topic, &bounded(&[]))).ids(0), ids(0..200), "{codec}");
    }
}

#[test]
fn bad_records_cost_their_own_row_only() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let producer = kafka.producer(&[]);
    let long = format!("{{\"id\":3,\"name\":\"{}\"}}", "x".repeat(1_000));
    let records: [Option<&[u8]>; 8] = [
        Some(b"{\"id\":0}"),
        Some(b"{\"id\":1"),
        Some(b"{\"id\":2,\"name\":\"\xff\"}"),
        Some(long.as_bytes()),
        None,
        Some(b""),
        Some(b"{\"id\":\"six\"}"),
        Some(b"{\"id\":7}"),
    ];
    for payload in records {
        let mut record = BaseRecord::<str, [u8]>::to(&topic).partition(0).key("k");
        record.payload = payload;
        broker::send(&producer, record);
    }
    broker::flush(&producer);
    let got = read(&source(&kafka.servers, &topic, &bounded(&[("max_record_bytes", "1000")])));
    assert_eq!((got.ids(0), got.offsets(0)), (vec![0, 7], vec![0, 7]));
    let offsets: Vec<u64> = got.dead_letters.iter().map(|letter| letter.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
    for letter in &got.dead_letters {
        assert_eq!((letter.origin.as_str(), letter.key.as_deref()), (format!("{topic}/0").as_str(), Some(b"k".as_slice())));
    }
    assert_eq!(got.dead_letters[0].raw, b"{\"id\":1");
    assert!(got.dead_letters[2].reason.contains("max_record_bytes is 1000"), "{:?}", got.dead_letters[2]);
    assert_eq!(got.dead_letters[5].field, "id");
}

#[test]
fn upserts_are_rows_and_keys_without_rows() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let producer = kafka.producer(&[]);
    for (key, payload) in [("7", Some("{\"id\":7,\"name\":\"a\"}")), ("7", Some("{\"id\":7,\"name\":\"b\"}")), ("7", None)] {
        let mut record = BaseRecord::<str, str>::to(&topic).partition(0).key(key);
        record.payload = payload;
        broker::send(&producer, record);
    }
    broker::flush(&producer);
    let mut def = source(&kafka.servers, &topic, &bounded(&[]));
    (def.format, def.key) = (Format::Upsert, vec![0]);
    let got = read(&def);
    assert_eq!((got.ids(0), got.diffs), (vec![7, 7, 7], vec![1, 1, -1]));
    assert_eq!(got.rows[&0][2].1[1], Value::Null);
}

#[test]
fn tls_and_scram_let_in_who_knows_the_password() {
    let kafka = broker::shared();
    let (servers, ca) = kafka.secure.as_ref().unwrap();
    let topic = kafka.topic(1);
    kafka.send_ids(&topic, 0, 0..5);
    let secure = |password: &'static str| {
        let options = [
            ("properties.security.protocol", "SASL_SSL"),
            ("properties.sasl.mechanism", "SCRAM-SHA-512"),
            ("properties.sasl.username", broker::USER),
            ("properties.sasl.password", password),
            ("properties.ssl.ca.location", ca.as_str()),
        ];
        source(servers, &topic, &bounded(&options))
    };
    assert_eq!(read(&secure(broker::PASSWORD)).ids(0), ids(0..5));

    let mut refused = open(&secure("falsch-9"));
    Got::default().poll_until(refused.as_mut(), |_, source| source.report().trouble.is_some_and(|trouble| trouble.contains("uthentication")));
    let trouble = refused.report().trouble.unwrap();
    assert!(!trouble.contains("falsch"), "{trouble}");

    let mut untrusted = secure(broker::PASSWORD);
    untrusted.options.remove("properties.ssl.ca.location");
    Got::default().poll_until(open(&untrusted).as_mut(), |_, source| source.report().trouble.is_some_and(|trouble| trouble.contains("certificate")));
    let mut missing = secure(broker::PASSWORD);
    missing.options.insert("properties.ssl.ca.location".into(), "/nowhere/ca.pem".into());
    let error = BuiltIn.open_source(&missing).map(|_| ()).unwrap_err();
    assert!(error.kind == Kind::Invalid && error.message.contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn a_paused_partition_waits_and_loses_nothing() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    kafka.send_ids(&topic, 0, 0..100);
    let mut got = take(source.as_mut(), 100);
    source.pause(0, true).unwrap();
    kafka.send_ids(&topic, 1, 0..1);
    got.poll_until(source.as_mut(), |got, _| got.len() == 101);
    // Pauses are looked at before rows are handed over, so it is in force.
    kafka.send_ids(&topic, 0, 100..300);
    kafka.send_ids(&topic, 1, 1..200);
    got.poll_until(source.as_mut(), |got, _| got.ids(1).len() == 200);
    assert_eq!(got.ids(0), ids(0..100));
    source.pause(0, false).unwrap();
    got.poll_until(source.as_mut(), |got, _| got.len() == 500);
    assert_eq!([got.ids(0), got.ids(1)], [ids(0..300), ids(0..200)]);
}

#[test]
fn lag_counts_what_has_not_been_polled() {
    let kafka: &Kafka = broker::shared();
    let topic = kafka.topic(2);
    kafka.send_ids(&topic, 0, 0..3_000);
    kafka.send_ids(&topic, 1, 0..10);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.len() > 0);
    let lag = source.report().lag_rows.unwrap();
    assert_eq!(lag + got.len() as u64, 3_010);
    got.poll_until(source.as_mut(), |got, source| got.len() == 3_010 && source.report().lag_rows == Some(0));
    kafka.send_ids(&topic, 0, 0..7);
    // Nobody polls: the statistics tell.
    let deadline = Instant::now() + DEADLINE;
    while source.report().lag_rows != Some(7) {
        assert!(Instant::now() < deadline, "{:?}", source.report());
        broker::pause();
    }
}

#[test]
fn rows_come_within_milliseconds() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    kafka.send_ids(&topic, 0, 0..1);
    let _ = take(source.as_mut(), 1);
    let producer = kafka.producer(&[("linger.ms", "0")]);
    let mut times: Vec<Duration> = (1..20)
        .map(|id| {
            let begin = Instant::now();
            broker::send(&producer, BaseRecord::<[u8], str>::to(&topic).partition(0).payload(&format!("{{\"id\":{id}}}")));
            let _ = take(source.as_mut(), 1);
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
}
