//! `LEFT JOIN FEATURES(service) FOR SYSTEM_TIME AS OF now()`: a relation planner and the plan node it makes.
//!
//! The node's columns are the left side's, then the service's output under the join's alias, then status and event_time under names no
//! user can type. It has the left side as its only input; which features it reads is settled when lowering. In a training set the node stands
//! directly above the relation whose arrival it asks for, and its features wait under hidden names until the text joins them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Diagnostic, Result, Span, TableReference, plan_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::{self, ast};
use freshet_core::{ServiceDef, TrainingMode};

use crate::context::FEATURES_SCHEMA;
use crate::fold::{is_revealed, lookup_alias, lookup_service, lookup_time, normal};
use crate::parse::parse_query;
use crate::training::{asked_of, early};

/// The hidden columns behind `f.status` and `f.event_time`.
pub(crate) const STATUS: &str = "f$status";
pub(crate) const EVENT_TIME: &str = "f$event_time";
/// Begins the name of a feature that a training set has looked up and not yet shown.
pub(crate) const EARLY: &str = "freshet$";

/// The qualifier of the hidden columns of the lookup that is called `alias`.
pub(crate) fn hidden_qualifier(alias: &str) -> String {
    format!("{alias}$lookup")
}

/// What a lookup brings: the entity columns of all parts, each name once, then the request columns.
pub(crate) fn service_input(service: &ServiceDef) -> Vec<Field> {
    let mut input: Vec<Field> = Vec::new();
    for field in service.parts.iter().flat_map(|part| &part.entity).chain(&service.request) {
        if !input.iter().any(|known| known.name() == field.name()) {
            input.push(field.clone());
        }
    }
    input
}

/// A left side with the features of a service beside each of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FeatureLookup {
    pub service: String,
    pub alias: String,
    /// Over the left side, in the order of [`service_input`].
    pub bindings: Vec<Expr>,
    pub asked: Asked,
    pub left: Arc<LogicalPlan>,
    output: Vec<FieldRef>,
    schema: DFSchemaRef,
}

/// The instant a lookup answers for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// A view's: AS OF now().
    Now,
    /// A training set's: as of the arrival of the left row.
    Arrival,
    /// A training set's: what was served at this time of the left row.
    Served(Expr),
    /// A training set's that knows the whole input: at this time of the left row, or at its arrival.
    Hindsight(Option<Expr>),
}

impl Asked {
    pub fn time(&self) -> Option<&Expr> {
        match self {
            Asked::Served(time) => Some(time),
            Asked::Hindsight(time) => time.as_ref(),
            Asked::Now | Asked::Arrival => None,
        }
    }
}

impl FeatureLookup {
    fn new(service: String, alias: String, bindings: Vec<Expr>, asked: Asked, output: Vec<FieldRef>, left: LogicalPlan) -> Result<FeatureLookup> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let qualifier = TableReference::bare(alias.as_str());
        fields.extend(output.iter().map(|field| (Some(qualifier.clone()), field.clone())));
        let hidden = TableReference::bare(hidden_qualifier(&alias));
        let event_time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        fields.push((Some(hidden.clone()), Arc::new(Field::new(STATUS, DataType::Utf8, false))));
        fields.push((Some(hidden), Arc::new(Field::new(EVENT_TIME, event_time, true))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(FeatureLookup { service, alias, bindings, asked, left: Arc::new(left), output, schema })
    }
}

impl PartialOrd for FeatureLookup {
    fn partial_cmp(&self, _: &FeatureLookup) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for FeatureLookup {
    fn name(&self) -> &str {
        "FeatureLookup"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.bindings.iter().chain(self.asked.time()).cloned().collect()
    }

    /// A condition on the left side may be tested first. In a view it may not: one about now() would change the epoch of the question.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let left = if self.asked == Asked::Now { 0 } else { self.left.schema().fields().len() };
        self.schema.fields()[left..].iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bindings: Vec<String> = self.bindings.iter().map(|expr| expr.to_string()).collect();
        write!(f, "FeatureLookup: {} as {} by [{}]", self.service, self.alias, bindings.join(", "))
    }

