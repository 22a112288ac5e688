//! Retraining as a saga in logical time (C6): a decision point, training data, the trainer, validation, a version, a control record; written
//! down after each step. Pure parts (`schedule.rs`, `saga.rs`, `verdict.rs`, `metrics.rs`) decide; `runner.rs` and `control.rs` perform.
//!
//! A skipped run (too few rows) counts as none: COOLDOWN and SINCE LAST RUN do not begin with it, and the next point tries again. A failed run
//! does count, so that a broken trainer is not run at every point.

mod alarms;
mod control;
mod files;
mod journal;
mod metrics;
mod report;
mod rows;
mod runner;
mod saga;
mod schedule;
mod scoring;
mod trainer;
mod trainer_log;
mod training;
mod verdict;
mod wiring;

pub use files::write_parquet;
pub use journal::{Journal, RunRecord, RunResult};
pub use report::not_as_served;
pub use trainer::kill_trainers;
pub use training::{Asked, TrainingEngine, TrainingRows, named};
pub use wiring::{Place, ProgramPlans, open_control};
