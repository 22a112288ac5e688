//! The file source: records are read and decoded ahead on a thread of its own, and new files are looked for as long as it is asked to.

pub mod cast;
mod file;
mod journal;
mod metadata;
mod options;
mod parquet;
mod text;
mod watch;

pub use file::cut;
pub use options::{SOURCE_OPTIONS, check_s3, check_source};

use std::path::Path;
use std::rc::Rc;

use freshet_core::{Encode, Result, Source, SourceBatch, SourceDef};

use crate::store::{Store, StoredFile};

/// Reads a bounded list of files in order. Lives on the source's thread.
trait Records {
    /// Leaves out records until this offset comes next. Before the first `next`.
    fn skip(&mut self, records: u64) -> Result<()>;

    /// The next rows, or None after the last record. Errors: Data or Unavailable, naming the file.
    fn next(&mut self) -> Result<Option<SourceBatch>>;
}

/// What to read, one file after the other.
struct Files {
    store: Rc<Store>,
    files: Vec<StoredFile>,
    /// Offset of the first record.
    first: u64,
}

/// Opens a checked source. Errors: Invalid or Unavailable, naming source and path.
pub fn open(def: &SourceDef, data_dir: Option<&Path>) -> Result<Box<dyn Source>> {
    Ok(Box::new(file::FileSource::start(def, data_dir)?))
}

/// Errors: Invalid where a file cannot be this source.
fn open_records(def: &SourceDef, files: Files) -> Result<Box<dyn Records>> {
    match def.encode {
        Encode::Parquet => Ok(Box::new(parquet::ParquetRecords::open(def, files)?)),
        _ => Ok(Box::new(text::TextRecords::open(def, files)?)),
    }
}
