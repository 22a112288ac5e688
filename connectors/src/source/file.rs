//! The poller's side of a file source. In: decoded batches from the source's thread through a bounded queue. Out: slices of them in offset order.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_core::{Error, Kind, Poll, Result, Source, SourceBatch, SourceDef, SourceReport};

use super::options::FileOptions;
use super::watch::{Backlog, Watch};
use super::{Files, Records, open_records};
use crate::store::{Outage, Store};

/// Decoded batches that wait for the poller: enough to hide a read, few enough to stay in cache.
const BATCHES_AHEAD_MAX: usize = 4;
/// How long a poll of a bounded source waits for the thread before it says Pending. Unbounded ones never wait.
const POLL_WAIT: Duration = Duration::from_millis(5);

/// Files as one partition; the offset is the running number of a record over all of them.
pub struct FileSource {
    name: String,
    /// Taken at the end, so that the thread sees that nobody listens.
    batches: Option<Receiver<Result<SourceBatch>>>,
    /// Tells the thread where to begin; taken by the first poll.
    begin: Option<SyncSender<u64>>,
    offset: u64,
    /// What the last poll left over.
    rest: Option<SourceBatch>,
    failure: Option<Error>,
    thread: Option<JoinHandle<()>>,
    outage: Arc<Outage>,
    /// Of a source that watches for new files, and so never ends.
    backlog: Option<Arc<Backlog>>,
}

impl FileSource {
    /// Local files are found and their columns checked; a bucket is asked by the thread. Reading begins with the first poll. A source that
    /// watches keeps in the data directory what it has read. Errors: Invalid or Unavailable, naming source and path.
    pub fn start(def: &SourceDef, data_dir: Option<&Path>) -> Result<FileSource> {
        let options = FileOptions::of(def)?;
        let outage = Arc::new(Outage::default());
        let backlog = options.discovery.map(|_| Arc::new(Backlog::new()));
        let (opened_tx, opened_rx) = sync_channel(1);
        let (begin_tx, begin_rx) = sync_channel(1);
        let (batch_tx, batch_rx) = sync_channel(BATCHES_AHEAD_MAX);
        let reader = Reader { def: def.clone(), options, outage: outage.clone(), opened: opened_tx, begin: begin_rx, batches: batch_tx };
        let data_dir = data_dir.map(Path::to_path_buf);
        let watched = backlog.clone();
        let thread = std::thread::Builder::new()
            .name(format!("source {}", def.name))
            .spawn(move || match watched {
                Some(backlog) => reader.watch(data_dir.as_deref(), backlog),
                None => reader.read_all(),
            })
            .map_err(|error| Error::unavailable(format!("source {}: cannot start a thread: {error}", def.name)))?;
        let opened = opened_rx.recv().unwrap_or_else(|_| Err(Error::internal("the thread ended while it opened the files")));
        opened.map_err(|error| Error { kind: error.kind, message: format!("source {}: {}", def.name, error.message) })?;
        Ok(FileSource {
            name: def.name.clone(),
            batches: Some(batch_rx),
            begin: Some(begin_tx),
            offset: 0,
            rest: None,
            failure: None,
            thread: Some(thread),
            outage,
            backlog,
        })
    }

    fn receive(&mut self) -> Result<Poll> {
        let Some(batches) = &self.batches else { return Ok(Poll::Ended) };
        match batches.recv_timeout(if self.backlog.is_none() { POLL_WAIT } else { Duration::ZERO }) {
            Ok(Ok(batch)) => Ok(Poll::Batch(batch)),
            Ok(Err(error)) => {
                // A file that was there at the start and cannot be read on is broken: its reader is gone, trying again would wait for ever.
                let kind = if error.kind == Kind::Unavailable { Kind::Data } else { error.kind };
                let failure = Error { kind, message: format!("source {}: {}", self.name, error.message) };
                self.failure = Some(failure.clone());
                Err(failure)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Poll::Pending),
            Err(RecvTimeoutError::Disconnected) => {
                let thread = self.thread.take();
                self.batches = None;
                if thread.is_some_and(|thread| thread.join().is_err()) {
                    let failure = Error::internal(format!("source {}: its thread panicked", self.name));
                    self.failure = Some(failure.clone());
                    return Err(failure);
                }
                Ok(Poll::Ended)
            }
        }
    }
}

