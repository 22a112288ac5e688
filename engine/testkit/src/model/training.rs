//! Training sets (T4, T6). In: a spine of (key, q). Out: one answer per spine row, in its order.

use freshet_core::{Epoch, ReadPoint, Value};

use crate::lives::Change;
use crate::model::{Answer, Event, FeatureModel};

/// What a training set asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpineRow {
    pub key: Vec<Value>,
    pub q: Epoch,
    /// The spine's own cut column, if it has one.
    pub cut: Option<Epoch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainingMode {
    /// s = q, or the spine's cut.
    AsServed,
    /// s = ∞.
    EventTime,
}

/// T4: what an online read of each spine row would have returned. T6: exactly one row out per row in.
pub fn training(view: &FeatureModel, changes: &[Change<Event>], spine: &[SpineRow], mode: TrainingMode) -> Vec<Answer> {
    spine
        .iter()
        .map(|row| {
            let s = match mode {
                TrainingMode::AsServed => row.cut.unwrap_or(row.q),
                TrainingMode::EventTime => Epoch::MAX,
            };
            view.read(changes, &row.key, ReadPoint { q: row.q, s })
        })
        .collect()
}

/// T4: a label row counts only if its arrival is below the job's decision time.
pub fn label_counts(arrival: Epoch, decision: Epoch) -> bool {
    arrival < decision
}
