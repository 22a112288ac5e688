//! The plan: a list of nodes in topological order, and what is exported from it. SQL goes out as this, the engine renders it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::{
    Comparison, DriftSpec, Error, ExprRef, FeatureSpec, ModelDef, OverCall, RankKind, Result, RetrainingDef, ServiceDef, SinkDef, SourceDef,
    TrainingSetDef, Windows,
};

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
    /// Two rows are partners if their keys are equal (a NULL equals nothing, or with `nulls_equal` a NULL) and every residual conjunct, over
    /// left columns then right columns, is true. No keys: all pairs are candidates. A pair whose residual fails is an error and no partner.
    /// What comes of it is the kind's; multiplicities are those of SQL. Null-aware kinds have at least one key and no residual.
    Join { kind: JoinKind, left_keys: Vec<usize>, right_keys: Vec<usize>, nulls_equal: bool, residual: Vec<ExprRef> },
    /// Output is the keys, then one column per call. No keys: always exactly one row. No calls: DISTINCT.
    Aggregate { keys: Vec<usize>, calls: Vec<AggregateCall> },
    /// The rows of each partition (NULL is a partition) whose rank r by `order` has offset < r ≤ offset + limit. Rows that tie are told apart by
    /// the whole row, ascending, so that the answer is a function of the rows; duplicates are rows of their own. `number`: the rank (UInt64)
    /// stands behind the columns.
    Top { partition: Vec<usize>, order: Vec<SortKey>, rank: RankKind, offset: u64, limit: u64, number: bool },
    /// Input columns, then one per call: its value for each row among the rows of its partition, in `order`, then by the whole row.
    Over { partition: Vec<usize>, order: Vec<SortKey>, calls: Vec<OverCall> },
    /// Every left row with the one right row of equal keys that is nearest to it in time, among those for which `left time <comparison> right
    /// time` holds: the greatest time for > and >=, the least for < and <=; of several rows at that time the greatest by the whole row. NULLs in
    /// keys and times match nothing. Left rows without a match have NULLs (`outer`), or are left out.
    Asof { left_keys: Vec<usize>, right_keys: Vec<usize>, left_time: usize, right_time: usize, comparison: Comparison, outer: bool },
    /// Every left row with each right row of equal keys that had arrived before the left row's own epoch, or, with `at`, before the time in
    /// that left column if it is earlier (NULL: none). A fact about the row (C1b): later changes of the right side change nothing. Left rows
    /// without a match have NULLs (`outer`), or are left out.
    LookupJoin { left_keys: Vec<usize>, right_keys: Vec<usize>, at: Option<usize>, outer: bool },
    /// All rows of all inputs, multiplicities added.
    Union,
    /// The rows of input 0 against those of input 1, both of the node's types, by counting equal rows; NULL equals NULL.
    SetOperation { operation: SetOperation },
    /// The one row of its input, which stands for a value. No row: a row of NULLs. More than one, or one more than once: an error, and no row.
    SingleRow,
    /// These rows, at epoch 0.
    Values { rows: RecordBatch },
    /// One column per expression, those in `lists` being lists: as many rows as the longest of them has elements, the n-th elements in the n-th
    /// row, NULL where a list is shorter; the other columns repeated. Empty and NULL lists have no elements. A row of which an expression fails
    /// is an error.
    Unnest { exprs: Vec<ExprRef>, lists: Vec<usize> },
    /// A feature view. As a stream: its content changes, T1 at (t + 1, t + 1); `eager` iff some node or sink reads it so.
    Feature { spec: FeatureSpec, eager: bool },
    /// Input 0 is the left side, input i + 1 the feature view of part i. Output: left columns, the columns of each part,
    /// `status` (Utf8, the worst of the parts) and `event_time` (nanoseconds, the greatest of the parts).
    Lookup { parts: Vec<LookupPart>, at: LookupTime },
    /// Input columns, then one column per call: the score of each row under the version live at the row's epoch (C1b, C5).
    Predict { calls: Vec<PredictCall> },
    /// Input columns, then `window_start` and `window_end` in the type of the time: one row per window that holds the row's time, a
    /// timestamp. A NULL time is in no window. A row of which a window does not fit the type is an error, and in none.
    Windows { time: usize, windows: Windows },
    /// Input columns, then `session` (Binary), a name that rows have in common iff they are of one session at that epoch: of equal `keys`, NULLs
    /// being equal, and of times between which no gap is longer than `gap`, in the unit of the time. NULL times are in no session. Names are
    /// not kept over epochs, and mean nothing beside being equal.
    Session { time: usize, gap: i64, keys: Vec<usize> },
    /// Input columns, then `arrival`: the epoch at which the row entered here, as TIMESTAMP (microseconds). It stays with the row until it is
    /// retracted (C1b); of equal rows the oldest goes first.
    Arrival,
    /// The rows that enter or leave while the window that ends at column `end` is open; the others go to `late(view)` (T12). A window is open
    /// in every epoch up to the first after which the least watermark of the sources below ([`Plan::timed_sources`]) has reached its end. A NULL
    /// end is always open.
    Gate { end: usize, view: String },
    /// The rows of each window as they are when it closes, at that epoch, and never again: EMIT ON WINDOW CLOSE. A NULL end never closes.
    EmitOnClose { end: usize },
    /// The changes of the input at the next multiple of this many milliseconds since 1970: EMIT EVERY.
    EmitEvery { every_ms: u64 },
    /// A drift monitor; output is [`DriftSpec::schema`].
    Drift { spec: DriftSpec },
    /// WITH RECURSIVE: input 0 (the base) and what `body` makes of it, again and again until nothing new comes; further inputs are what
    /// else the body reads. `distinct` (UNION): each row once. Otherwise (UNION ALL): the rows of every round, counted. After
    /// [`RECURSION_ROUNDS_MAX`] rounds it ends as it is, with an error row.
    Recursive { body: RecursionBody, distinct: bool },
    /// Only in the body of a recursion: 0 is the rows of the round before, i the input i of its node.
    Argument { index: usize },
}

