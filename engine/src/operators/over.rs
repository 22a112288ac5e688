//! Functions OVER windows. In: changes, sharded by partition. Out: rows with the values of the calls, epoch by epoch.
//!
//! Only the rows whose values a change can reach are computed again, before and after it; what differs goes out. Running aggregates start from
//! the aggregate of the whole partition less the rows behind, so a change at the end costs what it changes and no more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{AggregateFunction, Batch, Counts, Diffs, Epoch, FrameBound, KeyCodec, OverCall, OverFunction, Result, SortCodec, SortKey, Value};

use crate::operators::top::{Keys, in_epoch_order, partition_keys};
use crate::operators::{ErrorRows, Freeing, Output, Stateful, StepOperator};
use crate::state::{Bytes, Cell, CellKind, DatumReader, Held, Interval, OrderedRows, Reach, ShardedMap, Shown, Stretch, Whole, head_rows};

/// The operator and its state: rows in order, by partition.
pub struct Over {
    name: String,
    partition: Vec<usize>,
    key_codec: KeyCodec,
    window: Window,
    sources: Arc<[String]>,
    partitions: ShardedMap<Partition>,
    freeing: Option<Freeing>,
}

/// What is the same for every partition.
struct Window {
    calls: Vec<OverCall>,
    /// Of the calls that are aggregates.
    kinds: Vec<Option<CellKind>>,
    order: Vec<SortKey>,
    sort_codec: SortCodec,
    row_codec: KeyCodec,
    input: SchemaRef,
    schema: SchemaRef,
    reach: Reach,
    head: u64,
}

#[derive(Debug, Default)]
struct Partition {
    rows: OrderedRows,
    count: i64,
    groups: i64,
    /// Per call, the aggregate of all rows, where its frame is open to a side.
    totals: Vec<Option<Cell>>,
    /// Changes of the open epoch: key, bytes of ORDER BY in it, diff, position.
    pending: Vec<(Box<[u8]>, u32, i64, u64)>,
}

/// Rows of a stretch with their values: how much more often they are there after the change than before.
type Differences = BTreeMap<(Box<[u8]>, Shown), (u32, i64, u64)>;

struct Change {
    row: Box<[u8]>,
    values: Vec<Value>,
    epoch: u64,
    diff: i64,
    position: u64,
}

impl Over {
    /// `input` is the schema of the rows, `schema` of the output. Errors: Invalid for columns without order.
    pub fn new(
        name: String,
        (partition, order, calls): (Vec<usize>, Vec<SortKey>, Vec<OverCall>),
        (input, schema): (&SchemaRef, SchemaRef),
        sources: Arc<[String]>,
    ) -> Result<Over> {
        let types: Vec<_> = partition.iter().map(|column| input.field(*column).data_type().clone()).collect();
        let kind = |call: &OverCall| match &call.function {
            OverFunction::Aggregate(inner) => {
                let argument = inner.argument.map(|column| input.field(column).data_type().clone());
                let variant = inner.function == AggregateFunction::ApproxPercentile && inner.second.is_some();
                Some(CellKind { variant, parameter: inner.parameter.clone(), ..CellKind::new(inner.function, argument, inner.distinct, true) })
            }
            _ => None,
        };
        let window = Window {
            kinds: calls.iter().map(kind).collect(),
            sort_codec: SortCodec::new(input, &order)?,
            row_codec: KeyCodec::for_schema(input)?,
            reach: Reach::of(&calls, &order, input),
            head: head_rows(&calls),
            calls,
            order,
            input: input.clone(),
            schema,
        };
        Ok(Over { name, key_codec: KeyCodec::new(&types)?, partition, window, sources, partitions: ShardedMap::default(), freeing: None })
    }

    /// Partitions that no row can reach any more are forgotten.
    pub fn freeing(self, freeing: Option<Freeing>) -> Over {
        Over { freeing, ..self }
    }

    fn absorb(&mut self, batches: &[Batch], errors: &mut ErrorRows) -> Result<Option<Batch>> {
        let codecs = (&self.window.sort_codec, &self.window.row_codec);
        let encoded: Vec<(Option<Rows>, Keys)> =
            batches.iter().map(|batch| (partition_keys(batch, &self.partition, &self.key_codec), Keys::of(batch, codecs.0, codecs.1))).collect();
        let mut changes = Vec::new();
        for epoch in in_epoch_order(batches).chunk_by(|left, right| left.0 == right.0) {
            let mut touched: Vec<Box<[u8]>> = Vec::new();
            for (_, index, row) in epoch {
                let (batch, row) = (&batches[*index as usize], *row as usize);
                let (partitions, keys) = &encoded[*index as usize];
                let name = partitions.as_ref().map(|partitions| partitions.row(row));
                let name = name.as_ref().map_or(&[][..], |name| name.data());
                let partition = self.partitions.entry(name, || self.window.empty());
                if partition.pending.is_empty() {
                    touched.push(name.into());
                }
                partition.pending.push((keys.key(row), keys.order(row).len() as u32, batch.diff(row), batch.position(row)));
            }
            touched.sort_unstable();
            for name in touched {
                let partition = self.partitions.get_mut(&name).expect("it was touched");
                self.window.advance(partition, epoch[0].0, &mut changes, errors)?;
                if partition.rows.is_empty() {
                    self.partitions.remove(&name);
                }
            }
        }
        self.window.batch_of(&changes)
    }
}

