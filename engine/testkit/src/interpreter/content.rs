//! The rows of a node at an epoch: the batch result of its operator over the rows of its inputs (C1). In: bags. Out: a bag.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use freshet_core::{AggregateCall, Comparison, Epoch, EventTime, NodeId, Op, OverCall, OverFunction, TemporalBound, Value};

use crate::aggregate::{self, counts};
use crate::interpreter::evaluate::{Verdict, batch_of_row, evaluate, event_time_of, judge};
use crate::interpreter::history::{Interpreter, Row};
use crate::interpreter::joins::set_operation;
use crate::interpreter::nearest::asof;
use crate::interpreter::ranks::{Ranks, over, top};
use crate::lives::{Change, lives};

/// Rows with their counts.
pub type Content = BTreeMap<Row, i64>;

/// Rows, each with the ascending positions of its instances.
pub type Bag = BTreeMap<Row, Vec<u64>>;

/// What an operator that looks at one row makes of it.
#[derive(Debug, Clone)]
pub enum Mapped {
    Row(Row),
    Nothing,
    Error(NodeError),
}

/// A row that an operator could not evaluate (C3, C4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeError {
    /// The output column, or the text of the conjunct.
    pub field: String,
    pub message: String,
    /// The input row; for an aggregate or feature view the key of the group.
    pub row: Row,
}

impl Interpreter {
    pub(super) fn bag(&self, node: NodeId, t: Epoch) -> Bag {
        let input = |index: usize| self.bag(self.plan.node(node).inputs[index], t);
        match &self.plan.node(node).op {
            Op::Source { source } => collect(self.sources[*source].iter().filter(|life| life.is_at(t)).map(|life| (life.row.clone(), life.position))),
            Op::Project { .. } | Op::Filter { .. } | Op::Union => {
                let inputs = (0..self.plan.node(node).inputs.len()).flat_map(input);
                collect(inputs.filter_map(|(row, positions)| Some((self.map_row(node, &row)?, positions))).flat_map(spread))
            }
            Op::TemporalFilter { bounds } => input(0).into_iter().filter(|(row, _)| self.holds(node, bounds, row, t)).collect(),
            Op::Join { .. } => self.join(node, &input(0), &input(1)),
            Op::SingleRow => self.single_row(node, &input(0)),
            Op::Values { rows } => {
                collect(Value::rows_of(rows).expect("the planner lets only storable types be values").into_iter().map(|row| (row, 0)))
            }
            Op::Unnest { .. } => collect(input(0).into_iter().flat_map(|(row, positions)| {
                let rows = self.unnested(node, &row).unwrap_or_default();
                rows.into_iter().flat_map(move |row| positions.clone().into_iter().map(move |position| (row.clone(), position)))
            })),
            Op::SetOperation { operation } => set_operation(*operation, &input(0), &input(1)),
            Op::Aggregate { keys, calls } => {
                self.groups(node, keys, calls, &input(0), t).into_iter().filter_map(|row| Some((row.ok()?, vec![0]))).collect()
            }
            Op::Recursive { body, distinct } => self.fixed_point(node, body, *distinct, t).0,
            Op::Argument { index } => self.arguments[*index].clone(),
            Op::Asof { left_keys, right_keys, left_time, right_time, comparison, outer } => {
                let (left, right) = (input(0), input(1));
                let width = self.plan.node(self.plan.node(node).inputs[1]).schema.fields().len();
                let sides = ((&left, left_keys.as_slice(), *left_time), (&right, right_keys.as_slice(), *right_time));
                collect(asof(sides, *comparison, outer.then_some(width)))
            }
            Op::Top { partition, order, rank, offset, limit, number } => {
                let ranks = Ranks { kind: *rank, offset: *offset, limit: *limit, number: *number };
                collect(top(&input(0), partition, order, &ranks))
            }
            Op::Over { .. } => collect(self.over_rows(node, &input(0)).into_iter().filter_map(Result::ok)),
            Op::Feature { spec, .. } => self.feature_content(node, spec, t).into_iter().map(|row| (row, vec![0])).collect(),
            Op::Windows { .. } => {
                let rows = input(0).into_iter().flat_map(spread);
                collect(rows.flat_map(|(row, position)| self.windowed(node, &row).unwrap_or_default().into_iter().map(move |row| (row, position))))
            }
            Op::Session { time, gap, keys } => self.sessions(input(0), (*time, *gap), keys),
            Op::Upsert { .. }
            | Op::Lookup { .. }
            | Op::LookupJoin { .. }
            | Op::Predict { .. }
            | Op::Arrival
            | Op::Gate { .. }
            | Op::EmitOnClose { .. }
            | Op::EmitEvery { .. }
            | Op::Drift { .. } => collect(self.lives(node).iter().filter(|life| life.is_at(t)).map(|life| (life.row.clone(), life.position))),
        }
    }

