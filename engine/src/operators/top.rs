//! The first rows of each partition. In: changes, sharded by partition. Out: what enters and leaves the top, epoch by epoch, with its rank
//! where that is asked for.
//!
//! A change costs the logarithm of the partition and what it moves across the edges of the top. Rows of an input that never retracts are
//! dropped as soon as they lie behind the top: they can never come back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, RankKind, Result, SortCodec, SortKey};

use crate::operators::{Freeing, Output, Stateful, StepOperator};
use crate::state::{Bytes, Held, OrderedRows, ShardedMap, after_prefix};

/// Which ranks are in the top, and what is shown of them.
#[derive(Debug, Clone, Copy)]
pub struct TopSpec {
    pub rank: RankKind,
    pub offset: u64,
    pub limit: u64,
    pub number: bool,
}

/// The operator and its state: rows in order, by partition.
pub struct Top {
    spec: TopSpec,
    partition: Vec<usize>,
    key_codec: KeyCodec,
    sort_codec: SortCodec,
    row_codec: KeyCodec,
    schema: SchemaRef,
    append_only: bool,
    partitions: ShardedMap<Partition>,
    freeing: Option<Freeing>,
}

#[derive(Debug, Default)]
struct Partition {
    rows: OrderedRows,
    /// Rows per group of peers; only where ranks are by groups.
    groups: BTreeMap<Box<[u8]>, i64>,
    /// Up to offset + limit.
    upper: Edge,
    /// Up to offset.
    lower: Edge,
    /// Changes of the open epoch: key, bytes of ORDER BY in it, diff, position.
    pending: Vec<(Box<[u8]>, u32, i64, u64)>,
}

/// The end of the least prefix of units that weighs enough. A unit is a row, weighing its count, or a group of peers, weighing its rows
/// (rank) or 1 (dense_rank).
#[derive(Debug, Default, Clone)]
struct Edge {
    /// Units up to this one, it included, are within.
    last: Option<Box<[u8]>>,
    within: i64,
}

/// A row that enters or leaves.
struct Change {
    row: Box<[u8]>,
    number: u64,
    epoch: u64,
    diff: i64,
    position: u64,
}

impl Top {
    /// `input` is the schema of the rows, `schema` of the output. Errors: Invalid for columns without order.
    pub fn new(
        spec: TopSpec,
        (partition, order): (Vec<usize>, &[SortKey]),
        (input, schema): (&SchemaRef, SchemaRef),
        append_only: bool,
    ) -> Result<Top> {
        let types: Vec<_> = partition.iter().map(|column| input.field(*column).data_type().clone()).collect();
        Ok(Top {
            spec,
            key_codec: KeyCodec::new(&types)?,
            partition,
            sort_codec: SortCodec::new(input, order)?,
            row_codec: KeyCodec::for_schema(input)?,
            schema,
            append_only,
            partitions: ShardedMap::default(),
            freeing: None,
        })
    }

    /// Partitions that no row can reach any more are forgotten.
    pub fn freeing(self, freeing: Option<Freeing>) -> Top {
        Top { freeing, ..self }
    }

    fn batch_of(&self, changes: &[Change]) -> Option<Batch> {
        if changes.is_empty() {
            return None;
        }
        let mut columns = self.row_codec.decode(changes.iter().map(|change| change.row.as_ref())).expect("these are rows of this codec");
        if self.spec.number {
            columns.push(Arc::new(changes.iter().map(|change| Some(change.number)).collect::<UInt64Array>()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the planner fixed the schema");
        let epochs = Counts::Each(changes.iter().map(|change| change.epoch).collect());
        let diffs = Diffs::Each(changes.iter().map(|change| change.diff).collect());
        Some(Batch::new(rows, epochs, diffs, Counts::Each(changes.iter().map(|change| change.position).collect())))
    }
}

/// The keys of the rows of a batch: ORDER BY, then the whole row.
pub(super) struct Keys {
    order: Option<Rows>,
    rows: Rows,
}

impl Keys {
    pub fn of(batch: &Batch, sort: &SortCodec, rows: &KeyCodec) -> Keys {
        let order = sort.encode(batch.rows()).expect("the codec was made for these columns");
        Keys { order, rows: rows.encode(batch.rows().columns()).expect("the codec was made for these columns") }
    }

    /// The bytes of ORDER BY.
    pub fn order(&self, row: usize) -> &[u8] {
        self.order.as_ref().map_or(&[], |order| order.row(row).data())
    }

    /// The bytes of the whole row.
    pub fn row(&self, row: usize) -> &[u8] {
        self.rows.row(row).data()
    }

    pub fn key(&self, row: usize) -> Box<[u8]> {
        [self.order(row), self.row(row)].concat().into()
    }
}

/// Epoch, batch and row of every row, in the order of epochs.
pub(super) fn in_epoch_order(batches: &[Batch]) -> Vec<(u64, u32, u32)> {
    let mut order: Vec<(u64, u32, u32)> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, index as u32, row as u32)));
    }
    order.sort_unstable();
    order
}

