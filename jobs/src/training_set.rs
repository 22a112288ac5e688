//! `freshet training-set export`: the rows a trainer would get, as a file, without a running pipeline. The code is that of the retraining jobs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, anyhow};
use arrow::array::{Array, RecordBatch};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use freshet_connectors::BuiltIn;
use freshet_core::{Epoch, EventTime, TrainingSetDef};
use freshet_sql::{Program, compile};

use crate::exit::{Failure, Outcome};
use crate::retrain::{Asked, ProgramPlans, TrainingEngine, TrainingRows, named, not_as_served, write_parquet};
use crate::rows::{RowFormat, format_rows};
use crate::scripts::{read_scripts, variables};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// The file that trainers get
    Parquet,
    /// RFC 4180, with a header
    Csv,
    /// One object a line
    Json,
}

pub struct ExportOptions {
    pub set: String,
    pub paths: Vec<PathBuf>,
    pub variables: Vec<String>,
    /// TIME in [from, until).
    pub from: Option<Epoch>,
    pub until: Option<Epoch>,
    /// Only what arrived before it is known; None: everything.
    pub as_of: Option<Epoch>,
    pub workers: Option<usize>,
    pub format: ExportFormat,
    pub out: PathBuf,
}

pub fn export(options: ExportOptions) -> Outcome {
    let scripts = read_scripts(&options.paths).map_err(Failure::wrong)?;
    let variables = variables(&options.variables).map_err(Failure::wrong)?;
    let program = compile(&scripts.scripts, &variables, &BuiltIn).map_err(Failure::wrong)?;
    let set = training_set(&program, &options.set).map_err(Failure::wrong)?;
    let workers = options.workers.or(program.settings.workers).unwrap_or(1);
    let plans = Arc::new(ProgramPlans::new(Arc::new(program)));
    let engine = TrainingEngine { plans, connectors: Arc::new(BuiltIn), workers };
    let asked = Asked { set: &set, from: options.from, until: options.until, known: options.as_of };
    let rows = engine.rows(asked, &AtomicBool::new(false)).map_err(Failure::start)?;
    let TrainingRows { rows, asked_at } = rows.context("nobody stops an export").map_err(Failure::failed)?;
    write(&rows, &options).map_err(Failure::failed)?;
    let nulls = named(&rows, &set.label).map_err(Failure::failed)?.null_count();
    eprintln!("{} rows of {} in {}; {nulls} have no label", rows.num_rows(), set.name, options.out.display());
    for asked in &asked_at {
        eprintln!("{}: a row is served at its arrival, or at the time that was logged with its prediction", not_as_served(asked));
    }
    Ok(0)
}

fn training_set(program: &Program, name: &str) -> anyhow::Result<TrainingSetDef> {
    let sets = &program.plan.training_sets;
    let found = sets.iter().find(|set| set.name == name).cloned();
    found.ok_or_else(|| {
        let known: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        anyhow!("there is no training set named {name}; the pipeline declares {}", if known.is_empty() { "none".into() } else { known.join(", ") })
    })
}

fn write(rows: &RecordBatch, options: &ExportOptions) -> anyhow::Result<()> {
    let text = |format| format_rows(rows.schema_ref(), std::slice::from_ref(rows), format);
    let writing = || format!("writing {}", options.out.display());
    match options.format {
        ExportFormat::Parquet => write_parquet(&options.out, rows).map(|_| ()).with_context(writing),
        ExportFormat::Csv => std::fs::write(&options.out, text(RowFormat::Csv)?).with_context(writing),
        ExportFormat::Json => std::fs::write(&options.out, text(RowFormat::Json)?).with_context(writing),
    }
}

/// `2013-02-01`, `2013-02-01 05:00:00.5`, or milliseconds since 1970. Finer than a millisecond is rounded up (T4).
pub fn instant(text: &str) -> Result<Epoch, String> {
    if let Ok(epoch) = text.parse() {
        return Ok(Epoch(epoch));
    }
    let nanoseconds = string_to_timestamp_nanos(text).map_err(|_| "an instant is '2013-02-01 05:00:00' or milliseconds since 1970".to_string())?;
    Ok(EventTime(nanoseconds).epoch_ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_dates_times_or_epochs() {
        assert_eq!(instant("2013-02-01 05:00:00"), Ok(Epoch(1_359_694_800_000)));
        assert_eq!(instant("2013-02-01T05:00:00.0001Z"), Ok(Epoch(1_359_694_800_001)));
        assert_eq!(instant("2013-02-01"), Ok(Epoch(1_359_676_800_000)));
        assert_eq!(instant("1359694800000"), Ok(Epoch(1_359_694_800_000)));
        assert!(instant("soon").is_err());
    }
}
