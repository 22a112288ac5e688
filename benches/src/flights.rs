//! The demo's pipeline, as the suites run it. In: the folder of its data. Out: its plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use freshet_connectors::BuiltIn;
use freshet_core::Plan;
use freshet_sql::{Script, compile};

/// The folder that prepare.py wrote, as `./dev bench` names it. Errors: the variable is not set.
#[allow(clippy::disallowed_methods, reason = "a bench has no configuration beside this one path")]
pub fn data_folder() -> Result<PathBuf> {
    let folder = std::env::var("FRESHET_DEMO_DATA").context("FRESHET_DEMO_DATA must name the folder that prepare.py wrote; ./dev bench sets it")?;
    Ok(PathBuf::from(folder))
}

/// The demo's pipeline over the files of this folder, without its sink: views stay in memory. Errors: of reading or compiling it.
pub fn plan(data: &Path) -> Result<Plan> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pipelines/flight_delay");
    let mut scripts = Vec::new();
    for name in ["sources.sql", "pipeline.sql"] {
        let text = std::fs::read_to_string(folder.join(name)).with_context(|| format!("reading {name}"))?;
        scripts.push(Script { name: name.into(), text });
    }
    let variables = BTreeMap::from([("data".to_string(), data.display().to_string())]);
    let program = compile(&scripts, &variables, &BuiltIn).map_err(|error| anyhow!("{error}"))?;
    Ok(Plan { sinks: Vec::new(), ..program.plan })
}
