//! Between the thread that reads Kafka and the poller. In: decoded batches. Out: the same in order; the thread waits where the poller is more
//! than so many bytes behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshet_core::{Error, SourceBatch};

/// Decoded rows that wait for the poller. 32 MiB: a second at 300,000 rows of 100 bytes.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What the thread hands over.
pub enum Item {
    Batch(SourceBatch),
    PartitionEnded(u32),
}

#[derive(Default)]
pub struct Handover {
    state: Mutex<State>,
    /// Wakes the poller when something came, and the thread when something was taken.
    changed: Condvar,
    /// Items that wait, without the lock.
    waiting: AtomicUsize,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    items: VecDeque<(Item, usize)>,
    bytes: usize,
    partitions: Option<Vec<u32>>,
    /// Where to go on, once the poller has begun.
    seeks: Option<BTreeMap<u32, u64>>,
    /// Partitions that began behind their first record.
    cut: BTreeSet<u32>,
    paused: BTreeSet<u32>,
    /// How often `paused` has changed.
    pauses: u64,
    progress: BTreeMap<u32, Progress>,
    trouble: Option<String>,
    failure: Option<Error>,
    ended: bool,
}

/// How far one partition is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets behind what was handed over and what was polled.
    pub handed: u64,
    pub polled: u64,
    /// The broker has nothing behind what was read.
    pub at_end: bool,
    /// Where reading ends.
    pub bound: Option<u64>,
}

/// What the poller finds.
pub enum Taken {
    Item(Item),
    Nothing,
    Ended,
    Failed(Error),
}

impl Handover {
    // --- the thread's side

