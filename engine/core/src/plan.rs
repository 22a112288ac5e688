//! The plan: a list of nodes in topological order, and what is exported from it. SQL goes out as this, the engine renders it.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::{Comparison, DriftSpec, Error, ExprRef, FeatureSpec, ModelDef, Result, RetrainingDef, ServiceDef, SinkDef, SourceDef, TrainingSetDef};

/// Index of a node in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockKind {
    /// Epochs follow the machine's clock.
    #[default]
    Wall,
    /// Epochs follow the running maximum of event time of bounded input: deterministic.
    Event,
}

/// One pipeline, ready to render.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub clock: ClockKind,
    /// Inputs of a node stand before it.
    pub nodes: Vec<Node>,
    /// In name order: a source's index is its rank in the order of positions.
    pub sources: Vec<SourceDef>,
    pub views: Vec<ViewDef>,
    pub services: Vec<ServiceDef>,
    pub sinks: Vec<SinkDef>,
    pub models: Vec<ModelDef>,
    pub training_sets: Vec<TrainingSetDef>,
    pub retraining: Vec<RetrainingDef>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub schema: SchemaRef,
    /// No row that left this node is ever retracted.
    pub append_only: bool,
}

/// The closed list of what the engine can do.
#[derive(Debug, Clone)]
pub enum Op {
    /// Rows of `Plan::sources[source]`, all its columns. With FORMAT UPSERT these are records, no changes yet: an Upsert reads them.
    Source { source: usize },
    /// The live row of each key, from the records of the source below (T8, T9): diff +1 says what the row of its key is from now on, −1 that
    /// there is none. Records take effect in (epoch, position) order and those of one epoch as one; a record with a NULL in its key is an
    /// error.
    Upsert { key: Vec<usize> },
    /// One column per expression.
    Project { exprs: Vec<ExprRef> },
    /// Keeps rows whose conjuncts are all true. A row is an error only if one fails and no other is false (C4).
    Filter { conjuncts: Vec<ExprRef> },
    /// A row is in the output at epoch t iff all bounds hold with now() = t; NULL times never pass.
    TemporalFilter { bounds: Vec<TemporalBound> },
    /// Inner equi-join; output is left columns then right columns. NULL keys match nothing. No keys: cross join.
    Join { left_keys: Vec<usize>, right_keys: Vec<usize>, residual: Vec<ExprRef> },
    /// Output is the keys, then one column per call. No keys: always exactly one row. No calls: DISTINCT.
    Aggregate { keys: Vec<usize>, calls: Vec<AggregateCall> },
    /// All rows of all inputs, multiplicities added.
    Union,
    /// A feature view. As a stream: its content changes, T1 at (t + 1, t + 1); `eager` iff some node or sink reads it so.
    Feature { spec: FeatureSpec, eager: bool },
    /// Input 0 is the left side, input i + 1 the feature view of part i. Output: left columns, the columns of each part,
    /// `status` (Utf8, the worst of the parts) and `event_time` (nanoseconds, the greatest of the parts).
    Lookup { parts: Vec<LookupPart>, at: LookupTime },
    /// Input columns, then one column per call: the score of each row under the version live at the row's epoch (C1b, C5).
    Predict { calls: Vec<PredictCall> },
    /// A drift monitor; output is [`DriftSpec::schema`].
    Drift { spec: DriftSpec },
}

/// The instant a lookup answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LookupTime {
    /// (t, t) for a left row that entered at t: AS OF now().
    #[default]
    Now,
    /// q = the left row's time in this column, or its own epoch without one; s = the end of the input. For training sets in mode
    /// event_time; the whole input must be one step.
    EventTime { column: Option<usize> },
    /// q = s = the left row's time in this column: what was served at that time. For training sets in mode as_served; the whole input must
    /// be one step, because the time may lie on either side of the row's own epoch.
    AsServed { column: usize },
}

impl LookupTime {
    /// The left column that says when; None: the row's own epoch.
    pub fn column(self) -> Option<usize> {
        match self {
            LookupTime::Now => None,
            LookupTime::EventTime { column } => column,
            LookupTime::AsServed { column } => Some(column),
        }
    }

    /// True if what a row asks for may come after the row.
    pub fn needs_whole_input(self) -> bool {
        self != LookupTime::Now
    }
}

/// One PREDICT or MODEL_VERSION of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictCall {
    /// Index in `Plan::models`.
    pub model: usize,
    /// Input columns, in the order and of the types of the model's inputs; empty for `PredictOutput::Version`.
    pub arguments: Vec<usize>,
    pub route: PredictRoute,
    pub output: PredictOutput,
}

/// Which version scores a row of epoch t, among the control records with epochs below t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PredictRoute {
    /// The last promoted one (also alias => 'champion').
    Live,
    /// version => n.
    Version(u32),
    /// alias => 'challenger': the last one, promoted or not.
    Challenger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PredictOutput {
    /// The model's output; a struct of them if it has several. NULL without a version, and where scoring failed.
    Score,
    /// MODEL_VERSION(model): the version's number as Int64; NULL without one.
    Version,
}

/// `column + offset_ns <comparison> now()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporalBound {
    pub column: usize,
    pub offset_ns: i64,
    pub comparison: Comparison,
}

