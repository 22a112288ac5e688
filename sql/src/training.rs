//! Training sets: the plan of their rows, apart from the rest of the pipeline. In: the query as declared, and the range of TIME that is
//! wanted. Out: a plan of one view with the set's name over sources, feature views and what is below them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::{ExprSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned};
use datafusion::sql::sqlparser::tokenizer::Location;
use freshet_core::{Epoch, Format, LookupTime, Node, NodeId, Op, Plan, TrainingMode, ViewDef, ViewKind};

use crate::ast::{CreateTrainingSet, normal_name};
use crate::bind::{placed, plan_maintained_as};
use crate::check::function_name;
use crate::compile::{Program, on_large_stack};
use crate::context::Catalog;
use crate::error::{SqlError, nearest};
use crate::lower::Lowering;
use crate::pipeline::{prune, sort_sources};
use crate::predict::refuse_predictions;
use crate::refusal::{Refusal, Result};
use crate::relation::EARLY;
use crate::served::{AskedAt, asked_at, is_event_time};

/// The training sets of a pipeline, and all that their queries may read.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrainingSets {
    /// With every node that was ever planned.
    pub plan: Plan,
    pub relations: BTreeMap<String, NodeId>,
    pub sets: BTreeMap<String, TrainingSet>,
}

impl TrainingSets {
    /// The plan of all rows of the set of this name, if there is one.
    pub fn plan_of(&self, name: &str) -> Option<Result<Plan>> {
        self.sets.get(name).map(|set| set.plan(&self.plan, &self.relations, Range::default()))
    }

    /// What there is to say of the set of this name.
    pub fn notes_of(&self, name: &str) -> String {
        self.sets.get(name).into_iter().flat_map(|set| set.asked_at()).filter_map(AskedAt::line).collect()
    }
}

/// One set as declared, with the names of its time.
#[derive(Debug, Clone)]
pub(crate) struct TrainingSet {
    name: String,
    time: String,
    mode: TrainingMode,
    query: Box<Query>,
    catalog: Catalog,
    /// Known once it was checked.
    asked_at: Vec<AskedAt>,
}

/// from ≤ TIME < until.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    from: Option<Epoch>,
    until: Option<Epoch>,
}

impl Program {
    /// The plan of a training set's rows with from ≤ TIME < until, and no others; rows without a label stay. Its one view has the set's name
    /// and columns. If a lookup needs it (mode event_time, AS OF a column) its whole input must be one step. Equal texts give equal plans. Errors: no such set.
    pub fn training_plan(&self, set: &str, from: Option<Epoch>, until: Option<Epoch>) -> std::result::Result<Plan, SqlError> {
        let start = Location { line: 1, column: 1 };
        let known = &self.training.sets;
        let Some(found) = known.get(set) else {
            let error = SqlError::new("", start, format!("there is no training set named {set}"));
            return Err(match nearest(set, known.keys().map(String::as_str)) {
                Some(known) => error.help(format!("did you mean {known}?")),
                None => error,
            });
        };
        on_large_stack(|| found.plan(&self.training.plan, &self.training.relations, Range { from, until }))
            .unwrap_or_else(|reason| Err(Refusal::new(format!("the planner failed: {reason}"))))
            .map_err(|refusal| refusal.into_error("", start))
    }
}

impl TrainingSet {
    pub fn new(set: &CreateTrainingSet, catalog: &Catalog) -> TrainingSet {
        TrainingSet {
            name: normal_name(&set.name),
            time: normal_name(&set.time),
            mode: set.mode(),
            query: set.query.clone(),
            catalog: catalog.for_training(set.mode()),
            asked_at: Vec::new(),
        }
    }

    /// Its columns. Errors: everything that is wrong with the query.
    pub fn check(&mut self, plan: &Plan, relations: &BTreeMap<String, NodeId>) -> Result<SchemaRef> {
        refuse_predictions(&self.query, "scores rows of a view; a training set is made of features")?;
        let (planned, at_events) = self.planned(plan, relations, Range::default())?;
        self.asked_at = asked_at(&self.query, self.mode, &at_events);
        Ok(planned.views[0].schema.clone())
    }

    /// Its lookups AS OF a column, in the order of the text.
    pub fn asked_at(&self) -> &[AskedAt] {
        &self.asked_at
    }

    fn plan(&self, plan: &Plan, relations: &BTreeMap<String, NodeId>, range: Range) -> Result<Plan> {
        self.planned(plan, relations, range).map(|(plan, _)| plan)
    }

