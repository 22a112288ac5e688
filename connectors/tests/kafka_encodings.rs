//! Encodings with schemas through a real broker and a real registry at once, both ways, while the schema grows; and changes in topics that the
//! broker compacts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_core::{Batch, Encode, Epoch, Format, SinkDef, SourceDef, Value};
use rdkafka::admin::TopicReplication;

use crate::encodings::{PROTO, random_rows, sink as sink_of, source as source_of, values, wide};
use crate::encodings_registry::registry;
use crate::kafka_broker::{self as broker, DEADLINE, Kafka};
use crate::kafka_sink::{changes, open as open_sink, sink};
use crate::kafka_source::{Got, bounded, open, read, source};

type Options<'a> = Vec<(&'a str, &'a str)>;

/// A broker and a registry for one topic.
fn places<'a>(kafka: &'a Kafka, topic: &'a str) -> Options<'a> {
    vec![("properties.bootstrap.server", &kafka.servers), ("topic", topic), ("schema.registry", registry())]
}

/// `wide` with a column that was not there before.
fn wider() -> SchemaRef {
    let fields = wide().fields().iter().cloned().chain([Arc::new(Field::new("more", DataType::Utf8, true))]).collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}

fn with_more(rows: &RecordBatch) -> RecordBatch {
    let more: StringArray = (0..rows.num_rows()).map(|row| (row % 3 > 0).then(|| format!("more {row}"))).collect();
    let columns = rows.columns().iter().cloned().chain([Arc::new(more) as ArrayRef]).collect();
    RecordBatch::try_new(wider(), columns).unwrap()
}

fn write(def: &SinkDef, rows: &RecordBatch, epoch: u64) {
    let mut out = open_sink(def);
    out.write(&Batch::inserts(rows.clone(), Epoch(epoch))).unwrap();
    out.flush(Epoch(epoch)).unwrap();
}

fn rows_of(got: &Got) -> Vec<Vec<Value>> {
    got.rows.get(&0).map(|rows| rows.iter().map(|(_, row)| row.clone()).collect()).unwrap_or_default()
}

fn proto(folder: &Path, more: &str) -> String {
    let path = folder.join(format!("wide{}.proto", more.len()));
    std::fs::write(&path, PROTO.trim_end().trim_end_matches('}').to_string() + more + "}\n").unwrap();
    path.display().to_string()
}

