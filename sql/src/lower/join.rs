//! Inner joins by equality, semi joins as inner joins with a DISTINCT right side, and cross joins with a single row.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use freshet_core::{NodeId, Op};

use super::Lowering;
use crate::expr::{bare, compile};
use crate::now::mentions_now;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<NodeId> {
        check(join)?;
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let (left_wide, left_columns) = self.extend(left, join.left.schema(), &left_keys)?;
        let (right_wide, right_columns) = self.extend(right, join.right.schema(), &right_keys)?;
        if join.join_type == JoinType::LeftSemi {
            return Ok(self.semi_join(left, left_wide, left_columns, right_wide, &right_columns));
        }
        let extended = left_wide != left || right_wide != right;
        let both = join.left.schema().join(join.right.schema())?;
        let condition = condition(join)?;
        let within = !extended && !mentions_now_in(&condition);
        let residual = match &condition {
            Some(condition) if within => {
                split_conjunction(condition).into_iter().map(|conjunct| compile(conjunct, &both)).collect::<Result<Vec<_>>>()?
            }
            _ => Vec::new(),
        };
        let schema = self.joined_schema(left_wide, right_wide);
        let op = Op::Join { left_keys: left_columns, right_keys: right_columns, residual };
        let mut node = self.push(op, vec![left_wide, right_wide], schema);
        if extended {
            let second = self.width(left_wide);
            let own: Vec<usize> = (0..self.width(left)).chain(second..second + self.width(right)).collect();
            node = self.pick(node, &own);
        }
        match condition {
            Some(condition) if !within => self.filtered(node, &condition, &both),
            _ => Ok(node),
        }
    }

    /// Left rows that have a partner: each right key once, so that no left row is multiplied.
    fn semi_join(&mut self, left: NodeId, left_wide: NodeId, left_keys: Vec<usize>, right: NodeId, right_keys: &[usize]) -> NodeId {
        let right_schema = self.schema(right);
        let fields: Vec<Field> = right_keys.iter().map(|key| right_schema.field(*key).clone()).collect();
        let keys = self.push(Op::Aggregate { keys: right_keys.to_vec(), calls: Vec::new() }, vec![right], Arc::new(Schema::new(fields)));
        let schema = self.joined_schema(left_wide, keys);
        let op = Op::Join { left_keys, right_keys: (0..right_keys.len()).collect(), residual: Vec::new() };
        let node = self.push(op, vec![left_wide, keys], schema);
        let own: Vec<usize> = (0..self.width(left)).collect();
        self.pick(node, &own)
    }

    fn joined_schema(&self, left: NodeId, right: NodeId) -> Arc<Schema> {
        let (left, right) = (self.schema(left), self.schema(right));
        Arc::new(Schema::new(left.fields().iter().chain(right.fields()).cloned().collect::<Vec<_>>()))
    }
}

fn mentions_now_in(condition: &Option<Expr>) -> bool {
    condition.as_ref().is_some_and(mentions_now)
}

/// The residual condition; a constant TRUE is none.
fn condition(join: &Join) -> Result<Option<Expr>> {
    let condition = join.filter.clone().map(bare).transpose()?;
    Ok(condition.filter(|condition| !matches!(condition, Expr::Literal(ScalarValue::Boolean(Some(true)), _))))
}

fn check(join: &Join) -> Result<()> {
    let place = |refusal: Refusal| match join.on.first() {
        Some((left, right)) => refusal.at_expr(left).at_expr(right),
        None => join.filter.iter().fold(refusal, |refusal, filter| refusal.at_expr(filter)),
    };
    if join.null_equality == NullEquality::NullEqualsNull {
        return Err(place(Refusal::new("INTERSECT and EXCEPT are not supported yet").help("join on the columns, or write WHERE … IN (SELECT …)")));
    }
    match join.join_type {
        JoinType::Inner => {}
        JoinType::Left if join.on.is_empty() && condition(join)?.is_none() && is_single_row(&join.right) => return Ok(()),
        JoinType::LeftSemi if join.on.is_empty() || condition(join)?.is_some() => {
            return Err(place(Refusal::new("EXISTS and IN are supported with equality only").help("move the other condition into a join")));
        }
        JoinType::LeftSemi => return Ok(()),
        JoinType::LeftAnti | JoinType::RightAnti => {
            return Err(place(
                Refusal::new("NOT IN, NOT EXISTS and EXCEPT are not supported yet").help("count the partners with GROUP BY and keep those with none"),
            ));
        }
        JoinType::LeftMark | JoinType::RightMark => {
            return Err(place(
                Refusal::new("EXISTS and IN are supported as conditions of their own, not under OR").help("write a UNION of two queries"),
            ));
        }
        JoinType::Left | JoinType::Right | JoinType::Full if is_scalar_subquery(join) => {
            return Err(place(
                Refusal::new("this scalar subquery may have no row or more than one").help("aggregate it without GROUP BY, or write it as a JOIN"),
            ));
        }
        JoinType::Left | JoinType::Right | JoinType::Full | JoinType::RightSemi => {
            return Err(place(
                Refusal::new("outer joins are not supported yet")
                    .help("use an inner JOIN; features of a left row come by LEFT JOIN FEATURES(service) FOR SYSTEM_TIME AS OF now()"),
            ));
        }
    }
    if join.on.is_empty() && !is_single_row(&join.left) && !is_single_row(&join.right) {
        return Err(place(
            Refusal::new("a join needs at least one equality between its sides, or one side that is a single row")
                .help("add ON left.key = right.key; a subquery used as a value must be an aggregate without GROUP BY"),
        ));
    }
    Ok(())
}

/// The optimiser names what it makes of a scalar subquery.
fn is_scalar_subquery(join: &Join) -> bool {
    fn named(schema: &DFSchema) -> bool {
        schema.iter().any(|(qualifier, _)| qualifier.is_some_and(|name| name.table().starts_with("__scalar_sq")))
    }
    named(join.left.schema()) || named(join.right.schema())
}

/// True if the plan yields exactly one row whatever its input: an aggregate without keys.
fn is_single_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => is_single_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_single_row(&alias.input),
        LogicalPlan::Join(join) => is_single_row(&join.left) && is_single_row(&join.right) && join.on.is_empty() && join.filter.is_none(),
        _ => false,
    }
}
