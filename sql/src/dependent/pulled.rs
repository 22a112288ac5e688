//! What DataFusion's rules take apart rightly. In: a subquery, and what it is used for.

use datafusion::common::Result;
use datafusion::common::tree_node::{TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, JoinType, LogicalPlan};
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use super::scope::{is_correlated, nested_reads_beyond};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// As a side of a join.
    Relation,
    /// As a value.
    Value,
    /// In EXISTS and IN.
    Question,
}

/// True if the rules pull up what correlates it, and what is above stays what it was.
pub(super) fn is_pulled_up(plan: &LogicalPlan, used: Use) -> Result<bool> {
    if !is_plain(plan)? {
        return Ok(false);
    }
    let mut pull_up = PullUpCorrelatedExpr::new().with_need_handle_count_bug(used != Use::Question).with_exists_sub_query(used == Use::Question);
    if plan.clone().rewrite(&mut pull_up).data().is_err() {
        return Ok(false);
    }
    Ok(pull_up.can_pull_up
        && match used {
            Use::Relation => pull_up.pull_up_having_expr.is_none(),
            Use::Value => true,
            Use::Question => !pull_up.pulled_up_scalar_agg,
        })
}

/// A condition below a LIMIT, a window or an outer join is another one above it, one below an alias loses its names, and of several aggregates
/// they know one.
fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    let (mut plain, mut aggregates) = (true, 0);
    plan.apply(|node| {
        if !is_correlated(node)? {
            return Ok(TreeNodeRecursion::Jump);
        }
        aggregates += usize::from(matches!(node, LogicalPlan::Aggregate(_)));
        plain &= match node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) => true,
            LogicalPlan::Join(join) => join.join_type == JoinType::Inner,
            _ => false,
        };
        plain &= aggregates <= 1 && !nested_reads_beyond(node)?;
        Ok(if plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(plain)
}
