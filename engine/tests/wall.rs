//! Wall clock: rows enter with the tick they came in, wait if their time has not come, and are quarantined if it lies far ahead.

use std::time::{SystemTime, UNIX_EPOCH};

use freshet_core::{ClockKind, Epoch, Op, Value};
use freshet_engine::{Engine, EngineConfig};
use freshet_testkit::compare::{assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::plans::every_operator;
use crate::running::{connectors, interpreter, observed, run};

#[allow(clippy::disallowed_methods, reason = "the wall clock is what is tested")]
fn now_ms() -> i128 {
    i128::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

#[test]
fn c1_content_that_knows_no_time_is_the_same_under_either_clock() {
    let mut plan = observed(every_operator());
    let input = connectors(&plan, 600, &Shape { rows: 60, ..Shape::default() });
    let interpreter = interpreter(&plan, &input);
    plan.clock = ClockKind::Wall;
    let before = now_ms() as u64;
    let engine = run(&plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &input);
    let reader = engine.reader();
    let timeless: Vec<_> =
        plan.views.iter().filter(|view| matches!(plan.node(view.node).op, Op::Filter { .. } | Op::Project { .. } | Op::Join { .. })).collect();
    for view in timeless {
        let snapshot = reader.snapshot(&[&view.name], None).unwrap();
        assert!(snapshot.point.s >= Epoch(before), "an epoch is a time of the machine's clock");
        assert_same(&view.name, 600, &interpreter.content(view.node, interpreter.end()), &content_of(&snapshot.views[0]).unwrap());
    }
    engine.shutdown().unwrap();
}

#[test]
fn t13_a_row_ahead_of_the_clock_waits_and_one_far_ahead_is_quarantined() {
    let mut plan = observed(every_operator());
    plan.clock = ClockKind::Wall;
    let now = now_ms();
    let row = |offset: u64, key: &str, at: i128| {
        RawRecord::insert(offset, vec![Value::Text(key.into()), Value::Int(1), Value::Float(1.0), Value::Int(at), Value::Bool(true)])
    };
    let records = vec![row(0, "past", now - 1_000), row(1, "soon", now + 700), row(2, "far", now + 600_000)];
    let input = MemoryConnectors::new(1).with_source("left", records).with_source("right", Vec::new());
    let engine = Engine::start(plan.clone(), EngineConfig::default(), &input).unwrap();
    engine.wait().unwrap();
    let status = engine.reader().status();
    engine.shutdown().unwrap();
    let entered: Vec<(String, u64)> = input.sink("n0").iter().map(|change| (change.row[0].to_string(), change.epoch.0)).collect();
    assert_eq!(entered.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["past", "soon"]);
    assert!(entered[1].1 as i128 >= now + 700, "the held row enters at its time, not at {}", entered[1].1);
    assert_eq!(status.sources[0].dead_letters.iter().map(|(_, count)| *count).sum::<u64>(), 1);
}
