//! AST → AST before planning: what stands around a lookup becomes a shape the relation planner is shown.
//!
//! A join with FEATURES(…) or another join in time, and everything to its left, is folded into one nested join, which keeps names and order;
//! with FEATURES, `*` becomes one wildcard per relation, so that the hidden columns of a lookup stay hidden, and `f.status` and `f.event_time`
//! become those columns. `FETCH FIRST n ROWS ONLY` becomes LIMIT.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinOperator, LimitClause, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, TableVersion, TableWithJoins, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use freshet_core::ServiceDef;

use crate::context::{Catalog, FEATURES_SCHEMA};
use crate::relation::{EVENT_TIME, STATUS, hidden_qualifier};
use crate::training::asked_of;

/// The time of a lookup whose answer is there already; no user can type it unquoted.
const REVEALED: &str = "freshet$revealed";

/// The query with its lookups folded.
pub(crate) fn fold_lookups(mut query: Query, catalog: &Catalog) -> Query {
    let _ = query.visit(&mut Fold { services: &catalog.services, training: catalog.training.is_some() });
    query
}

/// The service of `FEATURES(service) FOR SYSTEM_TIME AS OF …`, which the token pass has made `features.service`.
pub(crate) fn lookup_service(factor: &TableFactor) -> Option<&Ident> {
    match factor {
        TableFactor::Table { name, version: Some(_), .. } => features_name(name),
        _ => None,
    }
}

/// As [`lookup_service`], with or without a time.
pub(crate) fn features_name(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(service)] if schema.value.eq_ignore_ascii_case(FEATURES_SCHEMA) => {
            Some(service)
        }
        _ => None,
    }
}

/// An ASOF JOIN, or a join with a relation as of a time.
pub(crate) fn is_temporal(join: &Join) -> bool {
    match (&join.join_operator, &join.relation) {
        (JoinOperator::AsOf { .. }, _) => true,
        (_, TableFactor::Table { name, version: Some(TableVersion::ForSystemTimeAsOf(_)), .. }) => features_name(name).is_none(),
        _ => false,
    }
}

/// The time asked for, if it is a lookup.
pub(crate) fn lookup_time(factor: &TableFactor) -> Option<&Expr> {
    match factor {
        TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } => lookup_service(factor).map(|_| time),
        _ => None,
    }
}

/// What the lookup's columns are qualified with: its alias, else the service's name.
pub(crate) fn lookup_alias(factor: &TableFactor) -> Option<&Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } => lookup_service(factor).map(|_| &alias.name),
        _ => lookup_service(factor),
    }
}

/// Unquoted names are lower case, as in DataFusion.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

struct Fold<'a> {
    services: &'a BTreeMap<String, ServiceDef>,
    training: bool,
}

