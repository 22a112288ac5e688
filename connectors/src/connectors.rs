//! What a script may name in `connector = …`. In: declarations. Out: opened sources and sinks, or the option that is wrong.

use std::sync::Arc;

use freshet_core::{Connectors, DeadLetter, Encode, Error, Format, OptionError, Result, SecretFrom, Sink, SinkDef, Source, SourceBatch, SourceDef};

use crate::options::{self, CSV, PATH};
use crate::{decode, encode, kafka, mqtt, nexmark, push, redis, secret, sink, source, store, webhook};

/// What sources and sinks may name.
const SOURCES: [&str; 5] = ["file", "kafka", "mqtt", "nexmark", "push"];
const SINKS: [&str; 6] = ["blackhole", "file", "kafka", "mqtt", "redis", "webhook"];

/// The connectors compiled into this binary.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

impl Connectors for BuiltIn {
    fn check_source(&self, def: &SourceDef) -> Result<(), OptionError> {
        match def.connector.as_str() {
            "push" => return push::check_source(def),
            "kafka" => return kafka::check_source(def),
            "mqtt" => return mqtt::check_source(def),
            "nexmark" => return nexmark::check_source(def),
            other => check_name(other, &SOURCES)?,
        }
        let more = [&["bad_data", "max_record_bytes"][..], &source::SOURCE_OPTIONS, &store::S3_OPTIONS].concat();
        options::check_names("file", def.options.keys(), &known(def.encode, &more))?;
        source::check_source(def)?;
        if def.format == Format::Debezium && def.encode != Encode::Json {
            return Err(combination(def.encode, "FORMAT DEBEZIUM is read from ENCODE JSON only"));
        }
        if def.encode == Encode::Csv {
            options::Csv::parse(&def.options)?;
        }
        refuse_binary(def.encode)?;
        if def.encode != Encode::Parquet {
            decode::check_source(def)?;
        }
        Ok(())
    }

    fn check_sink(&self, def: &SinkDef) -> Result<(), OptionError> {
        match def.connector.as_str() {
            "blackhole" => return sink::check_blackhole(def),
            "kafka" => return kafka::check_sink(def),
            "mqtt" => return mqtt::check_sink(def),
            "webhook" => return webhook::check_sink(def),
            "redis" => return redis::check_sink(def),
            other => check_name(other, &SINKS)?,
        }
        options::check_names("file", def.options.keys(), &known(def.encode, &[&sink::SINK_OPTIONS[..], &store::S3_OPTIONS].concat()))?;
        sink::check_sink(def)?;
        if def.format == Format::Debezium && def.encode != Encode::Json {
            return Err(combination(def.encode, "FORMAT DEBEZIUM is written with ENCODE JSON only"));
        }
        if def.encode == Encode::Csv {
            options::Csv::parse(&def.options)?;
        }
        refuse_binary(def.encode)?;
        if def.format == Format::Upsert {
            return Err(OptionError { option: None, message: "a file has no keys to replace rows by; use FORMAT DEBEZIUM ENCODE JSON".into() });
        }
        if def.encode != Encode::Parquet {
            encode::check_types(&def.schema).map_err(|message| OptionError { option: None, message })?;
        }
        Ok(())
    }

    fn open_source(&self, def: &SourceDef) -> Result<Box<dyn Source>> {
        if def.is_table() {
            return Err(push::no_server(def));
        }
        self.check_source(def).map_err(|error| Error::invalid(format!("source {}: {}", def.name, error.message)))?;
        match def.connector.as_str() {
            "push" => Err(push::no_server(def)),
            "kafka" => Ok(Box::new(kafka::KafkaSource::start(def, None)?)),
            "mqtt" => Ok(Box::new(mqtt::MqttSource::open(def, None)?)),
            "nexmark" => Ok(Box::new(nexmark::NexmarkSource::new(def)?)),
            _ => source::open(def, None),
        }
    }

    fn open_sink(&self, def: &SinkDef) -> Result<Box<dyn Sink>> {
        self.check_sink(def).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        match def.connector.as_str() {
            "blackhole" => Ok(Box::new(sink::Blackhole::default())),
            "kafka" => Ok(Box::new(kafka::KafkaSink::open(def)?)),
            "mqtt" => Ok(Box::new(mqtt::MqttSink::open(def)?)),
            "webhook" => Ok(Box::new(webhook::WebhookSink::open(def)?)),
            "redis" => Ok(Box::new(redis::RedisSink::open(def)?)),
            _ => sink::open(def),
        }
    }

    fn has_bytes(&self, connector: &str) -> bool {
        !matches!(connector, "nexmark" | "blackhole")
    }

    fn secret(&self, from: &SecretFrom) -> Result<String> {
        secret::read(from)
    }

    fn decode_again(&self, source: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
        decode::decode_again(source, letters)
    }

    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        Some(Arc::new(*self))
    }
}

/// Files hold text, one record a line, or Parquet.
fn refuse_binary(encode: Encode) -> Result<(), OptionError> {
    match encode {
        Encode::Avro | Encode::Protobuf => Err(OptionError {
            option: None,
            message: "AVRO and PROTOBUF records have no lines; a file is read and written with ENCODE JSON, CSV or PARQUET".into(),
        }),
        _ => Ok(()),
    }
}

/// Errors: a connector that is not compiled in, or not for this.
fn check_name(connector: &str, known: &[&str]) -> Result<(), OptionError> {
    if connector == "file" {
        return Ok(());
    }
    let hint = options::nearest(connector, known).map_or_else(|| format!("known are {}", known.join(", ")), |name| format!("did you mean '{name}'?"));
    Err(options::wrong("connector", format!("there is no connector '{connector}' in this build; {hint}")))
}

fn known(encode: Encode, more: &[&'static str]) -> Vec<&'static str> {
    let mut names = vec![PATH];
    if encode == Encode::Csv {
        names.extend(CSV);
    }
    names.extend(more);
    names
}

pub fn combination(encode: Encode, rule: &str) -> OptionError {
    let name = match encode {
        Encode::Json => "JSON",
        Encode::Csv => "CSV",
        Encode::Parquet => "PARQUET",
        Encode::Avro => "AVRO",
        Encode::Protobuf => "PROTOBUF",
        Encode::Bytes => "BYTES",
    };
    OptionError { option: None, message: format!("{rule}, not with ENCODE {name}; use FORMAT PLAIN or ENCODE JSON") }
}
