//! Runs every rule over the workspace. In: its root folder. Out: a report; reads files, changes none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Report, code, files, functions, imports, map, threads};

/// Folders that hold no source of ours.
const FOLDERS_SKIPPED: [&str; 5] = [".git", "target", "__pycache__", ".freshet", "node_modules"];

/// Prints what was found; an error if anything must change.
pub fn run(root: &Path) -> Result<()> {
    let report = check(root)?;
    for notice in &report.notices {
        println!("notice: {notice}");
    }
    for failure in &report.failures {
        println!("tidy: {failure}");
    }
    if !report.failures.is_empty() {
        bail!("{} tidy rules broken, listed above", report.failures.len());
    }
    println!("tidy: all rules hold");
    Ok(())
}

/// All rules over all files. Errors: cargo or a file cannot be read.
pub fn check(root: &Path) -> Result<Report> {
    let mut report = Report::default();
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    for path in &paths {
        check_file(root, path, &mut report)?;
    }
    let graph = imports::Graph::read(root)?;
    imports::check(&graph, &mut report);
    imports::check_lock(&read(&root.join("Cargo.lock"))?, &mut report);
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    map::check(&architecture, &map::places(&graph.folders, root)?, &mut report);
    Ok(report)
}

fn check_file(root: &Path, path: &Path, report: &mut Report) -> Result<()> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
    // Models, images and the like have no lines.
    let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
    let relative = path.strip_prefix(root).expect("collected below the root").to_string_lossy().replace('\\', "/");
    files::check_machine_paths(&relative, &text, report);
    if !relative.ends_with(".rs") {
        return Ok(());
    }
    files::check_name(&relative, report);
    files::check_header(&relative, &text, report);
    if files::is_generated(&relative, &text) {
        return Ok(());
    }
    files::check_length(&relative, &text, report);
    let bare = code::without_text(&text);
    functions::check(&relative, &bare, report);
    threads::check(&relative, &bare, report);
    Ok(())
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading folder {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        if kind.is_dir() && !FOLDERS_SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(&entry.path(), paths)?;
        } else if kind.is_file() && name != ".git" {
            paths.push(entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
