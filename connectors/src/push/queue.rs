//! What clients have pushed and the engine has not read yet. In: pushes of any thread. Out: their positions at once, their rows to the one
//! reader later, in the order of their positions.
//!
//! Invariants: a push is in the queue whole or not at all and is read whole, so that no checkpoint stands in the middle of one; the bytes
//! in the queue stay below a named limit, and a push that finds no room is refused, never dropped.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::TimeUnit;
use freshet_core::{Error, Poll, Push, PushSource, Pushed, Result, SourceBatch, SourceDef, SourceReport};

use super::columns::owned;
use super::intake::{Intake, Taken};
use super::journal::{Entry, Journal};
use super::options::Options;
use crate::decode::{Cell, with_cell};

/// A client's name of a push. Longer ones make the memory of names a burden.
const ID_BYTES_MAX: usize = 256;

/// The queue of one source.
pub struct PushQueue {
    def: SourceDef,
    intake: Intake,
    options: Options,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    journal: Journal,
    /// Where the pipeline goes on, as its checkpoint says.
    offset: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    records: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The pipeline has not said yet where it goes on.
    Starting,
    Open,
    /// What is in the queue will be read, nothing else is taken.
    Closed,
}

/// A push with its place.
struct Waiting {
    first: u64,
    received_us: i64,
    taken: Taken,
}

impl PushQueue {
    /// `folder` keeps positions over restarts. Errors: Invalid (options), Unavailable (the folder).
    pub fn open(def: &SourceDef, folder: Option<&Path>) -> Result<PushQueue> {
        let options = Options::parse(def).map_err(|error| Error::invalid(format!("source {}: {}", def.name, error.message)))?;
        let journal = match folder {
            Some(folder) => Journal::open(&folder.join(format!("{}.journal", file_name(&def.name))))?,
            None => Journal::in_memory(),
        };
        let state = State { phase: Phase::Starting, journal, offset: 0, waiting: VecDeque::new(), bytes: 0, records: 0 };
        Ok(PushQueue { def: def.clone(), intake: Intake::new(def), options, state: Mutex::new(state) })
    }

    pub fn describe(&self) -> PushSource {
        let position = self.lock().journal.end();
        PushSource {
            position,
            name: self.def.name.clone(),
            schema: self.intake.schema().clone(),
            encode: self.def.encode,
            secret: self.options.secret.clone(),
            queue_bytes: self.lock().bytes,
            queue_bytes_max: self.options.queue_bytes_max,
        }
    }

    /// Errors: Invalid, Unavailable; nothing was taken then.
    pub fn push(&self, push: &Push) -> Result<Pushed> {
        let named = |error: Error| Error { message: format!("source {}: {}", self.def.name, error.message), ..error };
        self.try_push(push).map_err(named)
    }

    fn try_push(&self, push: &Push) -> Result<Pushed> {
        let id = push.id.as_deref();
        if let Some(id) = id.filter(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
            return Err(Error::invalid(format!("a batch id has 1 to {ID_BYTES_MAX} bytes, this one has {}", id.len())));
        }
        // Before the work of decoding: a repeat needs no answer from it, and a full queue no rows.
        if let Some(known) = self.admit(&self.lock(), id, 1)? {
            return Ok(known);
        }
        let taken = self.intake.take(&push.body)?;
        if taken.bytes > self.options.queue_bytes_max {
            let most = self.options.queue_bytes_max;
            return Err(Error::invalid(format!("the push has {} bytes as rows, max_queue_bytes is {most}; send smaller ones", taken.bytes)));
        }
        let mut state = self.lock();
        // Another client may have brought the same, or filled the queue, meanwhile.
        if let Some(known) = self.admit(&state, id, taken.bytes)? {
            return Ok(known);
        }
        let (first, dead_letters) = (state.journal.end(), taken.dead_letters.len() as u64);
        let entry = Entry { first, end: first + taken.records, dead_letters };
        if taken.records > 0 || id.is_some() {
            state.journal.add(id, entry)?;
        }
        if taken.records > 0 {
            state.bytes += taken.bytes;
            state.records += taken.records;
            state.waiting.push_back(Waiting { first, received_us: machine_us(), taken });
        }
        Ok(answer(entry, false))
    }

