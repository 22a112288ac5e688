//! DESIGN 4: models run on threads of their own; a slow one holds up its own view alone, a broken one nobody.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use freshet_core::{ControlRecord, Epoch, Error, FeatureSpec, Model, NodeId, Op, Plan, PredictOutput, PredictRoute, Result};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::ScriptedControl;
use freshet_testkit::generate::Shape;

use crate::plans::{add_feature, add_source, fields_of, node, some_rolling_spec, source};
use crate::predict::{Linear, add_predict, call, model, record};
use crate::running::{assert_histories, connectors, interpreter, observed};

/// How long a condition may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Closed, it holds every call.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Opens the gate even if the test fails, so that the pipeline can end.
struct OpensAtLast(Arc<Gate>);

impl Drop for OpensAtLast {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct Gated(Arc<Gate>, Linear);

impl Model for Gated {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        drop(self.0.changed.wait_while(self.0.open.lock().unwrap(), |open| !*open).unwrap());
        self.1.predict(inputs)
    }
    fn batch_invariant(&self) -> bool {
        true
    }
}

/// A feature view over `left`, and scores of `left`.
fn plan() -> (Plan, NodeId, NodeId) {
    let mut plan = Plan { models: vec![model(&["score"])], ..Plan::default() };
    let left = add_source(&mut plan, source("left"));
    let rolling = add_feature(&mut plan, left, FeatureSpec::Rolling(some_rolling_spec()));
    let scored = add_predict(&mut plan, left);
    (observed(plan), rolling, scored)
}

fn start(plan: &Plan, config: EngineConfig, seed: u64, shape: &Shape, records: &[ControlRecord]) -> (Engine, freshet_testkit::MemoryConnectors) {
    let input = connectors(plan, seed, shape);
    let control = ScriptedControl::new(records);
    (Engine::start_with(plan.clone(), config, &input, Some(Box::new(control))).unwrap(), input)
}

fn wait_until(engine: &Engine, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come");
        engine.wait_timeout(Duration::from_millis(5)).unwrap();
    }
}

#[test]
fn a_model_that_hangs_does_not_stop_the_features() {
    let (plan, rolling, scored) = plan();
    for workers in [1, 2] {
        let gate = Arc::new(Gate::default());
        let records = [record(Epoch::ZERO, 1, true, Arc::new(Gated(gate.clone(), Linear { factor: 2.0, batch_invariant: true })))];
        let config = EngineConfig { workers, cut: StepCut::Epochs(3), ..EngineConfig::default() };
        let (engine, input) = start(&plan, config, 400, &Shape { rows: 60, ..Shape::default() }, &records);
        let opens = OpensAtLast(gate);
        let interpreter = interpreter(&plan, &input).with_records(&records);
        let names = [&rolling, &scored].map(|node| format!("v{}", node.0));
        let reader = engine.reader();
        let frontier = |name: &str| reader.frontier(&[name]).unwrap();
        wait_until(&engine, "the end of the feature view", || frontier(&names[0]) > interpreter.end());
        assert!(frontier(&names[1]) <= Epoch(interpreter.history(NodeId(0))[0].1.0), "nothing is scored yet");
        assert!(!engine.wait_timeout(Duration::ZERO).unwrap(), "the pipeline waits for the scores");
        opens.0.open();
        engine.wait().unwrap();
        engine.shutdown().unwrap();
        assert_histories(&format!("a slow model, {workers} workers"), &plan, &interpreter, &input);
    }
}

#[test]
fn sources_pause_when_too_many_steps_wait_for_a_model() {
    let (plan, rolling, _) = plan();
    let gate = Arc::new(Gate::default());
    let records = [record(Epoch::ZERO, 1, true, Arc::new(Gated(gate.clone(), Linear { factor: 2.0, batch_invariant: true })))];
    let config = EngineConfig { workers: 2, cut: StepCut::Epochs(1), ..EngineConfig::default() };
    let (engine, input) = start(&plan, config, 401, &Shape { rows: 400, ..Shape::default() }, &records);
    let opens = OpensAtLast(gate);
    let interpreter = interpreter(&plan, &input).with_records(&records);
    let mut epochs: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
    epochs.dedup();
    let (reader, name) = (engine.reader(), format!("v{}", rolling.0));
    wait_until(&engine, "the 64th step", || reader.frontier(&[&name]).unwrap() > epochs[60]);
    engine.wait_timeout(Duration::from_millis(100)).unwrap();
    let reached = reader.frontier(&[&name]).unwrap();
    assert!(reached < epochs[80], "{reached} is far beyond the steps that may wait, {} epochs", epochs.len());
    opens.0.open();
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    assert_histories("a pause for a model", &plan, &interpreter, &input);
}

