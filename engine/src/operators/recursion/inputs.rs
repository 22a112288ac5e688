//! What goes into a recursion. In: changes, sharded by row. Out: the same changes; after a restore, first the rows of the checkpoint, at its
//! epoch.

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_i64};

/// The operator and its state: every row with its count.
pub struct RecursionInput {
    schema: SchemaRef,
    codec: KeyCodec,
    rows: ShardedMap<i64>,
    /// The checkpoint's epoch, until its rows have been sent.
    resumed: Option<Epoch>,
}

impl RecursionInput {
    /// Errors: Invalid for columns without order.
    pub fn new(schema: SchemaRef) -> Result<RecursionInput> {
        Ok(RecursionInput { codec: KeyCodec::for_schema(&schema)?, schema, rows: ShardedMap::default(), resumed: None })
    }

    fn restored(&self, epoch: Epoch) -> Option<Batch> {
        let mut rows: Vec<(&[u8], i64)> = self.rows.iter().map(|(row, count)| (row, *count)).collect();
        if rows.is_empty() {
            return None;
        }
        rows.sort_unstable();
        let batch = self.codec.decode_batch(&self.schema, rows.iter().map(|(row, _)| *row)).expect("these are rows of this codec");
        let counts: Vec<i64> = rows.iter().map(|(_, count)| *count).collect();
        Some(Batch::new(batch, Counts::Const(epoch.0), Diffs::Each(counts.into()), Counts::Const(0)))
    }
}

impl StepOperator for RecursionInput {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        out.rows.extend(self.resumed.take().and_then(|epoch| self.restored(epoch)));
        for batch in std::mem::take(&mut inputs[0]) {
            let encoded = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            for (row, bytes) in encoded.iter().enumerate() {
                let count = self.rows.entry(bytes.as_ref(), || 0);
                *count += batch.diff(row);
                if *count == 0 {
                    self.rows.remove(bytes.as_ref());
                }
            }
            out.rows.push(batch);
        }
    }
}

impl Stateful for RecursionInput {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.rows.checkpoint(|out, count| put_i64(out, *count))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.rows.restore(shard, bytes, |bytes: &mut Bytes<'_>| bytes.i64())
    }

    fn resume(&mut self, epoch: Epoch) -> Result<()> {
        self.resumed = Some(epoch);
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        let bytes: usize = self.rows.iter().map(|(row, _)| row.len() + 48).sum();
        (self.rows.len() as u64, bytes as u64)
    }
}
