//! Ten times as many events as a pipeline can take, for a while: through Kafka, and by HTTP. In: a Kafka of its own. Out: memory, refusals and lag
//! meanwhile; fails if memory goes beyond its limit, anything is lost or comes twice, or the lag does not come back to zero.
//! Arguments: seconds (30), events a second that the pipeline may take at most (20,000).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use freshet::PipelineQueries;
use freshet_benches::{Broker, PAYMENT_COLUMNS, Role, payment_json, resident_bytes, wait_until};
use freshet_connectors::PipelineConnectors;
use freshet_core::Reader;
use freshet_engine::{Engine, EngineConfig};
use freshet_serving::{Listeners, Server};
use freshet_sql::{Script, compile};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
const TIMES: u64 = 10;
/// Beyond what the process has before: 64 MiB in librdkafka, 48 MiB decoded behind it or 64 MiB pushed, five steps of 32 MiB each, the views.
const MEMORY_MAX: u64 = 384 << 20;
/// What capacity is measured with.
const WARM_ROWS: u64 = 500_000;
const HISTORY_MS: u64 = 1_000;
const CLIENTS: u64 = 8;
const POST_ROWS: u64 = 250;
const LOOK: Duration = Duration::from_millis(100);
const GULP: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, servers, topic, rate, seconds] = arguments.as_slice()
        && role == "offer"
    {
        return offer(servers, topic, rate.parse()?, seconds.parse()?);
    }
    let arguments: Vec<u64> = arguments
        .iter()
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context("the arguments are whole numbers: seconds, events per second")?;
    let (seconds, limit) = (arguments.first().copied().unwrap_or(30), arguments.get(1).copied().unwrap_or(20_000));
    ensure!(seconds > 0 && limit > 0, "there must be something to measure");
    let mut broker = Broker::start()?;
    let capacity = capacity(&mut broker)?;
    let held = capacity.min(limit);
    println!("the pipeline takes {capacity} events/s here; it is held at {held}, and {TIMES} times as many are offered for {seconds} s");
    through_kafka(&mut broker, seconds, held).context("through Kafka")?;
    drop(broker);
    by_http(seconds, held).context("by HTTP")
}

fn engine(source: &str, held: Option<u64>, connectors: &PipelineConnectors) -> Result<Engine> {
    let text = format!(
        "SET clock = 'wall';
         CREATE SOURCE payments ({PAYMENT_COLUMNS}) WITH ({source}) FORMAT PLAIN ENCODE JSON;
         CREATE MATERIALIZED VIEW per_card AS SELECT card, count(*) AS payments, sum(amount) AS amount FROM payments GROUP BY card;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS payments, sum(CAST(id AS DOUBLE)) AS ids FROM payments;"
    );
    let program = compile(&[Script { name: "burst.sql".into(), text }], &BTreeMap::new(), connectors).map_err(|error| anyhow!("{error}"))?;
    // Without a history: the changes that readers of the past may ask for come with the events a second, not with a burst.
    let config = EngineConfig { events_per_second: held, history_ms: HISTORY_MS, ..EngineConfig::default() };
    Engine::start(program.plan, config, connectors).context("starting the engine")
}

fn from_kafka(servers: &str, topic: &str) -> String {
    format!("connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}'")
}

/// Events a second, at full speed.
fn capacity(broker: &mut Broker) -> Result<u64> {
    broker.topic("capacity", PARTITIONS)?;
    let mut filling = Role::start(&["offer", &broker.servers, "capacity", &(WARM_ROWS * 100).to_string(), "0"])?;
    let filled: u64 = filling.line()?.parse()?;
    let engine = engine(&from_kafka(&broker.servers, "capacity"), None, &PipelineConnectors::new(None))?;
    let reader = engine.reader();
    wait(&engine, "the first event", || Ok(reader.status().events > 0))?;
    let (before, begin) = (reader.status().events, Instant::now());
    wait(&engine, "all events", || Ok(reader.status().events >= filled))?;
    let rate = (filled - before) as f64 / begin.elapsed().as_secs_f64();
    engine.shutdown().context("stopping the engine")?;
    Ok(rate as u64)
}