/// One feature view of a lookup: which left columns are its entity, and which view columns are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupPart {
    /// Left columns, in the order of the view's ENTITY.
    pub keys: Vec<usize>,
    /// Columns of the view's schema.
    pub columns: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// Rows, or rows whose argument is not NULL.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    BoolAnd,
    BoolOr,
    /// Area under the ROC curve of scores (`argument`, Float64) and labels (`label`, Boolean): the share of (true, false) pairs whose true row
    /// scores higher, ties counting half. Exact under retraction. Rows with a NULL of either are left out; NULL without a row of both kinds.
    Auc,
}

impl AggregateFunction {
    pub fn sql(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::VarSamp => "var_samp",
            AggregateFunction::VarPop => "var_pop",
            AggregateFunction::StddevSamp => "stddev_samp",
            AggregateFunction::StddevPop => "stddev_pop",
            AggregateFunction::BoolAnd => "bool_and",
            AggregateFunction::BoolOr => "bool_or",
            AggregateFunction::Auc => "auc",
        }
    }
}

/// One aggregate of a GROUP BY. `argument` None is count(*). `filter` is a boolean column of the input.
/// The output type is the type of the column in the node's schema: count Int64, avg/var/stddev Float64,
/// sum Int64 of integers and Float64 of floats, min/max as the argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    pub argument: Option<usize>,
    /// The boolean column of labels; of auc only.
    pub label: Option<usize>,
    pub distinct: bool,
    pub filter: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKind {
    Materialized,
    Feature,
}

/// A named, readable result.
#[derive(Debug, Clone)]
pub struct ViewDef {
    pub name: String,
    pub node: NodeId,
    pub kind: ViewKind,
    pub schema: SchemaRef,
    /// The entity columns of a feature view, which come first in its schema.
    pub entity: Vec<String>,
}

impl Plan {
    /// True if some lookup asks for what may come after its row: the whole input must be one step, and no sooner is anything complete.
    pub fn needs_whole_input(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::Lookup { at, .. } if at.needs_whole_input()))
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    pub fn view(&self, name: &str) -> Option<&ViewDef> {
        self.views.iter().find(|view| view.name == name)
    }

    pub fn service(&self, name: &str) -> Option<&ServiceDef> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Checks what every consumer relies on: order of nodes, arity, column indexes. Errors: Internal.
    pub fn validate(&self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            let wrong = |what: &str| Err(Error::internal(format!("plan node {index}: {what}")));
            if node.inputs.iter().any(|input| input.index() >= index) {
                return wrong("an input does not stand before it");
            }
            let width = |input: usize| self.node(node.inputs[input]).schema.fields().len();
            let arity_ok = match &node.op {
                Op::Source { .. } => node.inputs.is_empty(),
                Op::Upsert { .. }
                | Op::Project { .. }
                | Op::Filter { .. }
                | Op::TemporalFilter { .. }
                | Op::Aggregate { .. }
                | Op::Feature { .. }
                | Op::Predict { .. }
                | Op::Drift { .. } => node.inputs.len() == 1,
                Op::Join { .. } => node.inputs.len() == 2,
                Op::Union => !node.inputs.is_empty(),
                Op::Lookup { parts, .. } => node.inputs.len() == parts.len() + 1,
            };
            if !arity_ok {
                return wrong("wrong number of inputs");
            }
            let columns_ok = match &node.op {
                Op::Source { source } => *source < self.sources.len(),
                Op::Upsert { key } => {
                    !key.is_empty() && key.iter().all(|column| *column < width(0)) && matches!(self.node(node.inputs[0]).op, Op::Source { .. })
                }
                Op::Project { exprs } => {
                    exprs.len() == node.schema.fields().len() && exprs.iter().flat_map(|expr| expr.columns()).all(|column| column < width(0))
                }
                Op::Filter { conjuncts } => conjuncts.iter().flat_map(|expr| expr.columns()).all(|column| column < width(0)),
                Op::TemporalFilter { bounds } => bounds.iter().all(|bound| bound.column < width(0)),
                Op::Join { left_keys, right_keys, .. } => {
                    left_keys.len() == right_keys.len()
                        && left_keys.iter().all(|key| *key < width(0))
                        && right_keys.iter().all(|key| *key < width(1))
                        && node.schema.fields().len() == width(0) + width(1)
                }
                Op::Aggregate { keys, calls } => {
                    node.schema.fields().len() == keys.len() + calls.len()
                        && keys
                            .iter()
                            .chain(calls.iter().flat_map(|call| call.argument.iter().chain(&call.label).chain(&call.filter)))
                            .all(|column| *column < width(0))
                }
                Op::Union => node.inputs.iter().all(|input| self.node(*input).schema.fields().len() == node.schema.fields().len()),
                Op::Feature { spec, .. } => spec.columns().into_iter().all(|column| column < width(0)),
                Op::Predict { calls } => {
                    node.schema.fields().len() == width(0) + calls.len()
                        && calls.iter().all(|call| {
                            let wanted =
                                self.models.get(call.model).map(|model| if call.output == PredictOutput::Score { model.inputs.len() } else { 0 });
                            wanted == Some(call.arguments.len()) && call.arguments.iter().all(|column| *column < width(0))
                        })
                }
                Op::Drift { spec } => spec.model < self.models.len() && spec.time < width(0) && spec.columns.iter().all(|column| *column < width(0)),
                Op::Lookup { parts, .. } => parts.iter().enumerate().all(|(part, lookup)| {
                    lookup.keys.iter().all(|key| *key < width(0)) && lookup.columns.iter().all(|column| *column < width(part + 1))
                }),
            };
            if !columns_ok {
                return wrong("a column index is out of range");
            }
        }
        Ok(())
    }
}
