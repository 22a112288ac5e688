//! The values of the calls of an OVER for a stretch of rows. In: the rows that are read, in order. Out: one list of values per row.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{AggregateCall, Frame, FrameBound, FrameUnit, OverCall, OverFunction, RankKind, Result, SortKey, Value};

use crate::state::reach::moved;
use crate::state::{Cell, CellKind, DatumReader, Held};

/// The values of a row, or the output column that failed and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    Values(Vec<Value>),
    Failed(usize, String),
}

/// Neighbours in the order of a partition, each as often as it is there.
pub struct Stretch<'a> {
    calls: &'a [OverCall],
    order: &'a [SortKey],
    /// Of the output: input columns, then one per call.
    schema: &'a SchemaRef,
    rows: &'a RecordBatch,
    /// The row of each instance.
    instances: Vec<u32>,
    /// The group of peers of each instance, and where each group begins; a last entry ends them.
    group_of: Vec<u32>,
    groups: Vec<usize>,
    /// Rows and groups of the partition before the stretch.
    before: (i64, i64),
    /// Rows of the partition.
    count: i64,
    /// ORDER BY values, where frames have distances.
    keys: Vec<Value>,
}

/// What is known of the whole partition.
pub struct Whole<'a> {
    pub count: i64,
    pub groups: i64,
    /// Per call, the aggregate of all rows where its frame is open to a side.
    pub totals: &'a [Option<Cell>],
    /// Its first rows, as often as they are there.
    pub head: Vec<(RecordBatch, usize)>,
    /// The stretch reaches the end of the partition.
    pub to_end: bool,
}

