//! What sqlparser reads and DataFusion's planner then passes over without a word. In: a query. Out: the same with the forms that have another
//! spelling in it (GROUP BY … WITH ROLLUP, SIMILAR TO a constant), or a refusal at the others.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, GroupByExpr, GroupByWithModifier, Query, Select, Spanned, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::check::function_name;
use crate::context::Functions;
use crate::refusal::{Refusal, Result};

/// Errors: a clause that would be ignored, and so answer something else than was asked.
pub(crate) fn spell_unread(query: &mut Query) -> Result<()> {
    match VisitMut::visit(query, &mut Unread) {
        ControlFlow::Break(refusal) => Err(*refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Unread;

type Flow = ControlFlow<Box<Refusal>>;

fn stop(message: &str, help: &str, place: Span) -> Flow {
    ControlFlow::Break(Box::new(Refusal::new(message).help(help).at(place)))
}

impl VisitorMut for Unread {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if !query.locks.is_empty() {
            return stop("FOR UPDATE and FOR SHARE lock rows, and no row is locked here", "leave it out", query.span());
        }
        if query.for_clause.is_some() {
            return stop("FOR XML, JSON and BROWSE are not supported", "leave it out; clients read Arrow", query.span());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        let place = select.span();
        let clauses = [
            (!select.connect_by.is_empty(), "CONNECT BY", "WITH RECURSIVE t AS (… UNION ALL …) SELECT … FROM t"),
            (select.top.is_some(), "TOP", "ORDER BY … LIMIT n"),
            (!select.sort_by.is_empty(), "SORT BY", "ORDER BY … LIMIT n"),
            (!select.cluster_by.is_empty(), "CLUSTER BY", "leave it out: rows are distributed by what a query needs"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY", "leave it out: rows are distributed by what a query needs"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW", "CROSS JOIN UNNEST(list) AS t(x)"),
            (select.prewhere.is_some(), "PREWHERE", "WHERE"),
            (select.into.is_some(), "SELECT … INTO", "INSERT INTO t SELECT …"),
        ];
        if let Some((_, clause, help)) = clauses.into_iter().find(|(found, ..)| *found) {
            return stop(&format!("{clause} is not supported"), help, place);
        }
        let (keys, modifiers) = match &mut select.group_by {
            GroupByExpr::Expressions(keys, modifiers) => (keys, modifiers),
            GroupByExpr::All(modifiers) if modifiers.is_empty() => return ControlFlow::Continue(()),
            GroupByExpr::All(_) => return stop("GROUP BY ALL takes no WITH", "name the columns: GROUP BY ROLLUP (a, b)", place),
        };
        let sets = |keys: &mut Vec<Expr>| std::mem::take(keys).into_iter().map(|key| vec![key]).collect();
        match modifiers.as_slice() {
            [] => {}
            [GroupByWithModifier::Rollup] => *keys = vec![Expr::Rollup(sets(keys))],
            [GroupByWithModifier::Cube] => *keys = vec![Expr::Cube(sets(keys))],
            _ => {
                let place = keys.first().map_or(place, Spanned::span);
                return stop("GROUP BY … WITH takes ROLLUP or CUBE", "the grand total too: GROUP BY GROUPING SETS ((a, b), ())", place);
            }
        }
        modifiers.clear();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        let (TableFactor::Table { sample, .. } | TableFactor::Derived { sample, .. }) = &*factor else { return ControlFlow::Continue(()) };
        if sample.is_some() {
            return stop("TABLESAMPLE would take other rows each time", "choose rows by a column: WHERE abs(id % 100) < 10", factor.span());
        }
        let TableFactor::Table { name, with_hints, partitions, index_hints, .. } = &*factor else { return ControlFlow::Continue(()) };
        if !with_hints.is_empty() || !index_hints.is_empty() {
            return stop("hints are not supported", "leave them out", name.span());
        }
        if !partitions.is_empty() {
            return stop("PARTITION (…) of a table is not supported", "WHERE says which rows are wanted", name.span());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expr {
            Expr::Function(function) => of_aggregates(function),
            Expr::SimilarTo { .. } => similar(expr),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// DISTINCT, ORDER BY and FILTER in the call of a function of single rows.
fn of_aggregates(function: &Function) -> Flow {
    let (name, functions) = (function_name(function), Functions::get());
    if !functions.has(&name) || functions.aggregate.contains_key(&name) || functions.window.contains_key(&name) {
        return ControlFlow::Continue(());
    }
    let in_list = match &function.args {
        FunctionArguments::List(list) => list.duplicate_treatment.is_some() || !list.clauses.is_empty(),
        _ => false,
    };
    if in_list || function.filter.is_some() || !function.within_group.is_empty() {
        let message = format!("{name}() is of each row alone: it takes no DISTINCT, ORDER BY or FILTER, which are for aggregates");
        return stop(&message, "filter the rows by WHERE, or a value by CASE WHEN … THEN … END", function.name.span());
    }
    ControlFlow::Continue(())
}

/// SIMILAR TO is true of a whole text, a regular expression of a part of it.
fn similar(expr: &mut Expr) -> Flow {
    let Expr::SimilarTo { negated, expr: text, pattern, escape_char } = &*expr else { return ControlFlow::Continue(()) };
    let place = pattern.span();
    let place = if place == Span::empty() { text.span() } else { place };
    let Expr::Value(value) = pattern.as_ref() else {
        return stop("the pattern of SIMILAR TO is a constant text", "text ~ pattern takes a regular expression that is computed", place);
    };
    let Some(pattern_text) = value.value.clone().into_string() else { return ControlFlow::Continue(()) };
    let escape = match escape_char.as_ref().map(|escape| escape.value.clone().into_string().unwrap_or_default()) {
        None => Some('\\'),
        Some(escape) => escape.chars().next(),
    };
    let Some(regex) = regex_of(&pattern_text, escape) else {
        return stop("the pattern of SIMILAR TO ends in its escape character", "double it", place);
    };
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let mut value = value.clone();
    value.value = Value::SingleQuotedString(regex);
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: text.clone(), op, right: Box::new(Expr::Value(value)) }));
    ControlFlow::Continue(())
}

/// `%` is any text and `_` any letter; what only regular expressions know stands for itself.
fn regex_of(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut regex = String::from("^(?s:");
    let mut letters = pattern.chars();
    let mut in_brackets = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => {
                regex.push_str(&regex::escape(&letters.next()?.to_string()));
            }
            '\\' => regex.push_str("\\\\"),
            ']' => {
                in_brackets = false;
                regex.push(']');
            }
            letter if in_brackets => regex.push(letter),
            '[' => {
                in_brackets = true;
                regex.push('[');
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '.' | '^' | '$' => {
                regex.push('\\');
                regex.push(letter);
            }
            other => regex.push(other),
        }
    }
    regex.push_str(")$");
    Some(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_patterns_are_regular_expressions_of_the_whole_text() {
        assert_eq!(regex_of("(a|b)%_", Some('\\')).unwrap(), "^(?s:(a|b).*.)$");
        assert_eq!(regex_of("a.b\\%[^0-9]", Some('\\')).unwrap(), "^(?s:a\\.b%[^0-9])$");
        assert_eq!(regex_of("a!_", Some('!')).unwrap(), "^(?s:a_)$");
        assert_eq!(regex_of("a\\", Some('\\')), None);
    }
}
