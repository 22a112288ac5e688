//! The commands that talk to a server: `submit`, `pipelines`, `stop`, `pause`, `resume`, `drop`. In: arguments. Out: tables or JSON on stdout.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use serde_json::{Value, json};

use crate::client::block_on;
use crate::exit::{Failure, Outcome};
use crate::rows::{RowFormat, format_rows};
use crate::scripts::{read_scripts, variables};
use crate::serve::http_client::HttpClient;
use crate::serve::keeper::Shown;
use crate::serve::machine::Phase;
use crate::serve::order::{Offsets, ScriptText, Submission};
use crate::serve::report::{ObjectReport, date};
use crate::serve::supervisor::here;

/// How long a command waits until what it asked for is so, and how often it looks.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct SubmitOptions {
    pub server: String,
    pub name: String,
    pub paths: Vec<PathBuf>,
    pub variables: Vec<String>,
    pub workers: Option<usize>,
    pub events_per_second: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub no_wait: bool,
}

/// Hands the texts of the scripts in, and waits until the pipeline answers.
pub fn submit(options: SubmitOptions) -> Outcome {
    let scripts = read_scripts(&options.paths).map_err(Failure::wrong)?;
    let submission = Submission {
        name: options.name.clone(),
        directory: here()?,
        scripts: scripts.scripts.into_iter().map(|script| ScriptText { name: script.name, text: script.text }).collect(),
        variables: variables(&options.variables).map_err(Failure::wrong)?,
        workers: options.workers,
        events_per_second: options.events_per_second,
        memory_bytes: options.memory_bytes,
    };
    block_on(async {
        let client = HttpClient::new(&options.server)?;
        let answer = client.post("/v1/pipelines", &serde_json::to_value(&submission).context("writing the request")?).await?;
        for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("warning: {warning}");
        }
        settle(&client, &options.name, options.no_wait, &[Phase::Starting]).await
    })
}

pub enum Verb {
    Stop,
    Pause,
    Resume(Vec<Offsets>),
}

/// Asks for a change, and waits until it is so.
pub fn change(server: &str, name: &str, verb: Verb, no_wait: bool) -> Outcome {
    let (verb, body, passing): (_, _, &[Phase]) = match verb {
        Verb::Stop => ("stop", json!({}), &[Phase::Stopping]),
        Verb::Pause => ("pause", json!({}), &[Phase::Pausing, Phase::Stopping]),
        Verb::Resume(skips) => {
            let skips: Vec<String> = skips.iter().map(Offsets::argument).collect();
            ("resume", json!({ "skip_offsets": skips }), &[Phase::Stopping, Phase::Starting])
        }
    };
    block_on(async {
        let client = HttpClient::new(server)?;
        client.post(&format!("{}/{verb}", path_of(name)?), &body).await?;
        settle(&client, name, no_wait, passing).await
    })
}

/// Ends a pipeline and deletes its state.
pub fn drop_pipeline(server: &str, name: &str) -> Outcome {
    block_on(async {
        HttpClient::new(server)?.delete(&path_of(name)?).await?;
        println!("{name}: dropped");
        Ok(0)
    })
}

/// All pipelines, or one with all there is to say about it.
pub fn pipelines(server: &str, name: Option<&str>, format: RowFormat) -> Outcome {
    block_on(async {
        let client = HttpClient::new(server)?;
        let all: Vec<Value> = match name {
            Some(name) => vec![client.get(&path_of(name)?).await?],
            None => client.get("/v1/pipelines").await?["pipelines"].as_array().cloned().unwrap_or_default(),
        };
        let text = match format {
            RowFormat::Json => all.iter().map(|one| format!("{one}\n")).collect(),
            format => {
                let all = all.into_iter().map(shown_of).collect::<Result<Vec<_>, _>>()?;
                let mut text = table(&all, format).map_err(Failure::failed)?;
                if let (Some(_), Some(one)) = (name, all.first().filter(|one| !one.objects.is_empty())) {
                    text.push('\n');
                    text.push_str(&object_table(&one.objects, format).map_err(Failure::failed)?);
                }
                text
            }
        };
        print!("{text}");
        Ok(0)
    })
}

