//! What a feature view answers at (q, s), and what a lookup remembers of it. In: the lives of the view's input. Out: values and statuses.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use freshet_core::{Epoch, EventTime, FeatureSpec, LatestSpec, LookupPart, LookupTime, NodeId, Op, ReadPoint, RollingSpec, Status, Value};

use crate::aggregate::{aggregate, aggregate_type};
use crate::interpreter::content::{NodeError, pick};
use crate::interpreter::evaluate::{batch_of_row, evaluate, event_time_of};
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::Life;

/// The rows of a feature view's input by entity, each list in order of event time. Rows without event time are in no list.
pub type KeyIndex = BTreeMap<Row, Vec<(EventTime, Life<Row>)>>;

/// What one key reads at one (q, s).
#[derive(Debug, Clone, PartialEq)]
pub struct KeyAnswer {
    /// The features, without the entity; NULLs unless the key is known and fresh.
    pub values: Vec<Value>,
    /// One per feature.
    pub statuses: Vec<Status>,
    /// Of the key: PRESENT, OUTSIDE_MAX_AGE or NOT_FOUND; ERROR if one of its features could not be computed.
    pub status: Status,
    pub e_last: Option<EventTime>,
    /// Feature and message where one could not be computed.
    pub errors: Vec<(usize, String)>,
}

/// The worst of these; PRESENT if there are none.
pub fn worst(statuses: impl IntoIterator<Item = Status>) -> Status {
    statuses.into_iter().max().unwrap_or(Status::Present)
}

impl Interpreter {
    /// What an online read of `key` in the feature view at `node` returns.
    pub fn lookup(&self, node: NodeId, key: &[Value], point: ReadPoint) -> KeyAnswer {
        let Op::Feature { spec, .. } = &self.plan.node(node).op else { panic!("node {} is no feature view", node.0) };
        let width = self.plan.node(node).schema.fields().len() - spec.entity().len();
        let nothing =
            |status, e_last| KeyAnswer { values: vec![Value::Null; width], statuses: vec![status; width], status, e_last, errors: Vec::new() };
        if key.iter().any(Value::is_null) {
            return nothing(Status::NotFound, None);
        }
        self.read(node, spec, key, point).unwrap_or_else(|(status, e_last)| nothing(status, e_last))
    }

    /// C1: T1 at (t + 1, t + 1), with include_now at (t, t). One row per known key. NULL is a key of its own, as in GROUP BY.
    pub(super) fn feature_content(&self, node: NodeId, spec: &FeatureSpec, t: Epoch) -> Vec<Row> {
        let width = self.plan.node(node).schema.fields().len() - spec.entity().len();
        self.known_keys(node, spec, t)
            .into_iter()
            .map(|(key, answer)| {
                let values = answer.map_or(vec![Value::Null; width], |answer| answer.values);
                key.into_iter().chain(values).collect()
            })
            .collect()
    }

    pub(super) fn feature_errors(&self, node: NodeId, spec: &FeatureSpec, t: Epoch) -> Vec<NodeError> {
        let schema = &self.plan.node(node).schema;
        let errors_of = |(key, answer): (Row, Option<KeyAnswer>)| {
            let errors = answer.map_or(Vec::new(), |answer| answer.errors);
            errors.into_iter().map(move |(feature, message)| {
                let field = schema.field(spec.entity().len() + feature).name().clone();
                NodeError { field, message, row: key.clone() }
            })
        };
        self.known_keys(node, spec, t).into_iter().flat_map(errors_of).collect()
    }

    /// Every known key; without an answer if it is stale.
    fn known_keys(&self, node: NodeId, spec: &FeatureSpec, t: Epoch) -> Vec<(Row, Option<KeyAnswer>)> {
        let point = ReadPoint::at(if spec.include_now() { t } else { t.next() });
        let index = self.key_index(node, spec);
        index
            .keys()
            .filter_map(|key| match self.read(node, spec, key, point) {
                Ok(answer) => Some((key.clone(), Some(answer))),
                Err((Status::OutsideMaxAge, _)) => Some((key.clone(), None)),
                Err(_) => None,
            })
            .collect()
    }

