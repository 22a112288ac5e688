//! Lookups of one key over DoExchange beside a replay of the year, at a fixed rate whether or not answers come (open loop). In: the folder
//! that prepare.py wrote. Out: median, p99 and maximum of the latencies, from the scheduled sending on, and of a 1 ms timer in the same run.
//! Arguments: seconds (30), lookups per second (200), events per second (20,000).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightClient, FlightDescriptor};
use freshet::PipelineQueries;
use freshet_benches::{Latencies, data_folder, lateness, plan, wait_until};
use freshet_connectors::BuiltIn;
use freshet_engine::{Engine, EngineConfig};
use freshet_serving::{Listeners, Server};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The replay is under way, and the connection open, before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<Vec<u64>, _>>();
    let arguments = arguments.context("the arguments are whole numbers: seconds, lookups per second, events per second")?;
    let argument = |place: usize, default: u64| arguments.get(place).copied().unwrap_or(default);
    let (seconds, rate, events_per_second) = (argument(0, 30), argument(1, 200), argument(2, 20_000));
    ensure!(seconds > 0 && rate > 0, "there must be something to measure");
    let data = data_folder()?;
    let config = EngineConfig { events_per_second: Some(events_per_second), ..EngineConfig::default() };
    let engine = Engine::start(plan(&data)?, config, &BuiltIn).context("starting the engine")?;
    let serving = Builder::new_multi_thread().worker_threads(2).thread_name("serving").enable_all().build().context("starting a runtime")?;
    // One thread: hand-overs within a client are not what is measured.
    let asking = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let (address, server) = serving.block_on(serve(&engine))?;
    let keys = keys(&data)?;
    let before = engine.reader().status().events;
    let begin = Instant::now();
    let (lookups, timer) = measure(&asking, address, keys, rate, seconds * rate)?;
    let replayed = (engine.reader().status().events - before) as f64 / begin.elapsed().as_secs_f64();
    println!("{} lookups of one key, {rate}/s open loop, beside {replayed:.0} events/s", lookups.len());
    println!("  lookup by DoExchange   {}", Latencies::of(lookups));
    println!("  1 ms timer             {}", Latencies::of(timer));
    serving.block_on(server.shutdown());
    engine.shutdown().context("stopping the engine")
}

async fn serve(engine: &Engine) -> Result<(SocketAddr, Server)> {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = Listeners::bind(anywhere, anywhere).await.context("opening the ports")?;
    let (address, reader) = (listeners.flight(), engine.reader());
    let queries = Arc::new(PipelineQueries::new(reader.clone()));
    Ok((address, Server::start(listeners, "flight_delay", reader, queries)))
}

/// The schedules: each row brings every entity and request column of the service.
fn keys(data: &Path) -> Result<RecordBatch> {
    let file = std::fs::File::open(data.join("schedules.parquet")).context("opening schedules.parquet")?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    let batches = builder.build()?.collect::<Result<Vec<RecordBatch>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The latencies of `count` lookups, and of a timer beside them.
fn measure(asking: &Runtime, address: SocketAddr, keys: RecordBatch, rate: u64, count: u64) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let begin = Instant::now() + WARM_UP;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let timer = thread::spawn(move || lateness(begin, &stopped));
    let every = Duration::from_secs(1) / u32::try_from(rate).context("so many lookups per second cannot be scheduled")?;
    let (asks, batches) = unbounded();
    let sender = thread::spawn(move || send(&asks, &keys, begin, every, count));
    let lookups = asking.block_on(receive(address, batches, begin, every));
    stop.store(true, Ordering::Relaxed);
    sender.join().map_err(|_| anyhow!("the sending thread failed"))?;
    let timer = timer.join().map_err(|_| anyhow!("the timer failed"))?;
    let lookups = lookups?;
    ensure!(lookups.len() as u64 == count, "{} answers to {count} lookups", lookups.len());
    Ok((lookups, timer))
}

/// Sends one key at each scheduled instant, whether or not the last is answered.
fn send(asks: &UnboundedSender<Result<RecordBatch, FlightError>>, keys: &RecordBatch, begin: Instant, every: Duration, count: u64) {
    for number in 0..count {
        wait_until(begin + every * number as u32);
        // A stride that shares no factor with the number of rows visits keys of the whole year.
        let row = (number as usize * 7_919) % keys.num_rows();
        if asks.unbounded_send(Ok(keys.slice(row, 1))).is_err() {
            return;
        }
    }
}

/// Answers come in the order of the questions.
async fn receive(
    address: SocketAddr,
    batches: impl futures::Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
    begin: Instant,
    every: Duration,
) -> Result<Vec<Duration>> {
    let channel = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await.context("connecting")?;
    let descriptor = FlightDescriptor::new_path(vec!["features".into(), "delay_features".into()]);
    let asks = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(batches);
    let mut answers = FlightClient::new(channel).do_exchange(asks).await.context("opening the exchange")?;
    let mut latencies = Vec::new();
    while let Some(answer) = answers.next().await {
        ensure!(answer?.num_rows() == 1, "one answer per lookup");
        latencies.push((begin + every * latencies.len() as u32).elapsed());
    }
    Ok(latencies)
}
