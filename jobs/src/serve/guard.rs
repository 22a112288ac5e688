//! The connectors of a child: those of the build, with what the operator and a crash have to say about them. Records to skip become dead
//! letters, suspects of a crash are read a few at a time, and who only serves reads and writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use freshet_core::{
    BadData, Batch, ClockKind, Connectors, DeadLetter, Epoch, Error, OptionError, Poll, Result, SecretFrom, Sink, SinkDef, Source, SourceBatch,
    SourceDef, SourceReport,
};
use freshet_engine::letter_of_row;

use crate::serve::journal::Notes;
use crate::serve::order::{Mode, Offsets};

/// Why a skipped record is a dead letter.
pub const SKIPPED: &str = "skipped by the operator";

/// Late rows and those before their time are not handed out, so the wait for them ends by itself: some fifty ticks later.
const WAIT_POLLS_MAX: u32 = 200;

#[derive(Debug, Clone)]
pub struct Guarded {
    inner: Arc<dyn Connectors>,
    mode: Mode,
    skips: Arc<[Offsets]>,
    notes: Arc<Notes>,
    clock: ClockKind,
}

impl Guarded {
    pub fn new(inner: Arc<dyn Connectors>, mode: Mode, skips: &[Offsets], notes: Arc<Notes>, clock: ClockKind) -> Guarded {
        Guarded { inner, mode, skips: skips.into(), notes, clock }
    }
}

impl Connectors for Guarded {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError> {
        self.inner.check_source(source)
    }

    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError> {
        self.inner.check_sink(sink)
    }

    fn open_source(&self, def: &SourceDef) -> Result<Box<dyn Source>> {
        if self.mode == Mode::ServeOnly {
            return Ok(Box::new(Silent));
        }
        let skips = self.skips.iter().filter(|skip| skip.source == def.name).cloned().collect();
        let strict = def.bad_data == BadData::Fail;
        let (inner, notes) = (self.inner.open_source(def)?, self.notes.clone());
        Ok(Box::new(GuardedSource {
            inner,
            name: def.name.clone(),
            skips,
            strict,
            notes,
            next: BTreeMap::new(),
            waits: self.clock == ClockKind::Wall,
            wait: None,
        }))
    }

    fn open_sink(&self, def: &SinkDef) -> Result<Box<dyn Sink>> {
        if self.mode == Mode::ServeOnly { Ok(Box::new(Silent)) } else { self.inner.open_sink(def) }
    }

    fn secret(&self, from: &SecretFrom) -> Result<String> {
        self.inner.secret(from)
    }

    fn decode_again(&self, source: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
        self.inner.decode_again(source, letters)
    }

    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        Some(Arc::new(self.clone()))
    }
}

/// Reads nothing and writes nothing, for ever.
struct Silent;

impl Source for Silent {
    fn poll(&mut self, _rows_max: usize) -> Result<Poll> {
        Ok(Poll::Pending)
    }

    fn seek(&mut self, _partition: u32, _offset: u64) -> Result<()> {
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        true
    }
}

impl Sink for Silent {
    fn write(&mut self, _changes: &Batch) -> Result<()> {
        Err(Error::internal("a pipeline that only serves writes nothing"))
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        Ok(0)
    }

    fn restore(&mut self, _position: u64) -> Result<()> {
        Ok(())
    }
}

struct GuardedSource {
    inner: Box<dyn Source>,
    name: String,
    skips: Vec<Offsets>,
    /// A dead letter would end the run, so a skipped record is none.
    strict: bool,
    notes: Arc<Notes>,
    /// Where each partition stands.
    next: BTreeMap<u32, u64>,
    /// In wall clock a step is what has been read; in event clock the engine cuts it.
    waits: bool,
    /// A suspect was read: nothing more is before it has been handed out, up to this offset, or so many polls later.
    wait: Option<(u32, u64, u32)>,
}

impl Source for GuardedSource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        self.notes.polled();
        if let Some((partition, offset, polls)) = &mut self.wait {
            *polls -= 1;
            if *polls > 0 && self.notes.stand(&self.name, *partition) < *offset {
                return Ok(Poll::Pending);
            }
            self.wait = None;
        }
        let limit = self.limit();
        let polled = self.inner.poll(limit.map_or(rows_max, |limit| limit.min(rows_max)))?;
        let Poll::Batch(batch) = polled else { return Ok(polled) };
        self.next.insert(batch.partition, batch.next_offset);
        let batch = skip(batch, &self.name, &self.skips, self.strict)?;
        if let (true, true, Some(last)) = (self.waits, limit.is_some(), batch.offsets.last()) {
            self.wait = Some((batch.partition, last + 1, WAIT_POLLS_MAX));
        }
        Ok(Poll::Batch(batch))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.next.insert(partition, offset);
        self.notes.stands_at(&self.name, partition, offset);
        self.inner.seek(partition, offset)
    }

    fn is_bounded(&self) -> bool {
        self.inner.is_bounded()
    }

    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        self.inner.partitions()
    }

    fn pause(&mut self, partition: u32, paused: bool) -> Result<()> {
        self.inner.pause(partition, paused)
    }

    fn is_whole(&self, partition: u32) -> bool {
        self.inner.is_whole(partition)
    }

    fn has_more(&self, partition: u32) -> Option<bool> {
        self.inner.has_more(partition)
    }

    fn accepted(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.inner.accepted(partition, offset)
    }

    fn report(&self) -> SourceReport {
        self.inner.report()
    }
}

