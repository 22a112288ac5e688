//! Feature views: windows out of FILTERs, arguments into columns, features over the aggregates of a row.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use freshet_core::{
    AggregateFunction, Comparison, FeatureColumn, FeatureSpec, LatestSpec, NodeId, Op, RollingAggregate, RollingSpec, Window, WindowEdge,
};

use super::Lowering;
use super::aggregate::{Call, call_of, group_keys};
use super::output::storable;
use crate::context::TIMESTAMP;
use crate::expr::{bare, compile};
use crate::now::{NowBound, bounds_of, is_now, mentions_now, refuse_now};
use crate::refusal::{Refusal, Result};

const NS_PER_MS: i64 = 1_000_000;

/// A feature view's query, planned, and the clauses around it.
///
/// The query has a hidden column named `time`: max(TIMESTAMP) if it groups, else the TIMESTAMP column.
#[derive(Debug)]
pub(crate) struct FeatureQuery<'a> {
    pub plan: &'a LogicalPlan,
    pub entity: &'a [String],
    pub time: &'a str,
    pub grouped: bool,
    pub ttl_ms: Option<u64>,
    pub hop_ms: Option<u64>,
    pub include_now: bool,
}

impl Lowering<'_> {
    /// The node of a feature view; its schema is the entity columns, then the features.
    pub fn feature_view(&mut self, query: &FeatureQuery<'_>) -> Result<NodeId> {
        if query.grouped { self.rolling(query) } else { self.latest(query) }
    }

    fn latest(&mut self, query: &FeatureQuery<'_>) -> Result<NodeId> {
        refuse_now_below(query.plan)?;
        let node = self.lower(query.plan)?;
        let node = self.output(node, query.plan.schema())?;
        let schema = self.schema(node);
        let index = |name: &str| schema.index_of(name).map_err(|_| missing_entity(name));
        let entity = query.entity.iter().map(|name| index(name)).collect::<Result<Vec<_>>>()?;
        let time = index(query.time)?;
        check_time(schema.field(time).data_type())?;
        let features: Vec<usize> = (0..schema.fields().len()).filter(|column| *column != time && !entity.contains(column)).collect();
        let fields: Vec<_> = entity.iter().chain(&features).map(|column| schema.field(*column).clone().with_nullable(true)).collect();
        let spec = LatestSpec { entity, time, features, ttl_ms: query.ttl_ms, include_now: query.include_now };
        Ok(self.push(Op::Feature { spec: FeatureSpec::Latest(spec), eager: false }, vec![node], Arc::new(Schema::new(fields))))
    }

    fn rolling(&mut self, query: &FeatureQuery<'_>) -> Result<NodeId> {
        let (outputs, aggregate) = outputs_over_aggregate(query.plan)?;
        refuse_now_below(&aggregate.input)?;
        let input_schema = aggregate.input.schema();
        let keys = group_keys(aggregate)?;
        let key_of_entity = entity_keys(query, &outputs, aggregate)?;
        let time = time_of(query, &outputs, aggregate)?;
        check_time(&time.get_type(input_schema)?)?;

        let features: Vec<&(String, Expr)> = outputs.iter().filter(|(name, _)| name != query.time && !query.entity.contains(name)).collect();
        let used = used_aggregates(&features, aggregate)?;
        let mut aggregates = Vec::with_capacity(used.len());
        let mut wanted: Vec<Expr> = key_of_entity.iter().map(|key| keys[*key].clone()).collect();
        wanted.push(time.clone());
        for index in &used {
            let call = call_of(&aggregate.aggr_expr[*index], input_schema)?;
            if call.distinct {
                return Err(Refusal::new("DISTINCT is not supported in a feature view yet")
                    .help("count the distinct values in a materialised view with GROUP BY")
                    .at_expr(&aggregate.aggr_expr[*index]));
            }
            refuse_unmergeable(&call, input_schema)?;
            let (window, filter) = window_of(&call, &time, input_schema)?;
            check_hop(&window, query.hop_ms)?;
            wanted.extend(call.argument.iter().chain(&filter).cloned());
            aggregates.push((call, window, filter.is_some()));
        }

        let input = self.lower(&aggregate.input)?;
        let (node, columns) = self.arguments(input, input_schema, &wanted)?;
        let entity_count = key_of_entity.len();
        let mut rest = columns[entity_count + 1..].iter().copied();
        let aggregates = aggregates
            .into_iter()
            .map(|(call, window, filtered)| RollingAggregate {
                function: call.function,
                argument: call.argument.and_then(|_| rest.next()),
                filter: if filtered { rest.next() } else { None },
                window,
            })
            .collect();

        let row = row_schema(&key_of_entity, &used, aggregate)?;
        let features = features.into_iter().map(|(name, expr)| feature_column(name, expr, &row)).collect::<Result<Vec<_>>>()?;
        let own = self.schema(node);
        let entity_fields = query.entity.iter().zip(&columns).map(|(name, column)| Field::new(name, own.field(*column).data_type().clone(), true));
        let feature_fields = features.iter().map(|feature| Field::new(&feature.name, feature.expr.data_type(), true));
        let fields: Vec<Field> = entity_fields.chain(feature_fields).collect();
        let spec = RollingSpec {
            entity: columns[..entity_count].to_vec(),
            time: columns[entity_count],
            aggregates,
            features,
            ttl_ms: query.ttl_ms,
            hop_ms: query.hop_ms,
            include_now: query.include_now,
        };
        Ok(self.push(Op::Feature { spec: FeatureSpec::Rolling(spec), eager: false }, vec![node], Arc::new(Schema::new(fields))))
    }
}

