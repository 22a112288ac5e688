//! Rows that are live while their bounds hold with now() = t. In: changes. Out: the same changes, delayed to when the row enters, and
//! their opposites when it leaves. Linear, so a retraction cancels what its insertion still has to come; both reach the same worker,
//! because rows are sharded by all their columns.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Comparison, Counts, Diffs, Epoch, KeyCodec, Result, TemporalBound, event_times, hash_bytes, shard_of};

use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// Row → diff and position.
type PendingRows = BTreeMap<Box<[u8]>, (i64, u64)>;

/// The operator and the changes that are still to come, by epoch.
pub struct TemporalFilter {
    bounds: Vec<TemporalBound>,
    schema: SchemaRef,
    codec: KeyCodec,
    pending: BTreeMap<u64, PendingRows>,
    changed: bool,
    rows: u64,
}

impl TemporalFilter {
    /// Errors: Invalid for columns without order.
    pub fn new(bounds: Vec<TemporalBound>, schema: SchemaRef) -> Result<TemporalFilter> {
        Ok(TemporalFilter { bounds, codec: KeyCodec::for_schema(&schema)?, schema, pending: BTreeMap::new(), changed: false, rows: 0 })
    }

    /// The epochs [from, until) at which each row is live.
    fn lives(&self, batch: &Batch) -> Vec<(u64, u64)> {
        let mut lives = vec![(0, u64::MAX); batch.len()];
        for bound in &self.bounds {
            let times = event_times(batch.column(bound.column)).expect("the planner lets only times be compared with now()");
            for (life, time) in lives.iter_mut().zip(times) {
                let Some(time) = time.map(|time| time.plus_ns(bound.offset_ns)) else {
                    *life = (0, 0);
                    continue;
                };
                match bound.comparison {
                    Comparison::Greater => life.1 = life.1.min(time.epoch_ceil().0),
                    Comparison::GreaterOrEqual => life.1 = life.1.min(time.epoch_after().0),
                    Comparison::Less => life.0 = life.0.max(time.epoch_after().0),
                    Comparison::LessOrEqual => life.0 = life.0.max(time.epoch_ceil().0),
                }
            }
        }
        lives
    }

    fn schedule(&mut self, epoch: u64, row: &[u8], diff: i64, position: u64) {
        self.changed = true;
        let rows = self.pending.entry(epoch).or_default();
        match rows.get_mut(row) {
            None => {
                rows.insert(row.into(), (diff, if diff > 0 { position } else { 0 }));
            }
            Some((total, last)) => {
                *total += diff;
                // A retraction takes out the oldest of equal rows, so the last insertion's position stays.
                *last = if diff > 0 { (*last).max(position) } else { *last };
                if *total == 0 {
                    rows.remove(row);
                    if rows.is_empty() {
                        self.pending.remove(&epoch);
                    }
                }
            }
        }
    }

    fn due(&mut self, upto: Epoch) -> Option<Batch> {
        let later = self.pending.split_off(&upto.0.saturating_add(1));
        let due = std::mem::replace(&mut self.pending, later);
        if due.is_empty() {
            return None;
        }
        self.changed = true;
        let flat: Vec<(u64, &[u8], i64, u64)> =
            due.iter().flat_map(|(epoch, rows)| rows.iter().map(|(row, (diff, position))| (*epoch, row.as_ref(), *diff, *position))).collect();
        let rows: RecordBatch = self.codec.decode_batch(&self.schema, flat.iter().map(|change| change.1)).expect("these are rows of this codec");
        let epochs = Counts::Each(flat.iter().map(|change| change.0).collect());
        let diffs = Diffs::Each(flat.iter().map(|change| change.2).collect());
        Some(Batch::new(rows, epochs, diffs, Counts::Each(flat.iter().map(|change| change.3).collect())))
    }
}

impl StepOperator for TemporalFilter {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        for batch in std::mem::take(&mut inputs[0]) {
            let lives = self.lives(&batch);
            let encoded = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            let mut now = Vec::new();
            for (row, (from, until)) in lives.into_iter().enumerate() {
                let epoch = batch.epoch(row).0;
                let start = from.max(epoch);
                if start >= until {
                    continue;
                }
                let (bytes, diff, position) = (encoded.row(row), batch.diff(row), batch.position(row));
                if start == epoch {
                    now.push(row as u32);
                } else {
                    self.schedule(start, bytes.as_ref(), diff, position);
                }
                if until != u64::MAX {
                    self.schedule(until, bytes.as_ref(), -diff, position);
                }
            }
            if !now.is_empty() {
                out.rows.push(if now.len() == batch.len() { batch } else { batch.take(&now) });
            }
        }
        out.rows.extend(self.due(upto));
        self.rows = self.pending.values().map(|rows| rows.len() as u64).sum();
    }
}

impl Stateful for TemporalFilter {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let mut shards: BTreeMap<usize, Vec<u8>> = (0..freshet_core::SHARDS).map(|shard| (shard, Vec::new())).collect();
        for (epoch, rows) in &self.pending {
            for (row, (diff, position)) in rows {
                let out = shards.get_mut(&shard_of(hash_bytes(row))).expect("all shards are there");
                put_u64(out, *epoch);
                put_bytes(out, row);
                put_i64(out, *diff);
                put_u64(out, *position);
            }
        }
        shards.into_iter().collect()
    }

    fn restore(&mut self, _shard: usize, bytes: &[u8]) -> Result<()> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            let (epoch, row) = (bytes.u64()?, bytes.bytes()?);
            let (diff, position) = (bytes.i64()?, bytes.u64()?);
            self.schedule(epoch, row, diff, position);
        }
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        (self.rows, self.rows * 96)
    }
}