fn through_kafka(broker: &mut Broker, seconds: u64, held: u64) -> Result<()> {
    broker.topic("burst", PARTITIONS)?;
    let engine = engine(&from_kafka(&broker.servers, "burst"), Some(held), &PipelineConnectors::new(None))?;
    let reader = engine.reader();
    wait(&engine, "the source runs", || Ok(reader.status().sources[0].lag_rows == Some(0)))?;
    let mut memory = Memory::begin()?;
    let mut offering = Role::start(&["offer", &broker.servers, "burst", &(TIMES * held).to_string(), &seconds.to_string()])?;
    let (begin, mut lag_max) = (Instant::now(), 0);
    let mut look = || {
        memory.look()?;
        lag_max = lag_max.max(reader.status().sources[0].lag_rows.unwrap_or(0));
        anyhow::Ok(())
    };
    while offering.runs()? {
        look()?;
        thread::park_timeout(LOOK);
    }
    let sent: u64 = offering.line()?.parse()?;
    let offered = begin.elapsed();
    wait(&engine, "the lag falls to zero", || {
        look()?;
        let status = reader.status();
        Ok(status.events >= sent && status.sources[0].lag_rows == Some(0))
    })?;
    let drained = begin.elapsed();
    nothing_is_lost(&engine, sent, (sent as f64 - 1.0) * sent as f64 / 2.0)?;
    engine.shutdown().context("stopping the engine")?;
    println!(
        "  Kafka: {sent} events offered in {:.1} s, the lag was {lag_max} at most and zero after {:.1} s; nothing lost, nothing twice; {memory}",
        offered.as_secs_f64(),
        drained.as_secs_f64()
    );
    Ok(())
}

fn by_http(seconds: u64, held: u64) -> Result<()> {
    let connectors = PipelineConnectors::new(None);
    let engine = engine("connector = 'push'", Some(held), &connectors)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting a runtime")?;
    let (address, server) = runtime.block_on(async {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(anywhere, anywhere).await.context("opening the ports")?;
        let (address, reader) = (listeners.http(), engine.reader());
        let queries = Arc::new(PipelineQueries::new(reader.clone()));
        anyhow::Ok((address, Server::start_with(listeners, "burst", reader, queries, Some(connectors.pushes()), None)))
    })?;
    let mut memory = Memory::begin()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let pause = Duration::from_secs_f64((CLIENTS * POST_ROWS) as f64 / (TIMES * held) as f64);
    let clients: Vec<_> = (0..CLIENTS).map(|client| thread::spawn(move || push(address, client, pause, end))).collect();
    while clients.iter().any(|client| !client.is_finished()) {
        memory.look()?;
        thread::park_timeout(LOOK);
    }
    let (mut taken, mut refused, mut ids) = (0, 0, 0.0);
    for client in clients {
        let sent = client.join().map_err(|_| anyhow!("a client failed"))??;
        taken += sent.taken;
        refused += sent.refused;
        ids += sent.ids;
    }
    let reader = engine.reader();
    wait(&engine, "the queue is empty", || {
        memory.look()?;
        Ok(reader.status().events >= taken)
    })?;
    nothing_is_lost(&engine, taken, ids)?;
    runtime.block_on(server.shutdown());
    engine.shutdown().context("stopping the engine")?;
    println!("  HTTP: {taken} events taken, {refused} answered with 429; nothing lost, nothing twice; {memory}");
    ensure!(refused > 0, "nothing was refused: the burst was none");
    Ok(())
}

/// What one client has sent.
#[derive(Default)]
struct Sent {
    taken: u64,
    refused: u64,
    ids: f64,
}