/// Errors: an aggregate that is not the sum of those of its windows' parts.
fn refuse_unmergeable(call: &Call, schema: &DFSchema) -> Result<()> {
    let name = call.function.sql();
    let Some(argument) = &call.argument else { return Ok(()) };
    if !call.function.merges() {
        let help = match call.function {
            AggregateFunction::Auc => "log_loss and brier have windows; auc: in a materialised view with GROUP BY",
            _ => "keep it in a materialised view with GROUP BY",
        };
        return Err(Refusal::new(format!("{name} over a window is not supported yet")).help(help).at_expr(argument));
    }
    let data_type = argument.get_type(schema)?;
    if matches!(call.function, AggregateFunction::Sum | AggregateFunction::Avg) && matches!(data_type, DataType::Decimal128(_, _)) {
        return Err(Refusal::new(format!("{name} of {data_type} is not supported in a feature view yet"))
            .help(format!("{name}(CAST({} AS DOUBLE))", crate::now::readable(argument)))
            .at_expr(argument));
    }
    Ok(())
}

/// The output columns as expressions over the aggregate below them.
fn outputs_over_aggregate(plan: &LogicalPlan) -> Result<(Vec<(String, Expr)>, &Aggregate)> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else { return Err(not_an_aggregate(&projection.input)) };
            let names = projection.schema.fields().iter().map(|field| field.name().clone());
            Ok((names.zip(projection.expr.iter().cloned()).map(|(name, expr)| Ok((name, bare(expr)?))).collect::<Result<_>>()?, aggregate))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let columns = aggregate.schema.columns().into_iter().map(|column| (column.name.clone(), Expr::Column(column)));
            Ok((columns.collect(), aggregate))
        }
        LogicalPlan::SubqueryAlias(alias) => outputs_over_aggregate(&alias.input),
        other => Err(not_an_aggregate(other)),
    }
}

fn not_an_aggregate(plan: &LogicalPlan) -> Refusal {
    match plan {
        LogicalPlan::Filter(filter) => Refusal::new("a feature view has no HAVING: it answers every key")
            .help("filter the rows with WHERE, or read the view with a condition")
            .at_expr(&filter.predicate),
        _ => Refusal::new("a feature view is one SELECT with GROUP BY its entity, or one without aggregates"),
    }
}

fn missing_entity(name: &str) -> Refusal {
    Refusal::new(format!("the entity {name} is not in the SELECT list")).help(format!("SELECT {name}, …"))
}

fn check_time(data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Timestamp(_, None) | DataType::Date32 => Ok(()),
        other => Err(Refusal::new(format!("the TIMESTAMP of a feature view must be a TIMESTAMP or DATE column, this is {other}"))),
    }
}

/// For each entity column, which grouping key it is.
fn entity_keys(query: &FeatureQuery<'_>, outputs: &[(String, Expr)], aggregate: &Aggregate) -> Result<Vec<usize>> {
    let mut found = Vec::with_capacity(query.entity.len());
    for name in query.entity {
        let (_, expr) = outputs.iter().find(|(output, _)| output == name).ok_or_else(|| missing_entity(name))?;
        let key = match expr {
            Expr::Column(column) => aggregate.schema.index_of_column(column).ok().filter(|index| *index < aggregate.group_expr.len()),
            _ => None,
        };
        let grouping =
            || Refusal::new(format!("the entity {name} is not what the query groups by")).help(format!("GROUP BY {}", query.entity.join(", ")));
        found.push(key.ok_or_else(|| grouping().at_expr(expr))?);
    }
    if aggregate.group_expr.len() != found.len() {
        return Err(Refusal::new(format!("the query groups by {} columns, the ENTITY has {}", aggregate.group_expr.len(), found.len()))
            .help(format!("GROUP BY {}, or name every grouping column in ENTITY", query.entity.join(", "))));
    }
    Ok(found)
}

