//! A subquery that stands for a value. In: changes, all on one worker. Out: the one row there is, a row of NULLs while there is none, and an error
//! instead of a row while there are several.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{Bytes, RowBag, ShardedMap, put_bytes};

const REASON: &str = "a subquery used as a value has more than one row";

/// The operator and its state, which the owner of shard 0 has.
pub struct SingleRow {
    name: String,
    schema: SchemaRef,
    codec: KeyCodec,
    sources: Arc<[String]>,
    owns: bool,
    /// Of the empty key; there once something has been shown.
    held: ShardedMap<Held>,
}

#[derive(Debug, Default)]
struct Held {
    rows: RowBag,
    shown: Shown,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Shown {
    #[default]
    Nothing,
    Row(Box<[u8]>),
    Error,
}

impl SingleRow {
    /// Errors: Invalid for columns without order.
    pub fn new(name: String, schema: SchemaRef, sources: Arc<[String]>, owns: bool) -> Result<SingleRow> {
        let codec = KeyCodec::for_schema(&schema)?;
        Ok(SingleRow { name, schema, codec, sources, owns, held: ShardedMap::default() })
    }

    fn nulls(&self) -> Box<[u8]> {
        let columns: Vec<_> = self.schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        if columns.is_empty() {
            return Box::default();
        }
        self.codec.encode(&columns).expect("the codec was made for this schema").row(0).data().into()
    }

    /// What the rows there are say.
    fn content(&self, rows: &RowBag) -> Shown {
        match rows.rows() {
            [] => Shown::Row(self.nulls()),
            [row] if row.count == 1 => Shown::Row(row.row.clone()),
            _ => Shown::Error,
        }
    }
}

impl StepOperator for SingleRow {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let batches = &inputs[0];
        if !self.owns || (batches.is_empty() && self.held.get(&[]).is_some()) {
            return;
        }
        let encoded: Vec<_> = batches
            .iter()
            .map(|batch| (!self.schema.fields().is_empty()).then(|| self.codec.encode(batch.rows().columns()).expect("the codec was made for these")))
            .collect();
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, index, row)));
        }
        order.sort_unstable();
        let is_first = self.held.get(&[]).is_none();
        let mut held = self.held.remove(&[]).unwrap_or_default();
        let (mut rows, mut epochs, mut diffs) = (Vec::new(), Vec::new(), Vec::new());
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        let mut show = |held: &mut Held, epoch: u64| {
            let shown = self.content(&held.rows);
            let before = std::mem::replace(&mut held.shown, shown.clone());
            if before == shown {
                return;
            }
            for (state, diff) in [(before, -1), (shown, 1)] {
                match state {
                    Shown::Nothing => {}
                    Shown::Row(row) => {
                        rows.push(row);
                        epochs.push(epoch);
                        diffs.push(diff);
                    }
                    Shown::Error => errors.push_at(epoch, diff, 0, self.schema.fields().first().map_or("", |field| field.name()), REASON, None),
                }
            }
        };
        if is_first && order.first().is_none_or(|first| first.0 > 0) {
            show(&mut held, 0);
        }
        for epoch in order.chunk_by(|left, right| left.0 == right.0) {
            for (_, index, row) in epoch {
                let bytes = encoded[*index].as_ref().map_or(&[][..], |rows| rows.row(*row).data());
                held.rows.add(bytes, batches[*index].diff(*row), batches[*index].position(*row));
            }
            show(&mut held, epoch[0].0);
        }
        out.errors.extend(errors.finish());
        if !rows.is_empty() {
            let rows: RecordBatch = self.codec.decode_batch(&self.schema, rows.iter().map(|row| row.as_ref())).expect("these are rows of this codec");
            out.rows.push(Batch::new(rows, Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0)));
        }
        *self.held.entry(&[], Held::default) = held;
    }
}

impl Stateful for SingleRow {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.held.checkpoint(|out, held| {
            held.rows.put(out, |_, ()| {});
            match &held.shown {
                Shown::Nothing => out.push(0),
                Shown::Row(row) => {
                    out.push(1);
                    put_bytes(out, row);
                }
                Shown::Error => out.push(2),
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.held.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let rows = RowBag::take(bytes, |_| Ok(()))?;
            let shown = match bytes.u8()? {
                0 => Shown::Nothing,
                1 => Shown::Row(bytes.bytes()?.into()),
                _ => Shown::Error,
            };
            Ok(Held { rows, shown })
        })
    }

    fn size(&self) -> (u64, u64) {
        let rows = self.held.get(&[]).map(|held| &held.rows);
        (rows.map_or(0, |rows| rows.rows().len() as u64), rows.map_or(0, |rows| rows.bytes() as u64))
    }
}
