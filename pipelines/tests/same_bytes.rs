//! The prediction file of the loop has the same bytes for any number of workers, and after crashes at several places.

use serde_json::Value;

use crate::node::{Node, Setting, assert_identical};
use crate::small_loop::{Month, RUNS};

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

    let crashes: [(&str, usize, fn(&Value) -> bool); 3] = [
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
