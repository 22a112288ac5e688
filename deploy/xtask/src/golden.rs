//! Runs the golden tests of SQL. In: sql/tests/golden. Out: their verdict, or with `update` the files rewritten for review as code.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs the golden tests; `update` rewrites the expected outputs instead of comparing. Errors: a golden differs, or cargo is missing.
pub fn run(root: &Path, update: bool) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["test", "--workspace", "--test", "sql", "golden"]);
    if update {
        command.env("FRESHET_GOLDEN", "update");
    }
    let status = command.status().context("starting cargo")?;
    ensure!(status.success(), "golden tests failed; if the new output is right, run `cargo xtask golden --update` and review the diff");
    Ok(())
}
