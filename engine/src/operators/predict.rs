//! PREDICT and MODEL_VERSION: rows with the scores of the version that is live at their own epoch (C1b). In: the rows of a step. Out:
//! the same rows with one column per call. A row whose scoring failed has NULL there and an error row (C3).
//!
//! Invariant (C5): a retraction takes back exactly what the oldest equal row was given; no model runs for it. The operator works in
//! three parts, so that the one that calls models can run on another thread: what is to be scored, the scores, what is emitted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, KeyCodec, Result};

use crate::operators::scoring::{Scored, Scoring};
use crate::operators::{ErrorRows, OffloadedOperator, Output, Stateful, WorkOf};
use crate::state::{Bytes, ShardedMap, put_bytes, put_u64};

/// The operator and, for a left side that can retract, what it gave to its live rows.
pub struct Predict {
    name: String,
    scoring: Arc<Scoring>,
    sources: Arc<[String]>,
    memory: Option<Memory>,
}

struct Memory {
    left_codec: KeyCodec,
    score_codec: KeyCodec,
    /// Left row → what its instances were given, oldest first.
    given: ShardedMap<VecDeque<Given>>,
}

/// What one row was given.
#[derive(Clone)]
struct Given {
    /// The encoded columns of the calls.
    scores: Box<[u8]>,
    position: u64,
    /// Call and reason of what failed: its retraction takes the error rows back too.
    failures: Vec<(usize, String)>,
}

/// What a step asks for.
pub struct Request {
    /// The rows to score.
    rows: Batch,
    /// For a changing left side: what happens in the step, by epoch, then row.
    changes: Option<Vec<Change>>,
}

/// The net change of one row in one epoch. Each insertion scores the next one of the request's rows.
struct Change {
    left: Box<[u8]>,
    epoch: u64,
    diff: i64,
    position: u64,
}

/// A request with its scores.
pub struct Answer {
    request: Request,
    scored: Scored,
}

impl Predict {
    /// `left` is the schema of the left side. Errors: Invalid for columns without order.
    pub fn new(name: String, scoring: Scoring, left: &SchemaRef, left_append_only: bool, sources: Arc<[String]>) -> Result<Predict> {
        let memory = if left_append_only {
            None
        } else {
            let score_codec = KeyCodec::new(&scoring.types())?;
            Some(Memory { left_codec: KeyCodec::for_schema(left)?, score_codec, given: ShardedMap::default() })
        };
        Ok(Predict { name, scoring: Arc::new(scoring), sources, memory })
    }

    fn finish_appending(&self, answer: Answer, errors: &mut ErrorRows) -> Batch {
        let rows = answer.request.rows;
        for failure in &answer.scored.failures {
            errors.push(&rows, failure.row, self.scoring.field(failure.call).name(), &failure.reason);
        }
        let columns = rows.rows().columns().iter().cloned().chain(answer.scored.columns).collect();
        rows.with_rows(self.batch(columns, rows.len()))
    }

    fn finish_changing(&mut self, answer: Answer, errors: &mut ErrorRows) -> Result<Option<Batch>> {
        let memory = self.memory.as_mut().expect("only a changing left side has changes");
        let scores = memory.score_codec.encode(&answer.scored.columns)?;
        let mut failures: BTreeMap<usize, Vec<(usize, String)>> = BTreeMap::new();
        answer.scored.failures.into_iter().for_each(|failure| failures.entry(failure.row).or_default().push((failure.call, failure.reason)));
        let mut emitted: Vec<(Box<[u8]>, u64, i64, Given)> = Vec::new();
        let mut next = 0;
        for change in answer.request.changes.expect("a changing left side has changes") {
            let given = memory.given.entry(&change.left, VecDeque::new);
            if change.diff > 0 {
                let new = Given {
                    scores: scores.row(next).as_ref().into(),
                    position: change.position,
                    failures: failures.remove(&next).unwrap_or_default(),
                };
                next += 1;
                given.extend((0..change.diff).map(|_| new.clone()));
                emitted.push((change.left, change.epoch, change.diff, new));
                continue;
            }
            let taken: Vec<Given> = (0..change.diff.unsigned_abs()).filter_map(|_| given.pop_front()).collect();
            if given.is_empty() {
                memory.given.remove(&change.left);
            }
            emitted.extend(taken.into_iter().map(|old| (change.left.clone(), change.epoch, -1, old)));
        }
        if emitted.is_empty() {
            return Ok(None);
        }
        for (_, epoch, diff, given) in &emitted {
            for (call, reason) in &given.failures {
                errors.push_at(*epoch, *diff, given.position, self.scoring.field(*call).name(), reason, None);
            }
        }
        let mut columns = memory.left_codec.decode(emitted.iter().map(|change| change.0.as_ref()))?;
        columns.extend(memory.score_codec.decode(emitted.iter().map(|change| change.3.scores.as_ref()))?);
        let rows = self.batch(columns, emitted.len());
        let epochs = Counts::Each(emitted.iter().map(|change| change.1).collect());
        let diffs = Diffs::Each(emitted.iter().map(|change| change.2).collect());
        Ok(Some(Batch::new(rows, epochs, diffs, Counts::Each(emitted.iter().map(|change| change.3.position).collect()))))
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.scoring.schema().clone(), columns, &options).expect("the planner fixed the types of PREDICT")
    }
}

