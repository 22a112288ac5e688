//! A trainer that hangs, fails, or writes nonsense costs its own run and nothing else: the pipeline ends well, the champion goes on.

use std::path::Path;

use crate::node::{all, freshet, python};
use crate::small_loop::{Month, RUNS};

const TRAINER: &str = "'${python:-python3} train.py' WITH (timeout = '10 minutes')";

#[test]
fn a_trainer_that_hangs_fails_or_writes_nonsense_costs_its_run_and_nothing_else() {
    let month = Month::open();
    // The same drift in all: only time triggers.
    let calm = ("psi(p_late) > 0.1 FOR 3", "psi(p_late) > 1000 FOR 3");
    let good = month.setting("good", &[calm, ("EVERY INTERVAL '7 days'", "EVERY INTERVAL '70 days'")]);
    good.run(&[RUNS]);
    let model = good.state().join("models/arrival_delay/1/model.onnx");
    let faults = [
        ("hanging", "sleep 1000", "timeout"),
        ("failing", "echo the disk is full >&2; exit 3", "the disk is full"),
        ("corrupt", "echo nonsense > $FRESHET_OUTPUT/model.onnx", "model.onnx"),
        ("silent", "true", "model.onnx"),
    ];
    for (name, fault, reason) in faults {
        // The first run has no champion and gets the good model.
        let command =
            format!("'if [ -z \"$FRESHET_CHAMPION\" ]; then cp {} $FRESHET_OUTPUT/; else {fault}; fi' WITH (timeout = '2 seconds')", model.display());
        let faulty = month.setting(name, &[calm, (TRAINER, &command)]);
        let mut text = std::fs::read_to_string(faulty.pipeline.join("pipeline.sql")).unwrap();
        text.push_str("\nSELECT decided_at, result, reason FROM runs(retrain_delay) ORDER BY decided_at;\n");
        text.push_str(
            "SELECT count(*) AS scored, min(model_version) AS least, max(model_version) AS greatest FROM predictions WHERE p_late IS NOT NULL;\n",
        );
        std::fs::write(faulty.pipeline.join("pipeline.sql"), text).unwrap();
        let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
        let output = freshet()
            .arg("run")
            .arg(&faulty.pipeline)
            .args(["--var", &variable("data", &faulty.data), "--var", &variable("out", &faulty.folder.join("out"))])
            .args(["--var", &variable("python", &python()), "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(faulty.state())
            .output()
            .unwrap();
        let told = all(&output);
        assert_eq!(output.status.code(), Some(0), "{name}: {told}");
        let failed: Vec<&str> = told.lines().filter(|line| line.contains("  failed  ")).collect();
        assert!(failed.len() >= 2 && failed.iter().all(|line| line.contains(reason)), "{name}: {told}");
        let scored = told
            .lines()
            .find(|line| line.split_whitespace().count() == 3 && line.trim_end().ends_with("  1"))
            .unwrap_or_else(|| panic!("{name}: {told}"));
        assert!(scored.split_whitespace().next().unwrap().parse::<u64>().unwrap() > 10_000, "{name}: {scored}");
        crate::node::assert_identical(&faulty.predictions(), &good.predictions(), name);
    }
}
