//! How fast steps are handed out: at most so many open at once, models and sinks not too far behind, and a chosen rate of events if there is one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use freshet_core::Epoch;

use crate::bridge::{Progress, SinkThread};
use crate::metrics::Metrics;

/// Steps handed out and not yet closed: two keep the workers busy while the next is gathered, more only cost memory.
pub const OPEN_STEPS_MAX: usize = 4;
/// Steps that may wait for a model while the features go on: as many as a sink may be behind. More would only hold memory.
const MODEL_STEPS_MAX: usize = 64;
/// How long a pipeline that was told to stop waits for its open steps. Only a slow model takes longer; its rows come again after a restart.
const STOP_WAIT: Duration = Duration::from_secs(4);
const WAIT: Duration = Duration::from_millis(2);

pub struct Pace {
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
    sinks: Arc<Vec<SinkThread>>,
    /// Steps that something beside models still works on.
    open: VecDeque<Epoch>,
    /// Steps that are not closed everywhere.
    unsettled: VecDeque<Epoch>,
    /// When the steps of a stopped pipeline are given up.
    patience: Option<Instant>,
    /// Events per second, when and how many so far.
    rate: Option<(u64, Instant, u64)>,
}

impl Pace {
    pub fn new(progress: Arc<Progress>, metrics: Arc<Metrics>, sinks: Arc<Vec<SinkThread>>, events_per_second: Option<u64>) -> Pace {
        let rate = events_per_second.map(|rate| (rate.max(1), Instant::now(), 0));
        Pace { progress, metrics, sinks, open: VecDeque::new(), unsettled: VecDeque::new(), patience: None, rate }
    }

    /// Notes that a step was handed out.
    pub fn opened(&mut self, end: Epoch, events: u64) {
        self.open.push_back(end);
        self.unsettled.push_back(end);
        self.metrics.open_steps.store(self.open.len() as u64, Relaxed);
        if let Some((_, _, sent)) = &mut self.rate {
            *sent += events;
        }
    }

    /// Blocks until another step may be handed out. False if the pipeline is to stop.
    pub fn wait_for_room(&mut self) -> bool {
        while !self.metrics.stop_requested() {
            self.close();
            let behind = self.sinks.iter().any(SinkThread::is_full);
            let early = self.rate.and_then(|(rate, start, sent)| Duration::from_secs_f64(sent as f64 / rate as f64).checked_sub(start.elapsed()));
            match early {
                Some(early) if !early.is_zero() => self.metrics.wait(early.min(WAIT * 10)),
                _ if self.open.len() < OPEN_STEPS_MAX && self.unsettled.len() < MODEL_STEPS_MAX && !behind => return true,
                _ => self.metrics.wait(WAIT),
            }
        }
        false
    }

    /// Blocks until every step handed out is closed. False if the pipeline has failed, or is to stop and a model does not let it.
    pub fn drain(&mut self) -> bool {
        loop {
            self.close();
            if self.unsettled.is_empty() {
                return true;
            }
            if self.metrics.failure().is_some() {
                return false;
            }
            if self.metrics.stop_requested() && *self.patience.get_or_insert_with(|| Instant::now() + STOP_WAIT) < Instant::now() {
                return false;
            }
            self.metrics.wait(WAIT);
        }
    }

    fn close(&mut self) {
        for (steps, below) in [(&mut self.open, self.progress.flowing()), (&mut self.unsettled, self.progress.settled())] {
            while steps.front().is_some_and(|end| *end < below) {
                steps.pop_front();
            }
        }
        self.metrics.open_steps.store(self.open.len() as u64, Relaxed);
    }
}