    /// The plan, and which lookups ask at the time of an event, by alias and column.
    fn planned(&self, plan: &Plan, relations: &BTreeMap<String, NodeId>, range: Range) -> Result<(Plan, BTreeSet<(String, String)>)> {
        let logical = plan_maintained_as(&self.query, &self.catalog, |plan| self.within(plan, range))?;
        let mut draft = plan.clone();
        draft.views.clear();
        draft.sinks.clear();
        draft.services.clear();
        draft.retraining.clear();
        draft.training_sets.retain(|set| set.name == self.name);
        let mut lowering = Lowering { plan: &mut draft, relations, services: &self.catalog.services, asked: Vec::new(), body: None };
        let node =
            lowering.lower(&logical).and_then(|node| lowering.output(node, logical.schema())).map_err(|refusal| placed(refusal, &self.query))?;
        let at_events = std::mem::take(&mut lowering.asked).into_iter().filter(|asked| is_event_time(lowering.plan, asked.left, asked.column));
        let at_events = at_events.map(|asked| (asked.alias, asked.name)).collect();
        let schema = draft.node(node).schema.clone();
        draft.views.push(ViewDef { name: self.name.clone(), node, kind: ViewKind::Materialized, schema, entity: Vec::new() });
        let mut plan = prune(draft, &[]);
        if plan.nodes.iter().any(|node| matches!(node.op, Op::Predict { .. } | Op::Drift { .. })) {
            return Err(Refusal::new("a training set cannot read a view with predictions: its rows would depend on the model they are for")
                .help("select from what is below that view")
                .at(self.query.span()));
        }
        plan.models.clear();
        sources_used(&mut plan);
        sort_sources(&mut plan);
        eager_again(&mut plan);
        Ok((plan, at_events))
    }

    /// The rows in the range. The optimiser moves the condition down to where the time comes from, below lookups too.
    fn within(&self, plan: LogicalPlan, range: Range) -> Result<LogicalPlan> {
        let time = plan.schema().columns().into_iter().find(|column| column.name == self.time);
        let (Some(time), true) = (time, range.from.is_some() || range.until.is_some()) else { return Ok(plan) };
        let data_type = plan.schema().data_type(&time)?.clone();
        let edge = |epoch: Epoch| instant(epoch, &data_type).map(|value| Expr::Literal(value, None));
        let mut builder = LogicalPlanBuilder::from(plan);
        if let Some(from) = range.from {
            builder = builder.filter(Expr::Column(time.clone()).gt_eq(edge(from)?))?;
        }
        if let Some(until) = range.until {
            builder = builder.filter(Expr::Column(time).lt(edge(until)?))?;
        }
        Ok(builder.build()?)
    }
}

/// Keeps the sources that some node reads; each source has its own epochs, so that none misses another.
fn sources_used(plan: &mut Plan) {
    let used: BTreeSet<usize> = plan.nodes.iter().filter_map(|node| if let Op::Source { source } = node.op { Some(source) } else { None }).collect();
    for node in &mut plan.nodes {
        if let Op::Source { source } = &mut node.op {
            *source = used.range(..*source).count();
        }
    }
    plan.sources = used.iter().map(|index| plan.sources[*index].clone()).collect();
}

/// The rest of the pipeline may have read a feature view as a stream; here only what is left decides.
fn eager_again(plan: &mut Plan) {
    let asked = |node: &Node, position: usize| position > 0 && matches!(node.op, Op::Lookup { .. });
    let streamed: BTreeSet<NodeId> = plan
        .nodes
        .iter()
        .flat_map(|node| node.inputs.iter().enumerate().filter(|(position, _)| !asked(node, *position)).map(|(_, input)| *input))
        .chain(plan.views.iter().map(|view| view.node))
        .collect();
    for (index, node) in plan.nodes.iter_mut().enumerate() {
        if let Op::Feature { eager, .. } = &mut node.op {
            *eager = streamed.contains(&NodeId(index as u32));
        }
    }
}

/// The least value of the type at or after the epoch.
fn instant(epoch: Epoch, data_type: &DataType) -> Result<ScalarValue> {
    let ms = i64::try_from(epoch.0).unwrap_or(i64::MAX);
    let whole = |unit: i64| Some(ms / unit + i64::from(ms % unit > 0));
    Ok(match data_type {
        DataType::Timestamp(TimeUnit::Second, None) => ScalarValue::TimestampSecond(whole(1_000), None),
        DataType::Timestamp(TimeUnit::Millisecond, None) => ScalarValue::TimestampMillisecond(Some(ms), None),
        DataType::Timestamp(TimeUnit::Microsecond, None) => ScalarValue::TimestampMicrosecond(Some(ms.saturating_mul(1_000)), None),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => ScalarValue::TimestampNanosecond(Some(ms.saturating_mul(1_000_000)), None),
        DataType::Date32 => ScalarValue::Date32(whole(86_400_000).map(|day| i32::try_from(day).unwrap_or(i32::MAX))),
        other => return Err(Refusal::new(format!("TIME is {other}, and a range needs a TIMESTAMP"))),
    })
}

/// What `arrival(s)` and `s.column` say after AS OF: the relation, and its column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedOf<'a> {
    pub relation: &'a Ident,
    pub column: Option<&'a Ident>,
}

