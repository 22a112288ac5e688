//! How far a row's value in an OVER looks, and how far a changed row is looked at. In: calls, rows in order. Out: intervals of keys.

use std::ops::Bound;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use freshet_core::{FrameBound, FrameUnit, KeyCodec, OverCall, OverFunction, RankKind, Result, SortCodec, SortKey, Value};

use crate::state::{OrderedRows, after_prefix};

/// A distance from a row, in one direction.
#[derive(Debug, Clone, PartialEq)]
enum Extent {
    Rows(u64),
    /// Whole groups of peers beside its own.
    Groups(u64),
    /// Rows whose ORDER BY column differs by at most this.
    Range(Value),
    Unbounded,
}

/// Keys from `lower`, it included, to `upper`, it excluded; None: to the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    pub lower: Option<Box<[u8]>>,
    pub upper: Option<Box<[u8]>>,
}

/// What the calls of one OVER look at.
#[derive(Debug)]
pub struct Reach {
    /// Rows before a change whose values it may change, and rows behind it.
    changed: [Vec<Extent>; 2],
    /// Rows before a row, and behind it, that its value is made of.
    read: [Vec<Extent>; 2],
    /// The first ORDER BY column, for distances.
    key: Option<(SortKey, DataType)>,
}

impl Reach {
    pub fn of(calls: &[OverCall], order: &[SortKey], schema: &SchemaRef) -> Reach {
        let key = order.first().map(|key| (*key, schema.field(key.column).data_type().clone()));
        let mut reach = Reach { changed: [Vec::new(), Vec::new()], read: [Vec::new(), Vec::new()], key };
        for call in calls {
            reach.add(call);
        }
        for extents in reach.changed.iter_mut().chain(&mut reach.read) {
            if extents.contains(&Extent::Unbounded) {
                *extents = vec![Extent::Unbounded];
            }
        }
        reach
    }

    fn add(&mut self, call: &OverCall) {
        let [changed_before, changed_behind] = &mut self.changed;
        let [read_before, read_behind] = &mut self.read;
        match &call.function {
            OverFunction::Rank(kind) => {
                changed_behind.push(Extent::Unbounded);
                read_before.extend((*kind == RankKind::Rank).then_some(Extent::Groups(0)));
            }
            OverFunction::PercentRank | OverFunction::CumeDist | OverFunction::Ntile { .. } => {
                for extents in [changed_before, changed_behind, read_before, read_behind] {
                    extents.push(Extent::Unbounded);
                }
            }
            OverFunction::Lag { offset, ignore_nulls, .. } => {
                let extent = if *ignore_nulls { Extent::Unbounded } else { Extent::Rows(offset.unsigned_abs()) };
                let (changed, read) = if *offset > 0 { (changed_behind, read_before) } else { (changed_before, read_behind) };
                changed.push(extent.clone());
                read.push(extent);
            }
            OverFunction::Nth { nth, ignore_nulls, .. } => {
                let frame = &call.frame;
                changed_before.push(extent_of(frame.unit, &frame.end, false));
                changed_behind.push(extent_of(frame.unit, &frame.start, true));
                // The first rows of a partition are read beside, see `head_rows`.
                let by_head = *nth > 0 && !ignore_nulls && frame.start == FrameBound::Unbounded;
                let at_end = *nth == -1 && !ignore_nulls;
                read_before.push(match (&frame.start, &frame.end) {
                    (FrameBound::Unbounded, FrameBound::Preceding(_)) if by_head || at_end => wider(extent_of(frame.unit, &frame.end, true)),
                    (FrameBound::Unbounded, _) if by_head || at_end => wider(extent_of(frame.unit, &FrameBound::Current, true)),
                    (start, _) => extent_of(frame.unit, start, true),
                });
                read_behind.push(extent_of(frame.unit, &frame.end, false));
            }
            OverFunction::Aggregate(_) => {
                let frame = &call.frame;
                changed_before.push(extent_of(frame.unit, &frame.end, false));
                changed_behind.push(extent_of(frame.unit, &frame.start, true));
                // An unbounded side is read off the aggregate of the whole partition, less the rows on the other side.
                for bound in [&frame.start, &frame.end].into_iter().filter(|bound| **bound != FrameBound::Unbounded) {
                    read_before.push(extent_of(frame.unit, bound, true));
                    read_behind.push(extent_of(frame.unit, bound, false));
                }
            }
        }
    }

    /// The rows whose values the change of a row may change; `slack` rows of the partition change together with it.
    pub fn changed(&self, rows: &OrderedRows, codecs: (&SortCodec, &KeyCodec), (key, order): (&[u8], u32), slack: u64) -> Result<Interval> {
        let row = Row { key, order, value: self.value(codecs.1, &key[order as usize..], &self.changed)? };
        let own = Interval { lower: Some(key.into()), upper: Some([key, &[0]].concat().into()) };
        self.widened(rows, codecs.0, own, (&row, &row), &self.changed, slack)
    }

