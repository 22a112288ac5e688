//! Rows that the script itself holds. In: nothing but the course of time. Out: these rows at epoch 0, once in the life of a pipeline.

use arrow::array::RecordBatch;
use freshet_core::{Batch, Epoch, Result};

use crate::operators::{Output, Stateful, StepOperator};

/// The operator and its state: whether they have been put out.
pub struct Values {
    rows: Option<RecordBatch>,
    changed: bool,
}

impl Values {
    /// `rows` of the worker that puts them out; None on the others.
    pub fn new(rows: Option<RecordBatch>) -> Values {
        Values { rows, changed: false }
    }
}

impl StepOperator for Values {
    fn step(&mut self, _inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        if let Some(rows) = self.rows.take() {
            self.changed = true;
            out.rows.extend(Some(Batch::inserts(rows, Epoch::ZERO)).filter(|batch| !batch.is_empty()));
        }
    }
}

impl Stateful for Values {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        if std::mem::take(&mut self.changed) { vec![(0, vec![1])] } else { Vec::new() }
    }

    fn restore(&mut self, _shard: usize, _bytes: &[u8]) -> Result<()> {
        self.rows = None;
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}
