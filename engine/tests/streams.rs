//! Wall clock over streams that a test feeds: what is away comes back, what was written is found again, nothing is lost or comes twice.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use freshet_core::{ClockKind, Epoch, Op, Plan, State, Value, ViewKind};
use freshet_engine::{Engine, EngineConfig};
use freshet_testkit::memory::SinkChange;
use freshet_testkit::{Stream, StreamConnectors};

use crate::plans::{add_source, source};
use crate::running::observed;

#[allow(clippy::disallowed_methods, reason = "the wall clock is what is tested")]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Waits for it, at most 20 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Sources of these names, each with a view and a sink; rows stay as they are.
pub fn plain(names: &[&str]) -> Plan {
    let mut plan = Plan::default();
    for name in names {
        let mut def = source(name);
        def.format = freshet_core::Format::Plain;
        add_source(&mut plan, def);
    }
    plan.nodes.iter_mut().for_each(|node| node.append_only = true);
    let mut plan = observed(plan);
    plan.clock = ClockKind::Wall;
    plan
}

pub fn row(key: &str, n: i64, at_ms: u64) -> Vec<Value> {
    vec![Value::Text(key.into()), Value::Int(n.into()), Value::Float(1.0), Value::Int(at_ms.into()), Value::Bool(true)]
}

fn numbers(changes: &[SinkChange]) -> Vec<i128> {
    let mut numbers: Vec<i128> = changes
        .iter()
        .map(|change| match change.row[1] {
            Value::Int(n) => n,
            _ => panic!("n is an integer"),
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn config(folder: Option<&Path>) -> EngineConfig {
    EngineConfig { workers: 2, data_dir: folder.map(Path::to_path_buf), checkpoint_interval_ms: 50, ..EngineConfig::default() }
}

fn start(plan: &Plan, config: EngineConfig, input: &StreamConnectors) -> Engine {
    Engine::start(plan.clone(), config, input).unwrap()
}

/// Pushes numbers to two partitions by turns.
fn feed(stream: &Stream, numbers: std::ops::Range<i64>) {
    for n in numbers {
        stream.push((n % 2) as u32, row("k", n, now_ms() - 5));
    }
}

#[test]
fn c2_a_read_at_the_epoch_that_a_position_has_reached_sees_the_row() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 2);
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    assert!(reader.reached("nothing", 0, 1).unwrap_err().message.contains("there is no source nothing"));
    for n in 0..50 {
        let partition = (n % 2) as u32;
        let behind = input.stream("left").push(partition, row("k", n, now_ms()));
        assert_eq!(reader.reached("left", partition, behind + 1).unwrap(), None);
        let mut epoch = None;
        eventually("the position is input", || {
            epoch = reader.reached("left", partition, behind).unwrap();
            epoch.is_some_and(|epoch| reader.frontier(&["v0"]).unwrap() > epoch)
        });
        let rows: usize = reader.snapshot(&["v0"], None).unwrap().views[0].iter().map(|batch| batch.num_rows()).sum();
        assert!(rows as i64 > n, "{rows} rows after {n}");
    }
    eventually("without a data directory what was handed out may be forgotten", || input.stream("left").accepted(0) == 25);
    engine.shutdown().unwrap();
}

#[test]
fn what_a_checkpoint_does_not_hold_is_not_acknowledged() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 2);
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&plan, EngineConfig { checkpoint_interval_ms: 3_600_000, ..config(Some(folder.path())) }, &input);
    feed(&input.stream("left"), 0..10);
    eventually("the rows are input", || engine.reader().reached("left", 1, 5).unwrap().is_some());
    assert_eq!(input.stream("left").accepted(1), 0);
    engine.shutdown().unwrap();
    assert_eq!((input.stream("left").accepted(0), input.stream("left").accepted(1)), (5, 5));
}