    fn with_exprs_and_inputs(&self, mut bindings: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<FeatureLookup> {
        let left = inputs.pop().expect("a lookup has one input");
        let asked = match &self.asked {
            Asked::Hindsight(Some(_)) => Asked::Hindsight(bindings.pop()),
            Asked::Served(_) => Asked::Served(bindings.pop().expect("the time stands behind the bindings")),
            other => other.clone(),
        };
        FeatureLookup::new(self.service.clone(), self.alias.clone(), bindings, asked, self.output.clone(), left)
    }

    /// All of them: without the column that tells two left rows apart, a retraction could take the other one's answer (C1b).
    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.left.schema().fields().len()).collect()])
    }
}

/// Plans the nested joins that [`crate::fold`] makes around lookups; leaves everything else to DataFusion.
#[derive(Debug)]
pub(crate) struct LookupPlanner {
    services: Arc<BTreeMap<String, ServiceDef>>,
    training: Option<TrainingMode>,
}

impl LookupPlanner {
    pub fn new(services: Arc<BTreeMap<String, ServiceDef>>, training: Option<TrainingMode>) -> LookupPlanner {
        LookupPlanner { services, training }
    }

    fn lookup(&self, mut joined: ast::TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let join = joined.joins.pop().expect("a folded join ends with its lookup");
        let left = match joined.joins.is_empty() {
            true => joined.relation,
            false => ast::TableFactor::NestedJoin { table_with_joins: Box::new(joined), alias: None },
        };
        let left = context.plan(left)?;
        let name = context.normalize_ident(lookup_service(&join.relation).expect("a folded join ends with its lookup").clone());
        let Some(service) = self.services.get(&name) else {
            return plan_err!("there is no feature service named {name}");
        };
        let alias = context.normalize_ident(lookup_alias(&join.relation).expect("a folded join ends with its lookup").clone());
        let time = lookup_time(&join.relation);
        if time.is_some_and(is_revealed) {
            return revealed(left, &alias);
        }
        let asked = self.asked(time, left.schema(), context)?;
        let constraint = match join.join_operator {
            ast::JoinOperator::Left(constraint) | ast::JoinOperator::LeftOuter(constraint) => constraint,
            _ => return plan_err!("FEATURES({name}) answers every left row, so it stands in a LEFT JOIN"),
        };
        let input = service_input(service);
        let bound = match constraint {
            ast::JoinConstraint::Using(columns) => {
                if let Some(column) = missing_in(&columns, left.schema(), context).filter(|_| asked != Asked::Now) {
                    return Err(wrong_at(
                        &format!("the relation that this lookup is as of has no column {column}"),
                        "its keys and REQUEST columns come from one relation: join first, in a view below, and ask as of that view's rows",
                        column.span,
                    ));
                }
                bind_using(&name, &input, columns, left.schema(), context)?
            }
            ast::JoinConstraint::On(condition) => bind_on(&name, &alias, &input, condition, left.schema(), context)?,
            _ => return plan_err!("FEATURES({name}) needs USING or ON that binds {}", names(&input)),
        };
        let bindings = input
            .iter()
            .zip(bound)
            .map(|(field, expr)| match expr {
                Some(expr) if expr.get_type(left.schema())? == *field.data_type() => Ok(expr),
                Some(expr) => expr.cast_to(field.data_type(), left.schema()),
                None => plan_err!("FEATURES({name}) needs a value for {}; its keys and request columns are {}", field.name(), names(&input)),
            })
            .collect::<Result<Vec<Expr>>>()?;
        let shown = |name: &str| if asked == Asked::Now { name.to_string() } else { early(name) };
        let output = service.schema.fields().iter();
        let output = output.map(|field| Arc::new(field.as_ref().clone().with_name(shown(field.name())).with_nullable(true))).collect();
        let node = FeatureLookup::new(name, alias, bindings, asked, output, left)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn asked(&self, time: Option<&ast::Expr>, left: &DFSchema, context: &mut dyn RelationPlannerContext) -> Result<Asked> {
        let (Some(mode), Some(asked)) = (self.training, time.and_then(asked_of)) else { return Ok(Asked::Now) };
        let Some(column) = asked.column else {
            return Ok(if mode == TrainingMode::AsServed { Asked::Arrival } else { Asked::Hindsight(None) });
        };
        let time = context.sql_to_expr(ast::Expr::CompoundIdentifier(vec![asked.relation.clone(), column.clone()]), left)?;
        match (time.get_type(left)?, mode) {
            (DataType::Timestamp(_, None), TrainingMode::AsServed) => Ok(Asked::Served(time)),
            (DataType::Timestamp(_, None), TrainingMode::EventTime) => Ok(Asked::Hindsight(Some(time))),
            (other, _) => Err(wrong_at(
                &format!("a lookup answers at a TIMESTAMP, and {column} is {other}"),
                &format!("FOR SYSTEM_TIME AS OF arrival({}), or name a TIMESTAMP of it", asked.relation),
                column.span,
            )),
        }
    }
}

/// An error that knows its place and its remedy.
pub(crate) fn wrong_at(message: &str, help: &str, span: sqlparser::tokenizer::Span) -> DataFusionError {
    let diagnostic = Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)).with_help(help, None);
    DataFusionError::Plan(message.to_string()).with_diagnostic(diagnostic)
}

