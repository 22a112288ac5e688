//! One reader of a view's changes. In: the batches that the view's log takes in. Out: those of complete epochs, in epoch order, and how far
//! that is.
//!
//! Invariant: nobody waits for a reader. What it has not fetched waits in a queue of its own; a queue that is full is given up, with an
//! error that the reader gets next.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Batch, Epoch, Error, Result, Subscription, ViewChanges};

use crate::bridge::Progress;
use crate::metrics::Metrics;

/// 64 MiB of Arrow memory that one reader has not fetched: some seconds of a busy view. More: the reader is cut off.
pub const UNREAD_BYTES_MAX: usize = 64 << 20;
/// How soon complete rows are noticed once they have arrived, and the end of the pipeline.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const IDLE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a view's log gives to one reader.
#[derive(Default)]
pub struct Feed {
    unread: Mutex<Unread>,
    arrived: Condvar,
}

#[derive(Default)]
struct Unread {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// It was too much; nothing is kept any more.
    cut_off: bool,
}

impl Feed {
    /// Takes in what the log has taken in. False: the reader is cut off, and need not be told of any more.
    pub fn push(&self, batch: &Batch) -> bool {
        let mut unread = self.lock();
        unread.bytes += batch.rows().get_array_memory_size();
        if unread.bytes > UNREAD_BYTES_MAX {
            *unread = Unread { cut_off: true, ..Unread::default() };
        } else {
            unread.batches.push_back(batch.clone());
        }
        let goes_on = !unread.cut_off;
        drop(unread);
        self.arrived.notify_all();
        goes_on
    }

    /// Everything unread; None for a reader that was cut off.
    fn take(&self) -> Option<VecDeque<Batch>> {
        let mut unread = self.lock();
        unread.bytes = 0;
        (!unread.cut_off).then(|| std::mem::take(&mut unread.batches))
    }

    /// Until something arrives, at most so long.
    fn wait(&self, wait: Duration) {
        let unread = self.lock();
        if unread.batches.is_empty() && !unread.cut_off {
            drop(self.arrived.wait_timeout(unread, wait));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's end of a feed.
pub struct Follower {
    pub view: String,
    pub reader: String,
    pub feed: Arc<Feed>,
    /// The content it begins with.
    pub content: Option<Batch>,
    /// Changes of epochs that are not complete yet.
    pub pending: Vec<Batch>,
    /// Everything below has been told, or was not asked for.
    pub told: Epoch,
    pub up_to: Option<Epoch>,
    pub progress: Arc<Progress>,
    /// The view whose progress rules; None: that of all.
    pub index: Option<usize>,
    pub metrics: Arc<Metrics>,
    pub ended: bool,
}

impl Follower {
    fn frontier(&self) -> Epoch {
        let frontier = self.index.map_or_else(|| self.progress.settled(), |view| self.progress.frontier(view));
        self.up_to.map_or(frontier, |up_to| frontier.min(up_to))
    }

    /// Changes below the frontier that have arrived, in epoch order.
    fn complete(&mut self, frontier: Epoch) -> Result<Option<Batch>> {
        let arrived = self.feed.take().ok_or_else(|| self.too_slow())?;
        self.pending.extend(arrived);
        let (complete, rest): (Vec<Batch>, Vec<Batch>) = self.pending.iter().map(|batch| batch.split_at(frontier)).unzip();
        self.pending = rest.into_iter().filter(|batch| !batch.is_empty()).collect();
        let complete: Vec<Batch> = self.content.take().into_iter().chain(complete).filter(|batch| !batch.is_empty()).collect();
        let Some(changes) = Batch::concat(&complete) else { return Ok(None) };
        let mut order: Vec<u32> = (0..changes.len() as u32).collect();
        if !order.is_sorted_by_key(|row| changes.epoch(*row as usize)) {
            // Workers tell of their parts of a step one after the other.
            order.sort_by_key(|row| changes.epoch(*row as usize));
            return Ok(Some(changes.take(&order)));
        }
        Ok(Some(changes))
    }

    fn too_slow(&self) -> Error {
        let mib = UNREAD_BYTES_MAX >> 20;
        Error::unavailable(format!(
            "the subscription of {} to view {} was cut off: it was more than {mib} MiB behind; subscribe again with a snapshot, and read faster",
            self.reader, self.view
        ))
    }

    /// Whether nothing can come any more.
    fn is_over(&self) -> bool {
        self.up_to.is_some_and(|up_to| self.told >= up_to) || self.metrics.finished.load(Relaxed)
    }
}

impl Subscription for Follower {
    fn next(&mut self, wait: Duration) -> Result<Option<ViewChanges>> {
        let deadline = Instant::now() + wait;
        while !self.ended {
            // Before the frontier is read: what is over now has a frontier that will not move.
            let over = self.is_over();
            let frontier = self.frontier();
            let changes = self.complete(frontier)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if changes.is_some() || over || left.is_zero() {
                self.told = self.told.max(frontier);
                self.ended = over || self.up_to.is_some_and(|up_to| self.told >= up_to);
                if changes.is_none() && over {
                    break;
                }
                return Ok(Some(ViewChanges { changes, progress: self.told }));
            }
            if let Some(failure) = self.metrics.failure() {
                return Err(failure);
            }
            if self.metrics.stop_requested() {
                return Err(Error::unavailable(format!("the pipeline stops; view {} has been told up to epoch {}", self.view, self.told)));
            }
            self.feed.wait(left.min(if self.pending.is_empty() { IDLE_LOOK_EVERY } else { LOOK_EVERY }));
        }
        Ok(None)
    }
}
