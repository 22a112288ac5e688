//! Reads what is in a folder or bucket and whatever comes there later, each file once. In: listings. Out: batches of one sequence of records.
//!
//! The files of one listing are read in name order, then it is listed again. A local file is taken once two listings in a row have shown it
//! alike; an object of a bucket is whole as soon as it is there. What is wrong with a file as a whole is a dead letter at the place where its next
//! record would be, and the next file goes on. A store that is away is waited for.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use freshet_core::{DeadLetter, Error, Kind, Result, SourceBatch, SourceDef};

use super::journal::{Entry, Journal};
use super::options::FileOptions;
use super::{Files, open_records};
use crate::decode::context_of_file;
use crate::store::{Outage, ReadError, Store, StoredFile};

/// How long a local file must not have changed, if it is not looked at more often anyway.
const SETTLE: Duration = Duration::from_secs(1);
/// What a record is taken to weigh before one was read.
const RECORD_BYTES: u64 = 100;

/// How many records may still come, as far as the reading thread can tell.
#[derive(Debug)]
pub struct Backlog {
    /// Estimated from the bytes of files that have not been read.
    waiting: AtomicU64,
    /// Offset behind what was handed over.
    handed: AtomicU64,
}

impl Backlog {
    /// Before the first listing there may be something.
    pub fn new() -> Backlog {
        Backlog { waiting: AtomicU64::new(1), handed: AtomicU64::new(0) }
    }

    pub fn records(&self, polled: u64) -> u64 {
        self.waiting.load(Ordering::Acquire) + self.handed.load(Ordering::Acquire).saturating_sub(polled)
    }
}

/// The thread's own.
pub struct Watch {
    def: SourceDef,
    interval: Duration,
    store: Rc<Store>,
    /// Files are whole as soon as they are there.
    at_once: bool,
    journal: Journal,
    outage: Arc<Outage>,
    backlog: Arc<Backlog>,
    batches: SyncSender<Result<SourceBatch>>,
    offset: u64,
    /// The last listing, of files that have not been read: name and tag.
    settling: HashMap<String, (String, u64)>,
    listed: Option<Instant>,
    read_records: u64,
    read_bytes: u64,
}

impl Watch {
    /// With a data directory reading goes on after a restart. Errors: Invalid, Unavailable.
    pub fn open(
        def: &SourceDef,
        data_dir: Option<&Path>,
        (outage, backlog): (Arc<Outage>, Arc<Backlog>),
        batches: SyncSender<Result<SourceBatch>>,
    ) -> Result<Watch> {
        let options = FileOptions::of(def)?;
        let mut store = Store::open(&options.location, &options.s3)?;
        store.wait_with(outage.clone());
        let journal = match data_dir {
            Some(folder) => Journal::open(&folder.join("files").join(format!("{}.journal", def.name)))?,
            None => Journal::in_memory(),
        };
        Ok(Watch {
            def: def.clone(),
            interval: options.discovery.ok_or_else(|| Error::internal("a source that does not watch was opened to do so"))?,
            store: Rc::new(store),
            at_once: options.location.is_bucket(),
            journal,
            outage,
            backlog,
            batches,
            offset: 0,
            settling: HashMap::new(),
            listed: None,
            read_records: 0,
            read_bytes: 0,
        })
    }

    /// Until nobody listens, or for good at the first error that no waiting mends.
    pub fn run(mut self, offset: u64) {
        if let Err(error) = self.work(offset)
            && !self.outage.is_stopped()
        {
            let _ = self.batches.send(Err(error));
        }
    }

    fn work(&mut self, offset: u64) -> Result<()> {
        self.offset = offset;
        self.backlog.handed.store(offset, Ordering::Release);
        let begun = self.journal.since(offset)?;
        if !begun.is_empty() {
            let files: HashMap<String, StoredFile> = self.list()?.into_iter().map(|file| (file.name.clone(), file)).collect();
            for entry in begun {
                let file = files.get(&*entry.file);
                self.read_again(&entry, file)?;
            }
        }
        while !self.outage.is_stopped() {
            let files = self.discover()?;
            let mut unread: u64 = files.iter().map(|file| self.estimate(file.bytes)).sum();
            for file in files {
                unread = unread.saturating_sub(self.estimate(file.bytes));
                self.read(&file, unread)?;
            }
            self.tell(0, None);
            let pause = if self.settling.is_empty() { self.interval } else { self.interval.min(SETTLE) };
            let left = self.listed.map_or(Duration::ZERO, |listed| pause.saturating_sub(listed.elapsed()));
            self.outage.sleep(left);
        }
        Ok(())
    }

    /// Errors: Invalid for the first listing, if the place or the rights to it are wrong; later that is waited for too.
    fn list(&mut self) -> Result<Vec<StoredFile>> {
        let (store, again) = (&self.store, self.listed.is_some());
        let files = self.outage.retry(|| match store.list() {
            Err(error) if again && error.kind == Kind::Invalid => Err(Error::unavailable(error.message)),
            listed => listed,
        })?;
        self.listed = Some(Instant::now());
        Ok(files)
    }

