//! One source on its way into steps. In: what its connector yields. Out: rows of complete epochs, input and late ones apart.
//!
//! Each partition has a clock, an offset and a buffer of its own. Rows leave the buffers in epoch order, so what is handed out does not depend
//! on the order in which partitions were polled. What was polled is never forgotten: it is in a buffer, held for its time, or handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use freshet_core::{
    BadData, Batch, Bound, ClockKind, Connectors, DeadLetter, Epoch, Error, EventTime, Kind, Result, SCRIPT_PARTITION, SourceBatch, SourceDef,
    event_times,
};
use serde::{Deserialize, Serialize};

use crate::bridge::computed::complete;
use crate::bridge::connection::{Connection, Polled};
use crate::bridge::lateness::Lateness;
use crate::bridge::partition::{PartitionClock, Stamp};
use crate::bridge::partition_input::{PartitionInput, at_epoch, bytes_of};
use crate::bridge::watermark::{PartitionState, Watermark};
use crate::bridge::{DeadLetterBox, Positions, Progress, SourceOffset, ViewLog, Watermarks};
use crate::metrics::Metrics;

/// Rows of one source that wait for their time (T13). A source with more is not read until some of them have entered.
pub const HELD_ROWS_MAX: usize = 262_144;
/// Rows a partition of the event clock may be ahead before its source is asked to pause it, and when it is read again.
const AHEAD_ROWS_MAX: usize = 131_072;
const AHEAD_ROWS_MIN: usize = 32_768;
/// Bytes that may wait in the buffers of one source: enough for partitions that lie hours apart, little beside the state of a view.
const BUFFERED_BYTES_MAX: usize = 1 << 30;

/// What a checkpoint keeps of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyState")]
pub struct SourceState {
    pub partitions: Vec<SourceOffset>,
    pub lateness: Lateness,
    pub watermark: Option<Epoch>,
    /// T23; None: whole from its beginning.
    pub complete_since: Option<Epoch>,
    pub closing: Watermark,
}

/// A source of one partition was once kept as its offset alone.
#[derive(Deserialize)]
struct AnyState {
    partitions: Option<Vec<SourceOffset>>,
    lateness: Option<Lateness>,
    watermark: Option<Epoch>,
    complete_since: Option<Epoch>,
    closing: Option<Watermark>,
    partition: Option<u32>,
    offset: Option<u64>,
    clock: Option<PartitionClock>,
}

impl From<AnyState> for SourceState {
    fn from(any: AnyState) -> SourceState {
        let one = || Some(vec![SourceOffset { partition: any.partition?, offset: any.offset?, clock: any.clock.clone()? }]);
        let partitions = any.partitions.clone().or_else(one).unwrap_or_default();
        SourceState {
            partitions,
            lateness: any.lateness.unwrap_or_default(),
            watermark: any.watermark,
            complete_since: any.complete_since,
            closing: any.closing.unwrap_or_default(),
        }
    }
}

/// News of a source.
enum News {
    Rows(SourceBatch),
    Other,
}

/// What a source shares with the rest of the pipeline.
#[derive(Clone)]
pub struct Around {
    pub clock: ClockKind,
    pub metrics: Arc<Metrics>,
    pub positions: Arc<Positions>,
    /// Rows of earlier epochs are no input.
    pub from: Option<Epoch>,
    /// Rows of this epoch and later are no input.
    pub until: Option<Epoch>,
    pub times: Times,
}

/// Who is told how far the time of sources has come.
#[derive(Clone)]
pub struct Times {
    pub watermarks: Arc<Watermarks>,
    /// Nobody asks below what is settled.
    pub progress: Arc<Progress>,
    /// Windows close by them.
    pub closes: bool,
}

/// One source and what was read of it but not yet handed out.
pub struct SourceInput {
    pub index: usize,
    pub def: SourceDef,
    /// Nothing more will come.
    pub ended: bool,
    around: Around,
    late: Arc<ViewLog>,
    dead_letters: DeadLetterBox,
    connection: Connection,
    partitions: BTreeMap<u32, PartitionInput>,
    /// The source has said which partitions there are.
    known: bool,
    /// Rows up to here were handed out before a restore and come again.
    restored: Option<Epoch>,
    lateness: Lateness,
    watermark: Option<Epoch>,
    /// Of windows that close; followed where one does.
    closing: Watermark,
    complete_since: Option<Epoch>,
    /// Gathered for the next ticket.
    gathered: Vec<SourceBatch>,
    gathered_rows: usize,
    gathered_bytes: usize,
    /// Rows that wait for their time, by the first epoch they may enter at.
    held: BTreeMap<u64, Vec<(u32, Batch)>>,
    held_rows: usize,
}

