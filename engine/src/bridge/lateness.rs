//! Which rows are too late (T12). In: records in epoch order, over all partitions of a source. Out: what is not input. Pure.
//!
//! Decided once, against L: the least over the partitions that have not ended of the greatest event time of earlier epochs, less LATENESS.
//! L never falls.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::BooleanArray;
use freshet_core::{Batch, EventTime, Result, event_times};
use serde::{Deserialize, Serialize};

/// L of one source, and what it follows from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// Per partition the greatest event time of the rows that have been judged, in ns.
    greatest: BTreeMap<u32, i64>,
    bound: Option<i64>,
}

/// A record: rows that share a position.
struct Record {
    epoch: u64,
    partition: u32,
    batch: usize,
    rows: Range<usize>,
    least: i64,
    greatest: i64,
}

impl Lateness {
    /// L as it is for rows to come.
    pub fn bound(&self) -> Option<EventTime> {
        self.bound.map(EventTime)
    }

    /// Takes the rows that are input out of all rows of complete epochs; the others follow. `is_running` says of a partition and an epoch
    /// whether it may still bring rows of that epoch or a later one.
    #[allow(clippy::type_complexity, reason = "batches with their partitions, then late rows: two lists")]
    pub fn judge(
        &mut self,
        column: usize,
        lateness_ms: u64,
        batches: Vec<(u32, Batch)>,
        is_running: impl Fn(u32, u64) -> bool,
        partitions: &[u32],
    ) -> Result<(Vec<(u32, Batch)>, Vec<Batch>)> {
        if self.all_in_time(column, lateness_ms, &batches, &is_running, partitions)? {
            return Ok((batches.into_iter().filter(|(_, batch)| !batch.is_empty()).collect(), Vec::new()));
        }
        let mut records = Vec::new();
        for (index, (partition, batch)) in batches.iter().enumerate() {
            records_of(batch, column, *partition, index, &mut records)?;
        }
        records.sort_by_key(|record| record.epoch);
        let mut late: Vec<Vec<Range<usize>>> = vec![Vec::new(); batches.len()];
        for epoch in records.chunk_by(|left, right| left.epoch == right.epoch) {
            self.raise(lateness_ms, partitions.iter().copied().filter(|partition| is_running(*partition, epoch[0].epoch)));
            for record in epoch {
                // A record is too late as a whole if one of its rows is: half an update would leave the old row beside the new one.
                if self.bound.is_some_and(|bound| record.least < bound) {
                    late[record.batch].push(record.rows.clone());
                }
            }
            for record in epoch {
                let greatest = self.greatest.entry(record.partition).or_insert(record.greatest);
                *greatest = (*greatest).max(record.greatest);
            }
        }
        let (mut input, mut too_late) = (Vec::new(), Vec::new());
        for ((partition, batch), late) in batches.into_iter().zip(late) {
            if late.is_empty() {
                input.push((partition, batch));
                continue;
            }
            let mut kept = vec![true; batch.len()];
            late.into_iter().flatten().for_each(|row| kept[row] = false);
            too_late.push(batch.filter(&kept.iter().map(|kept| Some(!kept)).collect::<BooleanArray>()));
            input.push((partition, batch.filter(&BooleanArray::from(kept))));
        }
        input.retain(|(_, batch)| !batch.is_empty());
        Ok((input, too_late))
    }

    /// Whether no row can be too late, because none lies behind any bound there may be by the end of these rows; if so it stands where judging
    /// each record would leave it. Streams are mostly in order, and a look at each record costs as much as a filter.
    fn all_in_time(
        &mut self,
        column: usize,
        lateness_ms: u64,
        batches: &[(u32, Batch)],
        is_running: impl Fn(u32, u64) -> bool,
        partitions: &[u32],
    ) -> Result<bool> {
        let ends = batches.iter().filter_map(|(_, batch)| Some(batch.epoch(batch.len().checked_sub(1)?).0));
        let Some(last) = ends.max() else { return Ok(true) };
        let mut least = i64::MAX;
        // Before the last epoch, and after it.
        let (mut before, mut after) = (self.greatest.clone(), self.greatest.clone());
        for (partition, batch) in batches {
            let (mut early, mut late) = (before.get(partition).copied(), after.get(partition).copied());
            for (row, time) in event_times(batch.column(column))?.into_iter().enumerate() {
                let Some(EventTime(time)) = time else { continue };
                least = least.min(time);
                late = late.max(Some(time));
                if batch.epoch(row).0 < last {
                    early = early.max(Some(time));
                }
            }
            before.extend(early.map(|time| (*partition, time)));
            after.extend(late.map(|time| (*partition, time)));
        }
        let lateness = i64::try_from(lateness_ms).unwrap_or(i64::MAX);
        let behind = |time: i64| EventTime(time).plus_ms(lateness.saturating_neg()).0;
        if after.values().copied().max().map(behind).max(self.bound).is_some_and(|bound| least < bound) {
            return Ok(false);
        }
        // The fewer partitions run, the higher the bound: that of the last epoch is the highest.
        let mut running = partitions.iter().filter(|partition| is_running(**partition, last)).peekable();
        if running.peek().is_none() {
            return Ok(false);
        }
        let lowest = running.map(|partition| before.get(partition).copied()).min().flatten();
        self.bound = self.bound.max(lowest.map(behind));
        self.greatest = after;
        Ok(true)
    }