impl VisitorMut for Fold<'_> {
    type Break = ();

    /// `FETCH FIRST n ROWS ONLY` is LIMIT n.
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let limited = matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit: Some(_), .. } | LimitClause::OffsetCommaLimit { .. }));
        if let Some(fetch) = query.fetch.take_if(|fetch| !fetch.with_ties && !fetch.percent && !limited) {
            let one = Expr::Value(ValueWithSpan { value: Value::Number("1".into(), false), span: Span::empty() });
            let limit = Some(fetch.quantity.unwrap_or(one));
            let offset = match query.limit_clause.take() {
                Some(LimitClause::LimitOffset { offset, .. }) => offset,
                _ => None,
            };
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let lookups: Vec<(String, String)> = select
            .from
            .iter()
            .flat_map(|from| &from.joins)
            .filter_map(|join| Some((normal(lookup_alias(&join.relation)?), normal(lookup_service(&join.relation)?))))
            .collect();
        if lookups.is_empty() && !select.from.iter().flat_map(|from| &from.joins).any(is_temporal) {
            return ControlFlow::Continue(());
        }
        if !lookups.is_empty() {
            expand_wildcards(select);
        }
        for (alias, service) in &lookups {
            let taken = |name: &str| self.services.get(service).is_some_and(|service| service.schema.index_of(name).is_ok());
            for (name, hidden) in [("status", STATUS), ("event_time", EVENT_TIME)] {
                if !taken(name) {
                    reveal(select, alias, name, hidden);
                }
            }
        }
        for from in &mut select.from {
            if self.training {
                ask_early(from);
            }
            fold_joins(from);
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT *` → `SELECT a.*, b.*, f.*`. Left alone where a relation has no name, or EXCEPT and the like stand behind it.
fn expand_wildcards(select: &mut Select) {
    let factors = select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let Some(names) = factors.map(relation_name).collect::<Option<Vec<ObjectName>>>() else { return };
    let mut items = Vec::with_capacity(select.projection.len());
    for item in std::mem::take(&mut select.projection) {
        match item {
            SelectItem::Wildcard(options) if options.opt_exclude.is_none() && options.opt_except.is_none() && options.opt_replace.is_none() => {
                items.extend(
                    names
                        .iter()
                        .map(|name| SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name.clone()), options.clone())),
                );
            }
            other => items.push(other),
        }
    }
    select.projection = items;
}

fn relation_name(factor: &TableFactor) -> Option<ObjectName> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(ObjectName::from(vec![alias.name.clone()]))
        }
        TableFactor::Table { name, .. } => Some(match lookup_alias(factor) {
            Some(alias) => ObjectName::from(vec![alias.clone()]),
            None => name.clone(),
        }),
        _ => None,
    }
}

/// `alias.name` → the hidden column, which keeps its name in the SELECT list.
fn reveal(select: &mut Select, alias: &str, name: &str, hidden: &str) {
    let is_it =
        |expr: &Expr| matches!(expr, Expr::CompoundIdentifier(parts) if parts.len() == 2 && normal(&parts[0]) == alias && normal(&parts[1]) == name);
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && is_it(expr)
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
        }
    }
    let _ = datafusion::sql::sqlparser::ast::visit_expressions_mut(select, |expr| {
        if is_it(expr)
            && let Expr::CompoundIdentifier(parts) = expr
        {
            let quoted = |value: String, like: &Ident| Ident { value, quote_style: Some('"'), span: like.span };
            *parts = vec![quoted(hidden_qualifier(alias), &parts[0]), quoted(hidden.to_string(), &parts[1])];
        }
        ControlFlow::<()>::Continue(())
    });
}

/// A training set asks as of the arrival of one relation of the left side: the lookup moves directly above that, where its rows have their
/// own epochs, and the features wait for the place where the text has them.
///
/// `s JOIN a LEFT JOIN FEATURES(x) AS OF arrival(s) AS f` → `(s LEFT JOIN FEATURES(x) AS OF arrival(s) AS f) JOIN a LEFT JOIN FEATURES(x) AS OF
/// "freshet$revealed" AS f`
fn ask_early(from: &mut TableWithJoins) {
    let named = |factor: &TableFactor| relation_name(factor).and_then(|name| name.0.last().and_then(|part| part.as_ident()).map(normal));
    let names: Vec<Option<String>> = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)).map(named).collect();
    for index in 0..from.joins.len() {
        let Some(asked) = lookup_time(&from.joins[index].relation).and_then(asked_of) else { continue };
        let relation = normal(asked.relation);
        let Some(place) = names[..=index].iter().position(|name| name.as_ref() == Some(&relation)) else { continue };
        let lookup = from.joins[index].clone();
        if let TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } = &mut from.joins[index].relation {
            *time = Expr::Identifier(Ident::with_quote('"', REVEALED));
        }
        let factor = if place == 0 { &mut from.relation } else { &mut from.joins[place - 1].relation };
        let below = TableWithJoins { relation: factor.clone(), joins: vec![lookup] };
        *factor = TableFactor::NestedJoin { table_with_joins: Box::new(below), alias: None };
    }
}

/// True for the place where features that were looked up early get their names.
pub(crate) fn is_revealed(time: &Expr) -> bool {
    matches!(time, Expr::Identifier(ident) if ident.value == REVEALED)
}

/// `a JOIN b … LEFT JOIN FEATURES(s) … JOIN c` → `(a JOIN b … LEFT JOIN FEATURES(s) …) JOIN c`, from the left.
fn fold_joins(from: &mut TableWithJoins) {
    let mut folded = TableWithJoins { relation: from.relation.clone(), joins: Vec::new() };
    for join in std::mem::take(&mut from.joins) {
        let is_folded = lookup_service(&join.relation).is_some() || is_temporal(&join);
        folded.joins.push(join);
        if is_folded {
            let relation = TableFactor::NestedJoin { table_with_joins: Box::new(folded), alias: None };
            folded = TableWithJoins { relation, joins: Vec::new() };
        }
    }
    *from = folded;
}
