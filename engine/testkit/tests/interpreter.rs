//! Laws of the interpreter: it agrees with the model, with itself, and with the rules about errors and lookups.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use freshet_core::{
    AggregateCall, AggregateFunction, Comparison, Epoch, FeatureSpec, LatestSpec, LookupPart, LookupTime, NodeId, Op, Plan, ReadPoint, RollingSpec,
    Status, Value,
};
use freshet_testkit::compare::{accumulate, assert_same};
use freshet_testkit::generate::Shape;
use freshet_testkit::interpreter::{Content, event_time_of};
use freshet_testkit::lives::Change;
use freshet_testkit::model::{Event, FeatureModel, ViewKind};
use freshet_testkit::{InputRow, Interpreter};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::plans::*;
use crate::written::int;

fn one_view(spec: FeatureSpec) -> (Plan, NodeId) {
    let mut plan = Plan::default();
    let source = add_source(&mut plan, source("left"));
    let view = add_feature(&mut plan, source, spec);
    plan.validate().unwrap();
    (plan, view)
}

fn events(plan: &Plan, rows: &[InputRow]) -> Vec<Change<Event>> {
    let time = |row: &InputRow| event_time_of(&row.values[3], plan.sources[0].schema.field(3).data_type()).unwrap();
    let event = |row: &InputRow| Event { key: vec![row.values[0].clone()], e: time(row), values: row.values.clone() };
    rows.iter().filter(|row| !row.dead).map(|row| Change { row: event(row), epoch: row.epoch, diff: row.diff, position: row.position }).collect()
}

/// Reads random keys at random points, at the edges of windows above all, and compares with these columns of the model.
fn agrees_with_model(spec: FeatureSpec, model: FeatureModel, columns: &[usize]) {
    let (plan, view) = one_view(spec);
    for seed in 0..20 {
        let def = &plan.sources[0];
        let records = freshet_testkit::generate::records(seed, def, &Shape { rows: 80, ..Shape::default() });
        let rows = freshet_testkit::assign_epochs(def, 0, &records).unwrap().rows;
        let (events, interpreter) = (events(&plan, &rows), Interpreter::new(&plan, vec![rows.clone()]));
        let instants: Vec<Epoch> = interpreter.relevant_epochs(view).into_iter().collect();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..150 {
            let mut instant = || instants[random.random_range(0..instants.len())];
            let (q, s) = (instant(), instant());
            let point = ReadPoint { q, s: if random.random_bool(0.5) { q } else { s } };
            let key = vec![
                [Value::Null, Value::Text("k0".into()), Value::Text("k1".into()), Value::Text("nobody".into())][random.random_range(0..4)].clone(),
            ];
            let (expected, found) = (model.read(&events, &key, point), interpreter.lookup(view, &key, point));
            let values: Vec<Value> = columns.iter().map(|column| expected.values[*column].clone()).collect();
            assert_eq!(values, found.values, "seed {seed}, key {key:?}, {point:?}");
            assert_eq!(expected.e_last, found.e_last, "seed {seed}, key {key:?}, {point:?}");
            let statuses: Vec<Status> = columns.iter().map(|column| expected.statuses[*column]).collect();
            assert_eq!(statuses, found.statuses, "seed {seed}, key {key:?}, {point:?}");
        }
    }
}

fn types() -> Vec<DataType> {
    source("left").schema.fields().iter().map(|field| field.data_type().clone()).collect()
}

