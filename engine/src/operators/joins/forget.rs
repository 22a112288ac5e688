//! Which single rows a join forgets. In: rows with the time that decides it, and how far the other side has come. Out: the rows that no change
//! of the other side reaches any more are gone.

use freshet_core::{Batch, Epoch, EventTime, event_times};

use crate::operators::Freeing;
use crate::operators::joins::given::{At, Given};
use crate::state::{Kept, ShardedMap};

/// A row's mark: nanoseconds of the column by which its side's rows are over. These never are.
pub(super) const NEVER_OVER: i64 = i64::MAX;
/// Comparisons with NULL are never true.
const OVER_AT_ONCE: i64 = i64::MIN;
/// A condition may fail on times beyond, which is an error that each change of the other side makes anew.
const TIME_MAX: i64 = 1 << 62;

/// By side, the column and its horizon; and how many rows there are.
#[derive(Default)]
pub(super) struct Forgetting {
    over: [Option<Freeing>; 2],
    kept: usize,
}

/// The marks of a step's rows, by batch; none where its side's rows are never over.
pub(super) struct Marks(Vec<Vec<i64>>);

impl Marks {
    pub fn of(&self, at: At) -> i64 {
        self.0[at.batch as usize].get(at.row as usize).copied().unwrap_or(NEVER_OVER)
    }
}

impl Forgetting {
    pub fn new(over: [Option<Freeing>; 2]) -> Forgetting {
        Forgetting { over, kept: 0 }
    }

    pub fn marks(&self, given: &Given) -> Marks {
        let mark = |time: Option<EventTime>| match time {
            None => OVER_AT_ONCE,
            Some(EventTime(ns)) if (-TIME_MAX..TIME_MAX).contains(&ns) => ns,
            Some(_) => NEVER_OVER,
        };
        let of_batch = |over: &Freeing, batch: &Batch| {
            let times = event_times(batch.column(over.column())).expect("only timestamps have a horizon");
            times.into_iter().map(mark).collect()
        };
        Marks(given.batches.iter().map(|given| self.over[given.side].as_ref().map_or_else(Vec::new, |over| of_batch(over, given.batch))).collect())
    }

    /// A side of a key had so many rows, and has so many now.
    pub fn count(&mut self, before: usize, now: usize) {
        self.kept = self.kept + now - before;
    }

    /// After the step up to `upto`. `forget` drops the rows of a key whose marks lie below these, by side, and says how many they were and
    /// whether nothing is left.
    pub fn sweep<V>(&mut self, keys: &mut ShardedMap<V>, upto: Epoch, forget: impl Fn(&mut V, [i64; 2]) -> (usize, bool)) {
        if !self.over.iter().flatten().any(|over| over.is_due(self.kept)) {
            return;
        }
        let bounds = self.over.each_ref().map(|over| over.as_ref().and_then(|over| over.bound(upto)).map_or(i64::MIN, |bound| bound.0));
        let mut all = 0;
        keys.retain(|key| {
            let (gone, is_empty) = forget(key, bounds);
            all += gone;
            match (gone > 0, is_empty) {
                (_, true) => Kept::Not,
                (true, false) => Kept::Changed,
                (false, false) => Kept::AsItWas,
            }
        });
        self.kept -= all;
        self.over.iter_mut().flatten().for_each(|over| over.swept(self.kept));
    }
}