/// The partition keys of a batch; None without partition columns.
pub(super) fn partition_keys(batch: &Batch, columns: &[usize], codec: &KeyCodec) -> Option<Rows> {
    let columns: Vec<ArrayRef> = columns.iter().map(|column| batch.column(*column).clone()).collect();
    (!columns.is_empty()).then(|| codec.encode(&columns).expect("the codec was made for these columns"))
}

impl StepOperator for Top {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let encoded: Vec<(Option<Rows>, Keys)> = batches
            .iter()
            .map(|batch| (partition_keys(batch, &self.partition, &self.key_codec), Keys::of(batch, &self.sort_codec, &self.row_codec)))
            .collect();
        let mut changes = Vec::new();
        for epoch in in_epoch_order(&batches).chunk_by(|left, right| left.0 == right.0) {
            let mut touched: Vec<Box<[u8]>> = Vec::new();
            for (_, index, row) in epoch {
                let (batch, row) = (&batches[*index as usize], *row as usize);
                let (partitions, keys) = &encoded[*index as usize];
                let name = partitions.as_ref().map(|partitions| partitions.row(row));
                let name = name.as_ref().map_or(&[][..], |name| name.data());
                let partition = self.partitions.entry(name, Partition::default);
                if self.append_only && partition.is_behind(&self.spec, (keys.order(row), keys.row(row))) {
                    continue;
                }
                let (key, order) = (keys.key(row), keys.order(row).len() as u32);
                if partition.pending.is_empty() {
                    touched.push(name.into());
                }
                partition.pending.push((key, order, batch.diff(row), batch.position(row)));
            }
            touched.sort_unstable();
            for name in touched {
                let partition = self.partitions.get_mut(&name).expect("it was touched");
                if self.append_only && self.spec.holds_top_only() {
                    partition.append(&self.spec, epoch[0].0, &mut changes);
                } else {
                    partition.advance(&self.spec, epoch[0].0, self.append_only, &mut changes);
                }
                if partition.rows.is_empty() {
                    self.partitions.remove(&name);
                }
            }
        }
        out.rows.extend(self.batch_of(&changes));
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.partitions, &self.key_codec, (upto, batches.iter().map(Batch::len).sum()));
        }
    }
}

impl TopSpec {
    fn upper(&self) -> i64 {
        i64::try_from(self.offset.saturating_add(self.limit)).unwrap_or(i64::MAX)
    }

    fn lower(&self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }

    /// Over rows that are never retracted, the rows kept are the top and no more.
    fn holds_top_only(&self) -> bool {
        self.by_rows() && !self.number && self.offset == 0
    }

    fn by_rows(&self) -> bool {
        self.rank == RankKind::RowNumber
    }
}

impl Partition {
    /// No later insertion brings this row into the top, if nothing is retracted.
    fn is_behind(&self, spec: &TopSpec, (order, row): (&[u8], &[u8])) -> bool {
        if self.upper.within < spec.upper() {
            return false;
        }
        let last = if spec.holds_top_only() { self.rows.descending(Bound::Unbounded).next().map(|(key, _)| key) } else { self.upper.last.as_deref() };
        // No encoded ORDER BY is the beginning of another.
        last.is_some_and(|last| {
            let (its_order, its_row) = last.split_at(order.len().min(last.len()));
            match order.cmp(its_order) {
                Ordering::Less => false,
                Ordering::Equal => spec.by_rows() && row > its_row,
                Ordering::Greater => true,
            }
        })
    }

