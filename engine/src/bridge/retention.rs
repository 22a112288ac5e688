//! How many dead letters a source keeps. In: what was appended to their log. Out: the log without its oldest, once it is too large or they are too
//! old. Invariant: what the log holds, letters that have left it included, stays within the bytes of the limit after every append.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type};
use freshet_core::{Batch, Counts, Diffs, Epoch, LetterLimits};

use crate::bridge::ViewLog;
use crate::bridge::dead_letters::places;

/// What a letter takes beside its texts and bytes.
const ROW_BYTES: u64 = 64;

pub struct Retention {
    limits: LetterLimits,
    /// Of all changes in the log; None: it has not been looked at.
    bytes: Option<u64>,
    /// The epoch of the oldest letter, or an earlier one.
    oldest: Option<u64>,
}

impl Retention {
    pub fn new(limits: LetterLimits) -> Retention {
        Retention { limits, bytes: None, oldest: None }
    }

    /// Looks at what a checkpoint has brought. True the first time.
    pub fn prepare(&mut self, log: &ViewLog) -> bool {
        if self.bytes.is_some() {
            return false;
        }
        self.bytes = Some(0);
        log.batches().0.iter().for_each(|(_, batch)| self.noted(batch));
        true
    }

    /// Changes that have been appended.
    pub fn noted(&mut self, batch: &Batch) {
        let rows = batch.rows();
        self.bytes = Some(self.bytes() + (0..rows.num_rows()).map(|row| row_bytes(rows, row)).sum::<u64>());
        self.oldest = epochs(rows).iter().map(|epoch| *epoch as u64).chain(self.oldest).min();
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.unwrap_or(0)
    }

    /// The oldest letters are too old by now, and enough time has passed since the last look to be worth one.
    pub fn is_due(&self, now: Epoch) -> bool {
        let overdue = |age: u64| self.oldest.is_some_and(|oldest| oldest.saturating_add(age + age / 16) < now.0);
        self.limits.age_ms.is_some_and(overdue)
    }

    /// How many letters had to go. None: there was nothing to do, and nothing has changed since the last call.
    pub fn enforce(&mut self, log: &ViewLog, now: Epoch) -> Option<u64> {
        let too_many = self.bytes() > self.limits.bytes_max;
        if !too_many && !self.is_due(now) {
            return Some(0);
        }
        let parts = log.snapshot(Epoch::MAX).ok()?;
        // In the order of their encoding, of which the epoch comes first.
        let rows = concat_batches(&log.schema, &parts).expect("parts of one table");
        let (first, bytes) = self.first_kept(&rows, now, too_many);
        let (gone, kept) = (rows.slice(0, first), rows.slice(first, rows.num_rows() - first));
        let gone_changes = Batch::new(gone, Counts::Const(now.0), Diffs::Each(vec![-1; first].into()), Counts::Const(0));
        self.oldest = epochs(&kept).first().map(|epoch| *epoch as u64);
        self.bytes = Some(bytes);
        log.replace(inserted(kept), &gone_changes);
        Some(first as u64)
    }

    /// The first row that stays, and the bytes from there on. Where there were too many, a quarter is left free, so that room is made seldom.
    fn first_kept(&self, rows: &RecordBatch, now: Epoch, too_many: bool) -> (usize, u64) {
        let oldest = self.limits.age_ms.map_or(0, |age| now.0.saturating_sub(age));
        let mut first = epochs(rows).partition_point(|epoch| (*epoch as u64) < oldest);
        let mut bytes: u64 = (first..rows.num_rows()).map(|row| row_bytes(rows, row)).sum();
        let room = if too_many { self.limits.bytes_max / 4 * 3 } else { u64::MAX };
        while bytes > room {
            bytes -= row_bytes(rows, first);
            first += 1;
        }
        (first, bytes)
    }
}

fn epochs(rows: &RecordBatch) -> &[i64] {
    rows.column(0).as_primitive::<Int64Type>().values()
}

/// The letters as they were appended, at their own epochs, in memory of their own.
fn inserted(rows: RecordBatch) -> Option<Batch> {
    if rows.num_rows() == 0 {
        return None;
    }
    let epochs: Vec<u64> = epochs(&rows).iter().map(|epoch| *epoch as u64).collect();
    let positions: Vec<u64> = places(&rows).map(|(partition, offset)| u64::from(partition & 0xffff) << 40 | (offset + 1)).collect();
    let all: Vec<u32> = (0..rows.num_rows() as u32).collect();
    Some(Batch::new(rows, Counts::Each(epochs.into()), Diffs::One, Counts::Each(positions.into())).take(&all))
}

fn row_bytes(rows: &RecordBatch, row: usize) -> u64 {
    let of = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value_length(row) as u64,
        DataType::Binary => column.as_binary::<i32>().value_length(row) as u64,
        _ => 0,
    };
    ROW_BYTES + rows.columns().iter().map(of).sum::<u64>()
}
