//! A training set is computed from the input history: its rows are the vectors the stream looked up, also when no view of the run had a
//! feature, or when the predictions were never asked for.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::{Setting, all, check, edited, freshet};
use crate::small_loop::{Month, RUNS};

#[test]
fn exported_training_rows_equal_the_stream_also_with_a_new_feature_and_without_predictions() {
    let month = Month::open();
    let run = month.setting("run", &[]);
    run.run(&[RUNS]);
    let compare = |what: &str, file: &Path| {
        let told = check("check_export.py", &[&month.data, &run.predictions(), file]);
        println!("{what}: {told}");
        told
    };
    let plain = export(&run, &run.pipeline, &month.path().join("plain.parquet"));
    assert!(compare("as declared", &plain).contains("0 more columns"));

    let more = ("avg(dep_delay) AS origin_delay", "avg(dep_delay) AS origin_delay, max(dep_delay) AS origin_worst");
    let pipeline = edited(&month.path().join("more"), &[more]);
    let wider = export(&run, &pipeline, &month.path().join("wider.parquet"));
    assert!(compare("with a feature no view had", &wider).contains("4 more columns"));

    let pipeline = edited(&month.path().join("less"), &[]);
    let file = pipeline.join("pipeline.sql");
    let gone = ["VIEW predictions", "VIEW quality", "MONITOR delay_drift", "JOB retrain_delay", "SINK predictions_out"];
    fs::write(&file, without(&fs::read_to_string(&file).unwrap(), &gone)).unwrap();
    let alone = export(&run, &pipeline, &month.path().join("alone.parquet"));
    assert_eq!(fs::read(&alone).unwrap(), fs::read(&plain).unwrap(), "without predictions");
}

fn export(run: &Setting, pipeline: &Path, file: &Path) -> PathBuf {
    let mut command = freshet();
    command.args(["training-set", "export", "delay_train", "--pipeline"]).arg(pipeline);
    command.args(["--var", &format!("data={}", run.data.display()), "--format", "parquet", "--out"]).arg(file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    file.to_path_buf()
}

/// The script less the statements that create these; each is there.
fn without(text: &str, names: &[&str]) -> String {
    let statements: Vec<&str> = text.split_inclusive(";\n").collect();
    let creates = |statement: &str, name: &str| statement.lines().any(|line| line.starts_with("CREATE ") && line.contains(name));
    names.iter().for_each(|name| assert!(statements.iter().any(|statement| creates(statement, name)), "nothing creates {name}"));
    statements.into_iter().filter(|statement| !names.iter().any(|name| creates(statement, name))).collect()
}
