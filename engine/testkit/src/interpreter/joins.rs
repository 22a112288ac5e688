//! Joins and set operations, pair by pair. In: the bags of two inputs. Out: the bag of the node, as SQL defines it.

use std::collections::BTreeSet;

use freshet_core::{JoinKind, NodeId, Op, SetOperation, Value};

use crate::interpreter::content::{Bag, Mapped, NodeError, collect, pick};
use crate::interpreter::history::{Interpreter, Row};

impl Interpreter {
    pub(super) fn join(&self, node: NodeId, left: &Bag, right: &Bag) -> Bag {
        let Op::Join { kind, .. } = self.plan.node(node).op else { unreachable!("this node is a join") };
        let width = |input: usize| self.plan.node(self.plan.node(node).inputs[input]).schema.fields().len();
        let nulls = |input: usize| vec![Value::Null; width(input)];
        let mut out: Vec<(Row, u64)> = Vec::new();
        for (row, positions) in left {
            if kind.is_null_aware() {
                let found = self.is_in(node, row, right);
                match (kind, found) {
                    (JoinKind::NullAwareMark, found) => {
                        let mark = found.map_or(Value::Null, Value::Bool);
                        out.extend(positions.iter().map(|position| (joined(row, std::slice::from_ref(&mark)), *position)));
                    }
                    (_, Some(false)) => out.extend(positions.iter().map(|position| (row.clone(), *position))),
                    _ => {}
                }
                continue;
            }
            let partners: Vec<(&Row, &Vec<u64>)> = right.iter().filter(|(other, _)| self.are_partners(node, row, other)).collect();
            for position in positions {
                match kind {
                    JoinKind::Inner | JoinKind::Left | JoinKind::Full => {
                        for (other, others) in &partners {
                            out.extend(others.iter().map(|other_position| (joined(row, other), *position.max(other_position))));
                        }
                        if partners.is_empty() && kind != JoinKind::Inner {
                            out.push((joined(row, &nulls(1)), *position));
                        }
                    }
                    JoinKind::Semi => out.extend((!partners.is_empty()).then(|| (row.clone(), *position))),
                    JoinKind::Anti => out.extend(partners.is_empty().then(|| (row.clone(), *position))),
                    JoinKind::Mark => out.push((joined(row, &[Value::Bool(!partners.is_empty())]), *position)),
                    JoinKind::NullAwareAnti | JoinKind::NullAwareMark => unreachable!("these were answered above"),
                }
            }
        }
        if kind == JoinKind::Full {
            for (other, positions) in right.iter().filter(|(other, _)| !left.keys().any(|row| self.are_partners(node, row, other))) {
                out.extend(positions.iter().map(|position| (joined(&nulls(0), other), *position)));
            }
        }
        collect(out)
    }

    /// A pair whose residual fails, as often as it is there.
    pub(super) fn join_errors(&self, node: NodeId, left: &Bag, right: &Bag) -> Vec<(NodeError, usize)> {
        let mut errors = Vec::new();
        for (row, positions) in left {
            for (other, others) in right.iter().filter(|(other, _)| self.have_equal_keys(node, row, other)) {
                if let Mapped::Error(error) = self.mapped(node, &joined(row, other)) {
                    errors.push((error, positions.len() * others.len()));
                }
            }
        }
        errors
    }

    fn are_partners(&self, node: NodeId, row: &Row, other: &Row) -> bool {
        let residual = matches!(&self.plan.node(node).op, Op::Join { residual, .. } if !residual.is_empty());
        self.have_equal_keys(node, row, other) && (!residual || self.map_row(node, &joined(row, other)).is_some())
    }

    fn have_equal_keys(&self, node: NodeId, row: &Row, other: &Row) -> bool {
        let Op::Join { left_keys, right_keys, nulls_equal, .. } = &self.plan.node(node).op else { return false };
        let (key, other_key) = (pick(row, left_keys), pick(other, right_keys));
        key == other_key && (*nulls_equal || !key.iter().any(Value::is_null))
    }

    /// `row.first key IN (the rows whose other keys are equal)`; None is unknown.
    fn is_in(&self, node: NodeId, row: &Row, right: &Bag) -> Option<bool> {
        let Op::Join { left_keys, right_keys, .. } = &self.plan.node(node).op else { return None };
        let key = pick(row, &left_keys[1..]);
        let list = right.keys().filter(|other| pick(other, &right_keys[1..]) == key && !key.iter().any(Value::is_null));
        let values: BTreeSet<&Value> = list.map(|other| &other[right_keys[0]]).collect();
        let value = &row[left_keys[0]];
        if values.is_empty() {
            return Some(false);
        }
        if value.is_null() {
            return None;
        }
        if values.contains(value) {
            return Some(true);
        }
        if values.iter().any(|value| value.is_null()) { None } else { Some(false) }
    }
}

fn joined(left: &[Value], right: &[Value]) -> Row {
    left.iter().chain(right).cloned().collect()
}

/// By the definition in the SQL standard: counts of each row on either side.
pub(super) fn set_operation(operation: SetOperation, left: &Bag, right: &Bag) -> Bag {
    let rows: BTreeSet<&Row> = left.keys().chain(right.keys()).collect();
    let mut out = Bag::new();
    for row in rows {
        let (m, n) = (left.get(row).map_or(0, Vec::len), right.get(row).map_or(0, Vec::len));
        let count = match operation {
            SetOperation::Intersect => usize::from(m > 0 && n > 0),
            SetOperation::IntersectAll => m.min(n),
            SetOperation::Except => usize::from(m > 0 && n == 0),
            SetOperation::ExceptAll => m.saturating_sub(n),
        };
        if count > 0 {
            out.insert(row.clone(), vec![0; count]);
        }
    }
    out
}
