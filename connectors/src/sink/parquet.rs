//! Writes rows as Parquet parts in a folder, one part for each flush that had rows. The position is the number of parts.
//!
//! The rows and their order over all parts are the same in every run; where a part ends depends on when the engine flushed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use freshet_core::{Batch, Epoch, Error, Result, Sink, SinkDef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::{failed, refuse_retractions, sync_folder};

/// Rows of a row group: what a reader holds at a time.
const ROW_GROUP_ROWS_MAX: usize = 65_536;

pub struct ParquetSink {
    def: SinkDef,
    folder: PathBuf,
    parts: u64,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// A whole part that could not be written yet.
    finished: Option<Vec<u8>>,
    begun: bool,
}

impl ParquetSink {
    pub fn open(def: &SinkDef, folder: PathBuf) -> Result<ParquetSink> {
        if folder.is_file() {
            return Err(Error::invalid(format!("sink {}: {} is a file; ENCODE PARQUET writes into a folder", def.name, folder.display())));
        }
        fs::create_dir_all(&folder).map_err(|error| failed(def, &folder, &error))?;
        Ok(ParquetSink { def: def.clone(), folder, parts: 0, writer: None, finished: None, begun: false })
    }

    /// Deletes the parts from this one on.
    fn cut(&mut self, parts: u64) -> Result<u64> {
        let mut kept = 0;
        let failed = |error: std::io::Error| failed(&self.def, &self.folder, &error);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match part_number(&path) {
                Some(number) if number < parts => kept += 1,
                Some(_) => fs::remove_file(&path).map_err(failed)?,
                None => {}
            }
        }
        sync_folder(&self.folder).map_err(failed)?;
        self.parts = parts;
        self.begun = true;
        Ok(kept)
    }

    fn append(&mut self, changes: &Batch) -> Result<(), parquet::errors::ParquetError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let properties =
                    WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX)).build();
                self.writer.insert(ArrowWriter::try_new(Vec::new(), changes.schema(), Some(properties))?)
            }
        };
        let once = (0..changes.len()).all(|row| changes.diff(row) == 1);
        if once {
            return writer.write(changes.rows());
        }
        let rows: Vec<u32> = (0..changes.len()).flat_map(|row| (0..changes.diff(row)).map(move |_| row as u32)).collect();
        writer.write(changes.take(&rows).rows())
    }

    /// Written aside and renamed, so that a part is whole or absent.
    fn publish(&self, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.folder.join(part_name(self.parts));
        let aside = self.folder.join(format!(".{}", part_name(self.parts)));
        let mut file = fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        sync_folder(&self.folder)
    }
}

impl Sink for ParquetSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        if !self.begun {
            self.cut(0)?;
        }
        refuse_retractions(&self.def, changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        self.append(changes).map_err(|error| Error::internal(format!("sink {}: cannot encode Parquet: {error}", self.def.name)))
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        if !self.begun {
            self.cut(0)?;
        }
        if self.finished.is_none()
            && let Some(writer) = self.writer.take()
        {
            let bytes = writer.into_inner().map_err(|error| Error::internal(format!("sink {}: cannot encode Parquet: {error}", self.def.name)))?;
            self.finished = Some(bytes);
        }
        if let Some(bytes) = &self.finished {
            self.publish(bytes).map_err(|error| failed(&self.def, &self.folder, &error))?;
            self.finished = None;
            self.parts += 1;
        }
        Ok(self.parts)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        let kept = self.cut(position)?;
        if kept < position {
            return Err(Error::data(format!(
                "sink {}: {} has {kept} parts, but the checkpoint had written {position}; put them back, or start from an empty data directory",
                self.def.name,
                self.folder.display()
            )));
        }
        Ok(())
    }
}

fn part_name(number: u64) -> String {
    format!("part-{number:010}.parquet")
}

fn part_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("part-")?.strip_suffix(".parquet")?.parse().ok()
}