    /// The answer of a known and fresh key, else why there is none, with e_last.
    fn read(&self, node: NodeId, spec: &FeatureSpec, key: &[Value], point: ReadPoint) -> Result<KeyAnswer, (Status, Option<EventTime>)> {
        let index = self.key_index(node, spec);
        let rows = index.get(key).ok_or((Status::NotFound, None))?;
        let now = i64::from(spec.include_now());
        let (until, cut) = (point.q.event_time().plus_ns(now), Epoch(point.s.0.saturating_add(now as u64)));
        let before_until = &rows[..rows.partition_point(|(e, _)| *e < until)];
        let is_seen = |row: &&(EventTime, Life<Row>)| row.1.is_seen_below(cut);
        let e_last = before_until.iter().rev().find(is_seen).map(|row| row.0).ok_or((Status::NotFound, None))?;
        let age_ns = i128::from(point.q.event_time().0) - i128::from(e_last.0);
        let is_older = |ms: u64| age_ns > i128::from(ms) * 1_000_000;
        if spec.horizon_ms().is_some_and(is_older) {
            return Err((Status::NotFound, None));
        }
        if spec.ttl_ms().is_some_and(is_older) {
            return Err((Status::OutsideMaxAge, Some(e_last)));
        }
        let cells = match spec {
            FeatureSpec::Latest(latest) => {
                let of_last = before_until.iter().filter(|row| row.0 == e_last).filter(is_seen).map(|row| &row.1);
                latest_cells(latest, of_last)
            }
            FeatureSpec::Rolling(rolling) => self.rolling_cells(node, rolling, key, point.q, |from, until| {
                let (first, end) = (rows.partition_point(|(e, _)| *e < from), rows.partition_point(|(e, _)| *e < until));
                let counted = if first < end { &rows[first..end] } else { &[] };
                counted.iter().filter(is_seen).map(|row| &row.1.row).collect()
            }),
        };
        Ok(answer_of(cells, e_last))
    }

