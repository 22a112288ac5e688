//! C8: a monitor equals recomputation at every instant, under late rows, retractions, NULLs and switches of the model, whatever the cut.

use std::sync::{Arc, Mutex};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use freshet_core::{
    Control, ControlOutput, ControlRecord, DriftCondition, DriftMethod, DriftSpec, Epoch, Format, Histogram, Missing, Model, ModelDef, Node, NodeId,
    Op, Plan, Reader, Reference, Value,
};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::generate::Shape;
use freshet_testkit::{Interpreter, MemoryConnectors, RawRecord, ScriptedControl};

use crate::plans::{MS, add_source, node, source};
use crate::running::{assert_histories, connectors, interpreter, observed};

const CUTS: [StepCut; 4] = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All];
const EVERY_MS: u64 = 10_000;

/// Monitors look at references only.
#[derive(Debug)]
struct Silent;

impl Model for Silent {
    fn predict(&self, inputs: &[ArrayRef]) -> freshet_core::Result<Vec<ArrayRef>> {
        Ok(inputs.to_vec())
    }
    fn batch_invariant(&self) -> bool {
        true
    }
}

fn model() -> ModelDef {
    ModelDef {
        name: "m".into(),
        service: None,
        inputs: vec![Field::new("x", DataType::Float64, true)],
        outputs: vec![Field::new("y", DataType::Float64, true)],
        missing: Missing::Nan,
        from: None,
        references: vec!["n".into(), "ok".into(), "x".into()],
    }
}

/// Over (k, n, x, e, ok): text, int, float, time, bool.
fn spec(window_ms: u64, rows_min: u64) -> DriftSpec {
    let condition = |method, column, threshold, inclusive, evaluations| DriftCondition { method, column, threshold, inclusive, evaluations };
    DriftSpec {
        columns: vec![2, 1, 4],
        names: vec!["x".into(), "n".into(), "ok".into()],
        scores: vec![true, false, false],
        time: 3,
        methods: vec![DriftMethod::Psi, DriftMethod::Ks],
        model: 0,
        window_ms,
        every_ms: EVERY_MS,
        rows_min,
        conditions: vec![
            condition(DriftMethod::Psi, 0, 0.1, false, 3),
            condition(DriftMethod::Psi, 0, 2.0, false, 1),
            condition(DriftMethod::Ks, 1, 0.3, true, 2),
        ],
    }
}

fn add_drift(plan: &mut Plan, input: NodeId, spec: DriftSpec) -> NodeId {
    plan.push(Node { op: Op::Drift { spec }, inputs: vec![input], schema: DriftSpec::schema(), append_only: true })
}

/// A narrow monitor, a wide one, and one over rows that come out of another operator.
fn plan() -> Plan {
    let mut plan = Plan { models: vec![model()], ..Plan::default() };
    let rows = add_source(&mut plan, source("s"));
    add_drift(&mut plan, rows, spec(EVERY_MS, 3));
    add_drift(&mut plan, rows, spec(6 * EVERY_MS, 1));
    let fields = crate::plans::fields_of(&plan, rows);
    let distinct = node(&mut plan, Op::Aggregate { keys: vec![0, 1, 2, 3, 4], calls: vec![] }, &[rows], fields);
    add_drift(&mut plan, distinct, spec(3 * EVERY_MS, 0));
    plan.validate().unwrap();
    observed(plan)
}

fn reference(seed: u64, names: &[&str]) -> Arc<Reference> {
    let values = (0..40u64).map(|index| (index % 9 != seed % 9).then(|| ((index * 7 + seed * 3) % 11) as f64 / 2.0 - 1.0));
    let histogram = Histogram::of(values);
    Arc::new(Reference { columns: names.iter().map(|name| (name.to_string(), histogram.clone())).collect() })
}

fn record(epoch: u64, version: u32, promoted: bool, reference: Arc<Reference>) -> ControlRecord {
    ControlRecord { epoch: Epoch(epoch), model: 0, version, promoted, loaded: Arc::new(Silent), reference }
}

/// None, then a reference without `ok`, a version that is not live, another live one, all in the middle of the input; one lies on the grid.
fn switches(interpreter: &Interpreter) -> Vec<ControlRecord> {
    let history = interpreter.history(NodeId(0));
    let (first, last) = (history.first().unwrap().1.0, history.last().unwrap().1.0);
    let part = |share: u64| first + (last - first) * share / 10;
    vec![
        record(part(2), 1, true, reference(1, &["x", "n"])),
        record(part(4), 2, false, reference(2, &["x", "n", "ok"])),
        record(part(6) / EVERY_MS * EVERY_MS, 3, true, reference(3, &["x", "n", "ok"])),
    ]
}

