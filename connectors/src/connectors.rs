//! What a script may name in `connector = …`. In: declarations. Out: opened sources and sinks, or the option that is wrong.

use std::sync::Arc;

use freshet_core::{Connectors, Encode, Error, Format, OptionError, Result, Sink, SinkDef, Source, SourceDef};

use crate::options::{self, CSV, PATH};
use crate::{decode, encode, sink, source, store};

/// The connectors compiled into this binary: `file`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

impl Connectors for BuiltIn {
    fn check_source(&self, def: &SourceDef) -> Result<(), OptionError> {
        check_name(&def.connector)?;
        options::check_names("file", def.options.keys(), &known(def.encode, &["bad_data"]))?;
        let path = options::required("file", &def.options, PATH, "the file, folder or glob to read")?;
        store::Location::parse(path).map_err(|message| options::wrong(PATH, message))?;
        if def.format == Format::Debezium && def.encode != Encode::Json {
            return Err(combination(def.encode, "FORMAT DEBEZIUM is read from ENCODE JSON only"));
        }
        if def.encode == Encode::Csv {
            options::Csv::parse(&def.options)?;
        }
        if def.encode != Encode::Parquet {
            decode::check_types(&def.schema).map_err(|message| OptionError { option: None, message })?;
        }
        Ok(())
    }

    fn check_sink(&self, def: &SinkDef) -> Result<(), OptionError> {
        check_name(&def.connector)?;
        options::check_names("file", def.options.keys(), &known(def.encode, &[]))?;
        let path = options::required("file", &def.options, PATH, "the file to write")?;
        if path.contains('*') {
            return Err(options::wrong(PATH, format!("a sink writes one place, but path '{path}' has a *")));
        }
        store::Location::parse(path).map_err(|message| options::wrong(PATH, message))?;
        if def.format == Format::Debezium && def.encode != Encode::Json {
            return Err(combination(def.encode, "FORMAT DEBEZIUM is written with ENCODE JSON only"));
        }
        if def.encode == Encode::Csv {
            options::Csv::parse(&def.options)?;
        }
        if def.encode != Encode::Parquet {
            encode::check_types(&def.schema).map_err(|message| OptionError { option: None, message })?;
        }
        Ok(())
    }

    fn open_source(&self, def: &SourceDef) -> Result<Box<dyn Source>> {
        self.check_source(def).map_err(|error| Error::invalid(format!("source {}: {}", def.name, error.message)))?;
        Ok(Box::new(source::FileSource::start(def)?))
    }

    fn open_sink(&self, def: &SinkDef) -> Result<Box<dyn Sink>> {
        self.check_sink(def).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        sink::open(def)
    }

    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        Some(Arc::new(*self))
    }
}

fn check_name(connector: &str) -> Result<(), OptionError> {
    if connector == "file" {
        return Ok(());
    }
    Err(options::wrong("connector", format!("there is no connector '{connector}' in this build; use connector = 'file'")))
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
