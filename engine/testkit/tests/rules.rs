//! Rules that no table covers, each named by its id.

use arrow::datatypes::DataType;
use freshet_core::AggregateFunction::*;
use freshet_core::{ClockKind, Epoch, EventTime, ReadMode, ReadPoint, RollingAggregate, Status, Value, Window, WindowEdge};
use freshet_testkit::model::*;

use crate::written::*;

const WATERMARK_ONLY: ArrivalRule = ArrivalRule { has_event_time: true, has_arrival: false, lateness_ms: None, max_jump_ms: None };

fn record(partition: u32, e_ns: i64) -> Record {
    Record { partition, e: Some(EventTime(e_ns)), arrival: None, is_deletion: false }
}

fn fates(rule: &ArrivalRule, records: &[Record]) -> Vec<Fate> {
    event_clock(rule, records).unwrap()
}

fn ms(ms: i64) -> i64 {
    ms * 1_000_000
}

#[test]
fn t0_the_epoch_is_the_running_maximum_of_its_partition_rounded_up() {
    let records = [record(0, ms(5)), record(1, ms(2)), record(0, ms(3)), record(0, ms(7) + 1), record(1, ms(1))];
    let expected = [5, 2, 5, 8, 2].map(|epoch| Fate::Enters(Epoch(epoch)));
    assert_eq!(fates(&WATERMARK_ONLY, &records), expected);
}

#[test]
fn t0_a_source_without_times_enters_whole_at_epoch_zero() {
    let untimed = Record { partition: 0, e: None, arrival: None, is_deletion: false };
    assert_eq!(fates(&ArrivalRule::default(), &[untimed, untimed]), [Fate::Enters(Epoch(0)); 2]);
}

#[test]
fn t0_arrival_column_takes_the_place_of_event_time() {
    let rule = ArrivalRule { has_arrival: true, ..WATERMARK_ONLY };
    let row = |e, arrival: Option<i64>| Record { arrival: arrival.map(|a| EventTime(ms(a))), ..record(0, ms(e)) };
    let found = fates(&rule, &[row(1, Some(10)), row(2, Some(4)), row(3, None)]);
    assert_eq!(found, [Fate::Enters(Epoch(10)), Fate::Enters(Epoch(10)), Fate::DeadLetter("arrival is NULL")]);
}

#[test]
fn t0_the_clock_waits_for_every_partition_that_has_not_ended() {
    assert_eq!(complete_below(&[(Some(Epoch(9)), false), (Some(Epoch(4)), false)]), Some(Epoch(4)));
    assert_eq!(complete_below(&[(Some(Epoch(9)), false), (Some(Epoch(4)), true)]), Some(Epoch(9)));
    assert_eq!(complete_below(&[(Some(Epoch(9)), false), (None, false)]), Some(Epoch(0)));
    assert_eq!(complete_below(&[(Some(Epoch(9)), true)]), None);
}

#[test]
fn t0a_a_jump_is_quarantined_and_does_not_move_the_clock() {
    let rule = ArrivalRule { max_jump_ms: Some(100), ..WATERMARK_ONLY };
    let found = fates(&rule, &[record(0, ms(5000)), record(0, ms(5101)), record(0, ms(5100)), record(0, ms(5200))]);
    assert_eq!(found, [Fate::Enters(Epoch(5000)), Fate::Quarantined, Fate::Enters(Epoch(5100)), Fate::Enters(Epoch(5200))]);
}

#[test]
fn t0a_a_thousand_in_a_row_fail_the_run_naming_max_jump() {
    let rule = ArrivalRule { max_jump_ms: Some(100), ..WATERMARK_ONLY };
    let mut records = vec![record(0, ms(1))];
    records.extend(vec![record(0, ms(1000)); QUARANTINE_IN_A_ROW_MAX - 1]);
    assert!(event_clock(&rule, &records).is_ok());
    records.push(record(0, ms(1000)));
    assert!(event_clock(&rule, &records).unwrap_err().contains("max_jump"));
}

