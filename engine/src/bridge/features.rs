//! The store of one feature view: written by the workers at the close of each step, read by any thread at any (q, s) it still keeps.
//!
//! Invariant: a shard answers exactly at any s from its `folded` on; a reader whose s is lower is told so and takes a newer instant. In
//! event clock q ≤ s holds for every read, so a row that entered at the epoch of its own event time is seen exactly when e < q says so:
//! such rows, nearly all of them, need no fold and are put where they stay at once.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::Rows as KeyRows;
use freshet_core::{
    AggregateFunction, Batch, ClockKind, Epoch, Error, EventTime, FeatureSpec, KeyCodec, ReadPoint, Result, SHARDS, event_times, hash_bytes, shard_of,
};

use crate::bridge::answers::{Answers, FeatureRows, KeyAnswer, KeyContent};
use crate::state::{Bytes, CellKind, DatumReader, LatestKey, LatestRow, Overlay, RollingKey, RollingLayout, put_bytes, put_datum, put_i64, put_u64};

/// An overlay longer than this folds at once, at the price of history for reads `as_of`. A constant, so that no lookup grows with a window.
pub(super) const OVERLAY_ROWS: usize = 256;

/// Which rows a store may fold.
#[derive(Debug, Clone, Copy)]
pub struct Floors {
    /// Every view has closed everything below.
    pub settled: Epoch,
    /// `settled` less the history kept for reads of the past.
    pub history: Epoch,
}

/// Why a store cannot answer at this s: it has folded everything below.
#[derive(Debug, Clone, Copy)]
pub struct Folded(pub Epoch);

pub struct FeatureStore {
    pub name: String,
    spec: FeatureSpec,
    pub(super) kind: StoreKind,
    entity_codec: KeyCodec,
    entity_types: Vec<DataType>,
    pub(super) feature_types: Vec<DataType>,
    horizon_ms: Option<u64>,
    append_only: bool,
    event_clock: bool,
    shards: Vec<RwLock<Shard>>,
}

pub(super) enum StoreKind {
    Rolling { layout: RollingLayout, aggregate_types: Vec<DataType> },
    Latest { codec: KeyCodec },
}

#[derive(Default)]
pub(super) struct Shard {
    pub keys: HashMap<Box<[u8]>, KeyState, ahash::RandomState>,
    folded: Epoch,
    dirty: bool,
}

pub(super) enum KeyState {
    Rolling(RollingKey),
    Latest(LatestKey),
}

impl FeatureStore {
    /// `input` is the schema of the rows that come, `output` that of the view. Errors: Invalid for types without order,
    /// Internal for an aggregate that takes more than one column.
    pub fn new(
        name: String,
        spec: FeatureSpec,
        (input, append_only): (&SchemaRef, bool),
        output: &SchemaRef,
        clock: ClockKind,
    ) -> Result<FeatureStore> {
        let type_of = |column: &usize| input.field(*column).data_type().clone();
        let entity_types: Vec<DataType> = spec.entity().iter().map(type_of).collect();
        let feature_types: Vec<DataType> = output.fields().iter().skip(entity_types.len()).map(|field| field.data_type().clone()).collect();
        let horizon_ms = spec.horizon_ms();
        let kind = match &spec {
            FeatureSpec::Rolling(rolling) => {
                if let Some(other) = rolling.aggregates.iter().find(|aggregate| !aggregate.function.merges()) {
                    return Err(Error::internal(format!("{name}: a rolling view cannot hold {}", other.function.sql())));
                }
                let layout = rolling_layout(rolling.clone(), input);
                let aggregate_types =
                    rolling.aggregates.iter().map(|aggregate| aggregate_type(aggregate.function, aggregate.argument.as_ref().map(type_of)));
                StoreKind::Rolling { aggregate_types: aggregate_types.collect(), layout }
            }
            FeatureSpec::Latest(latest) => StoreKind::Latest { codec: KeyCodec::new(&latest.features.iter().map(type_of).collect::<Vec<_>>())? },
        };
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let shard = || RwLock::new(Shard { keys: HashMap::with_hasher(hasher.clone()), ..Shard::default() });
        Ok(FeatureStore {
            name,
            kind,
            entity_codec: KeyCodec::new(&entity_types)?,
            entity_types,
            feature_types,
            horizon_ms,
            append_only,
            event_clock: clock == ClockKind::Event,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            spec,
        })
    }

