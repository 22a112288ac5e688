//! FEATURES(…) FOR SYSTEM_TIME AS OF now(): left rows with the features of their entities at their own epoch (C1b), or, for training
//! sets in hindsight, at a time of theirs by everything that ever arrived (T4).
//! In: left rows, and the feature views' outputs, whose frontiers say that the stores hold the step. Out: exactly one row per left row
//! (T6). A retracted left row takes back exactly the answer it got.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray};
use arrow::compute::nullif;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{Batch, Counts, Diffs, Epoch, EventTime, KeyCodec, LookupPart, LookupTime, ReadPoint, Result, Status, event_times};

use crate::bridge::FeatureStore;
use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_bytes, put_u64};

/// The operator and, for a left side that can retract, the answers given to its live rows.
pub struct Lookup {
    name: String,
    parts: Vec<(LookupPart, Arc<FeatureStore>)>,
    at: LookupTime,
    schema: SchemaRef,
    sources: Arc<[String]>,
    memory: Option<Memory>,
}

struct Memory {
    left_codec: KeyCodec,
    output_codec: KeyCodec,
    /// Left row → the output rows it got, oldest first (one per insertion of equal rows).
    answers: ShardedMap<VecDeque<Box<[u8]>>>,
}

impl Lookup {
    /// `left` is the schema of the left side. Errors: Invalid for columns without order.
    pub fn new(
        name: String,
        (parts, at): (Vec<(LookupPart, Arc<FeatureStore>)>, LookupTime),
        (left, schema): (&SchemaRef, SchemaRef),
        left_append_only: bool,
        sources: Arc<[String]>,
    ) -> Result<Lookup> {
        let memory = if left_append_only {
            None
        } else {
            Some(Memory { left_codec: KeyCodec::for_schema(left)?, output_codec: KeyCodec::for_schema(&schema)?, answers: ShardedMap::default() })
        };
        Ok(Lookup { name, parts, at, schema, sources, memory })
    }

    /// The instant each row is answered for; None where it has no time.
    fn points(&self, batch: &Batch) -> Result<Vec<Option<ReadPoint>>> {
        let hindsight = |q| ReadPoint { q, s: Epoch::MAX };
        Ok(match self.at {
            LookupTime::Now => (0..batch.len()).map(|row| Some(ReadPoint::at(batch.epoch(row)))).collect(),
            LookupTime::EventTime { column: None } => (0..batch.len()).map(|row| Some(hindsight(batch.epoch(row)))).collect(),
            LookupTime::EventTime { column: Some(column) } => {
                let times = event_times(batch.column(column))?;
                times.into_iter().map(|time| time.map(|time| hindsight(time.epoch_ceil()))).collect()
            }
        })
    }

