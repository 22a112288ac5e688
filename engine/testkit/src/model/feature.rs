//! What a feature view answers for one key at one (q, s). In: every change of its input. Out: values, statuses, e_last (T1 to T3, T8 to T11, T17, T18).

use arrow::datatypes::DataType;
use freshet_core::{Epoch, EventTime, ReadPoint, RollingAggregate, Status, Value, Window};

use crate::aggregate::{aggregate, aggregate_type};
use crate::lives::{Change, Life, lives};

const NS_PER_MS: i128 = 1_000_000;

/// An input row of a feature view: entity, event time and the columns that aggregates and features name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub key: Vec<Value>,
    pub e: EventTime,
    pub values: Vec<Value>,
}

#[derive(Debug, Clone)]
pub enum ViewKind {
    /// Arguments and filters are indexes into `Event::values`.
    Rolling(Vec<RollingAggregate>),
    /// All of `Event::values` of the winner (T8).
    Latest,
}

/// One feature view.
#[derive(Debug, Clone)]
pub struct FeatureModel {
    pub kind: ViewKind,
    /// Of `Event::values`.
    pub types: Vec<DataType>,
    pub hop_ms: Option<u64>,
    pub ttl_ms: Option<u64>,
    pub include_now: bool,
    /// T23; None: whole from the beginning.
    pub complete_since: Option<Epoch>,
}

/// One answer: a value and a status per column.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub values: Vec<Value>,
    pub statuses: Vec<Status>,
    pub e_last: Option<EventTime>,
}

impl FeatureModel {
    /// A rolling view of these aggregates over events of these types; everything else is off.
    pub fn rolling(aggregates: Vec<RollingAggregate>, types: Vec<DataType>) -> FeatureModel {
        FeatureModel { kind: ViewKind::Rolling(aggregates), types, hop_ms: None, ttl_ms: None, include_now: false, complete_since: None }
    }

    pub fn latest(types: Vec<DataType>) -> FeatureModel {
        FeatureModel { kind: ViewKind::Latest, types, hop_ms: None, ttl_ms: None, include_now: false, complete_since: None }
    }

    /// What a read of `key` at (q, s) returns.
    pub fn read(&self, changes: &[Change<Event>], key: &[Value], point: ReadPoint) -> Answer {
        // T7: a NULL key matches nothing.
        if key.iter().any(Value::is_null) {
            return self.without_values(Status::NotFound, None);
        }
        self.read_visible(&self.visible(changes, key, point), point.q)
    }

    /// T1: e < q and a < s; with include_now e ≤ q and a ≤ s. T9: a retraction counts from its own epoch.
    fn visible(&self, changes: &[Change<Event>], key: &[Value], point: ReadPoint) -> Vec<Life<Event>> {
        let cut = if self.include_now { point.s.next() } else { point.s };
        let now = point.q.event_time();
        let of_key = changes.iter().filter(|change| change.row.key == key).cloned();
        lives(of_key)
            .lives
            .into_iter()
            .filter(|life| life.is_seen_below(cut) && (life.row.e < now || (self.include_now && life.row.e == now)))
            .collect()
    }

    fn read_visible(&self, visible: &[Life<Event>], q: Epoch) -> Answer {
        // T11: over all rows that reach the GROUP BY, in a window or not.
        let Some(e_last) = visible.iter().map(|life| life.row.e).max() else { return self.without_values(Status::NotFound, None) };
        let age = i128::from(q.event_time().0) - i128::from(e_last.0);
        // T18.
        if self.horizon_ms().is_some_and(|horizon| age > i128::from(horizon) * NS_PER_MS) {
            return self.without_values(Status::NotFound, None);
        }
        // T10: equal is fresh.
        if self.ttl_ms.is_some_and(|ttl| ttl > 0 && age > i128::from(ttl) * NS_PER_MS) {
            return self.without_values(Status::OutsideMaxAge, Some(e_last));
        }
        let columns: Vec<(Value, Status)> = match &self.kind {
            ViewKind::Rolling(aggregates) => aggregates.iter().map(|aggregate| self.rolling_column(aggregate, visible, q)).collect(),
            ViewKind::Latest => latest(visible).iter().map(|value| with_status(value.clone())).collect(),
        };
        let (values, statuses) = columns.into_iter().unzip();
        Answer { values, statuses, e_last: Some(e_last) }
    }

