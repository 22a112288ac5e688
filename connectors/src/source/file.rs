//! The poller's side of a file source. In: decoded batches from the source's thread through a bounded queue. Out: slices of them in offset order.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_core::{Encode, Error, Kind, Poll, Result, Source, SourceBatch, SourceDef};

use super::Records;
use super::parquet::ParquetRecords;
use super::text::TextRecords;
use crate::decode::RecordDecoder;
use crate::options::{Csv, PATH};
use crate::store::Store;

/// Decoded batches that wait for the poller: enough to hide a read, few enough to stay in cache.
const BATCHES_AHEAD_MAX: usize = 4;
/// How long a poll waits for the thread before it says Pending.
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
}

impl FileSource {
    /// Finds the files and checks their columns; reading begins with the first poll. Errors: Invalid or Unavailable, naming source and path.
    pub fn start(def: &SourceDef) -> Result<FileSource> {
        let (opened_tx, opened_rx) = sync_channel(1);
        let (begin_tx, begin_rx) = sync_channel(1);
        let (batch_tx, batch_rx) = sync_channel(BATCHES_AHEAD_MAX);
        let thread_def = def.clone();
        let thread = std::thread::Builder::new()
            .name(format!("source {}", def.name))
            .spawn(move || {
                let records = match open(&thread_def) {
                    Ok(records) => records,
                    Err(error) => {
                        let _ = opened_tx.send(Err(error));
                        return;
                    }
                };
                let _ = opened_tx.send(Ok(()));
                if let Ok(offset) = begin_rx.recv() {
                    read_all(records, offset, &batch_tx);
                }
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
        })
    }

    fn receive(&mut self) -> Result<Poll> {
        let Some(batches) = &self.batches else { return Ok(Poll::Ended) };
        match batches.recv_timeout(POLL_WAIT) {
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
        true
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        self.begin = None;
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // It ends at its next send. A panic there has nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn open(def: &SourceDef) -> Result<Box<dyn Records>> {
    let store = Store::open(def.options.get(PATH).expect("check_source wants a path"))?;
    let files = store.files()?;
    match def.encode {
        Encode::Parquet => Ok(Box::new(ParquetRecords::open(store, files, def.schema.clone())?)),
        Encode::Csv => {
            let options = Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?;
            Ok(Box::new(TextRecords::open_csv(store, files, def.schema.clone(), RecordDecoder::open(def)?, options.header)?))
        }
        _ => Ok(Box::new(TextRecords::open_lines(store, files, def.schema.clone(), RecordDecoder::open(def)?)?)),
    }
}

/// Ends when there is nothing more, at the first error, or when nobody listens.
fn read_all(mut records: Box<dyn Records>, offset: u64, batches: &SyncSender<Result<SourceBatch>>) {
    if let Err(error) = records.skip(offset) {
        let _ = batches.send(Err(error));
        return;
    }
    loop {
        let batch = match records.next() {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let failed = batch.is_err();
        if batches.send(batch).is_err() || failed {
            return;
        }
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