    /// The features from the rows of each window [from, until).
    fn rolling_cells<'a>(
        &self,
        node: NodeId,
        spec: &RollingSpec,
        key: &[Value],
        q: Epoch,
        rows_in: impl Fn(EventTime, EventTime) -> Vec<&'a Row>,
    ) -> Vec<Result<Value, String>> {
        let input = &self.plan.node(self.plan.node(node).inputs[0]).schema;
        let type_of = |column: usize| input.field(column).data_type().clone();
        let mut fields: Vec<Field> = spec.entity.iter().map(|column| Field::new("entity", type_of(*column), true)).collect();
        let mut cells: Row = key.to_vec();
        let mut failed: BTreeMap<usize, String> = BTreeMap::new();
        for call in &spec.aggregates {
            let (from, until) = call.window.range(q, spec.hop_ms, spec.include_now);
            let rows = rows_in(from, until);
            let counted: Vec<&&Row> = rows.iter().filter(|row| call.filter.is_none_or(|filter| row[filter] == Value::Bool(true))).collect();
            let arguments: Option<Vec<Value>> = call.argument.map(|argument| counted.iter().map(|row| row[argument].clone()).collect());
            let output = aggregate_type(call.function, call.argument.map(type_of).as_ref());
            cells.push(aggregate(call.function, counted.len(), arguments.as_deref(), false, &output).unwrap_or_else(|error| {
                failed.insert(cells.len(), error.to_string());
                Value::Null
            }));
            fields.push(Field::new("aggregate", output, true));
        }
        cells.push(Value::Int(i128::from(q.0) * 1_000));
        fields.push(Field::new("q", DataType::Timestamp(TimeUnit::Microsecond, None), true));
        let batch = batch_of_row(&Arc::new(Schema::new(fields)), &cells);
        let feature = |expr: &dyn freshet_core::Expr| match expr.columns().iter().find_map(|column| failed.get(column)) {
            Some(message) => Err(message.clone()),
            None => evaluate(expr, &batch),
        };
        spec.features.iter().map(|column| feature(column.expr.as_ref())).collect()
    }

    fn key_index(&self, node: NodeId, spec: &FeatureSpec) -> Rc<KeyIndex> {
        if let Some(known) = self.keys.borrow().get(&node) {
            return known.clone();
        }
        let input = self.plan.node(node).inputs[0];
        let data_type = self.plan.node(input).schema.field(spec.time()).data_type().clone();
        let mut index = KeyIndex::new();
        for life in self.lives(input).iter() {
            if let Some(e) = event_time_of(&life.row[spec.time()], &data_type) {
                index.entry(pick(&life.row, spec.entity())).or_default().push((e, life.clone()));
            }
        }
        index.values_mut().for_each(|rows| rows.sort_by_key(|row| row.0));
        let index = Rc::new(index);
        self.keys.borrow_mut().insert(node, index.clone());
        index
    }

    /// C1b: each left row that enters at t is answered at (t, t), and keeps the answer until it leaves. At a time column (T4, T5): as
    /// served then, at q = s; in hindsight, also at its epoch, by everything that ever arrived and stayed. A row without a time finds nothing.
    pub(super) fn lives_of_lookup(&self, node: NodeId, parts: &[LookupPart], at: LookupTime) -> Vec<Life<Row>> {
        let inputs = &self.plan.node(node).inputs;
        let schema = &self.plan.node(inputs[0]).schema;
        let time_of = |life: &Life<Row>, column: usize| event_time_of(&life.row[column], schema.field(column).data_type());
        let point_of = |life: &Life<Row>| match at {
            LookupTime::Now => Some(ReadPoint::at(life.entered)),
            LookupTime::EventTime { column: None } => Some(ReadPoint { q: life.entered, s: Epoch::MAX }),
            LookupTime::EventTime { column: Some(column) } => Some(ReadPoint { q: time_of(life, column)?.epoch_ceil(), s: Epoch::MAX }),
            LookupTime::AsServed { column } => Some(ReadPoint::at(time_of(life, column)?.epoch_ceil())),
        };
        let answered = |life: &Life<Row>| {
            let point = point_of(life);
            let mut row = life.row.clone();
            let (mut statuses, mut e_last) = (Vec::new(), None);
            for (part, view) in parts.iter().zip(&inputs[1..]) {
                let key = if point.is_some() { pick(&life.row, &part.keys) } else { vec![Value::Null; part.keys.len()] };
                let answer = self.lookup(*view, &key, point.unwrap_or(ReadPoint::at(life.entered)));
                row.extend(part.columns.iter().map(|column| lookup_cell(&key, &answer, *column)));
                statuses.push(answer.status);
                e_last = e_last.max(answer.e_last);
            }
            row.push(Value::Text(worst(statuses).name().to_string()));
            row.push(e_last.map_or(Value::Null, |e| Value::Int(i128::from(e.0))));
            Life { row, ..life.clone() }
        };
        self.lives(inputs[0]).iter().map(answered).collect()
    }
}

/// A column of the view's schema: the entity of a key that was found, or a feature.
fn lookup_cell(key: &[Value], answer: &KeyAnswer, column: usize) -> Value {
    match column.checked_sub(key.len()) {
        Some(feature) => answer.values[feature].clone(),
        None if answer.status == Status::NotFound => Value::Null,
        None => key[column].clone(),
    }
}

/// T8: among rows of the greatest event time the greatest (arrival, position, row) wins.
fn latest_cells<'a>(spec: &LatestSpec, rows: impl Iterator<Item = &'a Life<Row>>) -> Vec<Result<Value, String>> {
    let winner = rows.max_by(|a, b| (a.entered, a.position, &a.row).cmp(&(b.entered, b.position, &b.row))).expect("a key with e_last has a row");
    spec.features.iter().map(|column| Ok(winner.row[*column].clone())).collect()
}

fn answer_of(cells: Vec<Result<Value, String>>, e_last: EventTime) -> KeyAnswer {
    let mut answer = KeyAnswer { values: Vec::new(), statuses: Vec::new(), status: Status::Present, e_last: Some(e_last), errors: Vec::new() };
    for (feature, cell) in cells.into_iter().enumerate() {
        answer.statuses.push(match &cell {
            Ok(Value::Null) => Status::NullValue,
            Ok(_) => Status::Present,
            Err(_) => Status::Error,
        });
        answer.values.push(cell.unwrap_or_else(|message| {
            answer.errors.push((feature, message));
            answer.status = Status::Error;
            Value::Null
        }));
    }
    answer
}
