//! Training data as files. In: batches. Out: Parquet with the same bytes for the same rows, its hash, and the rows back.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arrow::array::RecordBatch;
use freshet_core::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use crate::retrain::journal::unavailable;

/// Writes the rows, makes them durable and says their SHA-256. Nothing of the machine or its clock gets into the file.
pub fn write_parquet(path: &Path, rows: &RecordBatch) -> Result<String> {
    let failed = |error: parquet::errors::ParquetError| Error::unavailable(format!("writing {}: {error}", path.display()));
    let properties = WriterProperties::builder().set_created_by("freshet".into()).set_compression(Compression::SNAPPY).build();
    let file = File::create(path).map_err(|error| unavailable(path, &error))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    let file = writer.into_inner().map_err(failed)?;
    file.sync_all().map_err(|error| unavailable(path, &error))?;
    sha256(path)
}

/// As `write_parquet`, in the place of what an earlier life began; nobody writes to it by mistake.
pub fn write_read_only(path: &Path, rows: &RecordBatch) -> Result<String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unavailable(path, &error)),
        _ => {}
    }
    let hash = write_parquet(path, rows)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o444)).map_err(|error| unavailable(path, &error))?;
    Ok(hash)
}

/// All rows in one batch. Errors: Data for a file that is no Parquet.
pub fn read_parquet(path: &Path) -> Result<RecordBatch> {
    let damaged = |error: parquet::errors::ParquetError| Error::data(format!("{} is damaged: {error}", path.display()));
    let file = File::open(path).map_err(|error| unavailable(path, &error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    let schema = builder.schema().clone();
    let batches = builder.build().map_err(damaged)?.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}

/// As `read_parquet`, of a file whose hash is known. Errors: Data if it has changed.
pub fn read_unchanged(path: &Path, hash: &str) -> Result<RecordBatch> {
    check_unchanged(path, hash)?;
    read_parquet(path)
}

pub fn check_unchanged(path: &Path, hash: &str) -> Result<()> {
    if sha256(path)? != hash {
        return Err(Error::data(format!("{} has changed since it was written; delete the data directory to begin anew", path.display())));
    }
    Ok(())
}

pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| unavailable(path, &error))
}

/// In lower-case hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|error| unavailable(path, &error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let bytes = file.read(&mut buffer).map_err(|error| unavailable(path, &error))?;
        if bytes == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..bytes]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    #[test]
    fn the_same_rows_make_the_same_bytes_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let rows = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef),
            ("x", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0)])) as ArrayRef),
        ])
        .unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let hash = write_parquet(&one, &rows).unwrap();
        assert_eq!(write_parquet(&two, &rows).unwrap(), hash);
        let back = read_unchanged(&one, &hash).unwrap();
        assert_eq!(format!("{back:?}"), format!("{rows:?}"));
        write_durably(&one, b"other").unwrap();
        let error = read_unchanged(&one, &hash).unwrap_err();
        assert!(error.message.contains("has changed since it was written"), "{error}");
    }
}
