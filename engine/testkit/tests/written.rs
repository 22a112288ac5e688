//! Shorthand for writing down events, reads and windows.

use arrow::datatypes::DataType;
use freshet_core::{AggregateFunction, Epoch, EventTime, ReadPoint, RollingAggregate, Value, Window, WindowEdge};
use freshet_testkit::lives::Change;
use freshet_testkit::model::{Event, FeatureModel};

pub const HOUR: i64 = 3_600_000;
pub const MINUTE: i64 = 60_000;
pub const DAY: u64 = 86_400_000;

/// A time of the day as an epoch: "10:00", "09:59:59.999".
pub fn at(text: &str) -> Epoch {
    let mut parts = text.split([':', '.']).map(|part| part.parse::<u64>().expect("a number"));
    let mut next = || parts.next().unwrap_or(0);
    let (hours, minutes, seconds, ms) = (next(), next(), next(), next());
    Epoch(((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms)
}

pub fn int(value: i64) -> Value {
    Value::Int(value.into())
}

pub fn event(key: &[i64], e: Epoch, a: Epoch, diff: i64, value: f64) -> Change<Event> {
    let key = key.iter().map(|part| int(*part)).collect();
    Change { row: Event { key, e: e.event_time(), values: vec![Value::Float(value)] }, epoch: a, diff, position: 0 }
}

/// An event that arrives when it happens.
pub fn prompt(key: i64, e: &str, value: f64) -> Change<Event> {
    event(&[key], at(e), at(e), 1, value)
}

pub fn call(function: AggregateFunction, window: Window) -> RollingAggregate {
    let argument = (function != AggregateFunction::Count).then_some(0);
    RollingAggregate { function, argument, filter: None, window }
}

pub fn count(window: Window) -> FeatureModel {
    rolling(&[AggregateFunction::Count], window)
}

pub fn rolling(functions: &[AggregateFunction], window: Window) -> FeatureModel {
    FeatureModel::rolling(functions.iter().map(|function| call(*function, window)).collect(), vec![DataType::Float64])
}

pub fn inclusive(width_ms: i64) -> Window {
    Window { lower: Some(WindowEdge { offset_ms: width_ms, inclusive: true }), upper: None }
}

pub fn for_ever() -> Window {
    Window { lower: None, upper: None }
}

/// The first value of key 1.
pub fn value(view: &FeatureModel, events: &[Change<Event>], point: ReadPoint) -> Value {
    view.read(events, &[int(1)], point).values[0].clone()
}

pub fn both(q: Epoch, s: Epoch) -> ReadPoint {
    ReadPoint { q, s }
}

pub fn e(text: &str) -> Option<EventTime> {
    Some(at(text).event_time())
}
