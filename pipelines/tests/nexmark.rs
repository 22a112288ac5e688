//! The queries of Nexmark, whole files from CREATE TABLE to INSERT INTO, each answered three times: by the engine over the same events cut in every
//! way, by the interpreter of its plan, and by DataFusion over its SELECT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use freshet_connectors::BuiltIn;
use freshet_core::{Connectors, Epoch, NodeId, Op, Plan, Poll, SourceDef, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::{Program, Script, batch, compile};
use freshet_testkit::compare::{accumulate, assert_roughly_same, same};
use freshet_testkit::{Interpreter, MemoryConnectors, RawRecord, assign_epochs};

const EVENTS: usize = 2_000;
/// 2,000 events in 40 seconds: four windows of ten.
const RATE: usize = 50;
/// The time of the first event, unless a script says otherwise.
const START_MS: u64 = 1_436_918_400_000;
/// PROCTIME() is the epoch of a row, which no batch query knows.
const SILENT: [u32; 1] = [12];
/// One more than the last query.
const QUERIES: u32 = 23;
/// How many epochs the three answers are compared at.
const EPOCHS: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nexmark")
}

fn script(name: &str, text: String) -> Script {
    Script { name: name.into(), text }
}

fn query_text(query: u32) -> String {
    std::fs::read_to_string(folder().join(format!("q{query}.sql"))).unwrap()
}

fn sink_of(query: u32) -> String {
    format!("nexmark_q{query}")
}

/// The whole file, sink and all; and its SELECT once more as a view `v`, for DataFusion to answer.
fn program(query: u32) -> Program {
    let events = std::fs::read_to_string(folder().join("events.sql")).unwrap();
    let text = query_text(query);
    let select = text.split_once(&format!("INSERT INTO {}\n", sink_of(query))).unwrap().1;
    // What stands still can be joined at any time.
    let select = select.replace("(SELECT *, PROCTIME() AS p_time FROM bid) B", "bid AS B").replace("FOR SYSTEM_TIME AS OF B.p_time ", "");
    let variables = [("events", EVENTS), ("rate", RATE)].map(|(name, value)| (name.to_string(), value.to_string()));
    let view = script("v.sql", format!("CREATE MATERIALIZED VIEW v AS\n{select}"));
    let scripts = [script("events.sql", events), script(&format!("q{query}.sql"), text), view];
    compile(&scripts, &BTreeMap::from(variables), &BuiltIn).unwrap_or_else(|error| panic!("q{query}: {error}"))
}

/// What the connector makes of the declared source, and every other row of a table that stands still.
fn records(plan: &Plan, source: usize) -> Vec<RawRecord> {
    if plan.sources[source].name == "side_input" {
        let row = |key: u64| vec![Value::Int((2 * key).into()), Value::Text(format!("value {key}"))];
        return (0..5_000).map(|key| RawRecord::insert(key, row(key))).collect();
    }
    let mut events = BuiltIn.open_source(&plan.sources[source]).unwrap();
    let mut records = Vec::new();
    while let Poll::Batch(batch) = events.poll(512).unwrap() {
        let rows = Value::rows_of(&batch.rows).unwrap();
        records.extend(batch.offsets.into_iter().zip(rows).map(|(offset, values)| RawRecord::insert(offset, values)));
    }
    assert_eq!(records.len(), EVENTS);
    records
}

type Changes = Vec<(Vec<Value>, Epoch, i64)>;

fn run(plan: &Plan, connectors: &MemoryConnectors, workers: usize, cut: StepCut) -> Changes {
    let engine = Engine::start(plan.clone(), EngineConfig { workers, cut, ..EngineConfig::default() }, connectors).unwrap();
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    let mut sums: BTreeMap<(Epoch, Vec<Value>), i64> = BTreeMap::new();
    for change in connectors.sink(&plan.sinks[0].name) {
        *sums.entry((change.epoch, change.row)).or_default() += change.diff;
    }
    sums.into_iter().filter(|(_, diff)| *diff != 0).map(|((epoch, row), diff)| (row, epoch, diff)).collect()
}

