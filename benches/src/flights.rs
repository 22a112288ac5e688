//! The demo's pipeline, as the suites run it. In: the folder of its data. Out: its plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use freshet::{Config, Layer, Place, control};
use freshet_connectors::BuiltIn;
use freshet_core::{Epoch, Plan};
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Program, Script, compile};

/// Where the script's predictions have ended, and where its model is declared.
const AFTER_PREDICTIONS: &str = "-- The same features, as serving would have answered then";
const MODEL: &str = "OUTPUT (p_late DOUBLE)";
/// 2013-02-01T06:00:00Z: an hour after the demo's FIRST AT.
const AFTER_FIRST_RUN: Epoch = Epoch(1_359_698_400_000);

/// The folder that prepare.py wrote, as `./dev bench` names it. Errors: the variable is not set.
#[allow(clippy::disallowed_methods, reason = "a bench has no configuration beside this one path")]
pub fn data_folder() -> Result<PathBuf> {
    let folder = std::env::var("FRESHET_DEMO_DATA").context("FRESHET_DEMO_DATA must name the folder that prepare.py wrote; ./dev bench sets it")?;
    Ok(PathBuf::from(folder))
}

/// The demo's pipeline over the files of this folder, without its sink: views stay in memory. Errors: of reading or compiling it.
pub fn plan(data: &Path) -> Result<Plan> {
    let program = program(data, &read("pipeline.sql")?)?;
    Ok(Plan { sinks: Vec::new(), ..program.plan })
}

/// The demo as it is, with its prediction file in this folder. Errors: of reading or compiling it.
pub fn whole_loop(data: &Path, out: &Path) -> Result<Program> {
    compiled(data, &read("pipeline.sql")?, out)
}

/// The demo up to its predictions, scored by a fixed version 1 from a file; without training, monitor, quality and sink, which are no part
/// of what a score costs. Errors: of reading or compiling it, or a text that is cut elsewhere now.
pub fn predictions(data: &Path, model: &Path) -> Result<Program> {
    let text = read("pipeline.sql")?;
    let text = text.split_once(AFTER_PREDICTIONS).with_context(|| format!("pipeline.sql has no {AFTER_PREDICTIONS}"))?.0;
    ensure!(text.contains(MODEL), "pipeline.sql has no {MODEL}");
    program(data, &text.replace(MODEL, &format!("{MODEL} FROM '{}'", model.display())))
}

/// The model that the demo trains as of 1 February, in the folder of the data; trained by the demo itself the first time. Errors: of the run,
/// or Python lacks the trainer's packages.
pub fn first_model(data: &Path) -> Result<PathBuf> {
    let state = data.join("bench-model");
    let model = state.join("models/arrival_delay/1/model.onnx");
    if !model.is_file() {
        let program = program(data, &read("pipeline.sql")?)?;
        let config = EngineConfig { until: Some(AFTER_FIRST_RUN), data_dir: Some(state.clone()), ..EngineConfig::default() };
        let plan = Plan { sinks: Vec::new(), ..program.plan.clone() };
        replay(plan, config, &Arc::new(program), &state).context("training the first model")?;
        ensure!(model.is_file(), "no model was trained; the reason lies in {}", state.join("runs").display());
    }
    Ok(model)
}

/// Runs a plan of this program to its end. Out: its events. Errors: of the engine, or no ONNX Runtime.
pub fn replay(plan: Plan, config: EngineConfig, program: &Arc<Program>, state: &Path) -> Result<u64> {
    let place = Place { data_dir: state.to_path_buf(), folder: folder(), flight: String::new(), workers: config.workers };
    let control = control(program, &Config::load(None, Layer::default())?, &place).map_err(|error| anyhow!("{error}"))?;
    let engine = Engine::start_with(plan, config, &BuiltIn, control).context("starting the engine")?;
    engine.wait().context("replaying the year")?;
    let status = engine.reader().status();
    engine.shutdown().context("stopping the engine")?;
    // A replay that scores nothing would look fast.
    let idle = status.models.iter().find(|model| model.rows == 0 || model.errors > 0);
    ensure!(idle.is_none(), "model {idle:?} did not score every row");
    Ok(status.events)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pipelines/flight_delay")
}

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(folder().join(name)).with_context(|| format!("reading {name}"))
}

fn program(data: &Path, pipeline: &str) -> Result<Program> {
    compiled(data, pipeline, data)
}

#[allow(clippy::disallowed_methods, reason = "the trainer's Python, as ./dev names it")]
fn compiled(data: &Path, pipeline: &str, out: &Path) -> Result<Program> {
    let script = |name: &str, text: String| Script { name: name.into(), text };
    let scripts = [script("sources.sql", read("sources.sql")?), script("pipeline.sql", pipeline.to_string())];
    let python = std::env::var("FRESHET_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let variables = [("data", data.display().to_string()), ("out", out.display().to_string()), ("python", python)];
    let variables = BTreeMap::from(variables.map(|(name, value)| (name.to_string(), value)));
    compile(&scripts, &variables, &BuiltIn).map_err(|error| anyhow!("{error}"))
}
