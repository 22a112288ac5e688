//! The latest row of one key (T8). In: rows and retractions with event time, arrival and position. Out: the winner at any (q, s).

use std::collections::BTreeMap;

use freshet_core::{Epoch, EventTime, ReadPoint};

/// A row in T8's total order: event time, arrival, position, encoded row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LatestRow {
    pub time: i64,
    pub arrival: u64,
    pub position: u64,
    pub row: Box<[u8]>,
}

/// All that is kept of one key.
#[derive(Debug, Clone, Default)]
pub struct LatestKey {
    /// Rows every reader may see, with their multiplicity.
    pub rows: BTreeMap<LatestRow, i64>,
    /// Rows and retractions some reader may not yet see, in order of arrival.
    pub overlay: Vec<(LatestRow, i64)>,
}

impl LatestKey {
    /// Moves what every reader may see (arrival < `below`) into the rows, then drops what cannot win any more: with `append_only`
    /// everything below the winner at `below`, else only what is older than `dropped_before`.
    pub fn fold(&mut self, below: Epoch, dropped_before: Option<EventTime>, append_only: bool) {
        let count = self.overlay.partition_point(|(row, _)| row.arrival < below.0);
        for insertions in [true, false] {
            for (row, diff) in self.overlay[..count].iter().filter(|(_, diff)| (*diff > 0) == insertions) {
                if insertions {
                    *self.rows.entry(row.clone()).or_insert(0) += diff;
                } else {
                    (0..diff.unsigned_abs()).for_each(|_| take_out(&mut self.rows, row));
                }
            }
        }
        self.overlay.drain(..count);
        if append_only && self.rows.len() > 1 {
            let settled = EventTime(below.event_time().0);
            if let Some(winner) = winner(&self.rows, settled.0).cloned() {
                self.rows = self.rows.split_off(&winner);
            }
        }
        if let Some(time) = dropped_before
            && self.rows.first_key_value().is_some_and(|(row, _)| row.time < time.0)
        {
            self.rows = self.rows.split_off(&LatestRow { time: time.0, arrival: 0, position: 0, row: Box::default() });
        }
    }

    /// The winner among rows visible at (q, s), if any.
    pub fn read(&self, point: ReadPoint, include_now: bool) -> Option<LatestRow> {
        let now = i64::from(include_now);
        let (until, arrived) = (point.q.event_time().0.saturating_add(now), point.s.0.saturating_add(now as u64));
        let visible = || self.overlay.iter().filter(|(row, _)| row.time < until && row.arrival < arrived);
        if visible().any(|(_, diff)| *diff < 0) {
            let mut whole = LatestKey { rows: self.rows.clone(), overlay: visible().cloned().collect() };
            whole.fold(Epoch::MAX, None, false);
            return winner(&whole.rows, until).cloned();
        }
        let newest = visible().map(|(row, _)| row).max();
        winner(&self.rows, until).max(newest).cloned()
    }

    pub fn len(&self) -> usize {
        self.rows.len() + self.overlay.len()
    }
}

fn winner(rows: &BTreeMap<LatestRow, i64>, until: i64) -> Option<&LatestRow> {
    rows.range(..LatestRow { time: until, arrival: 0, position: 0, row: Box::default() }).next_back().map(|(row, _)| row)
}

/// Takes out the oldest row with the retracted row's time and content.
fn take_out(rows: &mut BTreeMap<LatestRow, i64>, retracted: &LatestRow) {
    let from = LatestRow { time: retracted.time, arrival: 0, position: 0, row: Box::default() };
    let until = LatestRow { time: retracted.time.saturating_add(1), arrival: 0, position: 0, row: Box::default() };
    let Some(found) = rows.range(from..until).map(|(row, _)| row).find(|row| row.row == retracted.row).cloned() else { return };
    let count = rows.get_mut(&found).expect("it was just found");
    *count -= 1;
    if *count == 0 {
        rows.remove(&found);
    }
}
