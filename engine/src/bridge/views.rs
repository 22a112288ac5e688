//! The content of a view as a log of changes that any thread may read at any epoch it still keeps.
//!
//! Invariant: changes below `compacted` have been added up; a read below it is refused. Batches are immutable and have ids, so that a
//! checkpoint writes each of them once.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::bridge::Feed;

/// A changing log is added up when it holds twice as many changes as rows, and at least this many: amortised, sorting costs a logarithm.
const COMPACT_ROWS: usize = 65_536;
/// An append-only log, or one that is asked to, joins its small batches when it has this many.
const SMALL_BATCHES: usize = 256;

pub struct ViewLog {
    pub name: String,
    pub schema: SchemaRef,
    append_only: bool,
    /// Small batches become large ones, so that a trickle over months stays a short list.
    joins: bool,
    codec: KeyCodec,
    data: RwLock<ViewData>,
}

#[derive(Default)]
struct ViewData {
    batches: Vec<(u64, Batch)>,
    next_id: u64,
    compacted: Epoch,
    changes: usize,
    rows: i64,
    live_at_compaction: usize,
    small: usize,
    /// Who is told of every batch.
    feeds: Vec<Weak<Feed>>,
}

impl ViewLog {
    /// Errors: Invalid for columns without order.
    pub fn new(name: String, schema: SchemaRef, append_only: bool) -> Result<ViewLog> {
        Ok(ViewLog { name, codec: KeyCodec::for_schema(&schema)?, schema, append_only, joins: append_only, data: RwLock::default() })
    }

    /// For a log that rarely changes what it has.
    pub fn joining(self) -> ViewLog {
        ViewLog { joins: true, ..self }
    }

    /// Adds the changes of a closed step. Nobody reads below `history` any more.
    pub fn append(&self, batch: Batch, history: Epoch) {
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        data.changes += batch.len();
        data.rows += total(&batch);
        data.small += usize::from(batch.len() < 1024);
        data.feeds.retain(|feed| feed.upgrade().is_some_and(|feed| feed.push(&batch)));
        data.push(batch);
        if self.joins && data.small > SMALL_BATCHES {
            data.join_small();
        }
        if !self.append_only && data.changes > COMPACT_ROWS.max(2 * data.live_at_compaction) {
            self.compact(&mut data, history);
        }
    }

    /// The rows at epochs below `s`, duplicates repeated; those of a changing view in the order of their encoding.
    /// `Err` holds the lowest s that is kept.
    pub fn snapshot(&self, s: Epoch) -> Result<Vec<RecordBatch>, Epoch> {
        let batches: Vec<Batch> = {
            let data = self.data.read().unwrap_or_else(PoisonError::into_inner);
            if s < data.compacted {
                return Err(data.compacted);
            }
            data.batches.iter().map(|(_, batch)| batch.clone()).collect()
        };
        let visible = batches.iter().map(|batch| batch.split_at(s).0).filter(|batch| !batch.is_empty());
        if self.append_only {
            return Ok(visible.map(|batch| repeated(&batch)).collect());
        }
        let added = self.add_up(&visible.collect::<Vec<_>>());
        Ok(added.into_iter().map(|batch| repeated(&batch)).collect())
    }

    /// Lets `feed` know of all changes at `s` and later, those that are there already among them. Out: the content below `s` as insertions at
    /// the epoch before it, None if it is empty. `Err` holds the lowest s that is kept.
    pub fn follow(&self, s: Epoch, feed: &Arc<Feed>) -> Result<Option<Batch>, Epoch> {
        let (below, above): (Vec<Batch>, Vec<Batch>) = {
            let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
            if s < data.compacted {
                return Err(data.compacted);
            }
            let parts = data.batches.iter().map(|(_, batch)| batch.split_at(s)).unzip();
            data.feeds.push(Arc::downgrade(feed));
            parts
        };
        for batch in above.iter().filter(|batch| !batch.is_empty()) {
            feed.push(batch);
        }
        let content = self.add_up(&below);
        let at = Counts::Const(s.0.saturating_sub(1));
        Ok(content.map(|batch| Batch::new(batch.rows().clone(), at, batch.diffs().clone(), Counts::Const(0))))
    }

