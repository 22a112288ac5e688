//! The prediction file of the loop has the same bytes for any number of workers, any cut into steps, and after crashes at several places.

use std::sync::Arc;

use freshet::{Config, Layer, Place, control};
use freshet_connectors::BuiltIn;
use freshet_engine::{Engine, EngineConfig, StepCut};
use serde_json::Value;

use crate::node::{Node, Setting, assert_identical, python};
use crate::small_loop::{Month, RUNS};
use crate::year::program;

/// Whether the pipeline's status says that it is time to kill it.
type Moment = fn(&Value) -> bool;

#[test]
fn predictions_have_the_same_bytes_for_all_workers_and_after_crashes_between_and_during_trainings() {
    let month = Month::open();
    let base = month.setting("base", &[]);
    let runs = base.run(&[RUNS]).remove(0);
    assert!(runs.len() >= 3, "{runs:?}");
    assert!(runs.iter().filter(|run| run["result"] == "promoted").count() >= 2, "{runs:?}");

    let again = Setting { workers: 2, ..month.setting("again", &[]) };
    assert_eq!(again.run(&[RUNS]).remove(0), runs);
    assert_identical(&again.predictions(), &base.predictions(), "two workers");

    let crashes: [(&str, usize, Moment); 3] = [
        ("the first training", 1, |job| job["running"].is_string()),
        ("the time after the first run", 2, |job| job["runs"].as_u64() >= Some(1) && job["running"].is_null()),
        ("the third training", 1, |job| job["runs"].as_u64() >= Some(2) && job["running"].is_string()),
    ];
    let mut crashed = month.setting("crashed", &[]);
    for (place, workers, holds) in crashes {
        crashed.workers = workers;
        let mut node = Node::start(&crashed);
        node.wait_until(place, |status| holds(&status["jobs"][0]) || status["finished"] == true);
        node.kill();
    }
    crashed.workers = 2;
    assert_eq!(crashed.run(&[RUNS]).remove(0), runs);
    assert_identical(&crashed.predictions(), &base.predictions(), "killed three times");
}

#[test]
fn predictions_have_the_same_bytes_for_steps_of_one_epoch_of_seven_and_of_many() {
    let month = Month::open();
    let run = |name: &str, workers: usize, cut: StepCut| {
        let setting = Setting { workers, ..month.setting(name, &[]) };
        run_here(&setting, cut);
        setting.predictions()
    };
    let many = run("many", 1, StepCut::Rows(8192));
    assert_identical(&run("seven", 2, StepCut::Epochs(7)), &many, "steps of seven epochs");
    assert_identical(&run("one", 1, StepCut::Epochs(1)), &many, "every epoch its own step");
}

/// In this process, whose engine can be told how to cut steps.
fn run_here(setting: &Setting, cut: StepCut) {
    let program = Arc::new(program(&setting.pipeline, &setting.data, &setting.folder.join("out")));
    let settings = Config { python: python(), ..Config::load(None, Layer::default()).unwrap() };
    let place = Place { data_dir: setting.state(), folder: setting.pipeline.clone(), flight: String::new(), workers: setting.workers };
    let control = control(&program, &settings, &place).unwrap();
    let config = EngineConfig { workers: setting.workers, cut, data_dir: Some(setting.state()), ..EngineConfig::default() };
    let engine = Engine::start_with(program.plan.clone(), config, &BuiltIn, control).unwrap();
    engine.wait().unwrap();
    let status = engine.reader().status();
    assert!(status.jobs[0].promoted >= 2, "{:?}", status.jobs);
    engine.shutdown().unwrap();
}
