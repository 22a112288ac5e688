//! What can be refused from the text alone, where every part knows its place. In: a view's query. Out: the first thing that cannot be
//! kept up to date, with its line, column and remedy.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, JoinConstraint, JoinOperator, Query, Select, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, TableVersion,
    TableWithJoins, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use freshet_core::{ServiceDef, TrainingMode};

use crate::context::Catalog;
use crate::error::nearest;
use crate::first_with_ties::ranked;
use crate::fold::{features_name, lookup_alias, lookup_service, lookup_time, normal};
use crate::refusal::{Refusal, Result};
use crate::training::asked_of;

/// Refuses what no maintained query can have.
pub(crate) fn check_maintained(query: &Query, catalog: &Catalog) -> Result<()> {
    if catalog.training.is_some() {
        refuse_now_in_training(query)?;
    }
    match query.visit(&mut Check { services: &catalog.services, training: catalog.training, answered: Vec::new() }) {
        ControlFlow::Break(refusal) => Err(*refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Where the query mentions now() for the first time.
pub(crate) fn first_now(query: &Query) -> Option<Location> {
    find_function(query, is_now_name)
}

/// Where a function stands that a message without a place is about.
pub(crate) fn function_named_in(query: &Query, message: &str) -> Option<Location> {
    let message = message.to_lowercase();
    let words: Vec<&str> = message.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    find_function(query, |function| words.contains(&function_name(function).as_str()))
}

/// Where a recursion or a column stands that a message without a place is about.
pub(crate) fn place_named_in(query: &Query, message: &str) -> Option<Location> {
    let mut named = Named { message, place: None };
    let _ = query.visit(&mut named);
    named.place.filter(|place| place.line > 0)
}

struct Named<'a> {
    message: &'a str,
    place: Option<Location>,
}

impl Visitor for Named<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().filter(|with| with.recursive).flat_map(|with| &with.cte_tables) {
            let name = normal(&cte.alias.name);
            if self.message.contains("recursive part") && self.message.split(' ').any(|word| word == name) {
                self.place = Some(cte.alias.name.span.start);
            }
        }
        ControlFlow::Continue(())
    }

    /// The last one: what knows no place is an ORDER BY, which stands at the end.
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let parts = match expr {
            Expr::Identifier(name) => std::slice::from_ref(name),
            Expr::CompoundIdentifier(parts) => parts.as_slice(),
            _ => return ControlFlow::Continue(()),
        };
        let name = parts.iter().map(normal).collect::<Vec<_>>().join(".");
        if self.message == format!("column '{name}' not found") {
            self.place = parts.first().map(|part| part.span.start);
        }
        ControlFlow::Continue(())
    }
}

fn is_now_name(function: &Function) -> bool {
    ["now", "current_timestamp", "localtimestamp"].contains(&function_name(function).as_str())
}

fn find_function(query: &Query, wanted: impl Fn(&Function) -> bool) -> Option<Location> {
    let found = datafusion::sql::sqlparser::ast::visit_expressions(query, |expr| match expr {
        Expr::Function(function) if wanted(function) => ControlFlow::Break(function.name.span().start),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(place) if place.line > 0 => Some(place),
        _ => None,
    }
}

pub(crate) fn function_name(function: &Function) -> String {
    function.name.to_string().to_lowercase()
}

/// True for `now()` and its other spellings.
pub(crate) fn is_now_call(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => is_now_name(function),
        Expr::Nested(inner) => is_now_call(inner),
        _ => false,
    }
}

struct Check<'a> {
    services: &'a BTreeMap<String, ServiceDef>,
    /// The query is a training set's.
    training: Option<TrainingMode>,
    /// Where arrival() says what a lookup is as of.
    answered: Vec<Span>,
}

fn stop(refusal: Refusal) -> ControlFlow<Box<Refusal>> {
    ControlFlow::Break(Box::new(refusal))
}