    /// Applies the insertions of an epoch where nothing is ever retracted: what leaves the top is forgotten at once.
    fn append(&mut self, spec: &TopSpec, epoch: u64, changes: &mut Vec<Change>) {
        let mut moved: Vec<(Box<[u8]>, u32, i64, u64)> = Vec::new();
        for (key, order, diff, position) in std::mem::take(&mut self.pending) {
            self.rows.add(&key, order, diff, position);
            self.upper.within += diff;
            moved.push((key, order, diff, position));
            while self.upper.within > spec.upper() {
                let (last, held) = self.rows.descending(Bound::Unbounded).next().map(|(key, held)| (Box::from(key), *held)).expect("there are rows");
                let surplus = held.count.min(self.upper.within - spec.upper());
                self.rows.add(&last, held.order, -surplus, 0);
                self.upper.within -= surplus;
                moved.push((last, held.order, -surplus, held.position));
            }
        }
        moved.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for same in moved.chunk_by(|a, b| a.0 == b.0) {
            let diff: i64 = same.iter().map(|row| row.2).sum();
            if diff != 0 {
                let (key, order, _, position) = &same[0];
                changes.push(Change { row: key[*order as usize..].into(), number: 0, epoch, diff, position: *position });
            }
        }
    }

    /// Applies the changes of an epoch, and says what they change in the top.
    fn advance(&mut self, spec: &TopSpec, epoch: u64, append_only: bool, changes: &mut Vec<Change>) {
        let pending = self.consolidated();
        let Some(first) = pending.keys().next().cloned() else { return };
        let first = first[..pending[&first].0 as usize].to_vec();
        let before = Edges { upper: self.upper.clone(), lower: self.lower.clone() };
        let numbered = if spec.number { self.numbered(spec, &first) } else { Vec::new() };
        // Rows whose part in the top may change, and how often they were in it.
        let mut shown: BTreeMap<Box<[u8]>, i64> = BTreeMap::new();
        for (key, (order, ..)) in &pending {
            shown.insert(key.clone(), self.inside(spec, &before, key, *order));
        }
        // The last row within an edge may be cut by it; groups are within it as a whole.
        let cut = |partition: &Partition| {
            [&partition.upper, &partition.lower].into_iter().filter(|_| spec.by_rows()).filter_map(|edge| edge.last.clone()).collect::<Vec<_>>()
        };
        let mut moved = cut(self);
        for (key, (order, diff, position)) in &pending {
            self.apply(spec, key, *order, *diff, *position);
        }
        self.adjust(spec, &mut moved);
        if spec.number {
            let after = self.numbered(spec, &first);
            renumbered(numbered, after, epoch, changes);
        } else {
            moved.extend(cut(self));
            self.recall(spec, &before, &moved, &mut shown);
            let now = Edges { upper: self.upper.clone(), lower: self.lower.clone() };
            for (key, was) in shown {
                let held = self.rows.get(&key).copied();
                let (order, position) = match (held, pending.get(&key)) {
                    (Some(held), _) => (held.order, held.position),
                    (None, Some((order, _, position))) => (*order, *position),
                    (None, None) => continue,
                };
                let diff = self.inside(spec, &now, &key, order) - was;
                if diff != 0 {
                    changes.push(Change { row: key[order as usize..].into(), number: 0, epoch, diff, position });
                }
            }
        }
        if append_only && self.upper.within >= spec.upper() {
            self.forget(spec);
        }
    }

    /// The changes of the epoch by key, those that cancel left out: bytes of ORDER BY, diff, position.
    fn consolidated(&mut self) -> BTreeMap<Box<[u8]>, (u32, i64, u64)> {
        let mut sums: BTreeMap<Box<[u8]>, (u32, i64, u64)> = BTreeMap::new();
        for (key, order, diff, position) in std::mem::take(&mut self.pending) {
            let sum = sums.entry(key).or_insert((order, 0, 0));
            sum.1 += diff;
            sum.2 = if diff > 0 { sum.2.max(position) } else { sum.2 };
        }
        sums.retain(|_, (_, diff, _)| *diff != 0);
        sums
    }