#[test]
fn t0c_epochs_grow_over_restarts_and_every_row_comes_once() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 2);
    let folder = tempfile::tempdir().unwrap();
    let mut last = Epoch::ZERO;
    for round in 0..4 {
        let engine = start(&plan, config(Some(folder.path())), &input);
        let before = input.written.sink("n0").len();
        feed(&input.stream("left"), round * 100..round * 100 + 100);
        if round % 2 == 0 {
            eventually("the rows are written", || input.written.sink("n0").len() as i64 == (round + 1) * 100);
        }
        engine.shutdown().unwrap();
        let written = input.written.sink("n0");
        for change in &written[before..] {
            assert!(change.epoch > last, "{} is not above {last}", change.epoch);
        }
        last = written.last().map_or(last, |change| change.epoch);
    }
    let engine = start(&plan, config(Some(folder.path())), &input);
    eventually("all rows are written", || input.written.sink("n0").len() == 400);
    engine.shutdown().unwrap();
    assert_eq!(numbers(&input.written.sink("n0")), (0..400).collect::<Vec<i128>>());
}

#[test]
fn a_source_that_is_away_is_retried_while_others_go_on_and_nothing_is_lost() {
    let plan = plain(&["left", "right"]);
    let input = StreamConnectors::default().with_stream("left", 2).with_stream("right", 2);
    let (left, right) = (input.stream("left"), input.stream("right"));
    left.set_away(Some("broker 127.0.0.1:1 refuses connections"));
    feed(&left, 0..40);
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    feed(&right, 0..40);
    eventually("the other source goes on", || input.written.sink_log("n1").changes.len() == 40);
    let status = reader.status();
    assert_eq!(status.sources[0].state.state, State::Retrying);
    assert!(status.sources[0].state.reason.as_deref().unwrap().contains("refuses connections"), "{:?}", status.sources[0].state);
    assert!(status.sources[0].lag_ms < 20_000, "what has never come is late since the start, not since 1970: {}", status.sources[0].lag_ms);
    assert_eq!((status.sources[1].state.state, status.views[1].state.state), (State::Running, State::Running));
    left.set_away(None);
    eventually("what was away comes in", || input.written.sink_log("n0").changes.len() == 40);
    left.set_away(Some("gone again"));
    eventually("its state says so", || reader.status().sources[0].state.reason.as_deref() == Some("gone again"));
    assert_eq!(reader.status().sources[0].lag_rows, None, "nobody knows what waits where nobody can look");
    feed(&left, 40..80);
    left.set_away(None);
    eventually("and comes back", || input.written.sink_log("n0").changes.len() == 80);
    eventually("its state says that too", || reader.status().sources[0].state.state == State::Running);
    eventually("its lag falls to zero", || reader.status().sources[0].lag_rows == Some(0));
    assert_eq!(reader.status().sources[0].lag_ms, 0);
    left.end();
    right.end();
    engine.wait().unwrap();
    assert_eq!(reader.status().sources[0].state.state, State::Ended);
    assert_eq!(reader.status().views[0].state.state, State::Ended);
    engine.shutdown().unwrap();
    assert_eq!(numbers(&input.written.sink("n0")), (0..80).collect::<Vec<i128>>());
}

#[test]
fn a_sink_that_is_away_holds_up_neither_the_start_nor_the_views() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 2);
    let folder = tempfile::tempdir().unwrap();
    input.set_sinks_away(true);
    let engine = start(&plan, config(Some(folder.path())), &input);
    let reader = engine.reader();
    feed(&input.stream("left"), 0..200);
    eventually("the view has the rows", || reader.status().views[0].rows == 200);
    assert_eq!(reader.status().sinks[0].state.state, State::Retrying);
    assert!(reader.status().sinks[0].state.reason.as_deref().unwrap().contains("is away"));
    assert!(reader.status().sinks[0].lag_rows > 0, "{:?}", reader.status().sinks[0]);
    assert_eq!(input.stream("left").accepted(0), 0, "what no sink has is in no checkpoint");
    input.set_sinks_away(false);
    eventually("the sink has them too", || input.written.sink("n0").len() == 200);
    eventually("they are durable", || input.stream("left").accepted(0) == 100);
    assert_eq!(reader.status().sinks[0].state.state, State::Running);
    assert_eq!((reader.status().sinks[0].lag_rows, reader.status().sinks[0].lag_ms), (0, 0));
    engine.shutdown().unwrap();
    assert_eq!(numbers(&input.written.sink("n0")), (0..200).collect::<Vec<i128>>());
}