impl Window {
    fn empty(&self) -> Partition {
        Partition { totals: self.empty_totals(), ..Partition::default() }
    }

    fn empty_totals(&self) -> Vec<Option<Cell>> {
        let open = |call: &OverCall| call.frame.start == FrameBound::Unbounded || call.frame.end == FrameBound::Unbounded;
        self.calls.iter().zip(&self.kinds).map(|(call, kind)| kind.as_ref().filter(|_| open(call)).map(CellKind::empty)).collect()
    }

    /// Applies the changes of an epoch, and says which values they change.
    fn advance(&self, partition: &mut Partition, epoch: u64, changes: &mut Vec<Change>, errors: &mut ErrorRows) -> Result<()> {
        let mut pending: BTreeMap<Box<[u8]>, (u32, i64, u64)> = BTreeMap::new();
        for (key, order, diff, position) in std::mem::take(&mut partition.pending) {
            let sum = pending.entry(key).or_insert((order, 0, 0));
            *sum = (order, sum.1 + diff, if diff > 0 { sum.2.max(position) } else { sum.2 });
        }
        pending.retain(|_, (_, diff, _)| *diff != 0);
        let intervals = self.intervals(partition, &pending)?;
        let mut differences = Differences::new();
        self.compute(partition, &intervals, -1, &mut differences)?;
        self.apply(partition, &pending)?;
        self.compute(partition, &intervals, 1, &mut differences)?;
        for ((key, shown), (order, diff, position)) in differences.into_iter().filter(|(_, difference)| difference.1 != 0) {
            match shown {
                Shown::Values(values) => changes.push(Change { row: key[order as usize..].into(), values, epoch, diff, position }),
                Shown::Failed(column, reason) => errors.push_at(epoch, diff, position, self.schema.field(column).name(), &reason, None),
            }
        }
        Ok(())
    }

    /// Where values may change, in order and apart from each other.
    fn intervals(&self, partition: &Partition, pending: &BTreeMap<Box<[u8]>, (u32, i64, u64)>) -> Result<Vec<Interval>> {
        let slack: u64 = pending.values().map(|(_, diff, _)| diff.unsigned_abs()).sum();
        let mut found = Vec::with_capacity(pending.len());
        for (key, (order, ..)) in pending {
            found.push(self.reach.changed(&partition.rows, (&self.sort_codec, &self.row_codec), (key, *order), slack)?);
        }
        found.sort_by(|a, b| a.lower.cmp(&b.lower));
        let mut merged: Vec<Interval> = Vec::new();
        for interval in found {
            match merged.last_mut() {
                Some(Interval { upper: None, .. }) => break,
                Some(last) if interval.lower.is_none() || interval.lower <= last.upper => {
                    last.upper = match (last.upper.take(), interval.upper) {
                        (Some(known), Some(more)) => Some(known.max(more)),
                        _ => None,
                    };
                }
                _ => merged.push(interval),
            }
        }
        Ok(merged)
    }

    fn compute(&self, partition: &Partition, intervals: &[Interval], sign: i64, differences: &mut Differences) -> Result<()> {
        for interval in intervals {
            let Some(read) = self.reach.read(&partition.rows, (&self.sort_codec, &self.row_codec), interval)? else { continue };
            let lower = read.lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let held: Vec<(&[u8], &Held)> =
                partition.rows.ascending(lower).take_while(|(key, _)| read.upper.as_deref().is_none_or(|upper| *key < upper)).collect();
            let rows = self.decode(held.iter().copied())?;
            let last = held.last().map(|(key, _)| *key);
            let to_end = partition.rows.descending(Bound::Unbounded).next().map(|(key, _)| key) == last;
            let whole = Whole { count: partition.count, groups: partition.groups, totals: &partition.totals, head: self.head(partition)?, to_end };
            let stretch = Stretch::new((&self.calls, &self.order, &self.schema), &rows, &held, &whole)?;
            let inside = |instance: usize| {
                let key = held[stretch.row(instance)].0;
                (interval.lower.as_deref().is_none_or(|lower| key >= lower), interval.upper.as_deref().is_none_or(|upper| key < upper))
            };
            let first = (0..stretch.len()).find(|instance| inside(*instance).0).unwrap_or(stretch.len());
            let end = (first..stretch.len()).find(|instance| !inside(*instance).1).unwrap_or(stretch.len());
            for (instance, shown) in (first..end).zip(stretch.values(first..end, &self.kinds, &whole)?) {
                let (key, held) = held[stretch.row(instance)];
                let difference = differences.entry((key.into(), shown)).or_insert((held.order, 0, held.position));
                difference.1 += sign;
                difference.2 = held.position;
            }
        }
        Ok(())
    }