    /// Waits until there is room, at most so long; gives the item back where there was none.
    pub fn offer(&self, item: Item, bytes: usize, wait: Duration) -> Option<Item> {
        let state = self.state();
        let full = |state: &mut State| state.bytes > 0 && state.bytes + bytes > WAITING_BYTES_MAX && !self.is_stopped();
        let (mut state, _) = self.changed.wait_timeout_while(state, wait, full).unwrap_or_else(PoisonError::into_inner);
        if full(&mut state) {
            return Some(item);
        }
        if let Item::Batch(batch) = &item {
            state.progress.entry(batch.partition).or_default().handed = batch.next_offset;
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        self.waiting.store(state.items.len(), Ordering::Release);
        self.changed.notify_all();
        None
    }

    /// True if the poller has taken everything.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Sleeps, but not past the end of the poller.
    pub fn sleep(&self, time: Duration) {
        let _ = self.changed.wait_timeout_while(self.state(), time, |_| !self.is_stopped());
    }

    pub fn set_partitions(&self, partitions: Vec<u32>) {
        self.state().partitions = Some(partitions);
    }

    /// Reading begins behind the first record that the partition ever had.
    pub fn set_cut(&self, partition: u32) {
        self.state().cut.insert(partition);
    }

    pub fn set_progress(&self, partition: u32, progress: Progress) {
        self.state().progress.insert(partition, progress);
    }

    pub fn set_at_end(&self, partition: u32, at_end: bool) {
        self.state().progress.entry(partition).or_default().at_end = at_end;
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        self.state().trouble = trouble;
    }

    pub fn fail(&self, error: Error) {
        self.state().failure = Some(error);
        self.changed.notify_all();
    }

    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Where to go on, as soon as the poller has begun; None if it has not within this time.
    pub fn begun(&self, wait: Duration) -> Option<BTreeMap<u32, u64>> {
        let waiting = |state: &mut State| state.seeks.is_none() && !self.is_stopped();
        let (state, _) = self.changed.wait_timeout_while(self.state(), wait, waiting).unwrap_or_else(PoisonError::into_inner);
        state.seeks.clone()
    }

    /// The paused partitions, if they have changed since the count that is given; updates it.
    pub fn pauses(&self, seen: &mut u64) -> Option<BTreeSet<u32>> {
        let state = self.state();
        if state.pauses == *seen {
            return None;
        }
        *seen = state.pauses;
        Some(state.paused.clone())
    }

    // --- the poller's side

    /// The first poll: reading begins here.
    pub fn begin(&self, seeks: BTreeMap<u32, u64>) {
        self.state().seeks = Some(seeks);
        self.changed.notify_all();
    }

    pub fn take(&self, wait: Duration) -> Taken {
        let mut state = self.state();
        if state.items.is_empty() && !wait.is_zero() {
            let idle = |state: &mut State| state.items.is_empty() && state.failure.is_none() && !state.ended;
            state = self.changed.wait_timeout_while(state, wait, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.items.pop_front() {
            Some((item, bytes)) => {
                state.bytes -= bytes;
                self.waiting.store(state.items.len(), Ordering::Release);
                self.changed.notify_all();
                Taken::Item(item)
            }
            None => match &state.failure {
                Some(failure) => Taken::Failed(failure.clone()),
                None if state.ended => Taken::Ended,
                None => Taken::Nothing,
            },
        }
    }

    pub fn set_polled(&self, partition: u32, next_offset: u64) {
        self.state().progress.entry(partition).or_default().polled = next_offset;
    }

    pub fn pause(&self, partition: u32, paused: bool) {
        let mut state = self.state();
        let changed = if paused { state.paused.insert(partition) } else { state.paused.remove(&partition) };
        state.pauses += u64::from(changed);
    }

    pub fn partitions(&self) -> Option<Vec<u32>> {
        self.state().partitions.clone()
    }

    pub fn is_whole(&self, partition: u32) -> bool {
        !self.state().cut.contains(&partition)
    }

    /// None: the partition is not known yet.
    pub fn has_more(&self, partition: u32) -> Option<bool> {
        self.state().progress.get(&partition).map(|progress| !progress.at_end || progress.polled < progress.handed)
    }

    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Records that have not been polled, where the partitions end as `end` knows. None: some end is unknown.
    pub fn lag(&self, end: impl Fn(u32) -> Option<u64>) -> Option<u64> {
        let state = self.state();
        state.partitions.as_ref()?;
        let mut lag = 0;
        for (partition, progress) in &state.progress {
            let end = if progress.at_end { progress.handed } else { end(*partition)?.max(progress.handed) };
            lag += end.min(progress.bound.unwrap_or(u64::MAX)).saturating_sub(progress.polled);
        }
        Some(lag)
    }

    /// The thread is to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // The lock keeps a waiter from missing the call.
        drop(self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;

    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    fn batch(partition: u32, next_offset: u64) -> Item {
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Item::Batch(SourceBatch { partition, rows, diffs: None, offsets: Vec::new(), dead_letters: Vec::new(), next_offset })
    }

    fn is_batch(taken: Taken) -> bool {
        matches!(taken, Taken::Item(Item::Batch(_)))
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_but_takes_one_item_of_any_size() {
        let handover = Handover::default();
        assert!(handover.offer(batch(0, 1), 2 * WAITING_BYTES_MAX, NO_TIME).is_none());
        assert!(handover.offer(batch(0, 2), 1, NO_TIME).is_some());
        assert!(is_batch(handover.take(NO_TIME)) && handover.is_empty());
        assert!(handover.offer(batch(0, 2), WAITING_BYTES_MAX - 1, NO_TIME).is_none());
        assert!(handover.offer(batch(0, 3), 1, NO_TIME).is_none());
        assert!(handover.offer(batch(0, 4), 1, NO_TIME).is_some());
        handover.stop();
        assert!(handover.offer(batch(0, 4), 1, NO_TIME).is_none(), "a thread that is to end does not wait");
    }

    #[test]
    fn what_was_read_comes_before_the_end_and_before_a_failure() {
        for failed in [false, true] {
            let handover = Handover::default();
            assert!(handover.offer(batch(0, 1), 1, NO_TIME).is_none());
            if failed {
                handover.fail(Error::data("gone"));
            }
            handover.end();
            assert!(is_batch(handover.take(NO_TIME)));
            match handover.take(NO_TIME) {
                Taken::Failed(error) => assert!(failed && error.message == "gone"),
                other => assert!(!failed && matches!(other, Taken::Ended)),
            }
        }
    }

    #[test]
    fn lag_is_known_when_every_end_is() {
        let handover = Handover::default();
        let progress = |begin, at_end, bound| Progress { handed: begin, polled: begin, at_end, bound };
        assert_eq!(handover.lag(|_| Some(9)), None, "no partition is known");
        handover.set_partitions(vec![0, 1]);
        handover.set_progress(0, progress(5, false, None));
        handover.set_progress(1, progress(2, true, None));
        assert_eq!(handover.lag(|_| None), None);
        assert_eq!(handover.lag(|_| Some(9)), Some(4));
        assert!(handover.offer(batch(1, 4), 1, NO_TIME).is_none());
        assert_eq!(handover.lag(|_| Some(9)), Some(6), "two rows of the other wait for the poller");
        handover.set_polled(1, 4);
        handover.set_progress(0, progress(5, false, Some(7)));
        assert_eq!(handover.lag(|_| Some(9)), Some(2));
    }

    #[test]
    fn a_partition_has_more_until_its_end_has_been_polled() {
        let handover = Handover::default();
        assert_eq!(handover.has_more(0), None);
        handover.set_progress(0, Progress { handed: 5, polled: 5, at_end: false, bound: None });
        assert_eq!(handover.has_more(0), Some(true), "whoever has not seen the end does not know");
        assert!(handover.offer(batch(0, 7), 1, NO_TIME).is_none());
        handover.set_at_end(0, true);
        assert_eq!(handover.has_more(0), Some(true));
        handover.set_polled(0, 7);
        assert_eq!(handover.has_more(0), Some(false));
    }

    #[test]
    fn pauses_are_told_once() {
        let handover = Handover::default();
        let mut seen = 0;
        assert_eq!(handover.pauses(&mut seen), None);
        handover.pause(3, true);
        handover.pause(3, true);
        assert_eq!(handover.pauses(&mut seen), Some([3].into()));
        assert_eq!(handover.pauses(&mut seen), None);
        handover.pause(3, false);
        assert_eq!(handover.pauses(&mut seen), Some([].into()));
    }
}