#[test]
fn a_store_that_is_away_stops_no_answers_and_the_next_checkpoint_holds_everything() {
    let plan = with_count(plain(&["left"]));
    let input = StreamConnectors::default().with_stream("left", 2);
    let folder = tempfile::tempdir().unwrap();
    let (store, aside) = (folder.path().join("checkpoints"), folder.path().join("aside"));
    let engine = start(&plan, config(Some(folder.path())), &input);
    let reader = engine.reader();
    let checkpoints = |state: State| reader.status().checkpoints.is_some_and(|shown| shown.state == state);
    feed(&input.stream("left"), 0..40);
    eventually("the first rows are durable", || input.stream("left").accepted(0) == 20);
    assert!(checkpoints(State::Running));
    // Whatever is written there fails from now on, as on a full disk.
    std::fs::rename(&store, &aside).unwrap();
    std::fs::write(&store, "").unwrap();
    feed(&input.stream("left"), 40..80);
    eventually("its state says so", || checkpoints(State::Retrying));
    assert!(reader.status().checkpoints.unwrap().reason.unwrap().contains("checkpoints"));
    assert_eq!(reader.status().failure, None);
    let found = ask_count(reader.as_ref());
    assert!((40..=80).contains(&found), "answers go on: {found}");
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(&aside, &store).unwrap();
    eventually("what came meanwhile is durable", || input.stream("left").accepted(0) == 40);
    assert!(checkpoints(State::Running));
    // Of other keys, so that what has not changed since comes from the checkpoints before.
    input.stream("left").push(0, row("other", 80, now_ms() - 5));
    engine.shutdown().unwrap();
    let engine = start(&plan, config(Some(folder.path())), &input);
    eventually("a new generation counts what the old one did", || ask_count(engine.reader().as_ref()) == 80);
    engine.shutdown().unwrap();
}

#[test]
fn a_sink_that_stops_in_the_middle_of_a_write_holds_up_no_view_and_loses_nothing() {
    const ROWS: i64 = 150;
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 2);
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&plan, config(Some(folder.path())), &input);
    let reader = engine.reader();
    feed(&input.stream("left"), 0..10);
    eventually("a checkpoint has been taken", || input.stream("left").accepted(0) == 5);
    input.set_sinks_stopped(true);
    let mut longest = Duration::ZERO;
    for n in 10..ROWS {
        let sent = Instant::now();
        feed(&input.stream("left"), n..n + 1);
        eventually("the view has the row", || reader.status().views[0].rows == n as u64 + 1);
        longest = longest.max(sent.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "a row took {longest:?}: a checkpoint has waited for the sink");
    assert_eq!(input.stream("left").accepted(0), 5, "what the sink does not have is in no checkpoint");
    input.set_sinks_stopped(false);
    eventually("the sink has all rows", || input.written.sink_log("n0").changes.len() == ROWS as usize);
    eventually("they are durable", || input.stream("left").accepted(0) == ROWS as u64 / 2);
    engine.shutdown().unwrap();
    assert_eq!(numbers(&input.written.sink("n0")), (0..i128::from(ROWS)).collect::<Vec<i128>>());
}

