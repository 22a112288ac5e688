//! From sources to steps. In: polled batches. Out: to every worker the same sequence of steps, each with its share of the rows.
//!
//! One thread gives every record its epoch, merges the sources by epoch, cuts steps, keeps the pace and takes checkpoints. A step ends
//! at an epoch that every source has passed, so everything up to it is complete once the workers have closed it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use freshet_core::{Batch, ClockKind, Epoch, Error, Kind, Result, State};

use crate::bridge::clock::Tickets;
use crate::bridge::egress::SINK_WAIT;
use crate::bridge::journal::note_step;
use crate::bridge::pace::Pace;
use crate::bridge::partition::Stamp;
use crate::bridge::retry::Backoff;
use crate::bridge::source_input::SourceInput;
use crate::bridge::{Command, Decisions, Part, SinkThread, Stop, ViewLog};
use crate::checkpoint::{Checkpointer, Cut};
use crate::config::{EngineConfig, StepCut};
use crate::metrics::Metrics;

/// For so long in wall clock a checkpoint is not taken at all rather than waited for, while a sink is behind: waiting would be felt by readers.
const SINK_PATIENCE: Duration = Duration::from_secs(60);

pub struct Ingest {
    pub clock: ClockKind,
    pub config: EngineConfig,
    pub sources: Vec<SourceInput>,
    pub workers: Vec<Sender<Command>>,
    pub metrics: Arc<Metrics>,
    pub sinks: Arc<Vec<SinkThread>>,
    pub logs: Vec<Arc<ViewLog>>,
    pub decisions: Decisions,
    pub checkpointer: Option<Checkpointer>,
    /// The last epoch handed out.
    pub last: Option<Epoch>,
    pub pace: Pace,
    /// When a checkpoint was last tried, and when one was last taken.
    pub checkpointed: Instant,
    pub taken: Instant,
    /// When to write a checkpoint again, where what holds them is away or full.
    pub store: Backoff,
    /// Wall clock: what epochs are issued by.
    pub tickets: Option<Tickets>,
}

/// What comes next in event clock.
enum Next {
    /// A step with this last epoch.
    Step(Epoch),
    /// Everything below this epoch has been handed out, and time must wait there.
    Barrier(Epoch),
    /// Everything has been handed out, or the pipeline is to stop.
    Nothing,
}

/// How the thread ended.
pub type IngestEnd = Result<Stop>;

impl Ingest {
    /// Runs until the sources end or the pipeline is stopped, then takes a last checkpoint and stops the workers.
    pub fn run(mut self) {
        if self.checkpointer.is_some() && !self.config.frozen {
            self.metrics.checkpoints_state(State::Running, None);
        }
        let end = match self.clock {
            _ if self.config.frozen => self.stay(),
            ClockKind::Event => self.run_event(),
            ClockKind::Wall => self.run_wall(),
        };
        let end = end.and_then(|stop| self.end(stop));
        match end {
            Ok(Stop::Finished) => {
                self.metrics.finish();
                while !self.metrics.stop_requested() {
                    self.metrics.wait(Duration::from_secs(1));
                }
            }
            Ok(Stop::Requested) => {}
            Err(error) => self.metrics.fail(error),
        }
        for worker in &self.workers {
            let _ = worker.send(Command::Stop);
        }
    }

    /// Answers are given from what was restored, until the pipeline is to stop.
    fn stay(&self) -> IngestEnd {
        while !self.metrics.stop_requested() {
            self.metrics.wait(Duration::from_secs(1));
        }
        Ok(Stop::Requested)
    }

    /// Closes what was handed out, makes sinks visible and state durable.
    fn end(&mut self, stop: Stop) -> IngestEnd {
        if self.config.frozen || !self.pace.drain() {
            return Ok(Stop::Requested);
        }
        self.checkpoint(Duration::MAX)?;
        for sink in self.sinks.iter() {
            sink.flush(Duration::MAX, false)?;
        }
        self.tickets.iter_mut().try_for_each(Tickets::close)?;
        Ok(stop)
    }

    fn run_event(&mut self) -> IngestEnd {
        self.sources.iter_mut().try_for_each(SourceInput::enter_script)?;
        loop {
            if !self.pace.wait_for_room() {
                return Ok(Stop::Requested);
            }
            match self.next_end()? {
                Next::Step(end) => {
                    self.send(end)?;
                    if self.config.stop_after.is_some_and(|stop| end >= stop) {
                        return Ok(Stop::Requested);
                    }
                }
                Next::Barrier(barrier) => {
                    if !self.pass(barrier)? {
                        return Ok(Stop::Requested);
                    }
                }
                Next::Nothing => {
                    // Without any row the content at epoch 0 is still an answer.
                    if self.last.is_none() {
                        self.send(Epoch::ZERO)?;
                    }
                    let finished = self.decisions.finish(&self.metrics)?;
                    return Ok(if finished { Stop::Finished } else { Stop::Requested });
                }
            }
        }
    }

