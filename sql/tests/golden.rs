//! Golden files: a script after the prelude, `----`, and what comes of it; cases end with `====`.
//! `*.err`: the error. `*.plan`: the output of its EXPLAINs. FRESHET_GOLDEN=update rewrites them; the difference is reviewed as code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::given::{AnyFile, compiled, refused, script};

#[test]
fn every_refused_statement_says_where_and_what_to_do() {
    check("err", |text| format!("{}\n", refused(text)));
}

#[test]
fn every_plan_is_as_it_was() {
    check("plan", |text| {
        let program = compiled(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        program.explains.iter().map(|explain| format!("{}\n{}", explain.title, explain.text)).collect()
    });
}

#[expect(clippy::disallowed_methods, reason = "the only variable of this test")]
fn check(extension: &str, answer: impl Fn(&str) -> String) {
    let files = files(extension);
    assert!(!files.is_empty());
    let update = std::env::var("FRESHET_GOLDEN").is_ok_and(|value| value == "update");
    let mut differences = Vec::new();
    for path in files {
        let before = fs::read_to_string(&path).unwrap();
        let after: String = cases(&before).iter().map(|text| format!("{text}\n----\n{}====\n", answer(text))).collect();
        if before == after {
            continue;
        }
        match update {
            true => fs::write(&path, after).unwrap(),
            false => differences.push(format!("{}:\n{after}", path.display())),
        }
    }
    assert!(differences.is_empty(), "run with FRESHET_GOLDEN=update and review:\n{}", differences.join("\n"));
}

fn cases(file: &str) -> Vec<String> {
    let blocks = file.split("====\n").filter(|block| !block.trim().is_empty());
    blocks.map(|block| block.split("\n----\n").next().unwrap().trim().to_string()).collect()
}

fn files(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// The pipelines that are shipped, with their folders given as variables.
#[test]
fn the_demo_pipeline_compiles_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/flight_delay");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == "sql"));
    // Sources first: pipeline.sql reads them.
    paths.sort_by_key(|path| (path.ends_with("pipeline.sql"), !path.ends_with("sources.sql"), path.clone()));
    let scripts: Vec<_> = paths.iter().map(|path| script(path.file_name().unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap())).collect();
    let variables = std::collections::BTreeMap::from([("data".to_string(), "/data".to_string())]);
    let program = freshet_sql::compile(&scripts, &variables, &AnyFile).unwrap_or_else(|error| panic!("{error}"));
    assert!(program.warnings.is_empty(), "{:?}", program.warnings);
    let service = program.plan.service("delay_features").unwrap();
    assert_eq!(service.output.len(), 4 * 2 * 4 + 6 + 3);
    let predictions = program.plan.view("predictions").unwrap();
    assert_eq!(predictions.schema.fields().len(), 3 + service.output.len() + 3);
}
