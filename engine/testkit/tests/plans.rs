//! A plan with every operator in it, and the input for it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use freshet_core::{
    AggregateCall, AggregateFunction, Column, Compare, Comparison, Encode, Error, Expr, ExprRef, FeatureColumn, FeatureSpec, Format, Frame,
    FrameBound, FrameUnit, JoinKind, LatestSpec, Literal, LookupPart, LookupTime, Node, NodeId, Op, OverCall, OverFunction, Plan, RankKind,
    RecursionBody, RollingAggregate, RollingSpec, SortKey, SourceDef, TemporalBound, Value, Window, WindowEdge,
};
use freshet_testkit::generate::{Shape, records};
use freshet_testkit::{Interpreter, assign_epochs};

pub const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// Fails on 2, as a division by (v − 2) would.
#[derive(Debug)]
pub struct NoTwos {
    pub column: usize,
}

impl Expr for NoTwos {
    fn data_type(&self) -> DataType {
        DataType::Int64
    }
    fn evaluate(&self, batch: &arrow::array::RecordBatch) -> freshet_core::Result<ArrayRef> {
        let column = batch.column(self.column).as_primitive::<Int64Type>();
        if column.iter().flatten().any(|value| value == 2) {
            return Err(Error::data("2 is not allowed"));
        }
        Ok(Arc::new(column.clone()))
    }
    fn sql(&self) -> String {
        format!("no_twos(#{})", self.column)
    }
    fn columns(&self) -> Vec<usize> {
        vec![self.column]
    }
}

pub fn column(schema: &SchemaRef, index: usize) -> Column {
    Column { index, name: schema.field(index).name().clone(), data_type: schema.field(index).data_type().clone() }
}

pub fn compare(schema: &SchemaRef, index: usize, comparison: Comparison, value: i64) -> ExprRef {
    let literal = Literal { value: Arc::new(Int64Array::from(vec![value])) as Arc<dyn Array>, text: value.to_string() };
    Arc::new(Compare { column: column(schema, index), comparison, literal })
}

/// (k text, n int, x float, e timestamp, ok bool)
pub fn source(name: &str) -> SourceDef {
    let fields = [("k", DataType::Utf8), ("n", DataType::Int64), ("x", DataType::Float64), ("e", MS), ("ok", DataType::Boolean)];
    let schema = Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()));
    SourceDef { event_time: Some(3), ..SourceDef::new(name, schema, "memory", Format::Debezium, Encode::Json) }
}

pub fn node(plan: &mut Plan, op: Op, inputs: &[NodeId], fields: Vec<Field>) -> NodeId {
    plan.push(Node { op, inputs: inputs.to_vec(), schema: Arc::new(Schema::new(fields)), append_only: false })
}

pub fn fields_of(plan: &Plan, id: NodeId) -> Vec<Field> {
    plan.node(id).schema.fields().iter().map(|field| field.as_ref().clone()).collect()
}

pub fn add_source(plan: &mut Plan, def: SourceDef) -> NodeId {
    let fields = def.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    plan.sources.push(def);
    let source = plan.sources.len() - 1;
    node(plan, Op::Source { source }, &[], fields)
}

pub fn aggregate_call(function: AggregateFunction, argument: usize, window: Window) -> RollingAggregate {
    RollingAggregate { function, argument: Some(argument), filter: None, window }
}

/// A rolling view by k whose features are its aggregates.
pub fn rolling_spec(aggregates: Vec<(RollingAggregate, DataType)>) -> RollingSpec {
    let feature = |(index, (_, data_type)): (usize, &(RollingAggregate, DataType))| FeatureColumn {
        name: format!("f{index}"),
        expr: Arc::new(Column { index: index + 1, name: format!("f{index}"), data_type: data_type.clone() }),
    };
    RollingSpec {
        entity: vec![0],
        time: 3,
        features: aggregates.iter().enumerate().map(feature).collect(),
        aggregates: aggregates.into_iter().map(|(aggregate, _)| aggregate).collect(),
        ttl_ms: None,
        hop_ms: None,
        include_now: false,
    }
}

