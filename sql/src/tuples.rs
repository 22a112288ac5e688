//! AST → AST: comparisons of rows of values become comparisons of their parts. In: `(a, b) IN (SELECT …)`, `(a, b) IN ((1, 2), …)`, `(a, b) = (c, d)`
//! and the like. Out: EXISTS, AND and OR, which know what is unknown.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, Select, SetExpr, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};

use crate::parse::parse_query;

/// The list of an IN; no user can type it unquoted.
const LIST: &str = "freshet$list";

/// Rewrites every comparison of rows in the query.
pub(crate) fn by_parts(query: &mut Query) {
    let _ = query.visit(&mut Parts);
}

struct Parts;

impl VisitorMut for Parts {
    type Break = ();

    /// As a condition of its own, an unknown answer is no answer.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(condition) = &mut select.selection {
            as_conditions(condition);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let taken = match expr {
            Expr::InSubquery { expr: left, subquery, negated } => tuple(left).and_then(|values| {
                let found = Listed { values, list: subquery };
                let (yes, no) = (boolean(!*negated), boolean(*negated));
                Some(case(vec![(found.equal()?, yes), (found.unknown()?, null())], no))
            }),
            Expr::InList { expr: left, list, negated } => tuple(left).and_then(|values| {
                let rows = list.iter().map(|row| tuple(row).and_then(|row| compared(&values, BinaryOperator::Eq, &row)));
                let any = rows.collect::<Option<Vec<Expr>>>()?.into_iter().reduce(|left, right| binary(left, BinaryOperator::Or, right))?;
                Some(if *negated { not(any) } else { nested(any) })
            }),
            Expr::BinaryOp { left, op, right } => match (tuple(left), tuple(right)) {
                (Some(left), Some(right)) => compared(&left, op.clone(), &right).map(nested),
                _ => None,
            },
            _ => None,
        };
        if let Some(taken) = taken {
            *expr = taken;
        }
        ControlFlow::Continue(())
    }
}

fn as_conditions(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            as_conditions(left);
            as_conditions(right);
        }
        Expr::Nested(inner) => as_conditions(inner),
        Expr::InSubquery { expr, subquery, negated } => {
            let Some(values) = tuple(expr) else { return };
            let found = Listed { values, list: subquery };
            let taken = match negated {
                false => found.equal(),
                true => found.equal().zip(found.unknown()).map(|(equal, unknown)| nested(binary(not(equal), BinaryOperator::And, not(unknown)))),
            };
            if let Some(taken) = taken {
                *condition = taken;
            }
        }
        _ => {}
    }
}

/// A row of values and the subquery it is looked for in.
struct Listed<'a> {
    values: Vec<Expr>,
    list: &'a Query,
}

impl Listed<'_> {
    /// A row of the list is equal.
    fn equal(&self) -> Option<Expr> {
        self.exists(self.comparison()?)
    }

    /// A row of the list might be, for all its NULLs say.
    fn unknown(&self) -> Option<Expr> {
        self.exists(Expr::IsNull(Box::new(nested(self.comparison()?))))
    }

    fn comparison(&self) -> Option<Expr> {
        let parts: Vec<Expr> =
            (0..self.values.len()).map(|part| Expr::CompoundIdentifier(vec![quoted(LIST.into()), quoted(format!("freshet$part{part}"))])).collect();
        compared(&self.values, BinaryOperator::Eq, &parts)
    }

    fn exists(&self, condition: Expr) -> Option<Expr> {
        let parts: Vec<String> = (0..self.values.len()).map(|part| format!("\"freshet$part{part}\"")).collect();
        let text = format!("SELECT 1 FROM (SELECT 1) AS \"{LIST}\" ({}) WHERE true", parts.join(", "));
        let mut query = parse_query(&text).ok()?;
        let SetExpr::Select(select) = query.body.as_mut() else { return None };
        select.selection = Some(condition);
        if let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation {
            **subquery = self.list.clone();
        }
        Some(Expr::Exists { subquery: query, negated: false })
    }
}

/// The parts of a row of at least two.
fn tuple(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(parts) if parts.len() > 1 => Some(parts.clone()),
        Expr::Nested(inner) => tuple(inner),
        _ => None,
    }
}

/// Rows compare part by part from the left, and the first parts that differ decide.
fn compared(left: &[Expr], op: BinaryOperator, right: &[Expr]) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    let pairs = || left.iter().cloned().zip(right.iter().cloned());
    let all = |op: BinaryOperator, join: BinaryOperator| {
        pairs().map(|(left, right)| nested(binary(nested(left), op.clone(), nested(right)))).reduce(|left, right| binary(left, join.clone(), right))
    };
    match op {
        BinaryOperator::Eq => all(BinaryOperator::Eq, BinaryOperator::And),
        BinaryOperator::NotEq => all(BinaryOperator::NotEq, BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
            let strict = match op {
                BinaryOperator::LtEq => BinaryOperator::Lt,
                BinaryOperator::GtEq => BinaryOperator::Gt,
                _ => op.clone(),
            };
            let mut pairs: Vec<(Expr, Expr)> = pairs().collect();
            let (last_left, last_right) = pairs.pop()?;
            let last = binary(nested(last_left), op, nested(last_right));
            let decided = pairs.into_iter().rfold(last, |rest, (left, right)| {
                let first = binary(nested(left.clone()), strict.clone(), nested(right.clone()));
                let equal = binary(nested(left), BinaryOperator::Eq, nested(right));
                binary(first, BinaryOperator::Or, nested(binary(equal, BinaryOperator::And, nested(rest))))
            });
            Some(decided)
        }
        _ => None,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn nested(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { .. } => Expr::Nested(Box::new(expr)),
        other => other,
    }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(expr)) }
}

fn boolean(value: bool) -> Expr {
    Expr::Value(Value::Boolean(value).into())
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn quoted(name: String) -> Ident {
    Ident::with_quote('"', name)
}

fn case(whens: Vec<(Expr, Expr)>, otherwise: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: whens.into_iter().map(|(condition, result)| CaseWhen { condition, result }).collect(),
        else_result: Some(Box::new(otherwise)),
    }
}
