use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, NodeId, Sink, SinkDef, Value};
use rdkafka::Message;
use rdkafka::admin::TopicReplication;
use rdkafka::message::{Headers, OwnedMessage};

use crate::kafka_broker as broker;
use crate::kafka_source::{bounded, read, source};
use crate::setup::{awkward, batch, row, schema};

pub fn sink(servers: &str, topic: &str, format: Format, key: &[usize], options: &[(&str, &str)]) -> SinkDef {
    SinkDef {
        name: "out".into(),
        node: NodeId(0),
        from: "totals".into(),
        schema: schema(),
        connector: "kafka".into(),
        options: [("properties.bootstrap.server", servers), ("topic", topic)]
            .iter()
            .chain(options)
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        format,
        encode: Encode::Json,
        key: key.to_vec(),
    }
}

pub fn open(def: &SinkDef) -> Box<dyn Sink> {
    BuiltIn.open_sink(def).unwrap_or_else(|error| panic!("{error}"))
}

/// Rows `(id, name)` with their diffs at one epoch.
pub fn changes(rows: &[(i128, &str, i64)], epoch: u64) -> Batch {
    let values: Vec<Vec<Value>> = rows.iter().map(|(id, name, _)| row(*id, Some(name), None, None)).collect();
    let diffs: Vec<i64> = rows.iter().map(|(_, _, diff)| *diff).collect();
    Batch::new(batch(&values), Counts::Const(epoch), Diffs::Each(diffs.into()), Counts::Const(0))
}

/// Key, payload and epoch of a record.
fn told(message: &OwnedMessage) -> (String, Option<String>, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let header = message.headers().unwrap().get(0);
    assert_eq!(header.key, "freshet-epoch");
    (message.key().map(text).unwrap_or_default(), message.payload().map(text), text(header.value.unwrap()))
}

#[test]
fn what_a_sink_has_written_a_source_reads_back() {
    let kafka = broker::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic(1);
        let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[], &[("properties.compression.type", codec)]));
        out.write(&Batch::inserts(batch(&awkward()), Epoch(17))).unwrap();
        assert_eq!(out.flush(Epoch(17)).unwrap(), awkward().len() as u64);
        let rows: Vec<Vec<Value>> =
            read(&source(&kafka.servers, &topic, &bounded(&[]))).rows.remove(&0).unwrap().into_iter().map(|(_, row)| row).collect();
        assert_eq!(format!("{rows:?}"), format!("{:?}", awkward()), "{codec}");
        let records = kafka.read_all(&topic);
        assert!(records.iter().all(|record| told(record).2 == "17"));
    }
}

#[test]
fn upserts_are_the_last_row_of_a_key_and_tombstones() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Upsert, &[0], &[]));
    out.write(&changes(&[(1, "a", 1), (2, "b", 1)], 10)).unwrap();
    out.write(&changes(&[(1, "a", -1), (1, "c", 1), (2, "b", -1)], 20)).unwrap();
    assert_eq!(out.flush(Epoch(20)).unwrap(), 4);
    let records: Vec<_> = kafka.read_all(&topic).iter().map(told).collect();
    let row = |id: u8, name: &str| Some(format!("{{\"id\":{id},\"name\":\"{name}\",\"at\":null,\"amount\":null}}"));
    let expected = [("1", row(1, "a"), "10"), ("2", row(2, "b"), "10"), ("1", row(1, "c"), "20"), ("2", None, "20")];
    assert_eq!(records, expected.map(|(key, payload, epoch)| (key.to_string(), payload, epoch.to_string())));

    let mut def = source(&kafka.servers, &topic, &bounded(&[]));
    (def.format, def.key) = (Format::Upsert, vec![0]);
    let got = read(&def);
    assert_eq!((got.ids(0), got.diffs), (vec![1, 2, 1, 2], vec![1, 1, 1, -1]));
}

#[test]
fn debezium_changes_keep_their_order_and_key() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Debezium, &[0], &[]));
    out.write(&changes(&[(1, "a", 1), (1, "a", -1), (1, "b", 2)], 10)).unwrap();
    out.flush(Epoch(10)).unwrap();
    let records: Vec<_> = kafka.read_all(&topic).iter().map(told).collect();
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|(key, _, _)| key == "1"));
    assert!(records[1].1.as_ref().unwrap().starts_with("{\"op\":\"d\""));
    let mut def = source(&kafka.servers, &topic, &bounded(&[]));
    def.format = Format::Debezium;
    assert_eq!(read(&def).diffs, [1, -1, 1, 1]);
}

#[test]
fn records_of_one_key_share_a_partition_with_those_of_java_clients() {
    let kafka = broker::shared();
    let topic = kafka.topic(4);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[0], &[]));
    for epoch in 1..4 {
        out.write(&changes(&(0..20).map(|id| (id, "x", 1)).collect::<Vec<_>>(), epoch)).unwrap();
    }
    out.flush(Epoch(3)).unwrap();
    let mut partitions = std::collections::BTreeMap::<String, Vec<i32>>::new();
    for record in kafka.read_all(&topic) {
        partitions.entry(told(&record).0).or_default().push(record.partition());
    }
    assert!(partitions.values().all(|of_key| of_key.len() == 3 && of_key.iter().all(|partition| *partition == of_key[0])), "{partitions:?}");
    // What org.apache.kafka.common.utils.Utils.murmur2 makes of these keys, over four partitions.
    let java = |key: &[u8]| (murmur2(key) & 0x7fff_ffff) % 4;
    assert!(partitions.iter().all(|(key, of_key)| of_key[0] == java(key.as_bytes()) as i32), "{partitions:?}");
    assert_eq!(murmur2(b"21"), -973_932_308_i32 as u32, "as Kafka's own tests have it");
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[test]
fn plain_refuses_a_retraction_and_writes_nothing_of_it() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[], &[]));
    out.write(&changes(&[(1, "a", 1)], 10)).unwrap();
    let error = out.write(&changes(&[(2, "b", 1), (1, "a", -1)], 20)).unwrap_err();
    assert!(error.message.starts_with("sink out: FORMAT PLAIN holds insertions only, but totals retracted a row at epoch 20"), "{error}");
    out.flush(Epoch(20)).unwrap();
    assert_eq!(kafka.read_all(&topic).len(), 1);
}