    /// The rows of a node's own operator that are errors at epoch t, with their counts.
    pub fn errors(&self, node: NodeId, t: Epoch) -> BTreeMap<NodeError, i64> {
        let mut errors = BTreeMap::new();
        let mut count = |error: NodeError, times: usize| *errors.entry(error).or_insert(0) += times as i64;
        match &self.plan.node(node).op {
            Op::Project { .. } | Op::Filter { .. } => {
                for (row, positions) in self.bag(self.plan.node(node).inputs[0], t) {
                    if let Mapped::Error(error) = self.mapped(node, &row) {
                        count(error, positions.len());
                    }
                }
            }
            Op::Aggregate { keys, calls } => {
                let input = self.bag(self.plan.node(node).inputs[0], t);
                self.groups(node, keys, calls, &input, t).into_iter().filter_map(Result::err).for_each(|error| count(error, 1));
            }
            Op::Join { .. } => {
                let inputs = &self.plan.node(node).inputs;
                for (error, times) in self.join_errors(node, &self.bag(inputs[0], t), &self.bag(inputs[1], t)) {
                    count(error, times);
                }
            }
            Op::Windows { .. } => {
                for (row, positions) in self.bag(self.plan.node(node).inputs[0], t) {
                    self.windowed(node, &row).err().into_iter().for_each(|error| count(error, positions.len()));
                }
            }
            Op::Over { .. } => {
                let input = self.bag(self.plan.node(node).inputs[0], t);
                self.over_rows(node, &input).into_iter().filter_map(Result::err).for_each(|error| count(error, 1));
            }
            Op::Upsert { key } => self.upsert_errors(node, key, t).into_iter().for_each(|error| count(error, 1)),
            Op::Feature { spec, .. } => self.feature_errors(node, spec, t).into_iter().for_each(|error| count(error, 1)),
            Op::Predict { calls } => self.predict_errors(node, calls, t).into_iter().for_each(|error| count(error, 1)),
            Op::Source { .. }
            | Op::Values { .. }
            | Op::SetOperation { .. }
            | Op::TemporalFilter { .. }
            | Op::Top { .. }
            | Op::Asof { .. }
            | Op::LookupJoin { .. }
            | Op::Union
            | Op::Lookup { .. }
            | Op::Session { .. }
            | Op::Arrival
            | Op::Drift { .. } => {}
            Op::Gate { .. } | Op::EmitOnClose { .. } | Op::EmitEvery { .. } => {}
            Op::Recursive { body, distinct } => {
                self.fixed_point(node, body, *distinct, t).1.into_iter().for_each(|(error, times)| count(error, times))
            }
            Op::Argument { .. } => {}
            Op::SingleRow => {
                let rows = self.bag(self.plan.node(node).inputs[0], t);
                let error = NodeError { field: "value".into(), message: "more than one row".into(), row: Row::new() };
                count(error, usize::from(rows.values().map(Vec::len).sum::<usize>() > 1));
            }
            Op::Unnest { .. } => {
                for (row, positions) in self.bag(self.plan.node(node).inputs[0], t) {
                    if let Err(error) = self.unnested(node, &row) {
                        count(error, positions.len());
                    }
                }
            }
        }
        errors
    }

    /// The output row of an operator that looks at one row, if there is one.
    pub(super) fn map_row(&self, node: NodeId, row: &Row) -> Option<Row> {
        match self.mapped(node, row) {
            Mapped::Row(row) => Some(row),
            Mapped::Nothing | Mapped::Error(_) => None,
        }
    }

    pub(super) fn mapped(&self, node: NodeId, row: &Row) -> Mapped {
        if matches!(self.plan.node(node).op, Op::Union) {
            return Mapped::Row(row.clone());
        }
        let key = (node, row.clone());
        if let Some(known) = self.mapped.borrow().get(&key) {
            return known.clone();
        }
        let found = self.evaluate_row(node, row);
        self.mapped.borrow_mut().insert(key, found.clone());
        found
    }

    fn evaluate_row(&self, node: NodeId, row: &Row) -> Mapped {
        let definition = self.plan.node(node);
        let error = |field: String, message: String| Mapped::Error(NodeError { field, message, row: row.clone() });
        let (conjuncts, schema) = match &definition.op {
            Op::Project { exprs } => {
                let batch = batch_of_row(&self.plan.node(definition.inputs[0]).schema, row);
                let cells: Vec<Result<Value, String>> = exprs.iter().map(|expr| evaluate(expr.as_ref(), &batch)).collect();
                return match cells.iter().enumerate().find_map(|(index, cell)| Some((index, cell.as_ref().err()?.clone()))) {
                    Some((index, message)) => error(definition.schema.field(index).name().clone(), message),
                    None => Mapped::Row(cells.into_iter().flatten().collect()),
                };
            }
            Op::Filter { conjuncts } => (conjuncts, self.plan.node(definition.inputs[0]).schema.clone()),
            Op::Join { residual, .. } => {
                let fields = definition.inputs.iter().flat_map(|input| self.plan.node(*input).schema.fields().iter().cloned());
                (residual, Arc::new(Schema::new(fields.collect::<Vec<_>>())))
            }
            other => unreachable!("{other:?} does not look at one row"),
        };
        match judge(conjuncts, &batch_of_row(&schema, row)) {
            Verdict::Kept => Mapped::Row(row.clone()),
            Verdict::Dropped => Mapped::Nothing,
            Verdict::Failed(index, message) => error(conjuncts[index].sql(), message),
        }
    }

