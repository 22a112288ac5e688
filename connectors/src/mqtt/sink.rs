//! The engine's side of an MQTT sink. In: changes. Out: messages for its thread; the position is how many the broker has acknowledged.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use freshet_core::{Batch, Encode, Epoch, Error, OptionError, Result, Sink, SinkDef};

use super::publisher::{Outbound, Publisher, Shared};
use super::settings::SinkSettings;
use crate::encode::{OutRecord, RecordEncoder};
use crate::options::{self, wrong};
use crate::reject::Rejects;
use crate::template::Template;

/// How long a write waits for room before the engine hears of it.
const WRITE_WAIT: Duration = Duration::from_secs(2);
/// How long a flush waits without anything being acknowledged.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// How long the messages of a broker are kept for us: a break, not an absence.
const SESSION_EXPIRY: Duration = Duration::from_secs(300);

pub struct MqttSink {
    name: String,
    topic: Template,
    encoder: RecordEncoder,
    rejects: Rejects,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Acknowledged in earlier runs.
    base: u64,
}

impl MqttSink {
    /// Starts to connect. Errors: Invalid, naming the sink.
    pub fn open(def: &SinkDef) -> Result<MqttSink> {
        let named = |error: OptionError| Error::invalid(format!("sink {}: {}", def.name, error.message));
        let mut settings = SinkSettings::parse(&def.name, &def.options).map_err(named)?;
        settings.broker.session_expiry = SESSION_EXPIRY;
        if let Some(files) = &settings.broker.tls {
            files.client_config().map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        }
        let topic = parse_topic(def).map_err(named)?;
        let rejects = Rejects::parse(&def.name, &def.options).map_err(named)?;
        let encoder = RecordEncoder::open(def)?;
        let shared = Arc::new(Shared::new());
        let publisher = Publisher { settings, content_type: content_type(def.encode), shared: shared.clone(), rejects: rejects.clone() };
        let thread = publisher.start(&def.name).map_err(|error| Error::unavailable(format!("sink {}: cannot start a thread: {error}", def.name)))?;
        Ok(MqttSink { name: def.name.clone(), topic, encoder, rejects, shared, thread: Some(thread), base: 0 })
    }

    /// Names the sink where the thread has not.
    fn named(&self, error: Error) -> Error {
        if error.message.starts_with("sink ") {
            return error;
        }
        Error { kind: error.kind, message: format!("sink {}: {}", self.name, error.message) }
    }

    fn messages(&mut self, changes: &Batch) -> Result<Vec<Outbound>> {
        let mut records: Vec<OutRecord> = Vec::new();
        self.encoder.encode(changes, &mut records)?;
        let filler = self.topic.begin(changes.rows())?;
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            match filler.fill(record.row).map_err(|column| format!("its column {column} is NULL and part of the topic")).and_then(checked) {
                // A retained message without payload takes the former one away.
                Ok(topic) => messages.push(Outbound { topic, payload: Bytes::from(record.payload.unwrap_or_default()) }),
                Err(reason) => self.rejects.reject(&format!("a row of epoch {}", record.epoch), &reason)?,
            }
        }
        Ok(messages)
    }
}

impl Sink for MqttSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let messages = self.messages(changes)?;
        self.shared.push(messages, WRITE_WAIT).map_err(|error| self.named(error))
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        Ok(self.base + self.shared.flush(FLUSH_WAIT).map_err(|error| self.named(error))?)
    }

    /// What was published cannot be taken back: after a crash the messages behind the position come again.
    fn restore(&mut self, position: u64) -> Result<()> {
        self.base = position;
        Ok(())
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// The topic with its columns. Errors: one that no broker takes, or a column whose value a deletion does not know.
pub fn parse_topic(def: &SinkDef) -> Result<Template, OptionError> {
    let text = options::required("mqtt", &def.options, "topic", "where to publish, for example 'alarms/{machine}'")?;
    let topic = Template::parse("topic", text, &def.schema)?;
    checked(topic.plain()).map_err(|reason| wrong("topic", format!("a message cannot be published to '{text}': {reason}")))?;
    if def.format == freshet_core::Format::Upsert
        && let Some(column) = topic.columns().find(|column| !def.key.contains(column))
    {
        let name = def.schema.field(column).name();
        return Err(wrong(
            "topic",
            format!("a deletion knows the columns of primary_key only, but the topic has {name}; add it to primary_key, or leave it out"),
        ));
    }
    Ok(topic)
}

/// Errors: why nothing can be published to this topic.
fn checked(topic: String) -> Result<String, String> {
    if topic.contains(['+', '#']) {
        return Err(format!("'{topic}' has a + or #, which are for subscriptions"));
    }
    if topic.contains('\0') || topic.len() > 65_535 {
        return Err("a topic has at most 65,535 bytes and none is zero".into());
    }
    Ok(topic)
}

fn content_type(encode: Encode) -> Option<&'static str> {
    match encode {
        Encode::Json => Some("application/json"),
        Encode::Csv => Some("text/csv"),
        Encode::Avro => Some("application/avro"),
        Encode::Protobuf => Some("application/protobuf"),
        Encode::Parquet | Encode::Bytes => None,
    }
}