impl Visitor for Check<'_> {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Refusal>> {
        if let Some(fetch) = query.fetch.as_ref().filter(|fetch| fetch.percent) {
            return stop(Refusal::new("FETCH takes a number of rows in a view, not a PERCENT").help("FETCH FIRST 10 ROWS ONLY").at(fetch.span()));
        }
        if let (Some(fetch), Some(Err(reason))) = (&query.fetch, ranked(query)) {
            return stop(Refusal::new(reason).help("… QUALIFY rank() OVER (ORDER BY …) <= n").at(fetch.span()));
        }
        check_body(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Box<Refusal>> {
        for from in &select.from {
            self.check_first(&from.relation)?;
            for (index, join) in from.joins.iter().enumerate() {
                self.check_join(&join.relation, &join.join_operator)?;
                if self.training.is_some()
                    && let Some(time) = lookup_time(&join.relation)
                {
                    check_asked(time, from, index)?;
                    self.answered.push(function_place(time));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Box<Refusal>> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        match function_name(function).as_str() {
            name @ ("current_date" | "today" | "current_time") => stop(
                Refusal::new(format!("{name} changes without input, so that no view can hold it"))
                    .help("compare a timestamp column with now(): ts > now() - INTERVAL '1 day'")
                    .at(function.name.span()),
            ),
            "arrival" if !self.answered.contains(&function.name.span()) => stop(
                Refusal::new("arrival() says what a training set's lookup is as of, and stands nowhere else")
                    .help("CREATE TRAINING SET … LEFT JOIN FEATURES(service) FOR SYSTEM_TIME AS OF arrival(relation) AS f USING (…)")
                    .at(function.name.span()),
            ),
            name @ ("random" | "uuid") => stop(
                Refusal::new(format!("{name}() gives another answer each time, so that no view can be made of it"))
                    .help("derive it from a column: md5(id), for example")
                    .at(function.name.span()),
            ),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_body(body: &SetExpr) -> ControlFlow<Box<Refusal>> {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            check_body(left)?;
            check_body(right)?;
            match (op, set_quantifier) {
                (SetOperator::Union, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName) => {
                    stop(Refusal::new("UNION BY NAME is not supported yet").help("name the columns in one order in both branches").at(right.span()))
                }
                (SetOperator::Union, _) => ControlFlow::Continue(()),
                (op, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName) => stop(
                    Refusal::new(format!("{op} BY NAME is not supported")).help("name the columns in one order in both branches").at(right.span()),
                ),
                _ => ControlFlow::Continue(()),
            }
        }
        _ => ControlFlow::Continue(()),
    }
}

impl Check<'_> {
    fn check_first(&self, factor: &TableFactor) -> ControlFlow<Box<Refusal>> {
        if let TableFactor::Table { name, .. } = factor
            && let Some(service) = features_name(name)
        {
            return stop(
                Refusal::new(format!("FEATURES({service}) answers rows of a left side, and there is none here"))
                    .help(format!("FROM requests r LEFT JOIN FEATURES({service}) FOR SYSTEM_TIME AS OF now() AS f USING (…)"))
                    .at(service.span),
            );
        }
        check_version(factor)
    }

    fn check_join(&self, factor: &TableFactor, operator: &JoinOperator) -> ControlFlow<Box<Refusal>> {
        let constraint = match operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::CrossJoin(constraint) => constraint,
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => constraint,
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) | JoinOperator::FullOuter(constraint) => constraint,
            JoinOperator::Semi(constraint) | JoinOperator::LeftSemi(constraint) | JoinOperator::RightSemi(constraint) => constraint,
            JoinOperator::Anti(constraint) | JoinOperator::LeftAnti(constraint) | JoinOperator::RightAnti(constraint) => constraint,
            JoinOperator::AsOf { .. } => return check_version(factor),
            _ => return stop(Refusal::new("this kind of join is not supported").help("use JOIN … ON left.key = right.key").at(factor.span())),
        };
        let is_left = matches!(operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_));
        if is_versioned(factor) {
            return ControlFlow::Continue(());
        }
        let TableFactor::Table { name, .. } = factor else { return ControlFlow::Continue(()) };
        match features_name(name) {
            Some(service) => self.check_lookup(factor, service, is_left, constraint),
            None => check_version(factor),
        }
    }

    fn check_lookup(&self, factor: &TableFactor, service: &Ident, is_left: bool, constraint: &JoinConstraint) -> ControlFlow<Box<Refusal>> {
        let name = normal(service);
        if !self.services.contains_key(&name) {
            let refusal = Refusal::new(format!("there is no feature service named {name}")).at(service.span);
            return stop(match nearest(&name, self.services.keys().map(String::as_str)) {
                Some(known) => refusal.help(format!("did you mean {known}?")),
                None => refusal,
            });
        }
        let Some(time) = lookup_time(factor) else {
            return stop(
                Refusal::new(format!("FEATURES({name}) needs the time to answer at"))
                    .help(format!("LEFT JOIN FEATURES({name}) FOR SYSTEM_TIME AS OF now() AS f USING (…)"))
                    .at(service.span),
            );
        };
        check_time(time, self.training)?;
        if !is_left {
            return stop(
                Refusal::new(format!("FEATURES({name}) answers every left row, with NULLs where nothing is known, so it stands in a LEFT JOIN"))
                    .help(format!("LEFT JOIN FEATURES({name}) …"))
                    .at(service.span),
            );
        }
        match constraint {
            JoinConstraint::On(_) | JoinConstraint::Using(_) => ControlFlow::Continue(()),
            JoinConstraint::Natural | JoinConstraint::None => {
                stop(Refusal::new(format!("FEATURES({name}) needs USING or ON that binds its keys and request columns")).at(service.span))
            }
        }
    }
}

