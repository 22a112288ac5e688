//! How long an event takes to show in a lookup by DoExchange, through Kafka and through Flight DoPut, beside a steady stream of others. In: a Kafka
//! of its own. Out: median, p99 and maximum from the sending of a probe to the first answer that has it, and of a 1 ms timer in the same run.
//! Arguments: rounds (5), seconds a round (10), events per second (50,000).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightClient, FlightDescriptor};
use freshet::PipelineQueries;
use freshet_benches::{Broker, Latencies, lateness, wait_until};
use freshet_connectors::PipelineConnectors;
use freshet_engine::{Engine, EngineConfig};
use freshet_serving::{Listeners, Server};
use freshet_sql::{Script, compile};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
/// Keys of the steady stream; probes have keys of their own above them.
const KEYS: u64 = 10_000;
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// The stream is sent in gulps of this length: a client that sends single events would measure the client.
const GULP: Duration = Duration::from_millis(5);
const WARM_UP: Duration = Duration::from_secs(2);
/// Nothing takes so long; a probe that does was lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Sends events of these keys at once.
trait Way: Send {
    fn send(&mut self, keys: &[u64], value: u64) -> Result<()>;
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context("the arguments are whole numbers: rounds, seconds, events per second")?;
    let argument = |place: usize, default: u64| arguments.get(place).copied().unwrap_or(default);
    let (rounds, seconds, rate) = (argument(0, 5), argument(1, 10), argument(2, 50_000));
    ensure!(rounds > 0 && seconds > 0 && rate > 0, "there must be something to measure");
    let mut broker = Broker::start()?;
    println!("from sending to the first lookup that sees it, beside {rate} events/s; {rounds} interleaved rounds of {seconds} s");
    let mut all: BTreeMap<&str, (Vec<Duration>, Vec<Duration>)> = BTreeMap::new();
    for round in 0..rounds {
        let topic = format!("events-{round}");
        broker.topic(&topic, PARTITIONS)?;
        for way in ["Kafka", "DoPut"] {
            let (shown, timer) = measure(way, &broker.servers, &topic, seconds, rate).with_context(|| format!("round {round} through {way}"))?;
            let so_far = all.entry(way).or_default();
            println!("  round {round}, {way:<6} {}", Latencies::of(shown.clone()));
            so_far.0.extend(shown);
            so_far.1.extend(timer);
        }
    }
    for (way, (shown, timer)) in all {
        println!("  {way:<12} {}", Latencies::of(shown));
        println!("  1 ms timer   {}", Latencies::of(timer));
    }
    Ok(())
}

/// The latencies of probes through one way, and of a timer beside them.
fn measure(way: &str, servers: &str, topic: &str, seconds: u64, rate: u64) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let source = match way {
        "Kafka" => format!("connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}'"),
        _ => "connector = 'push'".to_string(),
    };
    let text = format!(
        "SET clock = 'wall';
         CREATE SOURCE events (key BIGINT, value BIGINT, at TIMESTAMP(3), WATERMARK FOR at) WITH ({source}) FORMAT PLAIN ENCODE JSON;
         CREATE FEATURE VIEW newest ENTITY (key) TIMESTAMP at AS SELECT key, value FROM events;
         CREATE FEATURE SERVICE asked AS (newest);"
    );
    let connectors = PipelineConnectors::new(None);
    let program = compile(&[Script { name: "freshness.sql".into(), text }], &BTreeMap::new(), &connectors).map_err(|error| anyhow!("{error}"))?;
    let engine = Engine::start(program.plan, EngineConfig::default(), &connectors).context("starting the engine")?;
    let serving = runtime("serving")?;
    let (address, server) = serving.block_on(serve(&engine, &connectors))?;
    let asking = runtime("asking")?;
    let way: Box<dyn Way> = if way == "Kafka" { Box::new(Kafka::open(servers, topic)?) } else { Box::new(Put::open(&asking, address)?) };
    let measured = probe(Exchange::open(address)?, way, seconds, rate);
    serving.block_on(server.shutdown());
    engine.shutdown().context("stopping the engine")?;
    measured
}

async fn serve(engine: &Engine, connectors: &PipelineConnectors) -> Result<(SocketAddr, Server)> {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = Listeners::bind(anywhere, anywhere).await.context("opening the ports")?;
    let (address, reader) = (listeners.flight(), engine.reader());
    let queries = Arc::new(PipelineQueries::new(reader.clone()));
    Ok((address, Server::start_with(listeners, "freshness", reader, queries, Some(connectors.pushes()), None)))
}

