//! Rows of two sides next to each other, gathered over a step. In: encoded rows. Out: one batch.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, KeyCodec};

/// Changes whose rows are a left row and a right row.
#[derive(Default)]
pub(super) struct Pairs {
    rows: [Vec<Box<[u8]>>; 2],
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
}

impl Pairs {
    pub fn push(&mut self, rows: (&[u8], &[u8]), (epoch, diff, position): (u64, i64, u64)) {
        self.rows[0].push(rows.0.into());
        self.rows[1].push(rows.1.into());
        self.epochs.push(epoch);
        self.diffs.push(diff);
        self.positions.push(position);
    }

    /// None without changes.
    pub fn batch(self, codecs: [&KeyCodec; 2], schema: &SchemaRef) -> Option<Batch> {
        if self.epochs.is_empty() {
            return None;
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (codec, rows) in codecs.into_iter().zip(&self.rows) {
            columns.extend(codec.decode(rows.iter().map(|row| row.as_ref())).expect("these are rows of this codec"));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.epochs.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the planner fixed the schema");
        Some(Batch::new(rows, Counts::Each(self.epochs.into()), Diffs::Each(self.diffs.into()), Counts::Each(self.positions.into())))
    }
}