impl SourceInput {
    pub fn new(index: usize, def: SourceDef, around: Around, late: Arc<ViewLog>, dead_letters: DeadLetterBox) -> SourceInput {
        let connection = Connection::new(index, around.clock, around.metrics.clone());
        SourceInput {
            index,
            def,
            ended: false,
            around,
            late,
            dead_letters,
            connection,
            partitions: BTreeMap::new(),
            known: false,
            restored: None,
            lateness: Lateness::default(),
            watermark: None,
            closing: Watermark::default(),
            complete_since: None,
            gathered: Vec::new(),
            gathered_rows: 0,
            gathered_bytes: 0,
            held: BTreeMap::new(),
            held_rows: 0,
        }
    }

    /// Goes on where a checkpoint of `epoch` stood, with the rows that waited for their time there. Before `open`.
    pub fn restore(&mut self, state: &SourceState, held: Option<&Batch>, epoch: Epoch) {
        for offset in &state.partitions {
            let mut input = PartitionInput::new(offset.clock.clone(), offset.offset);
            // A partition that has had no row yet has no first epoch in event clock.
            input.settled = self.around.clock == ClockKind::Wall || input.clock.epoch() > 0;
            self.partitions.insert(offset.partition, input);
        }
        self.lateness = state.lateness.clone();
        self.closing = state.closing.clone();
        let reached = [(Bound::Watermark, self.closing.reached()), (Bound::Floor, self.lateness.bound())];
        for (bound, reached) in reached {
            reached.into_iter().for_each(|time| self.raise(bound, epoch, time));
        }
        self.watermark = state.watermark;
        self.complete_since = state.complete_since;
        self.around.metrics.source(self.index, |counts| counts.complete_since = state.complete_since);
        // In wall clock reading goes on at the very row after the last that was handed out.
        self.restored = Some(epoch).filter(|_| self.around.clock == ClockKind::Event);
        for row in 0..held.map_or(0, Batch::len) {
            let row = held.expect("it has rows").slice(row, 1);
            let (due, partition) = (row.epoch(0), (row.position(0) >> 40 & 0xffff) as u32);
            if let Some(input) = self.partitions.get_mut(&partition) {
                input.due = input.due.max(due);
            }
            self.hold(due.0, partition, row);
        }
        for (partition, input) in &self.partitions {
            self.around.positions.note(self.index, *partition, input.next_offset, epoch.max(input.due));
        }
    }

    /// Opens the connector, or leaves that for later if what it reads from is away. Errors: Invalid, Unavailable.
    pub fn open(&mut self, connectors: &dyn Connectors) -> Result<()> {
        if self.def.is_table() && !self.def.is_live_table() {
            // All it will ever have stands in the script.
            (self.known, self.ended) = (true, true);
            self.connection.show_ended();
            self.around.metrics.source(self.index, |counts| counts.ended = true);
            return Ok(());
        }
        let offsets = offsets_of(&self.def, &self.partitions);
        self.connection.open(&self.def, &offsets, connectors)
    }

    /// Takes in what the script itself inserts, where a checkpoint does not hold it: before anything else comes.
    pub fn enter_script(&mut self) -> Result<()> {
        if self.def.rows.is_empty() {
            return Ok(());
        }
        let from = self.partitions.get(&SCRIPT_PARTITION).map_or(0, |input| input.next_offset);
        let stamp = if self.around.clock == ClockKind::Event { Stamp::Event } else { Stamp::Script };
        let mut first = 0;
        for rows in self.def.rows.clone() {
            let end = first + rows.num_rows() as u64;
            if end > from {
                let skipped = from.saturating_sub(first);
                let rows = rows.slice(skipped as usize, (end - first - skipped) as usize);
                let offsets = (first + skipped..end).collect();
                let batch = SourceBatch { partition: SCRIPT_PARTITION, rows, diffs: None, offsets, dead_letters: Vec::new(), next_offset: end };
                self.admit(complete(&self.def, batch)?, stamp)?;
            }
            first = end;
        }
        self.partitions.entry(SCRIPT_PARTITION).or_insert_with(PartitionInput::unread).ended = true;
        Ok(())
    }

