//! Finds tests under paths and runs them. In: files and folders. Out: one line per test, the reasons of those that fail, a count.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::exit::{FAILED, Failure, Outcome};
use crate::test::{fixture, logic};

/// Endings of sqllogictest files.
const LOGIC: [&str; 2] = ["slt", "test"];

enum Test {
    Logic(PathBuf),
    Fixture(PathBuf),
}

pub fn run(paths: &[PathBuf]) -> Outcome {
    let mut tests = Vec::new();
    for path in paths {
        let before = tests.len();
        find(path, &mut tests).map_err(Failure::wrong)?;
        if tests.len() == before {
            let message = format!("{} holds no test: no .slt file and no pipeline folder with input/ and expected/", path.display());
            return Err(Failure::wrong(anyhow::anyhow!(message)));
        }
    }
    let mut failed = 0;
    for test in &tests {
        let (path, outcome) = match test {
            Test::Logic(path) => (path, logic::run(path)),
            Test::Fixture(path) => (path, fixture::run(path)),
        };
        match outcome {
            Ok(checks) => println!("ok      {} ({checks} checks)", path.display()),
            Err(error) => {
                failed += 1;
                println!("FAILED  {}\n{error:#}\n", path.display());
            }
        }
    }
    println!("{} passed, {failed} failed", tests.len() - failed);
    Ok(if failed == 0 { 0 } else { FAILED })
}

fn find(path: &Path, tests: &mut Vec<Test>) -> Result<()> {
    if path.is_file() {
        let known = path.extension().is_some_and(|extension| LOGIC.iter().any(|known| extension == *known));
        ensure!(known, "{} is neither a folder nor a .slt file", path.display());
        tests.push(Test::Logic(path.to_path_buf()));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    inside.sort();
    if path.join("expected").is_dir() {
        tests.push(Test::Fixture(path.to_path_buf()));
        return Ok(());
    }
    for entry in inside {
        let is_logic = entry.extension().is_some_and(|extension| LOGIC.iter().any(|known| extension == *known));
        if entry.is_dir() || (entry.is_file() && is_logic) {
            find(&entry, tests)?;
        }
    }
    Ok(())
}
