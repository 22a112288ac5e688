//! C1b, C5, C6: every row keeps the score of the version that was live when it entered, whatever the batches, the workers, the restarts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use freshet_core::{
    ControlRecord, Epoch, Error, Format, LookupPart, LookupTime, Missing, Model, ModelDef, NodeId, Op, Plan, PredictCall, PredictOutput,
    PredictRoute, Reference, Result, Value,
};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::compare::{assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::interpreter::Content;
use freshet_testkit::{Interpreter, MemoryConnectors, ScriptedControl};

use crate::plans::{add_feature, add_source, fields_of, node, some_rolling_spec, source};
use crate::running::{assert_histories, connectors, interpreter, observed};

const CUTS: [StepCut; 4] = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All];

/// x · factor + n; NULL without x; fails on n = 2.
#[derive(Debug)]
pub struct Linear {
    pub factor: f64,
    pub batch_invariant: bool,
}

impl Model for Linear {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (n, x) = (inputs[0].as_primitive::<Int64Type>(), inputs[1].as_primitive::<Float64Type>());
        assert!(self.batch_invariant || n.len() == 1, "a model that is not batch-invariant is given one row");
        assert!(n.len() <= 256, "calls are bounded");
        if n.iter().flatten().any(|n| n == 2) {
            return Err(Error::data("2 cannot be scored"));
        }
        let score = |(n, x): (Option<i64>, Option<f64>)| Some(x? * self.factor + n.unwrap_or(-1) as f64);
        Ok(vec![Arc::new(n.iter().zip(x.iter()).map(score).collect::<Float64Array>())])
    }

    fn batch_invariant(&self) -> bool {
        self.batch_invariant
    }
}

pub fn record(epoch: Epoch, version: u32, promoted: bool, loaded: Arc<dyn Model>) -> ControlRecord {
    ControlRecord { epoch, model: 0, version, promoted, loaded, reference: Arc::<Reference>::default() }
}

pub fn model(outputs: &[&str]) -> ModelDef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    ModelDef {
        name: "m".into(),
        service: None,
        inputs: vec![field("n", DataType::Int64), field("x", DataType::Float64)],
        outputs: outputs.iter().map(|name| field(name, DataType::Float64)).collect(),
        missing: Missing::Nan,
        from: None,
        references: Vec::new(),
    }
}

pub fn call(route: PredictRoute, output: PredictOutput) -> PredictCall {
    PredictCall { model: 0, arguments: if output == PredictOutput::Score { vec![1, 2] } else { Vec::new() }, route, output }
}

/// Every route and output over these rows, whose columns 1 and 2 are n and x.
pub fn add_predict(plan: &mut Plan, input: NodeId) -> NodeId {
    use PredictOutput::{Score, Version};
    let calls = vec![
        call(PredictRoute::Live, Score),
        call(PredictRoute::Live, Version),
        call(PredictRoute::Version(2), Score),
        call(PredictRoute::Challenger, Score),
        call(PredictRoute::Challenger, Version),
    ];
    let mut fields = fields_of(plan, input);
    for (index, call) in calls.iter().enumerate() {
        let data_type = if call.output == Version { DataType::Int64 } else { DataType::Float64 };
        fields.push(Field::new(format!("p{index}"), data_type, true));
    }
    let append_only = plan.node(input).append_only;
    let predict = node(plan, Op::Predict { calls }, &[input], fields);
    plan.nodes[predict.index()].append_only = append_only;
    predict
}

