//! From sources to steps. In: polled batches. Out: to every worker the same sequence of steps, each with its share of the rows.
//!
//! One thread gives every record its epoch, merges the sources by epoch, cuts steps, keeps the pace and takes checkpoints. A step ends
//! at an epoch that every source has passed, so everything up to it is complete once the workers have closed it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use freshet_core::{BadData, Batch, ClockKind, Counts, DeadLetter, Epoch, Error, Poll, Result, Source, SourceDef};

use crate::bridge::clock::machine_now;
use crate::bridge::pace::Pace;
use crate::bridge::partition::PartitionClock;
use crate::bridge::{Command, Decisions, Part, SinkThread, SourceOffset, Stop, ViewLog};
use crate::checkpoint::{Checkpointer, Cut};
use crate::config::{EngineConfig, StepCut};
use crate::metrics::Metrics;
use crate::operators::ErrorRows;

/// Wall clock: one tick, one epoch. 10 ms: the knee between progress cost and latency.
const TICK: Duration = Duration::from_millis(10);
/// Rows one source may bring per tick.
const TICK_ROWS: usize = 16_384;
/// A row this far ahead of the machine's clock waits for its time; further ahead it is quarantined (T13).
const MAX_SKEW_MS: u64 = 60_000;

/// One source and what was read of it but not yet handed out.
pub struct SourceInput {
    pub index: usize,
    pub def: SourceDef,
    pub source: Box<dyn Source>,
    pub late: Arc<ViewLog>,
    pub dead_letters: Arc<ViewLog>,
    clock: PartitionClock,
    next_offset: u64,
    buffer: VecDeque<Buffered>,
    buffered_rows: usize,
    ended: bool,
    /// Rows up to here were handed out before a restore and come again.
    restored: Option<Epoch>,
}

/// Rows with epochs, and where their source stood before them.
struct Buffered {
    batch: Batch,
    before: SourceOffset,
}

pub struct Ingest {
    pub clock: ClockKind,
    pub config: EngineConfig,
    pub sources: Vec<SourceInput>,
    pub workers: Vec<Sender<Command>>,
    pub metrics: Arc<Metrics>,
    pub sinks: Arc<Vec<SinkThread>>,
    pub logs: Vec<Arc<ViewLog>>,
    pub decisions: Decisions,
    pub names: Arc<[String]>,
    pub checkpointer: Option<Checkpointer>,
    /// The last epoch handed out.
    pub last: Option<Epoch>,
    pub pace: Pace,
    pub checkpointed: Instant,
    /// Rows wait for their time outside any state: their source's offset is already past them, so no checkpoint may be taken.
    pub holding: bool,
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

impl SourceInput {
    pub fn new(index: usize, def: SourceDef, source: Box<dyn Source>, late: Arc<ViewLog>, dead_letters: Arc<ViewLog>) -> SourceInput {
        SourceInput {
            index,
            def,
            source,
            late,
            dead_letters,
            clock: PartitionClock::default(),
            next_offset: 0,
            buffer: VecDeque::new(),
            buffered_rows: 0,
            ended: false,
            restored: None,
        }
    }

    /// Goes on where a checkpoint of `epoch` stood.
    pub fn restore(&mut self, offset: SourceOffset, epoch: Epoch) -> Result<()> {
        self.source.seek(offset.partition, offset.offset)?;
        self.next_offset = offset.offset;
        self.clock = offset.clock;
        self.restored = Some(epoch);
        Ok(())
    }

    /// Where to go on after everything handed out so far.
    fn offset(&self) -> SourceOffset {
        match self.buffer.front() {
            Some(buffered) => buffered.before.clone(),
            None => SourceOffset { partition: 0, offset: self.next_offset, clock: self.clock.clone() },
        }
    }

    /// The last epoch read; more of it may come unless the source has ended.
    fn reached(&self) -> Option<u64> {
        self.buffer.back().map(|buffered| buffered.batch.epoch(buffered.batch.len() - 1).0)
    }

    /// Reads one batch. False if there was nothing to read.
    fn read(&mut self, rows_max: usize, ticket: Option<Epoch>, metrics: &Metrics, names: &Arc<[String]>, limits: &EngineConfig) -> Result<bool> {
        let polled = match self.source.poll(rows_max)? {
            Poll::Pending => return Ok(false),
            Poll::Ended | Poll::PartitionEnded(_) => {
                self.ended = true;
                metrics.source(self.index, |counts| counts.ended = true);
                return Ok(false);
            }
            Poll::Batch(batch) => batch,
        };
        if polled.partition != 0 {
            return Err(Error::internal(format!("source {}: several partitions need a clock each, which this build does not have", self.def.name)));
        }
        let before = SourceOffset { partition: polled.partition, offset: self.next_offset, clock: self.clock.clone() };
        self.next_offset = polled.next_offset;
        let assigned = self.clock.assign(self.index, &self.def, polled, ticket)?;
        self.bury(&assigned.dead_letters, metrics, names)?;
        if let Some(late) = assigned.late.map(|late| self.fresh(late)).filter(|late| !late.is_empty()) {
            metrics.source(self.index, |counts| counts.late_rows += late.len() as u64);
            self.late.append(late, Epoch::ZERO);
        }
        let rows = self.within(self.fresh(assigned.rows), limits);
        let watermark = self.clock.watermark(self.def.watermark_delay_ms);
        metrics.source(self.index, |counts| {
            counts.rows += rows.len() as u64;
            counts.watermark = watermark.map(|epoch| epoch.0);
        });
        self.keep(rows, before);
        Ok(true)
    }