    fn apply(&mut self, spec: &TopSpec, key: &[u8], order: u32, diff: i64, position: u64) {
        self.rows.add(key, order, diff, position);
        let (unit, weight) = if spec.by_rows() {
            (key, diff)
        } else {
            let unit = &key[..order as usize];
            let known = self.groups.get(unit).copied();
            let rows = known.unwrap_or(0) + diff;
            match rows {
                0 => drop(self.groups.remove(unit)),
                _ => drop(self.groups.insert(unit.into(), rows)),
            }
            let dense = i64::from(rows != 0) - i64::from(known.is_some());
            (unit, if spec.rank == RankKind::DenseRank { dense } else { diff })
        };
        for edge in [&mut self.upper, &mut self.lower] {
            if edge.last.as_deref().is_some_and(|last| unit <= last) {
                edge.within += weight;
            }
        }
    }

    /// Brings both edges to where they belong; `moved` gets the units they passed.
    fn adjust(&mut self, spec: &TopSpec, moved: &mut Vec<Box<[u8]>>) {
        for (is_upper, target) in [(true, spec.upper()), (false, spec.lower())] {
            let mut edge = std::mem::take(if is_upper { &mut self.upper } else { &mut self.lower });
            // Backward over units that are not needed, and to the last one that exists.
            while let Some(last) = edge.last.take() {
                let Some((unit, weight)) = self.unit_until(spec, Bound::Included(&last)) else {
                    assert_eq!(edge.within, 0, "no unit weighs nothing");
                    break;
                };
                if edge.within - weight < target {
                    edge.last = Some(unit);
                    break;
                }
                edge.within -= weight;
                edge.last = self.unit_until(spec, Bound::Excluded(&unit)).map(|(before, _)| before);
                moved.push(unit);
            }
            // Forward while there is room.
            while edge.within < target {
                let lower = edge.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let Some((unit, weight)) = self.unit_from(spec, lower) else { break };
                edge.within += weight;
                moved.push(unit.clone());
                edge.last = Some(unit);
            }
            *(if is_upper { &mut self.upper } else { &mut self.lower }) = edge;
        }
    }

    fn unit_until(&self, spec: &TopSpec, upper: Bound<&[u8]>) -> Option<(Box<[u8]>, i64)> {
        if spec.by_rows() {
            return self.rows.descending(upper).next().map(|(key, held)| (key.into(), held.count));
        }
        self.groups.range::<[u8], _>((Bound::Unbounded, upper)).next_back().map(|(unit, rows)| (unit.clone(), weight(spec, *rows)))
    }

    fn unit_from(&self, spec: &TopSpec, lower: Bound<&[u8]>) -> Option<(Box<[u8]>, i64)> {
        if spec.by_rows() {
            return self.rows.ascending(lower).next().map(|(key, held)| (key.into(), held.count));
        }
        self.groups.range::<[u8], _>((lower, Bound::Unbounded)).next().map(|(unit, rows)| (unit.clone(), weight(spec, *rows)))
    }

    /// How often a row is in the top between these edges, by its count now.
    fn inside(&self, spec: &TopSpec, edges: &Edges, key: &[u8], order: u32) -> i64 {
        let count = self.rows.get(key).map_or(0, |held| held.count);
        let within = |edge: &Edge, target: i64| {
            let Some(last) = edge.last.as_deref() else { return 0 };
            let unit = if spec.by_rows() { key } else { &key[..order as usize] };
            match unit.cmp(last) {
                Ordering::Less => count,
                Ordering::Equal if spec.by_rows() => count - (edge.within - target).max(0),
                Ordering::Equal => count,
                Ordering::Greater => 0,
            }
        };
        within(&edges.upper, spec.upper()) - within(&edges.lower, spec.lower())
    }

    /// How often the rows of units that an edge has passed were in the top. Their own counts have not changed.
    fn recall(&self, spec: &TopSpec, before: &Edges, moved: &[Box<[u8]>], shown: &mut BTreeMap<Box<[u8]>, i64>) {
        for unit in moved {
            for (key, held) in self.rows_of(spec, unit) {
                if !shown.contains_key(key) {
                    shown.insert(key.into(), self.inside(spec, before, key, held.order));
                }
            }
        }
    }

