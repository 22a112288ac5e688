//! What a running pipeline tells about itself. Written by every thread, read by `Reader::status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Epoch, Error, ObjectState, SourceStatus};

/// Distinct reasons of dead letters that are counted apart; the rest is "other", so that metrics stay bounded.
const REASONS_MAX: usize = 32;

#[derive(Default)]
pub struct Metrics {
    pub epoch: AtomicU64,
    pub events: AtomicU64,
    pub open_steps: AtomicU64,
    pub finished: AtomicBool,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
    changed: Condvar,
    sources: Mutex<Vec<SourceCounts>>,
    operators: Mutex<BTreeMap<(usize, String), (u64, u64)>>,
    sinks: Mutex<BTreeMap<usize, u64>>,
    running: Mutex<BTreeMap<String, Epoch>>,
    /// Rows scored and rows whose scoring failed, by model.
    scored: Mutex<BTreeMap<usize, (u64, u64)>>,
    checkpoint: Mutex<Option<(Epoch, Instant, u64)>>,
}

/// Counts of one source.
#[derive(Debug, Clone, Default)]
pub struct SourceCounts {
    pub name: String,
    pub rows: u64,
    pub ended: bool,
    pub epoch: u64,
    /// The watermark of T12; `u64::MAX` once the source has ended.
    pub watermark: Option<u64>,
    pub dead_letters: BTreeMap<String, u64>,
    pub late_rows: u64,
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

    pub fn sink_rows(&self, index: usize, rows: u64) {
        *lock(&self.sinks).entry(index).or_default() += rows;
    }

    pub fn rows_of_sink(&self, index: usize) -> u64 {
        lock(&self.sinks).get(&index).copied().unwrap_or(0)
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
    }

    /// Epoch, age and bytes of the last checkpoint.
    pub fn checkpoint(&self) -> Option<(Epoch, Duration, u64)> {
        lock(&self.checkpoint).map(|(epoch, at, bytes)| (epoch, at.elapsed(), bytes))
    }

    pub fn sources(&self) -> Vec<SourceStatus> {
        let newest = self.epoch.load(Relaxed);
        lock(&self.sources)
            .iter()
            .map(|source| SourceStatus {
                name: source.name.clone(),
                state: ObjectState::default(),
                lag_rows: None,
                rows: source.rows,
                ended: source.ended,
                lag_ms: if source.ended { 0 } else { newest.saturating_sub(source.epoch) },
                watermark: source.watermark.map(Epoch),
                dead_letters: source.dead_letters.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
                late_rows: source.late_rows,
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
