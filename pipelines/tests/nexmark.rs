//! The queries of Nexmark, each answered three times: by the engine over the same events cut in every way, by the interpreter of its plan, and by
//! DataFusion over its text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use freshet_connectors::BuiltIn;
use freshet_core::{Connectors, Epoch, NodeId, Op, Plan, Poll, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::{Program, Script, batch, compile};
use freshet_testkit::compare::{accumulate, assert_roughly_same, same};
use freshet_testkit::{Interpreter, MemoryConnectors, RawRecord, assign_epochs};

const EVENTS: usize = 2_000;
/// 2,000 events in 40 seconds: four windows of ten.
const RATE: usize = 50;
/// The queries whose operators are there.
const LIVE: [u32; 18] = [0, 1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 20, 21, 22];
/// PROCTIME() is the epoch of a row, which no batch query knows.
const SILENT: [u32; 1] = [12];
/// How many epochs the three answers are compared at.
const EPOCHS: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nexmark")
}

fn script(name: &str, text: String) -> Script {
    Script { name: name.into(), text }
}

/// The query as a view `v` and a sink `out`.
fn program(query: u32) -> Program {
    let events = std::fs::read_to_string(folder().join("events.sql")).unwrap();
    let text = std::fs::read_to_string(folder().join(format!("q{query}.sql"))).unwrap();
    let (before, select) = text.split_once(&format!("INSERT INTO nexmark_q{query}\n")).unwrap();
    let before = before.split_once(&format!("CREATE TABLE nexmark_q{query}")).unwrap().0;
    let view = format!("{before}CREATE MATERIALIZED VIEW v AS\n{select}\nCREATE SINK out FROM v WITH (connector = 'blackhole')");
    let variables = [("events", EVENTS), ("rate", RATE)].map(|(name, value)| (name.to_string(), value.to_string()));
    let scripts = [script("events.sql", events), script(&format!("q{query}.sql"), view)];
    compile(&scripts, &BTreeMap::from(variables), &BuiltIn).unwrap_or_else(|error| panic!("q{query}: {error}"))
}

/// What the connector makes of the declared source.
fn events(plan: &Plan) -> Vec<RawRecord> {
    let mut source = BuiltIn.open_source(&plan.sources[0]).unwrap();
    let mut records = Vec::new();
    while let Poll::Batch(batch) = source.poll(512).unwrap() {
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
    for change in connectors.sink("out") {
        *sums.entry((change.epoch, change.row)).or_default() += change.diff;
    }
    sums.into_iter().filter(|(_, diff)| *diff != 0).map(|((epoch, row), diff)| (row, epoch, diff)).collect()
}

fn check(query: u32) {
    let program = program(query);
    let plan = &program.plan;
    assert_eq!(plan.sources.len(), 1, "q{query} reads the stream of events once");
    let records = events(plan);
    let view = plan.view("v").unwrap().node;
    let input = assign_epochs(&plan.sources[0], 0, &records).unwrap().rows;
    let interpreter = Interpreter::new(plan, vec![input]);
    let fresh = |seed| MemoryConnectors::new(seed).with_source(&plan.sources[0].name, records.clone());
    let changes = run(plan, &fresh(0), 1, StepCut::All);
    assert!(!changes.is_empty(), "q{query} has no answer");
    for (seed, (workers, cut)) in (1..).zip([(2, StepCut::All), (1, StepCut::Epochs(7)), (2, StepCut::Epochs(1)), (1, StepCut::Rows(512))]) {
        let other = run(plan, &fresh(seed), workers, cut);
        assert!(changes == other, "q{query}, {workers} workers, {cut:?}: {} changes, {} with one step", other.len(), changes.len());
    }
    let source = plan.nodes.iter().position(|node| matches!(node.op, Op::Source { .. })).map(|index| NodeId(index as u32)).unwrap();
    let end = interpreter.end();
    let first = plan.sources[0].options.get("start").map_or(1_436_918_400_000, |_| unreachable!("the script names no start"));
    for part in 1..=EPOCHS as u64 {
        let epoch = if part == EPOCHS as u64 { end } else { Epoch(first + (end.0 - first) * part / EPOCHS as u64) };
        let expected = interpreter.content(view, epoch);
        let found = accumulate(changes.iter().filter(|change| change.1 <= epoch).map(|(row, _, diff)| (row.clone(), *diff)));
        if let Err(difference) = same(&expected, &found) {
            panic!("q{query} at {epoch}: {difference}\n{}", freshet_core::explain(plan));
        }
        if SILENT.contains(&query) {
            continue;
        }
        let tables = BTreeMap::from([(plan.sources[0].name.clone(), interpreter.batch(source, epoch).unwrap())]);
        let answer = batch::evaluate(&program, "v", &tables, epoch).unwrap_or_else(|error| panic!("q{query}: {error}"));
        assert_roughly_same(&format!("q{query} at {epoch}"), 0, &freshet_testkit::compare::content_of([&answer]).unwrap(), &expected);
    }
}

#[test]
fn c1_nexmark_queries_equal_interpreter_and_datafusion() {
    LIVE.into_iter().for_each(check);
}

#[test]
fn nexmark_is_made_where_it_is_declared() {
    let program = program(2);
    let direct = {
        let connectors = MemoryConnectors::new(0).with_source("datagen", events(&program.plan));
        run(&program.plan, &connectors, 1, StepCut::All)
    };
    let kept: usize = direct.len();
    let engine = Engine::start(program.plan.clone(), EngineConfig::default(), &BuiltIn).unwrap();
    engine.wait().unwrap();
    let view = engine.reader().status().views.into_iter().find(|view| view.name == "v").unwrap();
    engine.shutdown().unwrap();
    assert_eq!(view.rows as usize, kept);
}