    /// Rows that were read but not handed out.
    pub fn buffered_rows(&self) -> usize {
        self.gathered_rows + self.held_rows + self.partitions.values().map(|input| input.rows).sum::<usize>()
    }

    pub fn buffered_bytes(&self) -> usize {
        self.gathered_bytes + self.partitions.values().map(|input| input.bytes).sum::<usize>()
    }

    /// After what may be handed out now nothing follows.
    pub fn will_be_done(&self) -> bool {
        self.ended && self.held_rows == 0
    }

    pub fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.gathered_rows >= rows_max || self.gathered_bytes >= bytes_max
    }

    /// Event clock: rows of this epoch or later may still come. None: nothing more will come.
    pub fn reached(&self) -> Option<u64> {
        match self.ended {
            true => None,
            false if !self.known => Some(0),
            false => self.partitions.values().filter(|input| !input.ended).map(|input| input.clock.epoch()).min(),
        }
    }

    /// The first epoch that waits to be handed out.
    pub fn first_epoch(&self) -> Option<Epoch> {
        self.partitions.values().filter_map(PartitionInput::first_epoch).min()
    }

    pub fn has_buffered(&self) -> bool {
        self.partitions.values().any(|input| input.rows > 0)
    }

    /// The first `count` buffered epochs below `bound` of each partition, repeated per row.
    pub fn epochs_below(&self, bound: u64, count: usize) -> impl Iterator<Item = impl Iterator<Item = u64> + '_> + '_ {
        self.partitions.values().map(move |input| input.epochs().take_while(move |epoch| *epoch < bound).take(count))
    }

    /// Reads one batch by its own times. False if there was nothing new.
    pub fn read(&mut self, rows_max: usize, stamp: Stamp) -> Result<bool> {
        match self.poll(rows_max)? {
            None => Ok(false),
            Some(News::Other) => Ok(true),
            Some(News::Rows(batch)) => {
                self.admit(batch, stamp)?;
                Ok(true)
            }
        }
    }

    /// Pauses partitions that are far ahead of `bound`, so that those at it are read. Errors: Data where that does not help.
    pub fn balance(&mut self, bound: u64) -> Result<()> {
        if self.partitions.len() < 2 {
            return Ok(());
        }
        if self.buffered_bytes() > BUFFERED_BYTES_MAX {
            return Err(self.too_far_apart());
        }
        let Some(source) = self.connection.source() else { return Ok(()) };
        for (partition, input) in &mut self.partitions {
            let ahead = input.clock.epoch() > bound && !input.ended;
            let paused = if input.paused { ahead && input.rows > AHEAD_ROWS_MIN } else { ahead && input.rows > AHEAD_ROWS_MAX };
            if paused != input.paused {
                source.pause(*partition, paused)?;
                input.paused = paused;
            }
        }
        Ok(())
    }

    fn too_far_apart(&self) -> Error {
        let behind = self.partitions.iter().filter(|(_, input)| !input.ended).min_by_key(|(_, input)| input.clock.epoch());
        Error::data(format!(
            "source {}: partition {} lies so far behind the others that more than {} MiB of their rows wait for it; write the partitions in step, or \
             use clock = 'wall'",
            self.def.name,
            behind.map_or(0, |(partition, _)| *partition),
            BUFFERED_BYTES_MAX >> 20
        ))
    }

    /// Wall clock: polls until the source has nothing, or this many rows or bytes wait for the next ticket. False if nothing came.
    pub fn gather(&mut self, rows_max: usize, bytes_max: usize) -> Result<bool> {
        let mut came = false;
        while !self.ended && self.gathered_rows < rows_max && self.gathered_bytes < bytes_max && self.held_rows < HELD_ROWS_MAX {
            match self.poll(rows_max - self.gathered_rows)? {
                None => break,
                Some(News::Other) => {}
                Some(News::Rows(batch)) => {
                    self.gathered_rows += batch.rows.num_rows().max(1);
                    self.gathered_bytes += batch.rows.columns().iter().map(bytes_of).sum::<usize>();
                    self.gathered.push(batch);
                    came = true;
                }
            }
        }
        Ok(came)
    }

    /// What was gathered, and what has waited for its time until now, enters with this ticket.
    pub fn enter(&mut self, ticket: Epoch) -> Result<()> {
        (self.gathered_rows, self.gathered_bytes) = (0, 0);
        for batch in std::mem::take(&mut self.gathered) {
            self.admit(batch, Stamp::Ticket(ticket))?;
        }
        while let Some(due) = self.held.first_entry().filter(|due| *due.key() <= ticket.0) {
            for (partition, batch) in due.remove() {
                self.held_rows -= batch.len();
                self.enter_late(partition, batch, ticket)?;
            }
        }
        self.readmit(ticket)
    }

    /// What comes in again takes this ticket, at the offsets it had; its dead letters leave, and where it stands is not moved by it.
    fn readmit(&mut self, ticket: Epoch) -> Result<()> {
        let Some(mut returning) = self.dead_letters.next(ticket) else { return Ok(()) };
        for batch in std::mem::take(&mut returning.batches) {
            let id = batch.partition;
            let input = self.partitions.entry(id).or_insert_with(PartitionInput::unread);
            let before = SourceOffset { partition: id, offset: input.next_offset, clock: input.clock.clone() };
            let assigned = input.clock.assign(self.index, &self.def, batch, Stamp::Ticket(ticket))?;
            let greatest = input.clock.greatest_event();
            if let Some((due, _)) = assigned.held.last_key_value() {
                input.due = input.due.max(Epoch(*due));
            }
            input.keep(assigned.rows, before, greatest);
            self.bury(&assigned.dead_letters)?;
            for (due, rows) in assigned.held {
                self.hold(due, id, rows);
            }
        }
        returning.done(ticket);
        Ok(())
    }

    /// Reads history: rows by their declared arrival, below `start` if they arrived before it (T0b). False if there was nothing new.
    pub fn read_history(&mut self, rows_max: usize, (now, start): (Epoch, Epoch), last: Option<Epoch>) -> Result<bool> {
        if let Some(last) = last {
            self.partitions.values_mut().for_each(|input| input.clock.advance(last));
        }
        let read = self.read(rows_max, Stamp::History { now })?;
        // A source that does not answer is not one that has nothing more.
        let (over, quiet) = (self.known && self.connection.has_caught_up(), self.known && self.connection.is_quiet());
        for (partition, input) in &mut self.partitions {
            let nothing_left = match self.connection.source().and_then(|source| source.has_more(*partition)) {
                Some(more) => !more,
                None => over || (quiet && !input.paused),
            };
            input.caught_up |= nothing_left || input.ended || input.clock.epoch() >= start.0;
        }
        Ok(read)
    }

    /// History below this epoch is complete. None: all of it has been read.
    pub fn history_reached(&self) -> Option<u64> {
        match self.ended {
            true => None,
            false if !self.known => Some(0),
            false => self.partitions.values().filter(|input| !input.caught_up).map(|input| input.clock.epoch()).min(),
        }
    }

    /// History that lies ahead of the clock takes the ticket like everything after it (T0b).
    pub fn restamp(&mut self, ticket: Epoch) {
        for input in self.partitions.values_mut() {
            input.clock.advance(Epoch(ticket.0 - 1));
            input.restamp(ticket);
        }
    }

    fn enter_late(&mut self, partition: u32, batch: Batch, ticket: Epoch) -> Result<()> {
        let column = self.def.event_time.expect("a row waits for its event time");
        let greatest = event_times(batch.column(column))?.into_iter().flatten().max().map(|time| time.0);
        let input = self.partitions.entry(partition).or_insert_with(PartitionInput::unread);
        greatest.into_iter().for_each(|event| input.clock.entered(event));
        let before = SourceOffset { partition, offset: input.next_offset, clock: input.clock.clone() };
        let greatest = input.clock.greatest_event();
        input.keep(at_epoch(&batch, ticket), before, greatest);
        Ok(())
    }

    fn hold(&mut self, due: u64, partition: u32, batch: Batch) {
        self.held_rows += batch.len();
        self.held.entry(due).or_default().push((partition, batch));
    }

    /// The first epoch at which a row that waits may enter.
    pub fn next_due(&self) -> Option<u64> {
        self.held.first_key_value().map(|(due, _)| *due)
    }

    /// Rows that wait for their time, their epoch being what they wait for; without those that would be read again after a restart.
    pub fn held(&self) -> Option<Batch> {
        let rows = self.held.iter().flat_map(|(due, batches)| batches.iter().map(|(partition, batch)| (*due, *partition, batch)));
        let kept = rows.map(|(due, partition, batch)| {
            let passed = self.partitions.get(&partition).map_or(u64::MAX, PartitionInput::passed);
            let is_past = (0..batch.len()).map(|row| Some((batch.position(row) & 0xff_ffff_ffff).saturating_sub(1) < passed));
            at_epoch(&batch.filter(&is_past.collect()), Epoch(due))
        });
        Batch::concat(&kept.collect::<Vec<_>>()).filter(|batch| !batch.is_empty())
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> SourceState {
        let exact = self.around.clock == ClockKind::Wall;
        let partitions =
            self.partitions.iter().map(|(partition, input)| if exact { input.exact_offset(*partition) } else { input.offset(*partition) });
        let partitions = partitions.collect();
        let (lateness, closing) = (self.lateness.clone(), self.closing.clone());
        SourceState { partitions, lateness, watermark: self.watermark, complete_since: self.complete_since, closing }
    }

    /// Takes the rows of epochs up to `end`: those that are input. Late ones are logged.
    pub fn take_upto(&mut self, end: Epoch) -> Result<Vec<Batch>> {
        let mut taken = Vec::new();
        for (partition, input) in &mut self.partitions {
            taken.extend(input.take_upto(end, self.def.event_time)?.into_iter().map(|batch| (*partition, batch)));
        }
        let came = !taken.is_empty();
        self.close_windows(&taken, end)?;
        let mut late = 0;
        if let (Some(lateness_ms), Some(column)) = (self.def.lateness_ms, self.def.event_time) {
            let idle_ms = self.idle_ms();
            let partitions: Vec<u32> = self.partitions.keys().copied().collect();
            let running = |partition: u32, epoch: u64| {
                let input = &self.partitions[&partition];
                !input.is_idle(idle_ms) && (!input.ended || input.cut || input.clock.epoch() >= epoch)
            };
            let (input, too_late) = self.lateness.judge(column, lateness_ms, taken, running, &partitions)?;
            self.lateness.bound().into_iter().for_each(|floor| self.raise(Bound::Floor, end, floor));
            late = too_late.iter().map(|batch| batch.len() as u64).sum();
            too_late.into_iter().for_each(|batch| self.late.append(batch, Epoch::ZERO));
            taken = input;
            if let Some(from) = self.around.from {
                taken =
                    taken.into_iter().map(|(partition, batch)| (partition, batch.split_at(from).1)).filter(|(_, batch)| !batch.is_empty()).collect();
            }
        }
        self.note(end);
        let watermark = self.raise_watermark();
        let rows: u64 = taken.iter().map(|(_, batch)| batch.len() as u64).sum();
        self.around.metrics.source_handed_out(self.index, end, (came, rows, late), watermark);
        Ok(taken.into_iter().map(|(_, batch)| batch).collect())
    }

    /// T12: the watermark after each epoch of the step.
    fn close_windows(&mut self, taken: &[(u32, Batch)], end: Epoch) -> Result<()> {
        let Some(column) = self.def.event_time.filter(|_| self.known && self.around.times.closes) else { return Ok(()) };
        let (idle_ms, delay_ms) = (self.idle_ms(), self.def.watermark_delay_ms);
        let partitions: Vec<u32> = self.partitions.keys().copied().collect();
        let state = |partition: u32, epoch: u64| match &self.partitions[&partition] {
            input if input.ended && !input.cut && input.clock.epoch() <= epoch => PartitionState::Ended,
            input if input.is_idle(idle_ms) => PartitionState::Idle,
            _ => PartitionState::Running,
        };
        for (epoch, time) in self.closing.take((column, delay_ms), taken, state, &partitions, end)? {
            self.raise(Bound::Watermark, epoch, time);
        }
        Ok(())
    }

    fn raise(&self, bound: Bound, epoch: Epoch, time: EventTime) {
        let Times { watermarks, progress, .. } = &self.around.times;
        watermarks.raise(self.index, bound, epoch, time, progress.settled());
    }

    /// Remembers which positions this step has reached.
    fn note(&mut self, end: Epoch) {
        for (partition, input) in &mut self.partitions {
            let passed = input.passed();
            if passed > input.noted {
                input.noted = passed;
                self.around.positions.note(self.index, *partition, passed, end.max(input.due));
            }
        }
    }

    /// T12: the least over the partitions that have not ended and are not idle of the greatest event time of their rows, never falling.
    fn raise_watermark(&mut self) -> Option<Epoch> {
        let idle_ms = self.idle_ms();
        if !self.partitions.is_empty() && self.partitions.values().all(|input| input.is_idle(idle_ms)) {
            self.connection.show_idle();
        }
        let running = self.partitions.values().filter(|input| (!input.ended || input.cut || input.rows > 0) && !input.is_idle(idle_ms));
        if self.known
            && let Some(least) = running.map(|input| input.handed).min().flatten()
        {
            let delay = i64::try_from(self.def.watermark_delay_ms).unwrap_or(i64::MAX);
            self.watermark = self.watermark.max(Some(EventTime(least).plus_ms(1 - delay).epoch_ceil()));
        }
        self.watermark
    }

    fn idle_ms(&self) -> Option<u64> {
        self.def.limits.idle_ms.filter(|_| self.around.clock == ClockKind::Wall)
    }

    /// Tells the source that what was handed out need not be sent again. What cannot be told now is told later.
    pub fn accept(&mut self) -> Result<()> {
        let Some(source) = self.connection.source() else { return Ok(()) };
        for (partition, input) in &mut self.partitions {
            let offset = input.passed();
            if offset <= input.accepted {
                continue;
            }
            match source.accepted(*partition, offset) {
                Ok(()) => input.accepted = offset,
                Err(error) if error.kind == Kind::Unavailable => tracing::debug!(source = %self.def.name, %error, "an acknowledgement waits"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What the source has to tell; None: nothing now.
    fn poll(&mut self, rows_max: usize) -> Result<Option<News>> {
        if self.ended {
            return Ok(None);
        }
        let (def, partitions) = (&self.def, &self.partitions);
        let polled = self.connection.poll(def, || offsets_of(def, partitions), rows_max)?;
        match polled {
            Polled::Nothing => return Ok(None),
            Polled::Rows(batch) => {
                self.join(batch.partition)?;
                return Ok(Some(News::Rows(batch)));
            }
            Polled::Partitions(partitions) => {
                let first = !self.known;
                for partition in partitions {
                    self.partitions.entry(partition).or_insert_with(PartitionInput::unread);
                }
                self.known = true;
                self.end_with_partitions();
                if !first {
                    // Asked again to learn of new ones: that is no news to wait for.
                    return Ok(None);
                }
            }
            Polled::PartitionEnded(partition) => {
                self.join(partition)?;
                self.partitions.entry(partition).or_insert_with(PartitionInput::unread).ended = true;
                self.end_with_partitions();
            }
            Polled::Ended => {
                self.partitions.values_mut().for_each(|input| input.ended = true);
                (self.known, self.ended) = (true, true);
                self.around.metrics.source(self.index, |counts| counts.ended = true);
            }
        }
        Ok(Some(News::Other))
    }

    /// Rows of this partition come. Errors: Data in event clock, where all partitions are known before time goes on.
    fn join(&mut self, partition: u32) -> Result<()> {
        if self.partitions.contains_key(&partition) {
            return Ok(());
        }
        if self.known && self.around.clock == ClockKind::Event {
            return Err(Error::data(format!(
                "source {}: partition {partition} has come up while the pipeline ran; with clock = 'event' all partitions must be there at the start",
                self.def.name
            )));
        }
        self.partitions.insert(partition, PartitionInput::unread());
        Ok(())
    }

    /// In event clock partitions are fixed, so a source has ended with the last of them.
    fn end_with_partitions(&mut self) {
        if self.around.clock == ClockKind::Event && self.known && self.partitions.values().all(|input| input.ended) {
            self.ended = true;
            self.connection.show_ended();
            self.around.metrics.source(self.index, |counts| counts.ended = true);
        }
    }

    /// Gives a batch its epochs and keeps it.
    fn admit(&mut self, batch: SourceBatch, stamp: Stamp) -> Result<()> {
        let (id, next_offset, came) = (batch.partition, batch.next_offset, batch.rows.num_rows() > 0);
        let input = self.partitions.entry(id).or_insert_with(PartitionInput::unread);
        let before = SourceOffset { partition: id, offset: input.next_offset, clock: input.clock.clone() };
        input.next_offset = next_offset;
        if input.cut {
            return Ok(());
        }
        if came {
            input.seen = Instant::now();
        }
        let assigned = input.clock.assign(self.index, &self.def, batch, stamp)?;
        let greatest = input.clock.greatest_event();
        if !input.settled {
            self.settle(id, &assigned.rows, stamp);
        }
        self.bury(&assigned.dead_letters)?;
        let mut rows = self.fresh(assigned.rows);
        if let Some(from) = self.around.from.filter(|_| self.def.lateness_ms.is_none()) {
            rows = rows.split_at(from).1;
        }
        let mut cut = false;
        if let Some(until) = self.around.until {
            let (within, after) = rows.split_at(until);
            (rows, cut) = (within, !after.is_empty());
        }
        let due = assigned.held.last_key_value().map(|(due, _)| Epoch(*due));
        for (due, rows) in assigned.held {
            self.hold(due, id, rows);
        }
        let input = self.partitions.get_mut(&id).expect("it was entered above");
        input.keep(rows, before, greatest);
        input.due = input.due.max(due.unwrap_or(Epoch::ZERO));
        if cut {
            (input.ended, input.cut) = (true, true);
            self.end_with_partitions();
        }
        Ok(())
    }

    /// T23: what began in the middle is whole from its first epoch on, a source from the last of those of its partitions.
    fn settle(&mut self, partition: u32, rows: &Batch, stamp: Stamp) {
        let first = match stamp {
            Stamp::Ticket(ticket) => Some(ticket),
            Stamp::Script => Some(Epoch::ZERO),
            Stamp::Event | Stamp::History { .. } => (!rows.is_empty()).then(|| rows.epoch(0)),
        };
        let Some(first) = first else { return };
        self.partitions.get_mut(&partition).expect("its batch was admitted").settled = true;
        if self.connection.source().is_some_and(|source| !source.is_whole(partition)) {
            self.complete_since = self.complete_since.max(Some(first));
            let since = self.complete_since;
            self.around.metrics.source(self.index, |counts| counts.complete_since = since);
        }
    }

    /// Without the rows that a restored state holds already.
    fn fresh(&self, batch: Batch) -> Batch {
        let Some(restored) = self.restored else { return batch };
        let first = (0..batch.len()).find(|row| batch.epoch(*row) > restored).unwrap_or(batch.len());
        batch.slice(first, batch.len() - first)
    }

    fn bury(&mut self, letters: &[(Epoch, DeadLetter)]) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(letters.len());
        for (epoch, letter) in letters.iter().filter(|(epoch, _)| self.restored.is_none_or(|restored| *epoch > restored)) {
            if self.def.bad_data == BadData::Fail {
                let DeadLetter { partition, offset, field, reason, origin, .. } = letter;
                let origin = if origin.is_empty() { String::new() } else { format!(" ({origin})") };
                return Err(Error::data(format!(
                    "source {}, partition {partition}, offset {offset}{origin}, field {field:?}: {reason} (bad_data = 'fail')",
                    self.def.name
                )));
            }
            self.around.metrics.dead_letter(self.index, &letter.reason);
            kept.push((*epoch, letter));
        }
        if self.def.bad_data == BadData::DeadLetter {
            self.dead_letters.keep(&kept);
        }
        Ok(())
    }
}

/// Where the connector goes on; it knows nothing of what the script inserts.
fn offsets_of(def: &SourceDef, partitions: &BTreeMap<u32, PartitionInput>) -> Vec<(u32, u64)> {
    let own = partitions.iter().filter(|(partition, _)| !def.is_table() || **partition != SCRIPT_PARTITION);
    own.map(|(partition, input)| (*partition, input.next_offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_from_when_sources_had_one_partition_is_read() {
        let old = r#"{"partition":0,"offset":7,"clock":{"reached":5,"epoch":6,"settled_event":null,"greatest_event":5,"far_rows":0}}"#;
        let state: SourceState = serde_json::from_str(old).unwrap();
        assert_eq!((state.partitions.len(), state.partitions[0].offset, state.partitions[0].clock.epoch()), (1, 7, 6));
        let again: SourceState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert_eq!(again, state);
    }
}