    /// Takes this content in place of all there was, at every epoch; followers are told of what has gone. Only for a log whose one writer calls.
    pub fn replace(&self, content: Option<Batch>, gone: &Batch) {
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        data.feeds.retain(|feed| feed.upgrade().is_some_and(|feed| feed.push(gone)));
        data.batches.clear();
        (data.changes, data.rows) = content.as_ref().map_or((0, 0), |batch| (batch.len(), total(batch)));
        (data.small, data.live_at_compaction) = (0, data.changes);
        content.into_iter().for_each(|batch| data.push(batch));
    }

    /// Live rows: insertions less retractions.
    pub fn rows(&self) -> u64 {
        self.data.read().unwrap_or_else(PoisonError::into_inner).rows.max(0) as u64
    }

    /// Every batch with its id, and the lowest s that is kept, for a checkpoint.
    pub fn batches(&self) -> (Vec<(u64, Batch)>, Epoch) {
        let data = self.data.read().unwrap_or_else(PoisonError::into_inner);
        (data.batches.clone(), data.compacted)
    }

    /// Takes over the batches of a checkpoint under their ids.
    pub fn restore(&self, batches: Vec<(u64, Batch)>, compacted: Epoch) {
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        data.next_id = batches.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
        data.changes = batches.iter().map(|(_, batch)| batch.len()).sum();
        data.rows = batches.iter().map(|(_, batch)| total(batch)).sum();
        data.batches = batches;
        data.compacted = compacted;
    }

    fn compact(&self, data: &mut ViewData, history: Epoch) {
        let (old, new): (Vec<Batch>, Vec<Batch>) = data.batches.iter().map(|(_, batch)| batch.split_at(history)).unzip();
        data.batches.clear();
        data.compacted = data.compacted.max(history);
        data.small = 0;
        let at = Epoch(history.0.saturating_sub(1));
        let added = self.add_up(&old).map(|batch| Batch::new(batch.rows().clone(), Counts::Const(at.0), batch.diffs().clone(), Counts::Const(0)));
        for batch in added.into_iter().chain(new).filter(|batch| !batch.is_empty()) {
            data.push(batch);
        }
        data.changes = data.batches.iter().map(|(_, batch)| batch.len()).sum();
        data.live_at_compaction = data.changes;
    }

    /// The sum of all changes per row, rows in the order of their encoding.
    fn add_up(&self, batches: &[Batch]) -> Option<Batch> {
        let encoded: Vec<_> =
            batches.iter().map(|batch| self.codec.encode(batch.rows().columns()).expect("the codec was made for this view")).collect();
        let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
        for (batch, rows) in batches.iter().zip(&encoded) {
            for row in 0..batch.len() {
                *counts.entry(rows.row(row).data()).or_default() += batch.diff(row);
            }
        }
        counts.retain(|_, count| *count != 0);
        if counts.is_empty() {
            return None;
        }
        let rows = self.codec.decode_batch(&self.schema, counts.keys().copied()).expect("these are rows of this codec");
        Some(Batch::new(rows, Counts::Const(0), Diffs::Each(counts.values().copied().collect()), Counts::Const(0)))
    }
}

impl ViewData {
    fn push(&mut self, batch: Batch) {
        self.batches.push((self.next_id, batch));
        self.next_id += 1;
    }

    fn join_small(&mut self) {
        let (small, large): (Vec<_>, Vec<_>) = self.batches.drain(..).partition(|(_, batch)| batch.len() < 1024);
        self.batches = large;
        self.small = 0;
        let small: Vec<Batch> = small.into_iter().map(|(_, batch)| batch).collect();
        if let Some(joined) = Batch::concat(&small) {
            self.small = usize::from(joined.len() < 1024);
            self.push(joined);
        }
    }
}

fn total(batch: &Batch) -> i64 {
    match batch.diffs() {
        Diffs::One => batch.len() as i64,
        Diffs::Each(diffs) => diffs.iter().sum(),
    }
}

fn repeated(batch: &Batch) -> RecordBatch {
    if (0..batch.len()).all(|row| batch.diff(row) == 1) {
        return batch.rows().clone();
    }
    let rows: Vec<u32> = (0..batch.len()).flat_map(|row| std::iter::repeat_n(row as u32, batch.diff(row).max(0) as usize)).collect();
    batch.take(&rows).rows().clone()
}
