//! How far the pipeline is: closed epochs per view, and what follows from them. Written by workers, read by everyone.
//!
//! Two numbers sum it up. *Settled*: every view and sink has closed everything below; stores may fold, state may be written. *Flowing*:
//! everything that waits for no model has; views behind a PREDICT may be behind it, so that a slow model never stops the features.

use std::sync::atomic::{AtomicU64, Ordering};

use freshet_core::{Epoch, NodeId, Op, Plan};

use crate::bridge::{Floors, machine_now};

/// Progress of one pipeline. Every number only grows.
pub struct Progress {
    /// F per view, then per sink: the lowest epoch not yet complete. 0: nothing is. Then how far the rows have come that the first
    /// PREDICTs on their way are given.
    frontiers: Vec<AtomicU64>,
    /// When each of them last moved, by the machine's clock.
    moved: Vec<AtomicU64>,
    /// Which of them wait for a model.
    behind: Vec<bool>,
    /// Views and sinks.
    ends: usize,
    settled: AtomicU64,
    flowing: AtomicU64,
    history_ms: u64,
}

impl Progress {
    pub fn new(plan: &Plan, history_ms: u64) -> Progress {
        let waits = waits_for_models(plan);
        let ends = plan.views.iter().map(|view| view.node).chain(plan.sinks.iter().map(|sink| sink.node));
        let mut behind: Vec<bool> = ends.map(|node| waits[node.index()]).collect();
        let ends = behind.len();
        behind.extend(entries(plan).iter().map(|_| false));
        Progress {
            frontiers: behind.iter().map(|_| AtomicU64::new(0)).collect(),
            moved: behind.iter().map(|_| AtomicU64::new(0)).collect(),
            behind,
            ends,
            settled: AtomicU64::new(0),
            flowing: AtomicU64::new(0),
            history_ms,
        }
    }

    /// View, sink or entry `index` has closed everything below `frontier`.
    pub fn advance(&self, index: usize, frontier: Epoch) {
        if self.frontiers[index].fetch_max(frontier.0, Ordering::AcqRel) < frontier.0 {
            self.moved[index].store(machine_now().0, Ordering::Relaxed);
        }
    }

    /// When a view last got on; None: it has not begun.
    pub fn moved(&self, view: usize) -> Option<Epoch> {
        Some(Epoch(self.moved[view].load(Ordering::Relaxed))).filter(|moved| *moved > Epoch::ZERO)
    }

    /// A restored pipeline has closed everything below `frontier`.
    pub fn resume(&self, frontier: Epoch) {
        (0..self.frontiers.len()).for_each(|index| self.advance(index, frontier));
        self.settle();
        self.settle_unwatched(frontier);
    }

    /// After the `advance` of all: sums up.
    pub fn settle(&self) {
        let least = |indexes: &mut dyn Iterator<Item = usize>| indexes.map(|index| self.frontiers[index].load(Ordering::Acquire)).min();
        if self.ends > 0 {
            self.settled.fetch_max(least(&mut (0..self.ends)).unwrap_or(0), Ordering::AcqRel);
            let flowing = least(&mut (0..self.frontiers.len()).filter(|index| !self.behind[*index])).unwrap_or(0);
            self.flowing.fetch_max(flowing, Ordering::AcqRel);
        }
    }

    /// A pipeline without views and sinks has nothing to wait for: what is handed out is settled.
    pub fn settle_unwatched(&self, frontier: Epoch) {
        if self.ends == 0 {
            self.settled.fetch_max(frontier.0, Ordering::AcqRel);
            self.flowing.fetch_max(frontier.0, Ordering::AcqRel);
        }
    }

    pub fn frontier(&self, view: usize) -> Epoch {
        Epoch(self.frontiers[view].load(Ordering::Acquire))
    }

    /// The least frontier of all views and sinks.
    pub fn settled(&self) -> Epoch {
        Epoch(self.settled.load(Ordering::Acquire))
    }

    /// The least frontier of those that wait for no model, and of the rows that models are given.
    pub fn flowing(&self) -> Epoch {
        Epoch(self.flowing.load(Ordering::Acquire))
    }

    /// Folding waits for models too: a lookup behind a PREDICT still reads the stores at its own epoch, and a view behind one is read
    /// there. The pace bounds how long.
    pub fn floors(&self) -> Floors {
        let settled = self.settled();
        Floors { settled, history: Epoch(settled.0.saturating_sub(self.history_ms)) }
    }
}

/// The rows that the first PREDICTs on their way are given, by node.
pub fn entries(plan: &Plan) -> Vec<NodeId> {
    let waits = waits_for_models(plan);
    let inputs = plan.nodes.iter().filter(|node| matches!(node.op, Op::Predict { .. })).map(|node| node.inputs[0]);
    inputs.filter(|input| !waits[input.index()]).collect()
}

/// Per node: whether a model stands between it and the sources.
fn waits_for_models(plan: &Plan) -> Vec<bool> {
    let mut waits: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let behind = matches!(node.op, Op::Predict { .. }) || node.inputs.iter().any(|input| waits[input.index()]);
        waits.push(behind);
    }
    waits
}
