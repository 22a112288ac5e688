//! Left rows with the right rows as they were when the left row came (C1b), or at a time that it names. In: changes of both sides, sharded by
//! key. Out: the answers, which stay with their rows: a retracted left row takes back exactly the answer it got.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{Batch, Epoch, EventTime, KeyCodec, Result, event_times};

use crate::operators::pairs::Pairs;
use crate::operators::top::{in_epoch_order, partition_keys};
use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_bytes, put_u64};

/// The operator and its state: the right side by key, and the answers given to left rows that may be retracted.
pub struct LookupJoin {
    keys: [Vec<usize>; 2],
    key_codecs: [KeyCodec; 2],
    row_codecs: [KeyCodec; 2],
    at: Option<usize>,
    outer: bool,
    schema: SchemaRef,
    left_append_only: bool,
    /// The right row that stands for none.
    none: Box<[u8]>,
    state: ShardedMap<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Oldest first.
    versions: Vec<Version>,
    /// Left row → the right rows each of its insertions got, oldest first.
    answers: BTreeMap<Box<[u8]>, VecDeque<Vec<Box<[u8]>>>>,
}

/// A right row, and the epochs at which it came and went.
#[derive(Debug, Clone)]
struct Version {
    row: Box<[u8]>,
    from: u64,
    to: u64,
}

/// Net changes of an epoch by key and row: diff, position, and for left rows the time they ask for.
type Changes = BTreeMap<(Box<[u8]>, Box<[u8]>), (i64, u64, Option<EventTime>)>;

impl LookupJoin {
    /// Errors: Invalid for columns without order.
    pub fn new(
        keys: [Vec<usize>; 2],
        (at, outer): (Option<usize>, bool),
        inputs: [&SchemaRef; 2],
        schema: SchemaRef,
        left_append_only: bool,
    ) -> Result<LookupJoin> {
        let codec = |side: usize| KeyCodec::new(&keys[side].iter().map(|key| inputs[side].field(*key).data_type().clone()).collect::<Vec<_>>());
        let key_codecs = [codec(0)?, codec(1)?];
        let row_codecs = [KeyCodec::for_schema(inputs[0])?, KeyCodec::for_schema(inputs[1])?];
        let nulls: Vec<ArrayRef> = inputs[1].fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let none = row_codecs[1].encode(&nulls)?.row(0).data().into();
        Ok(LookupJoin { key_codecs, row_codecs, keys, at, outer, schema, left_append_only, none, state: ShardedMap::default() })
    }

    fn ask(&mut self, (key, row): (&[u8], &[u8]), diff: i64, position: u64, (epoch, cut): (u64, u64), joined: &mut Pairs) {
        let track = !self.left_append_only;
        if diff < 0 {
            let Some(known) = self.state.get_mut(key) else { return };
            for _ in 0..diff.unsigned_abs() {
                let given = known.answers.get_mut(row).and_then(VecDeque::pop_front).unwrap_or_default();
                show(joined, row, &given, (epoch, -1, position));
            }
            if known.answers.get(row).is_some_and(VecDeque::is_empty) {
                known.answers.remove(row);
            }
            if known.answers.is_empty() && known.versions.is_empty() {
                self.state.remove(key);
            }
            return;
        }
        let versions = self.state.get(key).map_or(&[][..], |known| &known.versions);
        let mut answer: Vec<Box<[u8]>> =
            versions.iter().filter(|version| version.from < cut && version.to >= cut).map(|version| version.row.clone()).collect();
        if answer.is_empty() && self.outer {
            answer.push(self.none.clone());
        }
        show(joined, row, &answer, (epoch, diff, position));
        if track {
            let answers = self.state.entry(key, Known::default).answers.entry(row.into()).or_default();
            (0..diff).for_each(|_| answers.push_back(answer.clone()));
        }
    }

    fn learn(&mut self, (key, row): (&[u8], &[u8]), diff: i64, epoch: u64) {
        let keep = self.at.is_some();
        let known = self.state.entry(key, Known::default);
        for _ in 0..diff {
            known.versions.push(Version { row: row.into(), from: epoch, to: u64::MAX });
        }
        for _ in 0..diff.min(0).unsigned_abs() {
            let live = known.versions.iter().position(|version| version.to == u64::MAX && *version.row == *row);
            match live {
                Some(live) if keep => known.versions[live].to = epoch,
                Some(live) => drop(known.versions.remove(live)),
                None => {}
            }
        }
        if known.versions.is_empty() && known.answers.is_empty() {
            self.state.remove(key);
        }
    }
}

