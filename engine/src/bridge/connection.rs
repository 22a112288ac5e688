//! The connector behind a source. In: polls. Out: batches, or the news that there are none. What is away is tried again, less and less often,
//! and everybody else goes on meanwhile; nothing is lost, since a source goes on where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::{ClockKind, Connectors, Error, Kind, Poll, Result, Source, SourceBatch, SourceDef, State};

use crate::bridge::computed::complete;
use crate::bridge::retry::Backoff;
use crate::metrics::Metrics;

/// How often a source is asked which partitions there are: until it knows, and in wall clock ever after.
const ASK_FIRST: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_millis(1_000);
/// How often a source is asked how it fares.
const REPORT: Duration = Duration::from_millis(100);
/// A trouble that lasts longer is written to the log: connecting takes less.
const TROUBLE: Duration = Duration::from_secs(2);

/// One connector and its state.
pub struct Connection {
    index: usize,
    clock: ClockKind,
    metrics: Arc<Metrics>,
    source: Link,
    backoff: Backoff,
    /// The partitions have been told.
    known: bool,
    asked: Option<Instant>,
    reported: Option<Instant>,
    shown: Option<(State, Option<String>)>,
    lag_rows: Option<u64>,
    /// The lag that others are told.
    told: Option<u64>,
    /// Since when it has had nothing to give.
    quiet: Option<Instant>,
    /// Since when it has had a trouble, and whether the log has it.
    troubled: Option<(Instant, bool)>,
}

enum Link {
    Open(Box<dyn Source>),
    /// What it reads from was away at start.
    Away(Arc<dyn Connectors>),
    Closed,
}

/// What one poll brought.
pub enum Polled {
    Rows(SourceBatch),
    /// These partitions exist.
    Partitions(Vec<u32>),
    /// Nothing more will come from this partition.
    PartitionEnded(u32),
    /// Nothing more will ever come.
    Ended,
    Nothing,
}

impl Connection {
    pub fn new(index: usize, clock: ClockKind, metrics: Arc<Metrics>) -> Connection {
        Connection {
            index,
            clock,
            metrics,
            source: Link::Closed,
            backoff: Backoff::new(index),
            known: false,
            asked: None,
            reported: None,
            shown: None,
            lag_rows: None,
            told: None,
            quiet: None,
            troubled: None,
        }
    }

    /// Opens the connector at these offsets, or leaves that for later if what it reads from is away. Errors: Invalid; Unavailable from
    /// connectors that cannot be kept.
    pub fn open(&mut self, def: &SourceDef, offsets: &[(u32, u64)], connectors: &dyn Connectors) -> Result<()> {
        match self.try_open(def, offsets, connectors) {
            Err(error) if error.kind == Kind::Unavailable => {
                let Some(shared) = connectors.shared() else { return Err(error) };
                self.source = Link::Away(shared);
                self.away(def, &error);
                Ok(())
            }
            opened => opened,
        }
    }

    fn try_open(&mut self, def: &SourceDef, offsets: &[(u32, u64)], connectors: &dyn Connectors) -> Result<()> {
        let mut source = connectors.open_source(&def.carried())?;
        if self.clock == ClockKind::Event && !source.is_bounded() {
            return Err(Error::invalid(format!("source {} never ends; clock = 'event' needs bounded sources (use clock = 'wall')", def.name)));
        }
        offsets.iter().try_for_each(|(partition, offset)| source.seek(*partition, *offset))?;
        self.source = Link::Open(source);
        self.show(State::Running, None);
        Ok(())
    }

    pub fn source(&mut self) -> Option<&mut dyn Source> {
        match &mut self.source {
            Link::Open(source) => Some(source.as_mut()),
            Link::Away(_) | Link::Closed => None,
        }
    }

    /// Errors: what the source fails with, but Unavailable.
    pub fn poll(&mut self, def: &SourceDef, offsets: impl Fn() -> Vec<(u32, u64)>, rows_max: usize) -> Result<Polled> {
        if !self.backoff.is_due() {
            return Ok(Polled::Nothing);
        }
        let polled = self.try_poll(def, offsets, rows_max);
        match polled {
            Err(error) if error.kind == Kind::Unavailable => {
                self.away(def, &error);
                Ok(Polled::Nothing)
            }
            Err(error) => {
                self.show(State::Failed, Some(error.message.clone()));
                Err(error)
            }
            Ok(polled) => {
                self.backoff.succeeded();
                self.report(def, &polled);
                Ok(polled)
            }
        }
    }

