//! Hands a view's changes to its sink. In: changes, all on one worker. Out: nothing; each closed step goes to the sink's queue,
//! consolidated and in (epoch, all columns) order, which is what byte-identical files rest on. A sink that wants no order gets the changes of
//! every worker as they are.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::bridge::SinkQueue;
use crate::operators::{Output, StepOperator};

/// The operator. Without state: a step leaves it whole.
pub struct ToSink {
    /// Only the worker that gets the rows reports steps.
    queue: Option<SinkQueue>,
    codec: KeyCodec,
    schema: SchemaRef,
}

impl ToSink {
    /// Errors: Invalid for columns without order.
    pub fn new(queue: Option<SinkQueue>, schema: SchemaRef) -> Result<ToSink> {
        Ok(ToSink { queue, codec: KeyCodec::for_schema(&schema)?, schema })
    }

    fn ordered(&self, batches: &[Batch]) -> Result<Option<Batch>> {
        let encoded = batches.iter().map(|batch| self.codec.encode(batch.rows().columns())).collect::<Result<Vec<_>>>()?;
        let mut changes: BTreeMap<(u64, &[u8]), i64> = BTreeMap::new();
        for (batch, rows) in batches.iter().zip(&encoded) {
            for row in 0..batch.len() {
                *changes.entry((batch.epoch(row).0, rows.row(row).data())).or_default() += batch.diff(row);
            }
        }
        changes.retain(|_, diff| *diff != 0);
        if changes.is_empty() {
            return Ok(None);
        }
        let rows = self.codec.decode_batch(&self.schema, changes.keys().map(|(_, row)| *row))?;
        let epochs = Counts::Each(changes.keys().map(|(epoch, _)| *epoch).collect());
        Ok(Some(Batch::new(rows, epochs, Diffs::Each(changes.values().copied().collect()), Counts::Const(0))))
    }
}

impl StepOperator for ToSink {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, _out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let Some(queue) = &self.queue else { return };
        if !queue.ordered {
            batches.into_iter().for_each(|batch| queue.push(Some(batch), upto));
            return queue.push(None, upto);
        }
        let ordered = self.ordered(&batches).expect("the planner lets only plain columns reach a sink");
        queue.push(ordered, upto);
    }
}
