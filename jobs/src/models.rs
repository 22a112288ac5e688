//! `freshet models`: versions of models and where they come from, read from the data directory; the pipeline may run meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use freshet_core::Epoch;
use freshet_inference::{CreatedBy, Registry, VersionInfo};
use freshet_serving::epoch_date;

use crate::exit::{Failure, Outcome};
use crate::retrain::{Journal, RunRecord, RunResult};
use crate::rows::{RowFormat, format_rows};

/// A hash as people compare it.
const HASH_CHARS: usize = 12;

pub struct ModelsOptions {
    pub data_dir: PathBuf,
    pub format: RowFormat,
}

/// One row per version of every model.
pub fn list(options: &ModelsOptions) -> Outcome {
    let text = (|| {
        let (registry, journal) = open(&options.data_dir)?;
        let mut versions = Vec::new();
        for model in registry.models()? {
            for version in registry.versions(&model)? {
                let info = registry.load_info(&model, version)?;
                let promoted = promoted(&info, &journal);
                versions.push((info, promoted));
            }
        }
        let rows = table(&versions)?;
        anyhow::Ok(format_rows(rows.schema_ref(), std::slice::from_ref(&rows), options.format)?)
    })();
    print!("{}", text.map_err(Failure::wrong)?);
    Ok(0)
}

/// Everything about one version; without a number the last one.
pub fn show(options: &ModelsOptions, model: &str, version: Option<u32>) -> Outcome {
    let text = (|| {
        let (registry, journal) = open(&options.data_dir)?;
        let versions = registry.versions(model)?;
        let Some(last) = versions.last() else {
            bail!("there is no version of a model named {model}; there is {}", registry.models()?.join(", "));
        };
        let info = registry.load_info(model, version.unwrap_or(*last))?;
        match options.format {
            RowFormat::Json => Ok(serde_json::to_string_pretty(&info).context("a version as JSON")? + "\n"),
            RowFormat::Csv => bail!("a version is shown as table or json"),
            RowFormat::Table => Ok(lines(&info, promoted(&info, &journal))),
        }
    })();
    print!("{}", text.map_err(Failure::wrong)?);
    Ok(0)
}

fn open(data_dir: &Path) -> Result<(Registry, Vec<RunRecord>)> {
    let models = data_dir.join("models");
    ensure!(models.is_dir(), "{} holds no models; name the data directory of a pipeline with --data-dir", data_dir.display());
    let runs = data_dir.join("runs");
    let runs = if runs.is_dir() { Journal::open(runs)?.runs()?.into_values().collect() } else { Vec::new() };
    Ok((Registry::open(&models)?, runs))
}

/// None: its run has not ended.
fn promoted(info: &VersionInfo, runs: &[RunRecord]) -> Option<bool> {
    match &info.created_by {
        CreatedBy::Script => Some(true),
        CreatedBy::Run(lineage) => {
            let run = runs.iter().find(|run| run.run_id == lineage.run_id)?;
            run.result.map(|result| result == RunResult::Promoted)
        }
    }
}

fn table(versions: &[(VersionInfo, Option<bool>)]) -> Result<RecordBatch> {
    let run = |info: &VersionInfo| match &info.created_by {
        CreatedBy::Run(run) => Some(run.clone()),
        CreatedBy::Script => None,
    };
    let text = |of: &dyn Fn(&VersionInfo) -> Option<String>| Arc::new(StringArray::from_iter(versions.iter().map(|(info, _)| of(info)))) as ArrayRef;
    let number = |of: &dyn Fn(&VersionInfo) -> Option<u64>| {
        Arc::new(Int64Array::from_iter(versions.iter().map(|(info, _)| of(info).map(|number| number as i64)))) as ArrayRef
    };
    let promoted = Arc::new(BooleanArray::from_iter(versions.iter().map(|(_, promoted)| *promoted))) as ArrayRef;
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("model", text(&|info| Some(info.model.clone())), true),
        ("version", number(&|info| Some(u64::from(info.version))), true),
        ("promoted", promoted, true),
        ("run_id", text(&|info| Some(info.created_by.run_id().to_string())), true),
        ("trigger", text(&|info| run(info).map(|run| run.trigger)), true),
        ("train_rows", number(&|info| run(info).map(|run| run.training.rows)), true),
        ("batch_invariant", Arc::new(BooleanArray::from_iter(versions.iter().map(|(info, _)| Some(info.batch_invariant)))), true),
        ("sha256", text(&|info| Some(info.sha256.chars().take(HASH_CHARS).collect())), true),
    ])?)
}

fn lines(info: &VersionInfo, promoted: Option<bool>) -> String {
    let date = |epoch: Epoch| epoch_date(epoch).unwrap_or_else(|| epoch.to_string());
    let state = match promoted {
        Some(true) => "promoted",
        Some(false) => "not promoted",
        None => "its run has not ended",
    };
    let mut text = format!("{} version {}, {state}\n", info.model, info.version);
    match &info.created_by {
        CreatedBy::Script => text.push_str("made by       the file that the script names\n"),
        CreatedBy::Run(run) => {
            text.push_str(&format!("made by       run {} of {}, decided at {}\n", run.run_id, run.job, date(run.decided_at)));
            text.push_str(&format!("because       {}\n", run.trigger));
            let training = &run.training;
            text.push_str(&format!("trained on    {} rows of {}\n", training.rows, training.training_set));
            text.push_str(&format!("their times   {} to {}\n", date(training.from), date(training.until)));
            text.push_str(&format!("their sha256  {}\n", training.sha256));
        }
    }
    info.metrics.iter().for_each(|(name, value)| text.push_str(&format!("{name:<13} {value}\n")));
    let list = |tensors: &[freshet_inference::TensorSignature]| tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    text.push_str(&format!("takes         {}\n", list(&info.signature.inputs)));
    text.push_str(&format!("gives         {}\n", list(&info.signature.outputs)));
    text.push_str(&format!("file          {} bytes, sha256 {}\n", info.bytes, info.sha256));
    text.push_str(&format!("in any batch  {}\n", if info.batch_invariant { "the same bits" } else { "other bits: scored row by row" }));
    text
}
