//! Golden files: a script after the prelude, `----`, and what comes of it; cases end with `====`.
//! `*.err`: the error. `*.plan`: the output of its EXPLAINs. FRESHET_GOLDEN=update rewrites them; the difference is reviewed as code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::given::{compiled, refused};

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