#[test]
fn a_topic_that_does_not_exist_is_unavailable_until_it_does() {
    let kafka = broker::shared();
    let topic = broker::unused_topic();
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[], &[]));
    let error = out.write(&changes(&[(1, "a", 1)], 10)).unwrap_err();
    assert_eq!((error.kind, error.message), (Kind::Unavailable, format!("sink out: topic {topic} does not exist; create it, or check the name")));
    kafka.create(&topic, 1, TopicReplication::Fixed(1), &[]);
    let deadline = std::time::Instant::now() + broker::DEADLINE;
    while let Err(error) = out.write(&changes(&[(1, "a", 1)], 10)) {
        assert!(error.kind == Kind::Unavailable && std::time::Instant::now() < deadline, "{error}");
    }
    out.flush(Epoch(10)).unwrap();
    assert_eq!(kafka.read_all(&topic).len(), 1);
}

#[test]
fn a_record_that_is_too_large_is_an_error_that_says_what_to_raise() {
    let kafka = broker::shared();
    let topic = kafka.topic_with(1, TopicReplication::Fixed(1), &[("max.message.bytes", "2000")]);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[], &[]));
    out.write(&changes(&[(1, &"x".repeat(5_000), 1)], 10)).unwrap();
    let error = out.flush(Epoch(10)).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("is larger than topic") && error.message.contains("max.message.bytes"), "{error}");
    assert_eq!(out.write(&changes(&[(2, "b", 1)], 20)).unwrap_err().message, error.message);
}

#[test]
fn a_record_that_is_too_large_may_be_dropped_and_those_beside_it_arrive() {
    let kafka = broker::shared();
    // By the client, which knows its own limit, and by the broker, which refuses a batch as a whole.
    for options in [&[("properties.message.max.bytes", "2000")][..], &[]] {
        let topic = kafka.topic_with(1, TopicReplication::Fixed(1), &[("max.message.bytes", "2000")]);
        let all = [&[("on_reject", "drop")], options].concat();
        let mut out = open(&sink(&kafka.servers, &topic, Format::Upsert, &[0], &all));
        let (small, large) = ("x".repeat(300), "y".repeat(4000));
        let names: Vec<&str> = (0..20).map(|id| if id == 7 { large.as_str() } else { small.as_str() }).collect();
        let rows: Vec<(i128, &str, i64)> = names.iter().zip(0..).map(|(name, id)| (id, *name, 1)).collect();
        out.write(&changes(&rows, 10)).unwrap();
        out.flush(Epoch(10)).unwrap();
        let keys: Vec<String> = kafka.read_all(&topic).iter().map(|record| told(record).0).collect();
        assert_eq!(keys, (0..20).filter(|id| *id != 7).map(|id| id.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_null_in_a_key_is_an_error_that_says_what_to_do_or_is_dropped() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let rows = vec![row(1, Some("a"), None, None), row(2, None, None, None), row(3, Some("c"), None, None)];
    let changes = Batch::inserts(batch(&rows), Epoch(10));
    let error = open(&sink(&kafka.servers, &topic, Format::Upsert, &[1], &[])).write(&changes).unwrap_err();
    let expected = "sink out: totals has a NULL in its key at epoch 10; leave such rows out of the view, or set on_reject = 'drop'";
    assert_eq!((error.kind, error.message.as_str()), (Kind::Data, expected));
    let mut out = open(&sink(&kafka.servers, &topic, Format::Upsert, &[1], &[("on_reject", "drop")]));
    out.write(&changes).unwrap();
    assert_eq!(out.flush(Epoch(10)).unwrap(), 2);
    assert_eq!(kafka.read_all(&topic).iter().map(|record| told(record).0).collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn positions_go_on_after_a_restore() {
    let kafka = broker::shared();
    let topic = kafka.topic(1);
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[], &[]));
    out.restore(40).unwrap();
    out.write(&changes(&[(1, "a", 1), (2, "b", 1)], 10)).unwrap();
    assert_eq!(out.flush(Epoch(10)).unwrap(), 42);
}

#[test]
fn many_rows_go_through_a_small_queue() {
    let kafka = broker::shared();
    let topic = kafka.topic(2);
    let small = [("properties.queue.buffering.max.messages", "100")];
    let mut out = open(&sink(&kafka.servers, &topic, Format::Plain, &[0], &small));
    for epoch in 0..5 {
        let rows: Vec<(i128, &str, i64)> = (0..1_000).map(|id| (epoch * 1_000 + id, "x", 1)).collect();
        out.write(&changes(&rows, epoch as u64)).unwrap();
    }
    out.flush(Epoch(5)).unwrap();
    let got = read(&source(&kafka.servers, &topic, &bounded(&[])));
    let mut ids = [got.ids(0), got.ids(1)].concat();
    assert!(got.ids(0).is_sorted() && got.ids(1).is_sorted(), "each key's partition keeps the order of writing");
    ids.sort_unstable();
    assert_eq!(ids, (0..5_000).collect::<Vec<i128>>());
}