impl GuardedSource {
    /// How many records may be polled at once; None: as many as usual.
    fn limit(&self) -> Option<usize> {
        let next = |partition: &u32| self.next.get(partition).copied().unwrap_or(0);
        let partitions = self.next.keys().chain(self.next.is_empty().then_some(&0));
        partitions.filter_map(|partition| self.notes.records_max(&self.name, *partition, next(partition))).min()
    }
}

/// The batch without the rows of skipped records, which become dead letters instead.
fn skip(mut batch: SourceBatch, source: &str, skips: &[Offsets], strict: bool) -> Result<SourceBatch> {
    let skipped = |offset: u64| skips.iter().any(|skip| skip.contains(source, batch.partition, offset));
    if skips.is_empty() || !batch.offsets.iter().any(|offset| skipped(*offset)) {
        return Ok(batch);
    }
    let kept: BooleanArray = batch.offsets.iter().map(|offset| Some(!skipped(*offset))).collect();
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut first = 0;
    for record in batch.offsets.chunk_by(|a, b| a == b) {
        if !strict && skipped(record[0]) {
            // The bytes it came from are gone: its row takes their place, so that it can come in again once it does no harm.
            let whole = record.len() == 1 && batch.diffs.as_ref().is_none_or(|diffs| diffs[first] == 1);
            let (partition, offset, reason) = (batch.partition, record[0], SKIPPED.to_string());
            letters.push(DeadLetter { partition, offset, reason, ..letter_of_row(&batch.rows, first, whole) });
        }
        first += record.len();
    }
    batch.dead_letters.extend(letters);
    batch.dead_letters.sort_by_key(|letter| letter.offset);
    batch.rows = filter_record_batch(&batch.rows, &kept)?;
    let keep = |row: &usize| kept.value(*row);
    batch.diffs = batch.diffs.map(|diffs| (0..diffs.len()).filter(keep).map(|row| diffs[row]).collect());
    batch.offsets = (0..batch.offsets.len()).filter(keep).map(|row| batch.offsets[row]).collect();
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use freshet_core::LetterForm;

    use super::*;

    fn batch() -> SourceBatch {
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![10, 11, 12, 13])) as ArrayRef)]).unwrap();
        let letter = DeadLetter { offset: 9, reason: "not JSON".into(), ..DeadLetter::default() };
        SourceBatch { partition: 0, rows, diffs: Some(vec![1, -1, 1, 1]), offsets: vec![4, 5, 5, 8], dead_letters: vec![letter], next_offset: 10 }
    }

    #[test]
    fn a_skipped_record_is_one_dead_letter_and_none_of_its_rows_is_left() {
        let skips = ["rides:0:5-7".parse().unwrap(), "rides:1:0-99".parse().unwrap()];
        let left = skip(batch(), "rides", &skips, false).unwrap();
        assert_eq!(left.rows.column(0).as_primitive::<Int64Type>().values(), &[10, 13]);
        assert_eq!((left.offsets, left.diffs, left.next_offset), (vec![4, 8], Some(vec![1, 1]), 10));
        let letters: Vec<(u64, &str)> = left.dead_letters.iter().map(|letter| (letter.offset, letter.reason.as_str())).collect();
        assert_eq!(letters, [(5, SKIPPED), (9, "not JSON")]);
        assert_eq!((left.dead_letters[0].raw.as_slice(), left.dead_letters[0].form), (&b"{\"a\":11}"[..], LetterForm::Change));
        let alone = skip(batch(), "rides", &["rides:0:8".parse().unwrap()], false).unwrap();
        assert_eq!((alone.dead_letters[0].raw.as_slice(), alone.dead_letters[0].form), (&b"{\"a\":13}"[..], LetterForm::Row));
        assert_eq!(skip(batch(), "rides", &skips, true).unwrap().dead_letters.len(), 1, "bad_data = 'fail' must not end the run");
        assert_eq!(skip(batch(), "trips", &skips, false).unwrap().offsets.len(), 4);
    }
}
