//! Which files a watching source has read, and at which offsets. In: one entry as a file is begun or ended. Out: where a checkpoint's offset lies.
//!
//! Invariant: an entry is durable before the first row of its file is handed out, so every offset of a checkpoint has its file here. A file is
//! remembered as long as it is there; of those that have gone, the last so many: what is kept grows with the folder, not with time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Files that are remembered although they have gone: far more than are read between two checkpoints.
const GONE_MAX: usize = 10_000;

/// A file that was begun, or something to say about one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Offset of its first record.
    pub first: u64,
    pub file: Arc<str>,
    pub tag: Arc<str>,
    /// Behind its last record; None: it was not read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// The one record of this entry is a dead letter with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Ends the entry before it.
#[derive(Serialize, Deserialize)]
struct End {
    end: u64,
}

#[derive(Debug)]
struct Known {
    tag: Arc<str>,
    /// It was said that the file has changed.
    told: bool,
}

#[derive(Debug, Default)]
pub struct Journal {
    /// None: nothing survives the process.
    file: Option<(PathBuf, File)>,
    lines: usize,
    /// The last line may be half written.
    torn: bool,
    gone_max: usize,
    entries: VecDeque<Entry>,
    known: HashMap<Arc<str>, Known>,
}

impl Journal {
    /// Without a file.
    pub fn in_memory() -> Journal {
        Journal { gone_max: GONE_MAX, ..Journal::default() }
    }