    /// The rows that are input: not below `from`, and before `until`, where the source ends.
    fn within(&mut self, batch: Batch, limits: &EngineConfig) -> Batch {
        let batch = match limits.from.get(&self.def.name) {
            Some(from) => batch.split_at(*from).1,
            None => batch,
        };
        let Some(until) = limits.until else { return batch };
        let (batch, after) = batch.split_at(until);
        self.ended |= !after.is_empty();
        batch
    }

    fn keep(&mut self, batch: Batch, before: SourceOffset) {
        if !batch.is_empty() {
            self.buffered_rows += batch.len();
            self.buffer.push_back(Buffered { batch, before });
        }
    }

    /// Without the rows that a restored state holds already.
    fn fresh(&self, batch: Batch) -> Batch {
        let Some(restored) = self.restored else { return batch };
        let first = (0..batch.len()).find(|row| batch.epoch(*row) > restored).unwrap_or(batch.len());
        batch.slice(first, batch.len() - first)
    }

    fn bury(&self, letters: &[(Epoch, DeadLetter)], metrics: &Metrics, names: &Arc<[String]>) -> Result<()> {
        let mut rows = ErrorRows::new(&format!("source {}", self.def.name), names.clone());
        for (epoch, letter) in letters.iter().filter(|(epoch, _)| self.restored.is_none_or(|restored| *epoch > restored)) {
            let place = || format!("source {}, partition {}, record {}, field {:?}", self.def.name, letter.partition, letter.offset, letter.field);
            if self.def.bad_data == BadData::Fail {
                return Err(Error::data(format!("{}: {} (bad_data = 'fail')", place(), letter.reason)));
            }
            metrics.dead_letter(self.index, &letter.reason);
            let position = (self.index as u64) << 56 | u64::from(letter.partition & 0xffff) << 40 | (letter.offset + 1);
            rows.push_at(epoch.0, 1, position, &letter.field, &letter.reason, Some(&String::from_utf8_lossy(&letter.raw)));
        }
        if self.def.bad_data == BadData::DeadLetter
            && let Some(batch) = rows.finish()
        {
            self.dead_letters.append(batch, Epoch::ZERO);
        }
        Ok(())
    }

    /// Takes the buffered rows with epochs up to `end`.
    fn take_upto(&mut self, end: Epoch) -> Vec<Batch> {
        let mut taken = Vec::new();
        while let Some(front) = self.buffer.front_mut() {
            let batch = &front.batch;
            let count = match batch.epochs() {
                Counts::Const(epoch) => {
                    if *epoch <= end.0 {
                        batch.len()
                    } else {
                        0
                    }
                }
                Counts::Each(epochs) => epochs.partition_point(|epoch| *epoch <= end.0),
            };
            self.buffered_rows -= count;
            if count == batch.len() {
                taken.extend(self.buffer.pop_front().map(|buffered| buffered.batch));
                continue;
            }
            if count > 0 {
                taken.push(batch.slice(0, count));
                front.batch = batch.slice(count, batch.len() - count);
            }
            break;
        }
        taken
    }

    /// The first `count` buffered epochs below `bound`, repeated per row.
    fn epochs_below(&self, bound: u64, count: usize) -> impl Iterator<Item = u64> + '_ {
        let rows = self.buffer.iter().flat_map(|buffered| (0..buffered.batch.len()).map(|row| buffered.batch.epoch(row).0));
        rows.take_while(move |epoch| *epoch < bound).take(count)
    }
}

