//! Joins of every kind, set operations, values and lists: each node's changes equal the interpreter's, epoch by epoch, whatever the cut, the
//! workers and the restarts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, Int64Builder, ListBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type};
use freshet_core::{Column, Epoch, Error, Expr, ExprRef, JoinKind, NodeId, Op, Plan, SetOperation};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::generate::Shape;

use crate::plans::{add_source, fields_of, node, source};
use crate::running::{assert_histories, connectors, interpreter, observed, run};

const KINDS: [JoinKind; 8] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti,
    JoinKind::Mark,
    JoinKind::NullAwareAnti,
    JoinKind::NullAwareMark,
];

/// `#left < #right`, NULL where one is; fails where the left one is 2.
#[derive(Debug)]
struct Less {
    left: usize,
    right: usize,
}

impl Expr for Less {
    fn data_type(&self) -> DataType {
        DataType::Boolean
    }

    fn evaluate(&self, batch: &RecordBatch) -> freshet_core::Result<ArrayRef> {
        let [left, right] = [self.left, self.right].map(|column| batch.column(column).as_primitive::<Int64Type>().clone());
        if left.iter().flatten().any(|value| value == 2) {
            return Err(Error::data("2 is not allowed"));
        }
        let less: BooleanArray = left.iter().zip(right.iter()).map(|(left, right)| Some(left? < right?)).collect();
        Ok(Arc::new(less))
    }

    fn sql(&self) -> String {
        format!("#{} < #{}", self.left, self.right)
    }

    fn columns(&self) -> Vec<usize> {
        vec![self.left, self.right]
    }
}

/// As many elements as the column says: NULL for a NULL, at most four.
#[derive(Debug)]
struct Count {
    column: usize,
}

impl Expr for Count {
    fn data_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Int64, true)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> freshet_core::Result<ArrayRef> {
        let mut lists = ListBuilder::new(Int64Builder::new());
        for value in batch.column(self.column).as_primitive::<Int64Type>() {
            if value == Some(2) {
                return Err(Error::data("2 is not allowed"));
            }
            let count = value.map(|value| value.unsigned_abs() % 5);
            (0..count.unwrap_or(0)).for_each(|element| lists.values().append_option((element % 3 != 1).then_some(element as i64)));
            lists.append(count.is_some());
        }
        Ok(Arc::new(lists.finish()))
    }

    fn sql(&self) -> String {
        format!("count(#{})", self.column)
    }

    fn columns(&self) -> Vec<usize> {
        vec![self.column]
    }
}

fn join(plan: &mut Plan, kind: JoinKind, keys: Vec<usize>, nulls_equal: bool, residual: Vec<ExprRef>, inputs: [NodeId; 2]) {
    let mut fields = fields_of(plan, inputs[0]);
    if kind.shows_right() {
        fields.extend(fields_of(plan, inputs[1]));
    }
    if kind.has_mark() {
        fields.push(Field::new("mark", DataType::Boolean, true));
    }
    let fields: Vec<Field> = fields.into_iter().enumerate().map(|(index, field)| field.with_name(format!("c{index}"))).collect();
    node(plan, Op::Join { kind, left_keys: keys.clone(), right_keys: keys, nulls_equal, residual }, &inputs, fields);
}

/// Every kind by two keys, by one, by none, with NULLs that are equal and with a condition.
fn plan() -> Plan {
    let mut plan = Plan::default();
    let inputs = ["left", "right"].map(|name| add_source(&mut plan, source(name)));
    for kind in KINDS {
        for keys in [vec![0, 1], vec![1]] {
            join(&mut plan, kind, keys, false, Vec::new(), inputs);
        }
        if kind.is_null_aware() {
            continue;
        }
        join(&mut plan, kind, Vec::new(), false, Vec::new(), inputs);
        join(&mut plan, kind, vec![0, 1], true, Vec::new(), inputs);
        join(&mut plan, kind, vec![0], false, vec![Arc::new(Less { left: 1, right: 6 })], inputs);
        join(&mut plan, kind, vec![0], true, vec![Arc::new(Less { left: 1, right: 6 })], inputs);
    }
    others(&mut plan, inputs);
    observed(plan)
}

