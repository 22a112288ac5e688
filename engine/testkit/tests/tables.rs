//! Tables E1 to E11.

use arrow::datatypes::DataType;
use freshet_core::AggregateFunction::*;
use freshet_core::{ClockKind, Epoch, ReadMode, ReadPoint, Status, Value, Window};
use freshet_testkit::model::{Event, FeatureModel, ReadContext, SpineRow, TrainingMode, frontier_after, read_point, tick_end, training, watermark};

use crate::written::*;

fn edge_events() -> Vec<freshet_testkit::lives::Change<Event>> {
    ["08:59:59.999", "09:00:00.000", "09:00:00.001", "09:59:59.999", "10:00:00.000", "10:00:00.001"].map(|e| prompt(1, e, 1.0)).to_vec()
}

#[test]
fn e1_window_edges() {
    let (events, ten) = (edge_events(), ReadPoint::at(at("10:00")));
    assert_eq!(value(&count(Window::last_ms(HOUR)), &events, ten), int(2));
    assert_eq!(value(&count(inclusive(HOUR)), &events, ten), int(3));
    let including = FeatureModel { include_now: true, ..count(Window::last_ms(HOUR)) };
    assert_eq!(value(&including, &events, ten), int(3));
    let hopping = FeatureModel { hop_ms: Some(5 * MINUTE as u64), ..count(Window::last_ms(HOUR)) };
    let later = ReadPoint::at(at("10:03"));
    assert_eq!(value(&hopping, &events, later), int(5));
    assert_eq!(value(&count(Window::last_ms(HOUR)), &events, later), int(3));
}

#[test]
fn e2_tiles_must_not_lie() {
    let events = [prompt(1, "00:01", 10.0), prompt(1, "00:06", 20.0), prompt(1, "00:21", 5.0), prompt(1, "00:21", 7.0)];
    let view = rolling(&[Count, Sum, Max, Min, Avg, StddevSamp, StddevPop], Window::last_ms(10 * MINUTE));
    let found = view.read(&events, &[int(1)], ReadPoint::at(at("00:25:00.001")));
    let floats = [12.0, 7.0, 5.0, 6.0, 2f64.sqrt(), 1.0].map(Value::Float);
    assert_eq!(found.values[0], int(2));
    assert_eq!(found.values[1..], floats);
    let empty = view.read(&events, &[int(1)], ReadPoint::at(at("00:20")));
    assert_eq!(empty.values[0], int(0));
    assert!(empty.values[1..].iter().all(Value::is_null));
    assert_eq!((empty.statuses[0], empty.statuses[1]), (Status::Present, Status::NullValue));
}

#[test]
fn e3_as_served() {
    let day = |day: u64, ms: u64| Epoch(20_089 * DAY + (day - 1) * DAY + ms);
    let noon = 12 * HOUR as u64;
    let ten = day(1, 10 * HOUR as u64);
    let view = FeatureModel::latest(vec![DataType::Float64]);
    let spine = [SpineRow { key: vec![int(1)], q: day(2, 0), cut: None }];
    let corrected = [event(&[1], ten, day(1, noon), 1, 0.4), event(&[1], ten, day(3, 0), 1, 0.6)];
    assert_eq!(training(&view, &corrected, &spine, TrainingMode::EventTime)[0].values, [Value::Float(0.6)]);
    assert_eq!(training(&view, &corrected, &spine, TrainingMode::AsServed)[0].values, [Value::Float(0.4)]);
    let both_later = [event(&[1], ten, day(2, noon), 1, 0.4), event(&[1], ten, day(3, 0), 1, 0.6)];
    let as_served = training(&view, &both_later, &spine, TrainingMode::AsServed);
    assert_eq!((as_served.len(), &as_served[0].values), (1, &vec![Value::Null]));
    assert_eq!(training(&view, &both_later, &spine, TrainingMode::EventTime)[0].values, [Value::Float(0.6)]);
}

#[test]
fn e4_latest_value() {
    let d = |days: u64| Epoch(days * DAY);
    let view = FeatureModel::latest(vec![DataType::Float64]);
    let events = [
        event(&[1001], d(0), d(0), 1, 10.0),
        event(&[1001], d(0), d(1), 1, 20.0),
        event(&[1002], d(0), d(1), 1, 30.0),
        event(&[1002], d(1), d(0), 1, 40.0),
    ];
    let read = |key| view.read(&events, &[int(key)], ReadPoint::at(d(2))).values;
    assert_eq!(read(1001), [Value::Float(20.0)]);
    assert_eq!(read(1002), [Value::Float(40.0)]);
}

#[test]
fn e5_key_collision() {
    let view = FeatureModel::latest(vec![DataType::Float64]);
    let now = at("09:00");
    let events = [event(&[1, 12], now, now, 1, 0.1), event(&[11, 2], now, now, 1, 0.2)];
    let spine = [[1, 12], [11, 2]].map(|key| SpineRow { key: key.map(int).to_vec(), q: at("10:00"), cut: None });
    let found: Vec<Value> = training(&view, &events, &spine, TrainingMode::AsServed).into_iter().flat_map(|answer| answer.values).collect();
    assert_eq!(found, [0.1, 0.2].map(Value::Float));
}

