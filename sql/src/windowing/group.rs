//! `GROUP BY tumble(INTERVAL '1 minute')`, hop(slide, size), session(gap), and Flink's `TUMBLE(ts, size)` at that place. In: the plan as
//! written, where they are marker functions that give a struct of start and end. Out: a window node below the aggregate, its bounds as keys.
//!
//! Before the analyser and the optimiser, which must never see a marker. Without a time among its arguments a window is of the event time
//! of FROM: the column of the source's WATERMARK, or, above windows, the last instant of the window.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as PlanResult, TableReference, exec_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, SubqueryAlias, Volatility, lit,
};

use crate::context::{Catalog, TIMESTAMP};
use crate::expr::bare;
use crate::now::{exact_ns, readable};
use crate::refusal::{Refusal, Result};
use crate::windowing::node::{END, FUNCTIONS, START, Shape, WindowTvf, shape_of, unit_of};

/// Qualifies the bounds of a group window; no user can type it unquoted.
const GROUPED: &str = "freshet$window";
/// Marks the field that holds event time.
const EVENT_TIME: &str = "freshet.event_time";

/// The source's columns, that of its WATERMARK marked.
pub(crate) fn with_event_time(schema: &SchemaRef, event_time: Option<usize>) -> SchemaRef {
    let Some(marked) = event_time else { return schema.clone() };
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let metadata = if index == marked { [(EVENT_TIME.to_string(), String::new())].into() } else { Default::default() };
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// The columns of a view, event time marked where its query shows it.
pub(crate) fn marked_as(schema: &SchemaRef, query: &DFSchema) -> SchemaRef {
    let marked = |index: &usize| query.fields().get(*index).is_some_and(|field| field.metadata().contains_key(EVENT_TIME));
    let found: Vec<usize> = (0..schema.fields().len()).filter(marked).collect();
    with_event_time(schema, if let [only] = found.as_slice() { Some(*only) } else { None })
}

/// The functions that stand for windows while a query is planned.
pub(crate) fn marker_functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.into_iter().map(|(name, _)| ScalarUDF::from(Marker { name, signature: Signature::user_defined(Volatility::Volatile) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> PlanResult<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn return_type(&self, arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(struct_of(arguments.first()))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> PlanResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name, struct_of(arguments.arg_fields.first().map(|field| field.data_type())), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        exec_err!("{}() was not planned as a window", self.name)
    }
}

/// The bounds in the type of the time, if that is the first argument.
fn struct_of(first: Option<&DataType>) -> DataType {
    let data_type = first.filter(|data_type| unit_of(data_type).is_some()).cloned().unwrap_or(TIMESTAMP);
    DataType::Struct(Fields::from(vec![Field::new("start", data_type.clone(), false), Field::new("end", data_type, false)]))
}

fn marker_of(expr: &Expr) -> Option<(&'static str, &[Expr])> {
    match expr {
        Expr::ScalarFunction(function) => function.func.inner().downcast_ref::<Marker>().map(|marker| (marker.name, function.args.as_slice())),
        _ => None,
    }
}

fn mentions_window(expr: &Expr) -> bool {
    expr.exists(|part| Ok(marker_of(part).is_some())).unwrap_or(false)
}

/// The plan with a node for every group window. Errors: a window function at another place.
pub(crate) fn place_windows(plan: LogicalPlan, catalog: &Catalog) -> Result<LogicalPlan> {
    let mut refusal = None;
    let placed = plan.transform_up_with_subqueries(|node| match placed_at(&node, catalog) {
        Ok(Some(changed)) => Ok(Transformed::yes(changed)),
        Ok(None) => Ok(Transformed::no(node)),
        Err(found) => {
            refusal = Some(found);
            Ok(Transformed::new(node, false, TreeNodeRecursion::Stop))
        }
    });
    let placed = match refusal {
        Some(refusal) => return Err(refusal),
        None => placed.data()?,
    };
    let mut left = None;
    placed.apply_with_subqueries(|node| {
        left = node.expressions().into_iter().find(mentions_window);
        Ok(if left.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match left {
        None => Ok(placed),
        Some(expr) => {
            let mut name = "tumble";
            expr.apply(|part| {
                name = marker_of(part).map_or(name, |found| found.0);
                Ok(TreeNodeRecursion::Continue)
            })?;
            Err(Refusal::new(format!("{name}() makes windows in GROUP BY or in FROM, and this is neither"))
                .help(format!("SELECT {name}(INTERVAL '1 minute') AS window, count(*) FROM t GROUP BY window"))
                .at_expr(&expr))
        }
    }
}

fn placed_at(node: &LogicalPlan, catalog: &Catalog) -> Result<Option<LogicalPlan>> {
    match node {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(mentions_window) => windowed(aggregate, catalog).map(Some),
        LogicalPlan::Projection(projection) => {
            let Some((aliases, inner)) = bounds_below(&projection.input) else { return Ok(None) };
            let preserver = NamePreserver::new_for_projection();
            let names: Vec<_> = projection.expr.iter().map(|expr| preserver.save(expr)).collect();
            let schema = projection.input.schema();
            let exprs = projection.expr.iter().map(|expr| inlined(expr.clone(), schema, inner)).collect::<Result<Vec<_>>>()?;
            let exprs = exprs.into_iter().zip(names).map(|(expr, name)| name.restore(expr)).collect();
            drop(aliases);
            Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, inner.input.clone())?)))
        }
        LogicalPlan::Filter(filter) => {
            let Some((aliases, inner)) = bounds_below(&filter.input) else { return Ok(None) };
            let predicate = inlined(filter.predicate.clone(), filter.input.schema(), inner)?;
            let below = LogicalPlan::Filter(Filter::try_new(predicate, inner.input.clone())?);
            let mut plan = LogicalPlan::Projection(Projection::try_new(inner.expr.clone(), Arc::new(below))?);
            for alias in aliases.into_iter().rev() {
                plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias)?);
            }
            Ok(Some(plan))
        }
        _ => Ok(None),
    }
}

