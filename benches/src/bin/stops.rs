//! A receiver of a sink, or a reader of a subscription, that stops for a while. In: a Kafka of its own, and a webhook's receiver in a process that
//! is stopped by SIGSTOP. Out: how long an event takes to show in a lookup before, meanwhile and afterwards; fails if features differ from those of
//! a run that nothing followed, or if the sink or the reader has not got every change in the end.
//! Arguments: seconds (30), events per second (5,000).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use freshet_benches::{Broker, Latencies, Role, wait_until};
use freshet_connectors::BuiltIn;
use freshet_core::{FeatureRequest, ReadMode, Reader, SubscribeRequest};
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Script, compile};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
const CARDS: u64 = 1_000;
/// Every so manieth payment goes to the sink.
const SUNK: u64 = 10;
/// Before and after.
const AROUND: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_millis(10);
const GULP: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follower {
    Nobody,
    Sink,
    Subscription,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["receiver"] {
        return receive();
    }
    let arguments: Vec<u64> = arguments
        .iter()
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context("the arguments are whole numbers: seconds, events per second")?;
    let (seconds, rate) = (arguments.first().copied().unwrap_or(30), arguments.get(1).copied().unwrap_or(5_000));
    ensure!(seconds > 0 && rate > 0, "there must be something to measure");
    let mut broker = Broker::start()?;
    println!("from sending an event to the first lookup that sees it, beside {rate} events/s");
    for (follower, name) in [
        (Follower::Nobody, "nothing follows"),
        (Follower::Sink, "a sink's receiver stops"),
        (Follower::Subscription, "a subscription's reader stops"),
    ] {
        let topic = format!("payments-{}", follower as u8);
        broker.topic(&topic, PARTITIONS)?;
        println!("  {name}{}", if follower == Follower::Nobody { String::new() } else { format!(" for {seconds} s") });
        follow(&broker.servers, &topic, follower, (seconds, rate)).with_context(|| name.to_string())?;
    }
    Ok(())
}

fn start(servers: &str, topic: &str, hook: Option<u16>, folder: Option<PathBuf>) -> Result<Engine> {
    let sink = hook.map(|port| {
        format!(
            "CREATE SINK hook FROM picked WITH (connector = 'webhook', url = 'http://127.0.0.1:{port}/', batch = '1000') FORMAT PLAIN ENCODE JSON;"
        )
    });
    let text = format!(
        "SET clock = 'wall';
         CREATE SOURCE payments (id BIGINT, card VARCHAR, amount DOUBLE, at TIMESTAMP(3), WATERMARK FOR at)
         WITH (connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}') FORMAT PLAIN ENCODE JSON;
         CREATE FEATURE VIEW spending ENTITY (card) TIMESTAMP at WINDOWS ('1 day') AS
         SELECT card, count(*) AS payments, sum(amount) AS amount FROM payments GROUP BY card;
         CREATE FEATURE SERVICE asked AS (spending);
         CREATE MATERIALIZED VIEW picked AS SELECT id, card, amount FROM payments WHERE id % {SUNK} = 0;
         {}",
        sink.unwrap_or_default()
    );
    let program = compile(&[Script { name: "stops.sql".into(), text }], &BTreeMap::new(), &BuiltIn).map_err(|error| anyhow!("{error}"))?;
    Engine::start(program.plan, EngineConfig { data_dir: folder, ..EngineConfig::default() }, &BuiltIn).context("starting the engine")
}