impl Source for FileSource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        assert!(rows_max > 0);
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some(begin) = self.begin.take() {
            // A thread that has died is noticed below.
            let _ = begin.send(self.offset);
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.receive()? {
                Poll::Batch(batch) => batch,
                other => return Ok(other),
            },
        };
        let (batch, rest) = cut(batch, rows_max);
        self.rest = rest;
        self.offset = batch.next_offset;
        Ok(Poll::Batch(batch))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        assert!(self.begin.is_some(), "seek comes before the first poll");
        if partition != 0 {
            return Err(Error::invalid(format!("source {} has one partition, 0; it has no partition {partition}", self.name)));
        }
        self.offset = offset;
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        self.backlog.is_none()
    }

    fn has_more(&self, _partition: u32) -> Option<bool> {
        Some(match &self.backlog {
            Some(backlog) => backlog.records(self.offset) > 0 || self.outage.trouble().is_some(),
            None => self.batches.is_some(),
        })
    }

    fn report(&self) -> SourceReport {
        SourceReport { trouble: self.outage.trouble(), lag_rows: self.backlog.as_ref().map(|backlog| backlog.records(self.offset)) }
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        self.begin = None;
        self.batches = None;
        self.outage.stop();
        if let Some(thread) = self.thread.take() {
            // It ends at its next send. A panic there has nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Reader {
    def: SourceDef,
    options: FileOptions,
    outage: Arc<Outage>,
    /// Told once reading can begin, or why not.
    opened: SyncSender<Result<()>>,
    begin: Receiver<u64>,
    batches: SyncSender<Result<SourceBatch>>,
}

impl Reader {
    fn watch(self, data_dir: Option<&Path>, backlog: Arc<Backlog>) {
        let watch = Watch::open(&self.def, data_dir, (self.outage, backlog), self.batches);
        let (opened, watch) = match watch {
            Ok(watch) => (Ok(()), Some(watch)),
            Err(error) => (Err(error), None),
        };
        let _ = self.opened.send(opened);
        if let (Some(watch), Ok(offset)) = (watch, self.begin.recv()) {
            watch.run(offset);
        }
    }

    /// Ends when there is nothing more, at the first error, or when nobody listens.
    fn read_all(self) {
        // A bucket may be away: it is waited for here, and the engine goes on meanwhile.
        let waits = self.options.location.is_bucket();
        let records = if waits {
            let _ = self.opened.send(Ok(()));
            self.outage.retry(|| self.open())
        } else {
            match self.open() {
                Ok(records) => {
                    let _ = self.opened.send(Ok(()));
                    Ok(records)
                }
                Err(error) => {
                    let _ = self.opened.send(Err(error));
                    return;
                }
            }
        };
        let Ok(offset) = self.begin.recv() else { return };
        if let Err(error) = records.and_then(|records| self.hand_over(records, offset)) {
            let _ = self.batches.send(Err(error));
        }
    }

    fn open(&self) -> Result<Box<dyn Records>> {
        let mut store = Store::open(&self.options.location, &self.options.s3)?;
        let files = store.files()?;
        if self.options.location.is_bucket() {
            store.wait_with(self.outage.clone());
        }
        open_records(&self.def, Files { store: Rc::new(store), files, first: 0 })
    }

    fn hand_over(&self, mut records: Box<dyn Records>, offset: u64) -> Result<()> {
        records.skip(offset)?;
        while let Some(batch) = records.next()? {
            if self.batches.send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The first rows of a batch, and what is left. Never between the rows of one record.
pub fn cut(batch: SourceBatch, rows_max: usize) -> (SourceBatch, Option<SourceBatch>) {
    let rows = batch.offsets.len();
    let mut at = rows_max.min(rows);
    while at > 0 && at < rows && batch.offsets[at] == batch.offsets[at - 1] {
        at += 1;
    }
    if at == rows {
        return (batch, None);
    }
    let border = batch.offsets[at];
    let (letters_before, letters_after) = batch.dead_letters.into_iter().partition(|letter| letter.offset < border);
    let (diffs_before, diffs_after) = match batch.diffs {
        None => (None, None),
        Some(mut diffs) => {
            let after = diffs.split_off(at);
            (Some(diffs), Some(after))
        }
    };
    let mut offsets = batch.offsets;
    let offsets_after = offsets.split_off(at);
    let after = SourceBatch {
        partition: batch.partition,
        rows: batch.rows.slice(at, rows - at),
        diffs: diffs_after,
        offsets: offsets_after,
        dead_letters: letters_after,
        next_offset: batch.next_offset,
    };
    let before = SourceBatch {
        partition: batch.partition,
        rows: batch.rows.slice(0, at),
        diffs: diffs_before,
        offsets,
        dead_letters: letters_before,
        next_offset: border,
    };
    (before, Some(after))
}