impl<'a> Stretch<'a> {
    /// `rows` are those of `held`, in order.
    pub fn new(
        (calls, order, schema): (&'a [OverCall], &'a [SortKey], &'a SchemaRef),
        rows: &'a RecordBatch,
        held: &[(&[u8], &Held)],
        whole: &Whole<'_>,
    ) -> Result<Stretch<'a>> {
        let (mut instances, mut group_of, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let mut last: Option<&[u8]> = None;
        for (index, (key, held)) in held.iter().enumerate() {
            let peers = &key[..held.order as usize];
            if last != Some(peers) {
                groups.push(instances.len());
                last = Some(peers);
            }
            for _ in 0..held.count {
                instances.push(index as u32);
                group_of.push(groups.len() as u32 - 1);
            }
        }
        let before = if whole.to_end { (whole.count - instances.len() as i64, whole.groups - groups.len() as i64) } else { (0, 0) };
        groups.push(instances.len());
        let distances =
            calls.iter().any(|call| call.frame.unit == FrameUnit::Range && (has_distance(&call.frame.start) || has_distance(&call.frame.end)));
        let keys = match order.first() {
            Some(key) if distances => (0..rows.num_rows()).map(|row| Value::of(rows.column(key.column), row)).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        Ok(Stretch { calls, order, schema, rows, instances, group_of, groups, before, count: whole.count, keys })
    }

    pub fn row(&self, instance: usize) -> usize {
        self.instances[instance] as usize
    }

    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// One list of values per instance of the range.
    pub fn values(&self, wanted: Range<usize>, kinds: &[Option<CellKind>], whole: &Whole<'_>) -> Result<Vec<Shown>> {
        let mut shown: Vec<Shown> = wanted.clone().map(|_| Shown::Values(Vec::with_capacity(self.calls.len()))).collect();
        for (index, call) in self.calls.iter().enumerate() {
            let column = self.schema.fields().len() - self.calls.len() + index;
            let values = match &call.function {
                OverFunction::Aggregate(inner) => {
                    let kind = kinds[index].as_ref().expect("an aggregate has a kind of cell");
                    self.aggregates(wanted.clone(), (inner, &call.frame), kind, whole.totals[index].as_ref(), column)
                }
                function => wanted
                    .clone()
                    .map(|instance| self.value(instance, function, &call.frame, whole))
                    .collect::<Result<Vec<_>>>()?
                    .into_iter()
                    .map(Ok)
                    .collect(),
            };
            for (shown, value) in shown.iter_mut().zip(values) {
                match (&mut *shown, value) {
                    (Shown::Values(known), Ok(value)) => known.push(value),
                    (Shown::Values(_), Err(reason)) => *shown = Shown::Failed(column, reason),
                    (Shown::Failed(..), _) => {}
                }
            }
        }
        Ok(shown)
    }

    fn value(&self, instance: usize, function: &OverFunction, frame: &Frame, whole: &Whole<'_>) -> Result<Value> {
        let cell = |instance: usize, column: usize| Value::of(self.rows.column(column), self.row(instance));
        let group = self.group_of[instance] as usize;
        let int = |value: i64| Value::Int(i128::from(value));
        Ok(match function {
            OverFunction::Rank(RankKind::RowNumber) => int(self.before.0 + instance as i64 + 1),
            OverFunction::Rank(RankKind::Rank) => int(self.before.0 + self.groups[group] as i64 + 1),
            OverFunction::Rank(RankKind::DenseRank) => int(self.before.1 + group as i64 + 1),
            OverFunction::PercentRank if self.count == 1 => Value::Float(0.0),
            OverFunction::PercentRank => Value::Float((self.before.0 + self.groups[group] as i64) as f64 / (self.count - 1) as f64),
            OverFunction::CumeDist => Value::Float((self.before.0 + self.groups[group + 1] as i64) as f64 / self.count as f64),
            OverFunction::Ntile { buckets } => int(bucket(instance as u64, self.count as u64, *buckets) as i64 + 1),
            OverFunction::Lag { column, offset: 0, .. } => cell(instance, *column)?,
            OverFunction::Lag { column, offset, default, ignore_nulls } => {
                let nth = usize::try_from(offset.unsigned_abs() - 1).unwrap_or(usize::MAX);
                let column_of = self.rows.column(*column);
                let counts = |other: &usize| !ignore_nulls || column_of.is_valid(self.row(*other));
                let found =
                    if *offset > 0 { (0..instance).rev().filter(counts).nth(nth) } else { (instance + 1..self.len()).filter(counts).nth(nth) };
                found.map_or_else(|| Ok(default.clone()), |other| cell(other, *column))?
            }
            OverFunction::Nth { column, nth, ignore_nulls } => {
                let within = self.frame(instance, frame);
                let by_head = *nth > 0 && !ignore_nulls && frame.start == FrameBound::Unbounded;
                if by_head {
                    return match whole.head.get(*nth as usize - 1) {
                        Some((rows, row)) if self.before.0 + within.end as i64 >= *nth => Value::of(rows.column(*column), *row),
                        _ => Ok(Value::Null),
                    };
                }
                let column_of = self.rows.column(*column);
                let counts = |other: &usize| !ignore_nulls || column_of.is_valid(self.row(*other));
                let place = usize::try_from(nth.unsigned_abs() - 1).unwrap_or(usize::MAX);
                let found = if *nth > 0 { within.filter(counts).nth(place) } else { within.rev().filter(counts).nth(place) };
                found.map_or(Ok(Value::Null), |other| cell(other, *column))?
            }
            OverFunction::Aggregate(_) => unreachable!("aggregates slide along the stretch"),
        })
    }

    /// The aggregate of each row's frame: rows come in at its end and go out at its start, each once.
    fn aggregates(
        &self,
        wanted: Range<usize>,
        (call, frame): (&AggregateCall, &Frame),
        kind: &CellKind,
        total: Option<&Cell>,
        column: usize,
    ) -> Vec<Result<Value, String>> {
        let reader = DatumReader::new(call.argument.map(|column| self.rows.column(column)), call.filter.map(|column| self.rows.column(column)))
            .with_second(call.second.map(|column| self.rows.column(column)));
        let add = |cell: &mut Cell, rows: Range<usize>, times: i64| {
            for instance in rows {
                cell.add(&reader.get(self.row(instance)), times);
            }
        };
        if wanted.is_empty() {
            return Vec::new();
        }
        let (open_start, open_end) = (frame.start == FrameBound::Unbounded, frame.end == FrameBound::Unbounded);
        let first = self.frame(wanted.start, frame);
        let mut cell = match total {
            Some(total) => {
                let mut cell = total.clone();
                if !open_end {
                    add(&mut cell, first.end..self.len(), -1);
                } else if !open_start {
                    add(&mut cell, 0..first.start, -1);
                }
                cell
            }
            None => {
                let mut cell = kind.empty();
                add(&mut cell, first.clone(), 1);
                cell
            }
        };
        let (mut start, mut end) = (first.start, first.end);
        let data_type = self.schema.field(column).data_type();
        let mut values = Vec::with_capacity(wanted.len());
        for instance in wanted {
            let within = self.frame(instance, frame);
            if !open_end {
                add(&mut cell, end..within.end, 1);
                end = end.max(within.end);
            }
            if !open_start {
                add(&mut cell, start..within.start, -1);
                start = start.max(within.start);
            }
            values.push(kind.value(&cell, data_type).map_err(|error| error.to_string()));
        }
        values
    }

    /// The instances of a row's frame. Both ends only ever go forward from row to row; the start never lies behind the end.
    fn frame(&self, instance: usize, frame: &Frame) -> Range<usize> {
        let start = match &frame.start {
            FrameBound::Unbounded => 0,
            FrameBound::Preceding(distance) => self.edge(instance, frame.unit, distance, -1, false),
            FrameBound::Current => self.edge(instance, frame.unit, &Value::Int(0), 0, false),
            FrameBound::Following(distance) => self.edge(instance, frame.unit, distance, 1, false),
        };
        let end = match &frame.end {
            FrameBound::Unbounded => self.len(),
            FrameBound::Preceding(distance) => self.edge(instance, frame.unit, distance, -1, true),
            FrameBound::Current => self.edge(instance, frame.unit, &Value::Int(0), 0, true),
            FrameBound::Following(distance) => self.edge(instance, frame.unit, distance, 1, true),
        };
        start..end.max(start)
    }

    /// The first instance at `sign` times the distance from a row (`behind`: the first one behind all of those).
    fn edge(&self, instance: usize, unit: FrameUnit, distance: &Value, sign: i128, behind: bool) -> usize {
        let steps = |from: usize| match distance {
            Value::Int(steps) => (from as i128).saturating_add(sign.saturating_mul(*steps)).saturating_add(i128::from(behind)),
            _ => from as i128,
        };
        let clipped = |place: i128, last: usize| usize::try_from(place.max(0)).unwrap_or(last).min(last);
        match unit {
            FrameUnit::Rows => clipped(steps(instance), self.len()),
            FrameUnit::Groups => self.groups[clipped(steps(self.group_of[instance] as usize), self.groups.len() - 1)],
            FrameUnit::Range if sign == 0 => self.groups[self.group_of[instance] as usize + usize::from(behind)],
            FrameUnit::Range => {
                let key = self.order[0];
                let sign = if key.descending { -sign } else { sign };
                let data_type = self.rows.column(key.column).data_type();
                match moved(&self.keys[self.row(instance)], distance, sign, data_type) {
                    Some(bound) => self.instances.partition_point(|row| {
                        let ordering = compare(&self.keys[*row as usize], &bound, key);
                        ordering.is_lt() || (behind && ordering.is_eq())
                    }),
                    // Beyond the ends of the type there are no values, only NULLs, which are at no distance from a value.
                    None => self.beyond(key, sign < 0),
                }
            }
        }
    }

    /// Where the values begin or end, whichever the order has first or last.
    fn beyond(&self, key: SortKey, least: bool) -> usize {
        let at_front = least != key.descending;
        let nulls = |row: &u32| self.keys[*row as usize].is_null();
        match (at_front, key.nulls_first) {
            (true, true) => self.instances.partition_point(nulls),
            (true, false) => 0,
            (false, true) => self.len(),
            (false, false) => self.instances.partition_point(|row| !nulls(row)),
        }
    }
}

fn compare(a: &Value, b: &Value, key: SortKey) -> std::cmp::Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) if key.descending => b.cmp(a),
        (false, false) => a.cmp(b),
        // A NULL is greater than a value where it comes behind it.
        (a, b) => {
            if key.nulls_first {
                b.cmp(&a)
            } else {
                a.cmp(&b)
            }
        }
    }
}

fn has_distance(bound: &FrameBound) -> bool {
    matches!(bound, FrameBound::Preceding(_) | FrameBound::Following(_))
}

/// The bucket of a row among even ones; the first ones have one row more where they do not come out even.
fn bucket(index: u64, count: u64, buckets: u64) -> u64 {
    let (size, longer) = (count / buckets, count % buckets);
    let in_longer = longer * (size + 1);
    if index < in_longer { index / (size + 1) } else { longer + (index - in_longer) / size.max(1) }
}