pub fn windows() -> [Window; 4] {
    let edge = |offset_ms, inclusive| Some(WindowEdge { offset_ms, inclusive });
    [
        Window::last_ms(5_000),
        Window { lower: edge(20_000, true), upper: None },
        Window { lower: edge(20_000, false), upper: edge(5_000, true) },
        Window { lower: edge(10_000, true), upper: edge(1_000, false) },
    ]
}

pub fn some_rolling_spec() -> RollingSpec {
    use AggregateFunction::*;
    let [narrow, wide, middle, early] = windows();
    let count = RollingAggregate { function: Count, argument: None, filter: None, window: narrow };
    let filtered = RollingAggregate { filter: Some(4), ..count.clone() };
    rolling_spec(vec![
        (count, DataType::Int64),
        (filtered, DataType::Int64),
        (aggregate_call(Sum, 2, wide), DataType::Float64),
        (aggregate_call(Avg, 1, narrow), DataType::Float64),
        (aggregate_call(Min, 2, middle), DataType::Float64),
        (aggregate_call(Max, 1, wide), DataType::Int64),
        (aggregate_call(StddevSamp, 1, early), DataType::Float64),
        (aggregate_call(BoolOr, 4, middle), DataType::Boolean),
    ])
}

pub fn add_feature(plan: &mut Plan, input: NodeId, spec: FeatureSpec) -> NodeId {
    let mut fields = vec![Field::new("k", DataType::Utf8, true)];
    match &spec {
        FeatureSpec::Rolling(rolling) => {
            fields.extend(rolling.features.iter().map(|feature| Field::new(&feature.name, feature.expr.data_type(), true)))
        }
        FeatureSpec::Latest(latest) => fields.extend(latest.features.iter().map(|column| plan.node(input).schema.field(*column).clone())),
    }
    node(plan, Op::Feature { spec, eager: true }, &[input], fields)
}

pub fn latest_spec() -> LatestSpec {
    LatestSpec { entity: vec![0], time: 3, features: vec![1, 2], ttl_ms: Some(15_000), include_now: false }
}