/// One thread sends the stream, and a probe with a key of its own every 10 ms; this one looks until the probe shows.
fn probe(mut lookups: Exchange, mut way: Box<dyn Way>, seconds: u64, rate: u64) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let (probed, stopped) = (Arc::new(AtomicU64::new(0)), stop.clone());
    let timer = thread::spawn(move || lateness(begin, &stopped));
    let sent = probed.clone();
    let sender = thread::spawn(move || -> Result<Vec<Instant>> {
        let gulp = (rate as f64 * GULP.as_secs_f64()) as u64;
        let (mut next, mut key, mut probes) = (Instant::now(), 0, Vec::new());
        let mut next_probe = begin;
        while Instant::now() < end {
            let mut keys: Vec<u64> = (0..gulp).map(|offset| (key + offset) % KEYS).collect();
            key += gulp;
            let is_probe = Instant::now() >= next_probe;
            if is_probe {
                keys.push(KEYS + probes.len() as u64);
                next_probe += PROBE_EVERY;
                probes.push(Instant::now());
            }
            way.send(&keys, key)?;
            sent.store(probes.len() as u64, Relaxed);
            next += GULP;
            wait_until(next);
        }
        Ok(probes)
    });
    let mut shown = Vec::new();
    while !sender.is_finished() || (shown.len() as u64) < probed.load(Relaxed) {
        if (shown.len() as u64) >= probed.load(Relaxed) {
            thread::park_timeout(Duration::from_micros(200));
            continue;
        }
        let since = Instant::now();
        while !lookups.has(KEYS + shown.len() as u64)? {
            ensure!(since.elapsed() < LOST_AFTER, "probe {} does not show", shown.len());
            thread::park_timeout(Duration::from_micros(200));
        }
        shown.push(Instant::now());
    }
    stop.store(true, Relaxed);
    let probes = sender.join().map_err(|_| anyhow!("the sender failed"))??;
    let timer = timer.join().map_err(|_| anyhow!("the timer failed"))?;
    ensure!(probes.len() == shown.len() && probes.len() > 100, "{} probes sent, {} shown", probes.len(), shown.len());
    Ok((probes.iter().zip(&shown).map(|(sent, shown)| shown.duration_since(*sent)).collect(), timer))
}

/// One open exchange, asked one key at a time.
struct Exchange {
    asking: Runtime,
    address: SocketAddr,
    open: Option<(UnboundedSender<Result<RecordBatch, FlightError>>, FlightRecordBatchStream)>,
}

impl Exchange {
    fn open(address: SocketAddr) -> Result<Exchange> {
        let asking = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        Ok(Exchange { asking, address, open: None })
    }

    /// Whether a lookup finds the key. Before the first epoch is complete there is no answer, and the exchange ends.
    fn has(&mut self, key: u64) -> Result<bool> {
        let schema = Schema::new(vec![Field::new("key", DataType::Int64, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![key as i64]))])?;
        let (asks, answers) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(self.asking.block_on(connect(self.address))?),
        };
        asks.unbounded_send(Ok(rows)).map_err(|_| anyhow!("the exchange has ended"))?;
        match self.asking.block_on(answers.next()).context("the exchange ended without an answer")? {
            Ok(answer) => Ok(answer.column(0).as_primitive::<Int64Type>().iter().next().flatten().is_some()),
            Err(error) if error.to_string().contains("no epoch is complete") => {
                self.open = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<(UnboundedSender<Result<RecordBatch, FlightError>>, FlightRecordBatchStream)> {
    let (asks, batches) = unbounded();
    let descriptor = FlightDescriptor::new_path(vec!["features".into(), "asked".into()]);
    let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, true)]));
    // With the schema sent at once, the exchange opens before the first key.
    let stream = FlightDataEncoderBuilder::new().with_schema(schema).with_flight_descriptor(Some(descriptor)).build(batches);
    let channel = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await.context("connecting")?;
    let answers = FlightClient::new(channel).do_exchange(stream).await.context("opening the exchange")?;
    Ok((asks, answers))
}

/// Milliseconds since 1970, as a producer stamps its events.
#[allow(clippy::disallowed_methods, reason = "a producer has a clock")]
fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

struct Kafka {
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    topic: String,
}

impl Kafka {
    fn open(servers: &str, topic: &str) -> Result<Kafka> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("linger.ms", "0").set("acks", "1").set("queue.buffering.max.messages", "1000000");
        Ok(Kafka { producer: config.create().context("creating a producer")?, topic: topic.to_string() })
    }
}

impl Way for Kafka {
    fn send(&mut self, keys: &[u64], value: u64) -> Result<()> {
        let at = now_ms();
        for key in keys {
            let record = format!("{{\"key\":{key},\"value\":{value},\"at\":{at}}}");
            let partition = (key % u64::from(PARTITIONS)) as i32;
            self.producer
                .send(BaseRecord::<(), str>::to(&self.topic).payload(&record).partition(partition))
                .map_err(|(error, _)| anyhow!("{error}"))?;
        }
        Ok(())
    }
}

/// One open DoPut stream; its acknowledgements are read and dropped by a task.
struct Put {
    batches: UnboundedSender<Result<RecordBatch, FlightError>>,
    schema: Arc<Schema>,
}

impl Put {
    fn open(asking: &Runtime, address: SocketAddr) -> Result<Put> {
        let (batches, receiver) = unbounded();
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None);
        let fields = [("key", DataType::Int64), ("value", DataType::Int64), ("at", time)];
        let schema = Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()));
        let descriptor = FlightDescriptor::new_path(vec!["source".into(), "events".into()]);
        let stream = FlightDataEncoderBuilder::new().with_schema(schema.clone()).with_flight_descriptor(Some(descriptor)).build(receiver);
        asking.spawn(async move {
            let sending = async {
                let channel = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
                let mut answers = FlightClient::new(channel).do_put(stream).await?;
                while let Some(answer) = answers.next().await {
                    answer?;
                }
                anyhow::Ok(())
            };
            if let Err(error) = sending.await {
                eprintln!("DoPut ended: {error:#}");
            }
        });
        Ok(Put { batches, schema })
    }
}

impl Way for Put {
    fn send(&mut self, keys: &[u64], value: u64) -> Result<()> {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| *key as i64))),
            Arc::new(Int64Array::from(vec![value as i64; keys.len()])),
            Arc::new(arrow::array::TimestampMillisecondArray::from(vec![now_ms(); keys.len()])),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.batches.unbounded_send(Ok(batch)).map_err(|_| anyhow!("the DoPut stream has ended"))
    }
}

fn runtime(name: &str) -> Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().context("starting a runtime")
}
