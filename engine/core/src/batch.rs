//! What travels on an edge: Arrow rows, each with the epoch it entered at, its diff and its input position.
//!
//! A constant epoch, an all-inserts diff and a constant position cost nothing; the columns exist only where they vary.

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{FilterBuilder, FilterPredicate, concat_batches, take};
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};

use crate::Epoch;

/// A u64 per row, elided when constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Counts {
    Const(u64),
    Each(ScalarBuffer<u64>),
}

impl Counts {
    pub fn get(&self, row: usize) -> u64 {
        match self {
            Counts::Const(value) => *value,
            Counts::Each(values) => values[row],
        }
    }

    fn slice(&self, offset: usize, len: usize) -> Counts {
        match self {
            Counts::Const(value) => Counts::Const(*value),
            Counts::Each(values) => Counts::Each(values.slice(offset, len)),
        }
    }

    fn take(&self, rows: &[u32]) -> Counts {
        match self {
            Counts::Const(value) => Counts::Const(*value),
            Counts::Each(values) => Counts::Each(rows.iter().map(|row| values[*row as usize]).collect()),
        }
    }

    fn filter(&self, kept: &FilterPredicate) -> Counts {
        match self {
            Counts::Const(value) => Counts::Const(*value),
            Counts::Each(values) => Counts::Each(kept_of::<UInt64Type>(kept, values)),
        }
    }

    fn concat<'a>(parts: impl Iterator<Item = (&'a Counts, usize)> + Clone) -> Counts {
        let mut constants = parts.clone().map(|(counts, _)| match counts {
            Counts::Const(value) => Some(*value),
            Counts::Each(_) => None,
        });
        let first = constants.next().flatten();
        if first.is_some() && constants.all(|value| value == first) {
            return Counts::Const(first.unwrap_or_default());
        }
        let mut all: Vec<u64> = Vec::new();
        for (counts, len) in parts {
            match counts {
                Counts::Const(value) => all.resize(all.len() + len, *value),
                Counts::Each(values) => all.extend_from_slice(values),
            }
        }
        Counts::Each(all.into())
    }
}

fn kept_of<T: ArrowPrimitiveType>(kept: &FilterPredicate, values: &ScalarBuffer<T::Native>) -> ScalarBuffer<T::Native> {
    let all: PrimitiveArray<T> = PrimitiveArray::new(values.clone(), None);
    kept.filter(&all).expect("the mask has the rows' length").as_primitive::<T>().values().clone()
}

/// How often each row is inserted (positive) or retracted (negative). Never zero.
#[derive(Debug, Clone, PartialEq)]
pub enum Diffs {
    /// Every row is inserted once.
    One,
    Each(ScalarBuffer<i64>),
}

impl Diffs {
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Diffs::One => 1,
            Diffs::Each(values) => values[row],
        }
    }
}

/// Rows with epoch, diff and position. All four have the same length; the constructor checks it.
///
/// The position orders rows of one epoch: source, partition and offset of the input record (0 where derived from many).
#[derive(Debug, Clone)]
pub struct Batch {
    rows: RecordBatch,
    epochs: Counts,
    diffs: Diffs,
    positions: Counts,
}

impl Batch {
    /// Panics if a per-row column has another length than the rows: that is a bug of the caller.
    pub fn new(rows: RecordBatch, epochs: Counts, diffs: Diffs, positions: Counts) -> Batch {
        for counts in [&epochs, &positions] {
            if let Counts::Each(values) = counts {
                assert_eq!(values.len(), rows.num_rows());
            }
        }
        if let Diffs::Each(values) = &diffs {
            assert_eq!(values.len(), rows.num_rows());
        }
        Batch { rows, epochs, diffs, positions }
    }

    /// Insertions that all enter at one epoch.
    pub fn inserts(rows: RecordBatch, epoch: Epoch) -> Batch {
        Batch::new(rows, Counts::Const(epoch.0), Diffs::One, Counts::Const(0))
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn column(&self, index: usize) -> &ArrayRef {
        self.rows.column(index)
    }

    pub fn epochs(&self) -> &Counts {
        &self.epochs
    }

    pub fn diffs(&self) -> &Diffs {
        &self.diffs
    }

    pub fn positions(&self) -> &Counts {
        &self.positions
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn epoch(&self, row: usize) -> Epoch {
        Epoch(self.epochs.get(row))
    }

    pub fn diff(&self, row: usize) -> i64 {
        self.diffs.get(row)
    }

    pub fn position(&self, row: usize) -> u64 {
        self.positions.get(row)
    }

    /// The same epochs, diffs and positions over other columns. Panics if the row count differs.
    pub fn with_rows(&self, rows: RecordBatch) -> Batch {
        Batch::new(rows, self.epochs.clone(), self.diffs.clone(), self.positions.clone())
    }

    /// The same rows under other names. Panics if the types differ.
    pub fn with_schema(&self, schema: &SchemaRef) -> Batch {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), self.rows.columns().to_vec(), &options).expect("the types are the same");
        self.with_rows(rows)
    }