/// The left row with each right row of its answer.
fn show(joined: &mut Pairs, row: &[u8], answer: &[Box<[u8]>], change: (u64, i64, u64)) {
    answer.iter().for_each(|other| joined.push((row, other), change));
}

impl StepOperator for LookupJoin {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let left = inputs[0].len();
        let batches: Vec<Batch> = inputs.iter_mut().flat_map(std::mem::take).collect();
        let encoded: Vec<(usize, Option<Rows>, Rows, Option<Vec<Option<EventTime>>>)> = batches
            .iter()
            .enumerate()
            .map(|(index, batch)| {
                let side = usize::from(index >= left);
                let rows = self.row_codecs[side].encode(batch.rows().columns()).expect("the codec was made for these columns");
                let times = self.at.filter(|_| side == 0).map(|at| event_times(batch.column(at)).expect("the planner lets only times be asked at"));
                (side, partition_keys(batch, &self.keys[side], &self.key_codecs[side]), rows, times)
            })
            .collect();
        let mut joined = Pairs::default();
        for rows in in_epoch_order(&batches).chunk_by(|left, right| left.0 == right.0) {
            let epoch = rows[0].0;
            let mut changes = [Changes::new(), Changes::new()];
            for (_, index, row) in rows {
                let (batch, row) = (&batches[*index as usize], *row as usize);
                let (side, keys, rows, times) = &encoded[*index as usize];
                if self.keys[*side].iter().any(|column| batch.column(*column).is_null(row)) {
                    if *side == 0 && self.outer {
                        joined.push((rows.row(row).data(), &self.none), (epoch, batch.diff(row), batch.position(row)));
                    }
                    continue;
                }
                let key = keys.as_ref().map(|keys| keys.row(row));
                let key = key.as_ref().map_or(&[][..], |key| key.data());
                let change = changes[*side].entry((key.into(), rows.row(row).data().into())).or_default();
                let position = if batch.diff(row) > 0 { change.1.max(batch.position(row)) } else { change.1 };
                *change = (change.0 + batch.diff(row), position, times.as_ref().and_then(|times| times[row]));
            }
            let [asked, learnt] = changes;
            for ((key, row), (diff, position, time)) in asked.into_iter().filter(|(_, change)| change.0 != 0) {
                let cut = match (self.at, time) {
                    (None, _) => epoch,
                    (Some(_), Some(time)) => time.epoch_ceil().0.min(epoch),
                    (Some(_), None) => 0,
                };
                self.ask((&key, &row), diff, position, (epoch, cut), &mut joined);
            }
            // The rows of an epoch do not see each other.
            for ((key, row), (diff, ..)) in learnt.into_iter().filter(|(_, change)| change.0 != 0) {
                self.learn((&key, &row), diff, epoch);
            }
        }
        out.rows.extend(joined.batch([&self.row_codecs[0], &self.row_codecs[1]], &self.schema));
    }
}

impl Stateful for LookupJoin {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.state.checkpoint(|out, known| {
            put_u64(out, known.versions.len() as u64);
            for version in &known.versions {
                put_bytes(out, &version.row);
                put_u64(out, version.from);
                put_u64(out, version.to);
            }
            put_u64(out, known.answers.len() as u64);
            for (row, answers) in &known.answers {
                put_bytes(out, row);
                put_u64(out, answers.len() as u64);
                for answer in answers {
                    put_u64(out, answer.len() as u64);
                    answer.iter().for_each(|other| put_bytes(out, other));
                }
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.state.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let mut known = Known::default();
            for _ in 0..bytes.u64()? {
                known.versions.push(Version { row: bytes.bytes()?.into(), from: bytes.u64()?, to: bytes.u64()? });
            }
            for _ in 0..bytes.u64()? {
                let row = bytes.bytes()?.into();
                let mut answers = VecDeque::new();
                for _ in 0..bytes.u64()? {
                    answers.push_back((0..bytes.u64()?).map(|_| Ok(bytes.bytes()?.into())).collect::<Result<Vec<Box<[u8]>>>>()?);
                }
                known.answers.insert(row, answers);
            }
            Ok(known)
        })
    }

    fn size(&self) -> (u64, u64) {
        self.state.iter().fold((0, 0), |(rows, bytes), (key, known)| {
            let versions: usize = known.versions.iter().map(|version| version.row.len() + size_of::<Version>()).sum();
            let answers: usize = known.answers.iter().map(|(row, answers)| row.len() + 48 + answers.len() * 48).sum();
            (rows + (known.versions.len() + known.answers.len()) as u64, bytes + (key.len() + size_of::<Known>() + versions + answers) as u64)
        })
    }
}
