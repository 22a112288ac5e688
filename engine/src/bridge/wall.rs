//! Wall clock: from what sources have to ticks. In: rows as they come. Out: steps of one epoch each, named by the end of their tick (T0, T0c).
//!
//! Rows are gathered first and get their ticket afterwards, so a ticket is never earlier than what it holds: at machine time q nothing with an
//! arrival below q can still come. While the workers are behind nothing is polled: sources pause, and the next tick holds more.
//!
//! History (T0b): rows of sources with ARRIVAL that were there before the start enter at their arrivals, in one order over all these sources,
//! before the first ticket is issued. Other sources wait meanwhile. So an epoch, once complete, never gets another row: an arrival below what was
//! handed out already (after a restart) enters at the next epoch instead.

use std::time::{Duration, Instant};

use freshet_core::{Epoch, Kind, Result, State};

use crate::bridge::clock::Tickets;
use crate::bridge::ingest::{Ingest, IngestEnd};
use crate::bridge::retry::Backoff;
use crate::bridge::{SourceInput, Stop};
use crate::config::StepCut;

/// The least distance of two ticks while rows come: a step costs about 0.1 ms, so less would gain little and cost more.
const TICK: Duration = Duration::from_millis(5);
/// A tick without rows: time goes on for readers and timers.
const QUIET_TICK: Duration = Duration::from_millis(20);
/// How often sources are polled while a tick fills, and how often once nothing has come for a second.
const POLL: Duration = Duration::from_millis(1);
const POLL_IDLE: Duration = Duration::from_millis(3);
/// Rows one source may bring per tick. A tick doubles while the workers are behind, up to the greatest: larger steps cost less per row.
const TICK_ROWS: usize = 16_384;
const TICK_ROWS_MAX: usize = 131_072;
/// Bytes one source may bring per tick: with the steps that may be open, what bounds the memory between sources and operators.
const TICK_BYTES: usize = 32 << 20;
/// Rows read ahead of history.
const HISTORY_ROWS: usize = 32_768;

/// How ticks are going.
struct Rhythm {
    sent: Instant,
    came: Instant,
    rows_max: usize,
}

impl Ingest {
    pub(super) fn run_wall(&mut self) -> IngestEnd {
        self.enter_script()?;
        if !self.enter_history()? {
            return Ok(Stop::Requested);
        }
        let mut rhythm = Rhythm { sent: Instant::now(), came: Instant::now(), rows_max: TICK_ROWS };
        let mut first = true;
        loop {
            let before = Instant::now();
            if !self.pace.wait_for_room() {
                return Ok(Stop::Requested);
            }
            let behind = before.elapsed() > POLL;
            rhythm.rows_max = if behind { (rhythm.rows_max * 2).min(TICK_ROWS_MAX) } else { (rhythm.rows_max / 2).max(TICK_ROWS) };
            if !self.gather(&mut rhythm, first)? {
                return Ok(Stop::Requested);
            }
            let metrics = self.metrics.clone();
            let Some(ticket) = self.written(|tickets| tickets.next(&metrics))? else { return Ok(Stop::Requested) };
            for input in &mut self.sources {
                if first {
                    input.restamp(ticket);
                }
                input.enter(ticket)?;
            }
            first = false;
            let finished = self.sources.iter().all(SourceInput::will_be_done);
            self.send(ticket)?;
            rhythm.sent = Instant::now();
            if finished {
                return Ok(Stop::Finished);
            }
        }
    }

    /// What the script itself inserts is there before all else, at epoch 0 (T13); what a checkpoint holds is not inserted again.
    fn enter_script(&mut self) -> Result<()> {
        if self.last.is_some() || self.sources.iter().all(|input| input.def.rows.is_empty()) {
            return Ok(());
        }
        self.sources.iter_mut().try_for_each(SourceInput::enter_script)?;
        self.send(Epoch::ZERO)
    }

