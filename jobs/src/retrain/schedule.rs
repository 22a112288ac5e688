//! When a retraining job runs. Pure: a job's state and an event give its next state and perhaps a run (C6). Nothing here reads a clock or a
//! file, so the same points and the same alarms always give the same runs.

use freshet_core::{Epoch, RetrainingDef, RetrainingTrigger};

/// What a job remembers between decision points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobState {
    /// The point of the last run that counts: not of one that was skipped.
    pub last: Option<Epoch>,
    /// The point of the run under way.
    pub running: Option<Epoch>,
}

#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A decision point of this job.
    Point { at: Epoch, sight: Sight<'a> },
    /// The run under way has ended. A skipped run counts as none: neither COOLDOWN nor SINCE LAST RUN begins with it, so that the next
    /// point tries again.
    Ended { skipped: bool },
}

/// What is known at a decision point.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The first epoch of the input: EVERY counts from it while there was no run.
    pub begun: Epoch,
    /// Whether the model has a live version.
    pub champion: bool,
    /// For each trigger of the job, in its order: why the monitor fires. None: it does not, or the trigger is no monitor.
    pub alarms: &'a [Option<String>],
}

/// The run that an event makes begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which triggers, and why.
    pub cause: String,
}

impl JobState {
    pub fn step(self, def: &RetrainingDef, event: Event) -> (JobState, Option<Start>) {
        match event {
            Event::Ended { skipped } => (JobState { last: if skipped { self.last } else { self.running }, running: None }, None),
            // A trigger during a run or its cooldown makes no run; it is not kept for later either: the next point looks anew.
            Event::Point { .. } if self.running.is_some() => (self, None),
            Event::Point { at, .. } if self.cools(def, at) => (self, None),
            Event::Point { at, sight } => match self.cause(def, at, sight) {
                Some(cause) => (JobState { running: Some(at), ..self }, Some(Start { cause })),
                None => (self, None),
            },
        }
    }

    /// COOLDOWN, from the point of the last run.
    fn cools(self, def: &RetrainingDef, at: Epoch) -> bool {
        self.last.is_some_and(|last| at.0 - last.0 < def.cooldown_ms)
    }

    fn cause(self, def: &RetrainingDef, at: Epoch, sight: Sight) -> Option<String> {
        if !sight.champion
            && let Some(first) = def.first_at
        {
            return (at >= first).then(|| "first".to_string());
        }
        let mut drift = Vec::new();
        let mut every = Vec::new();
        for (trigger, alarm) in def.triggers.iter().zip(sight.alarms) {
            match trigger {
                RetrainingTrigger::Drift { .. } => drift.extend(alarm.clone()),
                RetrainingTrigger::Every { ms } => {
                    if at.0.saturating_sub(self.last.unwrap_or(sight.begun).0) >= *ms {
                        every.push(format!("every {}", length(*ms)));
                    }
                }
            }
        }
        drift.extend(every);
        (!drift.is_empty()).then(|| drift.join("; "))
    }
}

/// Whether a job decides at this instant.
pub fn is_point(def: &RetrainingDef, at: Epoch) -> bool {
    def.first_at == Some(at) || def.grids_ms.iter().any(|grid| at.0.is_multiple_of(*grid))
}

/// The least decision point of these jobs after `after`.
pub fn next_point(jobs: &[RetrainingDef], after: Epoch) -> Option<Epoch> {
    let grids = jobs.iter().flat_map(|job| &job.grids_ms).map(|grid| (after.0 / grid + 1) * grid);
    let firsts = jobs.iter().filter_map(|job| job.first_at).map(|at| at.0).filter(|at| *at > after.0);
    grids.chain(firsts).min().map(Epoch)
}

/// `60 days`, `1 hour`, `90 minutes`: the largest unit that divides.
fn length(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)).unwrap_or((1, "millisecond"));
    let count = ms / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