/// Every operator over two sources; a view over each.
pub fn every_operator() -> Plan {
    use AggregateFunction::*;
    let mut plan = Plan { clock: freshet_core::ClockKind::Event, ..Plan::default() };
    let (left, right) = (add_source(&mut plan, source("left")), add_source(&mut plan, source("right")));
    let schema = plan.node(left).schema.clone();
    let same = fields_of(&plan, left);
    let conjuncts = vec![compare(&schema, 1, Comparison::Less, 3), Arc::new(NotTwo { inner: NoTwos { column: 1 } }) as ExprRef];
    let filter = node(&mut plan, Op::Filter { conjuncts }, &[left], same.clone());
    let mut exprs: Vec<ExprRef> = (0..5).map(|index| Arc::new(column(&schema, index)) as ExprRef).collect();
    exprs[1] = Arc::new(NoTwos { column: 1 });
    let project = node(&mut plan, Op::Project { exprs }, &[right], same.clone());
    let bounds = vec![
        TemporalBound { column: 3, offset_ns: 4_000_000_000, comparison: Comparison::Greater },
        TemporalBound { column: 3, offset_ns: -1_000_000_000, comparison: Comparison::LessOrEqual },
    ];
    let temporal = node(&mut plan, Op::TemporalFilter { bounds }, &[left], same.clone());
    let union = node(&mut plan, Op::Union, &[filter, project, temporal], same.clone());
    let residual = vec![compare(&schema, 1, Comparison::Greater, 0)];
    let both = same.iter().chain(&same).cloned().collect();
    let join = node(&mut plan, Op::inner_join(vec![0], vec![0], residual), &[filter, right], both);
    let call = |function, argument, distinct| AggregateCall { distinct, ..AggregateCall::new(function, argument) };
    let area = AggregateCall { second: Some(4), ..call(Auc, Some(2), false) };
    let calls = vec![call(Count, None, false), call(Sum, Some(2), false), call(Sum, Some(1), true), call(Max, Some(2), false), area];
    let types = [DataType::Int64, DataType::Float64, DataType::Int64, DataType::Float64, DataType::Float64];
    let columns: Vec<Field> = types.iter().enumerate().map(|(index, data_type)| Field::new(format!("a{index}"), data_type.clone(), true)).collect();
    let grouped = [vec![same[0].clone()], columns.clone()].concat();
    let aggregate = node(&mut plan, Op::Aggregate { keys: vec![0], calls: calls.clone() }, &[union], grouped);
    let total = node(&mut plan, Op::Aggregate { keys: vec![], calls }, &[join], columns);
    let rolling = add_feature(&mut plan, left, FeatureSpec::Rolling(RollingSpec { ttl_ms: Some(30_000), ..some_rolling_spec() }));
    let hopping = RollingSpec { hop_ms: Some(2_500), ..some_rolling_spec() };
    let hopping = add_feature(&mut plan, filter, FeatureSpec::Rolling(hopping));
    let including = RollingSpec { include_now: true, ..some_rolling_spec() };
    let including = add_feature(&mut plan, left, FeatureSpec::Rolling(including));
    let latest = add_feature(&mut plan, temporal, FeatureSpec::Latest(latest_spec()));
    add_ordered(&mut plan, left, right);
    let mut looked_up = fields_of(&plan, right);
    looked_up.extend(["f0", "f2"].map(|name| Field::new(name, DataType::Float64, true)));
    looked_up.push(Field::new("n", DataType::Int64, true));
    looked_up.push(Field::new("status", DataType::Utf8, true));
    looked_up.push(Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true));
    looked_up[5] = Field::new("f0", DataType::Int64, true);
    let parts = vec![LookupPart { keys: vec![0], columns: vec![1, 3] }, LookupPart { keys: vec![0], columns: vec![1] }];
    node(&mut plan, Op::Lookup { parts, at: LookupTime::Now }, &[right, rolling, latest], looked_up);
    let reached = add_recursion(&mut plan, left, right);
    let _ = (aggregate, total, hopping, including, reached);
    plan.validate().unwrap();
    plan
}

/// Which numbers a key reaches through equal keys of `right`, leaving out what fails.
fn add_recursion(plan: &mut Plan, left: NodeId, right: NodeId) -> NodeId {
    let own = fields_of(plan, left);
    let (schema, pair) = (plan.node(left).schema.clone(), own[..2].to_vec());
    let pick = |columns: [usize; 2], schema: &SchemaRef| columns.iter().map(|index| Arc::new(column(schema, *index)) as ExprRef).collect();
    let base = node(plan, Op::Project { exprs: pick([0, 1], &schema) }, &[left], pair.clone());
    let mut body = Plan::default();
    let before = node(&mut body, Op::Argument { index: 0 }, &[], pair.clone());
    let others = node(&mut body, Op::Argument { index: 1 }, &[], own.clone());
    let residual = vec![compare(&schema, 1, Comparison::GreaterOrEqual, 0)];
    let join = Op::Join { kind: JoinKind::Inner, nulls_equal: false, left_keys: vec![1], right_keys: vec![1], residual };
    let join = node(&mut body, join, &[before, others], pair.iter().chain(&own).cloned().collect());
    let joined = body.node(join).schema.clone();
    let (conjuncts, fields) = (vec![Arc::new(NotTwo { inner: NoTwos { column: 3 } }) as ExprRef], fields_of(&body, join));
    let kept = node(&mut body, Op::Filter { conjuncts }, &[join], fields);
    node(&mut body, Op::Project { exprs: pick([2, 1], &joined) }, &[kept], pair.clone());
    node(plan, Op::Recursive { body: RecursionBody { nodes: body.nodes }, distinct: true }, &[base, right], pair)
}

