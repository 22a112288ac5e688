//! The nearest right row in time of every left row. In: changes of both sides, sharded by key. Out: left rows with their match, epoch by epoch.
//!
//! Both sides are kept in the order of time, so that a change of the right side looks only at the left rows between its neighbours in time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{Batch, Comparison, Epoch, KeyCodec, Result, SortCodec, SortKey};

use crate::operators::pairs::Pairs;
use crate::operators::top::{Keys, in_epoch_order, partition_keys};
use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, OrderedRows, ShardedMap, after_prefix};

/// The operator and its state: both sides in the order of time, by key.
pub struct Asof {
    sides: [Side; 2],
    comparison: Comparison,
    outer: bool,
    schema: SchemaRef,
    /// The right row that stands for none.
    none: Box<[u8]>,
    keys: ShardedMap<Matched>,
}

struct Side {
    keys: Vec<usize>,
    time: usize,
    key_codec: KeyCodec,
    sort_codec: SortCodec,
    row_codec: KeyCodec,
}

/// The rows of one key.
#[derive(Debug, Default)]
struct Matched {
    sides: [OrderedRows; 2],
    /// Changes of the open epoch by side: key, bytes of the time in it, diff, position.
    pending: [BTreeMap<Box<[u8]>, Pending>; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    order: u32,
    diff: i64,
    position: u64,
}

/// A left row with its match, if it has one: how much more often it is there after the change than before.
type Differences = BTreeMap<(Box<[u8]>, Option<Box<[u8]>>), (i64, u64)>;

impl Asof {
    /// `sides`: key columns and time column of the left and the right side. Errors: Invalid for columns without order.
    pub fn new(sides: [(Vec<usize>, usize); 2], (comparison, outer): (Comparison, bool), inputs: [&SchemaRef; 2], schema: SchemaRef) -> Result<Asof> {
        let side = |(keys, time): (Vec<usize>, usize), input: &SchemaRef| -> Result<Side> {
            let types: Vec<_> = keys.iter().map(|key| input.field(*key).data_type().clone()).collect();
            let by_time = [SortKey { column: time, descending: false, nulls_first: true }];
            Ok(Side {
                key_codec: KeyCodec::new(&types)?,
                sort_codec: SortCodec::new(input, &by_time)?,
                row_codec: KeyCodec::for_schema(input)?,
                keys,
                time,
            })
        };
        let [left, right] = sides;
        let sides = [side(left, inputs[0])?, side(right, inputs[1])?];
        let nulls: Vec<ArrayRef> = inputs[1].fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let none = sides[1].row_codec.encode(&nulls)?.row(0).data().into();
        Ok(Asof { sides, comparison, outer, schema, none, keys: ShardedMap::default() })
    }
}

impl StepOperator for Asof {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let left = inputs[0].len();
        let batches: Vec<Batch> = inputs.iter_mut().flat_map(std::mem::take).collect();
        let encoded: Vec<(usize, Option<Rows>, Keys)> = batches
            .iter()
            .enumerate()
            .map(|(index, batch)| {
                let side = usize::from(index >= left);
                let of = &self.sides[side];
                (side, partition_keys(batch, &of.keys, &of.key_codec), Keys::of(batch, &of.sort_codec, &of.row_codec))
            })
            .collect();
        let mut joined = Pairs::default();
        for epoch in in_epoch_order(&batches).chunk_by(|left, right| left.0 == right.0) {
            let mut touched: BTreeSet<Box<[u8]>> = BTreeSet::new();
            for (_, index, row) in epoch {
                let (batch, row) = (&batches[*index as usize], *row as usize);
                let (side, names, keys) = &encoded[*index as usize];
                let of = &self.sides[*side];
                if of.keys.iter().chain([&of.time]).any(|column| batch.column(*column).is_null(row)) {
                    if *side == 0 && self.outer {
                        joined.push((keys.row(row), &self.none), (epoch[0].0, batch.diff(row), batch.position(row)));
                    }
                    continue;
                }
                let name = names.as_ref().map(|names| names.row(row));
                let name = name.as_ref().map_or(&[][..], |name| name.data());
                let matched = self.keys.entry(name, Matched::default);
                let pending = matched.pending[*side].entry(keys.key(row)).or_default();
                pending.order = keys.order(row).len() as u32;
                pending.diff += batch.diff(row);
                pending.position = if batch.diff(row) > 0 { pending.position.max(batch.position(row)) } else { pending.position };
                touched.insert(name.into());
            }
            for name in touched {
                let matched = self.keys.get_mut(&name).expect("it was touched");
                matched.advance((self.comparison, self.outer), epoch[0].0, &self.none, &mut joined);
                if matched.sides.iter().all(OrderedRows::is_empty) {
                    self.keys.remove(&name);
                }
            }
        }
        out.rows.extend(joined.batch([&self.sides[0].row_codec, &self.sides[1].row_codec], &self.schema));
    }
}

