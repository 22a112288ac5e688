//! C1: at every epoch every node equals recomputation, whatever the batches, the cut into steps and the number of workers.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use freshet_core::{ClockKind, Epoch, FeatureSpec, Format, LatestSpec, Op, Plan, RollingSpec, SourceDef, Value};
use freshet_engine::{EngineConfig, StepCut};
use freshet_testkit::compare::{assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::plans::{MS, add_feature, add_source, every_operator, latest_spec, some_rolling_spec, source};
use crate::running::{assert_histories, connectors, interpreter, observed, run};

const CUTS: [StepCut; 4] = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All];

#[test]
fn c1_every_operator_equals_the_interpreter_at_every_epoch() {
    let plan = observed(every_operator());
    for seed in 0..24 {
        let shape = Shape { rows: 60, stray_retractions: if seed % 3 == 0 { 0.05 } else { 0.0 }, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        for (index, cut) in CUTS.into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            let connectors = connectors(&plan, seed, &shape);
            let history_ms = [0, 5_000, u64::MAX][index % 3];
            run(&plan, EngineConfig { workers, cut, history_ms, ..EngineConfig::default() }, &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn t12_late_rows_and_broken_records_are_no_input() {
    let mut plan = observed(every_operator());
    plan.sources.iter_mut().for_each(|source| source.lateness_ms = Some(10_000));
    for seed in 100..104 {
        let shape = Shape { rows: 60, broken: 0.1, late: 0.4, retractions: 0.0, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let engine = run(&plan, EngineConfig { workers: 2, cut: StepCut::Epochs(3), ..EngineConfig::default() }, &input);
        let status = engine.reader().status();
        engine.shutdown().unwrap();
        assert_histories(&format!("seed {seed}"), &plan, &interpreter, &input);
        for (index, source) in plan.sources.iter().enumerate() {
            let assigned = freshet_testkit::assign_epochs(source, index, input.records(&source.name)).unwrap();
            assert_eq!(status.sources[index].late_rows, assigned.late.len() as u64);
            let dead: u64 = status.sources[index].dead_letters.iter().map(|(_, count)| count).sum();
            assert_eq!(dead, (assigned.dead_letters.len() + assigned.quarantined.len()) as u64);
        }
    }
}

#[test]
fn append_only_nodes_equal_the_interpreter_and_repeat_equal_rows() {
    let mut plan = observed(every_operator());
    for index in 0..plan.nodes.len() {
        let inputs_append = plan.nodes[index].inputs.iter().all(|input| plan.nodes[input.index()].append_only);
        plan.nodes[index].append_only = match plan.nodes[index].op {
            Op::Drift { .. } | Op::EmitOnClose { .. } => true,
            Op::Windows { .. } | Op::Arrival | Op::Gate { .. } | Op::EmitEvery { .. } => inputs_append,
            Op::Session { .. } | Op::Top { .. } | Op::Over { .. } | Op::Asof { .. } => false,
            Op::Source { .. } | Op::Project { .. } | Op::Filter { .. } | Op::Union | Op::Recursive { .. } => inputs_append,
            Op::Values { .. } | Op::Unnest { .. } => inputs_append,
            Op::Argument { .. } => unreachable!("it stands in bodies only"),
            Op::Join { kind, .. } => inputs_append && kind.keeps_append_only(),
            Op::SetOperation { operation } => inputs_append && operation.keeps_append_only(),
            Op::Lookup { .. } | Op::LookupJoin { .. } | Op::Predict { .. } => plan.nodes[plan.nodes[index].inputs[0].index()].append_only,
            Op::Upsert { .. } | Op::TemporalFilter { .. } | Op::Aggregate { .. } | Op::SingleRow | Op::Feature { .. } => false,
        };
    }
    plan.sources.iter_mut().for_each(|source| source.format = Format::Plain);
    for seed in 500..508 {
        let shape = Shape { rows: 60, ..Shape::append_only() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let cut = CUTS[seed as usize % 4];
        let config = EngineConfig { workers: 1 + seed as usize % 2, cut, history_ms: [0, u64::MAX][seed as usize % 2], ..EngineConfig::default() };
        let engine = run(&plan, config, &input);
        for view in plan.views.iter() {
            let snapshot = engine.reader().snapshot(&[&view.name], None).unwrap();
            let found = content_of(&snapshot.views[0]).unwrap();
            assert_same(&view.name, seed, &interpreter.content(view.node, interpreter.end()), &found);
        }
        engine.shutdown().unwrap();
        assert_histories(&format!("append-only, seed {seed}, {cut:?}"), &plan, &interpreter, &input);
    }
}

/// (k, n, x, e, ok, a): event time e, known at a.
fn arriving(name: &str) -> SourceDef {
    let mut def = source(name);
    let mut fields: Vec<Field> = def.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("a", MS, true));
    def.schema = Arc::new(Schema::new(fields));
    def.arrival = Some(5);
    def
}

#[test]
fn t0_rows_that_arrive_long_after_their_event_equal_the_interpreter() {
    let mut plan = Plan { clock: ClockKind::Event, ..Plan::default() };
    let source = add_source(&mut plan, arriving("late"));
    add_feature(&mut plan, source, FeatureSpec::Rolling(some_rolling_spec()));
    add_feature(&mut plan, source, FeatureSpec::Rolling(RollingSpec { include_now: true, ..some_rolling_spec() }));
    add_feature(&mut plan, source, FeatureSpec::Latest(latest_spec()));
    let plan = observed(plan);
    for seed in 700..708 {
        let shape = Shape { rows: 80, late: 0.6, retractions: if seed % 2 == 0 { 0.0 } else { 0.15 }, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let cut = CUTS[seed as usize % 4];
        run(&plan, EngineConfig { workers: 1 + seed as usize % 2, cut, ..EngineConfig::default() }, &input).shutdown().unwrap();
        assert_histories(&format!("arrival, seed {seed}, {cut:?}"), &plan, &interpreter, &input);
    }
}

#[test]
fn e4_the_latest_value_is_the_one_of_the_greatest_event_time_then_arrival() {
    let mut plan = Plan { clock: ClockKind::Event, ..Plan::default() };
    let source = add_source(&mut plan, arriving("drivers"));
    let latest = add_feature(&mut plan, source, FeatureSpec::Latest(LatestSpec { features: vec![1], ttl_ms: None, ..latest_spec() }));
    let plan = observed(plan);
    let day = |day: i128| Value::Int(1_735_689_600_000 + day * 86_400_000);
    let row = |offset, driver: &str, value, e, a| {
        RawRecord::insert(offset, vec![Value::Text(driver.into()), Value::Int(value), Value::Null, day(e), Value::Null, day(a)])
    };
    let records =
        vec![row(0, "1001", 10, 0, 0), row(1, "1002", 40, 1, 0), row(2, "1001", 20, 0, 1), row(3, "1002", 30, 0, 1), row(4, "later", 0, 3, 3)];
    let input = MemoryConnectors::new(1).with_source("drivers", records);
    let engine = run(&plan, EngineConfig { cut: StepCut::Epochs(1), history_ms: u64::MAX, ..EngineConfig::default() }, &input);
    let at = Epoch(1_735_689_600_000 + 2 * 86_400_000 - 1);
    let snapshot = engine.reader().snapshot(&[&plan.views[latest.index()].name], Some(at)).unwrap();
    let rows = Value::rows_of(&snapshot.views[0][0]).unwrap();
    assert_eq!(rows, vec![vec![Value::Text("1001".into()), Value::Int(20)], vec![Value::Text("1002".into()), Value::Int(40)]]);
    engine.shutdown().unwrap();
}