/// The projection that makes a struct of a window's bounds, if it is what this is, and the aliases above it, outermost first.
fn bounds_below(plan: &LogicalPlan) -> Option<(Vec<TableReference>, &Projection)> {
    let (mut aliases, mut plan) = (Vec::new(), plan);
    loop {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => {
                aliases.push(alias.alias.clone());
                plan = &alias.input;
            }
            LogicalPlan::Projection(projection) => return projection.expr.iter().any(is_bounds).then_some((aliases, projection)),
            _ => return None,
        }
    }
}

fn is_bounds(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_bounds(&alias.expr),
        Expr::ScalarFunction(function) if function.name() == "named_struct" => {
            function.args.iter().any(|argument| argument.column_refs().iter().any(|column| is_grouped(column)))
        }
        _ => false,
    }
}

fn is_grouped(column: &Column) -> bool {
    column.relation.as_ref().is_some_and(|relation| relation.table() == GROUPED)
}

/// With what the projection below computes in place of its columns, and fields of a struct that is there in place of asking for them.
fn inlined(expr: Expr, schema: &DFSchema, below: &Projection) -> Result<Expr> {
    let replaced = expr.transform_up(|part| {
        if let Expr::Column(column) = &part
            && let Ok(index) = schema.index_of_column(column)
        {
            return Ok(Transformed::yes(below.expr[index].clone().unalias()));
        }
        Ok(match field_of(&part) {
            Some(field) => Transformed::yes(field),
            None => Transformed::no(part),
        })
    });
    Ok(replaced.data()?)
}

/// `get_field(named_struct('start', a, …), 'start')` is `a`.
fn field_of(expr: &Expr) -> Option<Expr> {
    let Expr::ScalarFunction(get) = expr else { return None };
    let ("get_field", [Expr::ScalarFunction(made), Expr::Literal(wanted, _)]) = (get.name(), get.args.as_slice()) else { return None };
    if made.name() != "named_struct" {
        return None;
    }
    let field = made.args.chunks_exact(2).find(|pair| matches!(&pair[0], Expr::Literal(name, _) if name == wanted))?;
    Some(field[1].clone())
}