    /// The answer of an earlier push of this name; None if this one may come in. Errors: Unavailable.
    fn admit(&self, state: &State, id: Option<&str>, bytes: usize) -> Result<Option<Pushed>> {
        match state.phase {
            Phase::Starting => return Err(Error::unavailable("the pipeline is starting; try again in a moment")),
            Phase::Closed => return Err(Error::unavailable("the pipeline is stopping; try again when it is back")),
            Phase::Open => {}
        }
        if let Some(entry) = id.and_then(|id| state.journal.find(id)) {
            return Ok(Some(answer(entry, true)));
        }
        if state.bytes + bytes > self.options.queue_bytes_max {
            let most = self.options.queue_bytes_max;
            return Err(Error::unavailable(format!("{} of {most} bytes of max_queue_bytes wait to be read; try again later", state.bytes)));
        }
        Ok(None)
    }

    /// The pipeline goes on here.
    pub fn seek(&self, offset: u64) {
        let mut state = self.lock();
        assert!(state.phase == Phase::Starting, "seek comes before the first poll");
        state.offset = offset;
    }

    /// The next pushes, whole, together about `rows_max` rows.
    pub fn poll(&self, rows_max: usize) -> Result<Poll> {
        let mut state = self.lock();
        if state.phase == Phase::Starting {
            let offset = state.offset;
            state.journal.settle(offset)?;
            state.phase = Phase::Open;
        }
        let mut pushes = Vec::new();
        let mut rows = 0;
        while rows < rows_max
            && let Some(next) = state.waiting.pop_front()
        {
            state.bytes -= next.taken.bytes;
            state.records -= next.taken.records;
            rows += next.taken.rows.num_rows();
            pushes.push(next);
        }
        drop(state);
        if pushes.is_empty() { Ok(Poll::Pending) } else { self.joined(pushes).map(Poll::Batch) }
    }

    /// One batch of several pushes, with metadata and offsets of their place.
    fn joined(&self, pushes: Vec<Waiting>) -> Result<SourceBatch> {
        let last = pushes.last().expect("there is a push");
        let next_offset = last.first + last.taken.records;
        let offsets: Vec<u64> = pushes.iter().flat_map(|push| push.taken.offsets.iter().map(|offset| push.first + offset)).collect();
        let mut columns = Vec::with_capacity(self.def.schema.fields().len());
        let mut sent = 0;
        for (index, field) in self.def.schema.fields().iter().enumerate() {
            let column = match self.def.metadata.iter().find(|metadata| metadata.column == index) {
                Some(metadata) if metadata.name == "offset" => {
                    Arc::new(offsets.iter().map(|offset| *offset as i64).collect::<Int64Array>()) as ArrayRef
                }
                Some(_) => cast(&received(&pushes), field.data_type())?,
                None => {
                    let parts: Vec<&ArrayRef> = pushes.iter().map(|push| push.taken.rows.column(sent)).collect();
                    sent += 1;
                    // A slice would keep the memory of the message it came in.
                    if let [one] = parts[..] { owned(one)? } else { concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())? }
                }
            };
            columns.push(column);
        }
        let changing = pushes.iter().any(|push| push.taken.diffs.is_some());
        let diffs = changing.then(|| {
            let of = |push: &Waiting| push.taken.diffs.clone().unwrap_or_else(|| vec![1; push.taken.offsets.len()]);
            pushes.iter().flat_map(of).collect()
        });
        let mut dead_letters = Vec::new();
        for mut push in pushes {
            for mut letter in push.taken.dead_letters.drain(..) {
                letter.offset += push.first;
                letter.context = with_cell(&letter.context, "received", &Cell::Instant(push.received_us, TimeUnit::Microsecond));
                dead_letters.push(letter);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(offsets.len()));
        let rows = RecordBatch::try_new_with_options(self.def.schema.clone(), columns, &options)?;
        Ok(SourceBatch { partition: 0, rows, diffs, offsets, dead_letters, next_offset })
    }

    /// Takes nothing more.
    pub fn close(&self) {
        self.lock().phase = Phase::Closed;
    }

    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    pub fn report(&self) -> SourceReport {
        SourceReport { trouble: None, lag_rows: Some(self.lock().records) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(entry: Entry, duplicate: bool) -> Pushed {
    Pushed { partition: 0, position: entry.end, records: entry.end - entry.first, dead_letters: entry.dead_letters, duplicate }
}

/// When each row was taken.
fn received(pushes: &[Waiting]) -> ArrayRef {
    let times = pushes.iter().flat_map(|push| std::iter::repeat_n(push.received_us, push.taken.offsets.len()));
    Arc::new(TimestampMicrosecondArray::from_iter_values(times))
}

/// A file's name for any name of a source.
pub fn file_name(source: &str) -> String {
    let escaped = source.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02x}"),
    });
    escaped.collect()
}

#[allow(clippy::disallowed_methods, reason = "the metadata column received is the machine's clock; it is written into the row, which is input")]
fn machine_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