/// A recursion that finds new rows after so many rounds has no end, as far as anyone can tell.
pub const RECURSION_ROUNDS_MAX: u64 = 1_000;

/// What one round of a recursion computes. It is linear in argument 0: the union of two rounds gives the union of the results.
#[derive(Debug, Clone)]
pub struct RecursionBody {
    /// Inputs of a node stand before it; arguments, projections, filters, inner joins and unions only. The last one is the result.
    pub nodes: Vec<Node>,
}

/// What a join makes of rows with and without partners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Left columns, then right columns, of every two partners.
    Inner,
    /// As Inner; and each left row without a partner, with NULLs.
    Left,
    /// As Left; and each right row without a partner, with NULLs.
    Full,
    /// Left rows with a partner, each as often as it is there (EXISTS).
    Semi,
    /// Left rows without a partner (NOT EXISTS).
    Anti,
    /// Every left row, and whether it has a partner (EXISTS as a value).
    Mark,
    /// NOT IN: the first keys are what is compared, the others say which right rows are in a left row's list. The left rows of which no row of
    /// their list is equal or, because of a NULL on either side, might be.
    NullAwareAnti,
    /// IN as a value: every left row, then true if a row of its list is equal, else NULL if one might be, else false.
    NullAwareMark,
}

impl JoinKind {
    pub fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "Join",
            JoinKind::Left => "LeftJoin",
            JoinKind::Full => "FullJoin",
            JoinKind::Semi => "SemiJoin",
            JoinKind::Anti => "AntiJoin",
            JoinKind::Mark => "MarkJoin",
            JoinKind::NullAwareAnti => "NotInJoin",
            JoinKind::NullAwareMark => "InMarkJoin",
        }
    }

    /// The columns of the right side are in the output.
    pub fn shows_right(self) -> bool {
        matches!(self, JoinKind::Inner | JoinKind::Left | JoinKind::Full)
    }

    /// The last output column is a mark: Boolean.
    pub fn has_mark(self) -> bool {
        matches!(self, JoinKind::Mark | JoinKind::NullAwareMark)
    }

    pub fn is_null_aware(self) -> bool {
        matches!(self, JoinKind::NullAwareAnti | JoinKind::NullAwareMark)
    }

    /// Of inputs that only grow, the output only grows.
    pub fn keeps_append_only(self) -> bool {
        matches!(self, JoinKind::Inner | JoinKind::Semi)
    }
}

/// What is left of equal rows on two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetOperation {
    Intersect,
    IntersectAll,
    Except,
    ExceptAll,
}