#[test]
fn t1_t2_t17_a_rolling_view_agrees_with_the_model() {
    for (ttl_ms, hop_ms, include_now) in
        [(None, None, false), (Some(8_000), None, true), (Some(30_000), Some(2_500), false), (None, Some(1_000), true)]
    {
        let spec = RollingSpec { ttl_ms, hop_ms, include_now, ..some_rolling_spec() };
        let rolling = FeatureModel::rolling(spec.aggregates.clone(), types());
        let model = FeatureModel { ttl_ms, hop_ms, include_now, ..rolling };
        agrees_with_model(FeatureSpec::Rolling(spec), model, &[0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn t8_a_latest_view_agrees_with_the_model() {
    for (ttl_ms, include_now) in [(None, false), (Some(8_000), true)] {
        let spec = LatestSpec { ttl_ms, include_now, ..latest_spec() };
        let model = FeatureModel { kind: ViewKind::Latest, ttl_ms, include_now, ..FeatureModel::latest(types()) };
        agrees_with_model(FeatureSpec::Latest(spec), model, &[1, 2]);
    }
}

#[test]
fn c1_the_changes_of_every_node_add_up_to_its_content_at_every_epoch() {
    let plan = every_operator();
    for seed in 0..4 {
        let interpreter = interpret(&plan, seed, &Shape { rows: 40, ..Shape::default() });
        let later = Epoch(interpreter.end().0 + 60_000);
        let interpreter = interpreter.with_end(later);
        for index in 0..plan.nodes.len() {
            let node = NodeId(index as u32);
            let history = interpreter.history(node);
            let (mut next, mut content) = (0, Content::new());
            for epoch in interpreter.relevant_epochs(node).into_iter().filter(|epoch| *epoch <= later) {
                let first = next;
                while next < history.len() && history[next].1 <= epoch {
                    next += 1;
                }
                let changes = history[first..next].iter().map(|(row, _, diff)| (row.clone(), *diff));
                content = accumulate(content.into_iter().chain(changes));
                assert!(content.values().all(|count| *count > 0));
                assert_same(&format!("node {index} at {epoch}"), seed, &interpreter.content(node, epoch), &content);
            }
            assert_eq!(next, history.len(), "node {index} changes at an epoch that is not relevant");
        }
    }
}

#[test]
fn t14_nothing_changes_between_two_relevant_epochs() {
    let plan = every_operator();
    for seed in 0..4 {
        let interpreter = interpret(&plan, seed, &Shape { rows: 30, ..Shape::default() });
        let end = interpreter.end();
        let mut random = StdRng::seed_from_u64(seed);
        for index in 0..plan.nodes.len() {
            let node = NodeId(index as u32);
            let relevant = interpreter.relevant_epochs(node);
            for _ in 0..60 {
                let start = relevant.iter().nth(random.random_range(0..relevant.len())).copied().unwrap();
                let epoch = Epoch(start.0 + random.random_range(0..2_000)).min(Epoch(end.0 + 40_000));
                let before = *relevant.range(..=epoch).next_back().unwrap();
                if index + 1 < plan.nodes.len() || epoch <= end {
                    assert_same(
                        &format!("node {index} at {epoch} and {before}"),
                        seed,
                        &interpreter.content(node, before),
                        &interpreter.content(node, epoch),
                    );
                }
            }
        }
    }
}

#[test]
fn t1_the_content_of_a_feature_view_is_what_reads_at_the_next_instant_return() {
    for include_now in [false, true] {
        let (plan, view) = one_view(FeatureSpec::Rolling(RollingSpec { include_now, ttl_ms: Some(9_000), ..some_rolling_spec() }));
        for seed in 0..10 {
            let interpreter = interpret(&plan, seed, &Shape { nulls: 0.0, ..Shape::default() });
            for epoch in interpreter.relevant_epochs(view) {
                let point = ReadPoint::at(if include_now { epoch } else { epoch.next() });
                let mut expected = BTreeMap::new();
                for key in 0..4 {
                    let key = Value::Text(format!("k{key}"));
                    let answer = interpreter.lookup(view, std::slice::from_ref(&key), point);
                    if answer.status != Status::NotFound {
                        expected.insert(std::iter::once(key).chain(answer.values).collect(), 1);
                    }
                }
                assert_same("content against reads", seed, &expected, &interpreter.content(view, epoch));
            }
        }
    }
}

fn input(values: [i64; 2], epoch: u64, diff: i64, position: u64) -> InputRow {
    let values = vec![Value::Text(format!("k{}", values[0])), int(values[1]), Value::Float(1.0), int(epoch as i64), Value::Bool(true)];
    InputRow { values, epoch: Epoch(epoch), diff, position, dead: false }
}

fn lookup_plan() -> (Plan, NodeId) {
    let mut plan = Plan::default();
    let (questions, departures) = (add_source(&mut plan, source("a")), add_source(&mut plan, source("b")));
    let count = some_rolling_spec().aggregates[0].clone();
    let view = add_feature(&mut plan, departures, FeatureSpec::Rolling(rolling_spec(vec![(count, DataType::Int64)])));
    let mut fields = fields_of(&plan, questions);
    fields.push(Field::new("f0", DataType::Int64, true));
    fields.push(Field::new("status", DataType::Utf8, true));
    fields.push(Field::new("event_time", DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None), true));
    let lookup =
        node(&mut plan, Op::Lookup { parts: vec![LookupPart { keys: vec![0], columns: vec![1] }], at: LookupTime::Now }, &[questions, view], fields);
    plan.validate().unwrap();
    (plan, lookup)
}

#[test]
fn c1b_the_answer_stays_with_its_left_row_until_that_is_retracted() {
    let (plan, lookup) = lookup_plan();
    let question = |epoch, diff, position| {
        let mut row = input([1, 0], 100, diff, position);
        row.epoch = Epoch(epoch);
        row
    };
    let questions = vec![question(100, 1, 1), question(101, 1, 2), question(200, -1, 3)];
    let interpreter = Interpreter::new(&plan, vec![questions, vec![input([1, 7], 100, 1, 0), input([1, 8], 150, 1, 1)]]);
    let answers: Vec<(Value, Value, Epoch, i64)> =
        interpreter.history(lookup).into_iter().map(|(row, epoch, diff)| (row[5].clone(), row[6].clone(), epoch, diff)).collect();
    let text = |text: &str| Value::Text(text.into());
    let unseen = (Value::Null, text("NOT_FOUND"));
    assert_eq!(
        answers,
        [(unseen.0.clone(), unseen.1.clone(), Epoch(100), 1), (int(1), text("PRESENT"), Epoch(101), 1), (unseen.0, unseen.1, Epoch(200), -1),]
    );
}

#[test]
fn c4_a_row_is_an_error_only_if_every_other_conjunct_is_true() {
    let mut plan = Plan::default();
    let source = add_source(&mut plan, source("a"));
    let schema = plan.node(source).schema.clone();
    let fields = fields_of(&plan, source);
    let mut filter = |least| {
        let conjuncts = vec![std::sync::Arc::new(OnlyTwosFail) as freshet_core::ExprRef, compare(&schema, 1, Comparison::Greater, least)];
        node(&mut plan, Op::Filter { conjuncts }, &[source], fields.clone())
    };
    let (wide, narrow) = (filter(0), filter(2));
    let interpreter =
        Interpreter::new(&plan, vec![vec![input([1, 2], 5, 1, 0), input([1, 2], 6, 1, 1), input([1, 3], 6, 1, 2), input([1, 2], 9, -1, 3)]]);
    // The rows of n = 2 differ in their time, so the retraction at 9 finds none of them.
    assert_eq!(interpreter.unmatched(0).len(), 1);
    let errors = interpreter.errors(wide, Epoch(6));
    assert_eq!(errors.values().sum::<i64>(), 2);
    assert!(errors.keys().all(|error| error.message == "2 is not allowed" && error.field == "only_twos_fail"));
    assert_eq!(interpreter.content(wide, Epoch(6)).len(), 1);
    assert!(interpreter.errors(narrow, Epoch(6)).is_empty());
}

#[derive(Debug)]
struct OnlyTwosFail;

impl freshet_core::Expr for OnlyTwosFail {
    fn data_type(&self) -> DataType {
        DataType::Boolean
    }
    fn evaluate(&self, batch: &arrow::array::RecordBatch) -> freshet_core::Result<arrow::array::ArrayRef> {
        NoTwos { column: 1 }.evaluate(batch)?;
        Ok(std::sync::Arc::new(arrow::array::BooleanArray::from(vec![true; batch.num_rows()])))
    }
    fn sql(&self) -> String {
        "only_twos_fail".into()
    }
    fn columns(&self) -> Vec<usize> {
        vec![1]
    }
}

#[test]
fn t21_a_group_whose_sum_is_out_of_range_is_an_error_and_comes_back() {
    let mut plan = Plan::default();
    let source = add_source(&mut plan, source("a"));
    let calls = vec![AggregateCall::new(AggregateFunction::Sum, Some(1))];
    let fields = vec![Field::new("k", DataType::Utf8, true), Field::new("total", DataType::Int64, true)];
    let sums = node(&mut plan, Op::Aggregate { keys: vec![0], calls }, &[source], fields);
    let mut leaving = input([1, 1], 6, -1, 3);
    leaving.epoch = Epoch(7);
    let rows = vec![input([1, i64::MAX], 5, 1, 0), input([1, 1], 6, 1, 1), input([2, 4], 6, 1, 2), leaving];
    let interpreter = Interpreter::new(&plan, vec![rows]);
    assert_eq!(interpreter.content(sums, Epoch(6)).len(), 1);
    let errors: Vec<_> = interpreter.errors(sums, Epoch(6)).into_keys().collect();
    assert_eq!((errors.len(), errors[0].field.as_str(), &errors[0].row), (1, "total", &vec![Value::Text("k1".into())]));
    assert_eq!(interpreter.content(sums, Epoch(7)).len(), 2);
    assert!(interpreter.errors(sums, Epoch(7)).is_empty());
}

#[test]
fn an_aggregate_without_keys_always_has_one_row_and_null_keys_join_nothing() {
    let plan = every_operator();
    let interpreter = Interpreter::new(&plan, vec![Vec::new(), Vec::new()]);
    let total = plan.nodes.iter().position(|node| matches!(&node.op, Op::Aggregate { keys, .. } if keys.is_empty())).unwrap();
    let row = vec![int(0), Value::Null, Value::Null, Value::Null, Value::Null];
    assert_eq!(interpreter.content(NodeId(total as u32), Epoch(9)), BTreeMap::from([(row, 1)]));
    let nameless = |position| {
        let mut row = input([1, 1], 5, 1, position);
        row.values[0] = Value::Null;
        row
    };
    let interpreter = Interpreter::new(&plan, vec![vec![nameless(0)], vec![nameless(1)]]);
    let join = plan.nodes.iter().position(|node| matches!(node.op, Op::Join { .. })).unwrap();
    assert!(interpreter.content(NodeId(join as u32), Epoch(9)).is_empty());
}

#[test]
fn t4_in_hindsight_a_question_sees_what_arrived_later_but_not_what_happened_later() {
    let (mut plan, lookup) = lookup_plan();
    let seen = |plan: &Plan, asked: Vec<InputRow>| {
        let late = |mut row: InputRow, epoch| {
            row.epoch = Epoch(epoch);
            row
        };
        // Of key 1: one in time, one late, one after the question, one late and taken back.
        let events = vec![
            input([1, 7], 90, 1, 0),
            input([1, 8], 150, 1, 1),
            late(input([1, 9], 80, 1, 2), 200),
            late(input([1, 6], 70, 1, 3), 200),
            late(input([1, 6], 70, -1, 4), 300),
        ];
        let interpreter = Interpreter::new(plan, vec![asked, events]);
        interpreter.history(lookup).into_iter().map(|(row, _, _)| (row[5].clone(), row[6].clone())).collect::<Vec<_>>()
    };
    let asked = |time: Value| {
        let values = vec![Value::Text("k1".into()), int(0), Value::Float(1.0), time, Value::Bool(true)];
        vec![InputRow { values, epoch: Epoch(160), diff: 1, position: 0, dead: false }]
    };
    let counted = |count| (int(count), Value::Text("PRESENT".into()));
    assert_eq!(seen(&plan, asked(int(100))), [counted(2)], "as of now(): at its epoch, 160, two have arrived");
    for (column, time, expected) in [
        (Some(3), int(100), counted(2)),
        (Some(3), int(80), (Value::Null, Value::Text("NOT_FOUND".into()))),
        (Some(3), int(81), counted(1)),
        (Some(3), Value::Null, (Value::Null, Value::Text("NOT_FOUND".into()))),
        (None, int(100), counted(3)),
    ] {
        let Op::Lookup { at, .. } = &mut plan.nodes[lookup.index()].op else { unreachable!("it is a lookup") };
        *at = LookupTime::EventTime { column };
        assert_eq!(seen(&plan, asked(time.clone())), [expected], "at {column:?}, {time:?}");
    }
}

/// n · factor.
#[derive(Debug)]
struct Times(i64);

impl freshet_core::Model for Times {
    fn predict(&self, inputs: &[arrow::array::ArrayRef]) -> freshet_core::Result<Vec<arrow::array::ArrayRef>> {
        let n = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&inputs[0]);
        if n.iter().flatten().any(|n| n == 2) {
            return Err(freshet_core::Error::data("no twos"));
        }
        Ok(vec![std::sync::Arc::new(n.iter().map(|n| n.map(|n| n * self.0)).collect::<arrow::array::Int64Array>())])
    }
    fn batch_invariant(&self) -> bool {
        true
    }
}

#[test]
fn c1b_c6_a_row_is_scored_by_the_version_of_its_own_epoch() {
    use freshet_core::PredictOutput::{Score, Version};
    use freshet_core::PredictRoute::{self, Challenger, Live};
    use freshet_core::{ControlRecord, PredictCall};
    let mut plan = Plan::default();
    let source = add_source(&mut plan, source("a"));
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    plan.models.push(freshet_core::ModelDef {
        name: "m".into(),
        service: None,
        inputs: vec![field("n")],
        outputs: vec![field("score")],
        missing: Default::default(),
        from: None,
        references: Vec::new(),
    });
    let call = |route, output| PredictCall { model: 0, arguments: if output == Score { vec![1] } else { vec![] }, route, output };
    let calls = vec![call(Live, Score), call(Live, Version), call(Challenger, Version), call(PredictRoute::Version(1), Version)];
    let fields = fields_of(&plan, source).into_iter().chain(["p", "v", "c", "first"].map(field)).collect();
    let predict = node(&mut plan, Op::Predict { calls }, &[source], fields);
    plan.validate().unwrap();
    let record = |epoch, version: u32, promoted| {
        let loaded = std::sync::Arc::new(Times(version.into()));
        ControlRecord { epoch: Epoch(epoch), model: 0, version, promoted, loaded, reference: Default::default() }
    };
    let mut leaving = input([1, 3], 10, -1, 9);
    leaving.epoch = Epoch(40);
    let rows = [(3, 10), (3, 11), (2, 12), (3, 20), (3, 21), (3, 31)].map(|(n, epoch)| input([1, n], epoch, 1, epoch)).to_vec();
    let rows = rows.into_iter().chain([leaving]).collect();
    let interpreter = Interpreter::new(&plan, vec![rows]).with_records(&[record(10, 1, true), record(20, 2, false), record(30, 3, true)]);
    let found: Vec<_> = interpreter.history(predict).into_iter().map(|(row, epoch, diff)| (epoch.0, diff, row[5..].to_vec())).collect();
    let null = Value::Null;
    assert_eq!(
        found,
        [
            (10, 1, vec![null.clone(), null.clone(), null.clone(), null.clone()]),
            (11, 1, vec![int(3), int(1), int(1), int(1)]),
            (12, 1, vec![null.clone(), int(1), int(1), int(1)]),
            (20, 1, vec![int(3), int(1), int(1), int(1)]),
            (21, 1, vec![int(3), int(1), int(2), int(1)]),
            (31, 1, vec![int(9), int(3), int(3), int(1)]),
            (40, -1, vec![null.clone(), null.clone(), null.clone(), null]),
        ]
    );
    let errors: Vec<_> = interpreter.errors(predict, Epoch(31)).into_keys().collect();
    assert_eq!((errors.len(), errors[0].field.as_str(), errors[0].message.as_str()), (1, "p", "no twos"));
}
