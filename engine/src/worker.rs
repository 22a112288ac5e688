//! One timely worker: commands → steps → frontiers → report. In: the same command sequence on every worker. Out: progress.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::{Batch, Epoch, Result};
use timely::worker::Worker;

use crate::bridge::{Command, Commands, Part, Progress};
use crate::checkpoint::{Manifest, Place};
use crate::edge::owner_of;
use crate::metrics::Metrics;
use crate::render::{Rendered, Shared, render};

/// Steps inside the dataflow at once: one is computed while the rows of the next arrive.
const OPEN_STEPS: usize = 2;
const IDLE: Duration = Duration::from_millis(5);
const REPORT: Duration = Duration::from_secs(1);

/// Reads a part of a blob.
pub type Fetch = Arc<dyn Fn(&Place) -> Result<Vec<u8>> + Send + Sync>;

/// What a generation starts from.
#[derive(Clone)]
pub struct Restore {
    pub manifest: Manifest,
    pub fetch: Fetch,
}

/// Runs until it is told to stop. Errors: of rendering or restoring; the pipeline has not begun then.
pub fn run(
    worker: &mut Worker,
    shared: &Shared,
    metrics: &Metrics,
    commands: &Commands,
    restore: Option<&Restore>,
    ready: impl FnOnce(),
) -> Result<()> {
    let mut rendered = render(worker, shared)?;
    if let Some(restore) = restore {
        restore_states(&rendered, restore, worker.index(), worker.peers())?;
        let next = restore.manifest.epoch.next().0;
        rendered.inputs.iter_mut().for_each(|input| input.advance_to(next));
    }
    ready();
    // Steps that something beside models works on, and how far everything was handed out.
    let mut open: VecDeque<Epoch> = VecDeque::new();
    let mut fed: Option<Epoch> = None;
    let mut reported = Instant::now();
    loop {
        publish(&rendered, &shared.progress, metrics);
        let flowing = shared.progress.flowing();
        while open.front().is_some_and(|end| *end < flowing) {
            open.pop_front();
        }
        let idle = fed.is_none_or(|end| end < shared.progress.settled());
        if reported.elapsed() > REPORT {
            report(&rendered, shared, worker.index(), metrics);
            reported = Instant::now();
        }
        let command = match open.len() {
            0 if idle => commands.next(Some(IDLE)),
            open if open < OPEN_STEPS => commands.next(None),
            _ => None,
        };
        match command {
            Some(Command::Step { end, batches }) => {
                feed(&mut rendered, end, batches);
                shared.progress.settle_unwatched(end.next());
                open.push_back(end);
                fed = Some(end);
            }
            Some(Command::Checkpoint(reply)) => {
                let parts = checkpoint(&rendered, worker.index(), worker.peers());
                report(&rendered, shared, worker.index(), metrics);
                let _ = reply.send(parts);
            }
            Some(Command::Stop) => return Ok(()),
            None => {}
        }
        worker.step_or_park(Some(if idle { Duration::ZERO } else { Duration::from_micros(100) }));
    }
}

fn feed(rendered: &mut Rendered, end: Epoch, batches: Vec<(usize, Batch)>) {
    for (source, batch) in batches {
        rendered.inputs[source].send(batch);
    }
    for input in &mut rendered.inputs {
        input.advance_to(end.next().0);
    }
}

fn publish(rendered: &Rendered, progress: &Progress, metrics: &Metrics) {
    let before = (progress.settled(), progress.flowing());
    for (view, probe) in rendered.probes.iter().enumerate() {
        if let Some(frontier) = probe.with_frontier(|frontier| frontier.first().copied()) {
            progress.advance(view, Epoch(frontier));
        }
    }
    progress.settle();
    if (progress.settled(), progress.flowing()) != before {
        metrics.notify();
    }
}

fn report(rendered: &Rendered, shared: &Shared, worker: usize, metrics: &Metrics) {
    if let (0, Some(scorers)) = (worker, &shared.scorers) {
        let (pieces, bytes) = scorers.depth();
        metrics.operator(worker, "scoring queue", pieces, bytes);
    }
    for (name, state) in &rendered.states {
        let (rows, bytes) = state.borrow().size();
        metrics.operator(worker, name, rows, bytes);
    }
}

fn checkpoint(rendered: &Rendered, worker: usize, peers: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    for (operator, state) in &rendered.states {
        let changed = state.borrow_mut().checkpoint();
        let owned = changed.into_iter().filter(|(shard, _)| owner_of(*shard, peers) == worker);
        parts.extend(owned.map(|(shard, bytes)| Part { operator: operator.clone(), shard, bytes }));
    }
    parts
}

fn restore_states(rendered: &Rendered, restore: &Restore, worker: usize, peers: usize) -> Result<()> {
    for (operator, state) in &rendered.states {
        for (shard, place) in restore.manifest.states.get(operator).into_iter().flatten() {
            if owner_of(*shard, peers) == worker {
                state.borrow_mut().restore(*shard, &(restore.fetch)(place)?)?;
            }
        }
        state.borrow_mut().resume(restore.manifest.epoch)?;
    }
    Ok(())
}