impl SetOperation {
    pub fn sql(self) -> &'static str {
        match self {
            SetOperation::Intersect => "INTERSECT",
            SetOperation::IntersectAll => "INTERSECT ALL",
            SetOperation::Except => "EXCEPT",
            SetOperation::ExceptAll => "EXCEPT ALL",
        }
    }

    /// How often a row is in the output that is so often on the left and on the right.
    pub fn count(self, [left, right]: [i64; 2]) -> i64 {
        match self {
            SetOperation::Intersect => i64::from(left > 0 && right > 0),
            SetOperation::IntersectAll => left.min(right).max(0),
            SetOperation::Except => i64::from(left > 0 && right <= 0),
            SetOperation::ExceptAll => (left - right.max(0)).max(0),
        }
    }

    /// Of inputs that only grow, the output only grows.
    pub fn keeps_append_only(self) -> bool {
        matches!(self, SetOperation::Intersect | SetOperation::IntersectAll)
    }
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

/// A column to order by. NaN is the greatest float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SortKey {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
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
    /// Area under the ROC curve of scores (`argument`, Float64) and labels (`second`, Boolean): the share of (true, false) pairs whose true row
    /// scores higher, ties counting half. Exact under retraction. Rows with a NULL of either are left out; NULL without a row of both kinds.
    Auc,
    /// Bit by bit over integers; NULL of no rows.
    BitAnd,
    BitOr,
    BitXor,
    /// Of pairs (`argument` is y, `second` is x, both Float64) without a NULL; from exact moments, rounded once at the end.
    Corr,
    CovarSamp,
    CovarPop,
    RegrSlope,
    RegrIntercept,
    RegrCount,
    RegrR2,
    RegrAvgX,
    RegrAvgY,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    /// The value at the fraction `Parameter::Fraction` of the ordered values, interpolated between two neighbours. NaN is greatest.
    /// Decimals are truncated to their scale.
    PercentileCont,
    /// How many distinct values: exact to 256, then an estimate (T24). NaN counts as one value.
    ApproxDistinct,
    /// The value at a fraction, within 1 % of its magnitude (T24). With `second`, each row weighs that much (Float64); a weight that is not
    /// above 0 leaves the row out.
    ApproxPercentile,
    /// The first and last value by `order_by`, then by the value; without `order_by` by arrival (epoch, position). NULLs count unless
    /// `ignore_nulls`.
    FirstValue,
    LastValue,
    /// The value at `Parameter::Index`, from 1, or from the end if negative; NULL beyond.
    NthValue,
    /// All values, ordered as for FirstValue; NULL of no rows.
    ArrayAgg,
    /// All texts but NULLs, ordered as for FirstValue, with `Parameter::Text` between them.
    StringAgg,
}

/// A constant of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AggregateParameter {
    Fraction(Fraction),
    Index(i64),
    Text(String),
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Fraction(f64);

impl Fraction {
    /// None if it is no number from 0 to 1.
    pub fn new(value: f64) -> Option<Fraction> {
        // -0.0 becomes 0.0, so that equal fractions have equal bits.
        (0.0..=1.0).contains(&value).then_some(Fraction(value + 0.0))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Fraction {
    fn eq(&self, other: &Fraction) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Fraction {}

impl std::hash::Hash for Fraction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
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
            AggregateFunction::BitAnd => "bit_and",
            AggregateFunction::BitOr => "bit_or",
            AggregateFunction::BitXor => "bit_xor",
            AggregateFunction::Corr => "corr",
            AggregateFunction::CovarSamp => "covar_samp",
            AggregateFunction::CovarPop => "covar_pop",
            AggregateFunction::RegrSlope => "regr_slope",
            AggregateFunction::RegrIntercept => "regr_intercept",
            AggregateFunction::RegrCount => "regr_count",
            AggregateFunction::RegrR2 => "regr_r2",
            AggregateFunction::RegrAvgX => "regr_avgx",
            AggregateFunction::RegrAvgY => "regr_avgy",
            AggregateFunction::RegrSxx => "regr_sxx",
            AggregateFunction::RegrSyy => "regr_syy",
            AggregateFunction::RegrSxy => "regr_sxy",
            AggregateFunction::PercentileCont => "percentile_cont",
            AggregateFunction::ApproxDistinct => "approx_distinct",
            AggregateFunction::ApproxPercentile => "approx_percentile_cont",
            AggregateFunction::FirstValue => "first_value",
            AggregateFunction::LastValue => "last_value",
            AggregateFunction::NthValue => "nth_value",
            AggregateFunction::ArrayAgg => "array_agg",
            AggregateFunction::StringAgg => "string_agg",
        }
    }

