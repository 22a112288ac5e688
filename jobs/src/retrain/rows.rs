//! What SQL sees of runs and versions: one row each, of the columns core declares. Nothing of the machine's time is in them (C9).

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use freshet_core::{Epoch, Result, runs_schema, versions_schema};
use freshet_inference::{CreatedBy, VersionInfo};

use crate::retrain::journal::RunRecord;

/// A row of `runs(job)`. The run has ended.
pub fn run_row(run: &RunRecord) -> Result<RecordBatch> {
    let verdict = run.verdict.as_ref();
    let data = run.data.as_ref();
    let columns = vec![
        text(Some(&run.run_id)),
        time(Some(run.decided_at)),
        text(Some(&run.cause)),
        text(run.result.map(|result| result.name())),
        text(run.reason.as_deref()),
        number(run.version.map(u64::from)),
        number(run.champion.map(u64::from)),
        text(verdict.and_then(|verdict| verdict.metric.as_deref())),
        float(verdict.and_then(|verdict| verdict.challenger_value)),
        float(verdict.and_then(|verdict| verdict.champion_value)),
        number(data.map(|data| data.train_rows)),
        number(data.map(|data| data.holdout_rows)),
        number(data.map(|data| data.null_labels)),
    ];
    Ok(RecordBatch::try_new(runs_schema(), columns)?)
}

/// A row of `versions(model)`.
pub fn version_row(info: &VersionInfo, registered_at: Epoch, promoted: bool) -> Result<RecordBatch> {
    let run = match &info.created_by {
        CreatedBy::Run(run) => Some(run),
        CreatedBy::Script => None,
    };
    let columns = vec![
        number(Some(u64::from(info.version))),
        time(Some(registered_at)),
        text(run.map(|run| run.run_id.as_str())),
        text(run.map(|run| run.job.as_str())),
        Arc::new(BooleanArray::from(vec![promoted])) as ArrayRef,
        Arc::new(BooleanArray::from(vec![info.batch_invariant])) as ArrayRef,
        text(Some(&info.sha256)),
        number(run.map(|run| run.training.rows)),
        time(run.map(|run| run.training.from)),
        time(run.map(|run| run.training.until)),
    ];
    Ok(RecordBatch::try_new(versions_schema(), columns)?)
}

fn text(value: Option<&str>) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

fn number(value: Option<u64>) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))]))
}

fn float(value: Option<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(vec![value]))
}

fn time(value: Option<Epoch>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(vec![value.map(|value| i64::try_from(value.0).unwrap_or(i64::MAX))]))
}
