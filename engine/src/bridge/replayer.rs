//! Dead letters on request. In: which records of a source are to come in again, perhaps corrected. Out: they enter the running pipeline at a new
//! epoch and leave the dead letters; those that still cannot be read stay, with today's reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use freshet_core::{
    ClockKind, Connectors, DeadLetter, Epoch, Error, LetterForm, Refused, Replay, ReplayRequest, Replayed, Result, SourceBatch, SourceDef,
    event_times,
};

use crate::bridge::computed::complete;
use crate::bridge::dead_letters::{NotReturned, ReturnSlot, dead_letter_schema, letter_of, places, reason_of};
use crate::bridge::partition::span;
use crate::bridge::{ViewLog, machine_now};
use crate::metrics::Metrics;

/// Records of one request, so that it ends: more are refused by name.
const RECORDS_MAX: usize = 100_000;
/// Records and bytes that enter with one ticket: what a large batch of a source has.
const CHUNK_RECORDS: usize = 4_096;
const CHUNK_BYTES: usize = 16 << 20;
/// How many records that stay an answer names.
const REFUSED_MAX: usize = 100;
/// How long a request waits for the next tick of a busy pipeline.
const TICKET_WAIT: Duration = Duration::from_secs(20);

/// What is known of one source.
pub struct Buried {
    pub def: SourceDef,
    pub log: Arc<ViewLog>,
    pub slot: ReturnSlot,
}

pub struct Replayer {
    clock: ClockKind,
    /// Time stands still.
    frozen: bool,
    sources: Vec<Buried>,
    /// None: they did not outlive the start.
    connectors: Option<Arc<dyn Connectors>>,
    metrics: Arc<Metrics>,
    /// One request at a time: two would let a record in twice.
    turn: Mutex<()>,
}

/// A dead letter that was chosen, and the rows of the table that are its own.
struct Chosen {
    letter: DeadLetter,
    corrected: bool,
    rows: Vec<(usize, usize)>,
}

impl Replay for Replayer {
    fn replay(&self, request: &ReplayRequest) -> Result<Replayed> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable("another replay of dead letters is under way; try again when it has ended"));
            }
        };
        let (index, source) = self.source(&request.source)?;
        let connectors = self.check(&source.def)?;
        let table = source.log.snapshot(Epoch::MAX).map_err(|_| Error::internal("the table of dead letters has no rows at the end of time"))?;
        let chosen = choose(request, &table)?;
        let mut replayed = Replayed { selected: chosen.len() as u64, ..Replayed::default() };
        for chunk in chunks(&chosen) {
            let Some(ready) = prepare(chunk, &source.def, connectors.as_ref(), &mut replayed)? else { continue };
            if request.dry_run {
                continue;
            }
            let leaving = rows_of(&table, &ready.leaving)?;
            match source.slot.put(ready.batches, leaving, TICKET_WAIT) {
                Ok(epoch) => {
                    replayed.epoch = Some(epoch);
                    self.metrics.source(index, |counts| counts.letters_replayed += ready.count);
                }
                Err(reason) => return Err(self.not_returned(&request.source, &reason, replayed.replayed - ready.count)),
            }
        }
        Ok(replayed)
    }
}

impl Replayer {
    pub fn new((clock, frozen): (ClockKind, bool), sources: Vec<Buried>, connectors: Option<Arc<dyn Connectors>>, metrics: Arc<Metrics>) -> Replayer {
        Replayer { clock, frozen, sources, connectors, metrics, turn: Mutex::new(()) }
    }