#[test]
fn t0c_tickets_never_fall_and_a_jump_of_the_clock_is_no_time() {
    assert_eq!(next_ticket(Epoch(100), 110, 110), Ticket { epoch: Epoch(110), alert: false });
    assert_eq!(next_ticket(Epoch(100), 90, 100), Ticket { epoch: Epoch(101), alert: false });
    assert_eq!(next_ticket(Epoch(100), 9_000, 110), Ticket { epoch: Epoch(110), alert: true });
}

#[test]
fn t1_include_now_sees_the_instant_itself() {
    let events = [event(&[1], Epoch(50), Epoch(60), 1, 1.0)];
    let (strict, including) = (count(for_ever()), FeatureModel { include_now: true, ..count(for_ever()) });
    assert_eq!(value(&strict, &events, both(Epoch(51), Epoch(61))), int(1));
    assert_eq!(value(&strict, &events, both(Epoch(50), Epoch(61))), Value::Null);
    assert_eq!(value(&strict, &events, both(Epoch(51), Epoch(60))), Value::Null);
    assert_eq!(value(&including, &events, both(Epoch(50), Epoch(60))), int(1));
    assert_eq!(value(&including, &events, both(Epoch(50), Epoch(59))), Value::Null);
}

#[test]
fn t2_an_upper_edge_is_as_the_text_says() {
    let events = [prompt(1, "09:00", 1.0), prompt(1, "09:30", 1.0)];
    let upper = |inclusive| Window { lower: None, upper: Some(WindowEdge { offset_ms: HOUR / 2, inclusive }) };
    let ten = ReadPoint::at(at("10:00"));
    assert_eq!(value(&count(upper(false)), &events, ten), int(1));
    assert_eq!(value(&count(upper(true)), &events, ten), int(2));
}

#[test]
fn t4_a_cut_column_is_the_cut() {
    let events = [event(&[1], Epoch(10), Epoch(30), 1, 1.0)];
    let spine = [None, Some(Epoch(30)), Some(Epoch(31))].map(|cut| SpineRow { key: vec![int(1)], q: Epoch(20), cut });
    let found: Vec<Status> = training(&count(for_ever()), &events, &spine, TrainingMode::AsServed).iter().map(|row| row.statuses[0]).collect();
    assert_eq!(found, [Status::NotFound, Status::NotFound, Status::Present]);
    assert!(label_counts(Epoch(9), Epoch(10)));
    assert!(!label_counts(Epoch(10), Epoch(10)));
}

#[test]
fn t7_a_null_key_matches_nothing() {
    let mut row = prompt(1, "09:00", 1.0);
    row.row.key = vec![Value::Null];
    assert_eq!(count(for_ever()).read(&[row], &[Value::Null], ReadPoint::at(at("10:00"))).statuses, [Status::NotFound]);
}

#[test]
fn t8_the_winner_does_not_depend_on_the_order_of_arrival_in_a_batch() {
    let view = FeatureModel::latest(vec![DataType::Float64]);
    let mut events = vec![event(&[1], Epoch(5), Epoch(9), 1, 1.0), event(&[1], Epoch(5), Epoch(9), 1, 2.0), event(&[1], Epoch(4), Epoch(10), 1, 3.0)];
    events[0].position = 7;
    events[1].position = 6;
    let now = ReadPoint::at(Epoch(20));
    assert_eq!(value(&view, &events, now), Value::Float(1.0));
    events.reverse();
    assert_eq!(value(&view, &events, now), Value::Float(1.0));
    events.push(event(&[1], Epoch(5), Epoch(11), -1, 1.0));
    assert_eq!(value(&view, &events, now), Value::Float(2.0));
    assert_eq!(value(&view, &events, both(Epoch(20), Epoch(11))), Value::Float(1.0));
}

#[test]
fn t9_a_retraction_counts_from_its_own_epoch() {
    let events = [event(&[1], Epoch(5), Epoch(5), 1, 1.0), event(&[1], Epoch(6), Epoch(6), 1, 1.0), event(&[1], Epoch(6), Epoch(9), -1, 1.0)];
    let view = count(for_ever());
    assert_eq!(value(&view, &events, both(Epoch(8), Epoch(9))), int(2));
    assert_eq!(value(&view, &events, both(Epoch(8), Epoch(10))), int(1));
}

