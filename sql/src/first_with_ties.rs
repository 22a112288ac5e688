//! AST → AST: `ORDER BY … FETCH FIRST n ROWS WITH TIES` keeps the rows of rank n or less. In: a query that ends so. Out: the same with QUALIFY.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, LimitClause, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, Value, VisitMut, VisitorMut,
    WindowType,
};

use crate::fold::normal;
use crate::parse::parse_query;

/// What stands for the rows of a UNION or DISTINCT; no user can type it unquoted.
const ROWS: &str = "freshet$rows";

/// Rewrites what it can; [`ranked`] says why the rest is as it was.
pub(crate) fn as_ranks(query: &mut Query) {
    let _ = query.visit(&mut Ties);
}

struct Ties;

impl VisitorMut for Ties {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(Ok(taken)) = ranked(query) {
            *query = taken;
        }
        ControlFlow::Continue(())
    }
}

/// None: the query has no WITH TIES. Errors: why it has no answer.
pub(crate) fn ranked(query: &Query) -> Option<Result<Query, &'static str>> {
    let fetch = query.fetch.as_ref().filter(|fetch| fetch.with_ties)?;
    if fetch.percent {
        return Some(Err("FETCH takes a number of rows in a view, not a PERCENT"));
    }
    let count = fetch.quantity.as_ref().map_or(Some(1), number);
    let offset = match &query.limit_clause {
        None => Some(0),
        Some(LimitClause::LimitOffset { limit: None, offset: Some(offset), limit_by }) if limit_by.is_empty() => number(&offset.value),
        Some(_) => None,
    };
    let (Some(count), Some(offset)) = (count, offset) else { return Some(Err("FETCH … WITH TIES takes constant numbers of rows")) };
    let Some(OrderByKind::Expressions(order)) = query.order_by.as_ref().map(|order| &order.kind) else {
        return Some(Err("WITH TIES needs an ORDER BY, which says what ties"));
    };
    Some(kept(query, order, offset, offset.saturating_add(count)))
}

fn kept(query: &Query, order: &[OrderByExpr], offset: u64, up_to: u64) -> Result<Query, &'static str> {
    let mut taken = Query { order_by: None, fetch: None, limit_clause: None, ..query.clone() };
    if let SetExpr::Select(select) = taken.body.as_mut()
        && select.distinct.is_none()
        && select.qualify.is_none()
    {
        let order = order.iter().map(|one| of_select(one, select)).collect::<Result<Vec<_>, _>>()?;
        select.qualify = Some(condition(&order, offset, up_to));
        return Ok(taken);
    }
    // Its columns are all that there is to order by.
    let with = taken.with.take();
    let order = order.iter().map(|one| of_output(one, &taken)).collect::<Result<Vec<_>, _>>()?;
    let mut outer = *parse_query(&format!("SELECT * FROM (SELECT 1) AS \"{ROWS}\"")).expect("it is a query");
    let SetExpr::Select(select) = outer.body.as_mut() else { unreachable!("it is a SELECT") };
    select.qualify = Some(condition(&order, offset, up_to));
    let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation) else {
        unreachable!("it selects from one")
    };
    **subquery = taken;
    Ok(Query { with, ..outer })
}

/// `rank() OVER (ORDER BY …) <= up_to`, and behind the offset.
fn condition(order: &[OrderByExpr], offset: u64, up_to: u64) -> Expr {
    let ranked = |function: &str, comparison: &str, bound: u64| {
        let text = format!("SELECT {function}() OVER (ORDER BY 1) {comparison} {bound}");
        let query = parse_query(&text).expect("it is a query");
        let SetExpr::Select(select) = *query.body else { unreachable!("it is a SELECT") };
        let Some(SelectItem::UnnamedExpr(mut expr)) = select.projection.into_iter().next() else { unreachable!("it selects an expression") };
        if let Expr::BinaryOp { left, .. } = &mut expr
            && let Expr::Function(function) = left.as_mut()
            && let Some(WindowType::WindowSpec(window)) = &mut function.over
        {
            window.order_by = order.to_vec();
        }
        expr
    };
    let tied = ranked("rank", "<=", up_to);
    match offset {
        0 => tied,
        _ => Expr::BinaryOp { left: Box::new(tied), op: BinaryOperator::And, right: Box::new(ranked("row_number", ">", offset)) },
    }
}

/// ORDER BY 2 and ORDER BY name mean what the SELECT list says.
fn of_select(one: &OrderByExpr, select: &Select) -> Result<OrderByExpr, &'static str> {
    let expr = match &one.expr {
        Expr::Identifier(name) => {
            let named = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if normal(alias) == normal(name) => Some(expr.clone()),
                _ => None,
            });
            named.unwrap_or_else(|| one.expr.clone())
        }
        other => match number(other) {
            None => other.clone(),
            Some(place) => match usize::try_from(place).ok().and_then(|place| select.projection.get(place.checked_sub(1)?)) {
                Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) if !has_wildcard(select) => expr.clone(),
                _ => return Err("WITH TIES is ordered by a column that the SELECT list has under no number"),
            },
        },
    };
    Ok(OrderByExpr { expr, ..one.clone() })
}

fn has_wildcard(select: &Select) -> bool {
    select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)))
}

fn of_output(one: &OrderByExpr, query: &Query) -> Result<OrderByExpr, &'static str> {
    let Some(place) = number(&one.expr) else { return Ok(one.clone()) };
    let mut body = query.body.as_ref();
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    let name: Option<Ident> = match body {
        SetExpr::Select(select) if !has_wildcard(select) => {
            match usize::try_from(place).ok().and_then(|place| select.projection.get(place.checked_sub(1)?)) {
                Some(SelectItem::ExprWithAlias { alias, .. }) => Some(alias.clone()),
                Some(SelectItem::UnnamedExpr(Expr::Identifier(name))) => Some(name.clone()),
                Some(SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))) => parts.last().cloned(),
                _ => None,
            }
        }
        _ => None,
    };
    match name {
        Some(name) => Ok(OrderByExpr { expr: Expr::Identifier(name), ..one.clone() }),
        None => Err("WITH TIES is ordered by a column that the SELECT list has under no number"),
    }
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => number(inner),
        _ => None,
    }
}
