//! Where an answer depends on the order of rows that tie, the whole row decides. In: a plan as written. Out: the same plan with ORDER BYs that
//! leave no choice, so that a view is a function of its rows, and the batch oracle finds the same.
//!
//! DISTINCT ON becomes the first row by row_number(). What looks at peers (rank, RANGE and GROUPS frames) keeps its ORDER BY as it is.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Filter, Limit, LogicalPlan, Operator, Projection, Sort, Window, WindowFrame, WindowFrameUnits,
    WindowFunctionDefinition, binary_expr,
};

use crate::context::Functions;
use crate::lower::is_ordered;

/// The column by which DISTINCT ON finds its first rows; no user can type it unquoted.
const RANK: &str = "freshet$rank";

pub(crate) fn settle_ties(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        Ok(match node {
            // A correlated one is the decorrelating rules' business, which do not know what to do with an order.
            LogicalPlan::Limit(limit) if limit.input.all_out_ref_exprs().is_empty() => {
                Transformed::yes(LogicalPlan::Limit(Limit { input: Arc::new(settled_order(&limit.input)?), ..limit }))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => Transformed::yes(projected(&distinct, first_rows(&distinct)?)?),
            LogicalPlan::Window(window) => settled_window(window)?,
            other => Transformed::no(other),
        })
    })
    .data()
}

/// The rows below a LIMIT, in an order without ties.
fn settled_order(plan: &LogicalPlan) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Sort(sort) => LogicalPlan::Sort(settled_sort(sort.clone())),
        // The planner puts columns that only ORDER BY names below a projection.
        LogicalPlan::Projection(projection) if ends_in_sort(&projection.input) => {
            let input = settled_order(&projection.input)?;
            LogicalPlan::Projection(Projection::try_new_with_schema(projection.expr.clone(), Arc::new(input), projection.schema.clone())?)
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => match &distinct.sort_expr {
            Some(order) => {
                let sort = Sort { expr: order.clone(), input: Arc::new(first_rows(distinct)?), fetch: None };
                projected(distinct, LogicalPlan::Sort(settled_sort(sort)))?
            }
            None => settled_order(&projected(distinct, first_rows(distinct)?)?)?,
        },
        other => LogicalPlan::Sort(settled_sort(Sort { expr: Vec::new(), input: Arc::new(other.clone()), fetch: None })),
    })
}

fn ends_in_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => ends_in_sort(&projection.input),
        _ => false,
    }
}

fn settled_sort(sort: Sort) -> Sort {
    Sort { expr: with_all_columns(sort.expr, &sort.input), ..sort }
}

/// ORDER BY …, then every column, ascending, NULLs first.
fn with_all_columns(mut order: Vec<SortExpr>, input: &LogicalPlan) -> Vec<SortExpr> {
    for (qualifier, field) in input.schema().iter().filter(|(_, field)| is_ordered(field.data_type())) {
        let column = Expr::Column(Column::from((qualifier, field)));
        if !order.iter().any(|known| known.expr == column) {
            order.push(SortExpr::new(column, true, true));
        }
    }
    order
}

/// The first row of each value of the ON list, with all columns of the input.
fn first_rows(distinct: &DistinctOn) -> Result<LogicalPlan> {
    let order = distinct.sort_expr.iter().flatten().skip(distinct.on_expr.len()).cloned().collect();
    let function = Functions::get().window["row_number"].clone();
    let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
    call.params.partition_by = distinct.on_expr.clone();
    call.params.order_by = with_all_columns(order, &distinct.input);
    call.params.window_frame = WindowFrame::new(Some(false));
    let window = Window::try_new(vec![Expr::from(call).alias(RANK)], distinct.input.clone())?;
    let first = binary_expr(Expr::Column(Column::new_unqualified(RANK)), Operator::Eq, Expr::Literal(ScalarValue::UInt64(Some(1)), None));
    Ok(LogicalPlan::Filter(Filter::try_new(first, Arc::new(LogicalPlan::Window(window)))?))
}

fn projected(distinct: &DistinctOn, rows: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(distinct.select_expr.clone(), Arc::new(rows), distinct.schema.clone())?))
}

/// The calls that order matters to get it settled, in a node of their own: all calls of a node share one order.
fn settled_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let settle = |expr: &Expr| match call_in(expr) {
        Some(call) if is_tie_sensitive(call) => {
            let mut settled = call.clone();
            settled.params.order_by = with_all_columns(settled.params.order_by, &window.input);
            (settled.params.order_by.len() > call.params.order_by.len()).then(|| Expr::from(settled).alias(expr.schema_name().to_string()))
        }
        _ => None,
    };
    let settled: Vec<Option<Expr>> = window.window_expr.iter().map(settle).collect();
    if settled.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (expr, settled) in window.window_expr.iter().zip(settled) {
        match settled {
            Some(settled) => first.push(settled),
            None => second.push(expr.clone()),
        }
    }
    let split = !second.is_empty();
    let mut plan = LogicalPlan::Window(Window::try_new(first, window.input.clone())?);
    if split {
        plan = LogicalPlan::Window(Window::try_new(second, Arc::new(plan))?);
        let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
        plan = LogicalPlan::Projection(Projection::try_new_with_schema(columns, Arc::new(plan), window.schema.clone())?);
    }
    // Visited again, it has no further column to add.
    Ok(Transformed::yes(plan))
}

pub(crate) fn call_in(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call_in(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether the value depends on the order of rows that tie.
pub(crate) fn is_tie_sensitive(call: &WindowFunction) -> bool {
    let WindowFunctionParams { window_frame: frame, .. } = &call.params;
    match call.fun.name() {
        "row_number" | "ntile" | "lag" | "lead" => true,
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" => false,
        _ if frame.units != WindowFrameUnits::Rows => false,
        "first_value" | "last_value" | "nth_value" => true,
        _ => !(frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded()),
    }
}
