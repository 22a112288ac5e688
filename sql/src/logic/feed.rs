//! Tables as sources. In: what statements wrote. Out: a bounded source of it, one partition, a statement's rows never cut; other connectors as
//! they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_core::{Connectors, DeadLetter, Error, Format, OptionError, Poll, Result, SecretFrom, Sink, SinkDef, Source, SourceBatch, SourceDef};

use crate::logic::declaration::CONNECTOR;
use crate::logic::table::Write;

/// The connectors of a run: those of the product, and the tables.
#[derive(Debug)]
pub(crate) struct Feeds<'a> {
    pub others: &'a dyn Connectors,
    /// By the name of the source.
    pub writes: BTreeMap<String, Arc<Vec<Write>>>,
}

impl Connectors for Feeds<'_> {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError> {
        if source.connector == CONNECTOR { Ok(()) } else { self.others.check_source(source) }
    }

    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError> {
        self.others.check_sink(sink)
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        if source.connector != CONNECTOR {
            return self.others.open_source(source);
        }
        let writes = self.writes.get(&source.name).cloned();
        let writes = writes.ok_or_else(|| Error::internal(format!("nothing is known of the table behind {}", source.name)))?;
        Ok(Box::new(TableSource { writes, plain: source.format == Format::Plain, offset: 0 }))
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        self.others.open_sink(sink)
    }

    fn secret(&self, from: &SecretFrom) -> Result<String> {
        self.others.secret(from)
    }

    fn decode_again(&self, source: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
        self.others.decode_again(source, letters)
    }
}

struct TableSource {
    writes: Arc<Vec<Write>>,
    plain: bool,
    /// Of the next record.
    offset: u64,
}

impl Source for TableSource {
    fn poll(&mut self, _rows_max: usize) -> Result<Poll> {
        let mut first = 0;
        for write in self.writes.iter() {
            let records = write.records.last().map_or(0, |last| last + 1);
            if self.offset < first + records {
                let from = write.records.partition_point(|record| first + record < self.offset);
                self.offset = first + records;
                return Ok(Poll::Batch(SourceBatch {
                    partition: 0,
                    rows: write.rows.slice(from, write.rows.num_rows() - from),
                    diffs: (!self.plain).then(|| write.diffs[from..].to_vec()),
                    offsets: write.records[from..].iter().map(|record| first + record).collect(),
                    dead_letters: Vec::new(),
                    next_offset: self.offset,
                }));
            }
            first += records;
        }
        Ok(Poll::Ended)
    }

    fn seek(&mut self, _partition: u32, offset: u64) -> Result<()> {
        self.offset = offset;
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        true
    }
}
