//! What it costs to read a topic into a counted view, beside a bare librdkafka consumer that parses the same records. In: a Kafka of its own.
//! Out: CPU-seconds per million records of each, and the ratios; median, least and greatest of interleaved runs. Before that, what decoding alone costs.
//! Arguments: rounds (5), records (1,000,000).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use freshet_benches::{
    Broker, PAYMENT_AVRO, PAYMENT_COLUMNS, PAYMENT_PROTO, Series, Spread, Variant, interleaved, parse_avro_by_hand, parse_with_serde_json,
    parse_with_sonic, payment_avro, payment_json, payment_proto,
};
use freshet_connectors::{BuiltIn, NoMetadata, Record, RecordDecoder, Rows};
use freshet_core::{Plan, SourceDef};
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Script, compile};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
const WAIT: Duration = Duration::from_secs(30);
/// What decoding alone is measured with.
const DECODED: u64 = 8_192;
const DECODED_TIMES: u64 = 60;

/// An encoding: its name, how a record is written, and what the source says of it.
struct Encoding {
    name: &'static str,
    record: fn(u64) -> Vec<u8>,
    clause: String,
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context("the arguments are whole numbers: rounds, records")?;
    let (rounds, records) = (arguments.first().copied().unwrap_or(5), arguments.get(1).copied().unwrap_or(1_000_000));
    let encodings = [
        Encoding { name: "JSON", record: payment_json, clause: "ENCODE JSON".into() },
        Encoding { name: "Avro", record: payment_avro, clause: format!("ENCODE AVRO (schema = '{PAYMENT_AVRO}')") },
        Encoding { name: "Protobuf", record: payment_proto, clause: format!("ENCODE PROTOBUF (schema = '{PAYMENT_PROTO}', message = 'Payment')") },
    ];
    let parse_json = decoders(&encodings, rounds)?;
    let [json, avro, _] = &encodings;
    let mut broker = Broker::start()?;
    for encoding in [json, avro] {
        broker.topic(encoding.name, PARTITIONS)?;
        fill(&broker.servers, encoding, records)?;
    }
    let servers = broker.servers.clone();
    let bare = |encoding: &Encoding, parse: Parser| consume(&servers, encoding.name, records, parse);
    let (mut json_bare, mut json_ours) = (|| bare(json, parse_json), || count(&servers, json, records));
    let (mut avro_bare, mut avro_ours) = (|| bare(avro, parse_avro_by_hand), || count(&servers, avro, records));
    let mut variants: Vec<Variant> = vec![
        ("JSON, bare consumer", &mut json_bare),
        ("JSON, counted view", &mut json_ours),
        ("Avro, bare consumer", &mut avro_bare),
        ("Avro, counted view", &mut avro_ours),
    ];
    let series = interleaved(rounds as usize, &mut variants)?;
    println!("{records} records from {PARTITIONS} partitions of a topic, {rounds} interleaved runs");
    for series in &series {
        let (median, least, greatest) = cost(series)?;
        println!("  {:<22} {median:.2} ({least:.2} to {greatest:.2}) CPU-seconds per million records", series.name);
    }
    for (name, pair) in [("JSON", &series[..2]), ("Avro", &series[2..])] {
        let times = pair[0].runs.iter().zip(&pair[1].runs).map(|(bare, ours)| ours.cpu_seconds / bare.cpu_seconds);
        let Spread { median, min, max } = Spread::of(times).context("nothing was measured")?;
        println!("  {name}: ours costs {median:.2} ({min:.2} to {max:.2}) times the bare consumer");
    }
    Ok(())
}

/// Whether it could read a record.
type Parser = fn(&[u8]) -> bool;

