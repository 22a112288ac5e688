//! What a running pipeline tells about itself. Written by every thread, read by `Reader::status`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Epoch, Error, ObjectState, SourceStatus, State};

use crate::bridge::machine_now;

/// Distinct reasons of dead letters that are counted apart; the rest is "other", so that metrics stay bounded.
const REASONS_MAX: usize = 32;
/// Steps whose watermarks are remembered: more than can be open, so that the watermark of the last complete one is among them.
const WATERMARKS_MAX: usize = 128;

#[derive(Default)]
pub struct Metrics {
    pub epoch: AtomicU64,
    pub events: AtomicU64,
    pub open_steps: AtomicU64,
    /// Jumps of the machine's clock that epochs did not follow (T0c), and how far they are ahead of it.
    pub clock_jumps: AtomicU64,
    pub clock_offset_ms: AtomicI64,
    pub finished: AtomicBool,
    /// A checkpoint is being written.
    pub checkpointing: AtomicBool,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
    changed: Condvar,
    sources: Mutex<Vec<SourceCounts>>,
    operators: Mutex<BTreeMap<(usize, String), (u64, u64)>>,
    sinks: Mutex<BTreeMap<usize, SinkCounts>>,
    running: Mutex<BTreeMap<String, Epoch>>,
    /// Rows scored and rows whose scoring failed, by model.
    scored: Mutex<BTreeMap<usize, (u64, u64)>>,
    checkpoint: Mutex<Option<(Epoch, Instant, u64)>>,
    /// Whether checkpoints and tickets can be written down.
    checkpoints: Mutex<Shown>,
    /// The first epoch that was handed out.
    first: AtomicU64,
    /// When the pipeline was first seen in each state.
    since: Mutex<BTreeMap<&'static str, Epoch>>,
}

/// Counts of one source.
#[derive(Debug, Clone, Default)]
pub struct SourceCounts {
    pub name: String,
    pub state: Shown,
    pub lag_rows: Option<u64>,
    pub rows: u64,
    pub ended: bool,
    pub epoch: u64,
    /// The watermark of T12 after the last steps, whenever it rose.
    watermarks: VecDeque<(Epoch, Epoch)>,
    pub dead_letters: BTreeMap<String, u64>,
    pub late_rows: u64,
    /// T23; None: whole from its beginning.
    pub complete_since: Option<Epoch>,
    /// Dead letters that are kept, their bytes, those that retention took, and those that came in again.
    pub letters_kept: u64,
    pub letters_bytes: u64,
    pub letters_dropped: u64,
    pub letters_replayed: u64,
}

#[derive(Debug, Clone, Default)]
struct SinkCounts {
    rows: u64,
    state: Shown,
}

/// An object's state, which changes when another one is shown.
#[derive(Debug, Clone, Default)]
pub struct Shown(Option<ObjectState>);

impl Shown {
    pub fn show(&mut self, state: State, reason: Option<String>) {
        let progress = self.0.as_ref().and_then(|shown| shown.progress);
        match &mut self.0 {
            Some(shown) if shown.state == state => shown.reason = reason,
            shown => *shown = Some(ObjectState { state, reason, since: machine_now(), progress }),
        }
    }

    /// It got on just now.
    pub fn touch(&mut self) {
        self.0.get_or_insert_with(begun).progress = Some(machine_now());
    }

    pub fn known(&self) -> Option<ObjectState> {
        self.0.clone()
    }

    pub fn get(&self) -> ObjectState {
        self.0.clone().unwrap_or_else(begun)
    }
}

fn begun() -> ObjectState {
    ObjectState { since: machine_now(), ..ObjectState::default() }
}

impl Metrics {
    pub fn new(sources: &[String]) -> Metrics {
        let counts = sources.iter().map(|name| SourceCounts { name: name.clone(), ..SourceCounts::default() }).collect();
        Metrics { sources: Mutex::new(counts), ..Metrics::default() }
    }