    fn rows_of<'a>(&'a self, spec: &TopSpec, unit: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Held)> {
        let by_rows = spec.by_rows();
        self.rows.ascending(Bound::Included(unit)).take_while(move |(key, _)| if by_rows { *key == unit } else { key.starts_with(unit) })
    }

    /// The rows of the top from a place in the order on, which must be a start of a group of peers: key, rank, how often.
    fn numbered(&self, spec: &TopSpec, from: &[u8]) -> Vec<Numbered> {
        let Some(last) = self.upper.last.as_deref() else { return Vec::new() };
        let within = |key: &[u8], order: u32| if spec.by_rows() { key <= last } else { &key[..order as usize] <= last };
        let rows: Vec<_> = self.rows.ascending(Bound::Included(from)).take_while(|(key, held)| within(key, held.order)).collect();
        let starts = |index: usize| {
            let order = |index: usize| &rows[index].0[..rows[index].1.order as usize];
            index == 0 || order(index) != order(index - 1)
        };
        let weighs: i64 = match spec.rank {
            RankKind::RowNumber | RankKind::Rank => rows.iter().map(|(_, held)| held.count).sum(),
            RankKind::DenseRank => (0..rows.len()).filter(|index| starts(*index)).count() as i64,
        };
        let mut seen = self.upper.within - weighs;
        let (mut rank, mut numbered) = (seen, Vec::new());
        for (index, (key, held)) in rows.iter().enumerate() {
            let shown = |number: i64| number > spec.lower() && number <= spec.upper();
            let row = |number: i64, times| Numbered { key: (*key).into(), order: held.order, number, times, position: held.position };
            match spec.rank {
                RankKind::RowNumber => {
                    numbered.extend((1..=held.count).map(|one| seen + one).filter(|number| shown(*number)).map(|number| row(number, 1)));
                    seen += held.count;
                    continue;
                }
                RankKind::Rank if starts(index) => rank = seen + 1,
                RankKind::DenseRank if starts(index) => rank += 1,
                RankKind::Rank | RankKind::DenseRank => {}
            }
            seen += held.count;
            numbered.extend(shown(rank).then(|| row(rank, held.count)));
        }
        numbered
    }

    /// Drops what lies behind the top.
    fn forget(&mut self, spec: &TopSpec) {
        let Some(last) = self.upper.last.as_deref() else { return };
        let behind: Option<Box<[u8]>> = if spec.by_rows() { Some([last, &[0]].concat().into()) } else { after_prefix(last) };
        if let Some(behind) = behind {
            self.rows.split_off(&behind);
            self.groups.split_off(&behind);
        }
    }
}

struct Edges {
    upper: Edge,
    lower: Edge,
}

struct Numbered {
    key: Box<[u8]>,
    order: u32,
    number: i64,
    times: i64,
    position: u64,
}

fn weight(spec: &TopSpec, rows: i64) -> i64 {
    if spec.rank == RankKind::DenseRank { 1 } else { rows }
}

/// The difference of two numbered lists.
fn renumbered(before: Vec<Numbered>, after: Vec<Numbered>, epoch: u64, changes: &mut Vec<Change>) {
    let mut sums: BTreeMap<(Box<[u8]>, i64), (u32, i64, u64)> = BTreeMap::new();
    for (rows, sign) in [(before, -1), (after, 1)] {
        for row in rows {
            let sum = sums.entry((row.key, row.number)).or_insert((row.order, 0, 0));
            *sum = (row.order, sum.1 + sign * row.times, row.position);
        }
    }
    for ((key, number), (order, diff, position)) in sums.into_iter().filter(|(_, sum)| sum.1 != 0) {
        changes.push(Change { row: key[order as usize..].into(), number: number as u64, epoch, diff, position });
    }
}

impl Stateful for Top {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.partitions.checkpoint(|out, partition| partition.rows.put(out))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let spec = self.spec;
        self.partitions.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let mut partition = Partition { rows: OrderedRows::take(bytes)?, ..Partition::default() };
            if !spec.by_rows() {
                for (key, held) in partition.rows.iter() {
                    *partition.groups.entry(key[..held.order as usize].into()).or_default() += held.count;
                }
            }
            partition.adjust(&spec, &mut Vec::new());
            Ok(partition)
        })
    }

    fn size(&self) -> (u64, u64) {
        self.partitions.iter().fold((0, 0), |(rows, bytes), (key, partition)| {
            let groups: usize = partition.groups.keys().map(|key| key.len() + 24).sum();
            (rows + partition.rows.len() as u64, bytes + (key.len() + size_of::<Partition>() + partition.rows.bytes() + groups) as u64)
        })
    }
}