/// Scores of rows with looked-up features, of rows that leave as time passes, and what is built on them: groups, a lookup, scores again.
fn predicting() -> Plan {
    let mut plan = Plan { models: vec![model(&["score"])], ..Plan::default() };
    let (left, right) = (add_source(&mut plan, source("left")), add_source(&mut plan, source("right")));
    let rolling = add_feature(&mut plan, left, freshet_core::FeatureSpec::Rolling(some_rolling_spec()));
    let looked_up = add_lookup(&mut plan, right, rolling);
    let scored = add_predict(&mut plan, looked_up);
    let bounds = vec![freshet_core::TemporalBound { column: 3, offset_ns: 4_000_000_000, comparison: freshet_core::Comparison::Greater }];
    let same = fields_of(&plan, left);
    let recent = node(&mut plan, Op::TemporalFilter { bounds }, &[left], same);
    add_predict(&mut plan, recent);
    let sum = |argument, function| freshet_core::AggregateCall::new(function, Some(argument));
    let calls = vec![sum(8, freshet_core::AggregateFunction::Sum), sum(9, freshet_core::AggregateFunction::Max)];
    let key = plan.node(scored).schema.field(0).clone();
    let columns = vec![key, Field::new("total", DataType::Float64, true), Field::new("version", DataType::Int64, true)];
    node(&mut plan, Op::Aggregate { keys: vec![0], calls }, &[scored], columns);
    let again = add_lookup(&mut plan, scored, rolling);
    add_predict(&mut plan, again);
    plan.validate().unwrap();
    plan
}

fn add_lookup(plan: &mut Plan, left: NodeId, view: NodeId) -> NodeId {
    let mut fields = fields_of(plan, left);
    let first = fields.len();
    fields.push(Field::new(format!("f{first}"), DataType::Int64, true));
    fields.push(Field::new(format!("status{first}"), DataType::Utf8, true));
    fields.push(Field::new(format!("event_time{first}"), DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None), true));
    let parts = vec![LookupPart { keys: vec![0], columns: vec![1] }];
    let append_only = plan.node(left).append_only;
    let lookup = node(plan, Op::Lookup { parts, at: LookupTime::Now }, &[left, view], fields);
    plan.nodes[lookup.index()].append_only = append_only;
    lookup
}

/// The epochs of the input of the first source, ascending.
fn epochs(interpreter: &Interpreter) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
    epochs.dedup();
    epochs
}

/// Nothing at first; version 1 at a quarter of the input, 2 without promotion, 3 promoted at an epoch of the input itself, then 2 versions
/// at one epoch between two of the input.
fn records(interpreter: &Interpreter, batch_invariant: bool) -> Vec<ControlRecord> {
    let epochs = epochs(interpreter);
    let at = |part: usize| epochs[(epochs.len() * part / 8).min(epochs.len() - 1)];
    let loaded = |factor| Arc::new(Linear { factor, batch_invariant }) as Arc<dyn Model>;
    vec![
        record(at(2), 1, true, loaded(1.0)),
        record(at(3), 2, false, loaded(2.0)),
        record(at(4), 3, true, loaded(3.0)),
        record(Epoch(at(6).0 + 1), 4, false, loaded(4.0)),
        record(Epoch(at(6).0 + 1), 5, true, loaded(5.0)),
    ]
}

fn start(plan: &Plan, config: EngineConfig, connectors: &MemoryConnectors, records: &[ControlRecord]) -> Engine {
    Engine::start_with(plan.clone(), config, connectors, Some(Box::new(ScriptedControl::new(records)))).unwrap()
}

fn run(plan: &Plan, config: EngineConfig, connectors: &MemoryConnectors, records: &[ControlRecord]) {
    let engine = start(plan, config, connectors, records);
    engine.wait().unwrap();
    engine.shutdown().unwrap();
}

