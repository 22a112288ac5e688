//! Subqueries that stand for a value. In: the plan as written. Out: the same, where a value has one row or is an error, and comparisons with a
//! subquery's rows have the forms the rules know.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchemaRef, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, UserDefinedLogicalNodeCore, lit,
};

use crate::lower::is_single_row;

/// What the column of an IN is called; no user can type it unquoted.
const ELEMENT: &str = "freshet$element";

/// The one row of its input; a row of NULLs if there is none. More than one are an error and no row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SingleRow {
    pub input: Arc<LogicalPlan>,
}

impl PartialOrd for SingleRow {
    fn partial_cmp(&self, _: &SingleRow) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for SingleRow {
    fn name(&self) -> &str {
        "SingleRow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleRow")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<SingleRow> {
        Ok(SingleRow { input: Arc::new(inputs.pop().expect("it has one input")) })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// Guards every value, and rewrites what has a simpler form.
pub(crate) fn guarded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut names = 0;
    plan.transform_up_with_subqueries(|node| {
        let node = node.map_expressions(|expr| expr.transform_up(guarded_expr))?;
        match node.data {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().chain(&aggregate.aggr_expr).any(has_value) => {
                Ok(Transformed::yes(values_below(aggregate, &mut names)?))
            }
            other => Ok(Transformed::new(other, node.transformed, node.tnr)),
        }
    })
    .data()
}

fn guarded_expr(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty() && !is_single_row(&subquery.subquery) => {
            Transformed::yes(Expr::ScalarSubquery(single(subquery)?))
        }
        // `= ANY` is IN, `<> ALL` is NOT IN.
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::Eq, quantifier: SetQuantifier::Any }) => in_subquery(expr, subquery, false),
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::NotEq, quantifier: SetQuantifier::All }) => {
            in_subquery(expr, subquery, true)
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => in_subquery(expr, subquery, negated),
        other => Transformed::no(other),
    })
}

/// A list of exactly one row is a value to compare with; grouped by what correlates it, it might have none.
fn in_subquery(expr: Box<Expr>, subquery: Subquery, negated: bool) -> Transformed<Expr> {
    if is_single_row(&subquery.subquery) {
        let op = if negated { Operator::NotEq } else { Operator::Eq };
        return Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(expr, op, Box::new(Expr::ScalarSubquery(subquery)))));
    }
    Transformed::yes(Expr::InSubquery(InSubquery::new(expr, subquery, negated)))
}

fn single(subquery: Subquery) -> Result<Subquery> {
    let node = LogicalPlan::Extension(Extension { node: Arc::new(SingleRow { input: subquery.subquery.clone() }) });
    // The rules look for the expression of the column at the root.
    let columns: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(node).project(columns)?.build()?;
    Ok(subquery.with_plan(Arc::new(plan)))
}

/// For DataFusion's own rules and executor: `x IN (…)` as a condition of its own is the one form of it that they answer rightly, correlated
/// or not. Its other uses become `= ANY`, which they take apart into what is true and what is unknown.
pub(crate) fn runnable(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = node else { return node.map_expressions(|expr| expr.transform_up(as_any)) };
        let conjuncts = split_conjunction_owned(filter.predicate).into_iter().map(|conjunct| match conjunct {
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => Ok(in_subquery(expr, subquery, false).data),
            other => other.transform_up(as_any).data(),
        });
        let predicate = conjunction(conjuncts.collect::<Result<Vec<Expr>>>()?).expect("a filter has a condition");
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
    })
    .data()
}

fn as_any(expr: Expr) -> Result<Transformed<Expr>> {
    let (expr, subquery, negated) = match expr {
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => (expr, subquery, negated),
        // What always has a row exists; grouped by what correlates it, it would not.
        Expr::Exists(Exists { subquery, negated }) if is_single_row(&subquery.subquery) => return Ok(Transformed::yes(lit(!negated))),
        other => return Ok(Transformed::no(other)),
    };
    if is_single_row(&subquery.subquery) {
        return Ok(in_subquery(expr, subquery, negated));
    }
    // Rows of the query's own table would be taken for the row that asks.
    let element = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0))).alias(ELEMENT);
    let named = LogicalPlan::Projection(Projection::try_new(vec![element], subquery.subquery.clone())?);
    let subquery = subquery.with_plan(Arc::new(named));
    let any = Expr::SetComparison(SetComparison { expr, subquery, op: Operator::Eq, quantifier: SetQuantifier::Any });
    Ok(Transformed::yes(if negated { Expr::Not(Box::new(any)) } else { any }))
}

fn has_value(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty()))).unwrap_or(false)
}

/// The rules know values in WHERE and SELECT only: those among the arguments and keys of an aggregate are joined below it.
fn values_below(aggregate: Aggregate, names: &mut usize) -> Result<LogicalPlan> {
    let mut input = LogicalPlanBuilder::from(aggregate.input.as_ref().clone());
    let mut known: HashMap<Subquery, Column> = HashMap::new();
    let mut joined = Vec::new();
    let mut replaced = |exprs: Vec<Expr>| -> Result<Vec<Expr>> {
        exprs
            .into_iter()
            .map(|expr| {
                let rewritten = expr.transform_up(|part| match part {
                    Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty() => {
                        let column = match known.get(&subquery) {
                            Some(column) => column.clone(),
                            None => {
                                *names += 1;
                                let alias = format!("__scalar_value_{names}");
                                let column = Column::new(Some(alias.clone()), subquery.subquery.schema().field(0).name());
                                joined.push((subquery.subquery.clone(), alias));
                                known.insert(subquery, column.clone());
                                column
                            }
                        };
                        Ok(Transformed::yes(Expr::Column(column)))
                    }
                    other => Ok(Transformed::no(other)),
                });
                rewritten.data()
            })
            .collect()
    };
    let (keys, calls) = (replaced(aggregate.group_expr)?, replaced(aggregate.aggr_expr)?);
    for (plan, alias) in joined {
        input = input.cross_join(LogicalPlanBuilder::from(plan.as_ref().clone()).alias(alias)?.build()?)?;
    }
    let node = Aggregate::try_new(Arc::new(input.build()?), keys, calls)?;
    // What stands above knows the columns by their former names.
    let named = aggregate.schema.iter().zip(node.schema.columns()).map(|((qualifier, field), column)| {
        let same = column.relation.as_ref() == qualifier && column.name == *field.name();
        let column = Expr::Column(column);
        if same { column } else { column.alias_qualified(qualifier.cloned(), field.name()) }
    });
    let named: Vec<Expr> = named.collect();
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(node)).project(named)?.build()
}
