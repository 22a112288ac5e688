//! FORMAT UPSERT: the rows of each epoch equal the interpreter's, whatever the batches, the cut into steps, the workers and the restarts.

use arrow::datatypes::{DataType, Field};
use freshet_core::{AggregateCall, AggregateFunction, Epoch, FeatureSpec, Format, NodeId, Op, Plan, SourceDef, ViewKind};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::MemoryConnectors;
use freshet_testkit::generate::{Shape, records};

use crate::plans::{add_feature, add_source, fields_of, latest_spec, node, source};
use crate::running::{assert_histories, interpreter, observed, run};

/// The rows themselves, a join with themselves, groups, and the latest of each n.
fn plan() -> Plan {
    let mut plan = Plan::default();
    let def = SourceDef { format: Format::Upsert, key: vec![0, 1], ..source("accounts") };
    let records = add_source(&mut plan, def);
    let fields = fields_of(&plan, records);
    let live = node(&mut plan, Op::Upsert { key: vec![0, 1] }, &[records], fields.clone());
    let both = fields.iter().chain(&fields).enumerate().map(|(index, field)| Field::new(format!("c{index}"), field.data_type().clone(), true));
    let join = Op::inner_join(vec![0], vec![0], Vec::new());
    let both = both.collect();
    node(&mut plan, join, &[live, live], both);
    let call = AggregateCall::new;
    let calls = vec![call(AggregateFunction::Count, None), call(AggregateFunction::Sum, Some(2)), call(AggregateFunction::Max, Some(1))];
    let types = [DataType::Utf8, DataType::Int64, DataType::Float64, DataType::Int64];
    let grouped = types.into_iter().enumerate().map(|(index, data_type)| Field::new(format!("g{index}"), data_type, true)).collect();
    node(&mut plan, Op::Aggregate { keys: vec![0], calls }, &[live], grouped);
    add_feature(&mut plan, live, FeatureSpec::Latest(latest_spec()));
    // Records are no rows: nobody reads them but the Upsert.
    let mut plan = observed(plan);
    plan.views.retain(|view| view.node != records);
    plan.sinks.retain(|sink| sink.node != records);
    plan
}

fn connectors(plan: &Plan, seed: u64, shape: &Shape) -> MemoryConnectors {
    let def = &plan.sources[0];
    MemoryConnectors::new(seed).with_source(&def.name, records(seed, def, shape))
}

fn shape(seed: u64) -> Shape {
    Shape { rows: 70, keys: 3, retractions: 0.25, stray_retractions: 0.05, partitions: 1 + (seed % 3) as u32, ..Shape::default() }
}

#[test]
fn t8_upserts_and_deletions_equal_the_interpreter_at_every_epoch() {
    let plan = plan();
    for seed in 0..18 {
        let input = connectors(&plan, seed, &shape(seed));
        let interpreter = interpreter(&plan, &input);
        for (index, cut) in [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All].into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            let connectors = connectors(&plan, seed, &shape(seed));
            run(&plan, EngineConfig { workers, cut, ..EngineConfig::default() }, &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn t8_a_row_is_taken_back_after_a_restart_with_other_workers() {
    let plan = plan();
    for seed in 40..43 {
        let shape = Shape { rows: 40, ..shape(seed) };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let mut stops: Vec<Epoch> = interpreter.history(NodeId(1)).into_iter().map(|(_, epoch, _)| epoch).collect();
        stops.dedup();
        for (index, stop) in stops.into_iter().step_by(3).enumerate() {
            let connectors = connectors(&plan, seed, &shape);
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                data_dir: Some(folder.path().to_path_buf()),
                stop_after,
                ..EngineConfig::default()
            };
            let first = Engine::start(plan.clone(), config([1, 2, 4][index % 3], Some(stop)), &connectors).unwrap();
            first.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
            first.shutdown().unwrap();
            run(&plan, config([2, 4, 1][index % 3], None), &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, stopped after {stop}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn c3_a_record_without_its_key_is_an_error_of_the_views_above() {
    let plan = plan();
    let shape = Shape { nulls: 0.3, ..shape(1) };
    let input = connectors(&plan, 5, &shape);
    let interpreter = interpreter(&plan, &input);
    let expected: i64 = interpreter.errors(NodeId(1), interpreter.end()).values().sum();
    assert!(expected > 0);
    let engine = run(&plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &input);
    let view = plan.views.iter().find(|view| view.kind == ViewKind::Materialized && view.node == NodeId(1)).unwrap();
    let errors = engine.reader().snapshot(&[&format!("errors({})", view.name)], None).unwrap();
    let rows: usize = errors.views[0].iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows as i64, expected);
    engine.shutdown().unwrap();
}