#[test]
fn c1b_every_row_keeps_the_score_of_the_version_live_at_its_epoch() {
    let plan = observed(predicting());
    for seed in 300..312 {
        let shape = Shape { rows: 60, duplicates: 0.3, stray_retractions: if seed % 3 == 0 { 0.05 } else { 0.0 }, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let records = records(&interpreter, seed % 4 != 0);
        let interpreter = interpreter.with_records(&records);
        for (index, cut) in CUTS.into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            let connectors = connectors(&plan, seed, &shape);
            run(&plan, EngineConfig { workers, cut, history_ms: [0, 5_000][index % 2], ..EngineConfig::default() }, &connectors, &records);
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn c1b_rows_that_stay_are_scored_where_they_are() {
    let mut plan = observed(predicting());
    for index in 0..plan.nodes.len() {
        let inputs_append = plan.nodes[index].inputs.first().is_none_or(|input| plan.nodes[input.index()].append_only);
        plan.nodes[index].append_only = inputs_append && matches!(plan.nodes[index].op, Op::Source { .. } | Op::Lookup { .. } | Op::Predict { .. });
    }
    plan.sources.iter_mut().for_each(|source| source.format = Format::Plain);
    for seed in 320..326 {
        let shape = Shape { rows: 60, ..Shape::append_only() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let records = records(&interpreter, seed % 2 == 0);
        let interpreter = interpreter.with_records(&records);
        let cut = CUTS[seed as usize % 4];
        run(&plan, EngineConfig { workers: 1 + seed as usize % 2, cut, ..EngineConfig::default() }, &input, &records);
        assert_histories(&format!("append-only, seed {seed}, {cut:?}"), &plan, &interpreter, &input);
    }
}

#[test]
fn c5_a_stop_at_every_step_and_other_workers_change_no_score() {
    let plan = observed(predicting());
    for seed in 340..342 {
        let shape = Shape { rows: 24, duplicates: 0.3, retractions: 0.25, ..Shape::default() };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let records = records(&interpreter, true);
        let stops = epochs(&interpreter);
        let interpreter = interpreter.with_records(&records);
        for (index, stop) in stops.into_iter().enumerate() {
            let connectors = connectors(&plan, seed, &shape);
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                data_dir: Some(folder.path().to_path_buf()),
                checkpoint_every_step: index % 4 == 0,
                stop_after,
                ..EngineConfig::default()
            };
            let first = start(&plan, config([1, 2, 4][index % 3], Some(stop)), &connectors, &records);
            first.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
            first.shutdown().unwrap();
            run(&plan, config([2, 4, 1][index % 3], None), &connectors, &records);
            assert_histories(&format!("seed {seed}, stopped after {stop}"), &plan, &interpreter, &connectors);
        }
    }
}

/// The interpreter's errors of a node as rows of (field, reason), with counts.
fn expected_errors(interpreter: &Interpreter, node: NodeId) -> Content {
    let mut content = Content::new();
    for (error, count) in interpreter.errors(node, interpreter.end()) {
        *content.entry(vec![Value::Text(error.field), Value::Text(error.message)]).or_default() += count;
    }
    content
}

#[test]
fn c3_a_row_that_cannot_be_scored_is_an_error_as_long_as_it_lives() {
    let mut plan = Plan { models: vec![model(&["score"])], ..Plan::default() };
    let source = add_source(&mut plan, source("s"));
    let predict = add_predict(&mut plan, source);
    let plan = observed(plan);
    for (seed, workers) in [(360, 1), (361, 2), (362, 4)] {
        let shape = Shape { rows: 200, duplicates: 0.3, retractions: 0.3, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let records = records(&interpreter, true);
        let interpreter = interpreter.with_records(&records);
        let engine = start(&plan, EngineConfig { workers, cut: StepCut::Epochs(5), ..EngineConfig::default() }, &input, &records);
        engine.wait().unwrap();
        let expected = expected_errors(&interpreter, predict);
        assert!(!expected.is_empty());
        let name = format!("errors(v{})", predict.index());
        let snapshot = engine.reader().snapshot(&[&name], None).unwrap();
        let rows = snapshot.views[0].iter().map(|batch| batch.project(&[1, 2]).unwrap()).collect::<Vec<_>>();
        assert_same("errors", seed, &expected, &content_of(&rows).unwrap());
        for batch in &snapshot.views[0] {
            assert_eq!(batch.column_by_name("source").unwrap().null_count(), 0, "an error row says where its row came from");
            assert_eq!(batch.column_by_name("offset").unwrap().null_count(), 0);
        }
        let status = engine.reader().status().models.remove(0);
        assert_eq!((status.live, status.versions), (Some(5), 5));
        assert!(status.rows > 0 && status.errors > 0, "{status:?}");
        engine.shutdown().unwrap();
    }
}
