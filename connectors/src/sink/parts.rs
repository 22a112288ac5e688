//! Writes rows as numbered parts into a folder or a bucket. The position is the number of parts.
//!
//! A part holds whole epochs and appears whole. It ends where it is full, where an interval of logical time ends, and at each flush; so the rows
//! and their order over all parts are the same in every run, and where a part ends depends on when the engine flushed. A partitioned sink has one
//! part under construction for each folder, and the same rules for each.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use freshet_core::{Batch, Encode, Epoch, Error, Format, Result, Sink, SinkDef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::options::{PART_BYTES_MAX, Roll};
use super::partition::Partitions;
use super::place::Place;
use super::{encoder, refuse_retractions};
use crate::encode::TextEncoder;

/// Rows of a row group: what a reader holds at a time.
const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// Folders that parts are under construction for at a time; with one more, all of them are finished.
const OPEN_PARTS_MAX: usize = 256;

/// One part under construction.
enum Part {
    Text { encoder: Box<dyn TextEncoder>, bytes: Vec<u8> },
    Parquet(Option<Box<ArrowWriter<Vec<u8>>>>),
}

impl Part {
    fn new(def: &SinkDef, schema: &SchemaRef) -> Result<Part> {
        Ok(match def.encode {
            Encode::Parquet => Part::Parquet(None),
            _ => Part::Text { encoder: encoder(def, schema)?, bytes: Vec::new() },
        })
    }

    fn append(&mut self, changes: &Batch) -> Result<()> {
        match self {
            Part::Text { encoder, bytes } => {
                if bytes.is_empty() {
                    *bytes = encoder.header();
                }
                encoder.encode(changes, bytes)
            }
            Part::Parquet(writer) => {
                let writer = match writer {
                    Some(writer) => writer,
                    None => writer.insert(Box::new(new_writer(changes.schema())?)),
                };
                let once = (0..changes.len()).all(|row| changes.diff(row) == 1);
                if once {
                    return writer.write(changes.rows()).map_err(encoding);
                }
                let rows: Vec<u32> = (0..changes.len()).flat_map(|row| (0..changes.diff(row)).map(move |_| row as u32)).collect();
                writer.write(changes.take(&rows).rows()).map_err(encoding)
            }
        }
    }

    /// About so large it is.
    fn bytes(&self) -> u64 {
        match self {
            Part::Text { bytes, .. } => bytes.len() as u64,
            Part::Parquet(writer) => writer.as_ref().map_or(0, |writer| (writer.bytes_written() + writer.in_progress_size()) as u64),
        }
    }

    /// None: it had no rows.
    fn finish(self) -> Result<Option<Bytes>> {
        Ok(match self {
            Part::Text { bytes, .. } => (!bytes.is_empty()).then(|| bytes.into()),
            Part::Parquet(None) => None,
            Part::Parquet(Some(writer)) => Some((*writer).into_inner().map_err(encoding)?.into()),
        })
    }
}

fn new_writer(schema: SchemaRef) -> Result<ArrowWriter<Vec<u8>>> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX)).build();
    ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(encoding)
}

fn encoding(error: parquet::errors::ParquetError) -> Error {
    Error::internal(format!("cannot encode Parquet: {error}"))
}

pub struct PartSink {
    def: SinkDef,
    place: Box<dyn Place>,
    roll: Roll,
    partitions: Option<Partitions>,
    /// By folder; the folder of a sink without partitions has no name.
    open: BTreeMap<String, Part>,
    /// The interval that the rows of the parts belong to.
    interval: u64,
    /// Whole parts that are not in their place yet; written before more is taken in.
    finished: VecDeque<(String, Bytes)>,
    parts: u64,
    /// Whether what an earlier run left has been cut off.
    begun: bool,
}

impl PartSink {
    pub fn new(def: &SinkDef, place: Box<dyn Place>, roll: Roll, partitions: Option<Partitions>) -> PartSink {
        let (open, finished) = (BTreeMap::new(), VecDeque::new());
        PartSink { def: def.clone(), place, roll, partitions, open, interval: 0, finished, parts: 0, begun: false }
    }

    fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.cut(0)?;
        }
        Ok(())
    }

    fn cut(&mut self, parts: u64) -> Result<u64> {
        let kept = self.place.cut(parts)?;
        (self.parts, self.begun) = (parts, true);
        Ok(kept)
    }

    /// Ends the parts that have rows.
    fn finish(&mut self) -> Result<()> {
        while let Some((folder, part)) = self.open.pop_first() {
            let bytes = part.finish().map_err(|error| self.named(error))?;
            self.finished.extend(bytes.map(|bytes| (folder, bytes)));
        }
        Ok(())
    }

    /// Takes in changes of one folder and one interval.
    fn append(&mut self, folder: String, changes: &Batch) -> Result<()> {
        if !self.open.contains_key(&folder) && self.open.len() >= OPEN_PARTS_MAX {
            self.finish()?;
        }
        let part = match self.open.entry(folder.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Part::new(&self.def, self.partitions.as_ref().map_or(&self.def.schema, Partitions::schema))?),
        };
        if let Err(error) = part.append(changes) {
            return Err(self.named(error));
        }
        if part.bytes() >= self.roll.bytes
            && let Some(part) = self.open.remove(&folder)
        {
            let bytes = part.finish().map_err(|error| self.named(error))?;
            self.finished.extend(bytes.map(|bytes| (folder, bytes)));
        }
        if self.open.len() > 1 && self.open.values().map(Part::bytes).sum::<u64>() >= PART_BYTES_MAX {
            self.finish()?;
        }
        Ok(())
    }

    /// Puts finished parts into their places.
    fn publish(&mut self) -> Result<()> {
        while let Some((folder, bytes)) = self.finished.front() {
            self.place.publish(folder, self.parts, bytes)?;
            self.finished.pop_front();
            self.parts += 1;
        }
        Ok(())
    }

    fn named(&self, error: Error) -> Error {
        Error { kind: error.kind, message: format!("sink {}: {}", self.def.name, error.message) }
    }

    fn interval_of(&self, epoch: Epoch) -> u64 {
        self.roll.interval_ms.map_or(0, |interval| epoch.0 / interval)
    }
}

impl Sink for PartSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        self.begin()?;
        if self.def.format == Format::Plain {
            refuse_retractions(&self.def, changes)?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        // Before anything is taken in: if it fails, these changes come again.
        self.publish()?;
        let mut rest = changes.clone();
        while !rest.is_empty() {
            let interval = self.interval_of(rest.epoch(0));
            let (within, after) = match self.roll.interval_ms {
                Some(length_ms) => rest.split_at(Epoch((interval + 1).saturating_mul(length_ms))),
                None => (rest, changes.slice(0, 0)),
            };
            if interval != self.interval {
                self.finish()?;
            }
            self.interval = interval;
            match &self.partitions {
                None => self.append(String::new(), &within)?,
                Some(partitions) => {
                    let split = partitions.split(&within).map_err(|error| self.named(error))?;
                    split.iter().try_for_each(|(folder, changes)| self.append(folder.clone(), changes))?;
                }
            }
            rest = after;
        }
        Ok(())
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        self.begin()?;
        self.finish()?;
        self.publish()?;
        Ok(self.parts)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        let kept = self.cut(position)?;
        if kept < position {
            return Err(Error::data(format!(
                "sink {}: {} has {kept} parts, but the checkpoint had written {position}; put them back, or start from an empty data directory",
                self.def.name,
                self.place.shown()
            )));
        }
        Ok(())
    }
}
