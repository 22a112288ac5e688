//! Appends encoded changes to one local file. The position is its length in bytes; a failed write can be repeated without doubling a row.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use freshet_core::{Batch, Epoch, Error, Format, Result, Sink, SinkDef};

use super::{failed, refuse_retractions, sync_folder};
use crate::encode::TextEncoder;

/// Encoded bytes that wait for one write call.
const BUFFER_BYTES_MAX: usize = 1 << 20;

pub struct TextSink {
    def: SinkDef,
    path: PathBuf,
    file: File,
    encoder: Box<dyn TextEncoder>,
    /// Follows the first `written` bytes of the file.
    buffer: Vec<u8>,
    written: u64,
    /// Whether what an earlier run left has been cut off.
    begun: bool,
    unsynced: bool,
}

impl TextSink {
    /// Creates the folder and the file. What the file holds stays until the first write, flush or restore.
    pub fn open(def: &SinkDef, path: PathBuf, encoder: Box<dyn TextEncoder>) -> Result<TextSink> {
        if path.is_dir() {
            return Err(Error::invalid(format!(
                "sink {}: {} is a folder; name a file in it, or end the path with / for parts in a folder",
                def.name,
                path.display()
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let opened = std::fs::create_dir_all(folder).and_then(|()| {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            sync_folder(folder)?;
            Ok(file)
        });
        let file = opened.map_err(|error| failed(def, &path, &error))?;
        Ok(TextSink { def: def.clone(), path, file, encoder, buffer: Vec::new(), written: 0, begun: false, unsynced: false })
    }

    fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.cut(0)?;
            self.buffer = self.encoder.header();
        }
        Ok(())
    }

    fn cut(&mut self, position: u64) -> Result<()> {
        self.file.set_len(position).map_err(|error| failed(&self.def, &self.path, &error))?;
        self.written = position;
        self.buffer.clear();
        self.begun = true;
        self.unsynced = true;
        Ok(())
    }

    /// Writes the buffer at its place, so that a repetition after a failure overwrites what was half written.
    fn drain(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.file.seek(SeekFrom::Start(self.written)).and_then(|_| self.file.write_all(&self.buffer));
        result.map_err(|error| failed(&self.def, &self.path, &error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.unsynced = true;
        Ok(())
    }
}

impl Sink for TextSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        self.begin()?;
        if self.def.format == Format::Plain {
            refuse_retractions(&self.def, changes)?;
        }
        // Before anything is encoded: if it fails, these changes come again.
        if self.buffer.len() >= BUFFER_BYTES_MAX {
            self.drain()?;
        }
        self.encoder.encode(changes, &mut self.buffer)
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        self.begin()?;
        self.drain()?;
        if self.unsynced {
            self.file.sync_data().map_err(|error| failed(&self.def, &self.path, &error))?;
            self.unsynced = false;
        }
        Ok(self.written)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        let found = self.file.metadata().map_err(|error| failed(&self.def, &self.path, &error))?.len();
        if found < position {
            return Err(Error::data(format!(
                "sink {}: {} has {found} bytes, but the checkpoint had written {position}; put the file back, or start from an empty data directory",
                self.def.name,
                self.path.display()
            )));
        }
        self.cut(position)?;
        if position == 0 {
            self.buffer = self.encoder.header();
        }
        Ok(())
    }
}