    pub fn entity_types(&self) -> &[DataType] {
        &self.entity_types
    }

    pub fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// The bytes of each row's key.
    pub fn encode_keys(&self, columns: &[ArrayRef]) -> Result<KeyRows> {
        self.entity_codec.encode(columns)
    }

    /// Takes in rows of a closed step. A row without event time is visible at no q.
    pub fn absorb(&self, batch: &Batch, floors: Floors) -> Result<()> {
        let entity: Vec<ArrayRef> = self.spec.entity().iter().map(|column| batch.column(*column).clone()).collect();
        let keys = self.encode_keys(&entity)?;
        let times = event_times(batch.column(self.spec.time()))?;
        match &self.kind {
            StoreKind::Rolling { layout, .. } => {
                let readers: Vec<DatumReader> = layout
                    .columns
                    .iter()
                    .map(|(argument, filter)| {
                        DatumReader::new(argument.map(|column| batch.column(column)), filter.map(|column| batch.column(column)))
                    })
                    .collect();
                for (row, time) in times.iter().enumerate() {
                    let Some(time) = time else { continue };
                    let data = readers.iter().map(|reader| reader.get(row)).collect();
                    let event = Overlay { time: time.0, arrival: batch.epoch(row).0, diff: batch.diff(row), data };
                    self.change(keys.row(row).as_ref(), floors, |key| {
                        let KeyState::Rolling(key) = key else { unreachable!("all keys of a store are of its kind") };
                        if self.is_punctual(event.time, event.arrival, event.diff) {
                            (0..event.diff).for_each(|_| key.tree.insert(layout, event.time, &event.data));
                            return;
                        }
                        let at = key.overlay.partition_point(|other| other.arrival <= event.arrival);
                        key.overlay.insert(at, event);
                    });
                }
            }
            StoreKind::Latest { codec } => {
                let FeatureSpec::Latest(spec) = &self.spec else { unreachable!("the kind follows the spec") };
                let columns: Vec<ArrayRef> = spec.features.iter().map(|column| batch.column(*column).clone()).collect();
                let rows = codec.encode(&columns)?;
                for (row, time) in times.iter().enumerate() {
                    let Some(time) = time else { continue };
                    let (arrival, position) = (batch.epoch(row).0, batch.position(row));
                    let latest = LatestRow { time: time.0, arrival, position, row: rows.row(row).as_ref().into() };
                    let diff = batch.diff(row);
                    self.change(keys.row(row).as_ref(), floors, |key| {
                        let KeyState::Latest(key) = key else { unreachable!("all keys of a store are of its kind") };
                        if self.is_punctual(latest.time, arrival, diff) {
                            *key.rows.entry(latest).or_insert(0) += diff;
                            return;
                        }
                        let at = key.overlay.partition_point(|(other, _)| other.arrival <= arrival);
                        key.overlay.insert(at, (latest, diff));
                    });
                }
            }
        }
        Ok(())
    }

