//! The file sink: text in one file that grows, or parts in a folder or bucket; and the sink that keeps nothing.

mod blackhole;
mod options;
mod partition;
mod parts;
mod place;
mod text;

pub use blackhole::{Blackhole, check_blackhole};
pub use options::SINK_OPTIONS;

use arrow::datatypes::Schema;
use freshet_core::{Batch, Encode, Error, Format, OptionError, Result, Sink, SinkDef};

use self::options::FileOptions;
use self::parts::PartSink;
use crate::encode::{CsvRows, DebeziumRows, JsonRows, TextEncoder};
use crate::options::Csv;
use crate::store::{self, Location};

/// Errors: what is wrong with where and how files are written.
pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    FileOptions::parse(def).map(|_| ())
}

/// Opens a checked sink. Errors: Invalid or Unavailable, naming sink and path.
pub fn open(def: &SinkDef) -> Result<Box<dyn Sink>> {
    let options = FileOptions::parse(def).map_err(|error| Error::invalid(error.message))?;
    let Some(roll) = options.parts else {
        let Location::Local(path) = options.location else { return Err(Error::internal("a bucket holds parts")) };
        return Ok(Box::new(text::TextSink::open(def, path, encoder(def, &def.schema)?)?));
    };
    let ending = match def.encode {
        Encode::Parquet => "parquet",
        Encode::Csv => "csv",
        _ => "jsonl",
    };
    let place = place::open(def, options.location, options.s3, (ending, options.partitions.is_some()))?;
    Ok(Box::new(PartSink::new(def, place, roll, options.partitions)))
}

/// Writes rows of this schema, the sink's or what its folders leave of it.
fn encoder(def: &SinkDef, schema: &Schema) -> Result<Box<dyn TextEncoder>> {
    Ok(match (def.encode, def.format) {
        (Encode::Csv, _) => Box::new(CsvRows::new(schema, Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?)),
        (Encode::Json, Format::Debezium) => Box::new(DebeziumRows::new(schema)),
        (Encode::Json, Format::Plain) => Box::new(JsonRows::new(schema)),
        (encode, format) => return Err(Error::invalid(format!("a file is not written with FORMAT {format:?} ENCODE {encode:?}"))),
    })
}

/// Errors: Invalid where FORMAT PLAIN would have to take a row back.
fn refuse_retractions(def: &SinkDef, changes: &Batch) -> Result<()> {
    match (0..changes.len()).find(|row| changes.diff(*row) < 0) {
        None => Ok(()),
        Some(row) => Err(Error::invalid(format!(
            "sink {}: FORMAT PLAIN holds insertions only, but {} retracted a row at epoch {}; use FORMAT DEBEZIUM ENCODE JSON",
            def.name,
            def.from,
            changes.epoch(row)
        ))),
    }
}

fn failed(def: &SinkDef, path: &std::path::Path, error: &std::io::Error) -> Error {
    store::local_error(error, format!("sink {}: cannot write {}: {error}", def.name, path.display()))
}

/// A new name in a folder is durable only when the folder is.
fn sync_folder(folder: &std::path::Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { std::path::Path::new(".") } else { folder };
    std::fs::File::open(folder)?.sync_all()
}
