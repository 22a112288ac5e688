//! What comes out of a recursion. In: what every round changed. Out: per epoch what all rounds together changed, in row order. After a restore
//! nothing up to the checkpoint's epoch: it was told before.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{Output, Stateful, StepOperator};

/// The operator; between steps it holds nothing.
pub struct RecursionOutput {
    schema: SchemaRef,
    codec: KeyCodec,
    told: Option<Epoch>,
}

impl RecursionOutput {
    /// Errors: Invalid for columns without order.
    pub fn new(schema: SchemaRef) -> Result<RecursionOutput> {
        Ok(RecursionOutput { codec: KeyCodec::for_schema(&schema)?, schema, told: None })
    }
}

impl StepOperator for RecursionOutput {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut changes: BTreeMap<(u64, Box<[u8]>), i64> = BTreeMap::new();
        for batch in std::mem::take(&mut inputs[0]) {
            let encoded = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            for (row, bytes) in encoded.iter().enumerate() {
                let epoch = batch.epoch(row);
                if self.told.is_none_or(|told| epoch > told) {
                    *changes.entry((epoch.0, bytes.as_ref().into())).or_insert(0) += batch.diff(row);
                }
            }
        }
        changes.retain(|_, diff| *diff != 0);
        if changes.is_empty() {
            return;
        }
        let rows = self.codec.decode_batch(&self.schema, changes.keys().map(|(_, row)| row.as_ref())).expect("these are rows of this codec");
        let epochs: Vec<u64> = changes.keys().map(|(epoch, _)| *epoch).collect();
        let diffs: Vec<i64> = changes.into_values().collect();
        out.rows.push(Batch::new(rows, Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0)));
    }
}

impl Stateful for RecursionOutput {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        Vec::new()
    }

    fn restore(&mut self, _shard: usize, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn resume(&mut self, epoch: Epoch) -> Result<()> {
        self.told = Some(epoch);
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}