    /// Corr, covariances and regressions: functions of pairs of numbers.
    pub fn is_of_pairs(self) -> bool {
        use AggregateFunction::*;
        matches!(
            self,
            Corr | CovarSamp | CovarPop | RegrSlope | RegrIntercept | RegrCount | RegrR2 | RegrAvgX | RegrAvgY | RegrSxx | RegrSyy | RegrSxy
        )
    }

    /// Functions whose accumulators over parts of the rows add up, so that windows may be made of them.
    pub fn merges(self) -> bool {
        use AggregateFunction::*;
        matches!(self, Count | Sum | Avg | Min | Max | VarSamp | VarPop | StddevSamp | StddevPop | BoolAnd | BoolOr)
    }

    /// Functions whose value depends on an order of the rows.
    pub fn is_of_sequences(self) -> bool {
        use AggregateFunction::*;
        matches!(self, FirstValue | LastValue | NthValue | ArrayAgg | StringAgg)
    }
}

/// One aggregate of a GROUP BY. `argument` None is count(*). `filter` is a boolean column of the input.
/// The output type is the type of the column in the node's schema: count Int64, avg/var/stddev Float64 (avg of decimals a decimal),
/// sum Int64, UInt64, Decimal128 or Float64, of sequences, min and max as the argument (ArrayAgg: a list of it).
/// A sum or mean that its type cannot hold is an error of the group (T21).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    pub argument: Option<usize>,
    /// The second argument: labels of auc, x of pairs, weights.
    pub second: Option<usize>,
    /// Equal values count once. Of sequences: values that are equal, with equal `order_by`.
    pub distinct: bool,
    pub filter: Option<usize>,
    /// Of sequences only.
    pub order_by: Vec<SortKey>,
    /// Of sequences only.
    pub ignore_nulls: bool,
    pub parameter: Option<AggregateParameter>,
}

impl AggregateCall {
    /// A call with nothing but an argument.
    pub fn new(function: AggregateFunction, argument: Option<usize>) -> AggregateCall {
        AggregateCall { function, argument, second: None, distinct: false, filter: None, order_by: Vec::new(), ignore_nulls: false, parameter: None }
    }

    /// The input columns it reads.
    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.argument.iter().chain(&self.second).chain(&self.filter).copied().chain(self.order_by.iter().map(|key| key.column))
    }
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

impl Op {
    /// The join of rows whose keys are equal, and of which the residual is true.
    pub fn inner_join(left_keys: Vec<usize>, right_keys: Vec<usize>, residual: Vec<ExprRef>) -> Op {
        Op::Join { kind: JoinKind::Inner, left_keys, right_keys, nulls_equal: false, residual }
    }
}

