//! The rows of the loop, from SQL text to answers: predictions by the version of their epoch, their quality against DataFusion, and
//! training rows equal to what the stream looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use freshet_core::{ControlRecord, Epoch, Error, Model, NodeId, Plan, Reference, Result, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::{Program, batch, compile, skippable_sources};
use freshet_testkit::compare::{assert_roughly_same, assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::interpreter::Content;
use freshet_testkit::{MemoryConnectors, RawRecord, ScriptedControl};

use crate::given::script;
use crate::three_way::{SHAPE, SOURCES, connectors, interpreter};

const CUTS: [StepCut; 3] = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::All];

fn compiled(text: &str) -> Program {
    let script = script("loops.sql", &format!("{SOURCES}{text}"));
    compile(&[script], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap_or_else(|error| panic!("{error}"))
}

fn node(plan: &Plan, view: &str) -> NodeId {
    plan.view(view).unwrap_or_else(|| panic!("there is no view {view}")).node
}

/// The content of a view when all input has come.
fn run(plan: &Plan, view: &str, config: EngineConfig, input: &MemoryConnectors, records: &[ControlRecord]) -> Content {
    let control: Option<Box<dyn freshet_core::Control>> = if records.is_empty() { None } else { Some(Box::new(ScriptedControl::new(records))) };
    let engine = Engine::start_with(plan.clone(), config, input, control).unwrap();
    engine.wait().unwrap();
    let snapshot = engine.reader().snapshot(&[view], None).unwrap();
    engine.shutdown().unwrap();
    content_of(&snapshot.views[0]).unwrap()
}

/// sum · factor + n, logistic; fails where n is 3.
#[derive(Debug)]
struct Logistic {
    factor: f64,
}

impl Model for Logistic {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (n, sum) = (inputs[0].as_primitive::<Int64Type>(), inputs[1].as_primitive::<Float64Type>());
        if n.iter().flatten().any(|n| n == 3) {
            return Err(Error::data("3 cannot be scored"));
        }
        let score = |(n, sum): (Option<i64>, Option<f64>)| 1.0 / (1.0 + (-(sum.unwrap_or(0.5) * self.factor + n.unwrap_or(0) as f64)).exp());
        Ok(vec![Arc::new(n.iter().zip(sum).map(score).collect::<Float64Array>())])
    }

    fn batch_invariant(&self) -> bool {
        true
    }
}

fn record(epoch: u64, version: u32, promoted: bool, factor: f64) -> ControlRecord {
    let loaded = Arc::new(Logistic { factor });
    ControlRecord { epoch: Epoch(epoch), model: 0, version, promoted, loaded, reference: Arc::<Reference>::default() }
}

const PREDICTIONS: &str = "
CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP ts WINDOWS ('20 seconds') AS SELECT k, count(*) AS n, sum(x) AS s FROM plain GROUP BY k;
CREATE FEATURE SERVICE features AS (load);
CREATE MODEL m INPUT FEATURES features OUTPUT (p DOUBLE);
CREATE MATERIALIZED VIEW scored AS SELECT c.h, c.flag, f.*, PREDICT(m, f.*) AS p, PREDICT(m, f.*) * 2 AS twice, MODEL_VERSION(m) AS version,
  PREDICT(m, f.*, version => 1) AS frozen, PREDICT(m, f.*, alias => 'challenger') AS challenger
  FROM changing c LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF now() AS f USING (k);
CREATE MATERIALIZED VIEW sure AS SELECT h, p FROM scored WHERE p > 0.6;
CREATE MATERIALIZED VIEW quality AS SELECT h, count(*) AS n, auc(p, flag) AS auc_live, auc(frozen, flag) AS auc_frozen, log_loss(p, flag) AS loss_live,
  brier(frozen, flag) AS brier_frozen FROM scored WHERE p IS NOT NULL GROUP BY h;
";

