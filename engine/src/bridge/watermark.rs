//! When windows of one source close (T12). In: the rows of complete epochs. Out: the watermark after each epoch that raises it. Pure.
//!
//! The least over the partitions that have not ended of the greatest event time so far, less the delay of WATERMARK's expression, + 1 ms;
//! without such partitions the end of time. It never falls.

use std::collections::BTreeMap;

use freshet_core::{Batch, Epoch, EventTime, Result, event_times};
use serde::{Deserialize, Serialize};

/// The watermark of one source, and what it follows from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// Per partition the greatest event time of the rows that were handed out, in ns.
    greatest: BTreeMap<u32, i64>,
    reached: Option<i64>,
}

/// What a partition may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    Running,
    /// Nothing has come for so long that it is not waited for.
    Idle,
    Ended,
}

impl Watermark {
    pub fn reached(&self) -> Option<EventTime> {
        self.reached.map(EventTime)
    }

    /// Takes in the rows of the epochs up to `end`, with their partitions. `state` says of a partition and an epoch whether it may still bring
    /// rows of a later one, and whether it is silent.
    pub fn take(
        &mut self,
        (column, delay_ms): (usize, u64),
        batches: &[(u32, Batch)],
        state: impl Fn(u32, u64) -> PartitionState,
        partitions: &[u32],
        end: Epoch,
    ) -> Result<Vec<(Epoch, EventTime)>> {
        // Per epoch and partition: within an epoch order does not matter.
        let mut epochs: BTreeMap<u64, BTreeMap<u32, i64>> = BTreeMap::new();
        for (partition, batch) in batches {
            // Rows of a partition come in the order of their epochs, so that an epoch is one run of them.
            let mut run: Option<(u64, i64)> = None;
            let mut take = |(epoch, time): (u64, i64)| {
                let greatest = epochs.entry(epoch).or_default().entry(*partition).or_insert(time);
                *greatest = (*greatest).max(time);
            };
            for (row, time) in event_times(batch.column(column))?.into_iter().enumerate() {
                let Some(time) = time else { continue };
                let epoch = batch.epoch(row).0;
                run = match run {
                    Some((of, greatest)) if of == epoch => Some((epoch, greatest.max(time.0))),
                    other => {
                        other.into_iter().for_each(&mut take);
                        Some((epoch, time.0))
                    }
                };
            }
            run.into_iter().for_each(take);
        }
        let mut raises = Vec::new();
        for (epoch, greatest) in epochs {
            for (partition, time) in greatest {
                let known = self.greatest.entry(partition).or_insert(time);
                *known = (*known).max(time);
            }
            self.raise(delay_ms, epoch, &state, partitions, &mut raises);
        }
        // A partition may end, or fall silent, without a row.
        let last = if self.greatest.is_empty() { 0 } else { end.0 };
        self.raise(delay_ms, last, &state, partitions, &mut raises);
        Ok(raises)
    }

    fn raise(
        &mut self,
        delay_ms: u64,
        epoch: u64,
        state: &impl Fn(u32, u64) -> PartitionState,
        partitions: &[u32],
        raises: &mut Vec<(Epoch, EventTime)>,
    ) {
        let running = || partitions.iter().filter(|partition| state(**partition, epoch) != PartitionState::Ended);
        let mut heard = running().filter(|partition| state(**partition, epoch) == PartitionState::Running);
        let least = match (running().next(), heard.next()) {
            (None, _) => Some(i64::MAX),
            // All are silent: time stands still.
            (Some(_), None) => None,
            (Some(_), Some(first)) => {
                let delay = i64::try_from(delay_ms).unwrap_or(i64::MAX);
                let greatest = std::iter::once(first).chain(heard).map(|partition| self.greatest.get(partition).copied()).min().flatten();
                greatest.map(|greatest| EventTime(greatest).plus_ms(1i64.saturating_sub(delay)).0)
            }
        };
        if least > self.reached {
            self.reached = least;
            raises.extend(least.map(|least| (Epoch(epoch), EventTime(least))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
    use freshet_core::{Counts, Diffs};

    use super::*;

    /// (event time, epoch)
    fn rows(rows: &[(i64, u64)]) -> Batch {
        let column = Arc::new(rows.iter().map(|row| Some(row.0)).collect::<TimestampMillisecondArray>()) as ArrayRef;
        let epochs = Counts::Each(rows.iter().map(|row| row.1).collect());
        Batch::new(RecordBatch::try_from_iter([("ts", column)]).unwrap(), epochs, Diffs::One, Counts::Const(0))
    }

    fn taken(watermark: &mut Watermark, batches: &[(u32, Batch)], ends: &[(u32, u64)], end: u64) -> Vec<(u64, i64)> {
        let partitions: Vec<u32> = ends.iter().map(|end| end.0).collect();
        let state = |partition, epoch| match ends.iter().any(|end| end.0 == partition && end.1 > epoch) {
            true => PartitionState::Running,
            false => PartitionState::Ended,
        };
        let found = watermark.take((0, 5), batches, state, &partitions, Epoch(end)).unwrap();
        found.into_iter().map(|(epoch, time)| (epoch.0, if time.0 == i64::MAX { -1 } else { time.0 / 1_000_000 })).collect()
    }

    #[test]
    fn t12_the_watermark_is_the_same_however_steps_are_cut() {
        let (one, other) = (rows(&[(100, 100), (90, 100), (120, 120)]), rows(&[(80, 80), (110, 110), (130, 130)]));
        let ends = [(0, 120), (1, 130)];
        let whole = taken(&mut Watermark::default(), &[(0, one.clone()), (1, other.clone())], &ends, 130);
        assert_eq!(whole, [(100, 76), (110, 96), (120, 106), (130, -1)]);
        let mut watermark = Watermark::default();
        let mut cut = Vec::new();
        for end in [80, 100, 105, 110, 120, 125, 130] {
            let of = |batch: &Batch, after: u64| batch.split_at(Epoch(end + 1)).0.split_at(Epoch(after + 1)).1;
            let after = cut_before(end);
            cut.extend(taken(&mut watermark, &[(0, of(&one, after)), (1, of(&other, after))], &ends, end));
        }
        assert_eq!(cut, whole);
    }

    fn cut_before(end: u64) -> u64 {
        [0, 80, 100, 105, 110, 120, 125].into_iter().filter(|cut| *cut < end).max().unwrap_or(0)
    }

    #[test]
    fn t12_silent_partitions_do_not_end_time() {
        let idle = |_, _| PartitionState::Idle;
        assert_eq!(Watermark::default().take((0, 0), &[], idle, &[0], Epoch(9)).unwrap(), []);
    }

    #[test]
    fn t0a_a_source_without_rows_holds_nothing_back() {
        assert_eq!(taken(&mut Watermark::default(), &[], &[(0, 0)], 500), [(0, -1)]);
    }
}
