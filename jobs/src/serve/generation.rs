//! A child process of the server: one generation of one pipeline, or the check of a submission. In: an order on disk. Out: a running pipeline
//! until it is told to stop, or what is wrong with its SQL.

use std::path::Path;

use anyhow::{Context, Result};
use freshet_connectors::BuiltIn;
use freshet_sql::compile;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Layer};
use crate::exit::{Failure, Outcome};
use crate::node::{RunOptions, run_scripts};
use crate::scripts::Scripts;
use crate::serve::fault::Fault;
use crate::serve::link::Link;
use crate::serve::order::{Order, Submission};

/// Runs a generation. Its working directory is that of the submission.
pub fn run(order: &Path) -> Outcome {
    let order: Order = read(order).map_err(Failure::wrong)?;
    let name = order.submission.name.clone();
    let fault = crate::config::fault().map(|text| Fault::parse(&text, &name)).transpose().map_err(Failure::wrong)?.flatten();
    let link = Link::open(order, fault)?;
    let outcome = run_linked(&link);
    if let Err(failure) = &outcome {
        link.failed(failure);
    }
    outcome
}

fn run_linked(link: &std::sync::Arc<Link>) -> Outcome {
    let order = &link.order;
    let free = || Some(([127, 0, 0, 1], 0).into());
    let flags = Layer {
        workers: order.submission.workers,
        events_per_second: order.submission.events_per_second,
        data_dir: Some(order.data_dir.clone()),
        flight: order.flight.or_else(free),
        http: order.http.or_else(free),
        onnxruntime: order.onnxruntime.clone(),
    };
    let config = Config::without_file(flags).map_err(Failure::wrong)?;
    let scripts = Scripts { name: order.submission.name.clone(), scripts: order.submission.scripts() };
    let options = RunOptions { paths: Vec::new(), variables: Vec::new(), keep: true, progress: false, watch: None, config, link: Some(link.clone()) };
    run_scripts(&scripts, &order.submission.variables, &options)
}

/// What a submission would be.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// What is wrong with it, with file, line and column.
    pub error: Option<String>,
    pub warnings: Vec<String>,
    /// The retraining jobs that run a command on this machine.
    pub commands: Vec<String>,
}

/// Compiles a submission and starts nothing; the result goes to stdout as JSON.
pub fn check(submission: &Path) -> Outcome {
    let submission: Submission = read(submission).map_err(Failure::wrong)?;
    let checked = match compile(&submission.scripts(), &submission.variables, &BuiltIn) {
        Ok(program) if program.plan.sources.is_empty() && program.plan.views.is_empty() => {
            let error = "the script declares no source and no view; there is nothing to run".to_string();
            Checked { error: Some(error), ..Checked::default() }
        }
        Ok(program) => Checked {
            error: None,
            warnings: program.warnings.iter().map(ToString::to_string).collect(),
            commands: program.plan.retraining.iter().map(|job| job.name.clone()).collect(),
        },
        Err(error) => Checked { error: Some(error.to_string()), ..Checked::default() },
    };
    println!("{}", serde_json::to_string(&checked).context("writing the result")?);
    Ok(0)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not understood", path.display()))
}
