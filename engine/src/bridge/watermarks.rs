//! How far the time of each source has come, epoch by epoch (T12). Written by the ingest thread before the rows of an epoch are handed out;
//! so what a worker reads for an epoch never changes afterwards.
//!
//! Two bounds, never mixed: the *watermark* says which windows are closed once an epoch is complete, the *floor* (L) below which time no row
//! of a later epoch is input.

use std::sync::{PoisonError, RwLock};

use freshet_core::{Bound, Epoch, EventTime};

/// An entry more than this many behind is dropped when nobody reads below it any more.
const KEPT: usize = 4_096;

/// Both bounds of every source of a plan.
#[derive(Debug)]
pub struct Watermarks {
    sources: Vec<RwLock<[Vec<(Epoch, EventTime)>; 2]>>,
}

impl Watermarks {
    pub fn new(sources: usize) -> Watermarks {
        Watermarks { sources: (0..sources).map(|_| RwLock::default()).collect() }
    }

    /// From the end of this epoch on the bound is `time`. Epochs come in order, and bounds never fall; nobody reads below `settled`.
    pub fn raise(&self, source: usize, bound: Bound, epoch: Epoch, time: EventTime, settled: Epoch) {
        let mut bounds = self.sources[source].write().unwrap_or_else(PoisonError::into_inner);
        let raises = &mut bounds[bound as usize];
        if raises.last().is_some_and(|last| last.1 >= time) {
            return;
        }
        assert!(raises.last().is_none_or(|last| last.0 <= epoch), "bounds are raised in the order of epochs");
        raises.push((epoch, time));
        if raises.len() > KEPT {
            let known = raises.partition_point(|raise| raise.0 < settled);
            raises.drain(..known.saturating_sub(1));
        }
    }

    /// The least bound of these sources once `epoch` is complete; None while one of them has none.
    pub fn at(&self, sources: &[usize], bound: Bound, epoch: Epoch) -> Option<EventTime> {
        sources.iter().map(|source| self.of(*source, bound, epoch)).min().flatten()
    }

    /// Where the least bound of these sources rises behind `after` (None: from the beginning) and up to `upto`, ascending.
    pub fn raises(&self, sources: &[usize], bound: Bound, after: Option<Epoch>, upto: Epoch) -> Vec<(Epoch, EventTime)> {
        let mut epochs: Vec<Epoch> = Vec::new();
        for source in sources {
            let bounds = self.sources[*source].read().unwrap_or_else(PoisonError::into_inner);
            let raises = &bounds[bound as usize];
            let from = raises.partition_point(|raise| after.is_some_and(|after| raise.0 <= after));
            epochs.extend(raises[from..].iter().map(|raise| raise.0).take_while(|epoch| *epoch <= upto));
        }
        epochs.sort_unstable();
        epochs.dedup();
        let mut last = after.and_then(|after| self.at(sources, bound, after));
        let mut found = Vec::new();
        for epoch in epochs {
            let now = self.at(sources, bound, epoch);
            if now > last {
                found.extend(now.map(|now| (epoch, now)));
                last = now;
            }
        }
        found
    }

    fn of(&self, source: usize, bound: Bound, epoch: Epoch) -> Option<EventTime> {
        let bounds = self.sources[source].read().unwrap_or_else(PoisonError::into_inner);
        let raises = &bounds[bound as usize];
        let known = raises.partition_point(|raise| raise.0 <= epoch);
        known.checked_sub(1).map(|last| raises[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_the_bound_of_several_sources_is_the_least_and_rises_where_the_least_does() {
        let watermarks = Watermarks::new(2);
        for (source, epoch, time) in [(0, 10, 100), (1, 12, 50), (0, 14, 200), (1, 20, 150), (0, 20, 190)] {
            watermarks.raise(source, Bound::Watermark, Epoch(epoch), EventTime(time), Epoch::ZERO);
        }
        let raises = |after: Option<u64>, upto: u64| {
            let found = watermarks.raises(&[0, 1], Bound::Watermark, after.map(Epoch), Epoch(upto));
            found.into_iter().map(|(epoch, time)| (epoch.0, time.0)).collect::<Vec<_>>()
        };
        assert_eq!(raises(None, 100), [(12, 50), (20, 150)]);
        assert_eq!(raises(Some(12), 19), []);
        assert_eq!(watermarks.at(&[0, 1], Bound::Watermark, Epoch(11)), None);
        assert_eq!(watermarks.at(&[0, 1], Bound::Floor, Epoch(30)), None);
        assert_eq!(watermarks.at(&[0], Bound::Watermark, Epoch(30)), Some(EventTime(200)), "a bound never falls");
    }
}