    /// Goes on with the file. Errors: Unavailable, naming it.
    pub fn open(path: &Path) -> Result<Journal> {
        let mut journal = Journal::in_memory();
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(path, &error)),
        };
        for line in text.split(|byte| *byte == b'\n') {
            // The last line may be torn; no row of its file was handed out.
            if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
                journal.remember(entry);
            } else if let (Ok(End { end }), Some(last)) = (serde_json::from_slice(line), journal.entries.back_mut()) {
                last.end = Some(end);
            }
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(path, &error))?;
        }
        journal.file = Some((path.to_path_buf(), append(path)?));
        // Written anew: a torn line must not be joined by the next one.
        journal.rewrite()?;
        Ok(journal)
    }

    /// The entries that have something behind this offset, in order: what is to be read again. Errors: Data where the journal is not that of
    /// the checkpoint.
    pub fn since(&mut self, offset: u64) -> Result<Vec<Entry>> {
        if offset == 0 {
            if self.entries.front().is_some_and(|entry| entry.first > 0) {
                // A pipeline that begins anew over an old journal.
                (self.entries, self.known) = (VecDeque::new(), HashMap::new());
                self.rewrite()?;
            }
            return Ok(self.entries.iter().cloned().collect());
        }
        let known = self.entries.front().is_some_and(|entry| entry.first <= offset);
        if !known || self.entries.back().and_then(|entry| entry.end).is_some_and(|end| end < offset) {
            let place = self.file.as_ref().map_or("memory only".to_string(), |(path, _)| path.display().to_string());
            return Err(Error::data(format!(
                "cannot go on at record {offset}: which files it stands for was kept in {place} and is not there; put it back, or start from an empty \
                 data directory"
            )));
        }
        Ok(self.entries.iter().filter(|entry| entry.end.is_none_or(|end| end > offset)).cloned().collect())
    }

    pub fn is_known(&self, file: &str) -> bool {
        self.known.contains_key(file)
    }

    /// Whether a file that has been read is another one now, and nobody has said so.
    pub fn has_changed(&self, file: &str, tag: &str) -> bool {
        self.known.get(file).is_some_and(|known| !known.told && *known.tag != *tag)
    }

    /// Errors: Unavailable, and nothing is remembered.
    pub fn begin(&mut self, entry: Entry) -> Result<()> {
        assert!(self.entries.back().is_none_or(|last| last.end.is_some_and(|end| end <= entry.first)), "one file after the other");
        self.append(&entry, true)?;
        self.remember(entry);
        Ok(())
    }

    /// The file that was begun last ends before this offset.
    pub fn end(&mut self, end: u64) -> Result<()> {
        self.append(&End { end }, false)?;
        self.entries.back_mut().expect("a file was begun").end = Some(end);
        Ok(())
    }

    /// Forgets the oldest of the files that are not there any more.
    pub fn forget(&mut self, present: &HashSet<&str>) -> Result<()> {
        let gone = self.entries.iter().filter(|entry| entry.note.is_none() && !present.contains(&*entry.file)).count();
        let mut surplus = gone.saturating_sub(self.gone_max);
        if surplus > 0 {
            let known = &mut self.known;
            self.entries.retain(|entry| {
                let forgotten = surplus > 0 && entry.end.is_some() && !present.contains(&*entry.file);
                if forgotten {
                    surplus -= usize::from(entry.note.is_none());
                    known.remove(&entry.file);
                }
                !forgotten
            });
        }
        if self.lines > 1_000 + 3 * self.entries.len() { self.rewrite() } else { Ok(()) }
    }

    fn remember(&mut self, entry: Entry) {
        let told = entry.note.is_some();
        let known = Known { tag: entry.tag.clone(), told: told || self.known.get(&entry.file).is_some_and(|known| known.told) };
        self.known.insert(entry.file.clone(), known);
        self.entries.push_back(entry);
    }

    fn append(&mut self, line: &impl Serialize, durable: bool) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let text = serde_json::to_string(line).map_err(|error| Error::internal(error.to_string()))?;
        let text = if std::mem::replace(&mut self.torn, true) { format!("\n{text}\n") } else { format!("{text}\n") };
        let written = file.write_all(text.as_bytes()).and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        written.map_err(|error| failed(path, &error))?;
        self.torn = false;
        self.lines += 1;
        Ok(())
    }

    /// The file with what is still remembered, in one step.
    fn rewrite(&mut self) -> Result<()> {
        let Some((path, _)) = &self.file else { return Ok(()) };
        let path = path.clone();
        let fresh = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&fresh)?);
            for entry in &self.entries {
                serde_json::to_writer(&mut out, entry)?;
                out.write_all(b"\n")?;
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(|error| failed(&path, &error))?;
        (self.lines, self.torn) = (self.entries.len(), false);
        self.file = Some((path.clone(), append(&path)?));
        Ok(())
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!("the positions of files cannot be kept in {}: {error}; free the disk or mend its rights", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: u64, file: &str) -> Entry {
        Entry { first, file: file.into(), tag: "t".into(), end: None, note: None }
    }

    #[test]
    fn offsets_find_their_files_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files/events.journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.begin(entry(0, "a")).unwrap();
        journal.end(5).unwrap();
        journal.begin(entry(5, "b")).unwrap();
        drop(journal);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"first\":5,\"fi").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let files = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.file.to_string()).collect::<Vec<_>>();
        assert_eq!(files(journal.since(0).unwrap()), ["a", "b"]);
        assert_eq!(files(journal.since(4).unwrap()), ["a", "b"]);
        assert_eq!(files(journal.since(5).unwrap()), ["b"]);
        assert_eq!(files(journal.since(9).unwrap()), ["b"]);
        journal.end(7).unwrap();
        assert_eq!(files(journal.since(7).unwrap()), [""; 0]);
        assert!(journal.since(8).unwrap_err().message.starts_with("cannot go on at record 8"));
        assert!(Journal::in_memory().since(1).is_err());
    }

    #[test]
    fn only_the_last_files_that_have_gone_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.gone_max = 3;
        for at in 0..2_000 {
            journal.begin(entry(at, &at.to_string())).unwrap();
            journal.end(at + 1).unwrap();
            journal.forget(&HashSet::from(["7"])).unwrap();
        }
        assert!(journal.is_known("7") && journal.is_known("1997") && !journal.is_known("1996"));
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() < 1_100);
        let journal = Journal::open(&path).unwrap();
        assert!(journal.is_known("7") && journal.is_known("1999") && !journal.is_known("8"));
    }

    #[test]
    fn a_change_is_told_once() {
        let mut journal = Journal::in_memory();
        journal.begin(entry(0, "a")).unwrap();
        journal.end(1).unwrap();
        assert!(!journal.has_changed("a", "t") && journal.has_changed("a", "u") && !journal.has_changed("b", "u"));
        journal.begin(Entry { note: Some("changed".into()), end: Some(2), tag: "u".into(), ..entry(1, "a") }).unwrap();
        assert!(!journal.has_changed("a", "v"));
    }
}
