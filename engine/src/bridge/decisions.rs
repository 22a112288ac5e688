//! The control plane beside the ingest thread: when logical time must stop for a decision, and what a decision changes (C6).
//!
//! Time waits at two kinds of epochs: before a decision point, until everything below it is complete and the decision is taken, and before
//! the epoch of a pending record, until the run behind it has ended. Both are functions of input and plan, so steps may be cut at will
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_core::{Batch, Control, ControlOutput, Counts, Diffs, Epoch, Error, Reader, Result};

use crate::bridge::{Routes, ViewLog};
use crate::metrics::Metrics;

pub struct Decisions {
    control: Option<Box<dyn Control>>,
    routes: Arc<Routes>,
    reader: Arc<dyn Reader>,
    logs: BTreeMap<String, Arc<ViewLog>>,
    /// The next decision point; None: there is none, or the input's first epoch is not known yet.
    point: Option<Epoch>,
    begun: bool,
}

impl Decisions {
    /// Goes on after `restored`, the epoch of the checkpoint, if there is one. Errors: the control's.
    pub fn open(
        mut control: Option<Box<dyn Control>>,
        routes: Arc<Routes>,
        reader: Arc<dyn Reader>,
        logs: BTreeMap<String, Arc<ViewLog>>,
        restored: Option<Epoch>,
    ) -> Result<Decisions> {
        let output = control.as_mut().map(|control| control.start(restored)).transpose()?.unwrap_or_default();
        let mut decisions = Decisions { control, routes, reader, logs, point: None, begun: false };
        match restored {
            // What was logged up to a checkpoint is in it.
            Some(_) => decisions.take(ControlOutput { rows: Vec::new(), ..output }, Epoch::ZERO)?,
            None => decisions.take(output, Epoch::ZERO)?,
        }
        if let Some(restored) = restored {
            decisions.begin(restored);
        }
        Ok(decisions)
    }

    /// The first epoch of the input is known: decision points lie after it. Later calls change nothing.
    pub fn begin(&mut self, first: Epoch) {
        if !self.begun {
            self.begun = true;
            self.point = self.control.as_ref().and_then(|control| control.next_point(first));
        }
    }

    pub fn has_begun(&self) -> bool {
        self.begun || self.control.is_none()
    }

    /// Rows from this epoch on must wait. None: nothing is to be decided any more.
    pub fn barrier(&self) -> Option<Epoch> {
        let pending = self.control.as_ref().and_then(|control| control.pending());
        self.point.into_iter().chain(pending).min()
    }

    /// Does what is to be done at the barrier; everything below it is complete. False: the pipeline was told to stop meanwhile.
    pub fn pass(&mut self, barrier: Epoch, metrics: &Metrics) -> Result<bool> {
        if !self.settle(barrier, metrics)? {
            return Ok(false);
        }
        if self.point == Some(barrier) {
            let control = self.control.as_mut().expect("there is a point because there is a control plane");
            let output = control.decide(barrier, self.reader.as_ref())?;
            self.point = control.next_point(barrier);
            metrics.set_running(control.running());
            self.take(output, barrier)?;
            // A command without delay is due at once.
            return self.settle(barrier, metrics);
        }
        Ok(true)
    }

    /// At the end of the input: waits for every run under way. Their records come too late for any row.
    pub fn finish(&mut self, metrics: &Metrics) -> Result<bool> {
        while let Some(pending) = self.control.as_ref().and_then(|control| control.pending()) {
            if !self.settle(pending, metrics)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn settle(&mut self, upto: Epoch, metrics: &Metrics) -> Result<bool> {
        while let Some(control) = &mut self.control
            && let Some(pending) = control.pending().filter(|pending| *pending <= upto)
        {
            let Some(output) = control.settle(pending, &|| metrics.stop_requested())? else { return Ok(false) };
            metrics.set_running(control.running());
            self.take(output, pending)?;
        }
        Ok(true)
    }

    fn take(&mut self, output: ControlOutput, epoch: Epoch) -> Result<()> {
        output.records.into_iter().for_each(|record| self.routes.add(record));
        for (name, rows) in output.rows {
            let log = self.logs.get(&name).ok_or_else(|| Error::internal(format!("the control plane writes {name}, which nothing declares")))?;
            if rows.num_rows() > 0 {
                log.append(Batch::new(rows, Counts::Const(epoch.0), Diffs::One, Counts::Const(0)), Epoch::ZERO);
            }
        }
        Ok(())
    }
}