pub(crate) fn asked_of(time: &SqlExpr) -> Option<AskedOf<'_>> {
    match time {
        SqlExpr::Nested(inner) => asked_of(inner),
        SqlExpr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, column] => Some(AskedOf { relation, column: Some(column) }),
            _ => None,
        },
        SqlExpr::Function(function) if function_name(function) == "arrival" => {
            argument_of(function).map(|relation| AskedOf { relation, column: None })
        }
        _ => None,
    }
}

fn argument_of(function: &Function) -> Option<&Ident> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Identifier(relation)))] => Some(relation),
        _ => None,
    }
}

/// The name under which a looked-up feature is kept until the place where the text asks for it.
pub(crate) fn early(name: &str) -> String {
    format!("{EARLY}{name}")
}

/// Sources of a training plan whose old rows cannot change its answer, each with a length in ms: rows that arrived earlier than the range's
/// start by more than that may be left out.
///
/// Such a source is only appended to, has WATERMARK and no ARRIVAL, so that no row's event time is after its epoch; it feeds nothing but
/// feature views, through operators that look at one row; those keep time by the same column and forget a key after the horizon; and
/// they are asked at no instant before the range: at the arrival of rows whose TIME is a watermark, which is never after it.
pub fn skippable_sources(plan: &Plan) -> BTreeMap<String, u64> {
    let asked_within = lookups_within_range(plan);
    let mut found = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let Op::Source { source } = node.op else { continue };
        let def = &plan.sources[source];
        let (Some(time), None, Format::Plain) = (def.event_time, def.arrival, def.format) else { continue };
        if let Some(horizon) = horizon(plan, NodeId(index as u32), &BTreeSet::from([time]), &asked_within) {
            found.insert(def.name.clone(), horizon);
        }
    }
    found
}

/// The longest horizon of the feature views above a node, of which `times` are copies of the source's event time. None: something else reads
/// it, or for ever.
fn horizon(plan: &Plan, id: NodeId, times: &BTreeSet<usize>, asked_within: &BTreeSet<usize>) -> Option<u64> {
    if plan.views.iter().any(|view| view.node == id) {
        return None;
    }
    let mut longest = 0;
    for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.inputs.contains(&id)) {
        let of_view = match &node.op {
            Op::Filter { .. } | Op::Union => horizon(plan, NodeId(index as u32), times, asked_within)?,
            Op::Project { exprs } => {
                let copies = exprs.iter().map(|expr| expr.as_column());
                let kept = copies.enumerate().filter(|(_, column)| column.is_some_and(|column| times.contains(&column)));
                horizon(plan, NodeId(index as u32), &kept.map(|(index, _)| index).collect(), asked_within)?
            }
            Op::Feature { spec, eager: false } if times.contains(&spec.time()) && only_asked(plan, NodeId(index as u32), asked_within) => {
                spec.horizon_ms()?
            }
            _ => return None,
        };
        longest = longest.max(of_view);
    }
    Some(longest)
}

/// True if nothing reads the feature view but lookups that ask within the range.
fn only_asked(plan: &Plan, view: NodeId, asked_within: &BTreeSet<usize>) -> bool {
    let readers = plan.nodes.iter().enumerate().filter(|(_, node)| node.inputs.contains(&view));
    let asks = |(index, node): (usize, &Node)| asked_within.contains(&index) && node.inputs[0] != view;
    plan.views.iter().all(|known| known.node != view) && readers.into_iter().all(asks)
}

/// The lookups that ask at no instant before the range of TIME: those on the way from the set's rows down to the source whose watermark TIME
/// is. A row's epoch is never below its event time, and a derived row's never below that of the rows it is made of.
fn lookups_within_range(plan: &Plan) -> BTreeSet<usize> {
    let mut passed = BTreeSet::new();
    let time = plan.training_sets.first().and_then(|set| Some((plan.view(&set.name)?, &set.time)));
    let Some((mut id, mut column)) = time.and_then(|(view, time)| Some((view.node, view.schema.index_of(time).ok()?))) else { return passed };
    loop {
        let node = plan.node(id);
        let width = node.inputs.first().map_or(0, |input| plan.node(*input).schema.fields().len());
        let (input, below) = match &node.op {
            Op::Source { source } => {
                let def = &plan.sources[*source];
                return if def.event_time == Some(column) && def.arrival.is_none() { passed } else { BTreeSet::new() };
            }
            Op::Project { exprs } => match exprs[column].as_column() {
                Some(below) => (0, below),
                None => return BTreeSet::new(),
            },
            Op::Filter { .. } | Op::TemporalFilter { .. } => (0, column),
            Op::Join { .. } if column < width => (0, column),
            Op::Join { kind, .. } if kind.shows_right() => (1, column - width),
            Op::Lookup { at, .. } if column < width => {
                let within = match at {
                    LookupTime::Now | LookupTime::EventTime { column: None } => true,
                    LookupTime::EventTime { column: Some(asked) } | LookupTime::AsServed { column: asked } => *asked == column,
                };
                if within {
                    passed.insert(id.index());
                }
                (0, column)
            }
            _ => return BTreeSet::new(),
        };
        (id, column) = (node.inputs[input], below);
    }
}
