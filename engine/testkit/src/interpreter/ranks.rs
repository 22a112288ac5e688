//! Rows in order: tops and OVER, each row's rank and frame found by looking at all rows of its partition. In: a bag. Out: rows, or errors.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use freshet_core::{AggregateCall, Frame, FrameBound, FrameUnit, OverCall, OverFunction, RankKind, SortKey, Value};

use crate::aggregate;
use crate::interpreter::content::{Bag, NodeError, pick};
use crate::interpreter::history::Row;

/// The ranks that a top shows.
pub struct Ranks {
    pub kind: RankKind,
    pub offset: u64,
    pub limit: u64,
    pub number: bool,
}

/// The rows in the top of each partition, with their positions.
pub fn top(input: &Bag, partition: &[usize], order: &[SortKey], ranks: &Ranks) -> Vec<(Row, u64)> {
    let mut found = Vec::new();
    for rows in partitions(input, partition, order) {
        for index in 0..rows.len() {
            let rank = rank(&rows, order, index, ranks.kind);
            if rank > ranks.offset && rank <= ranks.offset.saturating_add(ranks.limit) {
                let mut row = rows[index].0.clone();
                row.extend(ranks.number.then_some(Value::Int(rank.into())));
                found.push((row, rows[index].1));
            }
        }
    }
    found
}

/// Of a call: its output, and its argument if it is an aggregate.
type Types<'a> = (&'a DataType, Option<&'a DataType>);

/// Every row with the values of the calls behind it, or why it has none.
pub fn over(input: &Bag, partition: &[usize], order: &[SortKey], calls: &[(&OverCall, &str, Types<'_>)]) -> Vec<Result<(Row, u64), NodeError>> {
    let mut found = Vec::new();
    for rows in partitions(input, partition, order) {
        for (index, (row, position)) in rows.iter().enumerate() {
            let mut out = row.clone();
            let failed = calls.iter().find_map(|(call, field, types)| match value(&rows, order, index, call, *types) {
                Ok(value) => {
                    out.push(value);
                    None
                }
                Err(message) => Some(NodeError { field: field.to_string(), message, row: row.clone() }),
            });
            found.push(failed.map_or(Ok((out, *position)), Err));
        }
    }
    found
}

/// The rows of each partition in order, equal ones as often as they are there.
fn partitions(input: &Bag, partition: &[usize], order: &[SortKey]) -> Vec<Vec<(Row, u64)>> {
    let mut partitions: BTreeMap<Row, Vec<(Row, u64)>> = BTreeMap::new();
    for (row, positions) in input {
        let rows = partitions.entry(pick(row, partition)).or_default();
        rows.extend(positions.iter().map(|position| (row.clone(), *position)));
    }
    let mut partitions: Vec<_> = partitions.into_values().collect();
    partitions.iter_mut().for_each(|rows| rows.sort_by(|a, b| by_order(&a.0, &b.0, order).then_with(|| a.cmp(b))));
    partitions
}

fn by_order(a: &Row, b: &Row, order: &[SortKey]) -> Ordering {
    order.iter().map(|key| by_key(&a[key.column], &b[key.column], key)).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

fn by_key(a: &Value, b: &Value, key: &SortKey) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if key.nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if key.nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) if key.descending => b.cmp(a),
        (false, false) => a.cmp(b),
    }
}

fn are_peers(a: &Row, b: &Row, order: &[SortKey]) -> bool {
    by_order(a, b, order).is_eq()
}

fn rank(rows: &[(Row, u64)], order: &[SortKey], index: usize, kind: RankKind) -> u64 {
    let before = &rows[..index];
    let row = &rows[index].0;
    1 + match kind {
        RankKind::RowNumber => index,
        RankKind::Rank => before.iter().filter(|other| !are_peers(&other.0, row, order)).count(),
        RankKind::DenseRank => (1..=index).filter(|at| !are_peers(&rows[at - 1].0, &rows[*at].0, order)).count(),
    } as u64
}