/// T5: what a lookup may be as of.
fn check_time(time: &Expr, training: Option<TrainingMode>) -> ControlFlow<Box<Refusal>> {
    let asked = asked_of(time);
    let refuse = |message: &str, help: &str| stop(Refusal::new(message).help(help).at(time.span()));
    match (training, asked) {
        (None, _) if is_now_call(time) => ControlFlow::Continue(()),
        (None, _) => refuse(
            "a view looks features up AS OF now() only; arrival(relation) and other times are for CREATE TRAINING SET",
            "FOR SYSTEM_TIME AS OF now()",
        ),
        (Some(_), _) if is_now_call(time) => refuse(
            "a training set has no now(): it asks what would have been answered when a row came",
            "FOR SYSTEM_TIME AS OF arrival(relation), where the relation is the one with the keys",
        ),
        (Some(_), Some(_)) => ControlFlow::Continue(()),
        (Some(TrainingMode::AsServed), None) => refuse(
            "as_served answers as of the row's arrival, or of a time that the row names",
            "FOR SYSTEM_TIME AS OF arrival(relation), or relation.column where a prediction was logged with its time",
        ),
        (Some(TrainingMode::EventTime), None) => {
            refuse("event_time answers at a time of the left side", "FOR SYSTEM_TIME AS OF relation.column, or arrival(relation)")
        }
    }
}

/// The lookup's relation stands to its left, and is not another lookup; its keys come from there too.
fn check_asked(time: &Expr, from: &TableWithJoins, index: usize) -> ControlFlow<Box<Refusal>> {
    let Some(asked) = asked_of(time) else { return ControlFlow::Continue(()) };
    let wanted = normal(asked.relation);
    let left = || std::iter::once(&from.relation).chain(from.joins[..index].iter().map(|join| &join.relation));
    let named: Vec<(String, bool)> = left().filter_map(|factor| Some((normal(relation_ident(factor)?), lookup_service(factor).is_some()))).collect();
    let refusal = match named.iter().find(|(name, _)| *name == wanted) {
        None => {
            let refusal = Refusal::new(format!("there is no relation {wanted} to the left of this lookup")).at(asked.relation.span);
            match nearest(&wanted, named.iter().map(|(name, _)| name.as_str())) {
                Some(known) => refusal.help(format!("did you mean {known}?")),
                None => refusal.help("name the table, or its alias, whose rows ask"),
            }
        }
        Some((_, true)) => Refusal::new(format!("{wanted} is a lookup, and rows of a lookup do not arrive"))
            .help("name the relation whose rows ask")
            .at(asked.relation.span),
        Some((_, false)) => return check_keys(from, index, &wanted),
    };
    stop(refusal)
}