    fn rolling_column(&self, call: &RollingAggregate, visible: &[Life<Event>], q: Epoch) -> (Value, Status) {
        let counted: Vec<&Event> = visible
            .iter()
            .map(|life| &life.row)
            .filter(|event| is_in_window(&call.window, self.hop_ms, q, event.e))
            .filter(|event| call.filter.is_none_or(|filter| event.values[filter] == Value::Bool(true)))
            .collect();
        let arguments: Option<Vec<Value>> = call.argument.map(|argument| counted.iter().map(|event| event.values[argument].clone()).collect());
        let output = aggregate_type(call.function, call.argument.map(|argument| &self.types[argument]));
        // T21: a sum out of range is an error of this key.
        let Ok(value) = aggregate(call.function, counted.len(), arguments.as_deref(), false, &output) else { return (Value::Null, Status::Error) };
        // T23: the value stays.
        let since = self.complete_since.map(|since| i128::from(since.0));
        let from = call.window.lower.map_or(i128::MIN, |edge| i128::from(q.0) - i128::from(edge.offset_ms));
        if since.is_some_and(|since| from < since) { (value, Status::Incomplete) } else { with_status(value) }
    }

    /// H of T18: 2 · max(every window plus its hop, TTL); None: for ever.
    pub fn horizon_ms(&self) -> Option<u64> {
        let ttl = self.ttl_ms.filter(|ttl| *ttl > 0);
        match &self.kind {
            ViewKind::Latest => ttl.map(|ttl| 2 * ttl),
            ViewKind::Rolling(aggregates) => {
                let windows: Option<Vec<u64>> =
                    aggregates.iter().map(|call| call.window.lower.map(|edge| edge.offset_ms.unsigned_abs() + self.hop_ms.unwrap_or(0))).collect();
                windows.map(|windows| 2 * windows.into_iter().chain(ttl).max().unwrap_or(0))
            }
        }
    }

    fn without_values(&self, status: Status, e_last: Option<EventTime>) -> Answer {
        let width = match &self.kind {
            ViewKind::Rolling(aggregates) => aggregates.len(),
            ViewKind::Latest => self.types.len(),
        };
        Answer { values: vec![Value::Null; width], statuses: vec![status; width], e_last }
    }
}

/// T8: the greatest (e, a, position, row).
fn latest(visible: &[Life<Event>]) -> &[Value] {
    let winner = visible.iter().max_by(|x, y| {
        let order = |life: &Life<Event>| (life.row.e, life.entered, life.position);
        order(x).cmp(&order(y)).then_with(|| x.row.values.cmp(&y.row.values))
    });
    &winner.expect("a key with e_last has a row").row.values
}

/// T2 and T3, as the text says them, in nanoseconds.
fn is_in_window(window: &Window, hop_ms: Option<u64>, q: Epoch, e: EventTime) -> bool {
    let (q_ms, e) = (i128::from(q.0), i128::from(e.0));
    let above = window.lower.is_none_or(|edge| {
        let bound_ms = q_ms - i128::from(edge.offset_ms);
        match hop_ms.map(i128::from) {
            Some(hop) => e >= (bound_ms - bound_ms.rem_euclid(hop)) * NS_PER_MS,
            None if edge.inclusive => e >= bound_ms * NS_PER_MS,
            None => e > bound_ms * NS_PER_MS,
        }
    });
    let below = window.upper.is_none_or(|edge| {
        let bound = (q_ms - i128::from(edge.offset_ms)) * NS_PER_MS;
        if edge.inclusive { e <= bound } else { e < bound }
    });
    above && below
}

fn with_status(value: Value) -> (Value, Status) {
    let status = if value.is_null() { Status::NullValue } else { Status::Present };
    (value, status)
}
