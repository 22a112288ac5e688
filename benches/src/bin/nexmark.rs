//! The queries of Nexmark, in Flink's text, over events in memory. In: plain batches of 8,192 rows made before anything is measured. Out: for each
//! query events per CPU-second of the whole process with 1 and 2 workers, from batches and from JSON; what came out, counted and hashed; the
//! state in bytes; and whether the gate is met. Fails if 1 and 2 workers give different rows.
//!
//! Arguments: queries (q0 …; default: all that compile), and `--events N` (2,000,000), `--rate N` events per second of event time (10,000),
//! `--rounds N` (3), `--json`, `--state` (q5, q7, q8 at 5 and 10 million events made while they are read), `--explain`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use freshet_benches::{
    Counted, Events, Measurement, NexmarkConnectors, Series, nexmark_batches, nexmark_json, nexmark_query, nexmark_source, process_clock,
};
use freshet_connectors::BuiltIn;
use freshet_core::{Plan, explain};
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Script, compile};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events per CPU-second that a query must reach with one worker.
const GATES: [(&str, f64); 16] = [
    ("q0", 2e6),
    ("q1", 2e6),
    ("q2", 2e6),
    ("q3", 8e5),
    ("q4", 3e5),
    ("q5", 5e5),
    ("q6", 3e5),
    ("q7", 5e5),
    ("q8", 8e5),
    ("q9", 3e5),
    ("q15", 2e5),
    ("q16", 2e5),
    ("q17", 2e5),
    ("q18", 2e5),
    ("q19", 2e5),
    ("q20", 2e5),
];
/// CPU-seconds per event with two workers, as a multiple of those with one.
const TWO_WORKERS_MAX: f64 = 1.15;
const STATE_TOLD: Duration = Duration::from_millis(1_100);
/// State at twice the events, as a multiple.
const STATE_GROWTH_MAX: f64 = 1.2;

struct Arguments {
    queries: Vec<String>,
    events: u64,
    rate: u64,
    rounds: usize,
    json: bool,
    state: bool,
    explain: bool,
}

fn arguments() -> Result<Arguments> {
    let mut given = Arguments { queries: Vec::new(), events: 2_000_000, rate: 10_000, rounds: 3, json: false, state: false, explain: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).with_context(|| format!("{word} takes a whole number"));
        match word.as_str() {
            "--events" => given.events = number()?,
            "--rate" => given.rate = number()?,
            "--rounds" => given.rounds = number()?.max(1) as usize,
            "--json" => given.json = true,
            "--state" => given.state = true,
            "--explain" => given.explain = true,
            query if query.starts_with('q') => given.queries.push(query.to_string()),
            other => bail!("{other} is neither a query, such as q5, nor --events, --rate, --rounds, --json, --state or --explain"),
        }
    }
    Ok(given)
}

fn main() -> Result<()> {
    let given = arguments()?;
    if given.state {
        return states(&given);
    }
    let all: Vec<String> = (0..=22).map(|query| format!("q{query}")).collect();
    let chosen = if given.queries.is_empty() { &all } else { &given.queries };
    let mut plans = Vec::new();
    for query in chosen {
        match plan(query, given.events, given.rate) {
            Ok(plan) => plans.push((query, plan)),
            Err(error) if given.queries.is_empty() => println!("{query:>4}  not yet: {}", error.to_string().lines().next().unwrap_or_default()),
            Err(error) => return Err(error),
        }
    }
    let source = nexmark_source(&plans.first().context("no query compiles")?.1)?.clone();
    let begin = Instant::now();
    let batches = nexmark_batches(&source, given.events)?;
    let json = given.json.then(|| nexmark_json(&source, given.events)).transpose()?;
    println!(
        "{} events made in {:.1} s; {} a second of event time; {} rounds",
        given.events,
        begin.elapsed().as_secs_f64(),
        given.rate,
        given.rounds
    );
    println!("query   1 worker  2 workers  ratio       JSON       gate      changes       rows  hash              state");
    for (query, plan) in plans {
        if given.explain {
            println!("{}", explain(&plan));
        }
        measure(query, &plan, &given, &batches, json.as_ref())?;
    }
    Ok(())
}

