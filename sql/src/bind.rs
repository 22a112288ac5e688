//! Query AST → checked, optimised logical plan. In: a query and the catalog. Out: what lowering takes, or a refusal with its place.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Spanned, Statement};

use crate::check::{check_maintained, first_now, function_named_in, place_named_in};
use crate::context::Catalog;
use crate::count::one_argument;
use crate::dependent::unfolded;
use crate::distinct_names::told_apart;
use crate::fields::name_fields;
use crate::first_with_ties::as_ranks;
use crate::fold::fold_lookups;
use crate::interval::spelled;
use crate::now::{mentions_now, readable};
use crate::optimise::{analyse, optimise};
use crate::predict::{bind_predictions, first_prediction};
use crate::prediction::place_predictions;
use crate::refusal::{Refusal, Result};
use crate::set_operation::counted;
use crate::subquery::guarded;
use crate::ties::settle_ties;
use crate::tuples::by_parts;
use crate::unread::spell_unread;
use crate::using::merge_using;
use crate::windowing::{fuse_sessions, place_arrivals, place_windows, spell_bounds};

/// `collect_spans` puts places into errors; VARCHAR stays Utf8; decimal literals would cut DOUBLE columns and panic on 1e3.
pub(crate) fn parser_options() -> ParserOptions {
    ParserOptions {
        collect_spans: true,
        map_string_types_to_utf8view: false,
        parse_float_as_decimal: false,
        enable_ident_normalization: true,
        ..ParserOptions::new()
    }
}

/// The plan as written: names resolved, predictions in nodes of their own, types not yet coerced.
pub(crate) fn plan_query(query: &Query, catalog: &Catalog) -> Result<LogicalPlan> {
    let mut bound = query.clone();
    let predicts = first_prediction(query).is_some();
    if predicts {
        bind_predictions(&mut bound, catalog)?;
    }
    spell_bounds(&mut bound);
    name_fields(&mut bound);
    one_argument(&mut bound);
    spell_unread(&mut bound)?;
    merge_using(&mut bound, catalog)?;
    told_apart(&mut bound);
    by_parts(&mut bound);
    as_ranks(&mut bound);
    spelled(&mut bound);
    let folded = fold_lookups(bound, catalog);
    let planner = SqlToRel::new_with_options(catalog, parser_options());
    let plan = planner.sql_statement_to_plan(Statement::Query(Box::new(folded))).map_err(|error| placed(error.into(), query))?;
    let plan = place_windows(plan, catalog).and_then(place_arrivals).map_err(|refusal| placed(refusal, query))?;
    if predicts { place_predictions(plan, catalog).map_err(|refusal| placed(refusal, query)) } else { Ok(plan) }
}

/// The plan that lowering takes.
pub(crate) fn plan_maintained(query: &Query, catalog: &Catalog) -> Result<LogicalPlan> {
    plan_maintained_as(query, catalog, Ok)
}

/// As [`plan_maintained`], with a change to the plan as written.
pub(crate) fn plan_maintained_as(query: &Query, catalog: &Catalog, change: impl Fn(LogicalPlan) -> Result<LogicalPlan>) -> Result<LogicalPlan> {
    check_maintained(query, catalog)?;
    let plan = plan_query(query, catalog)?;
    change(plan).and_then(|plan| prepare(plan, catalog)).map_err(|refusal| placed(refusal, query))
}

fn prepare(plan: LogicalPlan, catalog: &Catalog) -> Result<LogicalPlan> {
    let analysed = analyse(guarded(counted(settle_ties(unfolded(plan)?)?, catalog.options())?)?, catalog.options())?;
    check_intervals(&analysed)?;
    Ok(fuse_sessions(optimise(analysed, catalog.options())?)?)
}

/// A refusal that knows no place is put at the function it names, else where the query begins.
pub(crate) fn placed(mut refusal: Refusal, query: &Query) -> Refusal {
    if refusal.about_now && refusal.place.is_none() {
        refusal.place = first_now(query);
    }
    if refusal.place.is_none() {
        refusal.place = place_named_in(query, &refusal.message).or_else(|| function_named_in(query, &refusal.message));
    }
    match refusal.place {
        Some(_) => refusal,
        None => refusal.at(query.span()),
    }
}

/// Intervals compare field by field in DataFusion, so that 25 hours are less than 1 day. Comparisons of an age, `now() - ts`, with a
/// constant are rewritten later; all others are refused. Before the optimiser, which folds constants.
fn check_intervals(plan: &LogicalPlan) -> Result<()> {
    let mut refusal = None;
    plan.apply_with_subqueries(|node| {
        let schema = input_schema(node)?;
        for expr in node.expressions() {
            expr.apply(|part| {
                if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part
                    && is_comparison(*op)
                    && !mentions_now(part)
                    && (is_interval(left, &schema) || is_interval(right, &schema))
                {
                    refusal = Some(
                        Refusal::new(format!("intervals have no order: {}", readable(part)))
                            .help("compare timestamps: a > b + INTERVAL '1 hour'")
                            .at_expr(part),
                    );
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    refusal.map_or(Ok(()), Err)
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

/// The columns a node's expressions may name.
fn input_schema(node: &LogicalPlan) -> datafusion::common::Result<DFSchema> {
    let inputs: Vec<&DFSchemaRef> = node.inputs().into_iter().map(|input| input.schema()).collect();
    let mut schema = DFSchema::empty();
    for input in inputs {
        schema.merge(input);
    }
    Ok(schema)
}