/// The argument of the hidden max(TIMESTAMP).
fn time_of(query: &FeatureQuery<'_>, outputs: &[(String, Expr)], aggregate: &Aggregate) -> Result<Expr> {
    let hidden = outputs.iter().find(|(name, _)| name == query.time).map(|(_, expr)| expr);
    let index = match hidden {
        Some(Expr::Column(column)) => aggregate.schema.index_of_column(column).ok().and_then(|index| index.checked_sub(aggregate.group_expr.len())),
        _ => None,
    };
    let call = index.and_then(|index| aggregate.aggr_expr.get(index)).map(|expr| bare(expr.clone())).transpose()?;
    match call {
        Some(Expr::AggregateFunction(function)) if function.params.args.len() == 1 => Ok(function.params.args[0].clone()),
        _ => Err(Refusal::new("the TIMESTAMP of this feature view cannot be followed through its query").help("name a column of FROM")),
    }
}

/// The aggregates that the features read, by their index in the query's aggregates, ascending.
fn used_aggregates(features: &[&(String, Expr)], aggregate: &Aggregate) -> Result<Vec<usize>> {
    let keys = aggregate.group_expr.len();
    let mut used = Vec::new();
    for (_, expr) in features {
        for column in expr.column_refs() {
            if let Some(index) = aggregate.schema.index_of_column(column)?.checked_sub(keys) {
                used.push(index);
            }
        }
    }
    used.sort_unstable();
    used.dedup();
    Ok(used)
}

/// The window in a call's FILTER, and what else the FILTER says.
fn window_of(call: &Call, time: &Expr, schema: &DFSchema) -> Result<(Window, Option<Expr>)> {
    let mut window = Window::default();
    let mut others = Vec::new();
    if let Some(filter) = &call.filter {
        let filter = bare(filter.clone())?;
        for conjunct in split_conjunction(&filter) {
            if !mentions_now(conjunct) {
                others.push(conjunct.clone());
                continue;
            }
            for bound in bounds_of(conjunct, schema)? {
                if bound.expr != *time {
                    return Err(Refusal::new("a window of a feature view is over its TIMESTAMP column")
                        .help(format!("compare {} with now(), or name the other column in TIMESTAMP", crate::now::readable(time)))
                        .at_expr(conjunct)
                        .about_now());
                }
                narrow(&mut window, &bound, conjunct)?;
            }
        }
    }
    if let (Some(lower), Some(upper)) = (window.lower, window.upper)
        && upper.offset_ms >= lower.offset_ms
    {
        return Err(Refusal::new("this window is always empty: it ends before it begins").about_now());
    }
    Ok((window, conjunction(others)))
}

fn narrow(window: &mut Window, bound: &NowBound, conjunct: &Expr) -> Result<()> {
    let refuse = |message: &str| Err(Refusal::new(message).at_expr(conjunct).about_now());
    if bound.offset_ns % NS_PER_MS != 0 {
        return refuse("a window is measured in whole milliseconds");
    }
    let offset_ms = bound.offset_ns / NS_PER_MS;
    if offset_ms < 0 {
        return refuse("a window cannot reach beyond now()");
    }
    match bound.comparison {
        Comparison::Greater | Comparison::GreaterOrEqual => {
            if offset_ms == 0 {
                return refuse("this window is always empty: it begins at now()");
            }
            let edge = WindowEdge { offset_ms, inclusive: bound.comparison == Comparison::GreaterOrEqual };
            let narrower = |known: &WindowEdge| (known.offset_ms, known.inclusive) < (edge.offset_ms, edge.inclusive);
            if !window.lower.as_ref().is_some_and(narrower) {
                window.lower = Some(edge);
            }
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let edge = WindowEdge { offset_ms, inclusive: bound.comparison == Comparison::LessOrEqual };
            let narrower = |known: &WindowEdge| (known.offset_ms, !known.inclusive) > (edge.offset_ms, !edge.inclusive);
            if !window.upper.as_ref().is_some_and(narrower) {
                window.upper = Some(edge);
            }
        }
    }
    Ok(())
}

