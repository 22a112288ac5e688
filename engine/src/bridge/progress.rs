//! How far the pipeline is: closed epochs per view and the floor below which stores may fold. Written by workers, read by everyone.

use std::sync::atomic::{AtomicU64, Ordering};

use freshet_core::Epoch;

use crate::bridge::Floors;

/// Progress of one pipeline. Every number only grows.
pub struct Progress {
    /// F per view: the lowest epoch not yet complete. 0: nothing is.
    frontiers: Vec<AtomicU64>,
    settled: AtomicU64,
    history_ms: u64,
}

impl Progress {
    pub fn new(views: usize, history_ms: u64) -> Progress {
        Progress { frontiers: (0..views).map(|_| AtomicU64::new(0)).collect(), settled: AtomicU64::new(0), history_ms }
    }

    /// View `view` has closed everything below `frontier`.
    pub fn advance(&self, view: usize, frontier: Epoch) {
        self.frontiers[view].fetch_max(frontier.0, Ordering::AcqRel);
    }

    /// After every view's `advance`: everything below the least frontier is settled.
    pub fn settle(&self) {
        let least = self.frontiers.iter().map(|frontier| frontier.load(Ordering::Acquire)).min().unwrap_or(0);
        self.settled.fetch_max(least, Ordering::AcqRel);
    }

    /// A pipeline without views and sinks has nothing to wait for: what is handed out is settled.
    pub fn settle_unwatched(&self, frontier: Epoch) {
        if self.frontiers.is_empty() {
            self.settled.fetch_max(frontier.0, Ordering::AcqRel);
        }
    }

    pub fn frontier(&self, view: usize) -> Epoch {
        Epoch(self.frontiers[view].load(Ordering::Acquire))
    }

    /// The least frontier of all views.
    pub fn settled(&self) -> Epoch {
        Epoch(self.settled.load(Ordering::Acquire))
    }

    pub fn floors(&self) -> Floors {
        let settled = self.settled();
        Floors { settled, history: Epoch(settled.0.saturating_sub(self.history_ms)) }
    }
}
