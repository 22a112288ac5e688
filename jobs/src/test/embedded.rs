//! A pipeline run to its end inside this process. In: scripts over bounded sources. Out: something to query, at its last epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_connectors::BuiltIn;
use freshet_engine::{Engine, EngineConfig};
use freshet_serving::{Queries, QueryAnswer};
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