fn value(rows: &[(Row, u64)], order: &[SortKey], index: usize, call: &OverCall, types: Types<'_>) -> Result<Value, String> {
    let count = rows.len();
    let cell = |index: usize, column: usize| rows[index].0[column].clone();
    Ok(match &call.function {
        OverFunction::Rank(kind) => Value::Int(rank(rows, order, index, *kind).into()),
        OverFunction::PercentRank if count == 1 => Value::Float(0.0),
        OverFunction::PercentRank => Value::Float((rank(rows, order, index, RankKind::Rank) - 1) as f64 / (count - 1) as f64),
        OverFunction::CumeDist => {
            let last = (index..count).rev().find(|other| are_peers(&rows[*other].0, &rows[index].0, order)).unwrap_or(index);
            Value::Float((last + 1) as f64 / count as f64)
        }
        OverFunction::Ntile { buckets } => {
            let (size, longer) = (count as u64 / buckets, count as u64 % buckets);
            let mut left = index as u64;
            let bucket = (0..*buckets).find(|bucket| {
                let size = size + u64::from(*bucket < longer);
                let here = left < size;
                left = left.saturating_sub(size);
                here
            });
            Value::Int(i128::from(bucket.expect("the buckets hold all rows")) + 1)
        }
        OverFunction::Lag { column, offset: 0, .. } => cell(index, *column),
        OverFunction::Lag { column, offset, default, ignore_nulls } => {
            let counts = |other: &usize| !ignore_nulls || !cell(*other, *column).is_null();
            let nth = offset.unsigned_abs() as usize - 1;
            let found = if *offset > 0 { (0..index).rev().filter(counts).nth(nth) } else { (index + 1..count).filter(counts).nth(nth) };
            found.map_or(default.clone(), |other| cell(other, *column))
        }
        OverFunction::Nth { column, nth, ignore_nulls } => {
            let counts = |other: &usize| !ignore_nulls || !cell(*other, *column).is_null();
            let frame: Vec<usize> = frame(rows, order, index, &call.frame).into_iter().filter(counts).collect();
            let place = if *nth > 0 { Some(*nth as usize - 1) } else { frame.len().checked_sub(nth.unsigned_abs() as usize) };
            place.and_then(|place| frame.get(place)).map_or(Value::Null, |other| cell(*other, *column))
        }
        OverFunction::Aggregate(inner) => {
            let rows: Vec<&Row> = frame(rows, order, index, &call.frame).into_iter().map(|other| &rows[other].0).collect();
            return aggregated(inner, &rows, types);
        }
    })
}

fn aggregated(call: &AggregateCall, rows: &[&Row], types: Types<'_>) -> Result<Value, String> {
    aggregate::call(call, rows, None, (types.1, types.0)).map_err(|error| error.to_string())
}

/// The rows of the frame, in order.
fn frame(rows: &[(Row, u64)], order: &[SortKey], index: usize, frame: &Frame) -> Vec<usize> {
    (0..rows.len()).filter(|other| is_behind(rows, order, index, *other, frame) && is_before(rows, order, index, *other, frame)).collect()
}

/// Whether a row stands at the start of the frame or behind it.
fn is_behind(rows: &[(Row, u64)], order: &[SortKey], index: usize, other: usize, frame: &Frame) -> bool {
    match &frame.start {
        FrameBound::Unbounded => true,
        FrameBound::Preceding(distance) => distance_of(rows, order, index, other, frame.unit, distance, -1).is_ge(),
        FrameBound::Current => distance_of(rows, order, index, other, frame.unit, &Value::Null, 0).is_ge(),
        FrameBound::Following(distance) => distance_of(rows, order, index, other, frame.unit, distance, 1).is_ge(),
    }
}

fn is_before(rows: &[(Row, u64)], order: &[SortKey], index: usize, other: usize, frame: &Frame) -> bool {
    match &frame.end {
        FrameBound::Unbounded => true,
        FrameBound::Preceding(distance) => distance_of(rows, order, index, other, frame.unit, distance, -1).is_le(),
        FrameBound::Current => distance_of(rows, order, index, other, frame.unit, &Value::Null, 0).is_le(),
        FrameBound::Following(distance) => distance_of(rows, order, index, other, frame.unit, distance, 1).is_le(),
    }
}

/// How a row lies to the bound that is `sign` times this distance from the row at `index`.
fn distance_of(rows: &[(Row, u64)], order: &[SortKey], index: usize, other: usize, unit: FrameUnit, distance: &Value, sign: i128) -> Ordering {
    let steps = match distance {
        Value::Int(steps) => *steps * sign,
        _ => 0,
    };
    match unit {
        FrameUnit::Rows => (other as i128).cmp(&(index as i128 + steps)),
        FrameUnit::Groups => {
            let group = |index: usize| i128::from(rank(rows, order, index, RankKind::DenseRank));
            group(other).cmp(&(group(index) + steps))
        }
        FrameUnit::Range if sign == 0 => by_order(&rows[other].0, &rows[index].0, order),
        FrameUnit::Range => {
            let key = &order[0];
            let sign = if key.descending { -sign } else { sign };
            let bound = match (&rows[index].0[key.column], distance) {
                (Value::Int(value), Value::Int(distance)) => Value::Int(value + sign * distance),
                (Value::Float(value), Value::Float(distance)) => Value::Float(value + sign as f64 * distance),
                (null, _) => null.clone(),
            };
            by_key(&rows[other].0[key.column], &bound, key)
        }
    }
}