    fn source(&self, name: &str) -> Result<(usize, &Buried)> {
        self.sources.iter().enumerate().find(|(_, source)| source.def.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.sources.iter().map(|source| source.def.name.as_str()).collect();
            Error::invalid(format!("there is no source {name}; known: {}", known.join(", ")))
        })
    }

    /// Errors: why nothing can come in now.
    fn check(&self, def: &SourceDef) -> Result<Arc<dyn Connectors>> {
        let name = &def.name;
        if self.clock == ClockKind::Event {
            return Err(Error::invalid(format!(
                "source {name}: with clock = 'event' a run is a function of its input; correct the input and run it again with a new data directory"
            )));
        }
        if self.frozen {
            return Err(Error::unavailable(format!("source {name}: the pipeline only serves its last state; resume it first")));
        }
        if self.metrics.finished.load(Relaxed) {
            return Err(Error::invalid(format!("source {name}: all sources of the pipeline have ended, so nothing comes in any more")));
        }
        if self.metrics.stop_requested() || self.metrics.failure().is_some() {
            return Err(Error::unavailable(format!("source {name}: the pipeline is stopping; try again when it is back")));
        }
        self.connectors.clone().ok_or_else(|| Error::invalid(format!("source {name}: its connector cannot decode records again")))
    }

    fn not_returned(&self, source: &str, reason: &NotReturned, before: u64) -> Error {
        let seconds = TICKET_WAIT.as_secs();
        let why = match reason {
            NotReturned::Busy => format!("the pipeline takes nothing in for {seconds} s (is it behind, or reading history?)"),
            NotReturned::Stopped => "the pipeline has stopped".to_string(),
        };
        Error::unavailable(format!("source {source}: {why}; {before} records have come in again, the others are dead letters still"))
    }
}

/// The letters that the request names, in the order of their places. Errors: a correction of none, too many.
fn choose(request: &ReplayRequest, table: &[RecordBatch]) -> Result<Vec<Chosen>> {
    let corrected: BTreeMap<(u32, u64), &Vec<u8>> = request.corrected.iter().map(|record| ((record.partition, record.offset), &record.raw)).collect();
    let mut found: BTreeMap<(u32, u64), Vec<(usize, usize)>> = BTreeMap::new();
    for (index, rows) in table.iter().enumerate() {
        for (row, place) in places(rows).enumerate() {
            let within = request.offsets.is_empty() || request.offsets.iter().any(|range| range.contains(place.0, place.1));
            let said = request.reason.as_deref().is_none_or(|text| reason_of(rows, row).contains(text));
            if within && said && (corrected.is_empty() || corrected.contains_key(&place)) {
                found.entry(place).or_default().push((index, row));
            }
        }
    }
    if let Some((partition, offset)) = corrected.keys().find(|place| !found.contains_key(place)) {
        return Err(Error::invalid(format!(
            "partition {partition}, offset {offset} is no dead letter of {} that the request names; nothing has come in",
            request.source
        )));
    }
    if found.len() > RECORDS_MAX {
        return Err(Error::invalid(format!(
            "{} records are named, {RECORDS_MAX} at most come in by one request; name offsets or a reason",
            found.len()
        )));
    }
    let chosen = found.into_iter().map(|(place, rows)| {
        let mut letter = letter_of(&table[rows[0].0], rows[0].1);
        let correction = corrected.get(&place);
        if let Some(raw) = correction {
            (letter.raw, letter.bytes_whole) = (raw.to_vec(), 0);
        }
        // Several rows of one record, or its correction, which is a record again.
        letter.form = match (letter.form, correction) {
            (LetterForm::Change, Some(_)) => LetterForm::Record,
            (LetterForm::Row, None) if rows.len() > 1 => LetterForm::Change,
            (form, _) => form,
        };
        Chosen { letter, corrected: correction.is_some(), rows }
    });
    Ok(chosen.collect())
}