#[test]
fn t13_rows_that_wait_for_their_time_survive_a_restart() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 1);
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&plan, config(Some(folder.path())), &input);
    let due = now_ms() + 3_000;
    for n in 0..20 {
        input.stream("left").push(0, row("k", n, if n % 2 == 0 { due + n as u64 } else { now_ms() }));
    }
    eventually("a checkpoint holds them", || input.stream("left").accepted(0) == 20);
    engine.shutdown().unwrap();
    assert_eq!(input.written.sink("n0").len(), 10);
    let engine = start(&plan, config(Some(folder.path())), &input);
    let reached = engine.reader().reached("left", 0, 20).unwrap().unwrap();
    assert!(reached.0 >= due + 18, "what waits is not input yet: {reached}");
    eventually("their time has come", || input.written.sink("n0").len() == 20);
    engine.shutdown().unwrap();
    let written = input.written.sink("n0");
    assert_eq!(numbers(&written), (0..20).collect::<Vec<i128>>());
    for change in &written[10..] {
        let Value::Int(at) = change.row[3] else { panic!("e is a time") };
        assert!(i128::from(change.epoch.0) >= at, "{} entered before its time {at}", change.epoch);
    }
}

#[test]
fn e10_a_row_enters_at_the_end_of_its_tick_never_before_it_came() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 1);
    let engine = start(&plan, config(None), &input);
    for n in 0..200 {
        let came = now_ms();
        input.stream("left").push(0, row("k", n, came - 1_000));
        let mut epoch = None;
        eventually("it is input", || {
            epoch = engine.reader().reached("left", 0, n as u64 + 1).unwrap();
            epoch.is_some()
        });
        assert!(epoch.unwrap() >= Epoch(came), "epoch {} of a row that came at {came}", epoch.unwrap());
    }
    engine.shutdown().unwrap();
}

#[test]
fn t12_an_idle_partition_holds_up_neither_watermark_nor_lateness() {
    let mut plan = plain(&["left"]);
    plan.sources[0].lateness_ms = Some(1_000);
    plan.sources[0].limits.idle_ms = Some(300);
    let input = StreamConnectors::default().with_stream("left", 2);
    let left = input.stream("left");
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    let base = now_ms() - 100_000;
    // Partition 1 stands at the base, so a row 50 s behind partition 0 is not too late.
    left.push(1, row("k", 0, base));
    left.push(0, row("k", 1, base + 60_000));
    eventually("both are input", || input.written.sink_log("n0").changes.len() == 2);
    left.push(0, row("k", 2, base + 10_000));
    eventually("it is no late row", || input.written.sink_log("n0").changes.len() == 3);
    assert_eq!(reader.status().sources[0].watermark, Some(Epoch(base + 1)));
    // Once partition 1 is idle, partition 0 alone decides.
    let mut n = 3;
    eventually("the bound follows the partition that is not idle", || {
        left.push(0, row("k", n, base + 60_000));
        n += 1;
        std::thread::park_timeout(Duration::from_millis(20));
        reader.status().sources[0].watermark == Some(Epoch(base + 60_001))
    });
    left.push(0, row("late", 1_000, base + 10_000));
    eventually("a row so far behind is too late now", || reader.status().sources[0].late_rows == 1);
    eventually("a source without rows is idle", || reader.status().sources[0].state.state == State::Idle);
    engine.shutdown().unwrap();
}

#[test]
fn partitions_may_join_in_wall_clock() {
    let plan = plain(&["left"]);
    let input = StreamConnectors::default().with_stream("left", 1);
    let engine = start(&plan, config(None), &input);
    for partition in 0..5 {
        input.stream("left").push(partition, row("k", partition.into(), now_ms()));
        eventually("its row is there", || input.written.sink_log("n0").changes.len() as u32 == partition + 1);
    }
    engine.shutdown().unwrap();
}

