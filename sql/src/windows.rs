//! A feature view's query with its sugar written out. In: the query, WINDOWS and TIMESTAMP. Out: one aggregate per window, and the time
//! as a hidden column.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Interval, ObjectName, Query,
    Select, SelectItem, SetExpr, Spanned, Value, ValueWithSpan, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::ast::{CreateFeatureView, Duration};
use crate::check::function_name;
use crate::context::Functions;
use crate::refusal::{Refusal, Result};

/// The name of the hidden column; no user can type the dollar sign unquoted at its place.
pub(crate) const TIME_COLUMN: &str = "freshet$time";

/// The query to plan, and whether it groups.
pub(crate) struct Expanded {
    pub query: Query,
    pub grouped: bool,
}

pub(crate) fn expand(view: &CreateFeatureView) -> Result<Expanded> {
    let mut query = (*view.query).clone();
    let one_select =
        || Refusal::new("a feature view is one SELECT").help("put the UNION into a CREATE VIEW and select from that").at(view.query.span());
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(one_select()) };
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
        GroupByExpr::All(_) => true,
    };
    if !grouped {
        if let Some(item) = select.projection.iter().find(|item| expression_of(item).is_some_and(has_aggregate)) {
            let entity: Vec<String> = view.entity.iter().map(Ident::to_string).collect();
            return Err(Refusal::new("an aggregate without GROUP BY has no entity").help(format!("GROUP BY {}", entity.join(", "))).at(item.span()));
        }
        if let Some(window) = view.windows.first() {
            return Err(Refusal::new("WINDOWS is for aggregates; this view keeps the latest row of each entity")
                .help("leave WINDOWS out, or GROUP BY the entity and aggregate")
                .at(window.place.0));
        }
        if let Some(hop) = &view.hop {
            return Err(Refusal::new("HOP is for windows; this view keeps the latest row of each entity").at(hop.place.0));
        }
    }
    if !view.windows.is_empty() {
        expand_windows(select, &view.windows, &view.timestamp)?;
    }
    let time = Expr::Identifier(view.timestamp.clone());
    let hidden = if grouped { call("max", time, view.timestamp.span) } else { time };
    select.projection.push(SelectItem::ExprWithAlias { expr: hidden, alias: Ident::with_quote('"', TIME_COLUMN) });
    Ok(Expanded { query, grouped })
}

/// Each item with aggregates once per window, named `{name}_{window}`.
fn expand_windows(select: &mut Select, windows: &[Duration], time: &Ident) -> Result<()> {
    let mut items = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        let Some(expr) = expression_of(&item).filter(|expr| has_aggregate(expr)) else {
            items.push(item);
            continue;
        };
        let SelectItem::ExprWithAlias { alias, .. } = &item else {
            return Err(Refusal::new("WINDOWS names each feature after its column, and this one has no name")
                .help(format!("{expr} AS name gives name_{}", windows[0].suffix()))
                .at(item.span()));
        };
        for window in windows {
            let mut expr = expr.clone();
            restrict(&mut expr, window, time);
            let alias = Ident { value: format!("{}_{}", alias.value, window.suffix()), quote_style: alias.quote_style, span: alias.span };
            items.push(SelectItem::ExprWithAlias { expr, alias });
        }
    }
    select.projection = items;
    Ok(())
}

/// Every aggregate in it sees only the window.
fn restrict(expr: &mut Expr, window: &Duration, time: &Ident) {
    let _ = visit_expressions_mut(expr, |part| {
        if let Expr::Function(function) = part
            && is_aggregate(function)
        {
            let within = in_window(window, time);
            function.filter = Some(Box::new(match function.filter.take() {
                Some(filter) => binary(Expr::Nested(filter), BinaryOperator::And, within),
                None => within,
            }));
        }
        ControlFlow::<()>::Continue(())
    });
}

/// `time > now() - INTERVAL 'n milliseconds'`
fn in_window(window: &Duration, time: &Ident) -> Expr {
    let span = window.place.0;
    let text = Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(format!("{} milliseconds", window.ms())), span });
    let interval = Expr::Interval(Interval {
        value: Box::new(text),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    });
    let mut now = call("now", Expr::Identifier(time.clone()), span);
    if let Expr::Function(function) = &mut now {
        function.args = FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args: Vec::new(), clauses: Vec::new() });
    }
    binary(Expr::Identifier(time.clone()), BinaryOperator::Gt, binary(now, BinaryOperator::Minus, interval))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn call(name: &str, argument: Expr, span: Span) -> Expr {
    let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
    Expr::Function(datafusion::sql::sqlparser::ast::Function {
        name: ObjectName::from(vec![Ident { value: name.to_string(), quote_style: None, span }]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args: vec![argument], clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn expression_of(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn has_aggregate(expr: &Expr) -> bool {
    visit_expressions(expr, |part| match part {
        Expr::Function(function) if is_aggregate(function) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

fn is_aggregate(function: &datafusion::sql::sqlparser::ast::Function) -> bool {
    function.over.is_none() && Functions::get().aggregate.contains_key(&function_name(function))
}
