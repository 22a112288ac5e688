//! Which windows and sessions hold a row, and when it came. In: rows. Out: the rows with the bounds, the name, the epoch.

use std::collections::BTreeMap;

use freshet_core::{NodeId, Op, Value, Windows};

use crate::interpreter::content::{Bag, NodeError, collect, pick};
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::{Change, Life, lives};

impl Interpreter {
    /// The row once per window of its time.
    pub(super) fn windowed(&self, node: NodeId, row: &Row) -> Result<Vec<Row>, NodeError> {
        let Op::Windows { time, windows } = &self.plan.node(node).op else { unreachable!("only windows have windows") };
        let Value::Int(time) = row[*time] else { return Ok(Vec::new()) };
        let bounds = bounds(*windows, time);
        let fits = |bound: &i128| i64::try_from(*bound).is_ok();
        if !bounds.iter().all(|(start, end)| fits(start) && fits(end)) {
            let message = "a window of this time begins or ends beyond the range of its type".to_string();
            return Err(NodeError { field: "window_start".into(), message, row: row.clone() });
        }
        Ok(bounds.into_iter().map(|(start, end)| with(row, [Value::Int(start), Value::Int(end)])).collect())
    }

    pub(super) fn lives_of_windows(&self, node: NodeId) -> Vec<Life<Row>> {
        let mut changes = Vec::new();
        for life in self.lives(self.plan.node(node).inputs[0]).iter() {
            for row in self.windowed(node, &life.row).unwrap_or_default() {
                changes.push(Change { row: row.clone(), epoch: life.entered, diff: 1, position: life.position });
                changes.extend(life.left.map(|left| Change { row, epoch: left, diff: -1, position: life.position }));
            }
        }
        lives(changes).lives
    }

    pub(super) fn lives_of_arrival(&self, node: NodeId) -> Vec<Life<Row>> {
        let input = self.lives(self.plan.node(node).inputs[0]);
        let arrived = |life: &Life<Row>| Life { row: with(&life.row, [Value::Int(i128::from(life.entered.0) * 1_000)]), ..life.clone() };
        input.iter().map(arrived).collect()
    }

    pub(super) fn sessions(&self, input: Bag, (time, gap): (usize, i64), keys: &[usize]) -> Bag {
        let mut by_key: BTreeMap<Row, Vec<(i128, Row, Vec<u64>)>> = BTreeMap::new();
        for (row, positions) in input {
            if let Value::Int(at) = row[time] {
                by_key.entry(pick(&row, keys)).or_default().push((at, row, positions));
            }
        }
        let mut named = Vec::new();
        for (key, mut rows) in by_key {
            rows.sort_by_key(|row| row.0);
            let (mut first, mut last) = (rows[0].0, rows[0].0);
            for (at, row, positions) in rows {
                if at - last > i128::from(gap) {
                    first = at;
                }
                last = at;
                let row = with(&row, [Value::Bytes(format!("{key:?} from {first}").into_bytes())]);
                named.extend(positions.into_iter().map(|position| (row.clone(), position)));
            }
        }
        collect(named)
    }
}

fn with<const N: usize>(row: &Row, more: [Value; N]) -> Row {
    row.iter().cloned().chain(more).collect()
}

/// Every window [start, end) of these with start ≤ time < end.
fn bounds(windows: Windows, time: i128) -> Vec<(i128, i128)> {
    let between = |size: i128, slide: i128, offset: i128| {
        let last = (time - offset).div_euclid(slide);
        let first = (time - offset - size).div_euclid(slide) + 1;
        (first..=last).map(move |number| (offset + number * slide, offset + number * slide + size))
    };
    match windows {
        Windows::Hop { size, slide, offset } => between(size.into(), slide.into(), offset.into()).collect(),
        Windows::Cumulate { size, step, offset } => {
            let whole: Vec<(i128, i128)> = between(size.into(), size.into(), offset.into()).collect();
            let parts = whole.into_iter().flat_map(|(start, _)| (1..=size / step).map(move |part| (start, start + i128::from(part * step))));
            parts.filter(|(_, end)| time < *end).collect()
        }
    }
}