impl Matched {
    /// Applies the changes of an epoch, and says which matches they change.
    fn advance(&mut self, (comparison, outer): (Comparison, bool), epoch: u64, none: &[u8], joined: &mut Pairs) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.iter_mut().for_each(|side| side.retain(|_, change| change.diff != 0));
        let mut left: BTreeSet<Box<[u8]>> = pending[0].keys().cloned().collect();
        for (key, change) in &pending[1] {
            let (lower, upper) = self.reached(comparison, &key[..change.order as usize]);
            let from = lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let rows = self.sides[0].ascending(from).take_while(|(key, _)| upper.as_deref().is_none_or(|upper| *key < upper));
            left.extend(rows.map(|(key, _)| key.into()));
        }
        let mut differences = Differences::new();
        self.matches(comparison, &left, -1, &mut differences);
        for (rows, changes) in self.sides.iter_mut().zip(&pending) {
            for (key, change) in changes {
                rows.add(key, change.order, change.diff, change.position);
            }
        }
        self.matches(comparison, &left, 1, &mut differences);
        for ((row, found), (diff, position)) in differences.into_iter().filter(|(_, difference)| difference.0 != 0) {
            match found {
                Some(found) => joined.push((&row, &found), (epoch, diff, position)),
                None if outer => joined.push((&row, none), (epoch, diff, position)),
                None => {}
            }
        }
    }

    /// The left keys whose match a right row of this time may be, or may have been: from the first, it included, to the second, it excluded.
    fn reached(&self, comparison: Comparison, time: &[u8]) -> (Option<Box<[u8]>>, Option<Box<[u8]>>) {
        let behind = after_prefix(time);
        let next = || {
            let bound = behind.as_deref().map(Bound::Included)?;
            self.sides[1].ascending(bound).next().map(|(key, held)| Box::from(&key[..held.order as usize]))
        };
        let before = || self.sides[1].descending(Bound::Excluded(time)).next().map(|(key, held)| Box::from(&key[..held.order as usize]));
        let after = |time: Option<Box<[u8]>>| time.and_then(|time: Box<[u8]>| after_prefix(&time));
        match comparison {
            Comparison::GreaterOrEqual => (Some(time.into()), next()),
            Comparison::Greater => (behind.clone(), after(next())),
            Comparison::LessOrEqual => (after(before()), behind.clone()),
            Comparison::Less => (before(), Some(time.into())),
        }
    }

    fn matches(&self, comparison: Comparison, left: &BTreeSet<Box<[u8]>>, sign: i64, differences: &mut Differences) {
        for key in left {
            let Some(held) = self.sides[0].get(key) else { continue };
            let (time, row) = key.split_at(held.order as usize);
            let found = self.nearest(comparison, time);
            let position = held.position.max(found.as_ref().map_or(0, |found| found.1));
            let difference = differences.entry((row.into(), found.map(|found| found.0))).or_default();
            *difference = (difference.0 + sign * held.count, position);
        }
    }

    /// The right row that matches this time, and its position.
    fn nearest(&self, comparison: Comparison, time: &[u8]) -> Option<(Box<[u8]>, u64)> {
        let right = &self.sides[1];
        let behind = after_prefix(time);
        let first = |from: Option<&[u8]>| {
            let (key, held) = right.ascending(Bound::Included(from?)).next()?;
            let end = after_prefix(&key[..held.order as usize]);
            right.descending(end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)).next()
        };
        let (key, held) = match comparison {
            Comparison::GreaterOrEqual => right.descending(behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded)).next(),
            Comparison::Greater => right.descending(Bound::Excluded(time)).next(),
            Comparison::LessOrEqual => first(Some(time)),
            Comparison::Less => first(behind.as_deref()),
        }?;
        Some((key[held.order as usize..].into(), held.position))
    }
}

impl Stateful for Asof {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.keys.checkpoint(|out, matched| matched.sides.iter().for_each(|side| side.put(out)))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.keys.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            Ok(Matched { sides: [OrderedRows::take(bytes)?, OrderedRows::take(bytes)?], ..Matched::default() })
        })
    }

    fn size(&self) -> (u64, u64) {
        self.keys.iter().fold((0, 0), |(rows, bytes), (key, matched)| {
            let own: usize = matched.sides.iter().map(OrderedRows::bytes).sum();
            let count: usize = matched.sides.iter().map(OrderedRows::len).sum();
            (rows + count as u64, bytes + (key.len() + size_of::<Matched>() + own) as u64)
        })
    }
}