    /// With now() = t.
    fn holds(&self, node: NodeId, bounds: &[TemporalBound], row: &Row, t: Epoch) -> bool {
        let schema = &self.plan.node(node).schema;
        bounds.iter().all(|bound| {
            let time = event_time_of(&row[bound.column], schema.field(bound.column).data_type());
            time.is_some_and(|time| compare(i128::from(time.0) + i128::from(bound.offset_ns), bound.comparison, i128::from(t.event_time().0)))
        })
    }

    fn over_rows(&self, node: NodeId, input: &Bag) -> Vec<Result<(Row, u64), NodeError>> {
        let definition = self.plan.node(node);
        let Op::Over { partition, order, calls } = &definition.op else { unreachable!("only OVER has calls of its own") };
        let width = definition.schema.fields().len() - calls.len();
        let field = |index: usize| definition.schema.field(width + index);
        let own = &self.plan.node(definition.inputs[0]).schema;
        let argument = |call: &OverCall| match &call.function {
            OverFunction::Aggregate(inner) => inner.argument.map(|column| own.field(column).data_type()),
            _ => None,
        };
        let typed = |(index, call)| (call, field(index).name().as_str(), (field(index).data_type(), argument(call)));
        let calls: Vec<_> = calls.iter().enumerate().map(typed).collect();
        over(input, partition, order, &calls)
    }

    /// The output row of each group, in key order, or why it has none.
    fn groups(&self, node: NodeId, keys: &[usize], calls: &[AggregateCall], input: &Bag, t: Epoch) -> Vec<Result<Row, NodeError>> {
        let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
        if keys.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for (row, positions) in input {
            let group = groups.entry(pick(row, keys)).or_default();
            positions.iter().for_each(|_| group.push(row));
        }
        let schema = &self.plan.node(node).schema;
        let input_schema = &self.plan.node(self.plan.node(node).inputs[0]).schema;
        let arrived: Vec<Option<BTreeMap<Row, Vec<Value>>>> = calls.iter().map(|call| self.arrived(node, keys, call, t)).collect();
        let output = |key: Row, rows: Vec<&Row>| {
            let mut out = key.clone();
            for (index, call) in calls.iter().enumerate() {
                let field = schema.field(keys.len() + index);
                let arrived = arrived[index].as_ref().map(|groups| groups.get(&key).map_or(&[] as &[Value], Vec::as_slice));
                let argument_type = call.argument.map(|column| input_schema.field(column).data_type());
                match aggregate::call(call, &rows, arrived, (argument_type, field.data_type())) {
                    Ok(value) => out.push(value),
                    Err(error) => return Err(NodeError { field: field.name().clone(), message: error.to_string(), row: key }),
                }
            }
            Ok(out)
        };
        groups.into_iter().map(|(key, rows)| output(key, rows)).collect()
    }
}

impl Interpreter {
    /// The values of each group in the order in which they came and stayed; None for a call that has another order, or none.
    fn arrived(&self, node: NodeId, keys: &[usize], call: &AggregateCall, t: Epoch) -> Option<BTreeMap<Row, Vec<Value>>> {
        let argument = call.argument.filter(|_| call.function.is_of_sequences() && call.order_by.is_empty() && !call.distinct)?;
        let mut changes = Vec::new();
        for life in self.lives(self.plan.node(node).inputs[0]).iter().filter(|life| counts(call, &life.row)) {
            let mut row = pick(&life.row, keys);
            row.push(life.row[argument].clone());
            changes.push(Change { row: row.clone(), epoch: life.entered, diff: 1, position: life.position });
            changes.extend(life.left.map(|left| Change { row, epoch: left, diff: -1, position: life.position }));
        }
        let mut groups: BTreeMap<Row, Vec<Value>> = BTreeMap::new();
        for life in lives(changes).lives.into_iter().filter(|life| life.is_at(t)) {
            let (value, key) = life.row.split_last().expect("a row has its value");
            groups.entry(key.to_vec()).or_default().push(value.clone());
        }
        Some(groups)
    }
}

pub(super) fn pick(row: &[Value], columns: &[usize]) -> Row {
    columns.iter().map(|column| row[*column].clone()).collect()
}

pub(super) fn collect(rows: impl IntoIterator<Item = (Row, u64)>) -> Bag {
    let mut bag = Bag::new();
    rows.into_iter().for_each(|(row, position)| bag.entry(row).or_default().push(position));
    bag.values_mut().for_each(|positions| positions.sort_unstable());
    bag
}

fn spread((row, positions): (Row, Vec<u64>)) -> impl Iterator<Item = (Row, u64)> {
    positions.into_iter().map(move |position| (row.clone(), position))
}

pub(super) fn compare<T: Ord>(left: T, comparison: Comparison, right: T) -> bool {
    match comparison {
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
    }
}

/// Shifts an instant by nanoseconds without wrapping.
pub(super) fn shifted(time: EventTime, offset_ns: i64) -> EventTime {
    time.plus_ns(offset_ns)
}
