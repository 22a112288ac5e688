//! The live rows of a source that retracts (T9). In: changes, sharded by row. Out: the changes of each epoch, added up per row; a
//! retraction that finds no live row is an error record, so no count below ever turns negative.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{ShardedMap, put_i64};

pub struct Live {
    name: String,
    codec: KeyCodec,
    schema: SchemaRef,
    sources: Arc<[String]>,
    counts: ShardedMap<i64>,
}

impl Live {
    /// Errors: Invalid for columns without order.
    pub fn new(name: String, schema: SchemaRef, sources: Arc<[String]>) -> Result<Live> {
        Ok(Live { name, codec: KeyCodec::for_schema(&schema)?, schema, sources, counts: ShardedMap::default() })
    }
}

impl StepOperator for Live {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let encoded: Vec<_> =
            batches.iter().map(|batch| self.codec.encode(batch.rows().columns()).expect("the codec was made for this source")).collect();
        // Epoch, then row: the sum of its diffs, the last position of an insertion (a retraction takes out the oldest), the last position.
        let mut changes: BTreeMap<(u64, &[u8]), (i64, u64, u64)> = BTreeMap::new();
        for (batch, rows) in batches.iter().zip(&encoded) {
            for row in 0..batch.len() {
                let change = changes.entry((batch.epoch(row).0, rows.row(row).data())).or_default();
                let position = if batch.diff(row) > 0 { batch.position(row) } else { 0 };
                *change = (change.0 + batch.diff(row), change.1.max(position), change.2.max(batch.position(row)));
            }
        }
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        let mut live: Vec<(u64, &[u8], i64, u64)> = Vec::new();
        for ((epoch, row), (diff, position, last)) in changes {
            let held = self.counts.get(row).copied().unwrap_or(0);
            let found = diff.max(-held);
            if found > diff {
                errors.push_at(epoch, found - diff, last, "", "a retraction found no live row to take out", None);
            }
            if found == 0 {
                continue;
            }
            if held + found == 0 {
                self.counts.remove(row);
            } else {
                *self.counts.entry(row, || 0) = held + found;
            }
            live.push((epoch, row, found, position));
        }
        out.errors.extend(errors.finish());
        if live.is_empty() {
            return;
        }
        let rows = self.codec.decode_batch(&self.schema, live.iter().map(|change| change.1)).expect("these are rows of this codec");
        let epochs = Counts::Each(live.iter().map(|change| change.0).collect());
        let diffs = Diffs::Each(live.iter().map(|change| change.2).collect());
        out.rows.push(Batch::new(rows, epochs, diffs, Counts::Each(live.iter().map(|change| change.3).collect())));
    }
}

impl Stateful for Live {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.counts.checkpoint(|out, count| put_i64(out, *count))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.counts.restore(shard, bytes, |bytes| bytes.i64())
    }

    fn size(&self) -> (u64, u64) {
        self.counts.iter().fold((0, 0), |size, (row, _)| (size.0 + 1, size.1 + row.len() as u64 + 40))
    }
}