impl Plan {
    /// True if some lookup asks for what may come after its row: the whole input must be one step, and no sooner is anything complete.
    pub fn needs_whole_input(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::Lookup { at, .. } if at.needs_whole_input()))
    }

    /// The sources below a node that declare a WATERMARK, ascending: their time says which windows are closed.
    pub fn timed_sources(&self, id: NodeId) -> Vec<usize> {
        let mut below = vec![false; id.index() + 1];
        below[id.index()] = true;
        let mut sources = std::collections::BTreeSet::new();
        for index in (0..=id.index()).rev() {
            if !below[index] {
                continue;
            }
            let node = &self.nodes[index];
            node.inputs.iter().filter(|input| input.index() < index).for_each(|input| below[input.index()] = true);
            if let Op::Source { source } = node.op {
                sources.extend(self.sources[source].event_time.map(|_| source));
            }
        }
        sources.into_iter().collect()
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
                Op::Source { .. } | Op::Values { .. } => node.inputs.is_empty(),
                Op::Upsert { .. }
                | Op::Project { .. }
                | Op::Filter { .. }
                | Op::TemporalFilter { .. }
                | Op::Aggregate { .. }
                | Op::SingleRow
                | Op::Unnest { .. }
                | Op::Top { .. }
                | Op::Over { .. }
                | Op::Feature { .. }
                | Op::Predict { .. }
                | Op::Windows { .. }
                | Op::Session { .. }
                | Op::Arrival
                | Op::Gate { .. }
                | Op::EmitOnClose { .. }
                | Op::EmitEvery { .. }
                | Op::Drift { .. } => node.inputs.len() == 1,
                Op::Recursive { body, .. } => !node.inputs.is_empty() && !body.nodes.is_empty(),
                Op::Argument { .. } => node.inputs.is_empty(),
                Op::Join { .. } | Op::SetOperation { .. } | Op::Asof { .. } | Op::LookupJoin { .. } => node.inputs.len() == 2,
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
                Op::Join { kind, left_keys, right_keys, nulls_equal, residual } => {
                    let added = if kind.shows_right() { width(1) } else { usize::from(kind.has_mark()) };
                    left_keys.len() == right_keys.len()
                        && left_keys.iter().all(|key| *key < width(0))
                        && right_keys.iter().all(|key| *key < width(1))
                        && residual.iter().flat_map(|expr| expr.columns()).all(|column| column < width(0) + width(1))
                        && node.schema.fields().len() == width(0) + added
                        && (!kind.is_null_aware() || (!left_keys.is_empty() && residual.is_empty() && !nulls_equal))
                }
                Op::Aggregate { keys, calls } => {
                    node.schema.fields().len() == keys.len() + calls.len()
                        && keys.iter().copied().chain(calls.iter().flat_map(AggregateCall::columns)).all(|column| column < width(0))
                }
                Op::Asof { left_keys, right_keys, left_time, right_time, .. } => {
                    left_keys.len() == right_keys.len()
                        && left_keys.iter().chain([left_time]).all(|column| *column < width(0))
                        && right_keys.iter().chain([right_time]).all(|column| *column < width(1))
                        && node.schema.fields().len() == width(0) + width(1)
                }
                Op::LookupJoin { left_keys, right_keys, at, .. } => {
                    left_keys.len() == right_keys.len()
                        && left_keys.iter().chain(at).all(|column| *column < width(0))
                        && right_keys.iter().all(|column| *column < width(1))
                        && node.schema.fields().len() == width(0) + width(1)
                }
                Op::Top { partition, order, number, .. } => {
                    node.schema.fields().len() == width(0) + usize::from(*number)
                        && partition.iter().chain(order.iter().map(|key| &key.column)).all(|column| *column < width(0))
                }
                Op::Over { partition, order, calls } => {
                    let arguments = calls.iter().flat_map(|call| call.function.columns());
                    node.schema.fields().len() == width(0) + calls.len()
                        && partition.iter().copied().chain(order.iter().map(|key| key.column)).chain(arguments).all(|column| column < width(0))
                }
                Op::SingleRow => node.schema.fields().len() == width(0),
                Op::Values { rows } => rows.num_columns() == node.schema.fields().len(),
                Op::Unnest { exprs, lists } => {
                    node.schema.fields().len() == exprs.len()
                        && lists.iter().all(|list| *list < exprs.len())
                        && exprs.iter().flat_map(|expr| expr.columns()).all(|column| column < width(0))
                }
                Op::Union | Op::SetOperation { .. } => {
                    node.inputs.iter().all(|input| self.node(*input).schema.fields().len() == node.schema.fields().len())
                }
                Op::Feature { spec, .. } => spec.columns().into_iter().all(|column| column < width(0)),
                Op::Predict { calls } => {
                    node.schema.fields().len() == width(0) + calls.len()
                        && calls.iter().all(|call| {
                            let wanted =
                                self.models.get(call.model).map(|model| if call.output == PredictOutput::Score { model.inputs.len() } else { 0 });
                            wanted == Some(call.arguments.len()) && call.arguments.iter().all(|column| *column < width(0))
                        })
                }
                Op::Windows { time, windows } => *time < width(0) && windows.is_sound() && node.schema.fields().len() == width(0) + 2,
                Op::Session { time, gap, keys } => {
                    keys.iter().chain([time]).all(|column| *column < width(0)) && *gap > 0 && node.schema.fields().len() == width(0) + 1
                }
                Op::Gate { end, .. } | Op::EmitOnClose { end } => *end < width(0) && node.schema.fields().len() == width(0),
                Op::EmitEvery { every_ms } => *every_ms > 0 && node.schema.fields().len() == width(0),
                Op::Arrival => node.schema.fields().len() == width(0) + 1,
                Op::Recursive { body, .. } => {
                    Plan { nodes: body.nodes.clone(), ..Plan::default() }.validate()?;
                    let known = |inner: &Node| !matches!(inner.op, Op::Argument { index } if index >= node.inputs.len());
                    body.nodes.iter().all(known) && body.nodes.last().is_some_and(|last| last.schema.fields().len() == width(0))
                }
                Op::Argument { .. } => true,
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
