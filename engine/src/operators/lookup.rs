//! FEATURES(…) FOR SYSTEM_TIME AS OF now(): left rows with the features of their entities at their own epoch (C1b), or, for training
//! sets, at a time of theirs: as served then, or in hindsight, by everything that ever arrived (T4).
//! In: left rows, and the feature views' outputs, whose frontiers say that the stores hold the step. Out: exactly one row per left row
//! (T6). A retracted left row takes back exactly the answer it got.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray};
use arrow::compute::nullif;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{Batch, Counts, Diffs, Epoch, EventTime, KeyCodec, LookupPart, LookupTime, ReadPoint, Result, Status, event_times};

use crate::bridge::{FeatureStore, QuestionCount};
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
    /// Of a lookup at a column.
    count: Option<Arc<QuestionCount>>,
    /// The one step is the whole input, so that stores may keep many arrivals apart.
    whole_input: bool,
}

struct Memory {
    left_codec: KeyCodec,
    output_codec: KeyCodec,
    /// Left row → the output rows it got, oldest first (one per insertion of equal rows).
    answers: ShardedMap<VecDeque<Given>>,
}

/// The output row that an insertion got.
#[derive(Clone)]
struct Given {
    answer: Box<[u8]>,
    /// It was for another instant than the row's epoch. Never of a lookup at the epoch, so that no checkpoint has it.
    apart: bool,
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
        Ok(Lookup { name, parts, at, schema, sources, memory, count: None, whole_input: false })
    }

    /// With a counter of the rows that it answers.
    pub fn counting(self, count: Option<Arc<QuestionCount>>) -> Lookup {
        Lookup { count, ..self }
    }

    /// The plan asks for the past, this lookup or another over the same stores.
    pub fn over_whole_input(self, whole_input: bool) -> Lookup {
        Lookup { whole_input, ..self }
    }

    /// The instant each row is answered for; None where it has no time.
    fn points(&self, batch: &Batch) -> Result<Vec<Option<ReadPoint>>> {
        let point = |q| match self.at {
            LookupTime::Now | LookupTime::AsServed { .. } => ReadPoint::at(q),
            LookupTime::EventTime { .. } => ReadPoint { q, s: Epoch::MAX },
        };
        Ok(match self.at.column() {
            None => (0..batch.len()).map(|row| Some(point(batch.epoch(row)))).collect(),
            Some(column) => event_times(batch.column(column))?.into_iter().map(|time| time.map(|time| point(time.epoch_ceil()))).collect(),
        })
    }

    /// The output rows of these left rows, each at its own instant.
    fn answer(&self, batch: &Batch, points: &[Option<ReadPoint>], errors: &mut ErrorRows) -> Result<RecordBatch> {
        let rows = batch.len();
        let mut columns = batch.rows().columns().to_vec();
        let mut statuses = vec![Status::Present; rows];
        let mut last: Vec<Option<EventTime>> = vec![None; rows];
        let timeless: Option<BooleanArray> = points.iter().any(Option::is_none).then(|| points.iter().map(|point| Some(point.is_none())).collect());
        for (part, store) in &self.parts {
            let entity: Vec<ArrayRef> = part.keys.iter().map(|key| batch.column(*key).clone()).collect();
            let asked = match &timeless {
                // At no time nothing is known, as of a key that is NULL (T7).
                Some(timeless) => entity.iter().map(|column| nullif(column, timeless)).collect::<Result<Vec<_>, _>>()?,
                None => entity.clone(),
            };
            let keys = store.encode_keys(&asked)?;
            let point = |row: usize| points[row].unwrap_or(ReadPoint::at(Epoch::ZERO));
            let read = if self.whole_input { store.read_any_time(&asked, &keys, point) } else { store.read(&asked, &keys, false, point) };
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

    /// Which rows ask for another instant than their epoch; empty if nobody counts them.
    fn apart(&self, batch: &Batch, points: &[Option<ReadPoint>]) -> Vec<bool> {
        let Some(_) = &self.count else { return Vec::new() };
        points.iter().enumerate().map(|(row, point)| point.is_none_or(|point| point.q != batch.epoch(row))).collect()
    }

    fn step_changing(&mut self, batches: &[Batch], errors: &mut ErrorRows) -> Result<Option<Batch>> {
        let mut order: Vec<(u64, bool, u64, u32, u32)> = Vec::new();
        let mut answers = Vec::new();
        let mut apart: Vec<Vec<bool>> = Vec::new();
        let mut left_rows = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            // Retractions are looked up too and thrown away: rarer than the code to avoid it is long.
            let points = self.points(batch)?;
            let answer = self.answer(batch, &points, errors)?;
            apart.push(self.apart(batch, &points));
            let memory = self.memory.as_ref().expect("only a changing left side comes here");
            answers.push(memory.output_codec.encode(answer.columns())?);
            left_rows.push(memory.left_codec.encode(batch.rows().columns())?);
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, batch.diff(row) < 0, batch.position(row), index as u32, row as u32)));
        }
        order.sort_unstable();
        let mut cancelled = cancelled(batches, &left_rows);
        let memory = self.memory.as_mut().expect("only a changing left side comes here");
        let mut changes: Vec<(Box<[u8]>, u64, i64, u64)> = Vec::new();
        let mut counted = (0, 0);
        for (epoch, retracts, _, index, row) in order {
            let (batch, row) = (&batches[index as usize], row as usize);
            let (left, position) = (left_rows[index as usize].row(row), batch.position(row));
            let both = cancelled.get_mut(&(epoch, left.data()));
            let skipped = both.map_or(0, |both| take(if retracts { &mut both.1 } else { &mut both.0 }, batch.diff(row).unsigned_abs()));
            for _ in skipped..batch.diff(row).unsigned_abs() {
                let given = memory.answers.entry(left.as_ref(), VecDeque::new);
                if retracts {
                    if let Some(Given { answer, apart }) = given.pop_front() {
                        counted = (counted.0 - 1, counted.1 - i64::from(apart));
                        changes.push((answer, epoch, -1, position));
                    }
                } else {
                    let answer: Box<[u8]> = answers[index as usize].row(row).as_ref().into();
                    let apart = apart[index as usize].get(row).is_some_and(|apart| *apart);
                    counted = (counted.0 + 1, counted.1 + i64::from(apart));
                    given.push_back(Given { answer: answer.clone(), apart });
                    changes.push((answer, epoch, 1, position));
                }
                if given.is_empty() {
                    memory.answers.remove(left.as_ref());
                }
            }
        }
        if let Some(count) = &self.count {
            count.add(counted.0, counted.1);
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
                let points = self.points(&batch).expect("the planner fixed the type of the time");
                let answer = self.answer(&batch, &points, &mut errors).expect("the planner fixed the types of the lookup");
                if let Some(count) = &self.count {
                    let apart = self.apart(&batch, &points).into_iter().enumerate().filter(|(_, apart)| *apart);
                    count.add((0..batch.len()).map(|row| batch.diff(row)).sum(), apart.map(|(row, _)| batch.diff(row)).sum());
                }
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
            answers.iter().for_each(|given| put_bytes(out, &given.answer));
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let given = |bytes: &mut Bytes<'_>| Ok(Given { answer: bytes.bytes()?.into(), apart: false });
        memory.answers.restore(shard, bytes, |bytes: &mut Bytes<'_>| (0..bytes.u64()?).map(|_| given(bytes)).collect())
    }

    fn size(&self) -> (u64, u64) {
        let Some(memory) = &self.memory else { return (0, 0) };
        let answers = memory
            .answers
            .iter()
            .map(|(key, answers)| (answers.len(), key.len() + answers.iter().map(|given| given.answer.len() + 24).sum::<usize>()));
        answers.fold((0, 0), |size, (rows, bytes)| (size.0 + rows as u64, size.1 + bytes as u64))
    }
}
