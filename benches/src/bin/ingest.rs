//! What it costs to read a topic into a counted view, beside a bare librdkafka consumer that parses the same records. In: a Kafka of its own.
//! Out: CPU-seconds per million records of each, and the ratios; median, least and greatest of interleaved runs.
//! Arguments: rounds (5), records (1,000,000).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use freshet_benches::{Broker, Series, Variant, interleaved};
use freshet_connectors::BuiltIn;
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Script, compile};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
const WAIT: Duration = Duration::from_secs(30);
const JSON: &str = "payments_json";
const AVRO: &str = "payments_avro";
const AVRO_SCHEMA: &str = r#"{"type":"record","name":"payment","fields":[{"name":"id","type":"long"},{"name":"card","type":"string"},{"name":"merchant","type":"string"},{"name":"amount","type":"double"},{"name":"currency","type":"string"},{"name":"online","type":"boolean"},{"name":"at","type":"long"}]}"#;

/// What the bare consumer parses a record into.
#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed, as a program that uses them would")]
struct Payment<'a> {
    id: i64,
    card: &'a str,
    merchant: &'a str,
    amount: f64,
    currency: &'a str,
    online: bool,
    at: i64,
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context("the arguments are whole numbers: rounds, records")?;
    let (rounds, records) = (arguments.first().copied().unwrap_or(5), arguments.get(1).copied().unwrap_or(1_000_000));
    let mut broker = Broker::start()?;
    for (topic, encode) in [(JSON, json as fn(u64) -> Vec<u8>), (AVRO, avro)] {
        broker.topic(topic, PARTITIONS)?;
        fill(&broker.servers, topic, records, encode)?;
    }
    let servers = broker.servers.clone();
    let bare = |topic: &str, parse: fn(&[u8]) -> bool| consume(&servers, topic, records, parse);
    let ours = |topic: &str, encode: &str| count(&servers, topic, records, encode);
    let (mut json_bare, mut json_ours) = (|| bare(JSON, parse_json), || ours(JSON, "ENCODE JSON"));
    let avro_clause = format!("ENCODE AVRO (schema = '{AVRO_SCHEMA}')");
    let (mut avro_bare, mut avro_ours) = (|| bare(AVRO, parse_avro), || ours(AVRO, &avro_clause));
    let mut variants: Vec<Variant> = vec![
        ("JSON, bare consumer", &mut json_bare),
        ("JSON, counted view", &mut json_ours),
        ("Avro, bare consumer", &mut avro_bare),
        ("Avro, counted view", &mut avro_ours),
    ];
    let series = interleaved(rounds as usize, &mut variants)?;
    println!(
        "{records} records of {} bytes (JSON) and {} (Avro) from {PARTITIONS} partitions, {rounds} interleaved runs",
        json(7).len(),
        avro(7).len()
    );
    for series in &series {
        let (median, least, greatest) = cost(series)?;
        println!("  {:<22} {median:.2} ({least:.2} to {greatest:.2}) CPU-seconds per million records", series.name);
    }
    for (name, pair) in [("JSON", &series[..2]), ("Avro", &series[2..])] {
        println!("  {name}: ours costs {:.2} times the bare consumer", cost(&pair[1])?.0 / cost(&pair[0])?.0);
    }
    Ok(())
}

/// CPU-seconds per million records.
fn cost(series: &Series) -> Result<(f64, f64, f64)> {
    let rate = series.per_cpu_second().context("nothing was measured")?;
    Ok((1e6 / rate.median, 1e6 / rate.max, 1e6 / rate.min))
}

fn json(id: u64) -> Vec<u8> {
    format!(
        "{{\"id\":{id},\"card\":\"4{:015}\",\"merchant\":\"shop-{}\",\"amount\":{:.2},\"currency\":\"EUR\",\"online\":{},\"at\":{}}}",
        id % 50_000,
        id % 997,
        (id % 90_000) as f64 / 7.0,
        id.is_multiple_of(3),
        1_357_034_400_000 + id
    )
    .into_bytes()
}

/// The same record as Avro without a header.
fn avro(id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    long(&mut out, id as i64);
    text(&mut out, &format!("4{:015}", id % 50_000));
    text(&mut out, &format!("shop-{}", id % 997));
    out.extend(((id % 90_000) as f64 / 7.0).to_le_bytes());
    text(&mut out, "EUR");
    out.push(u8::from(id.is_multiple_of(3)));
    long(&mut out, 1_357_034_400_000 + id as i64);
    out
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(out: &mut Vec<u8>, value: &str) {
    long(out, value.len() as i64);
    out.extend(value.as_bytes());
}

fn parse_json(record: &[u8]) -> bool {
    sonic_rs::from_slice::<Payment>(record).is_ok()
}

/// By hand, field by field, as a program compiled for this schema would: nothing can be faster.
fn parse_avro(record: &[u8]) -> bool {
    let mut rest = record;
    let parsed = (|| {
        let id = take_long(&mut rest)?;
        let card = take_text(&mut rest)?;
        let merchant = take_text(&mut rest)?;
        let amount = f64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
        let currency = take_text(&mut rest)?;
        let online = take(&mut rest, 1)?[0] == 1;
        Some(Payment { id, card, merchant, amount, currency, online, at: take_long(&mut rest)? })
    })();
    std::hint::black_box(parsed).is_some()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_long(rest: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let count = take_long(rest)?;
    std::str::from_utf8(take(rest, usize::try_from(count).ok()?)?).ok()
}

fn fill(servers: &str, topic: &str, records: u64, encode: fn(u64) -> Vec<u8>) -> Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "2000000")
        .create()
        .context("creating a producer")?;
    for id in 0..records {
        let record = encode(id);
        let partition = (id % u64::from(PARTITIONS)) as i32;
        let mut pending = BaseRecord::<(), [u8]>::to(topic).payload(&record).partition(partition);
        while let Err((error, back)) = producer.send(pending) {
            ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "filling {topic}: {error}");
            std::thread::park_timeout(Duration::from_millis(5));
            pending = back;
        }
    }
    producer.flush(WAIT).with_context(|| format!("filling {topic}"))
}

/// The bare consumer.
fn consume(servers: &str, topic: &str, records: u64, parse: fn(&[u8]) -> bool) -> Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .create()
        .context("creating a consumer")?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut parsed = 0;
    while parsed < records {
        let message = consumer.poll(WAIT).with_context(|| format!("{topic} gave {parsed} of {records} records"))??;
        ensure!(message.payload().is_some_and(parse), "a record of {topic} cannot be parsed");
        parsed += 1;
    }
    Ok(parsed)
}

/// A pipeline that counts the topic and ends.
fn count(servers: &str, topic: &str, records: u64, encode: &str) -> Result<u64> {
    let text = format!(
        "SET clock = 'wall';
         CREATE SOURCE payments (id BIGINT, card VARCHAR, merchant VARCHAR, amount DOUBLE, currency VARCHAR, online BOOLEAN, at BIGINT)
         WITH (connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}', scan.bounded.mode = 'latest-offset') FORMAT PLAIN {encode};
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS payments, sum(amount) AS amount FROM payments;"
    );
    let program = compile(&[Script { name: "ingest.sql".into(), text }], &BTreeMap::new(), &BuiltIn).map_err(|error| anyhow!("{error}"))?;
    let engine = Engine::start(program.plan, EngineConfig::default(), &BuiltIn).context("starting the engine")?;
    engine.wait().context("reading the topic")?;
    let events = engine.reader().status().events;
    engine.shutdown().context("stopping the engine")?;
    ensure!(events == records, "{events} of {records} records came through");
    Ok(events)
}