    fn try_poll(&mut self, def: &SourceDef, offsets: impl Fn() -> Vec<(u32, u64)>, rows_max: usize) -> Result<Polled> {
        if let Link::Away(connectors) = &self.source {
            let connectors = connectors.clone();
            self.try_open(def, &offsets(), connectors.as_ref())?;
        }
        let pause = if self.known { ASK_AGAIN } else { ASK_FIRST };
        let asks = !self.known || self.clock == ClockKind::Wall;
        let Link::Open(source) = &mut self.source else { return Ok(Polled::Nothing) };
        if asks && self.asked.is_none_or(|asked| asked.elapsed() >= pause) {
            self.asked = Some(Instant::now());
            if let Some(partitions) = source.partitions()? {
                self.known = true;
                return Ok(Polled::Partitions(partitions));
            }
        }
        Ok(match source.poll(rows_max)? {
            Poll::Batch(batch) => Polled::Rows(complete(def, batch)?),
            Poll::PartitionEnded(partition) => Polled::PartitionEnded(partition),
            Poll::Pending => Polled::Nothing,
            Poll::Ended => Polled::Ended,
        })
    }

    /// Everything that was there when the pipeline started has been read: history is over (T0b).
    pub fn has_caught_up(&self) -> bool {
        match self.lag_rows {
            Some(lag) => lag == 0 && self.quiet.is_some(),
            // Who does not know how much there is gets a second to bring more.
            None => self.is_quiet(),
        }
    }

    /// It has had nothing to give for a second.
    pub fn is_quiet(&self) -> bool {
        self.quiet.is_some_and(|since| since.elapsed() >= Duration::from_secs(1))
    }

    fn away(&mut self, def: &SourceDef, error: &Error) {
        let pause = self.backoff.failed();
        if !matches!(self.shown, Some((State::Retrying, _))) {
            tracing::warn!(source = %def.name, reason = %error, "a source is away; it is tried again until it is back");
        }
        tracing::debug!(source = %def.name, pause_ms = pause.as_millis() as u64, "a source is tried again later");
        if self.told.take().is_some() {
            self.metrics.source(self.index, |counts| counts.lag_rows = None);
        }
        self.show(State::Retrying, Some(error.message.clone()));
    }

    fn report(&mut self, def: &SourceDef, polled: &Polled) {
        match polled {
            Polled::Rows(_) => {
                self.quiet = None;
                if matches!(self.shown, Some((State::Idle, _))) {
                    self.show(State::Running, None);
                }
            }
            Polled::Nothing => self.quiet = self.quiet.or_else(|| Some(Instant::now())),
            _ => {}
        }
        if matches!(polled, Polled::Ended) {
            (self.lag_rows, self.told) = (Some(0), Some(0));
            self.metrics.source(self.index, |counts| counts.lag_rows = Some(0));
            return self.show(State::Ended, None);
        }
        if self.reported.is_some_and(|reported| reported.elapsed() < REPORT) {
            return;
        }
        self.reported = Some(Instant::now());
        let Link::Open(source) = &self.source else { return };
        let report = source.report();
        self.lag_rows = report.lag_rows;
        // What is away may hold more by now than it said last.
        let told = report.lag_rows.filter(|_| report.trouble.is_none());
        if self.told != told {
            self.told = told;
            self.metrics.source(self.index, |counts| counts.lag_rows = told);
        }
        self.log(def, report.trouble.as_deref());
        match report.trouble {
            Some(trouble) => self.show(State::Retrying, Some(trouble)),
            None if matches!(self.shown, Some((State::Idle, _))) => {}
            None => self.show(State::Running, None),
        }
    }

    /// Tells operators once of a trouble that lasts, and of its end.
    fn log(&mut self, def: &SourceDef, trouble: Option<&str>) {
        match (trouble, self.troubled) {
            (None, None) | (Some(_), Some((_, true))) => {}
            (Some(_), None) => self.troubled = Some((Instant::now(), false)),
            (Some(reason), Some((since, false))) => {
                if since.elapsed() >= TROUBLE {
                    tracing::warn!(source = %def.name, reason, "a source cannot read; it goes on as soon as it can");
                    self.troubled = Some((since, true));
                }
            }
            (None, Some((_, told))) => {
                if told {
                    tracing::info!(source = %def.name, "a source reads again");
                }
                self.troubled = None;
            }
        }
    }

    /// No rows have come for the idle timeout.
    pub fn show_idle(&mut self) {
        if matches!(self.shown, Some((State::Running, _))) {
            self.show(State::Idle, None);
        }
    }

    pub fn show_ended(&mut self) {
        self.show(State::Ended, None);
    }

    fn show(&mut self, state: State, reason: Option<String>) {
        if self.shown.as_ref().is_none_or(|shown| shown.0 != state || shown.1 != reason) {
            self.metrics.source(self.index, |counts| counts.state.show(state, reason.clone()));
            self.shown = Some((state, reason));
        }
    }
}
