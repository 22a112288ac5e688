//! The answers of the year do not depend on workers, steps or restarts, and a sample equals what plain Python computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use freshet_core::Epoch;
use freshet_engine::{EngineConfig, StepCut};

use crate::year::{data_folder, plan, start};

/// 2013-07-01T12:00:00Z.
const MIDDLE: Epoch = Epoch(1_372_680_000_000);

/// 2013-02-01T00:00:00Z.
const END_OF_JANUARY: Epoch = Epoch(1_359_676_800_000);
const STOPPED: &str = "was stopped before its sources ended";

/// Python with pyarrow, as `./dev setup` installs it.
#[allow(clippy::disallowed_methods, reason = "where the test's Python is, is told by the environment")]
fn python() -> PathBuf {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(PathBuf::from);
    variable("FRESHET_PYTHON").unwrap_or_else(|| {
        let cache = variable("FRESHET_CACHE").or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("freshet")));
        let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache/freshet"))).expect("HOME is set");
        cache.join("venv/bin/python")
    })
}

fn run(data: &Path, out: &Path, config: EngineConfig) -> Vec<u8> {
    let engine = start(plan(data, out), config);
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    fs::read(out.join("questions.jsonl")).unwrap()
}

/// What is written until the end of January with every epoch its own step: the year's file begins with it.
fn first_month(data: &Path, out: &Path) -> Vec<u8> {
    let config = EngineConfig { cut: StepCut::Epochs(1), stop_after: Some(END_OF_JANUARY), ..EngineConfig::default() };
    let engine = start(plan(data, out), config);
    assert!(engine.wait().unwrap_err().to_string().contains(STOPPED));
    engine.shutdown().unwrap();
    fs::read(out.join("questions.jsonl")).unwrap()
}

fn check_sample(data: &Path, questions: &Path, seed: u64) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_features.py");
    let mut command = Command::new(python());
    command.arg(script).arg(data).arg(questions).args(["--sample", "5000", "--seed", &seed.to_string()]);
    let output = command.output().expect("Python runs: run ./dev test");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("all equal"), "{text}{errors}");
}

/// Where two files part, instead of 300 MB of both.
fn assert_identical(found: &[u8], expected: &[u8], what: &str) {
    assert!(!expected.is_empty());
    if found != expected {
        let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let line = expected[..same].iter().filter(|byte| **byte == b'\n').count() + 1;
        panic!("{what}: {} bytes instead of {}, first difference in line {line}", found.len(), expected.len());
    }
}

#[test]
fn a_year_of_answers_is_the_same_for_all_workers_steps_and_restarts_and_equals_plain_python() {
    let data = data_folder();
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let one = run(&data, &out("one"), EngineConfig::default());
    check_sample(&data, &out("one/questions.jsonl"), 1);
    let two = run(&data, &out("two"), EngineConfig { workers: 2, ..EngineConfig::default() });
    assert_identical(&two, &one, "two workers");
    check_sample(&data, &out("two/questions.jsonl"), 2);
    drop(two);
    let single = first_month(&data, &out("single"));
    assert!(single.len() > one.len() / 20, "a month is more than {} of {} bytes", single.len(), one.len());
    assert_identical(&single, &one[..single.len()], "every epoch its own step");

    let config = EngineConfig { workers: 2, data_dir: Some(out("state")), ..EngineConfig::default() };
    let stopped = start(plan(&data, &out("resumed")), EngineConfig { stop_after: Some(MIDDLE), ..config.clone() });
    assert!(stopped.wait().unwrap_err().to_string().contains(STOPPED));
    stopped.shutdown().unwrap();
    let half = fs::read(out("resumed/questions.jsonl")).unwrap();
    assert!(one.len() / 4 < half.len() && half.len() < one.len() / 4 * 3, "the stop is in the middle: {} of {} bytes", half.len(), one.len());
    let resumed = run(&data, &out("resumed"), EngineConfig { workers: 1, ..config });
    assert_identical(&resumed, &one, "stopped with two workers, resumed with one");
}