    /// Closes everything below the barrier, then lets the control plane act there. False if the pipeline is to stop.
    fn pass(&mut self, barrier: Epoch) -> Result<bool> {
        let end = Epoch(barrier.0.saturating_sub(1));
        if self.last.is_none_or(|last| last < end) {
            self.send(end)?;
        }
        if !self.pace.drain() || self.metrics.stop_requested() {
            return Ok(false);
        }
        self.decisions.pass(barrier, &self.metrics)
    }

    /// Every source has its first row or has ended: decision points lie after the first epoch of those that have a time.
    fn begin_decisions(&mut self) {
        let timed = |input: &&SourceInput| input.def.event_time.is_some() || input.def.arrival.is_some();
        let first = self.sources.iter().filter(timed).filter_map(SourceInput::first_epoch).min();
        if let Some(first) = first {
            self.decisions.begin(first);
        }
    }

    /// Reads until a step can be cut or a barrier is reached.
    fn next_end(&mut self) -> Result<Next> {
        let rows = match self.config.cut {
            StepCut::Rows(rows) => self.config.events_per_second.map_or(rows, |rate| rows.min((rate as usize / 100).max(1))),
            StepCut::Epochs(_) => 1024,
            StepCut::All => usize::MAX,
        };
        let rows = self.config.journal.as_ref().and_then(|journal| journal.rows_max()).map_or(rows, |few| rows.min(few.max(1)));
        loop {
            let mut idle = true;
            for input in self.sources.iter_mut() {
                while !input.ended && input.buffered_rows() < rows {
                    if self.metrics.stop_requested() {
                        return Ok(Next::Nothing);
                    }
                    if !input.read(rows.clamp(1024, 65_536), Stamp::Event)? {
                        break;
                    }
                    idle = false;
                }
            }
            // An epoch is complete in a source once the source has gone beyond it.
            let bound = self.sources.iter().filter_map(SourceInput::reached).min();
            if !self.decisions.has_begun() && bound != Some(0) {
                self.begin_decisions();
            }
            let barrier = self.decisions.barrier().map_or(u64::MAX, |barrier| barrier.0);
            if let Some(end) = self.cut(bound.unwrap_or(u64::MAX).min(barrier), rows, self.config.cut) {
                return Ok(Next::Step(end));
            }
            if bound.unwrap_or(u64::MAX) >= barrier && barrier != u64::MAX && self.comes_to(barrier) {
                return Ok(Next::Barrier(Epoch(barrier)));
            }
            if bound.is_none() {
                return Ok(Next::Nothing);
            }
            for input in self.sources.iter_mut().filter(|input| input.reached() == bound) {
                if self.config.cut != StepCut::All {
                    input.balance(bound.unwrap_or(0))?;
                }
                idle &= !input.read(65_536, Stamp::Event)?;
            }
            if idle && self.sources.iter().any(|input| !input.ended) {
                self.metrics.wait(Duration::from_millis(1));
            }
        }
    }

    /// Whether the input reaches this far: rows wait behind it, or it is the very next instant. Once all sources have ended, time stands
    /// 1 ms after the greatest epoch (T0a).
    fn comes_to(&self, barrier: u64) -> bool {
        let waiting = self.sources.iter().any(|input| !input.ended || input.has_buffered());
        waiting || self.last.is_some_and(|last| last.0 + 1 >= barrier)
    }

    /// The last epoch of the next step, all of whose epochs lie below `bound`.
    pub(super) fn cut(&self, bound: u64, rows: usize, how: StepCut) -> Option<Epoch> {
        if let StepCut::Epochs(count) = how {
            let mut distinct: BTreeSet<u64> = BTreeSet::new();
            for input in &self.sources {
                for epochs in input.epochs_below(bound, usize::MAX) {
                    let mut of_partition: BTreeSet<u64> = BTreeSet::new();
                    for epoch in epochs {
                        of_partition.insert(epoch);
                        if of_partition.len() > count {
                            break;
                        }
                    }
                    distinct.extend(of_partition);
                }
            }
            return distinct.iter().nth(count - 1).or(distinct.last()).map(|epoch| Epoch(*epoch));
        }
        if how == StepCut::All && bound != self.decisions.barrier().map_or(u64::MAX, |barrier| barrier.0) {
            return None;
        }
        let mut first: Vec<u64> = self.sources.iter().flat_map(|input| input.epochs_below(bound, rows).flatten()).collect();
        if first.len() <= rows {
            return first.into_iter().max().map(Epoch);
        }
        let (before, nth, _) = first.select_nth_unstable(rows - 1);
        // The epoch at the limit may go on beyond it: the step ends before it, unless that leaves nothing.
        let nth = *nth;
        Some(before.iter().copied().filter(|epoch| *epoch < nth).max().map_or(Epoch(nth), Epoch))
    }

