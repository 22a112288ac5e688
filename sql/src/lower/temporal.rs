//! Joins in time: keys and times in columns, one operator, and the columns of both sides.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::{Expr, Operator};
use freshet_core::{Comparison, NodeId, Op};

use super::Lowering;
use crate::expr::bare;
use crate::now::readable;
use crate::refusal::{Refusal, Result};
use crate::temporal::{Meeting, TemporalJoin};

impl Lowering<'_> {
    pub(super) fn temporal_join(&mut self, join: &TemporalJoin) -> Result<NodeId> {
        let (keys, last) = join.parts();
        let (mut left_exprs, mut right_exprs) = (Vec::new(), Vec::new());
        for key in keys {
            match join.operands(key)? {
                Some((one, Operator::Eq, other)) => {
                    left_exprs.push(one);
                    right_exprs.push(other);
                }
                _ => return Err(Refusal::new(format!("{} is no equality of both sides", readable(key))).at_expr(key)),
            }
        }
        let count = left_exprs.len();
        let mut comparison = None;
        match (join.meeting, last) {
            (Meeting::Nearest, Some(condition)) => {
                let (one, op, other) =
                    join.operands(condition)?.ok_or_else(|| Refusal::new(format!("{} does not compare both sides", readable(condition))))?;
                left_exprs.push(one);
                right_exprs.push(other);
                comparison = match op {
                    Operator::Gt => Some(Comparison::Greater),
                    Operator::GtEq => Some(Comparison::GreaterOrEqual),
                    Operator::Lt => Some(Comparison::Less),
                    Operator::LtEq => Some(Comparison::LessOrEqual),
                    _ => None,
                };
            }
            (_, Some(time)) => left_exprs.push(bare(time.clone())?),
            (_, None) => {}
        }
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let (left_wide, mut left_columns) = self.extend(left, join.left.schema(), &left_exprs)?;
        let (right_wide, mut right_columns) = self.extend(right, join.right.schema(), &right_exprs)?;
        self.check_types((left_wide, &left_columns), (right_wide, &right_columns), &left_exprs)?;
        let left_rest = left_columns.split_off(count);
        let right_rest = right_columns.split_off(count);
        let (left_keys, right_keys, outer) = (left_columns, right_columns, join.outer);
        let op = match (comparison, left_rest.first(), right_rest.first()) {
            (Some(comparison), Some(left_time), Some(right_time)) => {
                Op::Asof { left_keys, right_keys, left_time: *left_time, right_time: *right_time, comparison, outer }
            }
            (_, at, _) => Op::LookupJoin { left_keys, right_keys, at: at.copied(), outer },
        };
        let fields: Vec<_> =
            [left_wide, right_wide].iter().flat_map(|side| self.schema(*side).fields().iter().cloned().collect::<Vec<_>>()).collect();
        let node = self.push(op, vec![left_wide, right_wide], Arc::new(Schema::new(fields)));
        let second = self.width(left_wide);
        let own: Vec<usize> = (0..self.width(left)).chain(join.shown().into_iter().map(|column| second + column)).collect();
        Ok(self.pick(node, &own))
    }

    /// What is compared has one type on both sides.
    fn check_types(&self, (left, left_columns): (NodeId, &[usize]), (right, right_columns): (NodeId, &[usize]), exprs: &[Expr]) -> Result<()> {
        let (left, right) = (self.schema(left), self.schema(right));
        for ((one, other), expr) in left_columns.iter().zip(right_columns).zip(exprs) {
            let (one, other) = (left.field(*one).data_type(), right.field(*other).data_type());
            if one != other {
                return Err(Refusal::new(format!("{} is {one}, and is compared with {other}", readable(expr)))
                    .help("CAST both to one type")
                    .at_expr(expr));
            }
        }
        Ok(())
    }
}
