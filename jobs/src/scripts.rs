//! Paths to scripts. In: .sql files and pipeline folders, as the user names them. Out: the scripts of one pipeline in the order they are
//! read, and its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use freshet_sql::Script;

/// The scripts of a pipeline.
#[derive(Debug, Clone)]
pub struct Scripts {
    /// The folder's or file's name, of the first path.
    pub name: String,
    /// The pipeline's folder: that of the last path, because sources kept elsewhere come before what uses them.
    pub folder: PathBuf,
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
    let last = paths.last().expect("there is a first path");
    let folder = if last.is_dir() { last.as_path() } else { last.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")) };
    Ok(Scripts { name, folder: folder.to_path_buf(), scripts })
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