/// An answer as the declared types of the sink hold it.
fn as_declared(answer: &RecordBatch, plan: &Plan) -> RecordBatch {
    let schema = plan.sinks[0].schema.clone();
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = answer.columns().iter().zip(schema.fields()).map(|(column, field)| cast_with_options(column, field.data_type(), &options).unwrap());
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn check(query: u32) {
    let program = program(query);
    let plan = &program.plan;
    assert_eq!((plan.sinks.len(), &plan.sinks[0].name), (1, &sink_of(query)), "q{query}");
    assert!(plan.sources.len() == 1 + usize::from(query == 13), "q{query} reads the stream of events once");
    let records: Vec<Vec<RawRecord>> = (0..plan.sources.len()).map(|source| records(plan, source)).collect();
    let inputs = plan.sources.iter().zip(&records).enumerate().map(|(index, (def, records))| assign_epochs(def, index, records).unwrap().rows);
    let interpreter = Interpreter::new(plan, inputs.collect());
    let fresh = |seed| {
        let sources = plan.sources.iter().zip(&records);
        sources.fold(MemoryConnectors::new(seed), |connectors, (def, records)| connectors.with_source(&def.name, records.clone()))
    };
    let changes = run(plan, &fresh(0), 1, StepCut::All);
    assert!(!changes.is_empty(), "q{query} has no answer");
    for (seed, (workers, cut)) in (1..).zip([(2, StepCut::All), (1, StepCut::Epochs(7)), (2, StepCut::Epochs(1)), (1, StepCut::Rows(512))]) {
        let other = run(plan, &fresh(seed), workers, cut);
        assert!(changes == other, "q{query}, {workers} workers, {cut:?}: {} changes, {} with one step", other.len(), changes.len());
    }
    let node_of = |source: usize| {
        let reads = |op: &Op| matches!(op, Op::Source { source: own } if *own == source);
        NodeId(plan.nodes.iter().position(|node| reads(&node.op)).unwrap() as u32)
    };
    let end = interpreter.end();
    for part in 1..=EPOCHS as u64 {
        let epoch = if part == EPOCHS as u64 { end } else { Epoch(START_MS + (end.0 - START_MS) * part / EPOCHS as u64) };
        let expected = interpreter.content(plan.sinks[0].node, epoch);
        let found = accumulate(changes.iter().filter(|change| change.1 <= epoch).map(|(row, _, diff)| (row.clone(), *diff)));
        if let Err(difference) = same(&expected, &found) {
            panic!("q{query} at {epoch}: {difference}\n{}", freshet_core::explain(plan));
        }
        if SILENT.contains(&query) {
            continue;
        }
        let table = |(index, def): (usize, &SourceDef)| (def.name.clone(), interpreter.batch(node_of(index), epoch).unwrap());
        let tables = plan.sources.iter().enumerate().map(table).collect();
        let answer = batch::evaluate(&program, "v", &tables, epoch).unwrap_or_else(|error| panic!("q{query}: {error}"));
        let answer = as_declared(&answer, plan);
        assert_roughly_same(&format!("q{query} at {epoch}"), 0, &freshet_testkit::compare::content_of([&answer]).unwrap(), &expected);
    }
}

#[test]
fn c1_nexmark_queries_equal_interpreter_and_datafusion() {
    (0..QUERIES).for_each(check);
}

#[test]
fn nexmark_is_made_where_it_is_declared() {
    let program = program(2);
    let direct = {
        let connectors = MemoryConnectors::new(0).with_source("datagen", records(&program.plan, 0));
        run(&program.plan, &connectors, 1, StepCut::All)
    };
    let kept: usize = direct.len();
    let engine = Engine::start(program.plan.clone(), EngineConfig::default(), &BuiltIn).unwrap();
    engine.wait().unwrap();
    let view = engine.reader().status().views.into_iter().find(|view| view.name == "v").unwrap();
    engine.shutdown().unwrap();
    assert_eq!(view.rows as usize, kept);
}

/// The stream as Flink's own file declares it: a column for each kind, which is a row, and a time that is computed of them.
const ROWS: &str = "
SET clock = 'event';
CREATE TABLE datagen (
    event_type int,
    person ROW<id BIGINT, name VARCHAR, emailAddress VARCHAR, creditCard VARCHAR, city VARCHAR, state VARCHAR, dateTime TIMESTAMP(3), extra VARCHAR>,
    auction ROW<id BIGINT, itemName VARCHAR, description VARCHAR, initialBid BIGINT, reserve BIGINT, dateTime TIMESTAMP(3), expires TIMESTAMP(3),
        seller BIGINT, category BIGINT, extra VARCHAR>,
    bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, dateTime TIMESTAMP(3), extra VARCHAR>,
    dateTime AS CASE WHEN event_type = 0 THEN person.dateTime WHEN event_type = 1 THEN auction.dateTime ELSE bid.dateTime END,
    WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'first-event.rate' = '${rate}', 'next-event.rate' = '${rate}', 'events.num' = '${events}',
    'person.proportion' = '1', 'auction.proportion' = '3', 'bid.proportion' = '46');
CREATE VIEW person AS
SELECT person.id, person.name, person.emailAddress, person.creditCard, person.city, person.state, dateTime, person.extra FROM datagen WHERE event_type = 0;
CREATE VIEW auction AS
SELECT auction.id, auction.itemName, auction.description, auction.initialBid, auction.reserve, dateTime, auction.expires, auction.seller,
    auction.category, auction.extra FROM datagen WHERE event_type = 1;
CREATE VIEW bid AS
SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra FROM datagen WHERE event_type = 2;
";

/// What the built-in connector's events come to in the view `v`.
fn content_of_v(events: &str, query: u32) -> Vec<Vec<Value>> {
    let variables = [("events", EVENTS), ("rate", RATE)].map(|(name, value)| (name.to_string(), value.to_string()));
    let text = query_text(query);
    let select = text.split_once(&format!("INSERT INTO {}\n", sink_of(query))).unwrap().1;
    let scripts = [script("events.sql", events.into()), script("v.sql", format!("CREATE MATERIALIZED VIEW v AS\n{select}"))];
    let program = compile(&scripts, &BTreeMap::from(variables), &BuiltIn).unwrap_or_else(|error| panic!("q{query}: {error}"));
    let engine = Engine::start(program.plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &BuiltIn).unwrap();
    engine.wait().unwrap();
    let snapshot = engine.reader().snapshot(&["v"], None).unwrap();
    let mut rows: Vec<Vec<Value>> = snapshot.views[0].iter().flat_map(|batch| Value::rows_of(batch).unwrap()).collect();
    engine.shutdown().unwrap();
    rows.sort();
    rows
}

#[test]
fn flink_a_stream_of_rows_is_the_flat_one() {
    let flat = std::fs::read_to_string(folder().join("events.sql")).unwrap();
    for query in [0, 3, 5, 8, 20] {
        let found = content_of_v(ROWS, query);
        assert!(!found.is_empty());
        assert!(found == content_of_v(&flat, query), "q{query}");
    }
}

/// Every file below a folder, with its path there, in order.
fn files_below(folder: &Path) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.strip_prefix(folder).unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn flink_whole_files_run_with_the_connectors_they_name() {
    let place = tempfile::tempdir().unwrap();
    let values: String = (0..5_000).map(|key| format!("{},value {key}\n", 2 * key)).collect();
    std::fs::write(place.path().join("side_input.txt"), values).unwrap();
    let here = place.path().display().to_string();
    for query in 0..QUERIES {
        let variables = [("events", EVENTS.to_string()), ("rate", RATE.to_string()), ("out", here.clone()), ("data", here.clone())];
        let scripts = [script("events.sql", std::fs::read_to_string(folder().join("events.sql")).unwrap()), script("q.sql", query_text(query))];
        let variables = variables.map(|(name, value)| (name.to_string(), value)).into();
        let program = compile(&scripts, &variables, &BuiltIn).unwrap_or_else(|error| panic!("q{query}: {error}"));
        let engine = Engine::start(program.plan, EngineConfig::default(), &BuiltIn).unwrap();
        engine.wait().unwrap();
        let reader = engine.reader();
        engine.shutdown().unwrap();
        let sinks = reader.status().sinks;
        assert!(sinks.len() == 1 && sinks[0].rows > 0, "q{query}: {sinks:?}");
    }
    // q10: a folder for each minute; 40 seconds from midnight on have one.
    let files = files_below(&place.path().join("bid"));
    assert!(files.iter().all(|(path, _)| path.starts_with("dt=2015-07-15/hm=00%3A00/part-") && path.ends_with(".csv")), "{files:?}");
    let lines: Vec<&str> = files.iter().flat_map(|(_, text)| text.lines()).collect();
    assert_eq!(lines.len(), EVENTS / 50 * 46);
    assert!(lines.iter().all(|line| line.split(',').count() >= 5 && line.contains("2015-07-15T00:00:")), "{:?}", lines.first());
}
