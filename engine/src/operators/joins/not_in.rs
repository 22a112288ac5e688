//! NOT IN and IN, three-valued: NULL = anything is unknown. In: left rows, and the rows that make up their lists, sharded by what says which
//! list is whose. Out: left rows whose value is surely in no row of the list, or every left row with what is known of it.
//!
//! A list that a NULL enters or leaves changes the answer for all its left rows; everything else costs what it changes.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::row::Rows;
use freshet_core::{Batch, Epoch, JoinKind, KeyCodec, Result};

use crate::operators::joins::Shape;
use crate::operators::joins::given::{At, Given, Net};
use crate::operators::joins::parts::{Facts, Parts};
use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, RowBag, ShardedMap, put_bytes, put_i64, put_u64};

/// The operator and its state. `shape.keys` are those that say which list is whose; `values` are compared.
pub struct NotIn {
    shape: Shape,
    values: [usize; 2],
    value_codec: KeyCodec,
    lists: ShardedMap<List>,
}

/// Left rows and the list they ask.
#[derive(Debug, Default)]
struct List {
    values: BTreeMap<Box<[u8]>, Value>,
    /// Left rows whose value is NULL.
    unknown: RowBag,
    /// Rows of the list, and those of them that are NULL.
    rows: i64,
    nulls: i64,
}

#[derive(Debug, Default)]
struct Value {
    lefts: RowBag,
    rights: i64,
}

/// The values of one batch.
struct Values {
    rows: Rows,
    nulls: Option<NullBuffer>,
}

impl Values {
    fn get(&self, row: u32) -> Option<&[u8]> {
        let is_null = self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row as usize));
        (!is_null).then(|| self.rows.row(row as usize).data())
    }
}

/// What an epoch changes of the rows of one value.
#[derive(Default)]
struct Change {
    lefts: Vec<Net>,
    rights: i64,
}

impl NotIn {
    /// Errors: Invalid for values without order.
    pub fn new(shape: Shape, values: [usize; 2]) -> Result<NotIn> {
        assert!(shape.kind.is_null_aware());
        let value_codec = KeyCodec::new(&[shape.types[0][values[0]].clone()])?;
        Ok(NotIn { shape, values, value_codec, lists: ShardedMap::default() })
    }

    /// How a left row is shown of which this is known: not at all, or with this mark.
    fn shown(&self, known: Option<bool>) -> Option<Option<bool>> {
        match self.shape.kind {
            JoinKind::NullAwareMark => Some(known),
            _ => (known == Some(false)).then_some(None),
        }
    }

    fn change_list(&mut self, epoch: u64, key: &[u8], changes: BTreeMap<Option<&[u8]>, Change>, given: &Given, parts: &mut Parts) {
        let mut list = self.lists.remove(key).unwrap_or_default();
        let before = (list.rows, list.nulls);
        list.rows += changes.values().map(|change| change.rights).sum::<i64>();
        list.nulls += changes.get(&None).map_or(0, |change| change.rights);
        let after = (list.rows, list.nulls);
        let none = Change::default();
        let of_unknown = |(rows, _): (i64, i64)| if rows > 0 { None } else { Some(false) };
        let shown = (self.shown(of_unknown(before)), self.shown(of_unknown(after)));
        change_rows(&mut list.unknown, shown, &changes.get(&None).unwrap_or(&none).lefts, epoch, given, parts);
        for value in changes.keys().copied().flatten() {
            list.values.entry(value.into()).or_default();
        }
        let of_value = |rights: i64, (_, nulls): (i64, i64)| match (rights > 0, nulls > 0) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        };
        let all_change = (before.1 > 0) != (after.1 > 0);
        let touched: Vec<&[u8]> = if all_change { Vec::new() } else { changes.keys().copied().flatten().collect() };
        let mut change_value = |value: &[u8], known: &mut Value| {
            let change = changes.get(&Some(value)).unwrap_or(&none);
            let shown = (self.shown(of_value(known.rights, before)), self.shown(of_value(known.rights + change.rights, after)));
            change_rows(&mut known.lefts, shown, &change.lefts, epoch, given, parts);
            known.rights += change.rights;
        };
        if all_change {
            list.values.iter_mut().for_each(|(value, known)| change_value(value, known));
        }
        for value in touched {
            change_value(value, list.values.get_mut(value).expect("it was just entered"));
        }
        for value in changes.keys().copied().flatten() {
            if list.values.get(value).is_some_and(|known| known.lefts.is_empty() && known.rights == 0) {
                list.values.remove(value);
            }
        }
        if list.rows != 0 || !list.unknown.is_empty() || !list.values.is_empty() {
            *self.lists.entry(key, List::default) = list;
        }
    }
}

