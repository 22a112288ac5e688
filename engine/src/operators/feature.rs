//! A feature view. In: rows, sharded by entity. Out: nothing if it only serves lookups; else its content changes, T1 at (t + 1, t + 1).
//!
//! The rows go to the store at the close of their step; lookups of the same step are answered after that (the frontier of this
//! operator's output tells when). Content that nobody reads as a stream costs nothing when time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use freshet_core::{
    Batch, Counts, Diffs, Epoch, EventTime, FeatureSpec, KeyCodec, ReadPoint, Result, SHARDS, Status, Window, event_times, hash_bytes, shard_of,
};

use crate::bridge::{FeatureStore, Progress};
use crate::edge::owner_of;
use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_bytes};

/// How many shards are swept of forgotten keys per step.
const SWEEP_SHARDS: usize = 4;

/// The operator; its events are in the store.
pub struct Feature {
    store: Arc<FeatureStore>,
    progress: Arc<Progress>,
    worker: usize,
    peers: usize,
    next_sweep: usize,
    /// Only lookups in hindsight read the store.
    hindsight: bool,
    content: Option<Content>,
}

/// The view's content as a stream.
struct Content {
    schema: SchemaRef,
    codec: KeyCodec,
    /// Epochs at which a key's content may change without input.
    timers: BTreeMap<u64, BTreeSet<Box<[u8]>>>,
    /// The encoded row downstream holds per key.
    shown: ShardedMap<Box<[u8]>>,
}

impl Feature {
    /// `schema` is the view's. Errors: Invalid for columns without order.
    pub fn new(
        store: Arc<FeatureStore>,
        progress: Arc<Progress>,
        (worker, peers): (usize, usize),
        schema: SchemaRef,
        (eager, hindsight): (bool, bool),
    ) -> Result<Feature> {
        assert!(!(eager && hindsight), "content is read at every epoch");
        let content = if eager {
            let codec = KeyCodec::for_schema(&schema)?;
            Some(Content { schema, codec, timers: BTreeMap::new(), shown: ShardedMap::default() })
        } else {
            None
        };
        Ok(Feature { store, progress, worker, peers, next_sweep: 0, hindsight, content })
    }

    /// Content at epoch t is read here.
    fn content_point(&self, epoch: u64) -> ReadPoint {
        let include_now = self.store.spec().include_now();
        ReadPoint::at(Epoch(epoch.saturating_add(u64::from(!include_now))))
    }

    /// The epochs after `after` at which an event at `time` may change its key's content by the passing of time alone.
    fn timers(&self, time: EventTime, after: Epoch) -> Vec<u64> {
        let spec = self.store.spec();
        let (include_now, lead) = (spec.include_now(), u64::from(!spec.include_now()));
        let mut instants = vec![if include_now { time.epoch_ceil().0 } else { time.epoch_after().0 }];
        if let FeatureSpec::Rolling(rolling) = spec {
            let windows: BTreeSet<usize> = (0..rolling.aggregates.len()).collect();
            for index in windows {
                instants.extend(window_instants(&rolling.aggregates[index].window, time, rolling.hop_ms));
            }
        }
        for age in [spec.ttl_ms(), spec.horizon_ms()].into_iter().flatten() {
            instants.push(time.plus_ms(age as i64).epoch_after().0);
        }
        instants.into_iter().map(|q| q.saturating_sub(lead)).filter(|epoch| *epoch > after.0).collect()
    }

    fn arm(&mut self, key: &[u8], time: EventTime, after: Epoch) {
        let timers = self.timers(time, after);
        if let Some(content) = &mut self.content {
            for epoch in timers {
                content.timers.entry(epoch).or_default().insert(key.into());
            }
        }
    }

    /// Which (epoch, key) may have changed in the closed step.
    fn candidates(&mut self, batches: &[Batch], upto: Epoch) -> Result<Vec<(u64, Box<[u8]>)>> {
        let mut touched: BTreeSet<(u64, Box<[u8]>)> = BTreeSet::new();
        for batch in batches {
            let columns: Vec<_> = self.store.spec().entity().iter().map(|column| batch.column(*column).clone()).collect();
            let keys = self.store.encode_keys(&columns)?;
            let times = event_times(batch.column(self.store.spec().time()))?;
            for (row, time) in times.into_iter().enumerate() {
                let Some(time) = time else { continue };
                let key = keys.row(row);
                touched.insert((batch.epoch(row).0, key.as_ref().into()));
                self.arm(key.as_ref(), time, batch.epoch(row));
            }
        }
        let content = self.content.as_mut().expect("only an eager view has candidates");
        let later = content.timers.split_off(&upto.0.saturating_add(1));
        for (epoch, keys) in std::mem::replace(&mut content.timers, later) {
            touched.extend(keys.into_iter().map(|key| (epoch, key)));
        }
        Ok(touched.into_iter().collect())
    }

