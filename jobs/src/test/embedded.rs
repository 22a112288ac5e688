//! A pipeline run to its end inside this process. In: scripts over bounded sources. Out: something to query, at its last epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_connectors::BuiltIn;
use freshet_core::{Connectors, Error, Plan, Reader};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_serving::{Queries, QueryAnswer};
use freshet_sql::logic::{Engines, Pipeline, Way};
use freshet_sql::{Script, compile};

use crate::queries::PipelineQueries;

/// A test that reads this long is no test, or its source never ends.
const FINISH_MAX: Duration = Duration::from_secs(120);

pub struct Embedded {
    engine: Engine,
    queries: PipelineQueries,
}

impl Embedded {
    /// Compiles, runs until every source has ended, and stays readable. Errors: what is wrong with the script, or the failure.
    pub fn run(scripts: &[Script], variables: &BTreeMap<String, String>) -> Result<Embedded> {
        let program = compile(scripts, variables, &BuiltIn)?;
        let config = EngineConfig { workers: program.settings.workers.unwrap_or(1), ..EngineConfig::default() };
        let engine = Engine::start(program.plan, config, &BuiltIn)?;
        let ended = engine.wait_timeout(FINISH_MAX)?;
        ensure!(ended, "the pipeline did not finish within {} s; tests need bounded sources", FINISH_MAX.as_secs());
        let queries = PipelineQueries::new(engine.reader());
        Ok(Embedded { engine, queries })
    }

    pub fn query(&self, sql: &str) -> Result<QueryAnswer> {
        Ok(self.queries.run(sql, None, None)?)
    }

    /// Names of what can be read.
    pub fn views(&self) -> Vec<String> {
        self.engine.reader().views().into_iter().map(|view| view.name).collect()
    }

    /// Flushes the sinks.
    pub fn end(self) -> Result<()> {
        self.engine.shutdown().context("ending the pipeline")
    }
}

/// Starts the engines of sqllogictest files.
pub struct EmbeddedEngines;

struct Running(Engine);

impl Engines for EmbeddedEngines {
    fn run(&self, plan: &Plan, way: &Way, connectors: &dyn Connectors) -> freshet_core::Result<Box<dyn Pipeline>> {
        let usual = EngineConfig::default();
        let cut = match way.step_epochs {
            Some(0) => StepCut::All,
            Some(epochs) => StepCut::Epochs(epochs),
            None => usual.cut,
        };
        // Queries are answered as of the statement before them, however long ago that is.
        let (data_dir, stop_after, history_ms) = (way.data_dir.clone(), way.stop_after, u64::MAX);
        let engine = Engine::start(plan.clone(), EngineConfig { workers: way.workers, cut, data_dir, stop_after, history_ms, ..usual }, connectors)?;
        if !engine.wait_timeout(FINISH_MAX)? && stop_after.is_none() {
            let message = format!("the pipeline did not finish within {} s; tests need bounded sources", FINISH_MAX.as_secs());
            return Err(Error::unavailable(message));
        }
        Ok(Box::new(Running(engine)))
    }

    fn folder(&self) -> freshet_core::Result<Box<dyn AsRef<Path>>> {
        let folder = tempfile::tempdir().map_err(|error| Error::unavailable(format!("making a folder for checkpoints: {error}")))?;
        Ok(Box::new(folder))
    }
}

impl Pipeline for Running {
    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn end(self: Box<Self>) -> freshet_core::Result<()> {
        self.0.shutdown()
    }
}