#[test]
fn c1b_predictions_of_the_text_equal_the_interpreter_and_their_quality_datafusion() {
    let program = compiled(PREDICTIONS);
    for seed in 0..4u64 {
        let shape = Shape { special_floats: 0.0, ..SHAPE };
        let input = connectors(&program.plan, seed, &shape);
        let middle = SHAPE.start_ms + 40_000;
        let records = [record(0, 1, true, 0.1), record(middle, 2, true, -0.2), record(middle + 20_000, 3, false, 0.3)];
        let interpreter = interpreter(&program.plan, &input).with_records(&records);
        let end = interpreter.end();
        let expected = |view: &str| interpreter.content(node(&program.plan, view), end);
        for (index, cut) in CUTS.into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            for view in ["scored", "sure", "quality"] {
                let config = EngineConfig { workers, cut, ..EngineConfig::default() };
                let found = run(&program.plan, view, config, &connectors(&program.plan, seed, &shape), &records);
                assert_same(&format!("{view} with {workers} workers, {cut:?}"), seed, &expected(view), &found);
            }
        }
        let versions: Vec<Value> = expected("scored").keys().map(|row| row[6].clone()).collect();
        assert!(versions.contains(&Value::Int(1)) && versions.contains(&Value::Int(2)), "the model is replaced in the middle: {versions:?}");
        // The oracle judges the SQL above a prediction, which is a fact given to it.
        let given = BTreeMap::from([("scored".to_string(), interpreter.batch(node(&program.plan, "scored"), end).unwrap())]);
        for view in ["sure", "quality"] {
            let answer = batch::evaluate(&program, view, &given, end).unwrap();
            assert_roughly_same(view, seed, &content_of([&answer]).unwrap(), &expected(view));
        }
        assert!(batch::evaluate(&program, "scored", &BTreeMap::new(), end).is_err(), "no batch query knows the version of an epoch");
    }
}

const TRAINING: &str = "
CREATE SOURCE questions (id BIGINT, k VARCHAR, asked TIMESTAMP(3), w INT, WATERMARK FOR asked) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP ts WINDOWS ('5 seconds', '20 seconds') AS SELECT k, count(*) AS n, sum(x) AS s, max(x) AS hi FROM plain GROUP BY k;
CREATE FEATURE VIEW state ENTITY (k) TIMESTAMP at TTL INTERVAL '1 minute' AS SELECT k, y FROM changing;
CREATE FEATURE SERVICE features REQUEST (w INT) AS (load, state, w);
CREATE MATERIALIZED VIEW answered AS SELECT q.id, q.k, q.asked, f.* FROM questions q
  LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF now() AS f USING (k, w);
CREATE MATERIALIZED VIEW streamed AS SELECT s.id, s.asked, s.n_5s, s.n_20s, s.s_5s, s.s_20s, s.hi_5s, s.hi_20s, s.y, s.w, c.flag AS label
  FROM answered s JOIN changing c ON s.k = c.k;
CREATE TRAINING SET served ID (id) TIME (asked) LABEL (label) AS SELECT q.id, q.asked, f.*, c.flag AS label
  FROM questions q JOIN changing c ON q.k = c.k LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF arrival(q) AS f ON f.k = q.k AND f.w = q.w;
CREATE TRAINING SET known ID (id) TIME (asked) LABEL (label) WITH (mode = 'event_time') AS SELECT q.id, q.asked, f.*, c.flag AS label
  FROM questions q JOIN changing c ON q.k = c.k LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF q.asked AS f ON f.k = q.k AND f.w = q.w;
";

