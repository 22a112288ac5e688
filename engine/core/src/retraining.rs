//! Training sets and retraining jobs as data: when to train, on what, how to judge the result.

use arrow::datatypes::SchemaRef;

use crate::Epoch;

/// A training set as the script declares it. Its rows are computed from the input history by a plan of their own, never kept.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSetDef {
    pub name: String,
    /// Names of columns of `schema`: ID, TIME and LABEL.
    pub id: String,
    pub time: String,
    pub label: String,
    pub mode: TrainingMode,
    pub schema: SchemaRef,
}

/// Which arrivals a training value has seen (T4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrainingMode {
    /// s = q: what serving would have answered.
    #[default]
    AsServed,
    /// s = the end of the input: what is known in hindsight.
    EventTime,
}

/// A retraining job as the script declares it. Lengths are in logical milliseconds, the trainer's limits in the machine's.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrainingDef {
    pub name: String,
    /// Index in `Plan::models`.
    pub model: usize,
    /// Index in `Plan::training_sets`.
    pub training_set: usize,
    /// Training rows have spine times in [d − last, d − holdout − gap), holdout rows in [d − holdout, d).
    pub last_ms: u64,
    pub holdout_ms: u64,
    pub gap_ms: u64,
    /// The run's record has epoch d + delay.
    pub delay_ms: u64,
    pub rows_min: u64,
    pub command: String,
    pub timeout_ms: u64,
    /// The trainer must print a line this often; None: it need not.
    pub heartbeat_ms: Option<u64>,
    /// When the first version is trained; None: as soon as a trigger says so.
    pub first_at: Option<Epoch>,
    pub triggers: Vec<RetrainingTrigger>,
    pub cooldown_ms: u64,
    pub validation: Option<Validation>,
    /// Decision points are the multiples of these, and FIRST AT. Never empty.
    pub grids_ms: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RetrainingTrigger {
    /// The monitor of this name has fired at the point.
    Drift { monitor: String },
    /// So long since the point of the last run.
    Every { ms: u64 },
}

/// VALIDATE metric ON HOLDOUT AGAINST champion MARGIN m: the challenger must be better than champion − margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    pub metric: Metric,
    pub margin: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Auc,
    LogLoss,
}

impl Metric {
    pub fn sql(self) -> &'static str {
        match self {
            Metric::Auc => "auc",
            Metric::LogLoss => "log_loss",
        }
    }
}