#[test]
fn t10_equal_is_fresh_and_stale_reads_as_null() {
    let view = FeatureModel { ttl_ms: Some(100), ..FeatureModel::latest(vec![DataType::Float64]) };
    let events = [event(&[1], Epoch(1000), Epoch(1000), 1, 1.0)];
    let status = |q| view.read(&events, &[int(1)], ReadPoint::at(Epoch(q))).statuses[0];
    assert_eq!([1100, 1101, 1200, 1201].map(status), [Status::Present, Status::OutsideMaxAge, Status::OutsideMaxAge, Status::NotFound]);
    let no_limit = FeatureModel { ttl_ms: Some(0), ..view };
    assert_eq!(no_limit.read(&events, &[int(1)], ReadPoint::at(Epoch(DAY))).statuses, [Status::Present]);
}

#[test]
fn t11_e_last_counts_rows_outside_every_window_and_filter() {
    let mut view = count(Window::last_ms(HOUR));
    if let ViewKind::Rolling(aggregates) = &mut view.kind {
        aggregates[0] = RollingAggregate { filter: Some(0), ..aggregates[0].clone() };
    }
    let found = view.read(&[prompt(1, "08:30", 1.0)], &[int(1)], ReadPoint::at(at("10:00")));
    assert_eq!((found.values, found.e_last), (vec![int(0)], e("08:30")));
}

#[test]
fn t12_lateness_is_judged_against_the_previous_epoch_and_never_falls() {
    let rule = ArrivalRule { lateness_ms: Some(10), ..WATERMARK_ONLY };
    // 100 and 85 share an epoch: 85 is judged against what was known before it. 90 is on the bound, 89 below.
    let records = [record(0, ms(50)), record(0, ms(100)), record(0, ms(45)), record(0, ms(101)), record(0, ms(90)), record(0, ms(89))];
    let found = fates(&rule, &records);
    assert_eq!(found[2], Fate::Enters(Epoch(100)));
    assert_eq!(found[4], Fate::Enters(Epoch(101)));
    assert_eq!(found[5], Fate::TooLate(Epoch(101)));
}

#[test]
fn t12_lateness_follows_the_slowest_partition_that_has_not_ended() {
    let rule = ArrivalRule { lateness_ms: Some(0), ..WATERMARK_ONLY };
    let records = [record(0, ms(100)), record(1, ms(10)), record(0, ms(200)), record(0, ms(20)), record(1, ms(300))];
    assert_eq!(fates(&rule, &records)[3], Fate::Enters(Epoch(200)));
    let records = [record(0, ms(100)), record(1, ms(10)), record(0, ms(200)), record(0, ms(20))];
    assert_eq!(fates(&rule, &records)[3], Fate::TooLate(Epoch(200)));
}

#[test]
fn t12_a_window_closes_at_the_watermark() {
    let watermark_at = watermark(&[Some(EventTime(ms(99)))], 0);
    assert!(closes(watermark_at, EventTime(ms(100))));
    assert!(!closes(watermark(&[Some(EventTime(ms(99)))], 1), EventTime(ms(100))));
    assert!(closes(None, EventTime::MAX));
    assert!(!closes(watermark(&[Some(EventTime(ms(99))), None], 0), EventTime(ms(1))));
}

#[test]
fn t13_future_rows_are_held_or_quarantined() {
    let entry = |e| wall_entry(e, EventTime(ms(1000)), 50);
    assert_eq!(entry(Some(EventTime(ms(1000)))), Entry::Now);
    assert_eq!(entry(Some(EventTime(ms(1050)))), Entry::HeldUntil(Epoch(1050)));
    assert_eq!(entry(Some(EventTime(ms(1051)))), Entry::Quarantined);
    assert_eq!([entry(None), entry(Some(EventTime(-1)))], [Entry::DeadLetter; 2]);
}

#[test]
fn t13_times_that_are_null_or_out_of_range_are_dead_letters() {
    let null = Record { partition: 0, e: None, arrival: None, is_deletion: false };
    let found = fates(&WATERMARK_ONLY, &[null, record(0, -1), record(0, i64::MAX), record(0, ms(1))]);
    assert!(found[..3].iter().all(|fate| matches!(fate, Fate::DeadLetter(_))));
    assert_eq!(found[3], Fate::Enters(Epoch(1)));
}

