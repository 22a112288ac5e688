//! The rows of a node at an epoch: the batch result of its operator over the rows of its inputs (C1). In: bags. Out: a bag.

use std::collections::BTreeMap;

use freshet_core::{AggregateCall, Comparison, Epoch, EventTime, NodeId, Op, TemporalBound, Value};

use crate::aggregate::{aggregate, auc};
use crate::interpreter::evaluate::{Verdict, batch_of_row, evaluate, event_time_of, judge};
use crate::interpreter::history::{Interpreter, Row};

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
            Op::Join { left_keys, right_keys, .. } => self.join(node, (&input(0), left_keys), (&input(1), right_keys)),
            Op::Aggregate { keys, calls } => {
                self.groups(node, keys, calls, &input(0)).into_iter().filter_map(|row| Some((row.ok()?, vec![0]))).collect()
            }
            Op::Feature { spec, .. } => self.feature_content(node, spec, t).into_iter().map(|row| (row, vec![0])).collect(),
            Op::Upsert { .. } | Op::Lookup { .. } | Op::Predict { .. } | Op::Drift { .. } => {
                collect(self.lives(node).iter().filter(|life| life.is_at(t)).map(|life| (life.row.clone(), life.position)))
            }
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
                self.groups(node, keys, calls, &input).into_iter().filter_map(Result::err).for_each(|error| count(error, 1));
            }
            Op::Join { left_keys, right_keys, .. } => {
                let inputs = &self.plan.node(node).inputs;
                let (left, right) = (self.bag(inputs[0], t), self.bag(inputs[1], t));
                for (row, positions) in pairs((&left, left_keys), (&right, right_keys)) {
                    if let Mapped::Error(error) = self.mapped(node, &row) {
                        count(error, positions.len());
                    }
                }
            }
            Op::Upsert { key } => self.upsert_errors(node, key, t).into_iter().for_each(|error| count(error, 1)),
            Op::Feature { spec, .. } => self.feature_errors(node, spec, t).into_iter().for_each(|error| count(error, 1)),
            Op::Predict { calls } => self.predict_errors(node, calls, t).into_iter().for_each(|error| count(error, 1)),
            Op::Source { .. } | Op::TemporalFilter { .. } | Op::Union | Op::Lookup { .. } | Op::Drift { .. } => {}
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

    fn mapped(&self, node: NodeId, row: &Row) -> Mapped {
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
            Op::Filter { conjuncts } => (conjuncts, &self.plan.node(definition.inputs[0]).schema),
            Op::Join { residual, .. } => (residual, &definition.schema),
            other => unreachable!("{other:?} does not look at one row"),
        };
        match judge(conjuncts, &batch_of_row(schema, row)) {
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

    fn join(&self, node: NodeId, left: (&Bag, &[usize]), right: (&Bag, &[usize])) -> Bag {
        let residual = matches!(&self.plan.node(node).op, Op::Join { residual, .. } if !residual.is_empty());
        pairs(left, right).into_iter().filter(|(row, _)| !residual || self.map_row(node, row).is_some()).collect()
    }

    /// The output row of each group, in key order, or why it has none.
    fn groups(&self, node: NodeId, keys: &[usize], calls: &[AggregateCall], input: &Bag) -> Vec<Result<Row, NodeError>> {
        let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
        if keys.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for (row, positions) in input {
            let group = groups.entry(pick(row, keys)).or_default();
            positions.iter().for_each(|_| group.push(row));
        }
        let schema = &self.plan.node(node).schema;
        let output = |key: Row, rows: Vec<&Row>| {
            let mut out = key.clone();
            for (index, call) in calls.iter().enumerate() {
                let field = schema.field(keys.len() + index);
                let counted: Vec<&&Row> = rows.iter().filter(|row| call.filter.is_none_or(|filter| row[filter] == Value::Bool(true))).collect();
                let arguments: Option<Vec<Value>> = call.argument.map(|argument| counted.iter().map(|row| row[argument].clone()).collect());
                if let (Some(argument), Some(label)) = (call.argument, call.label) {
                    let scored: Vec<(Value, Value)> = counted.iter().map(|row| (row[argument].clone(), row[label].clone())).collect();
                    out.push(auc(&scored));
                    continue;
                }
                match aggregate(call.function, counted.len(), arguments.as_deref(), call.distinct, field.data_type()) {
                    Ok(value) => out.push(value),
                    Err(error) => return Err(NodeError { field: field.name().clone(), message: error.to_string(), row: key }),
                }
            }
            Ok(out)
        };
        groups.into_iter().map(|(key, rows)| output(key, rows)).collect()
    }
}

/// Left and right rows of equal keys side by side. NULL keys match nothing; no keys: all pairs.
fn pairs((left, left_keys): (&Bag, &[usize]), (right, right_keys): (&Bag, &[usize])) -> Bag {
    let mut by_key: BTreeMap<Row, Vec<(&Row, &Vec<u64>)>> = BTreeMap::new();
    for (row, positions) in right {
        by_key.entry(pick(row, right_keys)).or_default().push((row, positions));
    }
    let mut joined = Vec::new();
    for (row, positions) in left {
        let key = pick(row, left_keys);
        if key.iter().any(Value::is_null) {
            continue;
        }
        for (other, other_positions) in by_key.get(&key).into_iter().flatten() {
            let both: Row = row.iter().chain(other.iter()).cloned().collect();
            for (a, b) in positions.iter().flat_map(|a| other_positions.iter().map(move |b| (a, b))) {
                joined.push((both.clone(), *a.max(b)));
            }
        }
    }
    collect(joined)
}

pub(super) fn pick(row: &[Value], columns: &[usize]) -> Row {
    columns.iter().map(|column| row[*column].clone()).collect()
}

fn collect(rows: impl IntoIterator<Item = (Row, u64)>) -> Bag {
    let mut bag = Bag::new();
    rows.into_iter().for_each(|(row, position)| bag.entry(row).or_default().push(position));
    bag.values_mut().for_each(|positions| positions.sort_unstable());
    bag
}

fn spread((row, positions): (Row, Vec<u64>)) -> impl Iterator<Item = (Row, u64)> {
    positions.into_iter().map(move |position| (row.clone(), position))
}

fn compare(left: i128, comparison: Comparison, right: i128) -> bool {
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
