//! The pipelines that ship with Freshet, as folders of SQL. In: a folder. Out: its scripts in the order they are one script.
//!
//! Every folder beside this crate's `src` that holds a `pipeline.sql` is a pipeline, an example and a test.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A pipeline's folder, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// The folder's name.
    pub name: String,
    pub folder: PathBuf,
    /// sources.sql first, so that sources can be exchanged; pipeline.sql last; others between them by name.
    pub scripts: Vec<Script>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub path: PathBuf,
    pub text: String,
}

impl Pipeline {
    /// Reads the folder. Errors: it cannot be read, or has no pipeline.sql.
    pub fn open(folder: &Path) -> Result<Pipeline> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading pipeline folder {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                paths.push(path);
            }
        }
        ensure!(paths.iter().any(|path| path.ends_with("pipeline.sql")), "{} has no pipeline.sql", folder.display());
        paths.sort_by_key(|path| (place(path), path.clone()));
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).with_context(|| format!("{} has no name", folder.display()))?;
        let scripts = paths.into_iter().map(read).collect::<Result<Vec<Script>>>()?;
        Ok(Pipeline { name, folder: folder.to_path_buf(), scripts })
    }

    /// All pipelines of this crate, by name.
    pub fn all() -> Result<Vec<Pipeline>> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(here)? {
            let path = entry?.path();
            if path.join("pipeline.sql").is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        folders.iter().map(|folder| Pipeline::open(folder)).collect()
    }
}

fn place(path: &Path) -> u8 {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("sources.sql") => 0,
        Some("pipeline.sql") => 2,
        _ => 1,
    }
}

fn read(path: PathBuf) -> Result<Script> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Script { path, text })
}
