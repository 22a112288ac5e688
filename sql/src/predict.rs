//! PREDICT and MODEL_VERSION in the text. In: a query as written. Out: the same with each call as a function of the model's inputs in their
//! order, or a refusal at the argument that is wrong.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator,
    ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Value, Visit, VisitMut, VisitorMut,
    WildcardAdditionalOptions, With, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use freshet_core::{ModelDef, PredictOutput, PredictRoute};

use crate::ast::normal_name;
use crate::bind::plan_query;
use crate::check::function_name;
use crate::context::{Catalog, Functions};
use crate::error::nearest;
use crate::prediction::function_of;
use crate::refusal::{Refusal, Result};

/// Where the first PREDICT or MODEL_VERSION stands, if there is one.
pub(crate) fn first_prediction(node: &impl Visit) -> Option<(String, Span)> {
    let found = visit_expressions(node, |expr| match expr {
        Expr::Function(function) if is_prediction(function) => ControlFlow::Break((function_name(function).to_uppercase(), function.name.span())),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(found) => Some(found),
        ControlFlow::Continue(()) => None,
    }
}

/// Refuses any prediction in a query that cannot have one.
pub(crate) fn refuse_predictions(query: &Query, why: &str) -> Result<()> {
    match first_prediction(query) {
        Some((name, span)) => Err(Refusal::new(format!("{name} {why}"))
            .help("put it into a view and read that: CREATE MATERIALIZED VIEW scored AS SELECT …, PREDICT(model, …) AS score FROM …")
            .at(span)),
        None => Ok(()),
    }
}

/// Every call bound to its model. The query must hold at least one.
pub(crate) fn bind_predictions(query: &mut Query, catalog: &Catalog) -> Result<()> {
    match VisitMut::visit(query, &mut Binder { catalog, scopes: Vec::new() }) {
        ControlFlow::Break(refusal) => Err(*refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn is_prediction(function: &Function) -> bool {
    matches!(function_name(function).as_str(), "predict" | "model_version")
}

struct Binder<'a> {
    catalog: &'a Catalog,
    /// The WITH of every query around the present place.
    scopes: Vec<Option<With>>,
}

impl VisitorMut for Binder<'_> {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Refusal>> {
        self.scopes.push(query.with.clone());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Refusal>> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Refusal>> {
        match self.select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(Box::new(refusal)),
        }
    }
}

impl Binder<'_> {
    /// Subqueries have been bound before, so that every call that is left belongs to this SELECT.
    fn select(&self, select: &mut Select) -> Result<()> {
        if first_prediction(select).is_none() {
            return Ok(());
        }
        refuse_misplaced(select)?;
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Expr::Function(function) = &*expr
                && is_prediction(function)
            {
                *item = SelectItem::ExprWithAlias { alias: Ident::new(self.usual_name(function)?), expr: expr.clone() };
            }
        }
        let scope = select.clone();
        let bound = visit_expressions_mut(select, |expr| {
            if let Expr::Function(function) = expr
                && is_prediction(function)
                && let Err(refusal) = self.call(function, &scope)
            {
                return ControlFlow::Break(refusal);
            }
            ControlFlow::Continue(())
        });
        match bound {
            ControlFlow::Break(refusal) => Err(refusal),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// The column of a call without an alias: the model's only output, else the model.
    fn usual_name(&self, function: &Function) -> Result<String> {
        if function_name(function) == "model_version" {
            return Ok("model_version".into());
        }
        let (_, model) = self.model(function)?;
        Ok(if let [output] = model.outputs.as_slice() { output.name().clone() } else { model.name.clone() })
    }

    fn model(&self, function: &Function) -> Result<(usize, &ModelDef)> {
        let name = function_name(function).to_uppercase();
        let wrong = |span: Span| Refusal::new(format!("{name} takes a model first")).help(format!("{name}(model, …), without quotes")).at(span);
        let place = function.name.span();
        let Some(first) = arguments(function).and_then(|list| list.args.first()) else { return Err(wrong(place)) };
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident))) = first else {
            return Err(wrong(if first.span() == Span::empty() { place } else { first.span() }));
        };
        let wanted = normal_name(ident);
        self.catalog.model(&wanted).ok_or_else(|| {
            let refusal = Refusal::new(format!("there is no model named {wanted}")).at(ident.span);
            match nearest(&wanted, self.catalog.models().iter().map(|model| model.name.as_str())) {
                Some(known) => refusal.help(format!("did you mean {known}?")),
                None => refusal.help(format!("CREATE MODEL {wanted} INPUT … OUTPUT …")),
            }
        })
    }

    fn call(&self, function: &mut Function, scope: &Select) -> Result<()> {
        let name = function_name(function).to_uppercase();
        let place = function.name.span();
        let plain = function.over.is_none()
            && function.filter.is_none()
            && function.null_treatment.is_none()
            && function.within_group.is_empty()
            && matches!(function.parameters, FunctionArguments::None)
            && arguments(function).is_none_or(|list| list.duplicate_treatment.is_none() && list.clauses.is_empty());
        if !plain {
            return Err(Refusal::new(format!("{name} takes arguments only: no DISTINCT, FILTER, ORDER BY or OVER"))
                .help(format!("{name}(model, …)"))
                .at(place));
        }
        let (index, model) = self.model(function)?;
        let list = arguments(function).expect("the model stands in it");
        let mut route = None;
        let mut given = Vec::new();
        for argument in &list.args[1..] {
            match route_of(argument)? {
                Some(_) if route.is_some() => {
                    return Err(Refusal::new("version and alias exclude each other").help("leave one of them out").at(argument.span()));
                }
                Some(found) => route = Some(found),
                None => self.add(&mut given, argument, scope, place)?,
            }
        }
        let route = route.unwrap_or(PredictRoute::Live);
        let (output, values) = match name.as_str() {
            "PREDICT" => (PredictOutput::Score, bound(model, given, place)?),
            _ => match given.first() {
                Some(extra) => {
                    return Err(Refusal::new("MODEL_VERSION takes a model and no inputs")
                        .help(format!("MODEL_VERSION({}), and version => n or alias => 'challenger'", model.name))
                        .at(extra.span));
                }
                None => (PredictOutput::Version, Vec::new()),
            },
        };
        function.name = ObjectName::from(vec![Ident { value: function_of(index, route, output), quote_style: Some('"'), span: place }]);
        let args = values.into_iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))).collect();
        function.args = FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() });
        Ok(())
    }

    fn add(&self, given: &mut Vec<Given>, argument: &FunctionArg, scope: &Select, place: Span) -> Result<()> {
        let span = if argument.span() == Span::empty() { place } else { argument.span() };
        let (explicit, value) = match argument {
            FunctionArg::Named { name, arg, .. } => (Some(normal_name(name)), arg),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => (Some(normal_name(name)), arg),
            FunctionArg::ExprNamed { .. } => return Err(Refusal::new("an argument's name is one word").help("input => expression").at(span)),
            FunctionArg::Unnamed(value) => (None, value),
        };
        let star = match value {
            FunctionArgExpr::Expr(expr) => {
                let named_by = if explicit.is_some() { NamedBy::Text } else { NamedBy::Column };
                let name = explicit.or_else(|| column_name(expr));
                given.push(Given { name, named_by, expr: expr.clone(), span });
                return Ok(());
            }
            FunctionArgExpr::QualifiedWildcard(of) => {
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of.clone()), WildcardAdditionalOptions::default())
            }
            FunctionArgExpr::Wildcard => SelectItem::Wildcard(WildcardAdditionalOptions::default()),
            _ => return Err(Refusal::new("* stands here without EXCEPT or EXCLUDE").help("name the columns one by one").at(span)),
        };
        if explicit.is_some() {
            return Err(Refusal::new("* has no name of its own").help("leave the name out: its columns have theirs").at(span));
        }
        let columns = self.columns_of(star, scope).map_err(|refusal| refusal.at(span))?;
        given.extend(columns.into_iter().map(|(name, parts)| {
            let idents = parts.into_iter().map(|value| Ident { value, quote_style: Some('"'), span }).collect();
            Given { name: Some(name), named_by: NamedBy::Star, expr: Expr::CompoundIdentifier(idents), span }
        }));
        Ok(())
    }

    /// What `*` or `alias.*` shows beside the FROM of this SELECT: names, and where to find them.
    fn columns_of(&self, star: SelectItem, scope: &Select) -> Result<Vec<(String, Vec<String>)>> {
        let select = Select {
            projection: vec![star],
            distinct: None,
            selection: None,
            group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
            having: None,
            ..scope.clone()
        };
        let withs: Vec<&With> = self.scopes.iter().flatten().collect();
        let with = withs.last().map(|last| With {
            recursive: withs.iter().any(|with| with.recursive),
            cte_tables: withs.iter().flat_map(|with| with.cte_tables.iter().cloned()).collect(),
            ..(*last).clone()
        });
        let query = Query {
            with,
            body: Box::new(SetExpr::Select(Box::new(select))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        };
        let plan = plan_query(&query, self.catalog)?;
        let columns = plan.schema().iter().map(|(qualifier, field)| {
            let qualifier = qualifier.map(|qualifier| qualifier.table().to_string());
            (field.name().clone(), qualifier.into_iter().chain([field.name().clone()]).collect())
        });
        Ok(columns.collect())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum NamedBy {
    /// `input => expression`
    Text,
    /// A plain column, by its own name; or nothing.
    Column,
    /// `f.*`: columns that are no inputs are left out.
    Star,
}

struct Given {
    name: Option<String>,
    named_by: NamedBy,
    expr: Expr,
    span: Span,
}

fn arguments(function: &Function) -> Option<&FunctionArgumentList> {
    match &function.args {
        FunctionArguments::List(list) => Some(list),
        FunctionArguments::None | FunctionArguments::Subquery(_) => None,
    }
}

fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(normal_name(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(normal_name),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// `version => n`, `alias => 'champion' | 'challenger'`.
fn route_of(argument: &FunctionArg) -> Result<Option<PredictRoute>> {
    let FunctionArg::Named { name, arg, .. } = argument else { return Ok(None) };
    let value = match arg {
        FunctionArgExpr::Expr(Expr::Value(value)) => Some(&value.value),
        _ => None,
    };
    let refuse = |message: &str, help: &str| Err(Refusal::new(message).help(help).at(argument.span()));
    match normal_name(name).as_str() {
        "version" => match value {
            Some(Value::Number(text, _)) if text.to_string().parse::<u32>().is_ok_and(|number| number > 0) => {
                Ok(Some(PredictRoute::Version(text.to_string().parse().expect("it was parsed a line above"))))
            }
            _ => refuse("version is a number that counts from 1", "version => 1"),
        },
        "alias" => match value {
            Some(Value::SingleQuotedString(text)) if text == "champion" => Ok(Some(PredictRoute::Live)),
            Some(Value::SingleQuotedString(text)) if text == "challenger" => Ok(Some(PredictRoute::Challenger)),
            _ => refuse("alias is 'champion' or 'challenger'", "alias => 'challenger'; a fixed version is version => n"),
        },
        _ => Ok(None),
    }
}

/// The arguments in the order of the model's inputs. By position only if no argument is named, by the text or after an input.
fn bound(model: &ModelDef, given: Vec<Given>, place: Span) -> Result<Vec<Expr>> {
    let input_of = |name: &str| model.inputs.iter().position(|input| input.name() == name);
    let named = given.is_empty()
        || given.iter().any(|argument| argument.named_by != NamedBy::Column || argument.name.as_deref().and_then(input_of).is_some());
    if !named {
        if given.len() != model.inputs.len() {
            return Err(Refusal::new(format!("{} takes {} inputs, and {} are given", model.name, model.inputs.len(), given.len()))
                .help(format!("in this order: {}", inputs(model)))
                .at(place));
        }
        return Ok(given.into_iter().map(|argument| argument.expr).collect());
    }
    let mut found: Vec<Option<Expr>> = vec![None; model.inputs.len()];
    for argument in given {
        let Some(name) = argument.name else {
            return Err(Refusal::new("this argument has no name, and others have one").help("name it: input => expression").at(argument.span));
        };
        let Some(index) = input_of(&name) else {
            if argument.named_by == NamedBy::Star {
                continue;
            }
            let refusal = Refusal::new(format!("{} has no input {name}", model.name)).at(argument.span);
            return Err(match nearest(&name, model.inputs.iter().map(|input| input.name().as_str())) {
                Some(known) => refusal.help(format!("did you mean {known}? its inputs are {}", inputs(model))),
                None => refusal.help(format!("its inputs are {}", inputs(model))),
            });
        };
        if found[index].replace(argument.expr).is_some() {
            return Err(Refusal::new(format!("the input {name} is given twice")).help("leave one of them out").at(argument.span));
        }
    }
    let missing: Vec<&str> = model.inputs.iter().zip(&found).filter(|(_, value)| value.is_none()).map(|(input, _)| input.name().as_str()).collect();
    if let Some(first) = missing.first() {
        return Err(Refusal::new(format!("{} needs a value for {}", model.name, missing.join(", ")))
            .help(format!("add a column of that name, or {first} => expression"))
            .at(place));
    }
    Ok(found.into_iter().flatten().collect())
}

fn inputs(model: &ModelDef) -> String {
    model.inputs.iter().map(|input| input.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// A score is a column of a row: it cannot decide which rows meet, or be made while they are grouped.
fn refuse_misplaced(select: &Select) -> Result<()> {
    let below = "put it into a view below and use its column here: CREATE VIEW scored AS SELECT …, PREDICT(model, …) AS score FROM …";
    let refuse = |found: Option<(String, Span)>, place: &str| match found {
        Some((name, span)) => Err(Refusal::new(format!("{name} cannot stand in {place}")).help(below).at(span)),
        None => Ok(()),
    };
    refuse(first_prediction(&select.group_by), "GROUP BY")?;
    for join in select.from.iter().flat_map(|from| &from.joins) {
        if let Some(JoinConstraint::On(condition)) = constraint_of(&join.join_operator) {
            refuse(first_prediction(condition), "a join's condition")?;
        }
    }
    let within = visit_expressions(select, |expr| match expr {
        Expr::Function(function) if Functions::get().aggregate.contains_key(&function_name(function)) => {
            let found = first_prediction(&function.args).or_else(|| function.filter.as_deref().and_then(first_prediction));
            found.map_or(ControlFlow::Continue(()), ControlFlow::Break)
        }
        _ => ControlFlow::Continue(()),
    });
    match within {
        ControlFlow::Break(found) => refuse(Some(found), "an aggregate"),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn constraint_of(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some(constraint),
        _ => None,
    }
}
