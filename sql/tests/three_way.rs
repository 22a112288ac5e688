//! Three answers to one question: the engine (incremental), the interpreter of the same plan, and DataFusion batch over the same SQL.
//!
//! Engine and interpreter differ: an operator is wrong. Interpreter and DataFusion differ: the lowering is.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use freshet_core::{Epoch, Format, NodeId, Op, Plan, SourceDef, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::{Program, batch, compile};
use freshet_testkit::compare::{assert_roughly_same, content_of};
use freshet_testkit::generate::{Shape, records};
use freshet_testkit::{InputRow, Interpreter, MemoryConnectors, assign_epochs};

use crate::given::script;

pub const SOURCES: &str = "
SET clock = 'event';
CREATE SOURCE plain (id BIGINT, k VARCHAR, g INT, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE changing (k VARCHAR, h INT, y DOUBLE, flag BOOLEAN, at TIMESTAMP, WATERMARK FOR at) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
";

pub const SHAPE: Shape = Shape {
    rows: 60,
    keys: 4,
    partitions: 1,
    start_ms: 1_735_689_600_000,
    step_ms: 1_000,
    late_ms: 30_000,
    late: 0.2,
    duplicates: 0.1,
    retractions: 0.2,
    stray_retractions: 0.0,
    nulls: 0.1,
    special_floats: 0.1,
    large_integers: 0.0,
    broken: 0.0,
};

/// Whom else to ask.
#[derive(Clone, Copy, PartialEq)]
pub enum Batch {
    /// DataFusion answers it too.
    Asked,
    /// Lookups, ties of T8, HOP and forgotten keys are the interpreter's business.
    Silent,
}

pub struct Question {
    pub name: &'static str,
    pub text: &'static str,
    pub batch: Batch,
}

pub const fn asked(name: &'static str, text: &'static str) -> Question {
    Question { name, text, batch: Batch::Asked }
}

pub const fn silent(name: &'static str, text: &'static str) -> Question {
    Question { name, text, batch: Batch::Silent }
}

const QUESTIONS: [Question; 24] = [
    asked("project", "CREATE MATERIALIZED VIEW v AS SELECT id, x * 2 AS double, upper(k) AS upper, coalesce(g, -1) AS g FROM plain"),
    asked("filter", "CREATE MATERIALIZED VIEW v AS SELECT * FROM changing WHERE y > 0 AND (flag OR h > 1)"),
    // DataFusion decides by batch whether the right side of AND runs.
    silent("guard", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g <> 0 AND 10 / g > 1"),
    asked("join", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.y, c.k FROM plain p JOIN changing c ON p.k = c.k"),
    asked("join_residual", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p JOIN changing c ON p.k = c.k AND p.x > c.y"),
    asked("join_computed", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p JOIN changing c ON p.g + 1 = c.h WHERE p.x < 5"),
    asked("join_itself", "CREATE MATERIALIZED VIEW v AS SELECT a.h, b.y FROM changing a JOIN changing b ON a.k = b.k AND a.h = b.h"),
    asked(
        "aggregate",
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, count(y) AS ys, sum(y) AS s, avg(y) AS a, min(y) AS lo, max(y) AS hi, sum(h) AS hs,
         var_samp(y) AS vs, var_pop(y) AS vp, stddev(y) AS ss, stddev_pop(y) AS sp, bool_and(flag) AS every, bool_or(flag) AS some FROM changing GROUP BY k",
    ),
    asked(
        "aggregate_distinct",
        "CREATE MATERIALIZED VIEW v AS SELECT h, count(DISTINCT k) AS ks, count(*) FILTER (WHERE y > 0) AS p, sum(y) FILTER (WHERE flag) AS f, sum(DISTINCT h) AS d
         FROM changing GROUP BY h",
    ),
    // DataFusion adds floats up in its own order, and 1e16 would show.
    asked(
        "quality",
        "CREATE MATERIALIZED VIEW v AS SELECT k, auc(y, flag) AS a, auc(y, h) FILTER (WHERE y > 0) AS positive, log_loss(1 / (1 + exp(0 - y)), flag) AS l,
         brier(1 / (1 + exp(0 - y)), flag) AS b FROM changing GROUP BY k",
    ),
    asked("quality_global", "CREATE MATERIALIZED VIEW v AS SELECT auc(h, flag) AS a, log_loss(h, flag) AS l, brier(h, flag) AS b, count(*) AS n FROM changing"),
    asked("aggregate_global", "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(h) AS s, max(at) AS last FROM changing WHERE flag"),
    asked("having", "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM changing GROUP BY k HAVING count(*) > 2"),
    asked("distinct", "CREATE MATERIALIZED VIEW v AS SELECT DISTINCT k, flag FROM changing"),
    asked("union", "CREATE MATERIALIZED VIEW v AS SELECT k, g AS n FROM plain UNION ALL SELECT k, h FROM changing WHERE flag"),
    asked("union_distinct", "CREATE MATERIALIZED VIEW v AS SELECT k FROM plain UNION SELECT k FROM changing"),
    asked("scalar_subquery", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE x > (SELECT avg(y) FROM changing)"),
    asked("in_subquery", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE k IN (SELECT k FROM changing WHERE flag)"),
    asked("temporal", "CREATE MATERIALIZED VIEW v AS SELECT id, k FROM plain WHERE ts > now() - INTERVAL '10 seconds' AND ts <= now() - INTERVAL '2 seconds'"),
    asked(
        "rolling",
        "CREATE FEATURE VIEW v ENTITY (k) TIMESTAMP ts WINDOWS ('5 seconds', '1 minute') AS
         SELECT k, count(*) AS n, sum(x) AS s, avg(x) AS a, min(x) AS lo, max(x) AS hi, stddev(x) AS d FROM plain WHERE k IS NOT NULL GROUP BY k",
    ),
    silent(
        "rolling_hop",
        "CREATE FEATURE VIEW v ENTITY (k, g) TIMESTAMP ts TTL INTERVAL '30 seconds' HOP INTERVAL '5 seconds' WITH (include_now = true) AS
         SELECT k, g, count(*) FILTER (WHERE ts > now() - INTERVAL '20 seconds' AND x > 0) AS n, sum(x) AS total FROM plain GROUP BY k, g",
    ),
    silent("latest", "CREATE FEATURE VIEW v ENTITY (k) TIMESTAMP at TTL INTERVAL '1 minute' AS SELECT k, y, flag FROM changing"),
    // Rows that differ only in columns the lookup does not carry along are one row to it.
    silent(
        "lookup_changing",
        "CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP ts WINDOWS ('20 seconds') AS SELECT k, count(*) AS n, sum(x) AS s FROM plain GROUP BY k;
         CREATE FEATURE SERVICE features AS (load);
         CREATE MATERIALIZED VIEW v AS SELECT c.h, c.flag, f.* FROM changing c LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF now() AS f USING (k)",
    ),
    silent(
        "lookup",
        "CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP at WINDOWS ('20 seconds') AS SELECT k, count(*) AS n, sum(y) AS s FROM changing GROUP BY k;
         CREATE FEATURE VIEW last ENTITY (g) TIMESTAMP ts AS SELECT g, x FROM plain;
         CREATE FEATURE SERVICE features REQUEST (id BIGINT) AS (load, last, id);
         CREATE MATERIALIZED VIEW v AS SELECT p.id AS question, f.*, f.status FROM plain p
         LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF now() AS f USING (k, g, id)",
    ),
];

#[test]
fn c1_engine_interpreter_and_datafusion_agree_at_every_epoch() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        for seed in 0..3 {
            check(question, number as u64 * 100 + seed, &Shape { special_floats: 0.0, ..SHAPE });
        }
    }
}

/// NaN, infinities, sums that overflow: DataFusion neither sums exactly nor keeps the other rows of a batch.
#[test]
fn c4_engine_and_interpreter_agree_on_wild_values() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        let question = Question { batch: Batch::Silent, ..*question };
        for seed in 50..52 {
            check(&question, number as u64 * 100 + seed, &Shape { special_floats: 0.15, large_integers: 0.15, nulls: 0.2, ..SHAPE });
        }
    }
}

const UPSERTS: &str = "
SET clock = 'event';
CREATE SOURCE plain (id BIGINT, k VARCHAR, g INT, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE accounts (k VARCHAR, region INT, y DOUBLE, flag BOOLEAN, at TIMESTAMP(3), PRIMARY KEY (k, region) NOT ENFORCED, WATERMARK FOR at)
  WITH (connector = 'memory') FORMAT UPSERT ENCODE JSON;
CREATE SOURCE owners (k VARCHAR PRIMARY KEY NOT ENFORCED, y DOUBLE, at TIMESTAMP, told TIMESTAMP(3), WATERMARK FOR at, ARRIVAL FOR told,
  LATENESS INTERVAL '20 seconds') WITH (connector = 'memory') FORMAT UPSERT ENCODE JSON;
";

const OF_UPSERTS: [Question; 8] = [
    asked("upsert", "CREATE MATERIALIZED VIEW v AS SELECT * FROM accounts"),
    asked("upsert_late", "CREATE MATERIALIZED VIEW v AS SELECT k, y, told FROM owners"),
    asked("upsert_filter", "CREATE MATERIALIZED VIEW v AS SELECT k, region, y * 2 AS y FROM accounts WHERE flag AND y > 0"),
    asked(
        "upsert_aggregate",
        "CREATE MATERIALIZED VIEW v AS SELECT region, count(*) AS n, sum(y) AS s, max(at) AS last FROM accounts GROUP BY region",
    ),
    asked("upsert_join", "CREATE MATERIALIZED VIEW v AS SELECT p.id, a.region, a.y FROM plain p JOIN accounts a ON p.k = a.k"),
    asked("upsert_joins", "CREATE MATERIALIZED VIEW v AS SELECT a.region, o.y, a.flag FROM owners o JOIN accounts a ON o.k = a.k"),
    asked("upsert_temporal", "CREATE MATERIALIZED VIEW v AS SELECT k, region FROM accounts WHERE at > now() - INTERVAL '20 seconds'"),
    silent(
        "upsert_lookup",
        "CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP at WINDOWS ('20 seconds') AS SELECT k, count(*) AS n, sum(y) AS s FROM accounts GROUP BY k;
         CREATE FEATURE VIEW owner ENTITY (k) TIMESTAMP at AS SELECT k, y FROM owners;
         CREATE FEATURE SERVICE features AS (load, owner.y AS owner);
         CREATE MATERIALIZED VIEW v AS SELECT p.id, f.* FROM plain p LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF now() AS f USING (k)",
    ),
];

#[test]
fn t8_rows_that_replace_each_other_by_key_agree_at_every_epoch() {
    for (number, question) in OF_UPSERTS.iter().enumerate() {
        for seed in 0..3 {
            let shape = Shape { special_floats: 0.0, stray_retractions: 0.05, partitions: 1 + seed as u32, keys: 3, ..SHAPE };
            check_over(UPSERTS, question, 20_000 + number as u64 * 100 + seed, &shape);
        }
    }
}

/// The whole rolling state is known for ever, so that DataFusion knows the same keys.
#[test]
fn c1_a_lifetime_feature_view_equals_its_batch_query() {
    let question = asked(
        "rolling_lifetime",
        "CREATE FEATURE VIEW v ENTITY (k) TIMESTAMP at AS SELECT k, count(*) AS n, sum(y) FILTER (WHERE at > now() - INTERVAL '7 seconds' AND flag) AS s,
         max(y) - min(y) AS range FROM changing WHERE k IS NOT NULL GROUP BY k",
    );
    for seed in 0..4 {
        check(&question, 9_000 + seed, &Shape { special_floats: 0.0, ..SHAPE });
    }
}

pub fn check(question: &Question, seed: u64, shape: &Shape) {
    check_over(SOURCES, question, seed, shape);
}

pub fn check_over(sources: &str, question: &Question, seed: u64, shape: &Shape) {
    assert!(agrees_over(sources, question, seed, shape), "{}, seed {seed}: the question has no answer", question.name);
}

/// Whether there is an answer to agree on. Panics where two of them differ.
pub fn agrees_over(sources: &str, question: &Question, seed: u64, shape: &Shape) -> bool {
    let text = format!("{sources}{};\nCREATE SINK out FROM v WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON", question.text);
    let program = compile(&[script("three_way.sql", &text)], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap_or_else(|error| panic!("{error}"));
    let input = connectors(&program.plan, seed, shape);
    let interpreter = interpreter(&program.plan, &input);
    let view = program.plan.view("v").unwrap().node;
    let history = interpreter.history(view);
    for (index, cut) in [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::All].into_iter().enumerate() {
        let workers = [1, 2, 4][(seed as usize + index) % 3];
        let connectors = connectors(&program.plan, seed, shape);
        let config = EngineConfig { workers, cut, ..EngineConfig::default() };
        let engine = Engine::start(program.plan.clone(), config, &connectors).unwrap();
        engine.wait().unwrap();
        engine.shutdown().unwrap();
        let found = changes(&connectors);
        assert!(
            history == found,
            "{}, seed {seed}, {workers} workers, {cut:?}: {} changes expected, {} found; first difference {:?}\n{}",
            question.name,
            history.len(),
            found.len(),
            history.iter().zip(&found).find(|(expected, found)| expected != found).map(|(expected, _)| {
                let of = |changes: &[(Vec<Value>, Epoch, i64)]| changes.iter().filter(|change| change.0 == expected.0).cloned().collect::<Vec<_>>();
                (of(&history), of(&found))
            }),
            freshet_core::explain(&program.plan)
        );
    }
    if question.batch == Batch::Asked {
        check_batch(question, &program, (&interpreter, &input), view, seed);
    }
    !history.is_empty()
}

fn check_batch(question: &Question, program: &Program, (interpreter, input): (&Interpreter, &MemoryConnectors), view: NodeId, seed: u64) {
    let epochs: BTreeSet<Epoch> = interpreter.relevant_epochs(view).into_iter().filter(|epoch| *epoch <= interpreter.end()).collect();
    let stride = (epochs.len() / 12).max(1);
    for epoch in epochs.iter().copied().step_by(stride).chain(epochs.last().copied()) {
        let tables = tables_at(&program.plan, (interpreter, input), epoch);
        let answer = batch::evaluate(program, "v", &tables, epoch).unwrap_or_else(|error| panic!("{}: {error}", question.name));
        let what = format!("{} at {epoch}", question.name);
        let mut expected = content_of([&answer]).unwrap();
        let found = interpreter.content(view, epoch);
        if question.name == "rolling" {
            // Keys without an event for two minutes are forgotten here, and never by a batch query.
            expected.retain(|row, _| found.keys().any(|known| known[0] == row[0]));
        }
        assert_roughly_same(&what, seed, &expected, &found);
    }
}

pub fn tables_at(plan: &Plan, (interpreter, input): (&Interpreter, &MemoryConnectors), epoch: Epoch) -> BTreeMap<String, RecordBatch> {
    let nodes = plan.nodes.iter().enumerate().filter_map(|(index, node)| match node.op {
        Op::Source { source } => Some((source, NodeId(index as u32))),
        _ => None,
    });
    let rows = |source: usize, node| match plan.sources[source].format {
        Format::Upsert => records_until(&plan.sources[source], source, input, epoch),
        _ => interpreter.batch(node, epoch).unwrap(),
    };
    nodes.map(|(source, node)| (plan.sources[source].name.clone(), rows(source, node))).collect()
}

/// The records themselves: DataFusion finds out which rows they leave behind.
fn records_until(def: &SourceDef, source: usize, input: &MemoryConnectors, epoch: Epoch) -> RecordBatch {
    let mut records = assign_epochs(def, source, input.records(&def.name)).unwrap().rows;
    records.retain(|record| !record.dead && record.epoch <= epoch);
    records.sort_by_key(|record| (record.epoch, record.position));
    let row = |(order, record): (usize, InputRow)| {
        record.values.into_iter().chain([Value::Int(order as i128), Value::Int(record.diff.into())]).collect::<Vec<Value>>()
    };
    Value::batch_of(&batch::record_schema(def), &records.into_iter().enumerate().map(row).collect::<Vec<_>>()).unwrap()
}

pub fn connectors(plan: &Plan, seed: u64, shape: &Shape) -> MemoryConnectors {
    let mut connectors = MemoryConnectors::new(seed);
    for (index, def) in plan.sources.iter().enumerate() {
        // FORMAT PLAIN has no way to take a row back.
        let plain = def.format == freshet_core::Format::Plain;
        let shape = if plain { Shape { retractions: 0.0, stray_retractions: 0.0, ..shape.clone() } } else { shape.clone() };
        connectors = connectors.with_source(&def.name, records(seed * 31 + index as u64, def, &shape));
    }
    connectors
}

pub fn interpreter(plan: &Plan, connectors: &MemoryConnectors) -> Interpreter {
    let inputs = plan.sources.iter().enumerate().map(|(index, def)| assign_epochs(def, index, connectors.records(&def.name)).unwrap().rows);
    Interpreter::new(plan, inputs.collect())
}

pub fn changes(connectors: &MemoryConnectors) -> Vec<(Vec<Value>, Epoch, i64)> {
    let mut sums: BTreeMap<(Epoch, Vec<Value>), i64> = BTreeMap::new();
    for change in connectors.sink("out") {
        *sums.entry((change.epoch, change.row)).or_default() += change.diff;
    }
    sums.into_iter().filter(|(_, diff)| *diff != 0).map(|((epoch, row), diff)| (row, epoch, diff)).collect()
}