fn check_hop(window: &Window, hop_ms: Option<u64>) -> Result<()> {
    let (Some(hop), Some(lower)) = (hop_ms, window.lower) else { return Ok(()) };
    if lower.offset_ms.unsigned_abs() % hop != 0 {
        return Err(Refusal::new(format!("a window of {} ms is no multiple of the HOP of {hop} ms", lower.offset_ms))
            .help("choose a HOP that divides every window, or none for exact windows"));
    }
    Ok(())
}

/// The columns a feature may read: entity columns, aggregate values, q.
fn row_schema(key_of_entity: &[usize], used: &[usize], aggregate: &Aggregate) -> Result<DFSchema> {
    let keys = aggregate.group_expr.len();
    let mut fields: Vec<_> = key_of_entity
        .iter()
        .copied()
        .chain(used.iter().map(|index| keys + index))
        .map(|index| {
            let (qualifier, field) = aggregate.schema.qualified_field(index);
            (qualifier.cloned(), field.clone())
        })
        .collect();
    let q = q_column();
    fields.push((q.relation.clone(), Arc::new(Field::new(&q.name, TIMESTAMP, false))));
    Ok(DFSchema::new_with_metadata(fields, Default::default())?)
}

fn q_column() -> Column {
    Column::new(Some(TableReference::bare("freshet$")), "q")
}

fn feature_column(name: &str, expr: &Expr, row: &DFSchema) -> Result<FeatureColumn> {
    let expr = expr
        .clone()
        .transform_down(|node| Ok(age_compared(node, row)))
        .data()?
        .transform_up(|node| Ok(if is_now(&node) { Transformed::yes(Expr::Column(q_column())) } else { Transformed::no(node) }))
        .data()?;
    let compiled = compile(&expr, row)?;
    let data_type = compiled.data_type();
    let compiled = match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => compile(&expr.cast_to(&DataType::Utf8, row)?, row)?,
        data_type if storable(&data_type) => match compiled.as_column() {
            // DataFusion's name of an aggregate is its whole text.
            Some(index) => Arc::new(freshet_core::Column { index, name: name.to_string(), data_type }),
            None => compiled,
        },
        other => {
            return Err(Refusal::new(format!("the feature {name} is {other}, which no view can hold yet"))
                .help("CAST it to a number, a TIMESTAMP or VARCHAR"));
        }
    };
    Ok(FeatureColumn { name: name.to_string(), expr: compiled })
}

/// `now() - max(ts) < INTERVAL '1 day'` → `max(ts) > q - 86,400 s`: intervals themselves compare field by field.
fn age_compared(node: Expr, row: &DFSchema) -> Transformed<Expr> {
    let bounds = match &node {
        Expr::BinaryExpr(binary) if is_order(&binary.op) && mentions_now(&node) => bounds_of(&node, row).unwrap_or_default(),
        _ => Vec::new(),
    };
    let [bound] = bounds.as_slice() else { return Transformed::no(node) };
    let offset = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months: 0, days: 0, nanoseconds: bound.offset_ns }));
    let edge = BinaryExpr::new(Box::new(Expr::Column(q_column())), Operator::Minus, Box::new(Expr::Literal(offset, None)));
    let time = Expr::Cast(Cast::new(Box::new(bound.expr.clone()), TIMESTAMP));
    let compared = BinaryExpr::new(Box::new(time), operator(bound.comparison), Box::new(Expr::BinaryExpr(edge)));
    Transformed::new(Expr::BinaryExpr(compared), true, TreeNodeRecursion::Jump)
}

fn is_order(op: &Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

fn operator(comparison: Comparison) -> Operator {
    match comparison {
        Comparison::Less => Operator::Lt,
        Comparison::LessOrEqual => Operator::LtEq,
        Comparison::Greater => Operator::Gt,
        Comparison::GreaterOrEqual => Operator::GtEq,
    }
}

/// The rows of a feature view are all that were ever there; time is its windows' business.
fn refuse_now_below(plan: &LogicalPlan) -> Result<()> {
    let mut refusal = None;
    plan.apply(|node| {
        refusal = node
            .expressions()
            .iter()
            .find(|expr| mentions_now(expr))
            .map(|expr| refuse_now(expr).help("in a feature view now() belongs into a FILTER (WHERE ts > now() - INTERVAL …), WINDOWS or TTL"));
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    refusal.map_or(Ok(()), Err)
}
