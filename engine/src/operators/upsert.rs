//! The live row of each key of a FORMAT UPSERT source (T8, T9). In: records, sharded by key: diff +1 is the row of its key from now on, −1
//! says that the key has none. Out: per epoch and key at most the former row's retraction and the new row, in (epoch, key) order.
//!
//! Records act in (epoch, position) order, whatever batches they come in, and what an epoch leaves behind is what counts: a row that
//! stands as it stood is no change. A record for a key that has no row takes nothing out, as topics forget old keys before their deletions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{ShardedMap, put_bytes};

pub struct Upsert {
    name: String,
    key: Vec<usize>,
    key_codec: KeyCodec,
    row_codec: KeyCodec,
    schema: SchemaRef,
    sources: Arc<[String]>,
    /// Key to row, both encoded.
    live: ShardedMap<Box<[u8]>>,
}

/// What the last record of an epoch says of its key.
struct Record<'a> {
    /// None: the key has no row.
    row: Option<&'a [u8]>,
    position: u64,
}

#[derive(Default)]
struct Changes {
    rows: Vec<Box<[u8]>>,
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
}

impl Upsert {
    /// Errors: Invalid for columns without order.
    pub fn new(name: String, key: Vec<usize>, schema: SchemaRef, sources: Arc<[String]>) -> Result<Upsert> {
        let types: Vec<_> = key.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        let (key_codec, row_codec) = (KeyCodec::new(&types)?, KeyCodec::for_schema(&schema)?);
        Ok(Upsert { name, key, key_codec, row_codec, schema, sources, live: ShardedMap::default() })
    }

    /// The first column of the key that is NULL.
    fn null_key(&self, batch: &Batch, row: usize) -> Option<usize> {
        self.key.iter().copied().find(|column| batch.column(*column).is_null(row))
    }

    fn apply(&mut self, epoch: u64, key: &[u8], record: &Record<'_>, changes: &mut Changes) {
        let former = self.live.get(key).map(|row| row.as_ref());
        if former == record.row {
            return;
        }
        if former.is_some() {
            let former = self.live.remove(key).expect("it was just found");
            changes.push(former, epoch, -1, 0);
        }
        if let Some(row) = record.row {
            self.live.entry(key, || row.into());
            changes.push(row.into(), epoch, 1, record.position);
        }
    }

    fn batch_of(&self, changes: Changes) -> Option<Batch> {
        if changes.epochs.is_empty() {
            return None;
        }
        let rows = self.row_codec.decode_batch(&self.schema, changes.rows.iter().map(|row| row.as_ref())).expect("these are rows of this codec");
        Some(Batch::new(rows, Counts::Each(changes.epochs.into()), Diffs::Each(changes.diffs.into()), Counts::Each(changes.positions.into())))
    }
}

impl Changes {
    fn push(&mut self, row: Box<[u8]>, epoch: u64, diff: i64, position: u64) {
        self.rows.push(row);
        self.epochs.push(epoch);
        self.diffs.push(diff);
        self.positions.push(position);
    }
}

impl StepOperator for Upsert {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let encoded: Vec<_> = batches
            .iter()
            .map(|batch| {
                let key: Vec<ArrayRef> = self.key.iter().map(|column| batch.column(*column).clone()).collect();
                let keys = self.key_codec.encode(&key).expect("the codec was made for this key");
                (keys, self.row_codec.encode(batch.rows().columns()).expect("the codec was made for this source"))
            })
            .collect();
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        // Epoch, then key: what the record of the greatest position says. Rows of one record follow each other.
        let mut last: BTreeMap<(u64, &[u8]), Record> = BTreeMap::new();
        for (batch, (keys, rows)) in batches.iter().zip(&encoded) {
            for row in 0..batch.len() {
                if let Some(column) = self.null_key(batch, row) {
                    let reason = "the key is NULL, so that no later record could replace this one";
                    errors.push_at(batch.epoch(row).0, 1, batch.position(row), self.schema.field(column).name(), reason, None);
                    continue;
                }
                let (key, position) = ((batch.epoch(row).0, keys.row(row).data()), batch.position(row));
                if last.get(&key).is_none_or(|earlier| earlier.position <= position) {
                    last.insert(key, Record { row: (batch.diff(row) > 0).then(|| rows.row(row).data()), position });
                }
            }
        }
        let mut changes = Changes::default();
        for ((epoch, key), record) in last {
            self.apply(epoch, key, &record, &mut changes);
        }
        out.rows.extend(self.batch_of(changes));
        out.errors.extend(errors.finish());
    }
}

impl Stateful for Upsert {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.live.checkpoint(|out, row| put_bytes(out, row))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.live.restore(shard, bytes, |bytes| Ok(bytes.bytes()?.into()))
    }

    fn size(&self) -> (u64, u64) {
        self.live.iter().fold((0, 0), |size, (key, row)| (size.0 + 1, size.1 + (key.len() + row.len()) as u64 + 48))
    }
}

#[cfg(test)]
#[path = "upsert_tests.rs"]
mod tests;