    /// Moves everything that arrived up to `upto` to where it stays, and drops nothing: for stores that only lookups in hindsight read, which
    /// see all arrivals at any time of the past. Without it each of them would go through all late rows of its key.
    pub fn fold_all(&self, owned: impl Fn(usize) -> bool, upto: Epoch) {
        for (_, shard) in self.shards.iter().enumerate().filter(|(shard, _)| owned(*shard)) {
            let mut guard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let shard = &mut *guard;
            shard.folded = shard.folded.max(upto.next());
            for state in shard.keys.values_mut() {
                match (state, &self.kind) {
                    (KeyState::Rolling(key), StoreKind::Rolling { layout, .. }) => {
                        // Events in the order of time are appended, which is what a tree does best.
                        key.overlay.sort_by_key(|event| event.time);
                        key.fold(layout, Epoch::MAX, None);
                    }
                    (KeyState::Latest(key), _) => key.fold(Epoch::MAX, None, false),
                    (KeyState::Rolling(_), StoreKind::Latest { .. }) => unreachable!("all keys of a store are of its kind"),
                }
            }
        }
    }

    /// Forgets keys of one shard that nobody can know any more (T18), so that silent keys do not stay for ever.
    pub fn sweep(&self, shard: usize, floors: Floors) {
        let Some(horizon) = self.horizon_ms else { return };
        let gone = floors.history.event_time().plus_ms(-(horizon as i64)).0;
        let mut guard = self.shards[shard].write().unwrap_or_else(PoisonError::into_inner);
        let before = guard.keys.len();
        guard.keys.retain(|_, key| match key {
            KeyState::Rolling(key) => !key.overlay.is_empty() || key.tree.times_before(i64::MAX).next().is_some_and(|last| last >= gone),
            KeyState::Latest(key) => !key.overlay.is_empty() || key.rows.last_key_value().is_some_and(|(row, _)| row.time >= gone),
        });
        if guard.keys.len() != before {
            guard.dirty = true;
            guard.folded = guard.folded.max(floors.history);
        }
    }

    /// Answers one (q, s) per key, in order. `entity` are the key columns, `keys` their bytes. A lookup key with a NULL is not found
    /// (T7); as content of the view (`as_content`) it is a group like any other.
    pub fn read(&self, entity: &[ArrayRef], keys: &KeyRows, as_content: bool, points: impl Fn(usize) -> ReadPoint) -> Result<FeatureRows, ReadError> {
        let count = keys.num_rows();
        let mut answers = Answers::new(self, count);
        for row in 0..count {
            let point = points(row);
            if !as_content && entity.iter().any(|column| column.is_null(row)) {
                answers.push(None);
                continue;
            }
            let key = keys.row(row);
            let shard = self.shard(key.as_ref(), point)?;
            answers.push(shard.keys.get(key.as_ref()).and_then(|state| self.read_key(state, point)));
        }
        answers.finish(self, entity, |row| points(row).q).map_err(ReadError::Failed)
    }

