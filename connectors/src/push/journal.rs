//! Which positions a push source has given, and under which name of the client. In: one entry a push. Out: the answer of a push that comes
//! again, and the first position that was never given.
//!
//! Invariant: an entry is in the file before its rows are in the queue, so a position is never given twice, however the process ends. What
//! the system had not written when the machine itself failed is lost with it: durable rows come from recorded input, not from here.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{Error, Result};

/// Names of pushes that are remembered per source; the oldest is forgotten first. With 64 bytes a name about 15 MiB.
pub const IDS_MAX: usize = 100_000;
/// Lines of the file before it is written anew with what is still remembered.
const LINES_MAX: usize = 4 * IDS_MAX;

/// What a push was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub first: u64,
    /// The position behind the last record.
    pub end: u64,
    pub dead_letters: u64,
}

#[derive(Debug)]
pub struct Journal {
    /// None: nothing survives the process.
    file: Option<(PathBuf, File)>,
    /// The last write has failed, and may have left half a line.
    torn: bool,
    lines: usize,
    lines_max: usize,
    ids_max: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// Oldest first.
    order: VecDeque<Arc<str>>,
    /// No position up to here is given again.
    end: u64,
}

impl Journal {
    /// Without a file.
    pub fn in_memory() -> Journal {
        Journal { file: None, torn: false, lines: 0, lines_max: LINES_MAX, ids_max: IDS_MAX, entries: HashMap::new(), order: VecDeque::new(), end: 0 }
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
            // The last line may be torn; its push was never answered.
            if let Some((entry, id)) = parse(line) {
                journal.remember(id.as_deref(), entry);
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

    /// Positions begin here.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What a push of this name was answered with.
    pub fn find(&self, id: &str) -> Option<Entry> {
        self.entries.get(id).copied()
    }

    /// The pipeline goes on at this position: what came behind it is lost, and its clients may send it again.
    pub fn settle(&mut self, offset: u64) -> Result<()> {
        self.entries.retain(|_, entry| entry.end <= offset);
        let entries = &self.entries;
        self.order.retain(|id| entries.contains_key(id));
        self.end = self.end.max(offset);
        self.rewrite()
    }

    /// Errors: Unavailable, and nothing is remembered.
    pub fn add(&mut self, id: Option<&str>, entry: Entry) -> Result<()> {
        assert!(entry.first >= self.end, "positions only grow");
        if self.torn {
            self.rewrite()?;
        }
        if let Some((path, file)) = &mut self.file {
            self.torn = true;
            file.write_all(line(id, entry).as_bytes()).map_err(|error| failed(path, &error))?;
            self.torn = false;
            self.lines += 1;
        }
        self.remember(id, entry);
        if self.lines > self.lines_max {
            self.rewrite()?;
        }
        Ok(())
    }

    fn remember(&mut self, id: Option<&str>, entry: Entry) {
        self.end = self.end.max(entry.end);
        let Some(id) = id else { return };
        let id: Arc<str> = id.into();
        if self.entries.insert(id.clone(), entry).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.ids_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// The file with what is still remembered, in one step.
    fn rewrite(&mut self) -> Result<()> {
        let Some((path, _)) = &self.file else { return Ok(()) };
        let path = path.clone();
        let fresh = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&fresh)?);
            for id in &self.order {
                out.write_all(line(Some(id), self.entries[id]).as_bytes())?;
            }
            out.write_all(line(None, Entry { first: self.end, end: self.end, dead_letters: 0 }).as_bytes())?;
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(|error| failed(&path, &error))?;
        self.lines = self.order.len() + 1;
        self.torn = false;
        self.file = Some((path.clone(), append(&path)?));
        Ok(())
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!("the positions of pushed rows cannot be kept in {}: {error}; free the disk or mend its rights", path.display()))
}

/// `[first, end, dead letters, name or null]`
fn line(id: Option<&str>, entry: Entry) -> String {
    let id = serde_json::Value::from(id);
    format!("[{},{},{},{id}]\n", entry.first, entry.end, entry.dead_letters)
}

fn parse(line: &[u8]) -> Option<(Entry, Option<String>)> {
    let (first, end, dead_letters, id) = serde_json::from_slice(line).ok()?;
    Some((Entry { first, end, dead_letters }, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: u64, end: u64) -> Entry {
        Entry { first, end, dead_letters: 0 }
    }

    #[test]
    fn names_and_positions_survive_a_restart_as_far_as_the_checkpoint_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push/rides.journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(Some("a \"quoted\" name"), Entry { first: 0, end: 3, dead_letters: 1 }).unwrap();
        journal.add(None, entry(3, 5)).unwrap();
        journal.add(Some("b"), entry(5, 9)).unwrap();
        drop(journal);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"[9,12,0,\"to").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.end(), 9);
        journal.settle(5).unwrap();
        assert_eq!(journal.find("a \"quoted\" name"), Some(Entry { first: 0, end: 3, dead_letters: 1 }));
        assert_eq!(journal.find("b"), None, "its rows were lost, so they may come again");
        assert_eq!(journal.end(), 9, "a position is not given twice");
        journal.add(Some("b"), entry(9, 13)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().find("b"), Some(entry(9, 13)));
    }

    #[test]
    fn half_a_line_of_a_write_that_failed_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rides.journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(Some("a"), entry(0, 3)).unwrap();
        // As a full disk leaves it.
        let (_, file) = journal.file.as_mut().unwrap();
        file.write_all(b"[3,7,0,").unwrap();
        journal.torn = true;
        journal.add(Some("b"), entry(3, 5)).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.find("a"), journal.find("b"), journal.end()), (Some(entry(0, 3)), Some(entry(3, 5)), 5));
    }

    #[test]
    fn the_oldest_names_are_forgotten_in_memory_and_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rides.journal");
        let mut journal = Journal::open(&path).unwrap();
        (journal.ids_max, journal.lines_max) = (3, 10);
        for push in 0..100 {
            journal.add(Some(&push.to_string()), entry(push, push + 1)).unwrap();
        }
        assert_eq!((journal.find("96"), journal.find("97")), (None, Some(entry(97, 98))));
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= 11);
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.end(), journal.find("99")), (100, Some(entry(99, 100))));
    }
}
