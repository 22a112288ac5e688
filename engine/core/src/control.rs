//! The control plane as an input of the dataflow (C6): decisions at points of logical time, and the records they make.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{Epoch, Model, Reader, Reference, Result};

/// One record of `freshet.control`: a version of a model is there from its epoch on, for rows of greater epochs.
#[derive(Debug, Clone)]
pub struct ControlRecord {
    pub epoch: Epoch,
    /// Index in `Plan::models`.
    pub model: usize,
    /// Counts from 1 per model.
    pub version: u32,
    /// It becomes the live version (alias `champion`). Otherwise only `version => n` and `alias => 'challenger'` see it.
    pub promoted: bool,
    pub loaded: Arc<dyn Model>,
    pub reference: Arc<Reference>,
}

/// What a decision or the end of a run brings.
#[derive(Debug, Clone, Default)]
pub struct ControlOutput {
    pub records: Vec<ControlRecord>,
    /// Rows for `runs(job)` and `versions(model)`, under these names; they enter at the epoch of the call.
    /// Columns as in [`runs_schema`] and [`versions_schema`].
    pub rows: Vec<(String, RecordBatch)>,
}

/// Takes decisions. Called by the one thread that moves logical time; `decide` and `settle` come in the order of their epochs, and at one
/// epoch `settle` before `decide`. Everything it answers is a function of the input, the plan and what it recorded earlier.
pub trait Control: Send {
    /// Once, before the first step: all records with epochs up to `restored`; without a checkpoint those that are there from the start, of
    /// epoch 0, with their rows. Runs that
    /// were decided on up to `restored` and not yet settled then are pending again. Errors: Data for a damaged record.
    fn start(&mut self, restored: Option<Epoch>) -> Result<ControlOutput>;

    /// The least decision point greater than `after`; None if there is none ever.
    fn next_point(&self, after: Epoch) -> Option<Epoch>;

    /// Takes the decisions of `point`. Every epoch below it is complete and readable, `as_of` = point − 1; rows of the point itself are
    /// not in it. May start work in the background, whose result `settle` fetches. Errors: Internal, Unavailable (the pipeline stops).
    fn decide(&mut self, point: Epoch, reader: &dyn Reader) -> Result<ControlOutput>;

    /// The least epoch that time may not pass before it is settled.
    fn pending(&self) -> Option<Epoch>;

    /// The jobs with a run under way and the decision point of each, for the status.
    fn running(&self) -> Vec<(String, Epoch)>;

    /// Waits until what is pending at `epoch` has finished, failed or timed out. `None`: `stop` said so first, and it stays pending.
    fn settle(&mut self, epoch: Epoch, stop: &dyn Fn() -> bool) -> Result<Option<ControlOutput>>;
}

/// The columns of `runs(job)`: one row per finished run of a retraining job. Nothing of the machine's time is in it (C9).
pub fn runs_schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("run_id", DataType::Utf8),
        field("decided_at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        // Which triggers, and why: for a monitor the condition and its value.
        field("cause", DataType::Utf8),
        // 'promoted', 'rejected' or 'failed'.
        field("result", DataType::Utf8),
        // Why it was not promoted.
        field("reason", DataType::Utf8),
        field("version", DataType::Int64),
        field("champion", DataType::Int64),
        field("metric", DataType::Utf8),
        field("challenger_value", DataType::Float64),
        field("champion_value", DataType::Float64),
        field("train_rows", DataType::Int64),
        field("holdout_rows", DataType::Int64),
        // Rows of both that were left out because their label is NULL.
        field("null_labels", DataType::Int64),
    ]))
}

/// The columns of `versions(model)`: one row per version, with the lineage a query needs; the registry's file has all of it.
pub fn versions_schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let time = || DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![
        field("version", DataType::Int64),
        // Logical time: the epoch of its control record.
        field("registered_at", time()),
        field("run_id", DataType::Utf8),
        field("job", DataType::Utf8),
        field("promoted", DataType::Boolean),
        field("batch_invariant", DataType::Boolean),
        field("sha256", DataType::Utf8),
        field("train_rows", DataType::Int64),
        // Spine times of the training rows: [from, until).
        field("train_from", time()),
        field("train_until", time()),
    ]))
}