    /// The pipeline has failed; the first error is kept.
    pub fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            *failure = Some(error);
        }
        self.stop.store(true, Relaxed);
        self.changed.notify_all();
        drop(failure);
        self.shown(true);
    }

    pub fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }

    /// Asks the sources to stop.
    pub fn request_stop(&self) {
        self.stop.store(true, Relaxed);
        self.notify();
    }

    pub fn stop_requested(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub fn finish(&self) {
        self.finished.store(true, Relaxed);
        self.shown(true);
        self.notify();
    }

    /// Wakes whoever waits in `wait`.
    pub fn notify(&self) {
        drop(lock(&self.failure));
        self.changed.notify_all();
    }

    /// Blocks until something changed, or for this long.
    pub fn wait(&self, duration: Duration) {
        let guard = lock(&self.failure);
        drop(self.changed.wait_timeout(guard, duration));
    }

    pub fn source(&self, index: usize, change: impl FnOnce(&mut SourceCounts)) {
        change(&mut lock(&self.sources)[index]);
    }

    pub fn dead_letter(&self, index: usize, reason: &str) {
        self.source(index, |source| {
            let known = source.dead_letters.contains_key(reason) || source.dead_letters.len() < REASONS_MAX;
            *source.dead_letters.entry(if known { reason } else { "other" }.to_string()).or_default() += 1;
        });
    }

    pub fn operator(&self, worker: usize, name: &str, rows: u64, bytes: u64) {
        lock(&self.operators).insert((worker, name.to_string()), (rows, bytes));
    }

    /// Rows and bytes per operator, over all workers.
    pub fn operators(&self) -> BTreeMap<String, (u64, u64)> {
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for ((_, name), (rows, bytes)) in lock(&self.operators).iter() {
            let sum = sums.entry(name.clone()).or_default();
            *sum = (sum.0 + rows, sum.1 + bytes);
        }
        sums
    }

    /// A source has handed out all rows up to `end`: whether there were any, how many were input and how many too late.
    pub fn source_handed_out(&self, index: usize, end: Epoch, (came, rows, late): (bool, u64, u64), watermark: Option<Epoch>) {
        self.source(index, |counts| {
            if came {
                counts.rows += rows;
                counts.late_rows += late;
                counts.epoch = end.0;
                counts.state.touch();
            }
            if let Some(watermark) = watermark.filter(|watermark| counts.watermarks.back().is_none_or(|last| last.1 != *watermark)) {
                counts.watermarks.push_back((end, watermark));
                if counts.watermarks.len() > WATERMARKS_MAX {
                    counts.watermarks.pop_front();
                }
            }
        });
    }

    /// The watermark of a source after the epochs below `frontier`; None: it has none there, or has ended.
    pub fn watermark_at(&self, index: usize, frontier: Epoch) -> Option<Epoch> {
        let sources = lock(&self.sources);
        let complete = sources[index].watermarks.iter().rev().find(|(end, _)| *end < frontier);
        complete.map(|(_, watermark)| *watermark).filter(|_| !sources[index].ended)
    }

    /// From when on all of these sources are whole (T23). None: from their beginning.
    pub fn complete_since(&self, indexes: &[usize]) -> Option<Epoch> {
        let sources = lock(&self.sources);
        indexes.iter().filter_map(|index| sources[*index].complete_since).max()
    }

    pub fn sink_rows(&self, index: usize, rows: u64) {
        let mut sinks = lock(&self.sinks);
        let counts = sinks.entry(index).or_default();
        counts.rows += rows;
        counts.state.touch();
    }

    pub fn sink_state(&self, index: usize, state: State, reason: Option<String>) {
        lock(&self.sinks).entry(index).or_default().state.show(state, reason);
    }

    pub fn of_sink(&self, index: usize) -> (u64, ObjectState) {
        lock(&self.sinks).get(&index).map_or_else(|| (0, begun()), |counts| (counts.rows, counts.state.get()))
    }

    /// A model (by its index in the plan) has scored `rows` rows, and failed on `errors` of them.
    pub fn scored(&self, model: usize, rows: u64, errors: u64) {
        let mut scored = lock(&self.scored);
        let counts = scored.entry(model).or_default();
        *counts = (counts.0 + rows, counts.1 + errors);
    }

    /// Rows scored and rows whose scoring failed.
    pub fn scored_by(&self, model: usize) -> (u64, u64) {
        lock(&self.scored).get(&model).copied().unwrap_or_default()
    }

    pub fn set_running(&self, jobs: Vec<(String, Epoch)>) {
        *lock(&self.running) = jobs.into_iter().collect();
    }

    /// The decision points of the runs under way, by job.
    pub fn jobs_running(&self) -> BTreeMap<String, Epoch> {
        lock(&self.running).clone()
    }

    pub fn checkpointed(&self, epoch: Epoch, bytes: u64) {
        *lock(&self.checkpoint) = Some((epoch, Instant::now(), bytes));
        let mut checkpoints = lock(&self.checkpoints);
        checkpoints.show(State::Running, None);
        checkpoints.touch();
    }

    /// Whether checkpoints and tickets can be written down, or why not.
    pub fn checkpoints_state(&self, state: State, reason: Option<String>) {
        lock(&self.checkpoints).show(state, reason);
    }

    /// None: the pipeline writes none.
    pub fn checkpoints(&self) -> Option<ObjectState> {
        lock(&self.checkpoints).known()
    }

    /// A step up to this epoch has been handed out.
    pub fn handed_out(&self, end: Epoch) {
        let _ = self.first.compare_exchange(0, end.0, Relaxed, Relaxed);
        self.epoch.store(end.0, Relaxed);
    }

    /// Epoch, age and bytes of the last checkpoint.
    pub fn checkpoint(&self) -> Option<(Epoch, Duration, u64)> {
        lock(&self.checkpoint).map(|(epoch, at, bytes)| (epoch, at.elapsed(), bytes))
    }

    /// The state of the whole, and since when: what has begun runs until the pipeline has finished or failed.
    pub fn shown(&self, begun: bool) -> (State, Epoch) {
        let state = match (self.failure().is_some(), self.finished.load(Relaxed), begun) {
            (true, _, _) => State::Failed,
            (false, true, _) => State::Ended,
            (false, false, true) => State::Running,
            (false, false, false) => State::Starting,
        };
        let mut since = lock(&self.since);
        (state, *since.entry(state.name()).or_insert_with(machine_now))
    }

    pub fn sources(&self) -> Vec<SourceStatus> {
        let (newest, first) = (self.epoch.load(Relaxed), self.first.load(Relaxed));
        let failure = self.failure();
        let state = |source: &SourceCounts| match (&failure, source.state.get()) {
            (Some(error), state) if !matches!(state.state, State::Failed | State::Ended) => {
                ObjectState { state: State::Failed, reason: Some(error.message.clone()), ..state }
            }
            (_, state) => state,
        };
        lock(&self.sources)
            .iter()
            .map(|source| SourceStatus {
                name: source.name.clone(),
                state: state(source),
                lag_rows: source.lag_rows,
                rows: source.rows,
                ended: source.ended,
                lag_ms: if source.ended || source.lag_rows == Some(0) { 0 } else { newest.saturating_sub(source.epoch.max(first)) },
                watermark: source.watermarks.back().map(|(_, watermark)| *watermark),
                dead_letters: source.dead_letters.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
                late_rows: source.late_rows,
                complete_since: source.complete_since,
                letters_kept: source.letters_kept,
                letters_bytes: source.letters_bytes,
                letters_dropped: source.letters_dropped,
                letters_replayed: source.letters_replayed,
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
