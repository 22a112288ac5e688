//! INTERSECT and EXCEPT, with and without ALL. In: changes of both sides, sharded by row. Out: per epoch, how many more or fewer of each row
//! there are. NULL equals NULL here.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result, SetOperation};

use crate::operators::{Freeing, Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_i64};

/// The operator and its state: how often each row is on either side.
pub struct SetOperator {
    operation: SetOperation,
    schema: SchemaRef,
    codec: KeyCodec,
    counts: ShardedMap<[i64; 2]>,
    freeing: Option<Freeing>,
}

impl SetOperator {
    /// Errors: Invalid for columns without order.
    pub fn new(operation: SetOperation, schema: SchemaRef) -> Result<SetOperator> {
        Ok(SetOperator { operation, codec: KeyCodec::for_schema(&schema)?, schema, counts: ShardedMap::default(), freeing: None })
    }

    /// Rows that cannot come or go any more are forgotten.
    pub fn freeing(self, freeing: Option<Freeing>) -> SetOperator {
        SetOperator { freeing, ..self }
    }
}

impl StepOperator for SetOperator {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let encoded: Vec<(usize, &Batch, arrow::row::Rows)> = inputs
            .iter()
            .enumerate()
            .flat_map(|(side, batches)| batches.iter().map(move |batch| (side, batch)))
            .map(|(side, batch)| (side, batch, self.codec.encode(batch.rows().columns()).expect("both sides have the columns of the output")))
            .collect();
        let mut changes: BTreeMap<(u64, &[u8]), [i64; 2]> = BTreeMap::new();
        for (side, batch, rows) in &encoded {
            for row in 0..batch.len() {
                changes.entry((batch.epoch(row).0, rows.row(row).data())).or_default()[*side] += batch.diff(row);
            }
        }
        let (mut rows, mut epochs, mut diffs) = (Vec::new(), Vec::new(), Vec::new());
        for ((epoch, row), change) in changes.into_iter().filter(|(_, change)| *change != [0, 0]) {
            let counts = self.counts.entry(row, Default::default);
            let before = self.operation.count(*counts);
            counts.iter_mut().zip(change).for_each(|(count, change)| *count += change);
            let after = self.operation.count(*counts);
            if *counts == [0, 0] {
                self.counts.remove(row);
            }
            if before != after {
                rows.push(row);
                epochs.push(epoch);
                diffs.push(after - before);
            }
        }
        if !rows.is_empty() {
            let rows = self.codec.decode_batch(&self.schema, rows).expect("these are rows of this codec");
            out.rows.push(Batch::new(rows, Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0)));
        }
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.counts, &self.codec, (upto, encoded.iter().map(|(_, batch, _)| batch.len()).sum()));
        }
    }
}

impl Stateful for SetOperator {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.counts.checkpoint(|out, counts| counts.iter().for_each(|count| put_i64(out, *count)))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.counts.restore(shard, bytes, |bytes: &mut Bytes<'_>| Ok([bytes.i64()?, bytes.i64()?]))
    }

    fn size(&self) -> (u64, u64) {
        let bytes: usize = self.counts.iter().map(|(row, _)| row.len() + 32).sum();
        (self.counts.len() as u64, bytes as u64)
    }
}