/// Rows in order, and joins in time.
fn add_ordered(plan: &mut Plan, left: NodeId, right: NodeId) {
    let key = |column, descending| SortKey { column, descending, nulls_first: true };
    let same = fields_of(plan, left);
    let with = |more: &[(&str, DataType)]| {
        same.iter().cloned().chain(more.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true))).collect::<Vec<_>>()
    };
    for (rank, number) in [(RankKind::RowNumber, true), (RankKind::RowNumber, false), (RankKind::Rank, true), (RankKind::DenseRank, false)] {
        let op = Op::Top { partition: vec![0], order: vec![key(1, true)], rank, offset: 1, limit: 2, number };
        let fields = if number { with(&[("rank", DataType::UInt64)]) } else { same.clone() };
        node(plan, op, &[left], fields);
    }
    let frame = |unit, start, end| Frame { unit, start, end };
    let open = frame(FrameUnit::Range, FrameBound::Unbounded, FrameBound::Current);
    let rows = frame(FrameUnit::Rows, FrameBound::Preceding(Value::Int(2)), FrameBound::Following(Value::Int(1)));
    let near = frame(FrameUnit::Range, FrameBound::Preceding(Value::Int(2_000)), FrameBound::Following(Value::Int(500)));
    let sum =
        |column| OverFunction::Aggregate(AggregateCall { distinct: false, filter: None, ..AggregateCall::new(AggregateFunction::Sum, Some(column)) });
    let calls = vec![
        OverCall { function: OverFunction::Rank(RankKind::DenseRank), frame: open.clone() },
        OverCall { function: OverFunction::Lag { column: 1, offset: 2, default: Value::Int(-1), ignore_nulls: false }, frame: open.clone() },
        OverCall { function: OverFunction::Nth { column: 2, nth: 2, ignore_nulls: false }, frame: open.clone() },
        OverCall { function: sum(2), frame: open },
        OverCall { function: sum(1), frame: rows },
        OverCall { function: sum(2), frame: near },
    ];
    let columns = [
        ("d", DataType::UInt64),
        ("l", DataType::Int64),
        ("n", DataType::Float64),
        ("s", DataType::Float64),
        ("r", DataType::Int64),
        ("t", DataType::Float64),
    ];
    node(plan, Op::Over { partition: vec![0], order: vec![key(3, false)], calls }, &[right], with(&columns));
    let both: Vec<Field> = same.iter().chain(&fields_of(plan, right)).cloned().collect();
    let (left_keys, right_keys) = (vec![0], vec![0]);
    let comparison = Comparison::GreaterOrEqual;
    let asof = Op::Asof { left_keys: left_keys.clone(), right_keys: right_keys.clone(), left_time: 3, right_time: 3, comparison, outer: true };
    node(plan, asof, &[left, right], both.clone());
    for at in [None, Some(3)] {
        let lookup = Op::LookupJoin { left_keys: left_keys.clone(), right_keys: right_keys.clone(), at, outer: at.is_none() };
        node(plan, lookup, &[left, right], both.clone());
    }
}

/// True unless it fails.
#[derive(Debug)]
struct NotTwo {
    inner: NoTwos,
}

impl Expr for NotTwo {
    fn data_type(&self) -> DataType {
        DataType::Boolean
    }
    fn evaluate(&self, batch: &arrow::array::RecordBatch) -> freshet_core::Result<ArrayRef> {
        self.inner.evaluate(batch)?;
        Ok(Arc::new(arrow::array::BooleanArray::from(vec![true; batch.num_rows()])))
    }
    fn sql(&self) -> String {
        "not_two".into()
    }
    fn columns(&self) -> Vec<usize> {
        self.inner.columns()
    }
}

/// The plan over random input for each of its sources.
pub fn interpret(plan: &Plan, seed: u64, shape: &Shape) -> Interpreter {
    let inputs = plan.sources.iter().enumerate().map(|(index, def)| {
        let records = records(seed * 31 + index as u64, def, shape);
        assign_epochs(def, index, &records).unwrap().rows
    });
    Interpreter::new(plan, inputs.collect())
}
