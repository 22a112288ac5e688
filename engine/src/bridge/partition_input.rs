//! One partition of a source: its clock, and the rows that were read and not yet handed out. In: batches in offset order. Out: prefixes in epoch
//! order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef};
use freshet_core::{Batch, Counts, Epoch, Result, event_times};

use crate::bridge::SourceOffset;
use crate::bridge::partition::PartitionClock;

/// One partition and what was read of it.
pub struct PartitionInput {
    pub clock: PartitionClock,
    pub next_offset: u64,
    buffer: VecDeque<Buffered>,
    pub rows: usize,
    pub bytes: usize,
    pub ended: bool,
    /// Its rows reach beyond the end of the input, so it has not ended as far as lateness goes.
    pub cut: bool,
    pub paused: bool,
    /// All history has been read (T0b).
    pub caught_up: bool,
    /// When rows came last.
    pub seen: Instant,
    /// The greatest event time that was handed out, in ns.
    pub handed: Option<i64>,
    /// The greatest epoch that a row which was held waits for.
    pub due: Epoch,
    pub noted: u64,
    pub accepted: u64,
    /// It is known whether all of it is read (T23).
    pub settled: bool,
}

/// Rows with epochs, where their partition stood before them, and the greatest event time with them.
struct Buffered {
    batch: Batch,
    before: SourceOffset,
    greatest: Option<i64>,
    bytes: usize,
}

impl PartitionInput {
    /// One that nothing was read of.
    pub fn unread() -> PartitionInput {
        PartitionInput::new(PartitionClock::default(), 0)
    }

    pub fn new(clock: PartitionClock, next_offset: u64) -> PartitionInput {
        let handed = clock.greatest_event();
        PartitionInput {
            clock,
            next_offset,
            buffer: VecDeque::new(),
            rows: 0,
            bytes: 0,
            ended: false,
            cut: false,
            paused: false,
            caught_up: false,
            seen: Instant::now(),
            handed,
            due: Epoch::ZERO,
            noted: 0,
            accepted: 0,
            settled: false,
        }
    }

    /// Where to go on after everything handed out so far.
    pub fn offset(&self, partition: u32) -> SourceOffset {
        match self.buffer.front() {
            Some(buffered) => buffered.before.clone(),
            None => SourceOffset { partition, offset: self.next_offset, clock: self.clock.clone() },
        }
    }

    /// The same in wall clock, where the clock holds nothing that rows to come depend on: the very next row.
    pub fn exact_offset(&self, partition: u32) -> SourceOffset {
        SourceOffset { partition, offset: self.passed(), clock: PartitionClock::at(self.handed) }
    }

    /// Everything before this offset has been handed out.
    pub fn passed(&self) -> u64 {
        match self.buffer.front() {
            Some(buffered) => (buffered.batch.position(0) & 0xff_ffff_ffff).saturating_sub(1),
            None => self.next_offset,
        }
    }

    pub fn keep(&mut self, batch: Batch, before: SourceOffset, greatest: Option<i64>) {
        if !batch.is_empty() {
            let bytes = batch.rows().columns().iter().map(bytes_of).sum();
            self.rows += batch.len();
            self.bytes += bytes;
            self.buffer.push_back(Buffered { batch, before, greatest, bytes });
        }
    }

    /// Takes the buffered rows with epochs up to `end`.
    pub fn take_upto(&mut self, end: Epoch, event_time: Option<usize>) -> Result<Vec<Batch>> {
        let mut taken = Vec::new();
        while let Some(front) = self.buffer.front_mut() {
            let batch = &front.batch;
            let count = match batch.epochs() {
                Counts::Const(epoch) if *epoch <= end.0 => batch.len(),
                Counts::Const(_) => 0,
                Counts::Each(epochs) => epochs.partition_point(|epoch| *epoch <= end.0),
            };
            self.rows -= count;
            if count == batch.len() {
                self.bytes -= front.bytes;
                self.handed = self.handed.max(front.greatest);
                taken.extend(self.buffer.pop_front().map(|buffered| buffered.batch));
                continue;
            }
            if count > 0 {
                let first = batch.slice(0, count);
                if let Some(column) = event_time {
                    let greatest = event_times(first.column(column))?.into_iter().flatten().max();
                    self.handed = self.handed.max(greatest.map(|time| time.0));
                }
                front.batch = batch.slice(count, batch.len() - count);
                taken.push(first);
            }
            break;
        }
        Ok(taken)
    }

    pub fn is_idle(&self, idle_ms: Option<u64>) -> bool {
        idle_ms.is_some_and(|idle| self.seen.elapsed() > Duration::from_millis(idle))
    }

    /// The first epoch that waits to be handed out.
    pub fn first_epoch(&self) -> Option<Epoch> {
        self.buffer.front().map(|buffered| buffered.batch.epoch(0))
    }

    /// The epochs that wait, repeated per row.
    pub fn epochs(&self) -> impl Iterator<Item = u64> + '_ {
        self.buffer.iter().flat_map(|buffered| (0..buffered.batch.len()).map(|row| buffered.batch.epoch(row).0))
    }

    /// All that waits takes this epoch.
    pub fn restamp(&mut self, ticket: Epoch) {
        for buffered in &mut self.buffer {
            buffered.batch = at_epoch(&buffered.batch, ticket);
        }
    }
}

/// The same rows at one epoch.
pub fn at_epoch(batch: &Batch, epoch: Epoch) -> Batch {
    Batch::new(batch.rows().clone(), Counts::Const(epoch.0), batch.diffs().clone(), batch.positions().clone())
}

/// Bytes of the rows alone, also if they are a part of a larger batch.
pub fn bytes_of(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