/// One run with such a follower, which stops in the middle of it.
fn follow(servers: &str, topic: &str, follower: Follower, (seconds, rate): (u64, u64)) -> Result<()> {
    let mut receiver = if follower == Follower::Sink { Some(Role::start(&["receiver"])?) } else { None };
    let port = receiver.as_mut().map(|receiver| anyhow::Ok(receiver.line()?.parse()?)).transpose()?;
    let folder = std::env::temp_dir().join(format!("freshet-stops-{}-{topic}", std::process::id()));
    let engine = start(servers, topic, port, Some(folder.clone()))?;
    let reader = engine.reader();
    let stopped = Arc::new(AtomicBool::new(false));
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let failed = Arc::new(Mutex::new(None));
    if follower == Follower::Subscription {
        let request = SubscribeRequest { view: "picked".into(), snapshot: true, reader: "bench".into(), ..SubscribeRequest::default() };
        let (stopped, told, failed, reader) = (stopped.clone(), told.clone(), failed.clone(), reader.clone());
        thread::spawn(move || {
            if let Err(error) = read_on(reader.as_ref(), &request, &stopped, &told) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
    }
    let producer = producer(servers)?;
    let begin = Instant::now() + Duration::from_secs(2);
    let (stop_at, go_on_at) = (begin + AROUND, begin + AROUND + Duration::from_secs(seconds));
    let end = go_on_at + AROUND;
    let feeding = {
        let (producer, topic) = (producer.clone(), topic.to_string());
        thread::spawn(move || feed(&producer, &topic, rate, end))
    };
    wait_until(begin);
    let mut phases: [Vec<Duration>; 3] = Default::default();
    let (mut next, mut probes) = (begin, 0);
    while Instant::now() < end {
        let phase = [stop_at, go_on_at].iter().filter(|border| Instant::now() >= **border).count();
        if stopped.load(Relaxed) != (phase == 1) {
            stopped.store(phase == 1, Relaxed);
            if let Some(receiver) = &receiver {
                receiver.signal(if phase == 1 { "STOP" } else { "CONT" })?;
            }
        }
        phases[phase].push(probe(&producer, topic, reader.as_ref(), probes)?);
        probes += 1;
        next = (next + PROBE_EVERY).max(Instant::now());
        wait_until(next);
    }
    let sent = feeding.join().map_err(|_| anyhow!("the feeder failed"))??;
    for (name, latencies) in ["before", "meanwhile", "afterwards"].into_iter().zip(phases) {
        println!("    {name:<11} {}", Latencies::of(latencies));
    }
    let expected: BTreeSet<i64> = (0..sent as i64).step_by(SUNK as usize).collect();
    if follower == Follower::Subscription {
        until("the reader gets on", || {
            if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            Ok(told.lock().unwrap_or_else(PoisonError::into_inner).len() >= expected.len())
        })?;
        ensure!(*told.lock().unwrap_or_else(PoisonError::into_inner) == expected, "the reader was told of other rows");
        println!("    the reader was told of all {} rows in the end", expected.len());
    }
    if let Some(mut receiver) = receiver {
        until("the receiver gets on", || Ok(reader.status().sinks[0].queue_depth == 0))?;
        receiver.close();
        let got: usize = receiver.line()?.parse()?;
        ensure!(got == expected.len(), "the receiver has {got} of {} rows", expected.len());
        println!("    the receiver has all {got} rows in the end");
    }
    let features = features(reader.as_ref(), sent)?;
    engine.shutdown().context("stopping the engine")?;
    let _ = std::fs::remove_dir_all(&folder);
    let alone = start(servers, topic, None, None)?;
    ensure!(features == self::features(alone.reader().as_ref(), sent)?, "features differ from those of a run that nothing followed");
    println!("    features of {CARDS} cards equal those of a run that nothing followed");
    alone.shutdown().context("stopping the engine")
}

/// Of all cards, once all events are in.
fn features(reader: &dyn Reader, sent: u64) -> Result<RecordBatch> {
    let cards: Vec<String> = (0..CARDS).map(card).collect();
    let mut found = None;
    until("all events are there", || {
        let Ok(features) = lookup(reader, &cards) else { return Ok(false) };
        let payments: i64 = features.column(0).as_primitive::<Int64Type>().iter().flatten().sum();
        found = Some(features);
        Ok(payments as u64 >= sent)
    })?;
    found.context("no lookup was answered")
}

fn lookup(reader: &dyn Reader, cards: &[String]) -> Result<RecordBatch> {
    let keys: arrow::array::ArrayRef = Arc::new(StringArray::from_iter_values(cards));
    let rows = RecordBatch::try_from_iter([("card", keys)])?;
    Ok(reader.features(&FeatureRequest { service: "asked".into(), rows, mode: ReadMode::Fresh })?.features)
}

/// Sends an event of a card that nobody has had, and looks until it shows.
fn probe(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, reader: &dyn Reader, number: u64) -> Result<Duration> {
    let card = format!("probe-{number}");
    let since = Instant::now();
    send(producer, topic, -1 - number as i64, &card)?;
    loop {
        let shown = lookup(reader, std::slice::from_ref(&card)).is_ok_and(|features| {
            let payments = features.column(0).as_primitive::<Int64Type>();
            payments.iter().flatten().sum::<i64>() > 0
        });
        if shown {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < LONG, "probe {number} does not show");
        thread::park_timeout(Duration::from_micros(500));
    }
}

fn producer(servers: &str) -> Result<Arc<ThreadedProducer<DefaultProducerContext>>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("linger.ms", "0").set("acks", "1").set("queue.buffering.max.messages", "1000000");
    Ok(Arc::new(config.create().context("creating a producer")?))
}

fn card(number: u64) -> String {
    format!("card-{number}")
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, id: i64, card: &str) -> Result<()> {
    let record = format!("{{\"id\":{id},\"card\":\"{card}\",\"amount\":{},\"at\":{}}}", id.rem_euclid(9_000) as f64 / 7.0, now_ms());
    let partition = id.rem_euclid(i64::from(PARTITIONS)) as i32;
    producer.send(BaseRecord::<(), str>::to(topic).payload(&record).partition(partition)).map_err(|(error, _)| anyhow!("{error}"))
}

/// Sends payments at this rate until then; how many.
fn feed(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, rate: u64, end: Instant) -> Result<u64> {
    let gulp = ((rate as f64 * GULP.as_secs_f64()) as u64).max(1);
    let (mut id, mut next) = (0, Instant::now());
    while Instant::now() < end {
        for id in id..id + gulp {
            send(producer, topic, id as i64, &card(id % CARDS))?;
        }
        id += gulp;
        next += GULP;
        wait_until(next);
    }
    producer.flush(LONG).context("sending the last events")?;
    Ok(id)
}

/// Milliseconds since 1970, as a producer stamps its events.
#[allow(clippy::disallowed_methods, reason = "a producer has a clock")]
fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Notes the payments that the view tells of, except while it is to stand still.
fn read_on(reader: &dyn Reader, request: &SubscribeRequest, stopped: &AtomicBool, told: &Mutex<BTreeSet<i64>>) -> Result<()> {
    let mut subscription = loop {
        match reader.subscribe(request) {
            Ok(subscription) => break subscription,
            Err(error) if error.message.contains("complete") => thread::park_timeout(GULP),
            Err(error) => return Err(error.into()),
        }
    };
    loop {
        while stopped.load(Relaxed) {
            thread::park_timeout(GULP);
        }
        let Some(news) = subscription.next(Duration::from_millis(100))? else { return Ok(()) };
        let Some(changes) = news.changes else { continue };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        for id in changes.column(0).as_primitive::<Int64Type>().iter().flatten().filter(|id| *id >= 0) {
            ensure!(told.insert(id), "payment {id} was told twice");
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !holds()? {
        ensure!(begin.elapsed() < LONG, "not within {} s: {what}", LONG.as_secs());
        thread::park_timeout(GULP);
    }
    Ok(())
}

/// The other role: takes in what a webhook posts, prints its port, and at the end of its input how many payments there were.
fn receive() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("opening a port")?;
    println!("{}", listener.local_addr()?.port());
    let ids: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let all = ids.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ids = ids.clone();
            thread::spawn(move || answer(stream, &ids));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", all.lock().unwrap_or_else(PoisonError::into_inner).len());
    Ok(())
}

fn answer(stream: TcpStream, ids: &Mutex<BTreeSet<i64>>) -> Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&body)?;
        ids.lock().unwrap_or_else(PoisonError::into_inner).extend(rows.iter().filter_map(|row| row["id"].as_i64()).filter(|id| *id >= 0));
        output.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