    /// The shard of a key, if it still knows what had come at the point.
    pub(super) fn shard(&self, key: &[u8], point: ReadPoint) -> Result<RwLockReadGuard<'_, Shard>, ReadError> {
        let shard = self.shards[shard_of(hash_bytes(key))].read().unwrap_or_else(PoisonError::into_inner);
        if shard.folded > point.s { Err(ReadError::Folded(Folded(shard.folded))) } else { Ok(shard) }
    }

    /// The whole content at (q, s): entity columns, then features, of every known key, in key order.
    pub fn scan(&self, schema: &SchemaRef, point: ReadPoint) -> Result<RecordBatch, ReadError> {
        let mut found: Vec<(Box<[u8]>, KeyAnswer)> = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            if shard.folded > point.s {
                return Err(ReadError::Folded(Folded(shard.folded)));
            }
            found.extend(shard.keys.iter().filter_map(|(key, state)| Some((key.clone(), self.read_key(state, point)?))));
        }
        found.sort_by(|left, right| left.0.cmp(&right.0));
        let mut answers = Answers::new(self, found.len());
        let (keys, states): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        states.into_iter().for_each(|state| answers.push(Some(state)));
        let entity = self.entity_codec.decode(keys.iter().map(|key| key.as_ref())).map_err(ReadError::Failed)?;
        let rows = answers.finish(self, &entity, |_| point.q).map_err(ReadError::Failed)?;
        let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
        let columns = entity.into_iter().chain(rows.columns).collect();
        RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| ReadError::Failed(error.into()))
    }

    /// Key and event time of every event in the shards that `owned` accepts, for timers after a restore.
    pub fn each_event(&self, owned: impl Fn(usize) -> bool, mut visit: impl FnMut(&[u8], EventTime)) {
        for (_, shard) in self.shards.iter().enumerate().filter(|(shard, _)| owned(*shard)) {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (key, state) in &shard.keys {
                match state {
                    KeyState::Rolling(state) => {
                        state.tree.events().for_each(|(time, _)| visit(key, EventTime(time)));
                        state.overlay.iter().for_each(|event| visit(key, EventTime(event.time)));
                    }
                    KeyState::Latest(state) => {
                        let overlay = state.overlay.iter().map(|(row, _)| row);
                        state.rows.keys().chain(overlay).for_each(|row| visit(key, EventTime(row.time)));
                    }
                }
            }
        }
    }

    /// Key columns back from key bytes.
    pub fn decode_keys<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.entity_codec.decode(keys)
    }

    /// Keys held, known ones and those not swept yet.
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).keys.len() as u64).sum()
    }

    /// Rows and about how many bytes the shards hold that `owned` accepts.
    pub fn size(&self, owned: impl Fn(usize) -> bool) -> (u64, u64) {
        let mut size = (0, 0);
        for (_, shard) in self.shards.iter().enumerate().filter(|(shard, _)| owned(*shard)) {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (key, state) in &shard.keys {
                let (rows, bytes) = match state {
                    KeyState::Rolling(state) => (state.rows(), state.tree.bytes() + state.overlay.len() * 64),
                    KeyState::Latest(state) => (state.len(), state.len() * (64 + self.feature_types.len() * 9)),
                };
                size = (size.0 + rows as u64, size.1 + (bytes + key.len() + 64) as u64);
            }
        }
        size
    }

    /// The bytes of a shard, if it changed since the last call.
    pub fn checkpoint(&self, shard: usize) -> Option<Vec<u8>> {
        let changed = std::mem::take(&mut self.shards[shard].write().unwrap_or_else(PoisonError::into_inner).dirty);
        changed.then(|| self.shard_bytes(shard))
    }

    /// The bytes of a shard, keys in order.
    pub fn shard_bytes(&self, shard: usize) -> Vec<u8> {
        let guard = self.shards[shard].read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = guard.keys.iter().collect();
        keys.sort_by(|left, right| left.0.cmp(right.0));
        let mut out = Vec::new();
        put_u64(&mut out, guard.folded.0);
        for (key, state) in keys {
            put_bytes(&mut out, key);
            put_key(&mut out, state);
        }
        out
    }

    /// Fills a shard from the bytes of `checkpoint`. Errors: Data.
    pub fn restore(&self, shard: usize, bytes: &[u8]) -> Result<()> {
        let mut guard = self.shards[shard].write().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Bytes(bytes);
        guard.folded = Epoch(bytes.u64()?);
        while !bytes.is_empty() {
            let key = bytes.bytes()?.into();
            let state = self.take_key(&mut bytes)?;
            guard.keys.insert(key, state);
        }
        Ok(())
    }

    fn is_punctual(&self, time: i64, arrival: u64, diff: i64) -> bool {
        self.event_clock && diff > 0 && Epoch(arrival).event_time() == EventTime(time)
    }

    fn change(&self, key: &[u8], floors: Floors, change: impl FnOnce(&mut KeyState)) {
        let dropped_before = self.horizon_ms.map(|horizon| floors.history.event_time().plus_ms(-(horizon as i64)));
        let mut shard = self.shards[shard_of(hash_bytes(key))].write().unwrap_or_else(PoisonError::into_inner);
        let shard = &mut *shard;
        shard.dirty = true;
        if !shard.keys.contains_key(key) {
            shard.keys.insert(key.into(), self.empty_key());
        }
        let state = shard.keys.get_mut(key).expect("it was just inserted");
        change(state);
        let overlay = match state {
            KeyState::Rolling(key) => key.overlay.len(),
            KeyState::Latest(key) => key.overlay.len(),
        };
        let below = if overlay > OVERLAY_ROWS { floors.settled } else { floors.history };
        shard.folded = shard.folded.max(below);
        match (state, &self.kind) {
            (KeyState::Rolling(key), StoreKind::Rolling { layout, .. }) => key.fold(layout, below, dropped_before),
            (KeyState::Latest(key), _) => key.fold(below, dropped_before, self.append_only),
            (KeyState::Rolling(_), StoreKind::Latest { .. }) => unreachable!("all keys of a store are of its kind"),
        }
    }

    fn empty_key(&self) -> KeyState {
        match self.kind {
            StoreKind::Rolling { .. } => KeyState::Rolling(RollingKey::default()),
            StoreKind::Latest { .. } => KeyState::Latest(LatestKey::default()),
        }
    }

    /// What a key answers at (q, s); None if it is not known there (T18).
    pub(super) fn read_key(&self, state: &KeyState, point: ReadPoint) -> Option<KeyAnswer> {
        let (last, content) = match (state, &self.kind) {
            (KeyState::Rolling(key), StoreKind::Rolling { layout, .. }) => {
                let (last, cells) = key.read(layout, point)?;
                let values = layout.aggregates.iter().zip(&layout.spec.aggregates);
                let StoreKind::Rolling { aggregate_types, .. } = &self.kind else { unreachable!("matched above") };
                let values = values
                    .zip(aggregate_types)
                    .map(|(((cell, window), aggregate), data_type)| cells[*window][*cell].output(aggregate.function, data_type))
                    .collect();
                (last, KeyContent::Aggregates(values))
            }
            (KeyState::Latest(key), _) => {
                let row = key.read(point, self.spec.include_now())?;
                (EventTime(row.time), KeyContent::Row(row.row))
            }
            (KeyState::Rolling(_), StoreKind::Latest { .. }) => unreachable!("all keys of a store are of its kind"),
        };
        let age_ns = point.q.event_time().0.saturating_sub(last.0);
        let older_than = |ms: u64| age_ns > i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        if self.horizon_ms.is_some_and(older_than) {
            return None;
        }
        Some(KeyAnswer { last, stale: self.spec.ttl_ms().is_some_and(older_than), content })
    }

    fn take_key(&self, bytes: &mut Bytes<'_>) -> Result<KeyState> {
        match &self.kind {
            StoreKind::Rolling { layout, .. } => {
                let mut key = RollingKey::default();
                for _ in 0..bytes.u64()? {
                    let time = bytes.i64()?;
                    let data = (0..layout.cells.len()).map(|_| bytes.datum()).collect::<Result<Vec<_>>>()?;
                    key.tree.insert(layout, time, &data);
                }
                for _ in 0..bytes.u64()? {
                    let (time, arrival, diff) = (bytes.i64()?, bytes.u64()?, bytes.i64()?);
                    let data = (0..layout.cells.len()).map(|_| bytes.datum()).collect::<Result<_>>()?;
                    key.overlay.push(Overlay { time, arrival, diff, data });
                }
                Ok(KeyState::Rolling(key))
            }
            StoreKind::Latest { .. } => {
                let mut key = LatestKey::default();
                let take = |bytes: &mut Bytes<'_>| -> Result<(LatestRow, i64)> {
                    let (time, arrival, position) = (bytes.i64()?, bytes.u64()?, bytes.u64()?);
                    Ok((LatestRow { time, arrival, position, row: bytes.bytes()?.into() }, bytes.i64()?))
                };
                for _ in 0..bytes.u64()? {
                    let (row, count) = take(bytes)?;
                    key.rows.insert(row, count);
                }
                for _ in 0..bytes.u64()? {
                    key.overlay.push(take(bytes)?);
                }
                Ok(KeyState::Latest(key))
            }
        }
    }
}

