//! What tests start from: a few sources and feature views, and ways to compile a script over them.

use std::collections::BTreeMap;

use freshet_core::{Connectors, Encode, Error, Format, OptionError, Result, SecretFrom, Sink, SinkDef, Source, SourceDef};
use freshet_sql::{Program, Script, SqlError, compile};

/// Two streams, a stream of changes, two feature views and a service over them.
pub const PRELUDE: &str = "
SET clock = 'event';
CREATE SOURCE orders (id BIGINT, customer VARCHAR, shop VARCHAR, amount DOUBLE, items INT, ts TIMESTAMP(3), WATERMARK FOR ts)
  WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE customers (customer VARCHAR, city VARCHAR, since TIMESTAMP, score DOUBLE, vip BOOLEAN, WATERMARK FOR since)
  WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE MATERIALIZED VIEW shop_totals AS SELECT shop, count(*) AS orders, sum(amount) AS total FROM orders GROUP BY shop;
CREATE FEATURE VIEW customer_load ENTITY (customer) TIMESTAMP ts WINDOWS ('1 hour', '24 hours') AS
  SELECT customer, count(*) AS orders, avg(amount) AS amount FROM orders GROUP BY customer;
CREATE FEATURE VIEW shop_last ENTITY (shop) TIMESTAMP ts TTL INTERVAL '6 hours' AS SELECT shop, amount AS last_amount, items FROM orders;
CREATE FEATURE SERVICE order_features REQUEST (distance DOUBLE) AS (customer_load, shop_last, distance);
";

/// What the variable PASSWORD holds.
pub const PASSWORD: &str = "hunter2";

/// Takes every option but `nonsense`, `pin` and `idle…`, opens nothing.
#[derive(Debug)]
pub struct AnyConnector;

fn check(connector: &str, options: &BTreeMap<String, String>) -> std::result::Result<(), OptionError> {
    if connector != "memory" {
        return Err(OptionError { option: Some("connector".into()), message: format!("there is no connector {connector}") });
    }
    match options.contains_key("nonsense") {
        true => Err(OptionError { option: Some("nonsense".into()), message: "the connector memory has no option nonsense".into() }),
        false => Ok(()),
    }
}

impl Connectors for AnyConnector {
    fn check_source(&self, source: &SourceDef) -> std::result::Result<(), OptionError> {
        if source.metadata.iter().any(|one| one.name == "nonsense") {
            return Err(OptionError::metadata("nonsense", "the connector memory has no metadata nonsense"));
        }
        if let Some(option) = source.options.keys().find(|name| name.starts_with("idle")) {
            return Err(OptionError { option: Some(option.clone()), message: format!("the connector memory has no option {option}") });
        }
        if let Some(pin) = source.options.get("pin") {
            return Err(OptionError { option: Some("pin".into()), message: format!("the pin cannot be '{pin}'") });
        }
        check(&source.connector, &source.options)
    }

    fn check_sink(&self, sink: &SinkDef) -> std::result::Result<(), OptionError> {
        match (sink.format, sink.encode) {
            (Format::Plain, Encode::Parquet) => Err(OptionError { option: None, message: "memory keeps no files".into() }),
            _ => check(&sink.connector, &sink.options),
        }
    }

    fn secret(&self, from: &SecretFrom) -> Result<String> {
        match from {
            SecretFrom::Env(name) if name == "PASSWORD" => Ok(PASSWORD.into()),
            SecretFrom::Env(name) => Err(Error::invalid(format!("the environment variable {name} is not set"))),
            SecretFrom::File(path) => Err(Error::invalid(format!("the file {path} cannot be read"))),
        }
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        Err(Error::unavailable(format!("{} is only for planning", source.name)))
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        Err(Error::unavailable(format!("{} is only for planning", sink.name)))
    }
}

/// As [`AnyConnector`], for `connector = 'file'`.
#[derive(Debug)]
pub struct AnyFile;

impl Connectors for AnyFile {
    fn check_source(&self, _: &SourceDef) -> std::result::Result<(), OptionError> {
        Ok(())
    }

    fn check_sink(&self, _: &SinkDef) -> std::result::Result<(), OptionError> {
        Ok(())
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        AnyConnector.open_source(source)
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        AnyConnector.open_sink(sink)
    }
}

pub fn script(name: &str, text: &str) -> Script {
    Script { name: name.into(), text: text.into() }
}

/// The text as `test.sql`, after the prelude.
pub fn compiled(text: &str) -> Result<Program, SqlError> {
    compile(&[script("prelude.sql", PRELUDE), script("test.sql", text)], &BTreeMap::new(), &AnyConnector)
}

pub fn program(text: &str) -> Program {
    compiled(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// `line:column: message` and help of the error that the text must give.
pub fn refused(text: &str) -> String {
    match compiled(text) {
        Ok(program) => panic!("{text}\nis not refused:\n{}", freshet_core::explain(&program.plan)),
        Err(error) => error.to_string().replace("test.sql:", ""),
    }
}

/// The plan of the last view of the text.
pub fn plan_of(text: &str) -> String {
    let program = program(&format!("{text};\nEXPLAIN (PLAN) v"));
    program.explains[0].text.clone()
}
