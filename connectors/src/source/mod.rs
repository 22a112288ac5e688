//! The file source: records are read and decoded ahead on a thread of its own.

pub mod cast;
mod file;
mod parquet;
mod text;

pub use file::{FileSource, cut};
pub use text::check_metadata;

use freshet_core::{Result, SourceBatch};

/// Reads a bounded list of files in order. Lives on the source's thread.
trait Records {
    /// Leaves out this many records from the start. Before the first `next`.
    fn skip(&mut self, records: u64) -> Result<()>;

    /// The next rows, or None after the last record. Errors: Data or Unavailable, naming the file.
    fn next(&mut self) -> Result<Option<SourceBatch>>;
}