#[test]
fn more_work_than_the_queue_holds_is_scored_all_the_same() {
    let (mut plan, rolling, _) = plan();
    (plan.views, plan.sinks) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        add_predict(&mut plan, NodeId(0));
    }
    let plan = observed(plan);
    let gate = Arc::new(Gate::default());
    let records = [record(Epoch::ZERO, 1, true, Arc::new(Gated(gate.clone(), Linear { factor: 2.0, batch_invariant: true })))];
    let config = EngineConfig { workers: 4, cut: StepCut::Epochs(2), ..EngineConfig::default() };
    let (engine, input) = start(&plan, config, 403, &Shape { rows: 600, ..Shape::default() }, &records);
    let opens = OpensAtLast(gate);
    let interpreter = interpreter(&plan, &input).with_records(&records);
    let mut epochs: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
    epochs.dedup();
    let (reader, name) = (engine.reader(), format!("v{}", rolling.0));
    // 60 steps, 5 operators, 4 workers: more than the 256 pieces that may wait.
    wait_until(&engine, "the 60th step", || reader.frontier(&[&name]).unwrap() > epochs[120]);
    opens.0.open();
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    assert_histories("a full queue", &plan, &interpreter, &input);
}

#[test]
fn a_pipeline_whose_model_hangs_stops_and_scores_its_rows_after_the_restart() {
    let (plan, rolling, _) = plan();
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let opens = OpensAtLast(gate.clone());
    let records = [record(Epoch::ZERO, 1, true, Arc::new(Gated(gate, Linear { factor: 2.0, batch_invariant: true })))];
    let config = EngineConfig { workers: 2, cut: StepCut::Epochs(2), data_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
    let (engine, input) = start(&plan, config.clone(), 404, &Shape { rows: 60, ..Shape::default() }, &records);
    let interpreter = interpreter(&plan, &input).with_records(&records);
    let (reader, name) = (engine.reader(), format!("v{}", rolling.0));
    wait_until(&engine, "the end of the feature view", || reader.frontier(&[&name]).unwrap() > interpreter.end());
    let stopping = Instant::now();
    engine.shutdown().unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(9), "it took {:?}", stopping.elapsed());
    opens.0.open();
    let control = Box::new(ScriptedControl::new(&records));
    let engine = Engine::start_with(plan.clone(), config, &input, Some(control)).unwrap();
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    assert_histories("after the restart", &plan, &interpreter, &input);
}

/// Two outputs; panics on n = 1, gives too few rows on n = 0.
#[derive(Debug)]
struct Broken;

impl Model for Broken {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (n, x) = (inputs[0].as_primitive::<Int64Type>(), inputs[1].as_primitive::<Float64Type>());
        assert!(n.iter().flatten().all(|n| n != 1), "no ones");
        if n.iter().flatten().any(|n| n == 2) {
            return Err(Error::data("no twos"));
        }
        let rows = if n.iter().flatten().any(|n| n == 0) { 0 } else { n.len() };
        let negated: Float64Array = x.iter().map(|x| x.map(|x| -x)).collect();
        Ok(vec![Arc::new(x.clone()), Arc::new(negated.slice(0, rows))])
    }
    fn batch_invariant(&self) -> bool {
        true
    }
}

#[test]
fn c3_a_model_that_panics_or_gives_nonsense_fails_on_those_rows_only() {
    let outputs = vec![Field::new("a", DataType::Float64, true), Field::new("b", DataType::Float64, true)];
    let mut plan = Plan { models: vec![model(&["a", "b"])], ..Plan::default() };
    let left = add_source(&mut plan, source("left"));
    let mut fields = fields_of(&plan, left);
    fields.push(Field::new("p", DataType::Struct(Fields::from(outputs)), true));
    let scored = node(&mut plan, Op::Predict { calls: vec![call(PredictRoute::Live, PredictOutput::Score)] }, &[left], fields);
    // Without the sinks, which take plain columns only.
    let mut plan = observed(plan);
    plan.sinks.clear();
    for workers in [1, 4] {
        let records = [record(Epoch::ZERO, 1, true, Arc::new(Broken))];
        let shape = Shape { rows: 300, nulls: 0.0, special_floats: 0.0, ..Shape::default() };
        let (engine, _) = start(&plan, EngineConfig { workers, ..EngineConfig::default() }, 402, &shape, &records);
        engine.wait().unwrap();
        let (view, errors) = (format!("v{}", scored.0), format!("errors(v{})", scored.0));
        let snapshot = engine.reader().snapshot(&[&view, &errors], None).unwrap();
        let (mut good, mut bad) = (0, 0);
        for batch in &snapshot.views[0] {
            let (n, x) = (batch.column(1).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Float64Type>());
            let scores = batch.column(5).as_struct();
            let (a, b) = (scores.column(0).as_primitive::<Float64Type>(), scores.column(1).as_primitive::<Float64Type>());
            for row in 0..batch.num_rows() {
                assert_eq!(scores.is_null(row), n.value(row) < 3, "n = {}", n.value(row));
                if scores.is_valid(row) {
                    assert_eq!((a.value(row), b.value(row)), (x.value(row), -x.value(row)));
                    good += 1;
                } else {
                    bad += 1;
                }
            }
        }
        assert!(good > 0);
        let mut reasons: Vec<String> = Vec::new();
        for batch in &snapshot.views[1] {
            reasons.extend(batch.column(2).as_string::<i32>().iter().flatten().map(ToString::to_string));
        }
        assert_eq!(reasons.len(), bad, "one error per live row that failed");
        for reason in ["the model has panicked: no ones", "no twos", "model m gave 1 of Float64, 0 of Float64 for 1 rows"] {
            assert!(reasons.iter().any(|found| found == reason), "{reason} is not among {:?}", reasons.first());
        }
        engine.shutdown().unwrap();
    }
}
