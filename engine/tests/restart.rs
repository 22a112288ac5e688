//! Stop anywhere, go on with another number of workers: nothing is lost, nothing comes twice.

use freshet_core::Epoch;
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::generate::Shape;

use crate::plans::every_operator;
use crate::running::{assert_histories, connectors, interpreter, observed, run};

#[test]
fn a_stop_at_every_step_and_a_restart_with_other_workers_change_nothing() {
    let plan = observed(every_operator());
    for seed in 200..203 {
        let shape = Shape { rows: 24, ..Shape::default() };
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape));
        let mut stops: Vec<Epoch> = interpreter.history(freshet_core::NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
        stops.dedup();
        for (index, stop) in stops.into_iter().enumerate() {
            let connectors = connectors(&plan, seed, &shape);
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                history_ms: [0, 10_000][index % 2],
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
fn many_small_checkpoints_and_restarts_equal_one_run() {
    let plan = observed(every_operator());
    let shape = Shape { rows: 40, ..Shape::default() };
    let connectors = connectors(&plan, 7, &shape);
    let interpreter = interpreter(&plan, &connectors);
    let folder = tempfile::tempdir().unwrap();
    let epochs: Vec<Epoch> = interpreter.history(freshet_core::NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
    for (index, stop) in epochs.iter().step_by(4).map(|epoch| Some(*epoch)).chain([None]).enumerate() {
        let config = EngineConfig {
            workers: 1 + index % 4,
            cut: StepCut::Epochs(2),
            data_dir: Some(folder.path().to_path_buf()),
            checkpoint_every_step: true,
            stop_after: stop,
            ..EngineConfig::default()
        };
        let engine = Engine::start(plan.clone(), config, &connectors).unwrap();
        engine.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
        engine.shutdown().unwrap();
    }
    assert_histories("many restarts", &plan, &interpreter, &connectors);
    let blobs = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().count();
    assert!(blobs < 60, "old checkpoints are deleted, {blobs} files are left");
}

#[test]
fn a_data_directory_of_another_plan_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = || EngineConfig { data_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
    let plan = observed(every_operator());
    let connectors = connectors(&plan, 1, &Shape { rows: 10, ..Shape::default() });
    run(&plan, config(), &connectors).shutdown().unwrap();
    let mut other = every_operator();
    other.clock = freshet_core::ClockKind::Event;
    let error = Engine::start(other, config(), &connectors).err().expect("another plan");
    assert!(error.message.contains("another pipeline"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = || EngineConfig { data_dir: Some(folder.path().to_path_buf()), workers: 2, ..EngineConfig::default() };
    let plan = observed(every_operator());
    let connectors = connectors(&plan, 2, &Shape { rows: 30, ..Shape::default() });
    run(&plan, config(), &connectors).shutdown().unwrap();
    let blob = std::fs::read_dir(folder.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "bin"));
    let blob = blob.unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    for byte in bytes.iter_mut().step_by(7) {
        *byte ^= 0x55;
    }
    std::fs::write(&blob, bytes).unwrap();
    let error = Engine::start(plan.clone(), config(), &connectors).err().expect("a damaged checkpoint");
    assert!(error.message.contains("is damaged at byte") && error.message.contains("state-"), "{error}");
    std::fs::write(&blob, b"short").unwrap();
    let error = Engine::start(plan, config(), &connectors).err().expect("a short checkpoint");
    assert!(error.message.contains("is shorter than its manifest says"), "{error}");
}

#[test]
fn a_data_directory_has_one_process_and_a_pipeline_at_most_as_many_workers_as_shards() {
    let folder = tempfile::tempdir().unwrap();
    let config = || EngineConfig { data_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
    let plan = observed(every_operator());
    let connectors = connectors(&plan, 3, &Shape { rows: 10, ..Shape::default() });
    let engine = run(&plan, config(), &connectors);
    let error = Engine::start(plan.clone(), config(), &connectors).err().expect("the folder is taken");
    assert!(error.message.contains("is in use by process"), "{error}");
    engine.shutdown().unwrap();
    run(&plan, config(), &connectors).shutdown().unwrap();
    let error = Engine::start(plan, EngineConfig { workers: 257, ..EngineConfig::default() }, &connectors).err().expect("too many");
    assert!(error.message.contains("at most 256 workers"), "{error}");
}

#[test]
fn a_pipeline_without_views_ends_by_itself() {
    let mut plan = every_operator();
    plan.clock = freshet_core::ClockKind::Event;
    let with_sources = connectors(&plan, 4, &Shape { rows: 10, ..Shape::default() });
    run(&plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &with_sources).shutdown().unwrap();
    for clock in [freshet_core::ClockKind::Event, freshet_core::ClockKind::Wall] {
        let nothing = freshet_core::Plan { clock, ..freshet_core::Plan::default() };
        run(&nothing, EngineConfig::default(), &with_sources).shutdown().unwrap();
    }
}