fn windowed(aggregate: &Aggregate, catalog: &Catalog) -> Result<LogicalPlan> {
    let mut markers: Vec<Expr> = Vec::new();
    for expr in &aggregate.group_expr {
        if matches!(expr, Expr::GroupingSet(_)) {
            return Err(Refusal::new("a window cannot stand in GROUPING SETS, ROLLUP or CUBE")
                .help("put the window into FROM: TUMBLE(t, ts, …)")
                .at_expr(expr));
        }
        expr.apply(|part| {
            if marker_of(part).is_some() && !markers.contains(part) {
                markers.push(part.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let named: Vec<String> = markers.iter().filter_map(marker_of).map(|(name, _)| format!("{name}()")).collect();
    let [marker] = markers.as_slice() else {
        return Err(Refusal::new(format!("one GROUP BY takes one window, and this one has {}", named.join(" and ")))
            .help("put one of them into FROM: TUMBLE(t, ts, …)")
            .at_expr(&aggregate.group_expr[0]));
    };
    let is_window = |expr: &Expr| bare(expr.clone()).is_ok_and(|expr| expr == *marker);
    let others = aggregate.group_expr.iter().filter(|expr| !mentions_window(expr)).cloned().collect();
    let input = window_node(marker, others, aggregate)?;
    let column = |name: &str| Expr::Column(Column::new(Some(TableReference::bare(GROUPED)), name));
    let bounds = as_struct(marker, (column(START), column(END)), (input.schema(), aggregate.input.schema()), catalog)?;
    let replaced = |expr: &Expr| -> Result<Expr> {
        let changed = expr.clone().transform_up(|part| {
            Ok(match field_of(&part) {
                Some(field) => Transformed::yes(field),
                None if part == *marker => Transformed::yes(bounds.clone()),
                None => Transformed::no(part),
            })
        });
        Ok(changed.data()?)
    };
    let mut keys: Vec<Expr> = Vec::new();
    for expr in aggregate.group_expr.iter().filter(|expr| !is_window(expr)) {
        let name = expr.schema_name().to_string();
        keys.push(if mentions_window(expr) { replaced(expr)?.alias(name) } else { expr.clone() });
    }
    let kept = keys.len();
    keys.extend([column(START), column(END)]);
    let mut calls = Vec::new();
    for expr in &aggregate.aggr_expr {
        let name = expr.schema_name().to_string();
        calls.push(if mentions_window(expr) { replaced(expr)?.alias(name) } else { expr.clone() });
    }
    let grouped = Aggregate::try_new(Arc::new(input), keys, calls)?;
    let (mut shown, mut next) = (Vec::new(), 0);
    for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        let value = match aggregate.group_expr.get(index) {
            Some(expr) if is_window(expr) => bounds.clone(),
            Some(_) => {
                next += 1;
                Expr::Column(Column::from(grouped.schema.qualified_field(next - 1)))
            }
            None => Expr::Column(Column::from(grouped.schema.qualified_field(kept + 2 + index - aggregate.group_expr.len()))),
        };
        shown.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(LogicalPlan::Aggregate(grouped)))?))
}

/// The marker's struct, of bounds in the node's type.
fn as_struct(marker: &Expr, (start, end): (Expr, Expr), (schema, input): (&DFSchema, &DFSchema), catalog: &Catalog) -> Result<Expr> {
    let DataType::Struct(fields) = marker.get_type(input)? else { return Err(Refusal::new("a window is a struct")) };
    let (start, end) = (start.cast_to(fields[0].data_type(), schema)?, end.cast_to(fields[1].data_type(), schema)?);
    let function = catalog.get_function_meta("named_struct").expect("DataFusion has it");
    Ok(function.call(vec![lit("start"), start, lit("end"), end]))
}

fn window_node(marker: &Expr, others: Vec<Expr>, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let (name, arguments) = marker_of(marker).expect("it was found as one");
    let (_, lengths) = FUNCTIONS.into_iter().find(|(known, _)| *known == name).expect("markers are made of these");
    let usage = format!("{name}({})", lengths.iter().map(|length| format!("INTERVAL '…' /* {length} */")).collect::<Vec<_>>().join(", "));
    let schema = aggregate.input.schema();
    let is_interval = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Interval(_) | DataType::Duration(_)));
    let (time, rest) = match arguments {
        [first, rest @ ..] if !is_interval(first) => (Some(first.clone()), rest),
        all => (None, all),
    };
    let refuse = |message: String, help: String| Refusal::new(message).help(help).at_expr(marker);
    if rest.len() < lengths.len() || rest.len() > lengths.len() + 1 {
        return Err(refuse(format!("{name}() is given {} intervals", rest.len()), usage));
    }
    let mut ns = Vec::new();
    for length in rest {
        let found = match length {
            Expr::Literal(value, _) => {
                exact_ns(value).map_err(|refusal| refuse(format!("{name}(): {}", refusal.message), refusal.help.unwrap_or_default()))?
            }
            _ => None,
        };
        ns.push(found.ok_or_else(|| refuse(format!("{} is no constant interval", readable(length)), usage.clone()))?);
    }
    let (input, time) = match time {
        Some(time) => (aggregate.input.clone(), time),
        None => event_time(name, &aggregate.input)?,
    };
    let time = if time.get_type(input.schema())? == DataType::Date32 { time.cast_to(&TIMESTAMP, input.schema())? } else { time };
    let data_type = time.get_type(input.schema())?;
    let unit =
        unit_of(&data_type).ok_or_else(|| refuse(format!("windows need a TIMESTAMP, and {} is {data_type}", readable(&time)), usage.clone()))?;
    let shape = shape_of(name, &ns, unit).map_err(|(message, help)| refuse(message, help))?;
    let partition = if matches!(shape, Shape::Fixed(_)) { Vec::new() } else { others };
    let node = WindowTvf::new(shape, (time, partition), false, Some(TableReference::bare(GROUPED)), input)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The event time of these rows, maybe as a further column.
fn event_time(name: &str, input: &Arc<LogicalPlan>) -> Result<(Arc<LogicalPlan>, Expr)> {
    let marked: Vec<Expr> = input
        .schema()
        .iter()
        .filter(|(_, field)| field.metadata().contains_key(EVENT_TIME))
        .map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))))
        .collect();
    match marked.as_slice() {
        [time] => Ok((input.clone(), time.clone())),
        [] => hidden_time(input)?.ok_or_else(|| {
            Refusal::new(format!("{name}() is not told the time of its rows, and no column of FROM is the WATERMARK of a source"))
                .help(format!("name the column: {name}(ts, INTERVAL '1 minute')"))
        }),
        _ => Err(Refusal::new(format!("{name}() is not told the time of its rows, and FROM has several"))
            .help(format!("name the column: {name}(ts, INTERVAL '1 minute')"))),
    }
}