    fn emit(&mut self, candidates: Vec<(u64, Box<[u8]>)>) -> Result<Option<Batch>> {
        let entity = self.store.decode_keys(candidates.iter().map(|(_, key)| key.as_ref()))?;
        let keys = self.store.encode_keys(&entity)?;
        let read = self.store.read(&entity, &keys, true, |row| self.content_point(candidates[row].0));
        let Ok(found) = read else { unreachable!("no store folds epochs of an open step") };
        let content = self.content.as_mut().expect("only an eager view emits");
        let columns = entity.into_iter().chain(found.columns).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(candidates.len()));
        let encoded = content.codec.encode(RecordBatch::try_new_with_options(content.schema.clone(), columns, &options)?.columns())?;
        let (mut rows, mut epochs, mut diffs): (Vec<Box<[u8]>>, Vec<u64>, Vec<i64>) = Default::default();
        for (index, (epoch, key)) in candidates.iter().enumerate() {
            let row = (found.statuses[index] != Status::NotFound).then(|| encoded.row(index));
            let row: Option<&[u8]> = row.as_ref().map(|row| row.as_ref());
            let shown = content.shown.get(key).map(|row| row.as_ref());
            if row == shown {
                continue;
            }
            for (state, diff) in [(shown, -1), (row, 1)] {
                if let Some(state) = state {
                    rows.push(state.into());
                    epochs.push(*epoch);
                    diffs.push(diff);
                }
            }
            match row {
                Some(row) => *content.shown.entry(key, Box::default) = row.into(),
                None => {
                    content.shown.remove(key);
                }
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let decoded = content.codec.decode_batch(&content.schema, rows.iter().map(|row| row.as_ref()))?;
        Ok(Some(Batch::new(decoded, Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0))))
    }
}

/// The instants q at which an event enters or leaves a window.
fn window_instants(window: &Window, time: EventTime, hop_ms: Option<u64>) -> Vec<u64> {
    let plus = |epoch: Epoch, ms: i64| epoch.0.saturating_add_signed(ms);
    let mut instants = Vec::new();
    if let Some(edge) = window.lower {
        instants.push(match hop_ms {
            Some(hop) => plus(Epoch((time.epoch_after().0.div_ceil(hop)) * hop), edge.offset_ms),
            None if edge.inclusive => plus(time.epoch_after(), edge.offset_ms),
            None => plus(time.epoch_ceil(), edge.offset_ms),
        });
    }
    if let Some(edge) = window.upper {
        instants.push(plus(if edge.inclusive { time.epoch_ceil() } else { time.epoch_after() }, edge.offset_ms));
    }
    instants
}

impl StepOperator for Feature {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let floors = self.progress.floors();
        for batch in &batches {
            self.store.absorb(batch, floors).expect("the planner fixed the types of entity and time");
        }
        if self.hindsight {
            self.store.fold_all(|shard| owner_of(shard, self.peers) == self.worker, upto);
        }
        for _ in 0..SWEEP_SHARDS {
            self.next_sweep = (self.next_sweep + 1) % SHARDS;
            if owner_of(self.next_sweep, self.peers) == self.worker {
                self.store.sweep(self.next_sweep, floors);
            }
        }
        if self.content.is_some() {
            let candidates = self.candidates(&batches, upto).expect("the planner fixed the types of entity and time");
            if !candidates.is_empty() {
                out.rows.extend(self.emit(candidates).expect("the planner fixed the types of the view"));
            }
        }
    }
}

impl Stateful for Feature {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        let (store, worker, peers) = (&self.store, self.worker, self.peers);
        let owned = (0..SHARDS).filter(|shard| owner_of(*shard, peers) == worker);
        let mut parts: Vec<(usize, Vec<u8>)> = Vec::new();
        for shard in owned {
            // A key shows something new only if an event came or a timer rang, and both leave the shard to be written whole.
            let changed = store.checkpoint(shard);
            let shown = self.content.as_mut().map(|content| content.shown.checkpoint_shard(shard, |out, row| put_bytes(out, row)));
            if changed.is_none() && shown.as_ref().is_none_or(Option::is_none) {
                continue;
            }
            let events = changed.unwrap_or_else(|| store.shard_bytes(shard));
            let mut out = Vec::new();
            put_bytes(&mut out, &events);
            if let Some(content) = &self.content {
                put_bytes(&mut out, &shown.flatten().unwrap_or_else(|| content.shown.shard_bytes(shard, |out, row| put_bytes(out, row))));
            }
            parts.push((shard, out));
        }
        parts
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let mut bytes = Bytes(bytes);
        self.store.restore(shard, bytes.bytes()?)?;
        if let Some(content) = &mut self.content {
            content.shown.restore(shard, bytes.bytes()?, |bytes| Ok(bytes.bytes()?.into()))?;
        }
        Ok(())
    }

    fn resume(&mut self, epoch: Epoch) -> Result<()> {
        if self.content.is_none() {
            return Ok(());
        }
        let mut events: Vec<(Box<[u8]>, EventTime)> = Vec::new();
        let (worker, peers) = (self.worker, self.peers);
        self.store.each_event(|shard| owner_of(shard, peers) == worker, |key, time| events.push((key.into(), time)));
        for (key, time) in events {
            assert!(owner_of(shard_of(hash_bytes(&key)), peers) == worker);
            self.arm(&key, time, epoch);
        }
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        self.store.size(|shard| owner_of(shard, self.peers) == self.worker)
    }
}