/// Posts at its pace; what is refused comes again, under the name that it had.
fn push(address: SocketAddr, client: u64, pause: Duration, end: Instant) -> Result<Sent> {
    let (mut sent, mut batch, mut next) = (Sent::default(), 0, Instant::now());
    while Instant::now() < end {
        let first = (batch * CLIENTS + client) * POST_ROWS;
        let mut body = Vec::new();
        for id in first..first + POST_ROWS {
            body.extend(payment_json(id));
            body.push(b'\n');
        }
        match post(address, &format!("{client}-{batch}"), &body)? {
            200 => {
                sent.taken += POST_ROWS;
                sent.ids += (first..first + POST_ROWS).sum::<u64>() as f64;
                batch += 1;
            }
            429 => sent.refused += POST_ROWS,
            other => anyhow::bail!("a push was answered with {other}"),
        }
        next += pause;
        wait_until(next);
    }
    Ok(sent)
}

fn post(address: SocketAddr, name: &str, body: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(address).context("connecting")?;
    let head = format!(
        "POST /v1/ingest/payments HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nX-Freshet-Batch-Id: {name}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).context("sending a push")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the answer to a push")?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("the answer to a push is no HTTP: {answer:?}"))
}

/// The view holds each event once.
fn nothing_is_lost(engine: &Engine, events: u64, ids: f64) -> Result<()> {
    let reader = engine.reader();
    wait(engine, "the view is complete", || Ok(content(reader.as_ref())?.0 >= events as i64))?;
    let (count, sum) = content(reader.as_ref())?;
    ensure!(count == events as i64 && sum == ids, "{events} events were sent, whose numbers add up to {ids}; the view has {count} and {sum}");
    Ok(())
}

fn content(reader: &dyn Reader) -> Result<(i64, f64)> {
    let snapshot = reader.snapshot(&["total"], None)?;
    let Some(row) = snapshot.views[0].iter().find(|batch| batch.num_rows() > 0) else { return Ok((0, 0.0)) };
    let sum = row.column(1).as_primitive::<Float64Type>().iter().next().flatten();
    Ok((row.column(0).as_primitive::<Int64Type>().value(0), sum.unwrap_or(0.0)))
}

/// Waits for it for as long as the engine runs and gets on.
fn wait(engine: &Engine, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    const STUCK: Duration = Duration::from_secs(30);
    let reader = engine.reader();
    let mut seen = (0, Instant::now());
    while !holds()? {
        let status = reader.status();
        ensure!(status.failure.is_none(), "{what}: the pipeline has failed: {}", status.failure.unwrap_or_default());
        if status.events != seen.0 {
            seen = (status.events, Instant::now());
        }
        ensure!(seen.1.elapsed() < STUCK, "{what}: nothing has come for {} s", STUCK.as_secs());
        thread::park_timeout(LOOK / 10);
    }
    Ok(())
}

/// Memory since some moment.
struct Memory {
    before: u64,
    most: u64,
}

impl Memory {
    fn begin() -> Result<Memory> {
        let before = resident_bytes()?;
        Ok(Memory { before, most: before })
    }

    /// Errors: it is too much.
    fn look(&mut self) -> Result<()> {
        self.most = self.most.max(resident_bytes()?);
        ensure!(self.most - self.before <= MEMORY_MAX, "memory: {self}");
        Ok(())
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB more than before at most, {} MiB are the limit", (self.most - self.before) >> 20, MEMORY_MAX >> 20)
    }
}

/// The other role: writes payments at this rate for so long, or half a million of them at once, and prints how many there are.
fn offer(servers: &str, topic: &str, rate: u64, seconds: u64) -> Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .context("creating a producer")?;
    let total = if seconds == 0 { WARM_ROWS } else { rate * seconds };
    let gulp = (rate as f64 * GULP.as_secs_f64()).max(1.0) as u64;
    let (mut id, mut next) = (0, Instant::now());
    while id < total {
        for id in id..(id + gulp).min(total) {
            let record = payment_json(id);
            let mut pending = BaseRecord::<(), [u8]>::to(topic).payload(&record).partition((id % u64::from(PARTITIONS)) as i32);
            while let Err((error, back)) = producer.send(pending) {
                ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "filling {topic}: {error}");
                thread::park_timeout(GULP);
                pending = back;
            }
        }
        id = (id + gulp).min(total);
        next += GULP;
        wait_until(next);
    }
    producer.flush(Duration::from_secs(60)).with_context(|| format!("filling {topic}"))?;
    println!("{total}");
    Ok(())
}