    /// Polls until there is something to hand out, or time is to go on. False if the pipeline is to stop.
    fn gather(&mut self, rhythm: &mut Rhythm, first: bool) -> Result<bool> {
        let mut came = first;
        loop {
            let mut full = false;
            for input in &mut self.sources {
                if input.gather(rhythm.rows_max, TICK_BYTES)? {
                    came = true;
                    rhythm.came = Instant::now();
                }
                full |= input.is_full(rhythm.rows_max, TICK_BYTES);
            }
            let metrics = self.metrics.clone();
            let due = self.sources.iter().filter_map(SourceInput::next_due).min();
            let is_due = due.is_some_and(|due| due <= self.tickets().now(&metrics).0);
            let since = rhythm.sent.elapsed();
            let over = self.sources.iter().all(SourceInput::will_be_done);
            if full || over || since >= QUIET_TICK || ((came || is_due) && since >= TICK) {
                return Ok(!metrics.stop_requested());
            }
            if metrics.stop_requested() {
                return Ok(false);
            }
            metrics.wait(if rhythm.came.elapsed() > Duration::from_secs(1) { POLL_IDLE } else { POLL });
        }
    }

    /// Hands out what had arrived before the start. False if the pipeline is to stop.
    fn enter_history(&mut self) -> Result<bool> {
        let metrics = self.metrics.clone();
        let start = self.tickets().now(&metrics);
        if self.sources.iter().all(|input| input.def.arrival.is_none()) {
            return Ok(true);
        }
        loop {
            if !self.pace.wait_for_room() {
                return Ok(false);
            }
            let times = (self.tickets().now(&metrics), start);
            let mut idle = true;
            for input in self.sources.iter_mut().filter(|input| input.def.arrival.is_some()) {
                while !metrics.stop_requested() && input.history_reached().is_some() && input.buffered_rows() < HISTORY_ROWS {
                    if !input.read_history(TICK_ROWS, times, self.last)? {
                        break;
                    }
                    idle = false;
                }
            }
            let history = self.sources.iter().filter(|input| input.def.arrival.is_some());
            let reached = history.filter_map(SourceInput::history_reached).min();
            if let Some(end) = self.cut(reached.unwrap_or(u64::MAX).min(start.0), TICK_ROWS, StepCut::Rows(TICK_ROWS)) {
                self.send(end)?;
                if self.written(|tickets| tickets.above(end))?.is_none() {
                    return Ok(false);
                }
                continue;
            }
            let Some(reached) = reached else { return Ok(true) };
            for input in self.sources.iter_mut().filter(|input| input.def.arrival.is_some() && input.history_reached() == Some(reached)) {
                input.balance(reached)?;
                idle &= !input.read_history(TICK_ROWS, times, self.last)?;
            }
            if metrics.stop_requested() {
                return Ok(false);
            }
            if idle {
                metrics.wait(POLL);
            }
        }
    }

    /// What needs the bound of tickets written down first. While that cannot be, time stands still and answers go on. None: the pipeline
    /// is to stop.
    fn written<T>(&mut self, act: impl Fn(&mut Tickets) -> Result<T>) -> Result<Option<T>> {
        let mut backoff = Backoff::default();
        loop {
            match act(self.tickets()) {
                Err(error) if error.kind == Kind::Unavailable => {
                    self.show_store_away(&error);
                    let again = Instant::now() + backoff.failed();
                    while Instant::now() < again {
                        if self.metrics.stop_requested() {
                            return Ok(None);
                        }
                        self.metrics.wait(again.saturating_duration_since(Instant::now()));
                    }
                }
                done => {
                    if backoff.is_away() && !self.store.is_away() {
                        self.metrics.checkpoints_state(State::Running, None);
                    }
                    return done.map(Some);
                }
            }
        }
    }

    fn tickets(&mut self) -> &mut Tickets {
        self.tickets.as_mut().expect("a pipeline in wall clock has tickets")
    }
}