fn put_key(out: &mut Vec<u8>, state: &KeyState) {
    match state {
        KeyState::Rolling(key) => {
            put_u64(out, key.tree.rows() as u64);
            for (time, data) in key.tree.events() {
                put_i64(out, time);
                data.iter().for_each(|datum| put_datum(out, datum));
            }
            put_u64(out, key.overlay.len() as u64);
            for event in &key.overlay {
                put_i64(out, event.time);
                put_u64(out, event.arrival);
                put_i64(out, event.diff);
                event.data.iter().for_each(|datum| put_datum(out, datum));
            }
        }
        KeyState::Latest(key) => {
            let rows: Vec<(&LatestRow, i64)> = key.rows.iter().map(|(row, count)| (row, *count)).collect();
            let overlay: Vec<(&LatestRow, i64)> = key.overlay.iter().map(|(row, diff)| (row, *diff)).collect();
            for part in [rows, overlay] {
                put_u64(out, part.len() as u64);
                for (row, count) in part {
                    put_i64(out, row.time);
                    put_u64(out, row.arrival);
                    put_u64(out, row.position);
                    put_bytes(out, &row.row);
                    put_i64(out, count);
                }
            }
        }
    }
}

/// Why a read failed.
#[derive(Debug)]
pub enum ReadError {
    Folded(Folded),
    Failed(Error),
}

