//! Which times are over: for each column of each node, below what its changes to come cannot lie. In: a plan. Out: horizons, from which follows
//! what state no admissible row can change any more (T12), and so may be freed.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, TimeUnit};

use crate::{Apart, ExprRef, JoinKind, NodeId, Op, Plan, Windows};

/// How far the time of a source has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// Windows that end at it or before are closed.
    Watermark,
    /// L: no row of a later epoch has an event time below it.
    Floor,
}

/// Once an epoch is complete, changes of later ones have at least the least of these bounds of sources, plus `slack_ns`, in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    pub of: BTreeSet<(Bound, usize)>,
    pub slack_ns: i64,
}

impl Horizon {
    /// Both hold: a change may come from either side.
    pub fn and(&self, other: &Horizon) -> Horizon {
        Horizon { of: self.of.union(&other.of).copied().collect(), slack_ns: self.slack_ns.min(other.slack_ns) }
    }

    /// So much later.
    pub fn later(&self, ns: i64) -> Horizon {
        Horizon { of: self.of.clone(), slack_ns: self.slack_ns.saturating_add(ns) }
    }
}

/// Partners of this side that changes of the other side still find have at least this time.
struct Reach {
    side: usize,
    column: usize,
    from: Horizon,
}

/// By column; a column without one may still change anywhere.
pub type Horizons = BTreeMap<usize, Horizon>;

impl Plan {
    /// Per node. Nodes that tell a row again later, or take back what a key had, have none.
    pub fn horizons(&self) -> Vec<Horizons> {
        let mut found: Vec<Horizons> = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let horizons = self.horizons_of(NodeId(index as u32), &found);
            found.push(horizons);
        }
        found
    }

    fn horizons_of(&self, id: NodeId, known: &[Horizons]) -> Horizons {
        let node = self.node(id);
        let none = Horizons::new();
        let input = |index: usize| node.inputs.get(index).and_then(|input| known.get(input.index())).unwrap_or(&none);
        match &node.op {
            Op::Source { source } => {
                let def = &self.sources[*source];
                let column = def.event_time.filter(|_| def.lateness_ms.is_some());
                column.map(|column| (column, Horizon { of: [(Bound::Floor, *source)].into(), slack_ns: 0 })).into_iter().collect()
            }
            Op::Project { exprs } => {
                let columns = exprs.iter().enumerate().filter_map(|(index, expr)| Some((index, input(0).get(&expr.as_column()?)?.clone())));
                columns.collect()
            }
            Op::Filter { .. } | Op::Arrival | Op::Predict { .. } | Op::Lookup { .. } => input(0).clone(),
            Op::Union | Op::SetOperation { .. } => {
                let mut all = input(0).clone();
                for other in 1..node.inputs.len() {
                    all = all.iter().filter_map(|(column, horizon)| Some((*column, horizon.and(input(other).get(column)?)))).collect();
                }
                all
            }
            Op::Windows { time, windows } => {
                let mut all = input(0).clone();
                let first = node.schema.fields().len() - 2;
                if let Some(horizon) = input(0).get(time) {
                    let (Windows::Hop { size, .. } | Windows::Cumulate { size, .. }) = windows;
                    let size = size.saturating_mul(unit_ns(node.schema.field(first).data_type()));
                    let (start, end) = (horizon.later(1i64.saturating_sub(size)), horizon.later(1));
                    all.extend([(first, start), (first + 1, end)]);
                }
                all
            }
            Op::Gate { end, .. } => {
                let mut all = input(0).clone();
                all.extend(self.closed(id).map(|horizon| (*end, horizon)));
                all
            }
            Op::EmitOnClose { end } => self.closed(id).map(|horizon| (*end, horizon)).into_iter().collect(),
            Op::Aggregate { keys, .. } => {
                let columns = keys.iter().enumerate().filter_map(|(index, key)| Some((index, input(0).get(key)?.clone())));
                columns.collect()
            }
            // A change moves other rows of its partition.
            Op::Top { partition, .. } | Op::Over { partition, .. } => {
                partition.iter().filter_map(|column| Some((*column, input(0).get(column)?.clone()))).collect()
            }
            // What NOT IN compares may be changed by a NULL, which has no time.
            Op::Join { kind, left_keys, right_keys, residual, .. } => {
                let compared = usize::from(kind.is_null_aware());
                let width = self.node(node.inputs[0]).schema.fields().len();
                let mut all = Horizons::new();
                for (left, right) in left_keys.iter().zip(right_keys).skip(compared) {
                    if let (Some(one), Some(other)) = (input(0).get(left), input(1).get(right)) {
                        let both = one.and(other);
                        all.insert(*left, both.clone());
                        all.extend(kind.shows_right().then_some((width + right, both)));
                    }
                }
                // A change of the earlier side concerns only rows of the later side that lie behind it.
                for Reach { side, column, from } in self.reaches(id, residual, [input(0), input(1)]) {
                    if let Some(own) = input(side).get(&column).filter(|_| side == 0 || kind.shows_right()) {
                        all.entry(column + side * width).or_insert_with(|| own.and(&from));
                    }
                }
                all.retain(|column, _| *column < node.schema.fields().len());
                all
            }
            _ => Horizons::new(),
        }
    }

    /// What the residual of a join says of times: a row of this side whose time lies below will have no more partners, nor, unless the join is an
    /// inner one, come or go itself. At most one a side.
    pub fn rows_over(&self, id: NodeId, horizons: &[Horizons]) -> [Option<(usize, Horizon)>; 2] {
        let node = self.node(id);
        let Op::Join { kind, residual, .. } = &node.op else { return [None, None] };
        let inputs = [0, 1].map(|side| &horizons[node.inputs[side].index()]);
        let mut found = [None, None];
        for Reach { side, column, from } in self.reaches(id, residual, inputs) {
            match inputs[side].get(&column) {
                _ if *kind == JoinKind::Inner => found[side].get_or_insert((column, from)),
                // What comes or goes by itself is told whether it has partners or not.
                Some(own) => found[side].get_or_insert((column, own.and(&from))),
                None => continue,
            };
        }
        found
    }

    fn reaches(&self, id: NodeId, residual: &[ExprRef], horizons: [&Horizons; 2]) -> Vec<Reach> {
        let width = self.node(self.node(id).inputs[0]).schema.fields().len();
        let place = |column: usize| if column < width { (0, column) } else { (1, column - width) };
        let reach = |conjunct: &ExprRef| {
            let Apart { later, earlier, ns } = conjunct.apart()?;
            let ((side, column), (other, earlier)) = (place(later), place(earlier));
            (side != other).then_some(Reach { side, column, from: horizons[other].get(&earlier)?.later(ns) })
        };
        residual.iter().filter_map(reach).collect()
    }

    /// Nothing passes behind a closed window.
    fn closed(&self, id: NodeId) -> Option<Horizon> {
        let of: BTreeSet<(Bound, usize)> = self.timed_sources(id).into_iter().map(|source| (Bound::Watermark, source)).collect();
        (!of.is_empty()).then_some(Horizon { of, slack_ns: 1 })
    }
}

/// Nanoseconds of the unit of a timestamp.
pub fn unit_ns(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}