/// The first column that the left side does not have.
fn missing_in(columns: &[ast::ObjectName], left: &DFSchema, context: &dyn RelationPlannerContext) -> Option<ast::Ident> {
    let mut idents = columns.iter().filter_map(|column| column.0.last().and_then(|part| part.as_ident()));
    let missing = idents.find(|ident| {
        let name = context.normalize_ident((*ident).clone());
        !left.fields().iter().any(|field| *field.name() == name)
    });
    missing.cloned()
}

/// Features that were looked up early get their names, at the place where the text joins them.
fn revealed(left: LogicalPlan, alias: &str) -> Result<LogicalPlan> {
    let qualifier = TableReference::bare(alias);
    let (mut own, mut features) = (Vec::new(), Vec::new());
    for column in left.schema().columns() {
        match column.name.strip_prefix(EARLY) {
            Some(name) if column.relation.as_ref() == Some(&qualifier) => {
                let name = name.to_string();
                features.push(Expr::Column(column).alias_qualified(Some(qualifier.clone()), name));
            }
            _ => own.push(Expr::Column(column)),
        }
    }
    own.append(&mut features);
    LogicalPlanBuilder::from(left).project(own)?.build()
}

impl RelationPlanner for LookupPlanner {
    fn plan_relation(&self, relation: ast::TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        match relation {
            ast::TableFactor::NestedJoin { table_with_joins, alias: None }
                if table_with_joins.joins.last().is_some_and(|join| lookup_service(&join.relation).is_some()) =>
            {
                let plan = self.lookup(*table_with_joins, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            // `errors(view)` is a table of that name.
            ast::TableFactor::Table {
                name,
                alias,
                args: Some(arguments),
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let table = system_table(&name, &arguments);
                let args = if table.is_some() { None } else { Some(arguments) };
                let name = table.unwrap_or(name);
                Ok(RelationPlanning::Original(Box::new(ast::TableFactor::Table {
                    name,
                    alias,
                    args,
                    with_hints,
                    version,
                    with_ordinality,
                    partitions,
                    json_path,
                    sample,
                    index_hints,
                })))
            }
            // DataFusion has no WITH ORDINALITY: the places are a list of their own, which is opened beside the others.
            ast::TableFactor::UNNEST { alias, mut array_exprs, with_ordinality: true, with_offset, with_offset_alias } => {
                let Some(places) = array_exprs.first().and_then(places_of).filter(|_| array_exprs.len() == 1) else {
                    return plan_err!("UNNEST of several lists has no one place to number; unnest one list WITH ORDINALITY");
                };
                array_exprs.push(places);
                Ok(RelationPlanning::Original(Box::new(ast::TableFactor::UNNEST {
                    alias,
                    array_exprs,
                    with_offset,
                    with_offset_alias,
                    with_ordinality: false,
                })))
            }
            // DataFusion ignores a version silently.
            ast::TableFactor::Table { version: Some(_), ref name, .. } if !is_features(name) => {
                plan_err!("FOR SYSTEM_TIME AS OF is for the right side of a JOIN; {name} is read as it is now")
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// `errors(v)`, `dead_letters(s)`, `late(s)`, `versions(model)`, `runs(job)` as the quoted name under which they can be read.
fn system_table(name: &ast::ObjectName, arguments: &ast::TableFunctionArgs) -> Option<ast::ObjectName> {
    let [ast::ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return None };
    let [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Identifier(of)))] = arguments.args.as_slice() else { return None };
    let function_name = normal(function);
    if !["errors", "dead_letters", "late", "versions", "runs"].contains(&function_name.as_str()) {
        return None;
    }
    Some(ast::ObjectName::from(vec![ast::Ident { value: format!("{function_name}({})", normal(of)), quote_style: Some('"'), span: function.span }]))
}

/// `[1, 2, …]`, as long as the list.
fn places_of(list: &ast::Expr) -> Option<ast::Expr> {
    let query = parse_query("SELECT generate_series(CAST(1 AS BIGINT), CAST(array_length(\"freshet$list\") AS BIGINT))").ok()?;
    let ast::SetExpr::Select(mut select) = *query.body else { return None };
    let Some(ast::SelectItem::UnnamedExpr(mut places)) = select.projection.pop() else { return None };
    let _ = ast::visit_expressions_mut(&mut places, |expr| {
        if matches!(expr, ast::Expr::Identifier(ident) if ident.value == "freshet$list") {
            *expr = list.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    Some(places)
}

fn is_features(name: &ast::ObjectName) -> bool {
    name.0.len() == 2 && name.0[0].as_ident().is_some_and(|ident| ident.value.eq_ignore_ascii_case(FEATURES_SCHEMA))
}

fn names(input: &[Field]) -> String {
    input.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn bind_using(
    service: &str,
    input: &[Field],
    columns: Vec<ast::ObjectName>,
    left: &DFSchema,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<Option<Expr>>> {
    let mut bound: Vec<Option<Expr>> = vec![None; input.len()];
    for column in columns {
        let Some(ident) = column.0.last().and_then(|part| part.as_ident()) else { return plan_err!("{column} is not a column name") };
        let name = context.normalize_ident(ident.clone());
        let Some(index) = input.iter().position(|field| *field.name() == name) else {
            return plan_err!("{name} is neither an entity nor a REQUEST column of {service}; those are {}", names(input));
        };
        if bound[index].is_some() {
            return plan_err!("{name} is bound twice in FEATURES({service})");
        }
        bound[index] = Some(context.sql_to_expr(ast::Expr::Identifier(ident.clone()), left)?);
    }
    Ok(bound)
}

fn bind_on(
    service: &str,
    alias: &str,
    input: &[Field],
    condition: ast::Expr,
    left: &DFSchema,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<Option<Expr>>> {
    let qualifier = TableReference::bare(alias);
    let right =
        DFSchema::new_with_metadata(input.iter().map(|field| (Some(qualifier.clone()), Arc::new(field.clone()))).collect(), Default::default())?;
    let condition = context.sql_to_expr(condition, &left.join(&right)?)?;
    let side = |expr: &Expr| match expr {
        Expr::Column(column) if column.relation.as_ref() == Some(&qualifier) => input.iter().position(|field| *field.name() == column.name),
        _ => None,
    };
    let mut bound: Vec<Option<Expr>> = vec![None; input.len()];
    for conjunct in split_conjunction(&condition) {
        let Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) = conjunct else {
            return plan_err!("FEATURES({service}) is bound by equality only, found {conjunct}");
        };
        let (index, value) = match (side(one), side(other)) {
            (Some(index), None) => (index, other),
            (None, Some(index)) => (index, one),
            _ => return plan_err!("{conjunct} does not compare a key or REQUEST column of {alias} with the left side"),
        };
        if value.column_refs().iter().any(|column| column.relation.as_ref() == Some(&qualifier)) {
            return plan_err!("{conjunct} does not compare a key or REQUEST column of {alias} with the left side");
        }
        if bound[index].is_some() {
            return plan_err!("{} is bound twice in FEATURES({service})", input[index].name());
        }
        bound[index] = Some(value.as_ref().clone());
    }
    Ok(bound)
}