    fn apply(&self, partition: &mut Partition, pending: &BTreeMap<Box<[u8]>, (u32, i64, u64)>) -> Result<()> {
        for (key, (order, diff, position)) in pending {
            let peers = &key[..*order as usize];
            let has_peers = |rows: &OrderedRows| rows.ascending(Bound::Included(peers)).next().is_some_and(|(key, _)| key.starts_with(peers));
            let before = has_peers(&partition.rows);
            partition.rows.add(key, *order, *diff, *position);
            partition.groups += i64::from(has_peers(&partition.rows)) - i64::from(before);
            partition.count += diff;
        }
        let held: Vec<(Box<[u8]>, Held)> =
            pending.iter().map(|(key, (order, diff, position))| (key.clone(), Held { order: *order, count: *diff, position: *position })).collect();
        self.add_to_totals(&mut partition.totals, held.iter().map(|(key, held)| (key.as_ref(), held)))
    }

    fn add_to_totals<'a>(&self, totals: &mut [Option<Cell>], held: impl Iterator<Item = (&'a [u8], &'a Held)> + Clone) -> Result<()> {
        if totals.iter().all(Option::is_none) {
            return Ok(());
        }
        let rows = self.decode(held.clone())?;
        for (call, total) in self.calls.iter().zip(totals) {
            let (OverFunction::Aggregate(call), Some(total)) = (&call.function, total) else { continue };
            let reader = DatumReader::new(call.argument.map(|column| rows.column(column)), call.filter.map(|column| rows.column(column)))
                .with_second(call.second.map(|column| rows.column(column)));
            for (row, (_, held)) in held.clone().enumerate() {
                total.add(&reader.get(row), held.count);
            }
        }
        Ok(())
    }

    fn decode<'a>(&self, held: impl Iterator<Item = (&'a [u8], &'a Held)>) -> Result<RecordBatch> {
        self.row_codec.decode_batch(&self.input, held.map(|(key, held)| &key[held.order as usize..]))
    }

    /// The first rows of the partition that calls read wherever they stand.
    fn head(&self, partition: &Partition) -> Result<Vec<(RecordBatch, usize)>> {
        let mut left = self.head;
        let mut held = Vec::new();
        for (key, one) in partition.rows.iter() {
            if left == 0 {
                break;
            }
            held.push((key, one));
            left = left.saturating_sub(one.count.unsigned_abs());
        }
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.decode(held.iter().copied())?;
        Ok(held.iter().enumerate().flat_map(|(row, (_, held))| (0..held.count).map(move |_| row)).map(|row| (rows.clone(), row)).collect())
    }

    fn batch_of(&self, changes: &[Change]) -> Result<Option<Batch>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = self.row_codec.decode(changes.iter().map(|change| change.row.as_ref()))?;
        for index in 0..self.calls.len() {
            let field = self.schema.field(columns.len());
            columns.push(Value::column_of(field.data_type(), changes.iter().map(|change| &change.values[index]))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let epochs = Counts::Each(changes.iter().map(|change| change.epoch).collect());
        let diffs = Diffs::Each(changes.iter().map(|change| change.diff).collect());
        Ok(Some(Batch::new(rows, epochs, diffs, Counts::Each(changes.iter().map(|change| change.position).collect()))))
    }
}

impl StepOperator for Over {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        out.rows.extend(self.absorb(&batches, &mut errors).expect("the planner fixed the types of the calls"));
        out.errors.extend(errors.finish());
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.partitions, &self.key_codec, (upto, batches.iter().map(Batch::len).sum()));
        }
    }
}

impl Stateful for Over {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.partitions.checkpoint(|out, partition| partition.rows.put(out))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let window = &self.window;
        self.partitions.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let mut partition = Partition { rows: OrderedRows::take(bytes)?, totals: window.empty_totals(), ..Partition::default() };
            let mut peers: Option<&[u8]> = None;
            for (key, held) in partition.rows.iter() {
                partition.count += held.count;
                let its = &key[..held.order as usize];
                partition.groups += i64::from(peers != Some(its));
                peers = Some(its);
            }
            window.add_to_totals(&mut partition.totals, partition.rows.iter())?;
            Ok(partition)
        })
    }

    fn size(&self) -> (u64, u64) {
        self.partitions.iter().fold((0, 0), |(rows, bytes), (key, partition)| {
            let totals: usize = partition.totals.iter().flatten().map(Cell::bytes).sum();
            (rows + partition.rows.len() as u64, bytes + (key.len() + size_of::<Partition>() + partition.rows.bytes() + totals) as u64)
        })
    }
}
