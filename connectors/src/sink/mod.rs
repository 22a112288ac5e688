//! The file sink: text in one file, Parquet as parts in a folder.

mod parquet;
mod text;

use freshet_core::{Batch, Encode, Error, Format, Result, Sink, SinkDef};

use crate::encode::{CsvRows, DebeziumRows, JsonRows, TextEncoder};
use crate::options::{Csv, PATH};
use crate::store::{self, Location};

/// Opens a checked sink. Errors: Invalid or Unavailable, naming sink and path.
pub fn open(def: &SinkDef) -> Result<Box<dyn Sink>> {
    let path = def.options.get(PATH).expect("check_sink wants a path");
    let Location::Local(path) = Location::parse(path).map_err(Error::invalid)?;
    let encoder: Box<dyn TextEncoder> = match (def.encode, def.format) {
        (Encode::Parquet, _) => return Ok(Box::new(parquet::ParquetSink::open(def, path)?)),
        (Encode::Csv, _) => Box::new(CsvRows::new(&def.schema, Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?)),
        (Encode::Json, Format::Debezium) => Box::new(DebeziumRows::new(&def.schema)),
        (Encode::Json, Format::Plain) => Box::new(JsonRows::new(&def.schema)),
        (encode, format) => return Err(Error::invalid(format!("a file is not written with FORMAT {format:?} ENCODE {encode:?}"))),
    };
    Ok(Box::new(text::TextSink::open(def, path, encoder)?))
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
