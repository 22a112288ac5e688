//! Paths to scripts. In: .sql files and pipeline folders, as the user names them. Out: the scripts of one pipeline in the order they are
//! read, and its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use freshet_sql::Script;
use freshet_sql::ast::Stmt;
use freshet_sql::parse::parse_script;

/// The scripts of a pipeline.
#[derive(Debug, Clone)]
pub struct Scripts {
    /// The folder's or file's name, of the first path.
    pub name: String,
    pub scripts: Vec<Script>,
}

/// Reads the paths; a folder is its sources.sql, then its other .sql files by name, then pipeline.sql.
pub fn read_scripts(paths: &[PathBuf]) -> Result<Scripts> {
    let first = paths.first().context("no path is given; name an .sql file or a pipeline folder")?;
    let mut scripts = Vec::new();
    for path in paths {
        let files = if path.is_dir() { folder_files(path)? } else { vec![path.clone()] };
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            scripts.push(Script { name: file.display().to_string(), text });
        }
    }
    let named = std::path::absolute(first).unwrap_or_else(|_| first.clone());
    let name = named.file_stem().map_or_else(|| "pipeline".to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(Scripts { name, scripts })
}

/// The folder that commands run in and files of models are relative to: that of the script that declares the first retraining job, or else
/// the first model, wherever sources and queries beside it are kept. The scripts compile.
pub fn pipeline_folder(scripts: &[Script], variables: &BTreeMap<String, String>) -> PathBuf {
    let declares = |wanted: fn(&Stmt) -> bool| {
        let mut found = scripts.iter();
        found.find(|script| parse_script(&script.name, &script.text, variables).is_ok_and(|script| script.iter().any(|one| wanted(&one.body))))
    };
    let job = declares(|statement| matches!(statement, Stmt::CreateRetrainingJob(_)));
    let script = job.or_else(|| declares(|statement| matches!(statement, Stmt::CreateModel(_)))).or(scripts.first());
    let folder = script.and_then(|script| Path::new(&script.name).parent()).filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_path_buf()
}

fn folder_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading folder {}", folder.display()))?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "folder {} holds no .sql file; a pipeline folder has at least a pipeline.sql", folder.display());
    files.sort_by_key(|file| (place(file), file.clone()));
    Ok(files)
}

fn place(file: &Path) -> u8 {
    match file.file_name().and_then(|name| name.to_str()) {
        Some("sources.sql") => 0,
        Some("pipeline.sql") => 2,
        _ => 1,
    }
}

/// `NAME=VALUE` pairs of the command line; the last of a name counts.
pub fn variables(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for pair in pairs {
        match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => variables.insert(name.to_string(), value.to_string()),
            _ => bail!("--var {pair} is not NAME=VALUE"),
        };
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_reads_sources_first_and_the_pipeline_last() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pipeline.sql", "b.sql", "sources.sql", "a.sql", "notes.md"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let read = read_scripts(&[folder.path().to_path_buf()]).unwrap();
        let texts: Vec<&str> = read.scripts.iter().map(|script| script.text.as_str()).collect();
        assert_eq!(texts, ["sources.sql", "a.sql", "b.sql", "pipeline.sql"]);
    }

    #[test]
    fn the_pipelines_folder_is_that_of_the_job_then_of_the_model_then_of_the_first_script() {
        let script = |name: &str, text: &str| Script { name: name.into(), text: text.into() };
        let job = "CREATE RETRAINING JOB j FOR m TRAINING SET t LAST INTERVAL '8 days' HOLDOUT LAST INTERVAL '2 days' MIN ROWS 1 RUN COMMAND 'x' WHEN EVERY INTERVAL '9 days' SINCE LAST RUN ROLLOUT IMMEDIATE;";
        let (sources, select) = (script("data/sources.sql", "SET clock = 'event';"), script("ask.sql", "SELECT 1;"));
        let (model, job) = (script("models/m.sql", "CREATE MODEL m INPUT (x DOUBLE) OUTPUT (p DOUBLE);"), script("jobs/j.sql", job));
        let folder = |scripts: &[&Script]| pipeline_folder(&scripts.iter().map(|script| (*script).clone()).collect::<Vec<_>>(), &BTreeMap::new());
        assert_eq!(folder(&[&sources, &model, &job, &select]), Path::new("jobs"));
        assert_eq!(folder(&[&sources, &model, &select]), Path::new("models"));
        assert_eq!(folder(&[&sources, &select]), Path::new("data"));
        assert_eq!(folder(&[&select]), Path::new("."));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = read_scripts(&[folder.path().to_path_buf()]).unwrap_err();
        assert!(format!("{empty:#}").contains("holds no .sql file"), "{empty:#}");
        let missing = read_scripts(&[folder.path().join("no.sql")]).unwrap_err();
        assert!(format!("{missing:#}").contains("no.sql"), "{missing:#}");
        assert!(variables(&["data".to_string()]).is_err());
        assert_eq!(variables(&["a=b=c".to_string()]).unwrap()["a"], "b=c");
    }
}