#[test]
fn t14_values_decay_in_silence() {
    let events = [event(&[1], Epoch(1000), Epoch(1000), 1, 1.0)];
    let (open, closed) = (count(Window::last_ms(100)), count(inclusive(100)));
    let read = |view: &FeatureModel, q| value(view, &events, ReadPoint::at(Epoch(q)));
    assert_eq!([1099, 1100].map(|q| read(&open, q)), [int(1), int(0)]);
    assert_eq!([1100, 1101].map(|q| read(&closed, q)), [int(1), int(0)]);
}

#[test]
fn t15_the_event_clock_asks_for_the_frontier() {
    let context = ReadContext { clock: ClockKind::Event, request_time: Epoch(9), frontier: Epoch(500), watermark: Epoch(400), include_now: false };
    assert_eq!(read_point(ReadMode::Fresh, &context), ReadPoint::at(Epoch(500)));
    assert_eq!(read_point(ReadMode::RequestTime, &context), ReadPoint::at(Epoch(500)));
    assert_eq!(read_point(ReadMode::Consistent, &context), both(Epoch(400), Epoch(500)));
    assert_eq!(read_point(ReadMode::AsOf(Epoch(7)), &context), ReadPoint::at(Epoch(7)));
    let including = ReadContext { include_now: true, ..context };
    assert_eq!(read_point(ReadMode::Fresh, &including), ReadPoint::at(Epoch(499)));
}

#[test]
fn t18_a_key_is_forgotten_after_twice_the_longest_window() {
    let view = FeatureModel { hop_ms: Some(50), ..count(Window::last_ms(100)) };
    let events = [event(&[1], Epoch(1000), Epoch(1000), 1, 1.0)];
    assert_eq!(view.horizon_ms(), Some(300));
    let status = |q| view.read(&events, &[int(1)], ReadPoint::at(Epoch(q))).statuses[0];
    assert_eq!([1300, 1301].map(status), [Status::Present, Status::NotFound]);
    assert_eq!(count(for_ever()).horizon_ms(), None);
}

#[test]
fn t20_retracting_a_nan_restores_the_earlier_result() {
    let view = rolling(&[Sum, Avg, Min, Max], for_ever());
    let values = |values: &[f64]| -> Vec<_> { values.iter().map(|value| event(&[1], Epoch(1), Epoch(1), 1, *value)).collect() };
    let read = |events: &[_]| view.read(events, &[int(1)], ReadPoint::at(Epoch(9))).values;
    let mut events = values(&[1.0, 3.0]);
    let before = read(&events);
    events.extend(values(&[f64::NAN, f64::INFINITY]));
    assert_eq!(read(&events), [f64::NAN, f64::NAN, 1.0, f64::NAN].map(Value::Float));
    events.extend([f64::NAN, f64::INFINITY].map(|value| event(&[1], Epoch(1), Epoch(2), -1, value)));
    assert_eq!(read(&events), before);
}

#[test]
fn t21_a_sum_out_of_range_is_an_error_of_its_key() {
    let view = FeatureModel::rolling(vec![call(Sum, for_ever())], vec![DataType::Int64]);
    let big = |key, value: i64| {
        let mut change = event(&[key], Epoch(1), Epoch(1), 1, 0.0);
        change.row.values = vec![int(value)];
        change
    };
    let events = [big(1, i64::MAX), big(1, 1), big(2, 5)];
    let read = |key| view.read(&events, &[int(key)], ReadPoint::at(Epoch(9)));
    assert_eq!((read(1).statuses, read(1).values), (vec![Status::Error], vec![Value::Null]));
    assert_eq!(read(2).values, [int(5)]);
}

#[test]
fn t23_an_incomplete_read_keeps_its_value() {
    let view = FeatureModel { complete_since: Some(Epoch(1000)), ..count(Window::last_ms(100)) };
    let events = [event(&[1], Epoch(1050), Epoch(1050), 1, 1.0)];
    let read = |q| view.read(&events, &[int(1)], ReadPoint::at(Epoch(q)));
    assert_eq!((read(1099).values, read(1099).statuses), (vec![int(1)], vec![Status::Incomplete]));
    assert_eq!(read(1100).statuses, [Status::Present]);
}
