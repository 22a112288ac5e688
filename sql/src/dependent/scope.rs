//! Which columns of the query around it a subquery reads. In: a plan with references to outer columns, which are names. Out: those that mean
//! the columns of one relation, and the same plan with other columns in their place.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::logical_plan::{Subquery, SubqueryAlias};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// True if the plan reads an outer column that is not one of this scope: of a query further out.
pub(super) fn reads_beyond(plan: &LogicalPlan, scope: &DFSchema) -> Result<bool> {
    let mut found = Vec::new();
    within(plan, scope, &mut found)?;
    Ok(!found.is_empty())
}

/// The outer columns that `plan` reads of a relation with this schema, each once, in order of appearance.
pub(super) fn outer_columns(plan: &LogicalPlan, relation: &DFSchema) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    found.retain(|column| relation.has_column(column));
    Ok(found)
}

/// True if the plan reads something of the query around it.
pub(super) fn is_correlated(plan: &LogicalPlan) -> Result<bool> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(!found.is_empty())
}

/// True if a subquery in an expression of the node reads further out than the node's own input.
pub(super) fn nested_reads_beyond(node: &LogicalPlan) -> Result<bool> {
    let schema = input_schema(node);
    let mut found = Vec::new();
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            if let Some(subquery) = subquery_of(part) {
                within(&subquery.subquery, &schema, &mut found)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(!found.is_empty())
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Column>) -> Result<()> {
    plan.apply(|node| {
        // What stands to the left of a LATERAL is a scope of its own for it.
        if let LogicalPlan::Join(join) = node
            && let Some(subquery) = lateral_side(&join.right)
        {
            collect(&join.left, found)?;
            collect_node(node, found)?;
            within(&subquery.subquery, join.left.schema(), found)?;
            return Ok(TreeNodeRecursion::Jump);
        }
        collect_node(node, found)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The subquery below the alias of a LATERAL.
pub(super) fn lateral_side(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    }
}

fn collect_node(node: &LogicalPlan, found: &mut Vec<Column>) -> Result<()> {
    let schema = input_schema(node);
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            match part {
                Expr::OuterReferenceColumn(_, column) => add(column, found),
                other => {
                    if let Some(subquery) = subquery_of(other) {
                        within(&subquery.subquery, &schema, found)?;
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(())
}

/// What a subquery in a scope of its own reads of the scopes beyond.
fn within(plan: &LogicalPlan, scope: &DFSchema, found: &mut Vec<Column>) -> Result<()> {
    let mut nested = Vec::new();
    collect(plan, &mut nested)?;
    nested.iter().filter(|column| !scope.has_column(column)).for_each(|column| add(column, found));
    Ok(())
}

fn add(column: &Column, found: &mut Vec<Column>) {
    if !found.contains(column) {
        found.push(column.clone());
    }
}

pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(false)
}

/// The columns that a node's expressions may name.
pub(super) fn input_schema(node: &LogicalPlan) -> DFSchema {
    let mut schema = DFSchema::empty();
    node.inputs().into_iter().for_each(|input| schema.merge(input.schema()));
    schema
}

/// The expression with outer columns replaced; `scope`: what subqueries inside of it find first.
pub(super) fn replaced(expr: Expr, scope: &DFSchema, column_for: &dyn Fn(&Column) -> Option<Column>) -> Result<Expr> {
    expr.transform_up(|part| {
        Ok(match part {
            Expr::OuterReferenceColumn(field, column) => match column_for(&column) {
                Some(own) => Transformed::yes(Expr::Column(own)),
                None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            },
            other => {
                let beyond = |column: &Column| if scope.has_column(column) { None } else { column_for(column) };
                with_subquery(other, |subquery| renamed_outer(subquery, &beyond))?
            }
        })
    })
    .data()
}

fn with_subquery(expr: Expr, change: impl FnOnce(Subquery) -> Result<Subquery>) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(change(subquery)?)),
        Expr::Exists(exists) => Transformed::yes(Expr::Exists(Exists { subquery: change(exists.subquery)?, ..exists })),
        Expr::InSubquery(one) => Transformed::yes(Expr::InSubquery(InSubquery { subquery: change(one.subquery)?, ..one })),
        Expr::SetComparison(one) => Transformed::yes(Expr::SetComparison(SetComparison { subquery: change(one.subquery)?, ..one })),
        other => Transformed::no(other),
    })
}

/// A nested subquery goes on reading an outer column, under its new name.
fn renamed_outer(subquery: Subquery, column_for: &dyn Fn(&Column) -> Option<Column>) -> Result<Subquery> {
    let plan = subquery.subquery.as_ref().clone().transform_down_with_subqueries(|node| renamed_in_node(node, column_for)).data()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Subquery { outer_ref_columns, ..subquery.with_plan(plan.into()) })
}

fn renamed_in_node(node: LogicalPlan, column_for: &dyn Fn(&Column) -> Option<Column>) -> Result<Transformed<LogicalPlan>> {
    node.map_expressions(|expr| {
        expr.transform_up(|part| {
            Ok(match part {
                Expr::OuterReferenceColumn(field, column) => match column_for(&column) {
                    Some(other) => Transformed::yes(Expr::OuterReferenceColumn(field, other)),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                },
                other => Transformed::no(other),
            })
        })
    })
}

/// The side of a LATERAL: the subquery in it goes on reading outer columns, under their new names.
pub(super) fn renamed_lateral(side: LogicalPlan, column_for: &dyn Fn(&Column) -> Option<Column>) -> Result<LogicalPlan> {
    Ok(match side {
        LogicalPlan::Subquery(subquery) => LogicalPlan::Subquery(renamed_outer(subquery, column_for)?),
        LogicalPlan::SubqueryAlias(alias) => {
            let input = renamed_lateral(alias.input.as_ref().clone(), column_for)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)
        }
        other => other,
    })
}