fn run(plan: &Plan, config: EngineConfig, connectors: &MemoryConnectors, records: &[ControlRecord]) {
    let control = Box::new(ScriptedControl::new(records));
    let engine = Engine::start_with(plan.clone(), config, connectors, Some(control)).unwrap();
    engine.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
    engine.shutdown().unwrap();
}

#[test]
fn c8_a_monitor_equals_recomputation_at_every_instant() {
    let plan = plan();
    let mut states = std::collections::BTreeMap::new();
    for seed in 800..816 {
        let shape = Shape { rows: 150, late: 0.3, late_ms: 50_000, step_ms: 700, ..Shape::default() };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let records = switches(&interpreter);
        let interpreter = interpreter.with_records(&records);
        for (row, _, _) in (1..plan.nodes.len()).flat_map(|index| interpreter.history(NodeId(index as u32))).filter(|change| change.0.len() == 10) {
            *states.entry((row[7].clone(), row[6].clone())).or_insert(0) += 1;
        }
        for (index, cut) in CUTS.into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            let connectors = connectors(&plan, seed, &shape);
            run(&plan, EngineConfig { workers, cut, ..EngineConfig::default() }, &connectors, &records);
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &connectors);
        }
    }
    let seen = |state: &str, drifted: bool| states.get(&(Value::Text(state.into()), Value::Bool(drifted))).copied().unwrap_or(0);
    let counts = [seen("measured", false), seen("measured", true), seen("no_reference", false), seen("too_few_rows", false)];
    assert!(counts.iter().all(|count| *count > 50), "the input shows every state: {counts:?}");
}

#[test]
fn a_stop_between_two_evaluations_and_a_restart_with_other_workers_change_nothing() {
    let plan = plan();
    for seed in 830..832 {
        let shape = Shape { rows: 60, late: 0.3, late_ms: 50_000, step_ms: 700, ..Shape::default() };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let records = switches(&interpreter);
        let interpreter = interpreter.with_records(&records);
        let mut stops: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
        stops.dedup();
        for (index, stop) in stops.into_iter().enumerate().step_by(2) {
            let connectors = connectors(&plan, seed, &shape);
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                data_dir: Some(folder.path().to_path_buf()),
                stop_after,
                ..EngineConfig::default()
            };
            run(&plan, config([1, 2, 4][index % 3], Some(stop)), &connectors, &records);
            run(&plan, config([2, 4, 1][index % 3], None), &connectors, &records);
            assert_histories(&format!("seed {seed}, stopped after {stop}"), &plan, &interpreter, &connectors);
        }
    }
}

/// (e, x) over one monitor with psi(x) > 0.1 for 2 evaluations.
fn small() -> Plan {
    let mut plan = Plan { models: vec![model()], ..Plan::default() };
    let mut def = source("s");
    def.schema = Arc::new(Schema::new(vec![Field::new("e", MS, true), Field::new("x", DataType::Float64, true)]));
    (def.event_time, def.format) = (Some(0), Format::Plain);
    let rows = add_source(&mut plan, def);
    let condition = DriftCondition { method: DriftMethod::Psi, column: 0, threshold: 0.1, inclusive: false, evaluations: 2 };
    let spec = DriftSpec {
        columns: vec![1],
        names: vec!["x".into()],
        scores: vec![false],
        time: 0,
        methods: vec![DriftMethod::Psi],
        conditions: vec![condition],
        ..spec(2 * EVERY_MS, 2)
    };
    add_drift(&mut plan, rows, spec);
    observed(plan)
}

