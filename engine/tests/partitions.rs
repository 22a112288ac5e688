//! Several partitions per source in event clock: a clock each, one order of epochs, whatever they are polled in.

use freshet_core::{Epoch, NodeId};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::assign_epochs;
use freshet_testkit::generate::Shape;

use crate::plans::every_operator;
use crate::running::{assert_histories, connectors, interpreter, observed, run};

fn shape(seed: u64) -> Shape {
    Shape { rows: 60, partitions: 1 + (seed % 4) as u32, ..Shape::default() }
}

#[test]
fn t0_partitions_merge_by_epoch_in_whatever_order_they_are_polled() {
    let plan = observed(every_operator());
    for seed in 0..16 {
        let input = connectors(&plan, seed, &shape(seed));
        let interpreter = interpreter(&plan, &input);
        for (index, cut) in [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All].into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            // The same records in polls of other sizes and another order of partitions.
            let input = connectors(&plan, seed, &shape(seed)).with_seed(1_000 * seed + index as u64);
            run(&plan, EngineConfig { workers, cut, ..EngineConfig::default() }, &input).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &input);
        }
    }
}

#[test]
fn t12_lateness_is_judged_against_the_slowest_partition_at_every_epoch() {
    let mut plan = observed(every_operator());
    plan.sources.iter_mut().for_each(|source| source.lateness_ms = Some(8_000));
    let mut late = 0;
    for seed in 0..12 {
        let shape = Shape { late: 0.4, broken: 0.05, retractions: 0.0, partitions: 3, ..shape(seed) };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        for (index, cut) in [StepCut::Epochs(1), StepCut::Epochs(5), StepCut::Rows(16)].into_iter().enumerate() {
            let input = connectors(&plan, seed, &shape).with_seed(77 * seed + index as u64);
            let engine = run(&plan, EngineConfig { workers: [1, 2, 4][index], cut, ..EngineConfig::default() }, &input);
            let status = engine.reader().status();
            engine.shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {cut:?}"), &plan, &interpreter, &input);
            for (index, source) in plan.sources.iter().enumerate() {
                let assigned = assign_epochs(source, index, input.records(&source.name)).unwrap();
                assert_eq!(status.sources[index].late_rows, assigned.late.len() as u64, "seed {seed}, {cut:?}");
                late += assigned.late.len();
            }
        }
    }
    assert!(late > 20, "the input has late rows, not {late}");
}

#[test]
fn a_stop_anywhere_and_a_restart_with_other_workers_keep_every_partition_in_its_place() {
    let mut plan = observed(every_operator());
    plan.sources[1].lateness_ms = Some(10_000);
    for seed in 300..304 {
        let shape = Shape { rows: 40, partitions: 2 + (seed % 3) as u32, late: 0.3, retractions: 0.0, ..Shape::default() };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let mut stops: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
        stops.dedup();
        for (index, stop) in stops.into_iter().enumerate().step_by(3) {
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                data_dir: Some(folder.path().to_path_buf()),
                checkpoint_every_step: index % 2 == 0,
                stop_after,
                ..EngineConfig::default()
            };
            let first = connectors(&plan, seed, &shape).with_seed(index as u64);
            let engine = Engine::start(plan.clone(), config([1, 2, 4][index % 3], Some(stop)), &first).unwrap();
            engine.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
            engine.shutdown().unwrap();
            let second = first.with_seed(9_000 + index as u64);
            run(&plan, config([2, 4, 1][index % 3], None), &second).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, stopped after {stop}"), &plan, &interpreter, &second);
        }
    }
}

#[test]
fn rows_outside_from_and_until_are_no_input_in_any_partition() {
    let plan = observed(every_operator());
    let shape = Shape { partitions: 3, rows: 80, ..Shape::default() };
    let input = connectors(&plan, 5, &shape);
    let whole = interpreter(&plan, &input);
    let history = whole.history(NodeId(0));
    let (from, until) = (history[history.len() / 4].1, history[history.len() * 3 / 4].1);
    let config = EngineConfig { from: [("left".to_string(), from)].into(), until: Some(until), workers: 2, ..EngineConfig::default() };
    run(&plan, config, &input).shutdown().unwrap();
    let rows = |epochs: &dyn Fn(Epoch) -> bool| {
        assign_epochs(&plan.sources[0], 0, input.records("left")).unwrap().rows.iter().filter(|row| !row.dead && epochs(row.epoch)).count()
    };
    let found = input.sink("n0").iter().filter(|change| change.epoch < from || change.epoch >= until).count();
    assert_eq!(found, 0);
    assert!(rows(&|epoch| epoch >= from && epoch < until) > 10);
    assert!(!input.sink("n0").is_empty());
}