    pub fn slice(&self, offset: usize, len: usize) -> Batch {
        let diffs = match &self.diffs {
            Diffs::One => Diffs::One,
            Diffs::Each(values) => Diffs::Each(values.slice(offset, len)),
        };
        Batch { rows: self.rows.slice(offset, len), epochs: self.epochs.slice(offset, len), diffs, positions: self.positions.slice(offset, len) }
    }

    /// The rows at these indexes, in this order.
    pub fn take(&self, rows: &[u32]) -> Batch {
        let indexes = UInt32Array::from(rows.to_vec());
        let columns = self.rows.columns().iter().map(|column| take(column, &indexes, None).expect("indexes are in range")).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let taken = RecordBatch::try_new_with_options(self.rows.schema(), columns, &options).expect("columns keep their types");
        let diffs = match &self.diffs {
            Diffs::One => Diffs::One,
            Diffs::Each(values) => Diffs::Each(rows.iter().map(|row| values[*row as usize]).collect()),
        };
        Batch { rows: taken, epochs: self.epochs.take(rows), diffs, positions: self.positions.take(rows) }
    }

    /// The rows with epochs below `epoch`, and the others; neither is copied if one is empty.
    pub fn split_at(&self, epoch: Epoch) -> (Batch, Batch) {
        let count = match &self.epochs {
            Counts::Const(value) => usize::from(*value < epoch.0) * self.len(),
            Counts::Each(values) => values.iter().filter(|value| **value < epoch.0).count(),
        };
        if count == self.len() || count == 0 {
            let (whole, none) = (self.clone(), self.slice(0, 0));
            return if count == 0 { (none, whole) } else { (whole, none) };
        }
        let (before, after): (Vec<u32>, Vec<u32>) = (0..self.len() as u32).partition(|row| self.epochs.get(*row as usize) < epoch.0);
        (self.take(&before), self.take(&after))
    }

    /// The rows whose mask is true; NULL counts as false.
    pub fn filter(&self, mask: &BooleanArray) -> Batch {
        assert_eq!(mask.len(), self.len());
        if mask.true_count() == self.len() {
            return self.clone();
        }
        let kept = FilterBuilder::new(mask).optimize().build();
        let rows = kept.filter_record_batch(&self.rows).expect("the mask has the rows' length");
        let diffs = match &self.diffs {
            Diffs::One => Diffs::One,
            Diffs::Each(values) => Diffs::Each(kept_of::<Int64Type>(&kept, values)),
        };
        Batch { rows, epochs: self.epochs.filter(&kept), diffs, positions: self.positions.filter(&kept) }
    }

    /// All rows of all parts, in order. `None` if there are no parts.
    pub fn concat(parts: &[Batch]) -> Option<Batch> {
        let first = parts.first()?;
        if parts.len() == 1 {
            return Some(first.clone());
        }
        let rows = concat_batches(&first.schema(), parts.iter().map(|part| &part.rows)).expect("parts of one edge share a schema");
        let diffs = if parts.iter().all(|part| part.diffs == Diffs::One) {
            Diffs::One
        } else {
            Diffs::Each(parts.iter().flat_map(|part| (0..part.len()).map(|row| part.diff(row))).collect())
        };
        let epochs = Counts::concat(parts.iter().map(|part| (&part.epochs, part.len())));
        let positions = Counts::concat(parts.iter().map(|part| (&part.positions, part.len())));
        Some(Batch { rows, epochs, diffs, positions })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array};

    use super::*;

    fn ints(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(values.to_vec())) as Arc<dyn Array>)]).unwrap()
    }

    #[test]
    fn concat_of_slices_is_the_whole() {
        let batch = Batch::new(ints(&[1, 2, 3, 4]), Counts::Each(vec![5, 5, 6, 7].into()), Diffs::Each(vec![1, -1, 1, 2].into()), Counts::Const(9));
        let parts = [batch.slice(0, 1), batch.slice(1, 2), batch.slice(3, 1)];
        let whole = Batch::concat(&parts).unwrap();
        assert_eq!(whole.rows(), batch.rows());
        assert_eq!((whole.epochs(), whole.diffs(), whole.positions()), (batch.epochs(), batch.diffs(), batch.positions()));
    }

    #[test]
    fn filter_keeps_epochs_with_their_rows() {
        let batch = Batch::new(ints(&[1, 2, 3]), Counts::Each(vec![5, 6, 7].into()), Diffs::One, Counts::Const(0));
        let kept = batch.filter(&BooleanArray::from(vec![Some(true), None, Some(true)]));
        assert_eq!(kept.column(0).as_primitive::<Int64Type>().values(), &[1, 3]);
        assert_eq!(kept.epoch(1), Epoch(7));
    }
}