    pub(super) fn send(&mut self, end: Epoch) -> Result<()> {
        self.show_buffers();
        let workers = self.workers.len();
        let mut shares: Vec<Vec<(usize, Batch)>> = vec![Vec::new(); workers];
        let mut noted: Vec<(usize, Batch)> = Vec::new();
        let mut events = 0;
        for input in &mut self.sources {
            let batches = input.take_upto(end)?;
            let rows: usize = batches.iter().map(Batch::len).sum();
            events += rows as u64;
            for batch in batches {
                if self.config.journal.is_some() {
                    noted.push((input.index, batch.clone()));
                }
                let share = batch.len().div_ceil(workers);
                for (worker, offset) in (0..batch.len()).step_by(share).enumerate() {
                    shares[worker].push((input.index, batch.slice(offset, share.min(batch.len() - offset))));
                }
            }
        }
        if let Some(journal) = self.config.journal.clone() {
            let alone = journal.rows_max().is_some() && self.pace.drain();
            let open_steps = if alone { 0 } else { self.metrics.open_steps.load(Relaxed) as usize };
            note_step(journal.as_ref(), end, &noted, open_steps + 1);
        }
        for (worker, batches) in self.workers.iter().zip(shares) {
            worker.send(Command::Step { end, batches }).map_err(|_| Error::internal("a worker has stopped"))?;
        }
        self.last = Some(end);
        self.metrics.handed_out(end);
        self.metrics.events.fetch_add(events, Relaxed);
        self.pace.opened(end, events);
        let due = self.checkpointed.elapsed() >= Duration::from_millis(self.config.checkpoint_interval_ms) && self.store.is_due();
        if self.checkpointer.is_none() {
            self.sources.iter_mut().try_for_each(SourceInput::accept)?;
        } else if self.config.checkpoint_every_step || due {
            self.checkpoint(SINK_WAIT)?;
        }
        Ok(())
    }

    /// Rows read and not handed out, for the status.
    fn show_buffers(&self) {
        for input in &self.sources {
            self.metrics.operator(usize::MAX, &format!("read of {}", input.def.name), input.buffered_rows() as u64, input.buffered_bytes() as u64);
        }
    }

    /// Makes everything up to the last step durable. The pipeline is drained first: the frontier is the barrier. A sink that does not answer in
    /// time means that the checkpoint is taken later.
    fn checkpoint(&mut self, sink_wait: Duration) -> Result<()> {
        self.checkpointed = Instant::now();
        let (Some(checkpointer), Some(epoch)) = (&mut self.checkpointer, self.last) else { return Ok(()) };
        let patient = sink_wait != Duration::MAX && self.clock == ClockKind::Wall && self.taken.elapsed() < SINK_PATIENCE;
        let waits = |sink: &SinkThread| sink.is_away() || (patient && sink.is_behind());
        if sink_wait != Duration::MAX && self.sinks.iter().any(waits) || !self.pace.drain() {
            return Ok(());
        }
        // Sinks first: what workers write counts as written from then on.
        let mut sinks = std::collections::BTreeMap::new();
        for sink in self.sinks.iter() {
            let Some(position) = sink.flush(sink_wait, patient)? else { return Ok(()) };
            sinks.insert(sink.name.clone(), position);
        }
        let (tx, rx) = channel();
        for worker in &self.workers {
            worker.send(Command::Checkpoint(tx.clone())).map_err(|_| Error::internal("a worker has stopped"))?;
        }
        drop(tx);
        let parts: Vec<Part> = rx.iter().take(self.workers.len()).flatten().collect();
        if self.metrics.failure().is_some() {
            return Ok(());
        }
        let cut = Cut {
            epoch,
            events: self.metrics.events.load(Relaxed),
            parts,
            sources: self.sources.iter().map(|input| (input.def.name.clone(), input.state())).collect(),
            held: self.sources.iter().filter_map(|input| Some((input.def.name.clone(), input.held()?))).collect(),
            sinks,
        };
        self.metrics.checkpointing.store(true, Relaxed);
        let written = checkpointer.write(cut, &self.logs);
        self.metrics.checkpointing.store(false, Relaxed);
        match written {
            Ok(bytes) => {
                self.metrics.checkpointed(epoch, bytes);
                self.taken = Instant::now();
                self.store.succeeded();
                self.sources.iter_mut().try_for_each(SourceInput::accept)
            }
            // The next one holds what this one would have; only the last one has no next.
            Err(error) if error.kind == Kind::Unavailable && sink_wait != Duration::MAX => {
                self.store.failed();
                self.show_store_away(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Answers go on while nothing can be written down.
    pub(super) fn show_store_away(&self, error: &Error) {
        if !matches!(self.metrics.checkpoints(), Some(shown) if shown.state == State::Retrying) {
            tracing::warn!(reason = %error, "checkpoints cannot be written; it is tried again until they can");
        }
        self.metrics.checkpoints_state(State::Retrying, Some(error.message.clone()));
    }
}