fn measure(query: &str, plan: &Plan, given: &Arguments, batches: &Events, json: Option<&Events>) -> Result<()> {
    let mut variants = vec![("1 worker", batches, 1), ("2 workers", batches, 2)];
    variants.extend(json.map(|json| ("JSON", json, 1)));
    let mut series: Vec<Series> = variants.iter().map(|(name, _, _)| Series { name: (*name).into(), runs: Vec::new() }).collect();
    let mut first: Option<Ran> = None;
    for _ in 0..given.rounds {
        for ((name, events, workers), series) in variants.iter().zip(&mut series) {
            let ran = run(plan, events, *workers, given.events).with_context(|| format!("{query}, {name}"))?;
            series.runs.push(ran.measurement);
            let known = first.get_or_insert_with(|| ran.clone());
            ensure!(ran.counted == known.counted, "{query}, {name}: {:?} came out, and {:?} before", ran.counted, known.counted);
        }
    }
    let first = first.context("nothing was measured")?;
    let rate = |place: usize| series.get(place).and_then(Series::per_cpu_second).map_or(0.0, |spread| spread.median);
    let (one, two) = (rate(0), rate(1));
    let gate = GATES.iter().find(|(name, _)| *name == query).map_or(0.0, |(_, gate)| *gate);
    let verdict = match gate {
        0.0 => "-".to_string(),
        gate if one < gate => format!("{gate:.0} MISSED"),
        gate => format!("{gate:.0} ok"),
    };
    let ratio = format!("{:.2}{}", one / two, if one / two > TWO_WORKERS_MAX { "!" } else { "" });
    let (rows, bytes) = first.states.values().fold((0, 0), |sum, state| (sum.0 + state.0, sum.1 + state.1));
    let Counted { changes, rows: left, hash } = first.counted;
    println!(
        "{query:>5} {one:>10.0} {two:>10.0} {ratio:>6} {:>10.0} {verdict:>15} {changes:>9} {left:>9}  {hash:016x}  {:.1} MiB, {:.0} B a row",
        rate(2),
        bytes as f64 / 1048576.0,
        bytes as f64 / rows.max(1) as f64
    );
    Ok(())
}

/// The state of windowed queries must not grow with the stream.
fn states(given: &Arguments) -> Result<()> {
    let usual = ["q5", "q7", "q8"].map(String::from);
    let chosen = if given.queries.is_empty() { usual.as_slice() } else { given.queries.as_slice() };
    for query in chosen {
        let mut bytes = Vec::new();
        for events in [5_000_000, 10_000_000] {
            let ran = run(&plan(query, events, given.rate)?, &Events::Made, 1, events)?;
            println!("{query} after {events} events");
            for (operator, (rows, size)) in &ran.states {
                println!("  {operator}: {rows} rows, {size} bytes, {:.0} a row", *size as f64 / (*rows).max(1) as f64);
            }
            bytes.push(ran.states.values().map(|state| state.1).sum::<u64>());
        }
        let growth = bytes[1] as f64 / bytes[0].max(1) as f64;
        println!("{query}: {} bytes, then {}: {growth:.2} times{}", bytes[0], bytes[1], if growth > STATE_GROWTH_MAX { " MISSED" } else { " ok" });
    }
    Ok(())
}

/// The query over so many events, ending in its sink alone.
fn plan(query: &str, events: u64, rate: u64) -> Result<Plan> {
    let (sources, query) = nexmark_query(query)?;
    let script = |name: &str, text: String| Script { name: name.into(), text };
    let variables = [("events", events), ("rate", rate)].map(|(name, value)| (name.to_string(), value.to_string()));
    let scripts = [script("events.sql", sources), script("query.sql", query)];
    let program = compile(&scripts, &BTreeMap::from(variables), &BuiltIn).map_err(|error| anyhow!("{error}"))?;
    Ok(Plan { views: Vec::new(), ..program.plan })
}

/// One run.
#[derive(Clone)]
struct Ran {
    measurement: Measurement,
    counted: Counted,
    /// Rows and bytes of each operator with state.
    states: BTreeMap<String, (u64, u64)>,
}

fn run(plan: &Plan, events: &Events, workers: usize, expected: u64) -> Result<Ran> {
    let connectors = NexmarkConnectors::new(events.clone());
    let begin = Instant::now();
    let before = process_clock(begin)?;
    let engine = Engine::start(plan.clone(), EngineConfig { workers, ..EngineConfig::default() }, &connectors).context("starting the engine")?;
    engine.wait().context("reading the events")?;
    let after = process_clock(begin)?;
    // Workers tell the size of their state once a second.
    std::thread::park_timeout(STATE_TOLD);
    let status = engine.reader().status();
    engine.shutdown().context("stopping the engine")?;
    ensure!(status.events == expected, "{} of {expected} events came through", status.events);
    let mut states: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for operator in status.operators.iter().filter(|operator| !operator.name.starts_with("read of")) {
        let sum = states.entry(operator.name.clone()).or_default();
        *sum = (sum.0 + operator.rows, sum.1 + operator.bytes);
    }
    let measurement =
        Measurement { units: expected, wall_seconds: after.wall_seconds - before.wall_seconds, cpu_seconds: after.cpu_seconds - before.cpu_seconds };
    Ok(Ran { measurement, counted: connectors.counted(), states })
}