/// What AS OF a column is answered with: alone, with a lookup as of arrival over the same stores, and in a log of predictions.
const ASKED: &str = "
CREATE SOURCE log (id BIGINT, k VARCHAR, scored_at TIMESTAMP, w INT, told TIMESTAMP(3), WATERMARK FOR told) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE arriving (k VARCHAR, y DOUBLE, at TIMESTAMP(3), came TIMESTAMP, WATERMARK FOR at, ARRIVAL FOR came) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE FEATURE VIEW sums ENTITY (k) TIMESTAMP at WINDOWS ('20 seconds', '2 minutes') AS SELECT k, count(*) AS ys, sum(y) AS total, min(y) AS lo FROM arriving GROUP BY k;
CREATE FEATURE SERVICE all_features REQUEST (w INT) AS (load, state, sums, w);
CREATE TRAINING SET alone ID (id) TIME (asked) LABEL (label) AS SELECT q.id, q.asked, f.*, c.flag AS label
  FROM questions q JOIN changing c ON q.k = c.k LEFT JOIN FEATURES(all_features) FOR SYSTEM_TIME AS OF q.asked AS f ON f.k = q.k AND f.w = q.w;
CREATE TRAINING SET beside ID (id) TIME (asked) LABEL (label) AS SELECT q.id, q.asked, f.*, g.n_5s AS n, g.status, q.w > 0 AS label
  FROM questions q LEFT JOIN FEATURES(all_features) FOR SYSTEM_TIME AS OF q.asked AS f ON f.k = q.k AND f.w = q.w
  LEFT JOIN FEATURES(all_features) FOR SYSTEM_TIME AS OF arrival(q) AS g ON g.k = q.k AND g.w = q.w;
CREATE TRAINING SET logged ID (id) TIME (told) LABEL (label) AS SELECT l.id, l.told, f.*, l.w > 0 AS label
  FROM log l LEFT JOIN FEATURES(all_features) FOR SYSTEM_TIME AS OF l.scored_at AS f ON f.k = l.k AND f.w = l.w;
";

fn in_range(content: &Content, from: u64, until: u64) -> Content {
    let within = |row: &Vec<Value>| matches!(&row[1], Value::Int(ms) if (from..until).contains(&(*ms as u64)));
    content.iter().filter(|(row, _)| within(row)).map(|(row, count)| (row.clone(), *count)).collect()
}

/// T4: a training value is what the stream looked up, bit for bit, whatever part of the input it is computed from.
#[test]
fn t4_training_rows_are_what_the_stream_looked_up_with_and_without_skipping() {
    let program = compiled(TRAINING);
    let mut skipped_rows = 0;
    for seed in 0..6u64 {
        let shape = Shape { rows: 80, ..SHAPE };
        let input = || connectors(&program.plan, seed, &shape);
        let stream = interpreter(&program.plan, &input());
        let streamed = stream.content(node(&program.plan, "streamed"), stream.end());
        let everything = program.training_plan("served", None, None).unwrap();
        let all = run(&everything, "served", EngineConfig::default(), &input(), &[]);
        assert_same("all training rows", seed, &streamed, &all);
        let mut times: Vec<u64> = streamed.keys().filter_map(|row| if let Value::Int(ms) = row[1] { Some(ms as u64) } else { None }).collect();
        times.sort_unstable();
        let (from, until) = (times[times.len() * 2 / 3], times[times.len() - 2]);
        let expected = in_range(&streamed, from, until);
        assert!(!expected.is_empty());
        let plan = program.training_plan("served", Some(Epoch(from)), Some(Epoch(until))).unwrap();
        let skippable = skippable_sources(&plan);
        assert_eq!(skippable, BTreeMap::from([("plain".to_string(), 40_000)]), "changing retracts, questions ask");
        let first: BTreeMap<String, Epoch> = skippable.iter().map(|(source, ms)| (source.clone(), Epoch(from.saturating_sub(*ms)))).collect();
        let source =
            |node: &freshet_core::Node| matches!(node.op, freshet_core::Op::Source { source } if program.plan.sources[source].name == "plain");
        let plain = NodeId(program.plan.nodes.iter().position(source).unwrap() as u32);
        skipped_rows += stream.lives(plain).iter().filter(|life| life.entered < first["plain"]).count();
        for (index, cut) in CUTS.into_iter().enumerate() {
            for skip in [BTreeMap::new(), first.clone()] {
                let config = EngineConfig { workers: 1 + index, cut, from: skip.clone(), ..EngineConfig::default() };
                let found = run(&plan, "served", config, &input(), &[]);
                assert_same(&format!("training rows of a range, {cut:?}, from {skip:?}"), seed, &expected, &found);
            }
        }
    }
    assert!(skipped_rows > 20, "only {skipped_rows} rows were skipped");
}