    /// The interval, and the rows that the values in it are made of. None if it holds no row.
    pub fn read(&self, rows: &OrderedRows, codecs: (&SortCodec, &KeyCodec), interval: &Interval) -> Result<Option<Interval>> {
        let lower = interval.lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let upper = interval.upper.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (Some(first), Some(last)) = (rows.ascending(lower).next(), rows.descending(upper).next()) else { return Ok(None) };
        if first.0 > last.0 {
            return Ok(None);
        }
        let row = |(key, held): (&'_ [u8], &crate::state::Held)| -> Result<(u32, Option<ArrayRef>)> {
            Ok((held.order, self.value(codecs.1, &key[held.order as usize..], &self.read)?))
        };
        let ((first_order, first_value), (last_order, last_value)) = (row(first)?, row(last)?);
        let first_row = Row { key: first.0, order: first_order, value: first_value };
        let last_row = Row { key: last.0, order: last_order, value: last_value };
        let own = Interval { lower: Some(first.0.into()), upper: Some([last.0, &[0]].concat().into()) };
        self.widened(rows, codecs.0, own, (&first_row, &last_row), &self.read, 0).map(Some)
    }

    fn widened(
        &self,
        rows: &OrderedRows,
        sort: &SortCodec,
        mut interval: Interval,
        (first, last): (&Row<'_>, &Row<'_>),
        [before, behind]: &[Vec<Extent>; 2],
        slack: u64,
    ) -> Result<Interval> {
        for extent in before {
            let lower = self.lower(rows, sort, first, extent, slack)?;
            interval.lower = match (interval.lower, lower) {
                (Some(known), Some(found)) => Some(known.min(found)),
                _ => None,
            };
        }
        for extent in behind {
            let upper = self.upper(rows, sort, last, extent, slack)?;
            interval.upper = match (interval.upper, upper) {
                (Some(known), Some(found)) => Some(known.max(found)),
                _ => None,
            };
        }
        Ok(interval)
    }

    fn lower(&self, rows: &OrderedRows, sort: &SortCodec, from: &Row<'_>, extent: &Extent, slack: u64) -> Result<Option<Box<[u8]>>> {
        Ok(match extent {
            Extent::Unbounded => None,
            Extent::Rows(0) => Some(from.key.into()),
            Extent::Rows(distance) => {
                let mut left = distance.saturating_add(slack);
                let mut before = rows.descending(Bound::Excluded(from.key));
                before.find(|(_, held)| passed(&mut left, held.count.unsigned_abs())).map(|(key, _)| key.into())
            }
            Extent::Groups(0) => Some(from.peers().into()),
            Extent::Groups(distance) => {
                let mut left = distance.saturating_add(slack);
                let mut group: Box<[u8]> = from.peers().into();
                for (key, held) in rows.descending(Bound::Excluded(from.peers())) {
                    let its = &key[..held.order as usize];
                    if *its != *group {
                        if left == 0 {
                            return Ok(Some(group));
                        }
                        (left, group) = (left - 1, its.into());
                    }
                }
                None
            }
            Extent::Range(distance) => self.at_distance(sort, from, distance, -1)?.map(|(lower, _)| lower),
        })
    }

    fn upper(&self, rows: &OrderedRows, sort: &SortCodec, from: &Row<'_>, extent: &Extent, slack: u64) -> Result<Option<Box<[u8]>>> {
        Ok(match extent {
            Extent::Unbounded => None,
            Extent::Rows(0) => Some([from.key, &[0]].concat().into()),
            Extent::Rows(distance) => {
                let mut left = distance.saturating_add(slack);
                let mut behind = rows.ascending(Bound::Excluded(from.key));
                behind.find(|(_, held)| passed(&mut left, held.count.unsigned_abs())).map(|(key, _)| [key, &[0]].concat().into())
            }
            Extent::Groups(distance) => {
                let mut left = if *distance == 0 { 0 } else { distance.saturating_add(slack) };
                let Some(mut behind) = after_prefix(from.peers()) else { return Ok(None) };
                while left > 0 {
                    let Some((key, held)) = rows.ascending(Bound::Included(&behind)).next() else { return Ok(None) };
                    let Some(next) = after_prefix(&key[..held.order as usize]) else { return Ok(None) };
                    (left, behind) = (left - 1, next);
                }
                Some(behind)
            }
            Extent::Range(distance) => self.at_distance(sort, from, distance, 1)?.and_then(|(_, upper)| upper),
        })
    }