/// Prints what decoding alone costs on one core, and gives the fastest bare parser of JSON.
fn decoders(encodings: &[Encoding], rounds: u64) -> Result<Parser> {
    let written: Vec<Vec<Vec<u8>>> = encodings.iter().map(|encoding| (0..DECODED).map(encoding.record).collect()).collect();
    let parsers: [(&str, usize, Parser); 3] = [
        ("JSON, serde_json alone", 0, parse_with_serde_json),
        ("JSON, sonic-rs alone", 0, parse_with_sonic),
        ("Avro, by hand", 1, parse_avro_by_hand),
    ];
    let mut works: Vec<(String, Work)> = Vec::new();
    for (encoding, payloads) in encodings.iter().zip(&written) {
        let def = source(encoding)?;
        let mut decoder = RecordDecoder::open(&def)?;
        let mut rows = Rows::new(def.schema.clone());
        works.push((format!("{} to columns", encoding.name), Box::new(move || decode(&mut decoder, &mut rows, payloads))));
    }
    for (name, place, parse) in parsers {
        let payloads = &written[place];
        works.push((name.into(), Box::new(move || parse_all(parse, payloads))));
    }
    let mut variants: Vec<Variant> = works.iter_mut().map(|(name, work)| (name.as_str(), work.as_mut() as _)).collect();
    let series = interleaved(rounds as usize, &mut variants)?;
    println!("decoding alone, on one core; records have {} bytes", written.iter().map(|of| of[7].len().to_string()).collect::<Vec<_>>().join(", "));
    for series in &series {
        println!("  {:<22} {} records per CPU-second", series.name, series.per_cpu_second().context("nothing was measured")?);
    }
    let rate = |place: usize| series[place].per_cpu_second().map_or(0.0, |rate| rate.median);
    Ok(if rate(encodings.len()) > rate(encodings.len() + 1) { parse_with_serde_json } else { parse_with_sonic })
}

type Work<'w> = Box<dyn FnMut() -> Result<u64> + 'w>;

fn decode(decoder: &mut RecordDecoder, rows: &mut Rows, payloads: &[Vec<u8>]) -> Result<u64> {
    let mut decoded = 0;
    for _ in 0..DECODED_TIMES {
        for (payload, offset) in payloads.iter().zip(0..) {
            let record = Record { key: None, payload: Some(payload), offset, origin: "", metadata: &NoMetadata };
            decoder.decode(&record, rows).map_err(|wait| anyhow!("{}", wait.reason))?;
        }
        let batch = rows.finish(0, DECODED)?;
        ensure!(batch.dead_letters.is_empty(), "{:?}", batch.dead_letters[0]);
        decoded += std::hint::black_box(batch).rows.num_rows() as u64;
    }
    Ok(decoded)
}

fn parse_all(parse: Parser, payloads: &[Vec<u8>]) -> Result<u64> {
    for _ in 0..DECODED_TIMES {
        ensure!(payloads.iter().all(|payload| parse(payload)), "a record cannot be parsed");
    }
    Ok(DECODED_TIMES * payloads.len() as u64)
}

/// CPU-seconds per million records.
fn cost(series: &Series) -> Result<(f64, f64, f64)> {
    let rate = series.per_cpu_second().context("nothing was measured")?;
    Ok((1e6 / rate.median, 1e6 / rate.max, 1e6 / rate.min))
}

fn fill(servers: &str, encoding: &Encoding, records: u64) -> Result<()> {
    let topic = encoding.name;
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "2000000")
        .create()
        .context("creating a producer")?;
    for id in 0..records {
        let record = (encoding.record)(id);
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
fn consume(servers: &str, topic: &str, records: u64, parse: Parser) -> Result<u64> {
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
fn count(servers: &str, encoding: &Encoding, records: u64) -> Result<u64> {
    let engine = Engine::start(plan(servers, encoding)?, EngineConfig::default(), &BuiltIn).context("starting the engine")?;
    engine.wait().context("reading the topic")?;
    let events = engine.reader().status().events;
    engine.shutdown().context("stopping the engine")?;
    ensure!(events == records, "{events} of {records} records came through");
    Ok(events)
}

fn plan(servers: &str, encoding: &Encoding) -> Result<Plan> {
    let Encoding { name, clause, .. } = encoding;
    let text = format!(
        "SET clock = 'wall';
         CREATE SOURCE payments ({PAYMENT_COLUMNS})
         WITH (connector = 'kafka', bootstrap.servers = '{servers}', topic = '{name}', scan.bounded.mode = 'latest-offset') FORMAT PLAIN {clause};
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS payments, sum(amount) AS amount FROM payments;"
    );
    let program = compile(&[Script { name: "ingest.sql".into(), text }], &BTreeMap::new(), &BuiltIn).map_err(|error| anyhow!("{error}"))?;
    Ok(program.plan)
}

/// The source alone.
fn source(encoding: &Encoding) -> Result<SourceDef> {
    plan("127.0.0.1:1", encoding)?.sources.into_iter().next().context("the plan has no source")
}
