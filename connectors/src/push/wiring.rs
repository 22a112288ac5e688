//! The connectors of a pipeline that can be pushed to. In: declarations. Out: as `BuiltIn` does, and queues that servers hand rows to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{Connectors, DeadLetter, Error, OptionError, Result, SecretFrom, Sink, SinkDef, Source, SourceBatch, SourceDef, TABLE_CONNECTOR};

use super::Pushes;
use super::queue::file_name;
use crate::connectors::BuiltIn;
use crate::source as file_source;
use crate::{kafka, mqtt, webhook};

/// The connectors of one running pipeline.
#[derive(Debug, Clone)]
pub struct PipelineConnectors {
    pushes: Arc<Pushes>,
    /// Where no other pipeline is: part of the names that others know this one by.
    place: PathBuf,
    data_dir: Option<PathBuf>,
}

impl PipelineConnectors {
    /// With a data directory positions of pushed rows survive a restart, which files have been read, which topic it was, and messages
    /// that brokers may forget.
    pub fn new(data_dir: Option<&Path>) -> PipelineConnectors {
        let place = std::path::absolute(data_dir.unwrap_or(Path::new("."))).unwrap_or_default();
        PipelineConnectors { pushes: Arc::new(Pushes::new(data_dir)), place, data_dir: data_dir.map(Path::to_path_buf) }
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
        let checked = || self.check_source(source).map_err(|error| Error::invalid(format!("source {}: {}", source.name, error.message)));
        match source.connector.as_str() {
            // What was declared has been checked; its options are our own.
            TABLE_CONNECTOR => self.pushes.open(source),
            "push" => checked().and_then(|()| self.pushes.open(source)),
            "file" => checked().and_then(|()| file_source::open(source, self.data_dir.as_deref())),
            "mqtt" => {
                checked()?;
                let journal = self.data_dir.as_ref().map(|folder| folder.join("mqtt").join(file_name(&source.name)));
                Ok(Box::new(mqtt::MqttSource::open(&mqtt::source_of(source, &self.place), journal)?))
            }
            "kafka" => {
                checked()?;
                let identity = self.data_dir.as_ref().map(|folder| folder.join("kafka").join(format!("{}.topic", file_name(&source.name))));
                Ok(Box::new(kafka::KafkaSource::start(source, identity)?))
            }
            _ => BuiltIn.open_source(source),
        }
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        BuiltIn.open_sink(&webhook::sink_of(&mqtt::sink_of(sink, &self.place), &self.place))
    }

    fn has_bytes(&self, connector: &str) -> bool {
        BuiltIn.has_bytes(connector)
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
