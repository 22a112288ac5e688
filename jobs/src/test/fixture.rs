//! Pipeline fixtures. In: a folder with .sql files, input/ and expected/. Out: nothing, or every file that differs, line by line.
//!
//! The pipeline runs with `data` = input/ and `out` = an empty folder. A file in expected/ is compared byte by byte with the file of that
//! name in `out`; if there is none, `<view>.csv` is compared with the view's rows, in any order.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use freshet_sql::logic::difference;

use crate::rows::{RowFormat, format_rows};
use crate::scripts::read_scripts;
use crate::test::embedded::Embedded;

/// Runs the fixture and says how many files agreed.
pub fn run(folder: &Path) -> Result<usize> {
    let scripts = read_scripts(&[folder.to_path_buf()])?;
    let out = tempfile::tempdir().context("making a folder for the sinks")?;
    let variables =
        BTreeMap::from([("data".to_string(), folder.join("input").display().to_string()), ("out".to_string(), out.path().display().to_string())]);
    let pipeline = Embedded::run(&scripts.scripts, &variables)?;
    let expected = expected_files(&folder.join("expected"))?;
    let mut views = BTreeMap::new();
    for name in &expected {
        if let Some(view) = name.strip_suffix(".csv").filter(|view| pipeline.views().iter().any(|known| known == view)) {
            let answer = pipeline.query(&format!("SELECT * FROM \"{view}\""))?;
            views.insert(name.clone(), format_rows(&answer.schema, &answer.batches, RowFormat::Csv)?);
        }
    }
    pipeline.end()?;
    let mut different = Vec::new();
    for name in &expected {
        let wanted = std::fs::read_to_string(folder.join("expected").join(name)).with_context(|| format!("reading expected/{name}"))?;
        let (wanted, found) = match (std::fs::read_to_string(out.path().join(name)), views.get(name)) {
            (Ok(written), _) => (lines(&wanted), lines(&written)),
            (Err(_), Some(rows)) => (sorted(&wanted), sorted(rows)),
            (Err(_), None) => {
                different.push(format!("expected/{name} is neither a file that a sink wrote nor a view"));
                continue;
            }
        };
        if wanted != found {
            different.push(format!("expected/{name} differs (- expected, + found)\n{}", difference(&wanted, &found)));
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(expected.len())
}

fn expected_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ensure!(!names.is_empty(), "{} is empty: nothing would be checked", folder.display());
    names.sort();
    Ok(names)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_string).collect()
}

/// The header, then the rows in order.
fn sorted(text: &str) -> Vec<String> {
    let mut lines = lines(text);
    if let Some(rows) = lines.get_mut(1..) {
        rows.sort_unstable();
    }
    lines
}