#[test]
fn t4_training_rows_in_hindsight_equal_the_interpreter() {
    let program = compiled(TRAINING);
    for seed in 20..24u64 {
        let input = || connectors(&program.plan, seed, &SHAPE);
        let plan = program.training_plan("known", None, None).unwrap();
        let interpreter = interpreter(&plan, &input());
        let expected = interpreter.content(node(&plan, "known"), interpreter.end());
        let config = EngineConfig { workers: 2, cut: StepCut::All, ..EngineConfig::default() };
        assert_same("training rows in hindsight", seed, &expected, &run(&plan, "known", config, &input(), &[]));
    }
}

#[test]
fn t5_training_rows_as_of_a_column_equal_the_interpreter() {
    let program = compiled(&format!("{TRAINING}{ASKED}"));
    for seed in 30..36u64 {
        let shape = Shape { rows: 70, late: 0.4, ..SHAPE };
        let input = || connectors(&program.plan, seed, &shape);
        for set in ["alone", "beside", "logged"] {
            let plan = program.training_plan(set, None, None).unwrap();
            let interpreter = interpreter(&plan, &input());
            let expected = interpreter.content(node(&plan, set), interpreter.end());
            assert!(!expected.is_empty());
            for workers in [1, 2, 4] {
                let config = EngineConfig { workers, cut: StepCut::All, ..EngineConfig::default() };
                assert_same(&format!("{set} with {workers} workers"), seed, &expected, &run(&plan, set, config, &input(), &[]));
            }
        }
    }
}

/// E3: hour 10 is told at noon to be 0.4, and corrected to 0.6 two days later; the spine asks on the second day. At noon nothing was known yet.
#[test]
fn e3_as_of_a_column_is_what_was_served_and_in_hindsight_the_correction() {
    const MS: u64 = 1_735_689_600_000;
    const HOUR: u64 = 3_600_000;
    let sets = |mode: &str| {
        format!(
            "CREATE TRAINING SET {mode} ID (id) TIME (at) LABEL (label) WITH (mode = '{mode}') AS SELECT s.id, s.at, f.value, s.id > 0 AS label
             FROM spine s LEFT JOIN FEATURES(answers) FOR SYSTEM_TIME AS OF s.at AS f USING (k);"
        )
    };
    let program = compiled(&format!(
        "CREATE SOURCE told (k VARCHAR, value DOUBLE, e TIMESTAMP(3), a TIMESTAMP(3), WATERMARK FOR e, ARRIVAL FOR a)
           WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
         CREATE SOURCE spine (id BIGINT, k VARCHAR, at TIMESTAMP(3), told TIMESTAMP(3), WATERMARK FOR told) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
         CREATE FEATURE VIEW latest ENTITY (k) TIMESTAMP e AS SELECT k, value FROM told;
         CREATE FEATURE SERVICE answers AS (latest);{}{}",
        sets("as_served"),
        sets("event_time")
    ));
    let at = |hours: u64| Value::Int(i128::from(MS + hours * HOUR));
    let key = || Value::Text("1".into());
    let told = |offset, value: f64, arrived| RawRecord::insert(offset, vec![key(), Value::Float(value), at(10), at(arrived)]);
    let both = vec![told(0, 0.4, 12), told(1, 0.6, 48)];
    let late = vec![told(0, 0.4, 36), told(1, 0.6, 48)];
    // Whether the spine's row itself came in time, or long after.
    for came in [24, 100] {
        for (history, served) in [(&both, Value::Float(0.4)), (&late, Value::Null)] {
            for (set, expected) in [("as_served", served), ("event_time", Value::Float(0.6))] {
                let spine = vec![RawRecord::insert(0, vec![Value::Int(1), key(), at(24), at(came)])];
                let input = MemoryConnectors::new(1).with_source("told", history.clone()).with_source("spine", spine);
                let plan = program.training_plan(set, None, None).unwrap();
                let content = run(&plan, set, EngineConfig { cut: StepCut::All, ..EngineConfig::default() }, &input, &[]);
                let values: Vec<&Value> = content.keys().map(|row| &row[2]).collect();
                assert_eq!(values, [&expected], "{set}, spine came after {came} hours");
            }
        }
    }
}

