//! Joins in time: the nearest right row of each left row, and the right side as it was when a left row came. In: bags, lives. Out: rows, lives.

use freshet_core::{Comparison, Epoch, NodeId, Value};

use crate::interpreter::content::{Bag, compare, pick};
use crate::interpreter::evaluate::event_time_of;
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::Life;

type Side<'a> = (&'a Bag, &'a [usize], usize);

/// Every left row with its nearest right row; `outer`: how many NULLs stand for none.
pub fn asof((left, right): (Side<'_>, Side<'_>), comparison: Comparison, outer: Option<usize>) -> Vec<(Row, u64)> {
    let mut found = Vec::new();
    for (row, positions) in left.0 {
        let (key, time) = (pick(row, left.1), &row[left.2]);
        let matches = |other: &&Row| {
            let its = (pick(other, right.1), &other[right.2]);
            !time.is_null() && !its.1.is_null() && !key.iter().any(Value::is_null) && its.0 == key && compare(time, comparison, its.1)
        };
        let matching = right.0.keys().filter(matches);
        let nearest = match comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => matching.max_by_key(|other| (&other[right.2], *other)),
            Comparison::Less | Comparison::LessOrEqual => matching.max_by_key(|other| (std::cmp::Reverse(&other[right.2]), *other)),
        };
        let beside = match (nearest, outer) {
            (Some(nearest), _) => (nearest.clone(), right.0[nearest].last().copied().unwrap_or(0)),
            (None, Some(width)) => (vec![Value::Null; width], 0),
            (None, None) => continue,
        };
        let both: Row = row.iter().chain(&beside.0).cloned().collect();
        found.extend(positions.iter().map(|position| (both.clone(), (*position).max(beside.1))));
    }
    found
}

impl Interpreter {
    /// C1b: each left row with the right rows that had arrived before its own epoch, or before the time it names.
    pub(super) fn lives_of_lookup_join(
        &self,
        node: NodeId,
        (left_keys, right_keys): (&[usize], &[usize]),
        at: Option<usize>,
        outer: bool,
    ) -> Vec<Life<Row>> {
        let inputs = &self.plan.node(node).inputs;
        let left = self.plan.node(inputs[0]).schema.clone();
        let width = self.plan.node(inputs[1]).schema.fields().len();
        let right = self.lives(inputs[1]);
        let mut lives = Vec::new();
        for life in self.lives(inputs[0]).iter() {
            let named = at.map(|column| event_time_of(&life.row[column], left.field(column).data_type()).map(|time| time.epoch_ceil()));
            let cut = match named {
                None => life.entered,
                Some(Some(time)) => time.min(life.entered),
                Some(None) => Epoch::ZERO,
            };
            let key = pick(&life.row, left_keys);
            let known = !key.iter().any(Value::is_null);
            let matching: Vec<&Life<Row>> =
                right.iter().filter(|other| known && other.is_seen_below(cut) && pick(&other.row, right_keys) == key).collect();
            let none = vec![Value::Null; width];
            let beside = matching.iter().map(|other| &other.row).chain((outer && matching.is_empty()).then_some(&none));
            lives.extend(beside.map(|other| Life { row: life.row.iter().chain(other).cloned().collect(), ..life.clone() }));
        }
        lives
    }
}