#[test]
fn a_burst_of_ten_times_the_capacity_waits_in_the_source_and_nothing_is_lost() {
    const ROWS: i64 = 400_000;
    let mut plan = plain(&["left"]);
    // A slow view: each batch of it takes as long as ten steps of an ordinary one.
    let schema = plan.node(freshet_core::NodeId(0)).schema.clone();
    let slow = std::sync::Arc::new(Slow { column: 1 }) as freshet_core::ExprRef;
    let mut exprs: Vec<freshet_core::ExprRef> = (0..5).map(|index| std::sync::Arc::new(crate::plans::column(&schema, index)) as _).collect();
    exprs[1] = slow;
    let fields = crate::plans::fields_of(&plan, freshet_core::NodeId(0));
    let node = crate::plans::node(&mut plan, Op::Project { exprs }, &[freshet_core::NodeId(0)], fields);
    plan.nodes[node.index()].append_only = true;
    plan.views.push(freshet_core::ViewDef { name: "slow".into(), node, kind: ViewKind::Materialized, schema, entity: Vec::new() });
    let input = StreamConnectors::default().with_stream("left", 2);
    let left = input.stream("left");
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    let at = now_ms();
    for n in 0..ROWS {
        left.push((n % 2) as u32, row("k", n, at));
    }
    let (mut rows_max, mut lag_max) = (0, 0);
    eventually("the lag falls to zero", || {
        let status = reader.status();
        let read = status.operators.iter().find(|operator| operator.name == "read of left");
        rows_max = rows_max.max(read.map_or(0, |read| read.rows));
        assert!(read.is_none_or(|read| read.bytes < 64 << 20), "{read:?}");
        assert!(status.queue_depth <= status.queue_limit);
        lag_max = lag_max.max(status.sources[0].lag_rows.unwrap_or(0));
        status.views.iter().find(|view| view.name == "slow").unwrap().rows == ROWS as u64 && status.sources[0].lag_rows == Some(0)
    });
    assert!(lag_max > 0, "the source was never ahead");
    assert!(rows_max <= 131_072 + 16_384, "{rows_max} rows were read ahead");
    engine.shutdown().unwrap();
}

#[test]
fn t0b_history_enters_at_its_arrival_and_what_comes_afterwards_with_a_ticket() {
    let mut plan = plain(&["left", "right"]);
    plan.sources[0].arrival = Some(3);
    let input = StreamConnectors::default().with_stream("left", 2).with_stream("right", 1);
    let (left, begun) = (input.stream("left"), now_ms());
    let arrived = |n: i64| begun - 3_600_000 + n as u64 * 1_000;
    for n in 0..200 {
        left.push((n % 2) as u32, row("k", n, arrived(n)));
    }
    left.push(0, vec![Value::Text("k".into()), Value::Int(-1), Value::Null, Value::Null, Value::Null]);
    feed(&input.stream("right"), 0..10);
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    eventually("history is in", || input.written.sink_log("n0").changes.len() == 200);
    for change in input.written.sink_log("n0").changes {
        let Value::Int(n) = change.row[1] else { panic!("n is an integer") };
        assert_eq!(change.epoch, Epoch(arrived(n as i64)), "row {n}");
    }
    eventually("the other source begins after history", || input.written.sink_log("n1").changes.len() == 10);
    assert!(input.written.sink_log("n1").changes.iter().all(|change| change.epoch >= Epoch(begun)));
    let came = now_ms();
    left.push(1, row("k", 200, arrived(200)));
    eventually("a late arrival is in", || input.written.sink_log("n0").changes.len() == 201);
    assert!(input.written.sink_log("n0").changes[200].epoch >= Epoch(came), "after history the ticket is the arrival");
    assert_eq!(reader.status().sources[0].dead_letters, [("event time is NULL".to_string(), 1)]);
    engine.shutdown().unwrap();
}

/// A count of an hour, as a service.
fn with_count(mut plan: Plan) -> Plan {
    use freshet_core::{AggregateFunction::Count, RollingAggregate, ServiceColumn, ServiceDef, ServicePart, Window};
    let count = RollingAggregate { function: Count, argument: None, filter: None, window: Window::last_ms(3_600_000) };
    let spec = crate::plans::rolling_spec(vec![(count, arrow::datatypes::DataType::Int64)]);
    let node = crate::plans::add_feature(&mut plan, freshet_core::NodeId(0), freshet_core::FeatureSpec::Rolling(spec));
    let schema = plan.node(node).schema.clone();
    plan.views.push(freshet_core::ViewDef { name: "hour".into(), node, kind: ViewKind::Feature, schema: schema.clone(), entity: vec!["k".into()] });
    plan.services.push(ServiceDef {
        name: "counts".into(),
        parts: vec![ServicePart { view: "hour".into(), entity: vec![schema.field(0).clone()] }],
        request: Vec::new(),
        output: vec![ServiceColumn::Feature { part: 0, column: 1 }],
        schema: std::sync::Arc::new(arrow::datatypes::Schema::new(vec![schema.field(1).clone()])),
    });
    plan
}