/// The net change of each row in each epoch (C5), and the rows that come in.
fn net(codec: &KeyCodec, rows: &Batch) -> Result<(Vec<Change>, Batch)> {
    let encoded = codec.encode(rows.rows().columns())?;
    // Epoch, then row: the sum of its diffs, the last position of an insertion (a retraction takes out the oldest), an instance.
    let mut sums: BTreeMap<(u64, &[u8]), (i64, u64, u32)> = BTreeMap::new();
    for row in 0..rows.len() {
        let sum = sums.entry((rows.epoch(row).0, encoded.row(row).data())).or_default();
        let position = if rows.diff(row) > 0 { rows.position(row) } else { 0 };
        *sum = (sum.0 + rows.diff(row), sum.1.max(position), row as u32);
    }
    sums.retain(|_, (diff, _, _)| *diff != 0);
    let inserted: Vec<u32> = sums.values().filter(|(diff, _, _)| *diff > 0).map(|(_, _, row)| *row).collect();
    let change = |((epoch, left), (diff, position, _)): (&(u64, &[u8]), &(i64, u64, u32))| Change {
        left: (*left).into(),
        epoch: *epoch,
        diff: *diff,
        position: *position,
    };
    Ok((sums.iter().map(change).collect(), rows.take(&inserted)))
}

impl OffloadedOperator for Predict {
    type Request = Request;
    type Answer = Answer;

    fn begin(&mut self, rows: Vec<Batch>) -> Option<Request> {
        let rows = Batch::concat(&rows)?;
        let Some(memory) = &self.memory else { return Some(Request { rows, changes: None }) };
        let (changes, rows) = net(&memory.left_codec, &rows).expect("the codec was made for the left side");
        Some(Request { rows, changes: Some(changes) })
    }

    fn work(&self) -> WorkOf<Predict> {
        let scoring = self.scoring.clone();
        Arc::new(move |request: Request| Answer { scored: scoring.score(&request.rows), request })
    }

    fn bytes(request: &Request) -> usize {
        let changes = request.changes.iter().flatten().map(|change| change.left.len() + 48).sum::<usize>();
        request.rows.rows().get_array_memory_size() + changes
    }

    fn finish(&mut self, answer: Answer, out: &mut Output) {
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        if self.memory.is_none() {
            out.rows.push(self.finish_appending(answer, &mut errors));
        } else {
            out.rows.extend(self.finish_changing(answer, &mut errors).expect("the planner fixed the types of PREDICT"));
        }
        out.errors.extend(errors.finish());
    }
}

impl Stateful for Predict {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        let Some(memory) = &mut self.memory else { return Vec::new() };
        memory.given.checkpoint(|out, given| {
            put_u64(out, given.len() as u64);
            for given in given {
                put_bytes(out, &given.scores);
                put_u64(out, given.position);
                put_u64(out, given.failures.len() as u64);
                for (call, reason) in &given.failures {
                    put_u64(out, *call as u64);
                    put_bytes(out, reason.as_bytes());
                }
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let failure = |bytes: &mut Bytes<'_>| -> Result<_> { Ok((bytes.u64()? as usize, String::from_utf8_lossy(bytes.bytes()?).into_owned())) };
        memory.given.restore(shard, bytes, |bytes| {
            let given = |bytes: &mut Bytes<'_>| -> Result<Given> {
                let (scores, position) = (bytes.bytes()?.into(), bytes.u64()?);
                let failures = (0..bytes.u64()?).map(|_| failure(bytes)).collect::<Result<_>>()?;
                Ok(Given { scores, position, failures })
            };
            (0..bytes.u64()?).map(|_| given(bytes)).collect()
        })
    }

    fn size(&self) -> (u64, u64) {
        let Some(memory) = &self.memory else { return (0, 0) };
        let given =
            memory.given.iter().map(|(key, given)| (given.len(), key.len() + given.iter().map(|given| given.scores.len() + 64).sum::<usize>()));
        given.fold((0, 0), |size, (rows, bytes)| (size.0 + rows as u64, size.1 + bytes as u64))
    }
}