#[test]
fn e6_spine_twins_both_survive() {
    let row = SpineRow { key: vec![int(1)], q: at("10:00"), cut: None };
    let unknown = SpineRow { key: vec![int(2)], ..row.clone() };
    let answers = training(&count(Window::last_ms(HOUR)), &edge_events(), &[row.clone(), unknown, row], TrainingMode::AsServed);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0], answers[2]);
    assert_eq!((answers[1].values.clone(), answers[1].statuses.clone()), (vec![Value::Null], vec![Status::NotFound]));
}

#[test]
fn e7_float_sums_do_not_depend_on_order() {
    let values = [1e16, 1.0, -1e16];
    let view = rolling(&[Sum], for_ever());
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut events: Vec<_> =
            order.iter().enumerate().map(|(index, value)| event(&[1], Epoch(index as u64), Epoch(index as u64), 1, values[*value])).collect();
        let now = ReadPoint::at(Epoch(100));
        assert_eq!(value(&view, &events, now), Value::Float(1.0));
        let first = order.iter().position(|value| *value == 0).unwrap() as u64;
        events.push(event(&[1], Epoch(first), Epoch(50), -1, 1e16));
        assert_eq!(value(&view, &events, now), Value::Float(-1e16));
    }
}

#[test]
fn e8_retract_to_empty() {
    let view = rolling(&[Count, Sum], Window::last_ms(HOUR));
    let mut events = vec![prompt(1, "08:30", 1.0), prompt(1, "09:30", 2.0)];
    let read = |events: &[_]| view.read(events, &[int(1)], ReadPoint::at(at("10:00")));
    assert_eq!(read(&events).values, [int(1), Value::Float(2.0)]);
    events.push(event(&[1], at("09:30"), at("09:40"), -1, 2.0));
    assert_eq!(read(&events).values, [int(0), Value::Null]);
    assert_eq!(read(&events).e_last, e("08:30"));
    events.push(event(&[1], at("08:30"), at("09:50"), -1, 1.0));
    assert_eq!(read(&events).statuses, [Status::NotFound, Status::NotFound]);
}

#[test]
fn e9_late_stream() {
    let view = count(Window::last_ms(HOUR));
    let three = at("03:00");
    let mut events: Vec<_> = ["01:33", "01:55", "02:10", "02:32"].iter().map(|e| event(&[1], at(e), at("02:50"), 1, 1.0)).collect();
    let least = watermark(&[e("02:32"), e("02:45")], 0).expect("both partitions run");
    assert_eq!(least.epoch_ceil(), at("02:32:00.001"));
    let context =
        ReadContext { clock: ClockKind::Wall, request_time: three, frontier: three.next(), watermark: least.epoch_ceil(), include_now: false };
    assert_eq!(value(&view, &events, read_point(ReadMode::Fresh, &context)), int(2));
    assert_eq!(value(&view, &events, read_point(ReadMode::Consistent, &context)), int(4));
    events.extend(["02:41", "02:49"].map(|e| event(&[1], at(e), at("03:10"), 1, 1.0)));
    let spine = [SpineRow { key: vec![int(1)], q: three, cut: None }];
    assert_eq!(training(&view, &events, &spine, TrainingMode::EventTime)[0].values, [int(4)]);
    assert_eq!(training(&view, &events, &spine, TrainingMode::AsServed)[0].values, [int(2)]);
}

#[test]
fn e10_tick_label() {
    let arrival = tick_end(109, 10);
    assert_eq!(arrival, Epoch(110));
    let events = [event(&[1], Epoch(103), arrival, 1, 1.0)];
    let view = count(for_ever());
    let frontier = frontier_after(Epoch(100));
    let context = ReadContext { clock: ClockKind::Wall, request_time: Epoch(105), frontier, watermark: Epoch(100), include_now: false };
    let point = read_point(ReadMode::RequestTime, &context);
    assert_eq!(point, both(Epoch(105), Epoch(101)));
    assert_eq!(value(&view, &events, point), Value::Null);
    let spine = [SpineRow { key: vec![int(1)], q: Epoch(105), cut: None }];
    assert_eq!(training(&view, &events, &spine, TrainingMode::AsServed)[0].statuses, [Status::NotFound]);
    assert_eq!(training(&view, &events, &spine, TrainingMode::EventTime)[0].values, [int(1)]);
}

#[test]
fn e11_lookup_law() {
    let departures = [event(&[1], Epoch(90), Epoch(100), 1, 1.0)];
    let view = count(for_ever());
    let question = |arrival| view.read(&departures, &[int(1)], ReadPoint::at(Epoch(arrival)));
    assert_eq!(question(100).statuses, [Status::NotFound]);
    assert_eq!(question(101).values, [int(1)]);
}
