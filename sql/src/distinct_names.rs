//! AST → AST: `SELECT a, a` in a WITH RECURSIVE, whose columns are known by the names of its first part or of its list. In: a query. Out: the same
//! with names for those columns that would have one twice.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, Query, SelectItem, SetExpr, VisitMut, VisitorMut};

pub(crate) fn told_apart(query: &mut Query) {
    let _ = query.visit(&mut Names);
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter_mut().filter(|with| with.recursive).flat_map(|with| &mut with.cte_tables) {
            let is_named = !cte.alias.columns.is_empty();
            if let SetExpr::SetOperation { left, right, .. } = cte.query.body.as_mut() {
                name_again(right);
                if is_named {
                    name_again(left);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Columns that have the name of an earlier one get another, which no user can type unquoted.
fn name_again(body: &mut SetExpr) {
    let SetExpr::Select(select) = body else { return };
    let mut known = BTreeSet::new();
    for (place, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => expr.to_string().rsplit('.').next().unwrap_or_default().to_lowercase(),
            SelectItem::ExprWithAlias { alias, .. } => alias.value.to_lowercase(),
            _ => continue,
        };
        if known.insert(name) {
            continue;
        }
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', format!("freshet$again{place}")) };
        }
    }
}
