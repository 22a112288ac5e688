//! Flink's bounds of group windows. In: a query with `TUMBLE_START(ts, size)` and the like. Out: the field of the window it means, which then
//! is found among the keys of GROUP BY.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName, Query, Select, SelectItem, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::windowing::node::FUNCTIONS;

/// `TUMBLE_START`, `HOP_END`, `SESSION_ROWTIME` … by what they are made of.
pub(crate) fn spell_bounds(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Bounds);
}

struct Bounds;

impl VisitorMut for Bounds {
    type Break = ();

    /// A column without a name of its own keeps the function's.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr @ Expr::Function(_)) = item
                && let Expr::Function(function) = &*expr
                && bound_of(function).is_some()
            {
                let alias = Ident::new(function.name.to_string().to_lowercase());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some((window, bound)) = bound_of(function)
        {
            *expr = written_out(function, window, bound);
        }
        ControlFlow::Continue(())
    }
}

/// The window's function and which of its bounds.
fn bound_of(function: &Function) -> Option<(&'static str, &'static str)> {
    let name = function.name.to_string().to_lowercase();
    let (window, bound) = name.rsplit_once('_')?;
    let (window, _) = FUNCTIONS.into_iter().find(|(known, _)| *known == window)?;
    let bound = ["start", "end", "rowtime"].into_iter().find(|known| *known == bound)?;
    Some((window, bound))
}

fn written_out(function: &Function, window: &str, bound: &str) -> Expr {
    let span = function.name.0.first().and_then(|part| part.as_ident()).map_or_else(Span::empty, |ident| ident.span);
    let name = |value: &str| ObjectName::from(vec![Ident { value: value.into(), quote_style: None, span }]);
    let text = |value: &str| Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(value.into()), span });
    let window = Expr::Function(Function { name: name(window), ..function.clone() });
    let field = if bound == "start" { "start" } else { "end" };
    let mut found = Function { name: name("get_field"), ..function.clone() };
    if let FunctionArguments::List(list) = &mut found.args {
        list.args = [window, text(field)].map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).to_vec();
    }
    if bound != "rowtime" {
        return Expr::Function(found);
    }
    let ms = Expr::Interval(Interval {
        value: Box::new(text("1 milliseconds")),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    });
    Expr::BinaryOp { left: Box::new(Expr::Function(found)), op: BinaryOperator::Minus, right: Box::new(ms) }
}