/// The types of a training plan are those the script was told.
#[test]
fn a_training_plan_has_the_columns_of_its_definition() {
    let program = compiled(TRAINING);
    for set in &program.plan.training_sets {
        let plan = program.training_plan(&set.name, Some(Epoch(1)), Some(Epoch(2))).unwrap();
        assert_eq!(plan.views[0].schema, set.schema);
        assert_eq!(plan.views[0].schema.field_with_name("label").unwrap().data_type(), &DataType::Boolean);
    }
}

/// The scores of [`Logistic`] by two factors, in one model or in one each.
#[derive(Debug)]
struct Both(Vec<Logistic>);

impl Model for Both {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        self.0.iter().map(|model| Ok(model.predict(inputs)?.remove(0))).collect()
    }

    fn batch_invariant(&self) -> bool {
        true
    }
}

/// Of rows that are appended and of rows that are taken back, with failures among them.
#[test]
fn the_outputs_of_one_model_are_those_of_one_model_each() {
    let program = compiled(
        "CREATE MODEL both INPUT (n BIGINT, s DOUBLE) OUTPUT (low DOUBLE, high DOUBLE);
         CREATE MODEL low INPUT (n BIGINT, s DOUBLE) OUTPUT (p DOUBLE);
         CREATE MODEL high INPUT (n BIGINT, s DOUBLE) OUTPUT (p DOUBLE);
         CREATE VIEW bands AS SELECT h, PREDICT(both, h, y) AS b FROM changing;
         CREATE MATERIALIZED VIEW together AS SELECT h, b['low'] AS low, b['high'] AS high FROM bands;
         CREATE MATERIALIZED VIEW apart AS SELECT h, PREDICT(low, h, y) AS low, PREDICT(high, h, y) AS high FROM changing;
         CREATE MATERIALIZED VIEW together_plain AS SELECT id, PREDICT(both, id, x)['high'] AS high FROM plain WHERE PREDICT(both, id, x)['low'] > 0.4;
         CREATE MATERIALIZED VIEW apart_plain AS SELECT id, PREDICT(high, id, x) AS high FROM plain WHERE PREDICT(low, id, x) > 0.4;",
    );
    let record = |model, factors: &[f64]| {
        let loaded = Arc::new(Both(factors.iter().map(|factor| Logistic { factor: *factor }).collect()));
        ControlRecord { epoch: Epoch(0), model, version: 1, promoted: true, loaded, reference: Arc::<Reference>::default() }
    };
    let records = [record(0, &[0.1, -0.2]), record(1, &[0.1]), record(2, &[-0.2])];
    for seed in 40..43 {
        for (together, apart) in [("together", "apart"), ("together_plain", "apart_plain")] {
            let of = |view| {
                run(&program.plan, view, EngineConfig { workers: 2, ..EngineConfig::default() }, &connectors(&program.plan, seed, &SHAPE), &records)
            };
            let expected = of(apart);
            assert!(!expected.is_empty());
            assert_same(together, seed, &expected, &of(together));
        }
    }
}