fn rolling_layout(spec: freshet_core::RollingSpec, input: &SchemaRef) -> RollingLayout {
    let mut layout = RollingLayout { cells: Vec::new(), columns: Vec::new(), windows: Vec::new(), aggregates: Vec::new(), spec };
    for aggregate in &layout.spec.aggregates {
        let argument = aggregate.argument.map(|column| input.field(column).data_type().clone());
        // sum and avg, min and max, the four moments each share a cell.
        let class = match aggregate.function {
            AggregateFunction::Avg if argument == Some(DataType::Float64) => AggregateFunction::Sum,
            AggregateFunction::Max => AggregateFunction::Min,
            AggregateFunction::VarPop | AggregateFunction::StddevSamp | AggregateFunction::StddevPop => AggregateFunction::VarSamp,
            AggregateFunction::BoolOr => AggregateFunction::BoolAnd,
            other => other,
        };
        // A tree rebuilds least and greatest from its rows, so its cells need no multiset.
        let kind = CellKind::new(class, argument, false, false);
        let columns = (aggregate.argument, aggregate.filter);
        let known = layout.cells.iter().zip(&layout.columns).position(|(cell, column)| *cell == kind && *column == columns);
        let cell = known.unwrap_or_else(|| {
            layout.cells.push(kind);
            layout.columns.push(columns);
            layout.cells.len() - 1
        });
        let window = layout.windows.iter().position(|window| *window == aggregate.window).unwrap_or_else(|| {
            layout.windows.push(aggregate.window);
            layout.windows.len() - 1
        });
        layout.aggregates.push((cell, window));
    }
    layout
}

/// The type of an aggregate's value before any feature expression.
fn aggregate_type(function: AggregateFunction, argument: Option<DataType>) -> DataType {
    match (function, argument) {
        (AggregateFunction::Count, _) => DataType::Int64,
        (AggregateFunction::BoolAnd | AggregateFunction::BoolOr, _) => DataType::Boolean,
        (AggregateFunction::Min | AggregateFunction::Max, Some(argument)) => argument,
        (AggregateFunction::Sum, Some(DataType::UInt64 | DataType::UInt32 | DataType::UInt16 | DataType::UInt8)) => DataType::UInt64,
        (AggregateFunction::Sum, Some(argument)) if argument.is_integer() => DataType::Int64,
        _ => DataType::Float64,
    }
}