#[test]
fn an_evaluation_sees_what_lies_before_it_and_goes_on_in_silence() {
    let plan = small();
    let start = 1_735_689_600_000u64;
    let row = |offset, e: u64, x: f64| RawRecord::insert(offset, vec![Value::Int((start + e).into()), Value::Float(x)]);
    // Rows on the edge of a window belong to the next; then nothing comes for five instants.
    let rows = vec![row(0, 1, 0.0), row(1, 9_999, 0.0), row(2, 10_000, 9.0), row(3, 10_001, 9.0), row(4, 60_000, 0.0)];
    let histogram = Histogram { edges: vec![5.0], counts: vec![8, 2], nulls: 0 };
    let version = record(0, 1, true, Arc::new(Reference { columns: [("x".to_string(), histogram)].into() }));
    for cut in CUTS {
        let connectors = MemoryConnectors::new(1).with_source("s", rows.clone());
        run(&plan, EngineConfig { cut, ..EngineConfig::default() }, &connectors, std::slice::from_ref(&version));
        let found: Vec<(u64, u64, Option<f64>, i128, bool, i128)> = connectors
            .sink("n1")
            .into_iter()
            .map(|change| {
                let number = |cell: &Value| if let Value::Int(value) = cell { *value } else { unreachable!("{cell} is an integer") };
                let value = if let Value::Float(value) = change.row[3] { Some(value) } else { None };
                let d = number(&change.row[0]) as u64 - start;
                (d, change.epoch.0 - start, value, number(&change.row[5]), change.row[6] == Value::Bool(true), number(&change.row[8]))
            })
            .collect();
        let psi = |share: f64| {
            let term = |c: f64, r: f64| (c.max(1e-4) - r) * (c.max(1e-4) / r).ln();
            term(1.0 - share, 0.8) + term(share, 0.2) + 0.0
        };
        let expected = vec![
            (10_000, 9_999, Some(psi(0.0)), 1, false, 2),
            (20_000, 19_999, Some(psi(0.5)), 2, true, 4),
            (30_000, 29_999, Some(psi(1.0)), 3, true, 2),
            (40_000, 39_999, None, 0, false, 0),
            (50_000, 49_999, None, 0, false, 0),
            (60_000, 59_999, None, 0, false, 0),
        ];
        assert_eq!(found, expected, "{cut:?}");
    }
}

/// Points, and the instants of the evaluations that were readable there.
type Points = Vec<(Epoch, Vec<i128>)>;

/// Writes down, at every instant of the grid, which evaluations can be read.
struct Reading {
    seen: Arc<Mutex<Points>>,
}

impl Control for Reading {
    fn start(&mut self, _: Option<Epoch>) -> freshet_core::Result<ControlOutput> {
        Ok(ControlOutput::default())
    }

    fn next_point(&self, after: Epoch) -> Option<Epoch> {
        Some(Epoch((after.0 / EVERY_MS + 1) * EVERY_MS))
    }

    fn decide(&mut self, point: Epoch, reader: &dyn Reader) -> freshet_core::Result<ControlOutput> {
        let snapshot = reader.snapshot(&["v1"], Some(Epoch(point.0 - 1)))?;
        let rows = snapshot.views[0].iter().flat_map(|batch| Value::rows_of(batch).unwrap());
        let read = rows.map(|row| if let Value::Int(d) = row[0] { d } else { unreachable!("an instant is never NULL") }).collect();
        self.seen.lock().unwrap().push((point, read));
        Ok(ControlOutput::default())
    }

    fn pending(&self) -> Option<Epoch> {
        None
    }

    fn running(&self) -> Vec<(String, Epoch)> {
        Vec::new()
    }

    fn settle(&mut self, _: Epoch, _: &dyn Fn() -> bool) -> freshet_core::Result<Option<ControlOutput>> {
        Ok(None)
    }
}

#[test]
fn c6_a_decision_sees_the_evaluation_of_its_own_instant() {
    let plan = small();
    let start = 1_735_689_600_000u64;
    let row = |offset, e: u64| RawRecord::insert(offset, vec![Value::Int((start + e).into()), Value::Float(1.0)]);
    let rows = vec![row(0, 1), row(1, 10_000), row(2, 35_000), row(3, 52_000)];
    for cut in CUTS {
        let connectors = MemoryConnectors::new(1).with_source("s", rows.clone());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let control = Box::new(Reading { seen: seen.clone() });
        let engine = Engine::start_with(plan.clone(), EngineConfig { cut, ..EngineConfig::default() }, &connectors, Some(control)).unwrap();
        engine.wait().unwrap();
        engine.shutdown().unwrap();
        let instant = |step: u64| start + step * EVERY_MS;
        let expected: Vec<(Epoch, Vec<i128>)> =
            (1..=5).map(|step| (Epoch(instant(step)), (1..=step).map(|step| instant(step).into()).collect())).collect();
        assert_eq!(*seen.lock().unwrap(), expected, "{cut:?}");
    }
}
