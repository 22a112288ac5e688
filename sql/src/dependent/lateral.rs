//! Takes subqueries apart that depend on the rows around them. In: the plan as written. Out: the same with joins, where DataFusion's rules
//! would not do or not rightly; the rest stays for them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};

use super::apply::{Apply, projected};
use super::domain::{Domain, Names, named, same};
use super::pulled::{Use, is_pulled_up};
use super::questions::answered;
use super::scope::{lateral_side, reads_beyond};
use super::unnest::beside;

/// Takes apart what it can; the rest stays as it is.
pub(crate) fn unfolded(plan: LogicalPlan) -> Result<LogicalPlan> {
    unfolded_with(plan, &mut Names::default())
}

pub(super) fn unfolded_with(plan: LogicalPlan, names: &mut Names) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::Join(join) => match lateral_join(join, names)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(node)),
        },
        _ => answered(node, names),
    })
    .data()
}

fn lateral_join(join: &Join, names: &mut Names) -> Result<Option<LogicalPlan>> {
    let (JoinType::Inner | JoinType::Left, Some(subquery)) = (join.join_type, lateral_side(&join.right)) else { return Ok(None) };
    let plan = subquery.subquery.as_ref();
    if reads_beyond(plan, join.left.schema())? {
        return Ok(None);
    }
    if let Some(plan) = beside(join, plan)? {
        return Ok(Some(plan));
    }
    if is_pulled_up(plan, Use::Relation)? {
        return Ok(None);
    }
    let Some(domain) = Domain::of(&join.left, plan, names)? else { return Ok(None) };
    let Some(rows) = (Apply { domain: &domain, relation: join.left.schema(), names }).apply(plan)? else { return Ok(None) };
    let rows = unfolded_with(rows, names)?;
    let wanted = domain.own.iter().cloned().chain(join.right.schema().columns());
    let exprs: Vec<Expr> = rows.schema().columns().into_iter().zip(wanted).map(|(found, wanted)| named(Expr::Column(found), &wanted)).collect();
    let right = projected(rows, exprs)?;
    let pairs = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    let condition = same(&domain.outer, &domain.own).into_iter().chain(pairs).chain(join.filter.clone());
    let joined = LogicalPlanBuilder::from(join.left.as_ref().clone()).join_on(right, join.join_type, conjunction(condition))?.build()?;
    let columns: Vec<Expr> =
        [&join.left, &join.right].into_iter().flat_map(|side: &Arc<LogicalPlan>| side.schema().columns()).map(Expr::Column).collect();
    projected(joined, columns).map(Some)
}