/// The count of key k; 0 for an unknown one.
fn ask_count(reader: &dyn freshet_core::Reader) -> i64 {
    use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
    let keys: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["k"]));
    let rows = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let request = freshet_core::FeatureRequest { service: "counts".into(), rows, mode: freshet_core::ReadMode::Fresh };
    let answer = reader.features(&request).unwrap();
    let counts = answer.features.column(0).as_primitive::<arrow::datatypes::Int64Type>();
    if counts.is_null(0) { 0 } else { counts.value(0) }
}

#[test]
fn e9_a_late_stream_is_read_fresh_or_consistent() {
    use freshet_core::{FeatureRequest, ReadMode};
    let plan = with_count(plain(&["left"]));
    let input = StreamConnectors::default().with_stream("left", 1);
    let engine = start(&plan, config(None), &input);
    let reader = engine.reader();
    let now = now_ms();
    let minutes_ago = |minutes: u64| now - minutes * 60_000;
    // It is 03:00; 01:33, 01:55, 02:10 and 02:32 have arrived.
    let mut behind = 0;
    for (n, minutes) in [87, 65, 50, 28].into_iter().enumerate() {
        behind = input.stream("left").push(0, row("k", n as i64, minutes_ago(minutes)));
    }
    eventually("they can be read", || {
        let reached = reader.reached("left", 0, behind).unwrap();
        reached.is_some_and(|epoch| reader.frontier(&["hour"]).unwrap() > epoch)
    });
    let keys: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::StringArray::from(vec!["k"]));
    let rows = arrow::array::RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let read = |mode| {
        let answer = reader.features(&FeatureRequest { service: "counts".into(), rows: rows.clone(), mode }).unwrap();
        let counts = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(answer.features.column(0)).clone();
        (counts.value(0), answer.point)
    };
    let (fresh, at) = read(ReadMode::Fresh);
    assert_eq!((fresh, at.q), (2, at.s), "T15: fresh has q = s");
    assert!(at.q.0 <= now_ms() + 2);
    let (consistent, at) = read(ReadMode::Consistent);
    assert_eq!((consistent, at.q), (4, Epoch(minutes_ago(28) + 1)), "T15: consistent has q = the least watermark");
    assert!(at.s > at.q);
    let asked = now_ms();
    let (count, at) = read(ReadMode::RequestTime);
    assert!(count == 2 && at.q >= Epoch(asked), "T15: request_time has q = the request's: {at:?}");
    assert!(at.s <= Epoch(now_ms() + 2), "E10: what has not arrived by s is not seen");
    let (kept, at) = read(ReadMode::AsOf(at.s));
    assert_eq!((kept, at.q), (2, at.s));
    engine.shutdown().unwrap();
}

/// Takes 2 µs a row.
#[derive(Debug)]
struct Slow {
    column: usize,
}

impl freshet_core::Expr for Slow {
    fn data_type(&self) -> arrow::datatypes::DataType {
        arrow::datatypes::DataType::Int64
    }
    fn evaluate(&self, batch: &arrow::array::RecordBatch) -> freshet_core::Result<arrow::array::ArrayRef> {
        let until = Instant::now() + Duration::from_micros(2 * batch.num_rows() as u64);
        while Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        Ok(batch.column(self.column).clone())
    }
    fn sql(&self) -> String {
        format!("slow(#{})", self.column)
    }
    fn columns(&self) -> Vec<usize> {
        vec![self.column]
    }
}