/// The rows of one value, shown one way before an epoch and another way, or the same, after it.
fn change_rows(
    rows: &mut RowBag,
    (before, after): (Option<Option<bool>>, Option<Option<bool>>),
    nets: &[Net],
    epoch: u64,
    given: &Given,
    parts: &mut Parts,
) {
    let facts = |diff: i64, position: u64| Facts { epoch, diff, position };
    match before {
        Some(mark) if before == after => nets.iter().for_each(|net| parts.alone(0, given, net.at, mark, facts(net.count, net.position))),
        Some(mark) => rows.rows().iter().for_each(|row| parts.alone_again(0, &row.row, mark, facts(-row.count, row.position))),
        None => {}
    }
    for net in nets {
        rows.add(given.row(net.at), net.count, net.position);
    }
    if let Some(mark) = after.filter(|_| before != after) {
        rows.rows().iter().for_each(|row| parts.alone_again(0, &row.row, mark, facts(row.count, row.position)));
    }
}

impl StepOperator for NotIn {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let given = Given::new(&self.shape, inputs, [true, false]);
        let values: Vec<Values> = given
            .batches
            .iter()
            .map(|batch| {
                let column: ArrayRef = batch.batch.column(self.values[batch.side]).clone();
                let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0);
                Values { rows: self.value_codec.encode(&[column]).expect("the codec was made for this column"), nulls }
            })
            .collect();
        let mut parts = Parts::new();
        // Its list is empty.
        let asks_none = |at: At| given.has_null_key(at);
        for (epoch, at) in given.in_order().into_iter().filter(|(_, at)| asks_none(*at) && given.of(*at).side == 0) {
            if let Some(mark) = self.shown(Some(false)) {
                parts.alone(0, &given, at, mark, Facts { epoch, diff: given.diff(at), position: given.position(at) });
            }
        }
        let order = given.by_key(|at| !asks_none(at));
        let mut nets = Vec::new();
        for group in order.chunk_by(|left, right| given.belong_together(left, right)) {
            let (epoch, _, first) = group[0];
            let mut changes: BTreeMap<Option<&[u8]>, Change> = BTreeMap::new();
            given.net(0, group, &mut nets);
            for net in &nets {
                changes.entry(values[net.at.batch as usize].get(net.at.row)).or_default().lefts.push(*net);
            }
            for (_, _, at) in group.iter().filter(|(_, _, at)| given.of(*at).side == 1) {
                changes.entry(values[at.batch as usize].get(at.row)).or_default().rights += given.diff(*at);
            }
            self.change_list(epoch, given.key(first), changes, &given, &mut parts);
            parts.spill(&given, &self.shape, &mut out.rows);
        }
        parts.finish(&given, &self.shape, &mut out.rows);
    }
}

impl Stateful for NotIn {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.lists.checkpoint(|out, list| {
            list.unknown.put(out, |_, ()| {});
            put_i64(out, list.rows);
            put_i64(out, list.nulls);
            put_u64(out, list.values.len() as u64);
            for (value, known) in &list.values {
                put_bytes(out, value);
                known.lefts.put(out, |_, ()| {});
                put_i64(out, known.rights);
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.lists.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let unknown = RowBag::take(bytes, |_| Ok(()))?;
            let mut list = List { unknown, rows: bytes.i64()?, nulls: bytes.i64()?, values: BTreeMap::new() };
            for _ in 0..bytes.u64()? {
                let value = bytes.bytes()?.into();
                let lefts = RowBag::take(bytes, |_| Ok(()))?;
                list.values.insert(value, Value { lefts, rights: bytes.i64()? });
            }
            Ok(list)
        })
    }

    fn size(&self) -> (u64, u64) {
        let mut size = (0, 0);
        for (key, list) in self.lists.iter() {
            let values = list.values.values().map(|value| &value.lefts).chain([&list.unknown]);
            size.0 += values.clone().map(|rows| rows.rows().len() as u64).sum::<u64>() + list.values.len() as u64;
            let bytes: usize = values.map(RowBag::bytes).sum();
            size.1 += (key.len() + bytes + list.values.keys().map(|value| value.len() + size_of::<Value>() + 16).sum::<usize>()) as u64;
        }
        size
    }
}
