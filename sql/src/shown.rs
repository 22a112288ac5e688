//! EXISTS and IN as values of a SELECT list, which DataFusion's executor knows in WHERE only. In: a plan as written. Out: for the executor, counts of
//! rows to compare with 0.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, lit, when};

use crate::context::Functions;

pub(crate) fn counted_questions(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Projection(projection) = &node else { return Ok(Transformed::no(node)) };
        let schema = projection.input.schema().clone();
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let counted = expr.transform_up(|part| counted(part, &schema))?;
            Ok(counted.update_data(|expr| name.restore(expr)))
        })
    })
    .data()
}

fn counted(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let count = count_of(&subquery, subquery.subquery.as_ref().clone())?;
            Transformed::yes(if negated { count.eq(lit(0i64)) } else { count.gt(lit(0i64)) })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => Transformed::yes(listed(*expr, &subquery, negated, schema)?),
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::Eq, quantifier: SetQuantifier::Any }) => {
            Transformed::yes(listed(*expr, &subquery, false, schema)?)
        }
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::NotEq, quantifier: SetQuantifier::All }) => {
            Transformed::yes(listed(*expr, &subquery, true, schema)?)
        }
        other => Transformed::no(other),
    })
}

/// True if a row is equal, else unknown if one might be.
fn listed(value: Expr, subquery: &Subquery, negated: bool, schema: &DFSchema) -> Result<Expr> {
    let outer = value.transform_up(|part| {
        Ok(match part {
            Expr::Column(column) => Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(schema.field_from_column(&column)?), column)),
            other => Transformed::no(other),
        })
    });
    let element = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
    let equal = outer.data()?.eq(element);
    let any = |condition: Expr| {
        let rows = LogicalPlan::Filter(Filter::try_new(condition, subquery.subquery.clone())?);
        Ok::<_, datafusion::common::DataFusionError>(count_of(subquery, rows)?.gt(lit(0i64)))
    };
    let unknown = any(equal.clone().is_null())?;
    when(any(equal)?, lit(!negated)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(negated))
}

fn count_of(subquery: &Subquery, rows: LogicalPlan) -> Result<Expr> {
    let count = AggregateFunction::new_udf(Functions::get().aggregate["count"].clone(), vec![lit(1i64)], false, None, Vec::new(), None);
    let plan = LogicalPlanBuilder::from(rows).aggregate(Vec::<Expr>::new(), vec![Expr::AggregateFunction(count)])?.build()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Expr::ScalarSubquery(Subquery { outer_ref_columns, ..subquery.with_plan(Arc::new(plan)) }))
}
