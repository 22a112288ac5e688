//! Subqueries in expressions, where DataFusion's rules do not take them apart. In: a node as written. Out: values as columns of a join below the
//! node; EXISTS and IN with a subquery that equality alone correlates, which the rules know.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, FetchType, Filter, LogicalPlan, Operator, SkipType};

use super::apply::{Apply, left_join, projected};
use super::domain::{Domain, Names, named, same};
use super::lateral::unfolded_with;
use super::pulled::{Use, is_pulled_up};
use super::scope::{has_subquery, is_correlated, reads_beyond};
use crate::lower::is_single_row;

/// The node with what it asks taken apart.
pub(super) fn answered(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let is_known = matches!(
        node,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_)
    );
    if !is_known || !node.expressions().iter().any(has_subquery) {
        return Ok(Transformed::no(node));
    }
    let before = node.schema().columns();
    let mut asked =
        Asked { input: node.inputs()[0].clone(), found: false, by_rules: matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_)), names };
    let preserver = NamePreserver::new(&node);
    let mut exprs = Vec::new();
    for expr in node.expressions() {
        let name = preserver.save(&expr);
        exprs.push(name.restore(expr.transform_up(|part| asked.answer(part)).data()?));
    }
    if !asked.found {
        return Ok(Transformed::no(node));
    }
    let plan = node.with_new_exprs(exprs, vec![asked.input])?;
    if plan.schema().fields().len() == before.len() {
        return Ok(Transformed::yes(plan));
    }
    projected(plan, before.into_iter().map(Expr::Column)).map(Transformed::yes)
}

struct Asked<'a> {
    /// Below the node, with the values that were found.
    input: LogicalPlan,
    found: bool,
    /// The node is one that the rules know with values.
    by_rules: bool,
    names: &'a mut Names,
}

impl Asked<'_> {
    fn answer(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let taken = match &expr {
            Expr::ScalarSubquery(subquery) => self.value(subquery)?,
            // What always has a row exists, and a list of exactly one row is a value to compare with.
            Expr::Exists(Exists { subquery, .. }) if is_single_row(&subquery.subquery) => None,
            Expr::InSubquery(asked) if is_single_row(&asked.subquery.subquery) => {
                let op = if asked.negated { Operator::NotEq } else { Operator::Eq };
                self.value(&asked.subquery)?.map(|value| Expr::BinaryExpr(BinaryExpr::new(asked.expr.clone(), op, Box::new(value))))
            }
            Expr::Exists(Exists { subquery, negated }) => {
                let plan = without_order(&subquery.subquery);
                self.question(subquery, plan)?.map(|subquery| Expr::Exists(Exists { subquery, negated: *negated }))
            }
            Expr::InSubquery(asked) => {
                self.question(&asked.subquery, &asked.subquery.subquery)?.map(|subquery| Expr::InSubquery(InSubquery { subquery, ..asked.clone() }))
            }
            Expr::SetComparison(asked) => self
                .question(&asked.subquery, &asked.subquery.subquery)?
                .map(|subquery| Expr::SetComparison(SetComparison { subquery, ..asked.clone() })),
            _ => None,
        };
        self.found |= taken.is_some();
        Ok(taken.map_or_else(|| Transformed::no(expr), Transformed::yes))
    }

    /// The rows of the subquery beside the columns it depends on. None: the rules' business, or nobody's.
    fn applied(&mut self, plan: &LogicalPlan, used: Use) -> Result<Option<(Domain, LogicalPlan)>> {
        let rules = used == Use::Question || self.by_rules;
        if !is_correlated(plan)? || reads_beyond(plan, self.input.schema())? || (rules && is_pulled_up(plan, used)?) {
            return Ok(None);
        }
        let relation: Arc<DFSchema> = self.input.schema().clone();
        let Some(domain) = Domain::of(&self.input, plan, self.names)? else { return Ok(None) };
        let Some(rows) = (Apply { domain: &domain, relation: &relation, names: self.names }).apply(plan)? else { return Ok(None) };
        let rows = unfolded_with(rows, self.names)?;
        Ok(Some((domain, rows)))
    }

    /// A column of what stands below the node: the value, or NULL where the subquery has no row.
    fn value(&mut self, subquery: &Subquery) -> Result<Option<Expr>> {
        if !has_one_row_at_most(&subquery.subquery)? {
            return Ok(None);
        }
        let Some((domain, rows)) = self.applied(&subquery.subquery, Use::Value)? else { return Ok(None) };
        let mut columns = rows.schema().columns();
        let Some(value) = columns.pop().filter(|_| columns.len() == domain.own.len()) else { return Ok(None) };
        let column = Column::new(domain.own[0].relation.clone(), "value");
        let right = projected(rows, domain.exprs().chain([named(Expr::Column(value), &column)]).collect::<Vec<_>>())?;
        self.input = left_join(self.input.clone(), right, same(&domain.outer, &domain.own))?;
        Ok(Some(Expr::Column(column)))
    }

    /// The same question about rows that are chosen by equality.
    fn question(&mut self, subquery: &Subquery, plan: &LogicalPlan) -> Result<Option<Subquery>> {
        let Some((domain, rows)) = self.applied(plan, Use::Question)? else {
            // What was left out is more than the rules can do.
            let shorter = !std::ptr::eq(plan, subquery.subquery.as_ref());
            return Ok(shorter.then(|| subquery.with_plan(Arc::new(plan.clone()))));
        };
        let mut equal = Vec::with_capacity(domain.own.len());
        for (outer, own) in domain.outer.iter().zip(&domain.own) {
            let (_, field) = self.input.schema().qualified_field_from_column(outer)?;
            let outer = Expr::OuterReferenceColumn(Arc::clone(field), outer.clone());
            equal.push(Expr::BinaryExpr(BinaryExpr::new(Box::new(Expr::Column(own.clone())), Operator::IsNotDistinctFrom, Box::new(outer))));
        }
        let columns = rows.schema().columns().split_off(domain.own.len());
        let chosen = Filter::try_new(conjunction(equal).expect("a domain has columns"), Arc::new(rows))?;
        let plan = projected(LogicalPlan::Filter(chosen), columns.into_iter().map(Expr::Column))?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        Ok(Some(Subquery { outer_ref_columns, ..subquery.with_plan(Arc::new(plan)) }))
    }
}

/// What EXISTS asks about, below an ORDER BY … LIMIT that leaves a row if there is one.
fn without_order(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => without_order_below(plan, &projection.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => without_order(&sort.input),
        LogicalPlan::Limit(limit)
            if matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
                && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(fetch)) if fetch != Some(0)) =>
        {
            without_order(&limit.input)
        }
        other => other,
    }
}

/// Columns do not matter either, where something was left out below them.
fn without_order_below<'a>(plan: &'a LogicalPlan, input: &'a LogicalPlan) -> &'a LogicalPlan {
    let below = without_order(input);
    if std::ptr::eq(below, input) { plan } else { below }
}

fn has_one_row_at_most(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Limit(limit) => matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0 | 1))) || has_one_row_at_most(&limit.input)?,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Distinct(_) => {
            has_one_row_at_most(plan.inputs()[0])?
        }
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    })
}