/// Waits while the pipeline is in one of these states, says what it is then, and fails if that is nothing good.
async fn settle(client: &HttpClient, name: &str, no_wait: bool, passing: &[Phase]) -> Outcome {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let shown = shown_of(client.get(&path_of(name)?).await?)?;
        if passing.contains(&shown.state) && !no_wait && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let reason = shown.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        if matches!(shown.state, Phase::Restarting | Phase::CrashLooping | Phase::Failed) {
            return Err(Failure::failed(anyhow!("pipeline {name} is {}{reason}", shown.state.name())));
        }
        let flight = shown.flight.map_or_else(String::new, |flight| format!(", Flight grpc://{flight}"));
        let http = shown.http.map_or_else(String::new, |http| format!(", HTTP http://{http}"));
        println!("{name}: {}{reason}{flight}{http}", shown.state.name());
        return Ok(0);
    }
}

/// Errors: a name that cannot be part of a path.
fn path_of(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.contains(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_' && symbol != '-') {
        return Err(Failure::wrong(anyhow!("there is no pipeline {name:?}; names have letters, digits, _ and -")));
    }
    Ok(format!("/v1/pipelines/{name}"))
}

fn shown_of(answer: Value) -> Result<Shown, Failure> {
    serde_json::from_value(answer).context("the server's answer is not understood; is it of another version?").map_err(Failure::failed)
}

/// What is in a pipeline, and how it fares.
fn object_table(all: &[ObjectReport], format: RowFormat) -> anyhow::Result<String> {
    let texts = |text: &dyn Fn(&ObjectReport) -> Option<String>| Arc::new(all.iter().map(text).collect::<StringArray>()) as ArrayRef;
    let instant = |ms: u64| (ms > 0).then(|| date(ms));
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("kind", texts(&|object| Some(object.kind.clone())), true),
        ("name", texts(&|object| Some(object.name.clone())), true),
        ("state", texts(&|object| Some(object.state.clone())), true),
        ("since", texts(&|object| instant(object.since)), true),
        ("progress", texts(&|object| object.progress.and_then(instant)), true),
        ("lag_rows", Arc::new(all.iter().map(|object| object.lag_rows).collect::<UInt64Array>()) as ArrayRef, true),
        ("lag_seconds", Arc::new(all.iter().map(|object| object.lag_ms.map(|ms| ms as f64 / 1000.0)).collect::<Float64Array>()) as ArrayRef, true),
        ("reason", texts(&|object| object.reason.clone()), true),
    ])?;
    Ok(format_rows(&batch.schema(), std::slice::from_ref(&batch), format)?)
}

fn table(all: &[Shown], format: RowFormat) -> anyhow::Result<String> {
    let texts = |text: &dyn Fn(&Shown) -> Option<String>| Arc::new(all.iter().map(text).collect::<StringArray>()) as ArrayRef;
    let numbers = |number: &dyn Fn(&Shown) -> Option<u64>| Arc::new(all.iter().map(number).collect::<UInt64Array>()) as ArrayRef;
    let lags: Float64Array = all.iter().map(|shown| shown.lag_seconds).collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("name", texts(&|shown| Some(shown.name.clone())), true),
        ("state", texts(&|shown| Some(shown.state.name().to_string())), true),
        ("since", texts(&|shown| Some(shown.since.clone())), true),
        ("generation", numbers(&|shown| Some(shown.generation)), true),
        ("restarts", numbers(&|shown| Some(shown.restarts)), true),
        ("events", numbers(&|shown| Some(shown.events)), true),
        ("complete_up_to", texts(&|shown| shown.closed_date.clone()), true),
        ("lag_rows", numbers(&|shown| shown.lag_rows), true),
        ("lag_seconds", Arc::new(lags) as ArrayRef, true),
        ("flight", texts(&|shown| shown.flight.map(|address| address.to_string())), true),
        ("http", texts(&|shown| shown.http.map(|address| address.to_string())), true),
        ("reason", texts(&|shown| shown.reason.clone()), true),
    ])?;
    Ok(format_rows(&batch.schema(), std::slice::from_ref(&batch), format)?)
}