/// Event time that FROM does not show: a window's rows happened at its last instant. The same rows with a column more, and the column.
fn hidden_time(plan: &LogicalPlan) -> Result<Option<(Arc<LogicalPlan>, Expr)>> {
    const HIDDEN: &str = "freshet$time";
    let last = |schema: &DFSchema| {
        let end = schema.iter().find(|(qualifier, field)| {
            field.name() == END && (qualifier.is_some_and(|qualifier| qualifier.table() == GROUPED) || unit_of(field.data_type()).is_some())
        });
        end.map(|(qualifier, field)| (Expr::Column(Column::from((qualifier, field))), field.data_type().clone()))
    };
    Ok(match plan {
        LogicalPlan::Aggregate(aggregate) => last(&aggregate.schema).map(|(end, data_type)| {
            let one = match unit_of(&data_type) {
                Some(unit) => Expr::Literal(one_of(unit), None),
                None => lit(0),
            };
            (Arc::new(plan.clone()), end - one)
        }),
        LogicalPlan::Projection(projection) => {
            let marked = projection.input.schema().fields().iter().any(|field| field.metadata().contains_key(EVENT_TIME));
            let below = if marked { Some(event_time("tumble", &projection.input)?) } else { hidden_time(&projection.input)? };
            let Some((input, time)) = below else { return Ok(None) };
            let exprs = projection.expr.iter().cloned().chain([time.alias(HIDDEN)]).collect();
            let plan = LogicalPlan::Projection(Projection::try_new(exprs, input)?);
            Some((Arc::new(plan), Expr::Column(Column::new_unqualified(HIDDEN))))
        }
        LogicalPlan::Filter(filter) => {
            let Some((input, time)) = hidden_time(&filter.input)? else { return Ok(None) };
            Some((Arc::new(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), input)?)), time))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some((input, time)) = hidden_time(&alias.input)? else { return Ok(None) };
            let Expr::Column(column) = &time else {
                // An aggregate that no projection stands above.
                return Ok(None);
            };
            let plan = SubqueryAlias::try_new(input, alias.alias.clone())?;
            let time = Expr::Column(Column::new(Some(alias.alias.clone()), &column.name));
            Some((Arc::new(LogicalPlan::SubqueryAlias(plan)), time))
        }
        _ => None,
    })
}

/// One unit of a timestamp as an interval.
fn one_of(unit: arrow::datatypes::TimeUnit) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::new_interval_mdn(0, 0, crate::windowing::node::unit_ns(unit))
}
