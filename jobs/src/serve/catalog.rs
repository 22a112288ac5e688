//! The catalog on disk: one folder per pipeline with one file, replaced as a whole, so that a crash leaves the old one or the new one.
//!
//! Beside it: `pipelines/NAME`, the data directory of the pipeline itself, and `logs/NAME`, what its generations wrote to stderr.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::serve::machine::Record;

const FILE: &str = "pipeline.json";

/// A data directory that this process holds.
#[derive(Debug)]
pub struct Catalog {
    data_dir: PathBuf,
    _lock: File,
}

impl Catalog {
    /// Takes the data directory. Errors: another process has it, or it cannot be made.
    pub fn open(data_dir: &Path) -> Result<Catalog> {
        let failed = || format!("using the data directory {}", data_dir.display());
        std::fs::create_dir_all(data_dir).with_context(failed)?;
        let data_dir = data_dir.canonicalize().with_context(failed)?;
        let path = data_dir.join("lock");
        let mut lock = File::options().create(true).read(true).write(true).truncate(false).open(&path).with_context(failed)?;
        if lock.try_lock().is_err() {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "the data directory {} is in use by process {}; stop it or use another data directory (--data-dir)",
                data_dir.display(),
                holder.trim()
            );
        }
        lock.set_len(0).with_context(failed)?;
        lock.write_all(std::process::id().to_string().as_bytes()).with_context(failed)?;
        std::fs::create_dir_all(data_dir.join("catalog")).with_context(failed)?;
        Ok(Catalog { data_dir, _lock: lock })
    }

    /// All pipelines, by name. Errors: a file that cannot be read or understood, named.
    pub fn load(&self) -> Result<Vec<Record>> {
        let folder = self.data_dir.join("catalog");
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.with_context(|| format!("reading {}", folder.display()))?.path().join(FILE);
            let text = match std::fs::read(&path) {
                Ok(text) => text,
                // A folder without its file, or a draft: the process died in between.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            };
            records.push(serde_json::from_slice(&text).with_context(|| format!("{} is not understood", path.display()))?);
        }
        records.sort_by(|a: &Record, b| a.submission.name.cmp(&b.submission.name));
        Ok(records)
    }

    /// Durable when it returns.
    pub fn save(&self, record: &Record) -> Result<()> {
        let folder = self.data_dir.join("catalog").join(&record.submission.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        write_atomically(&folder.join(FILE), &serde_json::to_vec_pretty(record)?)
    }

    /// Forgets the pipeline, its state and its logs.
    pub fn remove(&self, name: &str) -> Result<()> {
        // The catalog first: what is not in it is nothing, whatever else is left.
        for folder in [self.data_dir.join("catalog").join(name), self.state(name), self.logs(name)] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(|| format!("removing {}", folder.display())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The data directory of the pipeline.
    pub fn state(&self, name: &str) -> PathBuf {
        self.data_dir.join("pipelines").join(name)
    }

    pub fn logs(&self, name: &str) -> PathBuf {
        self.data_dir.join("logs").join(name)
    }
}

/// The old content or the new one, whenever the machine stops.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("writing {}", path.display());
    let folder = path.parent().context("a file has a folder")?;
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft).with_context(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(failed)?;
    std::fs::rename(&draft, path).with_context(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::serve::machine::Desired;
    use crate::serve::order::{ScriptText, Submission};

    fn record(name: &str) -> Record {
        let scripts = vec![ScriptText { name: "pipeline.sql".into(), text: "SELECT 1;".into() }];
        let submission = Submission {
            name: name.into(),
            directory: "/".into(),
            scripts,
            variables: BTreeMap::new(),
            workers: Some(2),
            events_per_second: None,
            memory_bytes: None,
        };
        Record {
            submission,
            desired: Desired::Paused,
            generation: 4,
            restarts: 1,
            skips: vec!["rides:0:1-2".parse().unwrap()],
            halt: None,
            crashes: Vec::new(),
            flight: Some(([127, 0, 0, 1], 5).into()),
            http: None,
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_what_is_removed_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap();
        assert!(catalog.load().unwrap().is_empty());
        catalog.save(&record("b")).unwrap();
        catalog.save(&record("a")).unwrap();
        std::fs::create_dir(folder.path().join("catalog/half")).unwrap();
        std::fs::write(folder.path().join("catalog/c.submitted"), "{").unwrap();
        assert_eq!(catalog.load().unwrap(), [record("a"), record("b")]);
        catalog.remove("a").unwrap();
        assert_eq!(catalog.load().unwrap(), [record("b")]);
        std::fs::write(folder.path().join("catalog/b/pipeline.json"), "{").unwrap();
        assert!(format!("{:#}", catalog.load().unwrap_err()).contains("b/pipeline.json is not understood"));
    }

    #[test]
    fn one_process_holds_a_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = Catalog::open(folder.path()).unwrap();
        let second = Catalog::open(folder.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("is in use by process {}", std::process::id())), "{second}");
        drop(first);
        assert!(Catalog::open(folder.path()).is_ok());
    }
}
