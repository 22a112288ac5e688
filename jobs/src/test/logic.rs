//! sqllogictest files. In: a path. Out: how many records hold, or the first that does not, with file and line.
//!
//! Statements build one pipeline; INSERT, UPDATE and DELETE into a table without connector are an epoch each, and a query is answered as of the
//! statement before it, or at the end of sources that are files. `${here}` in a string literal is the file's folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use freshet_connectors::BuiltIn;
use freshet_sql::logic::run_file;

use crate::test::embedded::EmbeddedEngines;

/// Runs the file and says how many records held.
pub fn run(path: &Path) -> Result<usize> {
    let here = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let variables = BTreeMap::from([("here".to_string(), here.display().to_string())]);
    let counts = run_file(path, &variables, &BuiltIn, &EmbeddedEngines)?;
    ensure!(counts.records > 0, "the file has no statement and no query");
    Ok(counts.records)
}
