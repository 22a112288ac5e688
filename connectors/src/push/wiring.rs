//! The connectors of a pipeline that can be pushed to. In: declarations. Out: as `BuiltIn` does, and queues that servers hand rows to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{Connectors, DeadLetter, Error, OptionError, Result, SecretFrom, Sink, SinkDef, Source, SourceBatch, SourceDef};

use super::Pushes;
use crate::connectors::BuiltIn;
use crate::mqtt;

/// The connectors of one running pipeline.
#[derive(Debug, Clone)]
pub struct PipelineConnectors {
    pushes: Arc<Pushes>,
    /// Where no other pipeline is: part of the names that others know this one by.
    place: PathBuf,
}

impl PipelineConnectors {
    /// With a data directory positions of pushed rows survive a restart.
    pub fn new(data_dir: Option<&Path>) -> PipelineConnectors {
        let place = std::path::absolute(data_dir.unwrap_or(Path::new("."))).unwrap_or_default();
        PipelineConnectors { pushes: Arc::new(Pushes::new(data_dir)), place }
    }

    /// Where clients' rows go, for servers.
    pub fn pushes(&self) -> Arc<Pushes> {
        self.pushes.clone()
    }
}

impl Connectors for PipelineConnectors {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError> {
        BuiltIn.check_source(source)
    }

    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError> {
        BuiltIn.check_sink(sink)
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        if source.connector != "push" {
            return BuiltIn.open_source(&mqtt::source_of(source, &self.place));
        }
        self.check_source(source).map_err(|error| Error::invalid(format!("source {}: {}", source.name, error.message)))?;
        self.pushes.open(source)
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        BuiltIn.open_sink(&mqtt::sink_of(sink, &self.place))
    }

    fn secret(&self, from: &SecretFrom) -> Result<String> {
        BuiltIn.secret(from)
    }

    fn decode_again(&self, source: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
        BuiltIn.decode_again(source, letters)
    }

    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        Some(Arc::new(self.clone()))
    }
}

/// What to say where rows cannot come in: in tests, in training runs.
pub fn no_server(def: &SourceDef) -> Error {
    Error::invalid(format!("source {}: rows are pushed to a running server, and here is none; use freshet run or freshet serve", def.name))
}