/// A lookup depends on one relation alone, so that it can be answered when that relation's rows arrive.
fn check_keys(from: &TableWithJoins, index: usize, wanted: &str) -> ControlFlow<Box<Refusal>> {
    let join = &from.joins[index];
    let (JoinOperator::Left(JoinConstraint::On(condition)) | JoinOperator::LeftOuter(JoinConstraint::On(condition))) = &join.join_operator else {
        return ControlFlow::Continue(());
    };
    let own = lookup_alias(&join.relation).map(normal);
    let found = datafusion::sql::sqlparser::ast::visit_expressions(condition, |expr| match expr {
        Expr::CompoundIdentifier(parts) if parts.len() > 1 && normal(&parts[0]) != wanted && Some(normal(&parts[0])) != own => {
            ControlFlow::Break(Box::new(parts.clone()))
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(parts) => stop(
            Refusal::new(format!("the lookup is as of {wanted}, so its keys and REQUEST columns come from {wanted}, not from {}", parts[0]))
                .help(format!("bind a column of {wanted}; or join first, in a view below, and ask as of that view's rows"))
                .at(parts[0].span),
        ),
        ControlFlow::Continue(()) => ControlFlow::Continue(()),
    }
}

fn relation_ident(factor: &TableFactor) -> Option<&Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => Some(&alias.name),
        TableFactor::Table { name, .. } => lookup_alias(factor).or_else(|| name.0.last().and_then(|part| part.as_ident())),
        _ => None,
    }
}

fn function_place(time: &Expr) -> Span {
    match time {
        Expr::Function(function) => function.name.span(),
        Expr::Nested(inner) => function_place(inner),
        _ => Span::empty(),
    }
}

/// now() anywhere but after AS OF, where it has a refusal of its own.
fn refuse_now_in_training(query: &Query) -> Result<()> {
    let mut asked = AskedTimes(Vec::new());
    let _ = query.visit(&mut asked);
    match find_function(query, |function| is_now_name(function) && !asked.0.contains(&function.name.span())) {
        Some(place) => Err(Refusal {
            place: Some(place),
            ..Refusal::new("a training set has no now(): its rows are facts of the past")
                .help("leave the condition out; a job and an export ask for a range of TIME")
        }),
        None => Ok(()),
    }
}

/// The places of now() after AS OF.
struct AskedTimes(Vec<Span>);

impl Visitor for AskedTimes {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.0.extend(lookup_time(factor).map(function_place));
        ControlFlow::Continue(())
    }
}

/// A relation joined as of a time; a lookup of features has checks of its own.
fn is_versioned(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(_)), name, .. } if features_name(name).is_none())
}

/// DataFusion ignores FOR SYSTEM_TIME on a table silently.
fn check_version(factor: &TableFactor) -> ControlFlow<Box<Refusal>> {
    match factor {
        TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), name, .. } => stop(
            Refusal::new(format!("FOR SYSTEM_TIME AS OF is for the right side of a JOIN; {name} is read as it is"))
                .help(format!("leave it out, or join: FROM events e LEFT JOIN {name} FOR SYSTEM_TIME AS OF now() ON …"))
                .at(time.span()),
        ),
        TableFactor::Table { version: Some(_), name, .. } => {
            stop(Refusal::new(format!("{name} is read as it is; versions of a table are not supported")).at(name.span()))
        }
        _ => ControlFlow::Continue(()),
    }
}