    fn raise(&mut self, lateness_ms: u64, running: impl Iterator<Item = u32>) {
        let least = running.map(|partition| self.greatest.get(&partition).copied()).min().flatten();
        if let Some(least) = least {
            let lateness = i64::try_from(lateness_ms).unwrap_or(i64::MAX);
            self.bound = self.bound.max(Some(EventTime(least).plus_ms(lateness.saturating_neg()).0));
        }
    }
}

fn records_of(batch: &Batch, column: usize, partition: u32, index: usize, records: &mut Vec<Record>) -> Result<()> {
    let times = event_times(batch.column(column))?;
    let mut first = 0;
    while first < batch.len() {
        let end = (first + 1..batch.len()).find(|row| batch.position(*row) != batch.position(first)).unwrap_or(batch.len());
        let of_record = || times[first..end].iter().flatten().map(|time| time.0);
        if let (Some(least), Some(greatest)) = (of_record().min(), of_record().max()) {
            records.push(Record { epoch: batch.epoch(first).0, partition, batch: index, rows: first..end, least, greatest });
        }
        first = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
    use freshet_core::{Counts, Diffs};

    use super::*;

    /// (event time, epoch, position)
    fn rows(rows: &[(i64, u64, u64)]) -> Batch {
        let column = Arc::new(rows.iter().map(|row| Some(row.0)).collect::<TimestampMillisecondArray>()) as ArrayRef;
        let epochs = Counts::Each(rows.iter().map(|row| row.1).collect());
        let positions = Counts::Each(rows.iter().map(|row| row.2).collect());
        Batch::new(RecordBatch::try_from_iter([("ts", column)]).unwrap(), epochs, Diffs::One, positions)
    }

    fn judged(lateness: &mut Lateness, batches: Vec<(u32, Batch)>, partitions: &[u32], is_running: impl Fn(u32, u64) -> bool) -> (usize, Vec<u64>) {
        let (input, late) = lateness.judge(0, 10, batches, is_running, partitions).unwrap();
        let epochs = late.iter().flat_map(|batch| (0..batch.len()).map(|row| batch.epoch(row).0)).collect();
        (input.iter().map(|(_, batch)| batch.len()).sum(), epochs)
    }

    #[test]
    fn t12_a_row_behind_the_bound_of_earlier_epochs_is_late() {
        let batch = rows(&[(100, 100, 1), (89, 100, 2), (120, 120, 3), (105, 120, 4), (121, 121, 5), (109, 121, 6)]);
        // 89 belongs to epoch 100, before which nothing was seen; 105 to epoch 120, whose bound is 100 − 10; 109 to 121, bound 110.
        assert_eq!(judged(&mut Lateness::default(), vec![(0, batch)], &[0], |_, _| true), (5, vec![121]));
    }

    /// What no row tells apart.
    #[test]
    fn t12_a_step_in_order_leaves_the_bound_where_each_record_would() {
        let first = rows(&[(100, 100, 1), (101, 101, 2), (101, 101, 3), (103, 103, 4)]);
        let other = rows(&[(99, 99, 1), (103, 103, 2)]);
        for running in [|_: u32, _: u64| true, |partition: u32, _: u64| partition == 0, |partition: u32, epoch: u64| partition == 0 || epoch < 101] {
            let mut at_once = Lateness::default();
            assert_eq!(judged(&mut at_once, vec![(0, first.clone()), (1, other.clone())], &[0, 1], running), (6, vec![]));
            let mut singly = Lateness::default();
            for epoch in [99, 100, 101, 103] {
                let part = |batch: &Batch| batch.split_at(freshet_core::Epoch(epoch + 1)).0.split_at(freshet_core::Epoch(epoch)).1;
                judged(&mut singly, vec![(0, part(&first)), (1, part(&other))], &[0, 1], running);
            }
            assert_eq!(at_once, singly);
        }
    }

    #[test]
    fn t12_an_update_is_late_as_a_whole() {
        let batch = rows(&[(100, 100, 1), (120, 120, 2), (140, 140, 3), (100, 150, 4), (150, 150, 4)]);
        assert_eq!(judged(&mut Lateness::default(), vec![(0, batch)], &[0], |_, _| true), (3, vec![150, 150]));
    }

    #[test]
    fn t12_the_bound_is_that_of_the_slowest_partition_that_has_not_ended() {
        let fast = rows(&[(200, 200, 1), (150, 201, 2), (150, 301, 3)]);
        let slow = rows(&[(100, 100, 1), (300, 300, 2)]);
        let both = vec![(0, fast), (1, slow)];
        // At 201 the slow one stands at 100; at 301 the slow one has ended and the fast one stands at 200.
        assert_eq!(judged(&mut Lateness::default(), both.clone(), &[0, 1], |partition, epoch| partition == 0 || epoch <= 300), (4, vec![301]));
        // A partition that has brought nothing yet holds the bound.
        assert_eq!(judged(&mut Lateness::default(), both, &[0, 1, 2], |_, _| true), (5, vec![]));
    }
}
