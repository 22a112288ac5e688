//! An aggregate per session. In: the optimised plan, where a session node gives every row the bounds of its session, and an aggregate groups
//! by them. Out: rows with the name of their session only, which stays as a session grows, and bounds taken from the least and greatest
//! time of each group. So a row that lengthens a session is one row more, not all of them again.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Extension, LogicalPlan, Projection};

use crate::context::Functions;
use crate::windowing::node::{END, SESSION, START, Shape, TIME, WindowTvf, unit_ns, unit_of};

/// The plan with every such pair fused.
pub(crate) fn fuse_sessions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let fuse = |node: LogicalPlan| match &node {
        LogicalPlan::Aggregate(aggregate) => Ok(fused(aggregate)?.map_or(Transformed::no(node.clone()), Transformed::yes)),
        _ => Ok(Transformed::no(node)),
    };
    plan.transform_up_with_subqueries(fuse).data()
}

/// What a key of the aggregate is.
enum Key {
    Start,
    End,
    Time,
    Own(Expr),
}

fn fused(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let exprs: Vec<Expr> = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
    let Some((tvf, gap, mut exprs)) = session_below(&aggregate.input, exprs)? else { return Ok(None) };
    let calls = exprs.split_off(aggregate.group_expr.len());
    let bounds: BTreeSet<Column> = tvf_bounds(tvf).collect();
    let mut keys = Vec::new();
    for expr in exprs {
        let expr = expr.unalias();
        keys.push(match &expr {
            Expr::Column(column) if bounds.contains(column) => match column.name.as_str() {
                START => Key::Start,
                END => Key::End,
                _ => Key::Time,
            },
            _ if tvf.partition.contains(&expr) => Key::Own(expr),
            _ => return Ok(None),
        });
    }
    let by_session = keys.iter().any(|key| !matches!(key, Key::Own(_)));
    let by_key = tvf.partition.iter().all(|wanted| keys.iter().any(|key| matches!(key, Key::Own(expr) if expr == wanted)));
    let reads_bounds = calls.iter().any(|call| call.column_refs().iter().any(|column| bounds.contains(*column)));
    if !by_session || !by_key || reads_bounds {
        return Ok(None);
    }
    build(aggregate, tvf, gap, keys, calls).map(Some)
}

fn tvf_bounds(tvf: &WindowTvf) -> impl Iterator<Item = Column> + '_ {
    let names = if tvf.with_time { &[START, END, TIME][..] } else { &[START, END][..] };
    names.iter().map(|name| Column::new(tvf.qualifier.clone(), *name))
}

/// The session node that these expressions are computed over, projections and aliases between written into them.
fn session_below(plan: &LogicalPlan, mut exprs: Vec<Expr>) -> Result<Option<(&WindowTvf, i64, Vec<Expr>)>> {
    let mut plan = plan;
    loop {
        match plan {
            LogicalPlan::Projection(projection) => {
                exprs = over(exprs, &projection.schema, |index| projection.expr[index].clone().unalias())?;
                plan = &projection.input;
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = alias.input.schema();
                exprs = over(exprs, &alias.schema, |index| Expr::Column(Column::from(below.qualified_field(index))))?;
                plan = &alias.input;
            }
            LogicalPlan::Extension(extension) => {
                let found = extension.node.as_any().downcast_ref::<WindowTvf>();
                return Ok(found.and_then(|tvf| match tvf.shape {
                    Shape::Session { gap } => Some((tvf, gap, exprs)),
                    _ => None,
                }));
            }
            _ => return Ok(None),
        }
    }
}

fn over(exprs: Vec<Expr>, schema: &DFSchema, column: impl Fn(usize) -> Expr) -> Result<Vec<Expr>> {
    let replaced = |part: Expr| match &part {
        Expr::Column(name) => Ok(Transformed::yes(column(schema.index_of_column(name)?))),
        _ => Ok(Transformed::no(part)),
    };
    exprs.into_iter().map(|expr| expr.transform_up(replaced).data()).collect()
}

fn build(aggregate: &Aggregate, tvf: &WindowTvf, gap: i64, keys: Vec<Key>, calls: Vec<Expr>) -> Result<LogicalPlan> {
    let data_type = tvf.time.get_type(tvf.input.schema())?;
    let unit = unit_of(&data_type).map_or(1, unit_ns);
    let exprs = (tvf.time.clone(), tvf.partition.clone());
    let named = WindowTvf::new(Shape::SessionName { gap }, exprs, false, tvf.qualifier.clone(), tvf.input.clone())?;
    let named = named.closing(tvf.closes.clone());
    let session = Expr::Column(Column::new(tvf.qualifier.clone(), SESSION));
    let named = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(named) }));
    let mut own: Vec<Expr> = Vec::new();
    for key in &keys {
        if let Key::Own(expr) = key
            && !own.contains(expr)
        {
            own.push(expr.clone());
        }
    }
    let calls_first = own.len() + 1;
    let call = |name: &str| Functions::get().aggregate[name].call(vec![tvf.time.clone()]).alias(format!("freshet${name}"));
    let counted = calls.len();
    let calls = calls.into_iter().enumerate().map(|(index, call)| call.unalias().alias(format!("freshet${index}")));
    let calls: Vec<Expr> = calls.chain([call("min"), call("max")]).collect();
    let group = own.iter().cloned().chain([session]).collect();
    let grouped = Aggregate::try_new(named, group, calls)?;
    let column = |index: usize| Expr::Column(Column::from(grouped.schema.qualified_field(index)));
    let exact = |ns: i64| Expr::Literal(ScalarValue::new_interval_mdn(0, 0, ns), None);
    let end = || column(calls_first + counted + 1) + exact(gap * unit);
    let mut shown = Vec::new();
    for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        let value = match keys.get(index) {
            Some(Key::Start) => column(calls_first + counted),
            Some(Key::End) => end(),
            Some(Key::Time) => end() - exact(unit.max(1_000_000)),
            Some(Key::Own(expr)) => column(own.iter().position(|known| known == expr).expect("every own key was taken in")),
            None => column(calls_first + index - keys.len()),
        };
        shown.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(LogicalPlan::Aggregate(grouped)))?))
}