#[test]
fn a_column_that_a_writer_adds_reaches_running_readers_of_old_and_new_schema() {
    let (kafka, folder) = (broker::shared(), tempfile::tempdir().unwrap());
    let (first, second) = (proto(folder.path(), ""), proto(folder.path(), "  optional string more = 400;\n"));
    let avro = || (Encode::Avro, Options::new(), Options::new());
    let message = |path: &'_ str| vec![("schema.file".to_string(), path.to_string()), ("message".to_string(), "test.Wide".to_string())];
    let (old_file, new_file) = (message(&first), message(&second));
    let borrowed = |pairs: &'static [(String, String)]| pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Options>();
    let protobuf = (Encode::Protobuf, borrowed(old_file.leak()), borrowed(new_file.leak()));
    for (encode, old_options, new_options) in [avro(), protobuf] {
        let topic = kafka.topic(1);
        let places = places(kafka, &topic);
        let old_rows = random_rows(3, 40);
        write(&sink_of(wide(), Format::Plain, encode, &[&places[..], &old_options].concat(), &[]), &old_rows, 1);

        // Two that go on reading: one knows nothing of the new column, one has waited for it.
        let mut old_reader = open(&source_of(wide(), Format::Plain, encode, &places));
        let mut new_reader = open(&source_of(wider(), Format::Plain, encode, &places));
        let (mut old_got, mut new_got) = (Got::default(), Got::default());
        old_got.poll_until(old_reader.as_mut(), |got, _| got.len() == 40);
        new_got.poll_until(new_reader.as_mut(), |got, _| got.len() == 40);

        let new_rows = with_more(&random_rows(4, 40));
        write(&sink_of(wider(), Format::Plain, encode, &[&places[..], &new_options].concat(), &[]), &new_rows, 2);
        // The old writer is still there, too.
        write(&sink_of(wide(), Format::Plain, encode, &[&places[..], &old_options].concat(), &[]), &random_rows(5, 10), 3);
        old_got.poll_until(old_reader.as_mut(), |got, _| got.len() == 90);
        new_got.poll_until(new_reader.as_mut(), |got, _| got.len() == 90);
        assert_eq!((old_got.dead_letters.len(), new_got.dead_letters.len()), (0, 0), "{encode:?}");

        let without = |rows: &RecordBatch| {
            values(rows)
                .into_iter()
                .map(|mut row| {
                    row.truncate(wide().fields().len());
                    row
                })
                .collect::<Vec<_>>()
        };
        let old_expected = [values(&old_rows), without(&new_rows), values(&random_rows(5, 10))].concat();
        assert_eq!(format!("{:?}", rows_of(&old_got)), format!("{old_expected:?}"), "{encode:?}");
        let null = |rows: Vec<Vec<Value>>| rows.into_iter().map(|row| [row, vec![Value::Null]].concat()).collect::<Vec<_>>();
        let new_expected = [null(values(&old_rows)), values(&new_rows), null(values(&random_rows(5, 10)))].concat();
        assert_eq!(format!("{:?}", rows_of(&new_got)), format!("{new_expected:?}"), "{encode:?}");
        // And whoever comes later reads both from the beginning.
        let late = read(&source_of(wider(), Format::Plain, encode, &bounded(&places)));
        assert_eq!(format!("{:?}", rows_of(&late)), format!("{new_expected:?}"), "{encode:?}");
    }
}

/// A topic whose segments the broker closes and compacts as fast as it can.
fn compacted_topic(kafka: &Kafka) -> String {
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "50"),
        // What is deleted stays readable while the test runs.
        ("delete.retention.ms", "600000"),
    ];
    kafka.topic_with(1, TopicReplication::Fixed(1), &settings)
}

/// Calls until the broker has thrown records away: `append` writes some more, so that the segment that holds the others is closed.
fn wait_for_compaction(def: &SourceDef, mut append: impl FnMut()) -> Got {
    let deadline = Instant::now() + DEADLINE;
    loop {
        append();
        let got = read(def);
        let (left, all) = (got.offsets(0).len(), got.next[&0] as usize);
        if left < all / 2 {
            return got;
        }
        assert!(Instant::now() < deadline, "the broker does not compact: {left} of {all} records are left");
        broker::pause();
    }
}

/// What upserts leave behind.
fn live(got: &Got) -> BTreeMap<i128, Value> {
    let mut rows = BTreeMap::new();
    for ((_, row), diff) in got.rows[&0].iter().zip(&got.diffs) {
        let Value::Int(id) = row[0] else { panic!("{row:?}") };
        if *diff > 0 {
            rows.insert(id, row[1].clone())
        } else {
            rows.remove(&id)
        };
    }
    rows
}