    /// Files that can be read now. What happened to files that have been read is told on the way.
    fn discover(&mut self) -> Result<Vec<StoredFile>> {
        let files = self.list()?;
        for file in files.iter().filter(|file| self.journal.has_changed(&file.name, &file.tag)).collect::<Vec<_>>() {
            let note = format!("{}: the file has changed after it was read; its new content is not read. Write it under a new name", file.name);
            let entry = Entry {
                first: self.offset,
                file: (&*file.name).into(),
                tag: (&*file.tag).into(),
                end: Some(self.offset + 1),
                note: Some(note.clone()),
            };
            self.note(entry)?;
            self.send_letter(&file.name, note)?;
        }
        self.journal_retry(|journal| journal.forget(&files.iter().map(|file| file.name.as_str()).collect::<HashSet<_>>()))?;
        let before = std::mem::take(&mut self.settling);
        let mut ready = Vec::new();
        for file in files.into_iter().filter(|file| !self.journal.is_known(&file.name)) {
            if self.at_once || before.get(&file.name).is_some_and(|(tag, _)| *tag == file.tag) {
                ready.push(file);
            } else {
                self.settling.insert(file.name, (file.tag, file.bytes));
            }
        }
        Ok(ready)
    }

    /// A file that nobody has begun.
    fn read(&mut self, file: &StoredFile, unread: u64) -> Result<()> {
        let fault = match self.store.look(file) {
            Ok(()) => None,
            // The next listing shows it as it is now.
            Err(ReadError::Changed) => return Ok(()),
            Err(ReadError::Gone) => Some(Error::data(format!("{}: the file has disappeared before it was read", file.name))),
            Err(ReadError::Failed(error)) => Some(error),
        };
        self.note(Entry { first: self.offset, file: (&*file.name).into(), tag: (&*file.tag).into(), end: None, note: None })?;
        match fault {
            Some(error) => self.bury(&file.name, error)?,
            None => self.read_records(file, self.offset, unread)?,
        }
        self.end()
    }

    /// A file that an earlier run has begun, from where the checkpoint stands.
    fn read_again(&mut self, entry: &Entry, file: Option<&StoredFile>) -> Result<()> {
        self.offset = self.offset.max(entry.first);
        match (&entry.note, file) {
            (Some(note), _) => self.send_letter(&entry.file, note.clone())?,
            (None, Some(file)) if *file.tag == *entry.tag => self.read_records(file, entry.first, 0)?,
            (None, file) => {
                let what = if file.is_some() { "changed" } else { "disappeared" };
                let row = self.offset - entry.first;
                let reason = format!("{}: the file has {what} before it was read to its end; its records from row {row} on are lost", entry.file);
                self.send_letter(&entry.file, reason)?;
            }
        }
        match entry.end {
            Some(end) => self.offset = self.offset.max(end),
            None => self.end()?,
        }
        Ok(())
    }

    /// From where this source stands to the end of the file. Errors: the source is to end.
    fn read_records(&mut self, file: &StoredFile, first: u64, unread: u64) -> Result<()> {
        let files = Files { store: self.store.clone(), files: vec![file.clone()], first };
        let offset = self.offset;
        let opened = open_records(&self.def, files).and_then(|mut records| records.skip(offset).map(|()| records));
        let mut records = match opened {
            Ok(records) => records,
            Err(error) => return self.bury(&file.name, error),
        };
        loop {
            self.tell(unread, Some((file, first)));
            match records.next() {
                Ok(Some(batch)) => self.send(batch)?,
                Ok(None) => break,
                Err(error) => return self.bury(&file.name, error),
            }
        }
        self.read_bytes += file.bytes;
        self.read_records += self.offset - first;
        Ok(())
    }

    /// The rest of the file cannot be read. Errors: the store is away for good, or it is a bug of ours.
    fn bury(&mut self, file: &str, error: Error) -> Result<()> {
        match error.kind {
            Kind::Unavailable if self.outage.is_stopped() => Err(error),
            Kind::Internal => Err(error),
            _ => self.send_letter(file, format!("{}; nothing of the file from here on was read", error.message)),
        }
    }

    fn send_letter(&mut self, file: &str, reason: String) -> Result<()> {
        tracing::warn!(source = %self.def.name, reason = %reason, "a file is a dead letter");
        let letter = DeadLetter { offset: self.offset, origin: file.to_string(), reason, context: context_of_file(), ..DeadLetter::default() };
        self.send(SourceBatch {
            partition: 0,
            rows: RecordBatch::new_empty(self.def.schema.clone()),
            diffs: None,
            offsets: Vec::new(),
            dead_letters: vec![letter],
            next_offset: self.offset + 1,
        })
    }

    fn send(&mut self, batch: SourceBatch) -> Result<()> {
        self.offset = batch.next_offset;
        self.backlog.handed.store(self.offset, Ordering::Release);
        self.batches.send(Ok(batch)).map_err(|_| Error::unavailable("nobody listens"))
    }

    fn note(&mut self, entry: Entry) -> Result<()> {
        self.journal_retry(|journal| journal.begin(entry.clone()))
    }

    fn end(&mut self) -> Result<()> {
        let offset = self.offset;
        self.journal_retry(|journal| journal.end(offset))
    }

    /// A full disk is waited for like a store that is away.
    fn journal_retry(&mut self, mut act: impl FnMut(&mut Journal) -> Result<()>) -> Result<()> {
        let Watch { journal, outage, .. } = self;
        outage.retry(|| act(journal))
    }

    /// Says how much is left: files of so many records, and the rest of this one.
    fn tell(&self, unread: u64, current: Option<(&StoredFile, u64)>) {
        // At least one until the end is seen: history must not be over before.
        let rest = current.map_or(0, |(file, first)| self.estimate(file.bytes).saturating_sub(self.offset - first).max(1));
        let settling: u64 = self.settling.values().map(|(_, bytes)| self.estimate(*bytes)).sum();
        self.backlog.waiting.store(unread + rest + settling, Ordering::Release);
    }

    /// Records of a file of so many bytes; at least one, so that a file that waits is never nothing.
    fn estimate(&self, bytes: u64) -> u64 {
        let record = self.read_bytes.checked_div(self.read_records).unwrap_or(RECORD_BYTES);
        (bytes / record.max(1)).max(1)
    }
}