    /// The output rows of these left rows, each at its own instant.
    fn answer(&self, batch: &Batch, errors: &mut ErrorRows) -> Result<RecordBatch> {
        let rows = batch.len();
        let mut columns = batch.rows().columns().to_vec();
        let mut statuses = vec![Status::Present; rows];
        let mut last: Vec<Option<EventTime>> = vec![None; rows];
        let points = self.points(batch)?;
        let timeless: Option<BooleanArray> = points.iter().any(Option::is_none).then(|| points.iter().map(|point| Some(point.is_none())).collect());
        for (part, store) in &self.parts {
            let entity: Vec<ArrayRef> = part.keys.iter().map(|key| batch.column(*key).clone()).collect();
            let asked = match &timeless {
                // At no time nothing is known, as of a key that is NULL (T7).
                Some(timeless) => entity.iter().map(|column| nullif(column, timeless)).collect::<Result<Vec<_>, _>>()?,
                None => entity.clone(),
            };
            let keys = store.encode_keys(&asked)?;
            let read = store.read(&asked, &keys, false, |row| points[row].unwrap_or(ReadPoint::at(Epoch::ZERO)));
            let Ok(found) = read else { unreachable!("no store folds epochs of an open step") };
            for column in &part.columns {
                columns.push(match column.checked_sub(entity.len()) {
                    None => entity[*column].clone(),
                    Some(feature) => found.columns[feature].clone(),
                });
            }
            for row in 0..rows {
                statuses[row] = statuses[row].max(found.statuses[row]);
                last[row] = last[row].max(found.event_times[row]);
            }
            for (row, feature, reason) in &found.errors {
                statuses[*row] = Status::Error;
                errors.push(batch, *row, &format!("{} feature {feature}", store.name), reason);
            }
        }
        columns.push(Arc::new(statuses.iter().map(|status| Some(status.name())).collect::<StringArray>()));
        columns.push(Arc::new(last.iter().map(|time| time.map(|time| time.0)).collect::<TimestampNanosecondArray>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    fn step_changing(&mut self, batches: &[Batch], errors: &mut ErrorRows) -> Result<Option<Batch>> {
        let mut order: Vec<(u64, bool, u64, u32, u32)> = Vec::new();
        let mut answers = Vec::new();
        let mut left_rows = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            // Retractions are looked up too and thrown away: rarer than the code to avoid it is long.
            let answer = self.answer(batch, errors)?;
            let memory = self.memory.as_ref().expect("only a changing left side comes here");
            answers.push(memory.output_codec.encode(answer.columns())?);
            left_rows.push(memory.left_codec.encode(batch.rows().columns())?);
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, batch.diff(row) < 0, batch.position(row), index as u32, row as u32)));
        }
        order.sort_unstable();
        let mut cancelled = cancelled(batches, &left_rows);
        let memory = self.memory.as_mut().expect("only a changing left side comes here");
        let mut changes: Vec<(Box<[u8]>, u64, i64, u64)> = Vec::new();
        for (epoch, retracts, _, index, row) in order {
            let (batch, row) = (&batches[index as usize], row as usize);
            let (left, position) = (left_rows[index as usize].row(row), batch.position(row));
            let both = cancelled.get_mut(&(epoch, left.data()));
            let skipped = both.map_or(0, |both| take(if retracts { &mut both.1 } else { &mut both.0 }, batch.diff(row).unsigned_abs()));
            for _ in skipped..batch.diff(row).unsigned_abs() {
                let given = memory.answers.entry(left.as_ref(), VecDeque::new);
                if retracts {
                    if let Some(answer) = given.pop_front() {
                        changes.push((answer, epoch, -1, position));
                    }
                } else {
                    let answer: Box<[u8]> = answers[index as usize].row(row).as_ref().into();
                    given.push_back(answer.clone());
                    changes.push((answer, epoch, 1, position));
                }
                if given.is_empty() {
                    memory.answers.remove(left.as_ref());
                }
            }
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let rows = memory.output_codec.decode_batch(&self.schema, changes.iter().map(|change| change.0.as_ref()))?;
        let epochs = Counts::Each(changes.iter().map(|change| change.1).collect());
        let diffs = Diffs::Each(changes.iter().map(|change| change.2).collect());
        Ok(Some(Batch::new(rows, epochs, diffs, Counts::Each(changes.iter().map(|change| change.3).collect()))))
    }
}

/// How many insertions and retractions of a left row cancel each other in an epoch, twice: changes of one epoch are consolidated before
/// anything is asked (C5). The source has done so, but a projection below may have made rows equal that were not.
fn cancelled<'a>(batches: &[Batch], left_rows: &'a [Rows]) -> BTreeMap<(u64, &'a [u8]), (u64, u64)> {
    let mut sums: BTreeMap<(u64, &[u8]), (u64, u64)> = BTreeMap::new();
    for (batch, left) in batches.iter().zip(left_rows) {
        for row in 0..batch.len() {
            let sum = sums.entry((batch.epoch(row).0, left.row(row).data())).or_default();
            let side = if batch.diff(row) < 0 { &mut sum.1 } else { &mut sum.0 };
            *side += batch.diff(row).unsigned_abs();
        }
    }
    sums.retain(|_, (inserted, retracted)| *inserted > 0 && *retracted > 0);
    sums.values_mut().for_each(|sum| *sum = (sum.0.min(sum.1), sum.0.min(sum.1)));
    sums
}

/// Takes at most `wanted` from `left`.
fn take(left: &mut u64, wanted: u64) -> u64 {
    let taken = wanted.min(*left);
    *left -= taken;
    taken
}

impl StepOperator for Lookup {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        if self.memory.is_none() {
            for batch in batches {
                let answer = self.answer(&batch, &mut errors).expect("the planner fixed the types of the lookup");
                out.rows.push(batch.with_rows(answer));
            }
        } else if !batches.is_empty() {
            out.rows.extend(self.step_changing(&batches, &mut errors).expect("the planner fixed the types of the lookup"));
        }
        out.errors.extend(errors.finish());
    }
}

impl Stateful for Lookup {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        let Some(memory) = &mut self.memory else { return Vec::new() };
        memory.answers.checkpoint(|out, answers| {
            put_u64(out, answers.len() as u64);
            answers.iter().for_each(|answer| put_bytes(out, answer));
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        memory.answers.restore(shard, bytes, |bytes: &mut Bytes<'_>| (0..bytes.u64()?).map(|_| Ok(bytes.bytes()?.into())).collect())
    }

    fn size(&self) -> (u64, u64) {
        let Some(memory) = &self.memory else { return (0, 0) };
        let answers =
            memory.answers.iter().map(|(key, answers)| (answers.len(), key.len() + answers.iter().map(|row| row.len() + 16).sum::<usize>()));
        answers.fold((0, 0), |size, (rows, bytes)| (size.0 + rows as u64, size.1 + bytes as u64))
    }
}