fn others(plan: &mut Plan, inputs: [NodeId; 2]) {
    let schema = plan.node(inputs[0]).schema.clone();
    let pick =
        |index: usize| Arc::new(Column { index, name: schema.field(index).name().clone(), data_type: schema.field(index).data_type().clone() });
    let narrow = |plan: &mut Plan, input: NodeId| {
        let exprs: Vec<ExprRef> = vec![pick(0), pick(1)];
        node(plan, Op::Project { exprs }, &[input], fields_of(plan, input)[..2].to_vec())
    };
    let sides = inputs.map(|input| narrow(plan, input));
    for operation in [SetOperation::Intersect, SetOperation::IntersectAll, SetOperation::Except, SetOperation::ExceptAll] {
        let fields = fields_of(plan, sides[0]);
        node(plan, Op::SetOperation { operation }, &sides, fields);
    }
    let only = Op::Filter { conjuncts: vec![crate::plans::compare(&schema, 1, freshet_core::Comparison::Greater, 3)] };
    let few = node(plan, only, &[sides[0]], fields_of(plan, sides[0]));
    node(plan, Op::SingleRow, &[few], fields_of(plan, few));
    let rows = RecordBatch::try_from_iter_with_nullable([("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(3)])) as ArrayRef, true)])
        .unwrap();
    let number = vec![Field::new("n", DataType::Int64, true)];
    let values = node(plan, Op::Values { rows }, &[], number.clone());
    let exprs: Vec<ExprRef> = vec![Arc::new(Column { index: 1, name: "n".into(), data_type: DataType::Int64 })];
    let numbers = node(plan, Op::Project { exprs }, &[sides[1]], number.clone());
    node(plan, Op::Union, &[values, numbers], number.clone());
    join(plan, JoinKind::Full, vec![0], false, Vec::new(), [values, numbers]);
    let exprs: Vec<ExprRef> = vec![pick(0), Arc::new(Count { column: 1 }), Arc::new(Count { column: 1 })];
    let fields = vec![Field::new("k", DataType::Utf8, true), Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)];
    node(plan, Op::Unnest { exprs: exprs.clone(), lists: vec![1, 2] }, &[inputs[0]], fields.clone());
    node(plan, Op::Unnest { exprs, lists: vec![1, 2] }, &[inputs[1]], fields);
}

fn shape(rows: usize) -> Shape {
    Shape { rows, keys: 3, retractions: 0.3, duplicates: 0.3, nulls: 0.25, ..Shape::default() }
}

#[test]
fn c1_joins_of_every_kind_equal_the_interpreter_at_every_epoch() {
    let plan = plan();
    plan.validate().unwrap();
    for seed in 0..6 {
        let input = connectors(&plan, seed, &shape(30));
        let interpreter = interpreter(&plan, &input);
        for (index, cut) in [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All].into_iter().enumerate() {
            let workers = [1, 2, 4][(seed as usize + index) % 3];
            let connectors = connectors(&plan, seed, &shape(30));
            run(&plan, EngineConfig { workers, cut, ..EngineConfig::default() }, &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers, {cut:?}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn joins_go_on_after_a_restart_with_other_workers() {
    let plan = plan();
    for seed in 40..42 {
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &shape(24)));
        let mut stops: Vec<Epoch> = interpreter.history(NodeId(0)).into_iter().map(|(_, epoch, _)| epoch).collect();
        stops.dedup();
        for (index, stop) in stops.into_iter().step_by(5).enumerate() {
            let connectors = connectors(&plan, seed, &shape(24));
            let folder = tempfile::tempdir().unwrap();
            let config = |workers, stop_after| EngineConfig {
                workers,
                cut: StepCut::Epochs(1 + index % 3),
                data_dir: Some(folder.path().to_path_buf()),
                stop_after,
                ..EngineConfig::default()
            };
            let first = Engine::start(plan.clone(), config([1, 2, 4][index % 3], Some(stop)), &connectors).unwrap();
            first.wait_timeout(std::time::Duration::from_secs(60)).unwrap();
            first.shutdown().unwrap();
            run(&plan, config([2, 4, 1][index % 3], None), &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, stopped after {stop}"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn c4_a_condition_that_fails_for_a_pair_is_an_error_of_that_pair() {
    let plan = plan();
    let input = connectors(&plan, 3, &shape(30));
    let interpreter = interpreter(&plan, &input);
    let engine = run(&plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &input);
    let mut errors = 0;
    for view in plan.views.iter().filter(|view| matches!(plan.node(view.node).op, Op::Join { .. } | Op::SingleRow | Op::Unnest { .. })) {
        let expected: i64 = interpreter.errors(view.node, interpreter.end()).values().sum();
        let found = engine.reader().snapshot(&[&format!("errors({})", view.name)], None).unwrap();
        let rows: usize = found.views[0].iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(rows as i64, expected, "{:?}", plan.node(view.node).op);
        errors += rows;
    }
    assert!(errors > 0);
    engine.shutdown().unwrap();
}
