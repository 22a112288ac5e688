//! What a step is about to compute, for the journal. In: the batches of a step. Out: per source and partition the first and the last offset.

use std::collections::BTreeMap;

use freshet_core::{Batch, Epoch};

use crate::config::{StepJournal, StepRecords};

/// Tells the journal before the workers get the step. `open_steps`: this one included.
pub fn note_step(journal: &dyn StepJournal, end: Epoch, batches: &[(usize, Batch)], open_steps: usize) {
    let mut ranges: BTreeMap<(usize, u32), (u64, u64)> = BTreeMap::new();
    for (source, batch) in batches.iter().filter(|(_, batch)| !batch.is_empty()) {
        // A batch is of one partition, its rows in the order of their offsets.
        let (first, last) = (batch.position(0), batch.position(batch.len() - 1));
        let partition = (first >> 40 & 0xffff) as u32;
        let offset = |position: u64| (position & 0xff_ffff_ffff).saturating_sub(1);
        let range = ranges.entry((*source, partition)).or_insert((u64::MAX, 0));
        *range = (range.0.min(offset(first)), range.1.max(offset(last)));
    }
    let records = ranges.into_iter().map(|((source, partition), (from, to))| StepRecords { source, partition, from, to });
    journal.opening(end, &records.collect::<Vec<_>>(), open_steps);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use freshet_core::{Counts, Diffs};

    use super::*;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<StepRecords>>);

    impl StepJournal for Heard {
        fn resumed(&self, _events: u64) {}

        fn opening(&self, _end: Epoch, records: &[StepRecords], _open_steps: usize) {
            self.0.lock().unwrap().extend(records);
        }

        fn rows_max(&self) -> Option<usize> {
            None
        }
    }

    #[test]
    fn a_step_is_the_offsets_of_each_partition() {
        let batch = |source: u64, partition: u64, offsets: &[u64]| {
            let column = Arc::new(Int64Array::from(vec![0; offsets.len()])) as ArrayRef;
            let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
            let positions = offsets.iter().map(|offset| source << 56 | partition << 40 | (offset + 1)).collect();
            (source as usize, Batch::new(rows, Counts::Const(5), Diffs::One, Counts::Each(positions)))
        };
        let heard = Heard::default();
        note_step(&heard, Epoch(5), &[batch(1, 3, &[7, 8, 8]), batch(0, 0, &[2]), batch(1, 3, &[9, 12])], 1);
        let records = |source, partition, from, to| StepRecords { source, partition, from, to };
        assert_eq!(*heard.0.lock().unwrap(), [records(0, 0, 2, 2), records(1, 3, 7, 12)]);
    }
}
