//! Rows with the session they are in. In: changes, sharded by key. Out: each with the name of its session; rows of a session that is merged
//! or split come again, the lesser part of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::row::Rows as EncodedRows;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result, unit_ns};

use crate::operators::{Freeing, Output, Stateful, StepOperator};
use crate::state::{Kept, Moved, Sessions, ShardedMap};

/// The operator and the sessions of each key.
pub struct Session {
    time: usize,
    gap: i64,
    keys: Vec<usize>,
    key_codec: KeyCodec,
    row_codec: KeyCodec,
    schema: SchemaRef,
    sessions: ShardedMap<Sessions>,
    freeing: Option<Freeing>,
    /// Distinct times of all keys.
    kept: usize,
}

/// The encoded keys and rows of one batch, and its times.
struct Encoded<'a> {
    batch: &'a Batch,
    keys: Option<EncodedRows>,
    rows: EncodedRows,
    times: ArrayRef,
}

#[derive(Default)]
struct Changes {
    rows: Vec<Box<[u8]>>,
    names: Vec<Vec<u8>>,
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
}

impl Session {
    /// `gap` is in the unit of the column `time`. Errors: Invalid for columns without order.
    pub fn new((time, gap): (usize, i64), keys: Vec<usize>, input: &SchemaRef, schema: SchemaRef) -> Result<Session> {
        let key_types: Vec<DataType> = keys.iter().map(|key| input.field(*key).data_type().clone()).collect();
        let (key_codec, row_codec) = (KeyCodec::new(&key_types)?, KeyCodec::for_schema(input)?);
        Ok(Session { time, gap, keys, key_codec, row_codec, schema, sessions: ShardedMap::default(), freeing: None, kept: 0 })
    }

    /// Sessions that no row can reach any more are forgotten; of their key a name is kept.
    pub fn freeing(self, freeing: Option<Freeing>) -> Session {
        Session { freeing, ..self }
    }

    fn forget(&mut self, upto: Epoch) {
        let Some(freeing) = self.freeing.as_mut().filter(|freeing| freeing.is_due(self.kept)) else { return };
        let Some(bound) = freeing.bound(upto) else { return };
        // A row is in a session whose last time lies the gap before it.
        let before = bound.0.div_euclid(unit_ns(self.schema.field(self.time).data_type())).saturating_sub(self.gap);
        let mut kept = 0;
        self.sessions.retain(|sessions| {
            let known = sessions.times();
            sessions.forget(before);
            kept += sessions.times();
            if sessions.times() == known { Kept::AsItWas } else { Kept::Changed }
        });
        self.kept = kept;
        freeing.swept(kept);
    }

    fn encoded<'a>(&self, batch: &'a Batch) -> Encoded<'a> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        let keys = (!columns.is_empty()).then(|| self.key_codec.encode(&columns).expect("the codec was made for these columns"));
        let rows = self.row_codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
        let times = cast(batch.column(self.time), &DataType::Int64).expect("the planner lets only timestamps be times");
        Encoded { batch, keys, rows, times }
    }

    fn batch_of(&self, changes: Changes) -> Option<Batch> {
        if changes.epochs.is_empty() {
            return None;
        }
        let mut columns = self.row_codec.decode(changes.rows.iter().map(|row| row.as_ref())).expect("these are rows of this codec");
        columns.push(Arc::new(BinaryArray::from_iter_values(&changes.names)));
        let options = RecordBatchOptions::new().with_row_count(Some(changes.epochs.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the planner fixed the schema");
        let (epochs, positions) = (Counts::Each(changes.epochs.into()), Counts::Each(changes.positions.into()));
        Some(Batch::new(rows, epochs, Diffs::Each(changes.diffs.into()), positions))
    }
}

impl StepOperator for Session {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let encoded: Vec<Encoded> = inputs[0].iter().map(|batch| self.encoded(batch)).collect();
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        for (index, part) in encoded.iter().enumerate() {
            order.extend((0..part.batch.len()).filter(|row| part.times.is_valid(*row)).map(|row| (part.batch.epoch(row).0, index, row)));
        }
        order.sort_unstable();
        let mut changes = Changes::default();
        let mut moved = Vec::new();
        for epoch in order.chunk_by(|left, right| left.0 == right.0) {
            // A row that comes and goes within an epoch was never there.
            let mut sums: BTreeMap<(Box<[u8]>, i64, Box<[u8]>), (i64, u64)> = BTreeMap::new();
            for (_, index, row) in epoch {
                let part = &encoded[*index];
                let key = part.keys.as_ref().map_or(Box::default(), |keys| keys.row(*row).as_ref().into());
                let time = part.times.as_primitive::<Int64Type>().value(*row);
                let sum = sums.entry((key, time, part.rows.row(*row).as_ref().into())).or_default();
                *sum = (sum.0 + part.batch.diff(*row), sum.1.max(part.batch.position(*row)));
            }
            for ((key, time, row), (diff, position)) in sums.into_iter().filter(|(_, (diff, _))| *diff != 0) {
                let sessions = self.sessions.entry(&key, Sessions::default);
                let known = sessions.times();
                sessions.change(self.gap, time, &row, diff, position, &mut moved);
                self.kept = self.kept + sessions.times() - known;
                if sessions.is_empty() {
                    self.sessions.remove(&key);
                }
                for Moved { row, position, session, diff } in moved.drain(..) {
                    changes.rows.push(row);
                    changes.names.push([key.as_ref(), session.to_be_bytes().as_slice()].concat());
                    changes.epochs.push(epoch[0].0);
                    changes.diffs.push(diff);
                    changes.positions.push(position);
                }
            }
        }
        out.rows.extend(self.batch_of(changes));
        self.forget(upto);
    }
}

impl Stateful for Session {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.sessions.checkpoint(|out, sessions| sessions.put(out))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let mut kept = 0;
        self.sessions.restore(shard, bytes, |bytes| {
            let sessions = Sessions::take(bytes)?;
            kept += sessions.times();
            Ok(sessions)
        })?;
        self.kept += kept;
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        self.sessions.iter().fold((0, 0), |(rows, bytes), (key, sessions)| {
            let (more, larger) = sessions.size();
            (rows + more, bytes + larger + key.len() as u64 + 96)
        })
    }
}