impl Ingest {
    /// Runs until the sources end or the pipeline is stopped, then takes a last checkpoint and stops the workers.
    pub fn run(mut self) {
        let end = match self.clock {
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

    /// Closes what was handed out, makes sinks visible and state durable.
    fn end(&mut self, stop: Stop) -> IngestEnd {
        if !self.pace.drain() {
            return Ok(Stop::Requested);
        }
        self.checkpoint()?;
        for sink in self.sinks.iter() {
            sink.flush()?;
        }
        Ok(stop)
    }

    fn run_event(&mut self) -> IngestEnd {
        for input in &self.sources {
            if !input.source.is_bounded() {
                return Err(Error::invalid(format!(
                    "source {} never ends; clock = 'event' needs bounded sources (use clock = 'wall')",
                    input.def.name
                )));
            }
        }
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
        let first = self.sources.iter().filter(timed).filter_map(|input| input.buffer.front().map(|buffered| buffered.batch.epoch(0))).min();
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
        loop {
            let mut idle = true;
            for input in self.sources.iter_mut() {
                while !input.ended && input.buffered_rows < rows {
                    if self.metrics.stop_requested() {
                        return Ok(Next::Nothing);
                    }
                    if !input.read(rows.clamp(1024, 65_536), None, &self.metrics, &self.names, &self.config)? {
                        break;
                    }
                    idle = false;
                }
            }
            // An epoch is complete in a source once the source has gone beyond it.
            let bound = self.sources.iter().filter(|input| !input.ended).map(|input| input.reached().unwrap_or(0)).min();
            if !self.decisions.has_begun() && bound != Some(0) {
                self.begin_decisions();
            }
            let barrier = self.decisions.barrier().map_or(u64::MAX, |barrier| barrier.0);
            if let Some(end) = self.cut(bound.unwrap_or(u64::MAX).min(barrier), rows) {
                return Ok(Next::Step(end));
            }
            if bound.unwrap_or(u64::MAX) >= barrier && barrier != u64::MAX && self.comes_to(barrier) {
                return Ok(Next::Barrier(Epoch(barrier)));
            }
            if bound.is_none() {
                return Ok(Next::Nothing);
            }
            let stuck: Vec<usize> =
                (0..self.sources.len()).filter(|index| self.sources[*index].reached().unwrap_or(0) == bound.unwrap_or(0)).collect();
            for index in stuck {
                let input = &mut self.sources[index];
                idle &= input.ended || !input.read(65_536, None, &self.metrics, &self.names, &self.config)?;
            }
            if idle && self.sources.iter().any(|input| !input.ended) {
                self.metrics.wait(Duration::from_millis(1));
            }
        }
    }

    /// Whether the input reaches this far: rows wait behind it, or it is the very next instant. Once all sources have ended, time stands
    /// 1 ms after the greatest epoch (T0a).
    fn comes_to(&self, barrier: u64) -> bool {
        let waiting = self.sources.iter().any(|input| !input.ended || !input.buffer.is_empty());
        waiting || self.last.is_some_and(|last| last.0 + 1 >= barrier)
    }

    /// The last epoch of the next step, all of whose epochs lie below `bound`.
    fn cut(&self, bound: u64, rows: usize) -> Option<Epoch> {
        if let StepCut::Epochs(count) = self.config.cut {
            let mut distinct: BTreeSet<u64> = BTreeSet::new();
            for input in &self.sources {
                let mut of_source: BTreeSet<u64> = BTreeSet::new();
                for epoch in input.epochs_below(bound, usize::MAX) {
                    of_source.insert(epoch);
                    if of_source.len() > count {
                        break;
                    }
                }
                distinct.extend(of_source);
            }
            return distinct.iter().nth(count - 1).or(distinct.last()).map(|epoch| Epoch(*epoch));
        }
        if self.config.cut == StepCut::All && bound != self.decisions.barrier().map_or(u64::MAX, |barrier| barrier.0) {
            return None;
        }
        let mut first: Vec<u64> = self.sources.iter().flat_map(|input| input.epochs_below(bound, rows)).collect();
        if first.len() <= rows {
            return first.into_iter().max().map(Epoch);
        }
        let (before, nth, _) = first.select_nth_unstable(rows - 1);
        // The epoch at the limit may go on beyond it: the step ends before it, unless that leaves nothing.
        let nth = *nth;
        Some(before.iter().copied().filter(|epoch| *epoch < nth).max().map_or(Epoch(nth), Epoch))
    }

    fn run_wall(&mut self) -> IngestEnd {
        if let Some(input) = self.sources.iter().find(|input| input.def.arrival.is_some()) {
            return Err(Error::invalid(format!("source {}: ARRIVAL FOR needs clock = 'event'", input.def.name)));
        }
        let mut held: VecDeque<(u64, usize, Batch)> = VecDeque::new();
        loop {
            if !self.pace.wait_for_room() {
                return Ok(Stop::Requested);
            }
            let started = Instant::now();
            let ticket = self.ticket();
            for index in 0..self.sources.len() {
                let input = &mut self.sources[index];
                while !input.ended
                    && input.buffered_rows < TICK_ROWS
                    && input.read(TICK_ROWS, Some(ticket), &self.metrics, &self.names, &self.config)?
                {}
                let batches: Vec<Batch> = input.buffer.drain(..).map(|buffered| buffered.batch).collect();
                input.buffered_rows = 0;
                for batch in batches {
                    self.hold_future(index, batch, ticket, &mut held)?;
                }
            }
            let mut due = Vec::new();
            held.retain(|(at, index, batch)| {
                if *at <= ticket.0 {
                    due.push((*index, batch.clone()));
                }
                *at > ticket.0
            });
            for (index, batch) in due {
                let input = &mut self.sources[index];
                let entered = Batch::new(batch.rows().clone(), Counts::Const(ticket.0), batch.diffs().clone(), batch.positions().clone());
                let before = input.offset();
                input.keep(entered, before);
            }
            self.holding = !held.is_empty();
            let finished = held.is_empty() && self.sources.iter().all(|input| input.ended);
            self.send(ticket)?;
            if finished {
                return Ok(Stop::Finished);
            }
            if let Some(rest) = TICK.checked_sub(started.elapsed()) {
                self.metrics.wait(rest);
            }
        }
    }

    /// Rows whose event time has not come wait for it; rows far ahead are quarantined (T13). The others go back to the buffer.
    fn hold_future(&mut self, index: usize, batch: Batch, ticket: Epoch, held: &mut VecDeque<(u64, usize, Batch)>) -> Result<()> {
        let input = &mut self.sources[index];
        let before = input.offset();
        let Some(column) = input.def.event_time else {
            input.keep(batch, before);
            return Ok(());
        };
        let times = freshet_core::event_times(batch.column(column))?;
        let (mut now, mut letters) = (Vec::new(), Vec::new());
        for (row, time) in times.iter().enumerate() {
            let at = time.map_or(0, |time| time.epoch_ceil().0);
            if at <= ticket.0 {
                now.push(row as u32);
            } else if at <= ticket.0 + MAX_SKEW_MS {
                held.push_back((at, index, batch.slice(row, 1)));
            } else {
                let field = input.def.schema.field(column).name().clone();
                let offset = (batch.position(row) & 0xff_ffff_ffff) - 1;
                let reason = format!("event time is more than {MAX_SKEW_MS} ms ahead of the clock");
                letters.push((ticket, DeadLetter { offset, field, reason, ..DeadLetter::default() }));
            }
        }
        input.bury(&letters, &self.metrics, &self.names)?;
        input.keep(if now.len() == batch.len() { batch } else { batch.take(&now) }, before);
        Ok(())
    }

    /// The next ticket: after the last one, and not before the machine's clock (T0c).
    fn ticket(&self) -> Epoch {
        let clock = machine_now().0;
        Epoch(self.last.map_or(0, |last| last.0 + 1).max(clock))
    }

    fn send(&mut self, end: Epoch) -> Result<()> {
        let workers = self.workers.len();
        let mut shares: Vec<Vec<(usize, Batch)>> = vec![Vec::new(); workers];
        let mut events = 0;
        for input in &mut self.sources {
            let batches = input.take_upto(end);
            let rows: usize = batches.iter().map(Batch::len).sum();
            events += rows as u64;
            if rows > 0 {
                self.metrics.source(input.index, |counts| counts.epoch = end.0);
            }
            for batch in batches {
                let share = batch.len().div_ceil(workers);
                for (worker, offset) in (0..batch.len()).step_by(share).enumerate() {
                    shares[worker].push((input.index, batch.slice(offset, share.min(batch.len() - offset))));
                }
            }
        }
        for (worker, batches) in self.workers.iter().zip(shares) {
            worker.send(Command::Step { end, batches }).map_err(|_| Error::internal("a worker has stopped"))?;
        }
        self.last = Some(end);
        self.metrics.epoch.store(end.0, Relaxed);
        self.metrics.events.fetch_add(events, Relaxed);
        self.pace.opened(end, events);
        let due = self.checkpointed.elapsed() >= Duration::from_millis(self.config.checkpoint_interval_ms);
        if self.config.checkpoint_every_step || due {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes everything up to the last step durable. The pipeline is drained first: the frontier is the barrier.
    fn checkpoint(&mut self) -> Result<()> {
        self.checkpointed = Instant::now();
        if self.holding {
            return Ok(());
        }
        let (Some(checkpointer), Some(epoch)) = (&mut self.checkpointer, self.last) else { return Ok(()) };
        if !self.pace.drain() {
            return Ok(());
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
        let sinks = self.sinks.iter().map(|sink| Ok((sink.name.clone(), sink.flush()?))).collect::<Result<_>>()?;
        let cut = Cut {
            epoch,
            events: self.metrics.events.load(Relaxed),
            parts,
            sources: self.sources.iter().map(|input| (input.def.name.clone(), input.offset())).collect(),
            sinks,
        };
        let bytes = checkpointer.write(cut, &self.logs)?;
        self.metrics.checkpointed(epoch, bytes);
        Ok(())
    }
}