/// Parts that may enter with one ticket.
fn chunks(chosen: &[Chosen]) -> Vec<&[Chosen]> {
    let (mut parts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (index, one) in chosen.iter().enumerate() {
        bytes += one.letter.raw.len();
        if index + 1 - begin >= CHUNK_RECORDS || bytes >= CHUNK_BYTES || index + 1 == chosen.len() {
            parts.push(&chosen[begin..=index]);
            (begin, bytes) = (index + 1, 0);
        }
    }
    parts
}

/// What is to enter with one ticket.
struct Ready {
    batches: Vec<SourceBatch>,
    leaving: Vec<(usize, usize)>,
    count: u64,
}

/// Decodes a part; None: nothing of it changes.
fn prepare(part: &[Chosen], def: &SourceDef, connectors: &dyn Connectors, replayed: &mut Replayed) -> Result<Option<Ready>> {
    let mut refuse = |letter: &DeadLetter, field: &str, reason: &str| {
        if replayed.refused.len() < REFUSED_MAX {
            let (field, reason) = (field.to_string(), reason.to_string());
            replayed.refused.push(Refused { partition: letter.partition, offset: letter.offset, field, reason });
        }
    };
    let mut letters = Vec::with_capacity(part.len());
    for one in part {
        let letter = &one.letter;
        if letter.bytes_whole > 0 {
            refuse(letter, "", &format!("only the first {} of its {} bytes are kept; replay it from a file", letter.raw.len(), letter.bytes_whole));
        } else if letter.form == LetterForm::Change {
            refuse(letter, "", "its row is a part of a change, which cannot come in by itself; replay the whole record from a file");
        } else {
            letters.push(letter.clone());
        }
    }
    let mut batches = read_again(connectors, def, &letters)?;
    let ahead = ahead_of_the_clock(&batches, def)?;
    if !ahead.is_empty() {
        // T13 would set them aside at once.
        letters.retain(|letter| !ahead.contains(&(letter.partition, letter.offset)));
        let reason = format!("event time is more than max_skew ({}) ahead of the clock", span(def.limits.max_skew_ms));
        let field = def.event_time.map_or("", |column| def.schema.field(column).name());
        part.iter().filter(|one| ahead.contains(&(one.letter.partition, one.letter.offset))).for_each(|one| refuse(&one.letter, field, &reason));
        batches = read_again(connectors, def, &letters)?;
    }
    let tried: BTreeSet<(u32, u64)> = letters.iter().map(|letter| (letter.partition, letter.offset)).collect();
    let mut still: BTreeMap<(u32, u64), DeadLetter> = BTreeMap::new();
    for batch in &mut batches {
        still.extend(batch.dead_letters.drain(..).map(|letter| ((letter.partition, letter.offset), letter)));
    }
    let (mut leaving, mut count) = (Vec::new(), 0);
    for one in part {
        let place = (one.letter.partition, one.letter.offset);
        match still.get(&place) {
            None if !tried.contains(&place) => {}
            None => {
                leaving.extend(&one.rows);
                count += 1;
            }
            Some(now) => {
                refuse(&one.letter, &now.field, &now.reason);
                // What lies there is the record as it came, so its reason is that of the record as it came.
                if !one.corrected && (now.reason != one.letter.reason || now.field != one.letter.field) {
                    leaving.extend(&one.rows);
                    let letter = DeadLetter { field: now.field.clone(), reason: now.reason.clone(), ..one.letter.clone() };
                    let batch = batches.iter_mut().find(|batch| batch.partition == letter.partition).expect("it came out of one");
                    batch.dead_letters.push(letter);
                }
            }
        }
    }
    replayed.replayed += count;
    Ok((!leaving.is_empty()).then_some(Ready { batches, leaving, count }))
}

/// The places of rows that may not enter yet.
fn ahead_of_the_clock(batches: &[SourceBatch], def: &SourceDef) -> Result<BTreeSet<(u32, u64)>> {
    let Some(column) = def.event_time else { return Ok(BTreeSet::new()) };
    let latest = machine_now().0.saturating_add(def.limits.max_skew_ms);
    let mut found = BTreeSet::new();
    for batch in batches {
        let times = event_times(batch.rows.column(column))?;
        let ahead = times.iter().zip(&batch.offsets).filter(|(time, _)| time.is_some_and(|time| time.epoch_ceil().0 > latest));
        found.extend(ahead.map(|(_, offset)| (batch.partition, *offset)));
    }
    Ok(found)
}

fn rows_of(table: &[RecordBatch], rows: &[(usize, usize)]) -> Result<RecordBatch> {
    if rows.is_empty() {
        return Ok(RecordBatch::new_empty(dead_letter_schema()));
    }
    Ok(interleave_record_batch(&table.iter().collect::<Vec<_>>(), rows)?)
}
/// As the source itself would read them today, computed columns included.
fn read_again(connectors: &dyn Connectors, def: &SourceDef, letters: &[DeadLetter]) -> Result<Vec<SourceBatch>> {
    connectors.decode_again(&def.carried(), letters)?.into_iter().map(|batch| complete(def, batch)).collect()
}