    /// The ORDER BY bytes of the value this far away, and the bytes behind them. None: that far away there is nothing in the type.
    fn at_distance(&self, sort: &SortCodec, from: &Row<'_>, distance: &Value, sign: i128) -> Result<Option<(Box<[u8]>, Option<Box<[u8]>>)>> {
        let (key, data_type) = self.key.as_ref().expect("only an ORDER BY has distances");
        let value = Value::of(from.value.as_ref().expect("it is decoded for distances"), 0)?;
        let Some(value) = moved(&value, distance, if key.descending { -sign } else { sign }, data_type) else { return Ok(None) };
        let column = Value::column_of(data_type, std::iter::once(&value))?;
        let encoded = sort.encode_columns(&[column])?.expect("there is a key");
        let bytes = encoded.row(0).data();
        Ok(Some((bytes.into(), after_prefix(bytes))))
    }

    /// The ORDER BY column of a row, if a distance is asked for.
    fn value(&self, codec: &KeyCodec, row: &[u8], extents: &[Vec<Extent>; 2]) -> Result<Option<ArrayRef>> {
        if !extents.iter().flatten().any(|extent| matches!(extent, Extent::Range(_))) {
            return Ok(None);
        }
        let column = self.key.as_ref().expect("only an ORDER BY has distances").0.column;
        Ok(Some(codec.decode([row])?.swap_remove(column)))
    }
}

/// How many rows of the start of a partition the calls read, wherever they stand.
pub fn head_rows(calls: &[OverCall]) -> u64 {
    let of = |call: &OverCall| match &call.function {
        OverFunction::Nth { nth, ignore_nulls: false, .. } if *nth > 0 && call.frame.start == FrameBound::Unbounded => nth.unsigned_abs(),
        _ => 0,
    };
    calls.iter().map(of).max().unwrap_or(0)
}

/// The value at a distance; None beyond the ends of its type. NULL is at every distance from NULL.
pub fn moved(value: &Value, distance: &Value, sign: i128, data_type: &DataType) -> Option<Value> {
    match (value, distance) {
        (Value::Int(value), Value::Int(distance)) => {
            let moved = value.checked_add(sign.checked_mul(*distance)?)?;
            let fits = match data_type {
                DataType::Int8 => i8::try_from(moved).is_ok(),
                DataType::Int16 => i16::try_from(moved).is_ok(),
                DataType::Int32 | DataType::Date32 => i32::try_from(moved).is_ok(),
                DataType::UInt8 => u8::try_from(moved).is_ok(),
                DataType::UInt16 => u16::try_from(moved).is_ok(),
                DataType::UInt32 => u32::try_from(moved).is_ok(),
                DataType::UInt64 => u64::try_from(moved).is_ok(),
                DataType::Decimal128(_, _) => true,
                _ => i64::try_from(moved).is_ok(),
            };
            fits.then_some(Value::Int(moved))
        }
        (Value::Float(value), Value::Float(distance)) => Some(Value::Float(value + sign as f64 * distance)),
        (other, _) => Some(other.clone()),
    }
}

struct Row<'a> {
    key: &'a [u8],
    order: u32,
    value: Option<ArrayRef>,
}

impl Row<'_> {
    fn peers(&self) -> &[u8] {
        &self.key[..self.order as usize]
    }
}

/// Counts down by the rows of an entry; true at the one that holds the last.
fn passed(left: &mut u64, rows: u64) -> bool {
    *left = left.saturating_sub(rows);
    *left == 0
}

/// How far a bound lies before its row (`before`) or behind it; nothing if it lies on the other side.
fn extent_of(unit: FrameUnit, bound: &FrameBound, before: bool) -> Extent {
    let none = if unit == FrameUnit::Rows { Extent::Rows(0) } else { Extent::Groups(0) };
    match bound {
        FrameBound::Unbounded => Extent::Unbounded,
        FrameBound::Current => none,
        FrameBound::Preceding(_) if !before => none,
        FrameBound::Following(_) if before => none,
        FrameBound::Preceding(distance) | FrameBound::Following(distance) => match (unit, distance) {
            (FrameUnit::Rows, Value::Int(rows)) => Extent::Rows(u64::try_from(*rows).unwrap_or(u64::MAX)),
            (FrameUnit::Groups, Value::Int(groups)) => Extent::Groups(u64::try_from(*groups).unwrap_or(u64::MAX)),
            (_, distance) => Extent::Range(distance.clone()),
        },
    }
}

/// One row more than that, which the frame may end with.
fn wider(extent: Extent) -> Extent {
    match extent {
        Extent::Rows(rows) => Extent::Rows(rows.saturating_add(1)),
        Extent::Groups(groups) => Extent::Groups(groups.saturating_add(1)),
        // The last row before a distance may be at any distance.
        Extent::Range(_) | Extent::Unbounded => Extent::Unbounded,
    }
}