#[test]
fn upserts_of_a_compacted_topic_leave_the_same_rows_as_those_of_a_whole_one() {
    let kafka = broker::shared();
    for encode in [Encode::Json, Encode::Avro] {
        let topic = compacted_topic(kafka);
        let registered = [("schema.registry", registry()), ("key.encode", "avro")];
        let options: &[(&str, &str)] = if encode == Encode::Avro { &registered } else { &[] };
        let mut out = open_sink(&SinkDef { encode, ..sink(&kafka.servers, &topic, Format::Upsert, &[0], options) });
        let name = |id: i128, round: u64| format!("{id} of round {round}");
        let mut round = 0;
        let mut append = || {
            round += 1;
            let former = |id: i128| (id, name(id, round - 1), -1);
            let mut rows: Vec<(i128, String, i64)> = (0..20).filter(|_| round > 1).map(former).collect();
            rows.extend((0..20).map(|id| (id, name(id, round), 1)));
            // A key that comes and goes.
            rows.push((100, name(100, round), if round % 2 == 1 { 1 } else { -1 }));
            let rows: Vec<(i128, &str, i64)> = rows.iter().map(|(id, name, diff)| (*id, name.as_str(), *diff)).collect();
            out.write(&changes(&rows, round)).unwrap();
            out.flush(Epoch(round)).unwrap();
        };
        let mut def = SourceDef { encode, ..source(&kafka.servers, &topic, &[options, &bounded(&[])].concat()) };
        (def.format, def.key) = (Format::Upsert, vec![0]);
        let got = wait_for_compaction(&def, &mut append);
        append();
        let got_later = read(&def);
        let expected = |round: u64| {
            let mut rows: BTreeMap<i128, Value> = (0..20).map(|id| (id, Value::Text(name(id, round)))).collect();
            if round % 2 == 1 {
                rows.insert(100, Value::Text(name(100, round)));
            }
            rows
        };
        assert_eq!(live(&got_later), expected(round), "{encode:?}");
        assert_eq!(got_later.dead_letters, [], "{encode:?}");

        // A checkpoint from before: its offset is where nothing is any more, and what comes behind it is all that has changed since.
        let kept = got.offsets(0);
        let gone = (1..kept[kept.len() - 1]).find(|offset| !kept.contains(offset)).unwrap();
        let mut again = open(&def);
        again.seek(0, gone).unwrap();
        let mut rest = Got::default();
        rest.poll_until(again.as_mut(), |got, _| got.all_ended);
        assert!(rest.offsets(0).iter().all(|offset| *offset >= gone));
        assert_eq!(rest.next, got_later.next);
        assert_eq!(live(&rest), expected(round), "every key has changed since, in {encode:?}");
    }
}

#[test]
fn debezium_changes_of_a_compacted_topic_are_the_last_of_each_key_and_deletions_are_told_once() {
    let kafka = broker::shared();
    for encode in [Encode::Json, Encode::Avro] {
        let topic = compacted_topic(kafka);
        let registered = [("schema.registry", registry())];
        let options: &[(&str, &str)] = if encode == Encode::Avro { &registered } else { &[] };
        let mut out = open_sink(&SinkDef { encode, ..sink(&kafka.servers, &topic, Format::Debezium, &[0], options) });
        let producer = kafka.producer(&[]);
        let mut round = 0;
        let append = || {
            round += 1;
            let rows: Vec<(i128, &str, i64)> = (0..20).map(|id| (id, "x", 1)).chain([(50, "gone", 1), (50, "gone", -1)]).collect();
            out.write(&changes(&rows, round)).unwrap();
            out.flush(Epoch(round)).unwrap();
            // As Debezium does behind a deletion, so that compaction may forget the key.
            let tombstone = rdkafka::producer::BaseRecord::<str, [u8]>::to(&topic).partition(0).key("50");
            broker::send(&producer, tombstone);
            broker::flush(&producer);
        };
        let mut def = SourceDef { encode, ..source(&kafka.servers, &topic, &[options, &bounded(&[])].concat()) };
        def.format = Format::Debezium;
        let got = wait_for_compaction(&def, append);
        assert_eq!(got.dead_letters, [], "a tombstone is no record of its own, in {encode:?}");
        let last: BTreeMap<u64, i64> = got.offsets(0).into_iter().zip(got.diffs.iter().copied()).collect();
        // The insertion of the deleted key may be compacted already: the tombstone behind it may begin a segment.
        let tail: Vec<i64> = last.values().rev().take(21).rev().copied().collect();
        assert_eq!(tail, [vec![1; 20], vec![-1]].concat(), "the last change of each key is there, in {encode:?}");
        let inserted: std::collections::BTreeSet<i128> = got.ids(0).into_iter().collect();
        assert!((0..20).all(|id| inserted.contains(&id)), "{inserted:?}");
    }
}
