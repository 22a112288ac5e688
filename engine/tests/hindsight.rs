//! T4: a lookup in hindsight answers for the left row's own time by everything that ever arrived and stayed. T5: one as served at a column
//! answers at q = s = that time, by what had arrived then and not been taken back.

use arrow::datatypes::{DataType, Field, TimeUnit};
use freshet_core::{
    ClockKind, Epoch, EventTime, FeatureSpec, Format, Kind, LatestSpec, LookupPart, LookupTime, NodeId, Op, Plan, RollingSpec, SourceDef, Value,
};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::generate::Shape;
use freshet_testkit::{Interpreter, MemoryConnectors, RawRecord, ScriptedControl};

use crate::plans::{add_feature, add_source, fields_of, latest_spec, node, some_rolling_spec, source};
use crate::running::{assert_histories, connectors, interpreter, observed, run};

fn whole() -> EngineConfig {
    EngineConfig { cut: StepCut::All, ..EngineConfig::default() }
}

/// Rows of `right` with features of `left`: rolling with every kind of window, forgetting, hopping, the latest value.
fn plan(at: &[LookupTime], eager: bool, definition: fn(&str) -> SourceDef) -> Plan {
    let mut plan = Plan { clock: ClockKind::Event, ..Plan::default() };
    let (left, right) = (add_source(&mut plan, definition("left")), add_source(&mut plan, definition("right")));
    let views = [
        FeatureSpec::Rolling(RollingSpec { ttl_ms: Some(30_000), ..some_rolling_spec() }),
        FeatureSpec::Rolling(RollingSpec { hop_ms: Some(2_500), include_now: true, ..some_rolling_spec() }),
        FeatureSpec::Latest(LatestSpec { ttl_ms: None, ..latest_spec() }),
        FeatureSpec::Latest(latest_spec()),
    ]
    .map(|spec| add_feature(&mut plan, left, spec));
    for view in views {
        let Op::Feature { eager: shown, .. } = &mut plan.nodes[view.index()].op else { unreachable!("it is a feature view") };
        *shown = eager;
    }
    for at in at {
        let mut fields = fields_of(&plan, right);
        for (index, columns) in [(0, vec![1, 3, 6]), (1, vec![2, 5, 7]), (2, vec![1]), (3, vec![2])] {
            fields.extend(columns.into_iter().map(|column| plan.node(views[index]).schema.field(column).clone()));
        }
        fields.push(Field::new("status", DataType::Utf8, true));
        fields.push(Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true));
        let part = |columns: &[usize]| LookupPart { keys: vec![0], columns: columns.to_vec() };
        let parts = vec![part(&[1, 3, 6]), part(&[2, 5, 7]), part(&[1]), part(&[2])];
        node(&mut plan, Op::Lookup { parts, at: *at }, &[right, views[0], views[1], views[2], views[3]], fields);
    }
    plan.validate().unwrap();
    plan
}

/// With views and sinks on everything but feature views that nobody reads as a stream.
fn observed_lookups(plan: Plan) -> Plan {
    let mut plan = observed(plan);
    let shown = |plan: &Plan, id: NodeId| !matches!(plan.node(id).op, Op::Feature { eager: false, .. });
    plan.sinks = plan.sinks.iter().filter(|sink| shown(&plan, sink.node)).cloned().collect();
    plan.views = plan.views.iter().filter(|view| shown(&plan, view.node)).cloned().collect();
    plan
}

/// As `source`, with microseconds as event time and a later arrival.
fn arriving(name: &str) -> SourceDef {
    let mut def = source(name);
    let mut fields: Vec<Field> = def.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[3] = Field::new("e", DataType::Timestamp(TimeUnit::Microsecond, None), true);
    fields.push(Field::new("a", crate::plans::MS, true));
    fields.push(Field::new("asked", DataType::Timestamp(TimeUnit::Nanosecond, None), true));
    def.schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    def.arrival = Some(5);
    def
}

#[test]
fn t4_a_lookup_in_hindsight_sees_late_rows_and_corrections() {
    let own = LookupTime::EventTime { column: None };
    for seed in 800..824 {
        let (column, definition): (usize, fn(&str) -> SourceDef) = if seed % 2 == 0 { (3, source) } else { (6, arriving) };
        let at = [LookupTime::EventTime { column: Some(column) }, own, LookupTime::Now];
        // Alone, with content that others read, and beside lookups that see less.
        let (at, eager) = [(&at[..2], false), (&at[..2], true), (&at[..], false)][seed as usize % 3];
        let plan = observed_lookups(plan(at, eager, definition));
        let shape = Shape { rows: 80, late: 0.5, stray_retractions: if seed % 5 == 0 { 0.05 } else { 0.0 }, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        for workers in [1, 2, 4] {
            let connectors = connectors(&plan, seed, &shape);
            run(&plan, EngineConfig { workers, history_ms: 0, ..whole() }, &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers"), &plan, &interpreter, &connectors);
        }
    }
}

fn as_served(column: usize) -> LookupTime {
    LookupTime::AsServed { column }
}

/// What the engine counts of a lookup equals what its left side's lives say: rows there at the end, and those that ask at another instant.
fn assert_counted(question: &str, plan: &Plan, interpreter: &Interpreter, engine: &Engine) -> u64 {
    let counted = engine.question_times();
    let lookups = plan.nodes.iter().filter(|node| matches!(node.op, Op::Lookup { at, .. } if at.column().is_some()));
    assert_eq!(counted.len(), lookups.count());
    for times in &counted {
        let node = plan.node(times.lookup);
        let Op::Lookup { at, .. } = &node.op else { unreachable!("it is a lookup") };
        let (left, column) = (node.inputs[0], at.column().unwrap());
        let DataType::Timestamp(unit, _) = plan.node(left).schema.field(column).data_type().clone() else { unreachable!("it is a time") };
        let ns = [1_000_000_000, 1_000_000, 1_000, 1][unit as usize];
        let apart = |row: &[Value], entered: Epoch| match row[column] {
            Value::Int(time) => EventTime((time * ns) as i64).epoch_ceil() != entered,
            _ => true,
        };
        let lives = interpreter.lives(left);
        let there: Vec<bool> = lives.iter().filter(|life| life.left.is_none()).map(|life| apart(&life.row, life.entered)).collect();
        let expected = (there.len() as u64, there.iter().filter(|apart| **apart).count() as u64);
        assert_eq!((times.rows, times.apart), expected, "{question}: {}", times.column);
    }
    counted.iter().map(|times| times.apart).sum()
}

#[test]
fn t5_a_lookup_as_served_at_a_column_sees_what_had_arrived_and_stayed_until_then() {
    let mut apart = 0;
    for seed in 840..876 {
        let (column, definition): (usize, fn(&str) -> SourceDef) = if seed % 2 == 0 { (3, source) } else { (6, arriving) };
        let hindsight = LookupTime::EventTime { column: Some(column) };
        // Alone, with content that others read, and over stores that are also asked in hindsight and at the rows' own epochs.
        let mixed = [as_served(column), hindsight, LookupTime::Now, LookupTime::EventTime { column: None }];
        let (at, eager) = [(&mixed[..1], false), (&mixed[..1], true), (&mixed[..2], false), (&mixed[..], false)][seed as usize / 2 % 4];
        let plan = observed_lookups(plan(at, eager, definition));
        let shape = Shape { rows: 80, late: 0.5, stray_retractions: if seed % 5 == 0 { 0.05 } else { 0.0 }, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        for workers in [1, 2, 4] {
            let connectors = connectors(&plan, seed, &shape);
            let engine = run(&plan, EngineConfig { workers, history_ms: 0, ..whole() }, &connectors);
            let question = format!("seed {seed}, {workers} workers");
            apart += assert_counted(&question, &plan, &interpreter, &engine);
            engine.shutdown().unwrap();
            assert_histories(&question, &plan, &interpreter, &connectors);
        }
    }
    assert!(apart > 1_000, "only {apart} rows asked at another instant");
}

/// More arrivals of a key than are walked through for each question.
#[test]
fn t5_keys_with_many_late_arrivals_are_replayed_in_the_order_of_the_questions() {
    for (seed, definition) in [(880, arriving as fn(&str) -> SourceDef), (881, source), (882, arriving)] {
        let column = if seed == 881 { 3 } else { 6 };
        let plan = observed_lookups(plan(&[as_served(column), LookupTime::EventTime { column: Some(column) }], false, definition));
        let shape = Shape { rows: 1_000, keys: 1, late: 0.6, late_ms: 300_000, nulls: 0.02, ..Shape::default() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        for workers in [1, 4] {
            let connectors = connectors(&plan, seed, &shape);
            run(&plan, EngineConfig { workers, ..whole() }, &connectors).shutdown().unwrap();
            assert_histories(&format!("seed {seed}, {workers} workers"), &plan, &interpreter, &connectors);
        }
    }
}

#[test]
fn t4_rows_that_stay_are_found_however_old_they_are() {
    let mut plan = plan(&[LookupTime::EventTime { column: Some(3) }, as_served(3)], false, source);
    plan.sources.iter_mut().for_each(|source| source.format = Format::Plain);
    plan.nodes.iter_mut().for_each(|node| node.append_only = matches!(node.op, Op::Source { .. } | Op::Lookup { .. }));
    let plan = observed_lookups(plan);
    for seed in 830..836 {
        let shape = Shape { rows: 300, late: 0.5, late_ms: 3_000_000, ..Shape::append_only() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        let engine = run(&plan, EngineConfig { workers: 1 + seed as usize % 3, ..whole() }, &input);
        assert_counted(&format!("append-only, seed {seed}"), &plan, &interpreter, &engine);
        engine.shutdown().unwrap();
        assert_histories(&format!("append-only, seed {seed}"), &plan, &interpreter, &input);
    }
}

#[test]
fn e3_the_corrected_value_counts_in_hindsight() {
    let plan = observed_lookups(plan(&[LookupTime::EventTime { column: Some(3) }, LookupTime::Now, as_served(3)], false, source));
    let (day, hour) = (86_400_000, 3_600_000);
    let start = 1_735_689_600_000_i128;
    let row = |offset, diff, n: i128, at: i128| RawRecord {
        diff,
        ..RawRecord::insert(offset, vec![Value::Text("k".into()), Value::Int(n), Value::Null, Value::Int(start + at), Value::Bool(true)])
    };
    // Value 4 of hour 10, corrected on the third day; the tick lets its retraction arrive then. The question is of the second day.
    let left = vec![row(0, 1, 4, 10 * hour), row(1, 1, 0, 2 * day), row(2, -1, 4, 10 * hour), row(3, 1, 6, 10 * hour)];
    let input = MemoryConnectors::new(1).with_source("left", left).with_source("right", vec![row(0, 1, 0, day)]);
    run(&plan, whole(), &input).shutdown().unwrap();
    let latest = |sink: &freshet_core::SinkDef| input.sink(&sink.name)[0].row[11].clone();
    let sinks: Vec<_> = plan.sinks.iter().filter(|sink| matches!(plan.node(sink.node).op, Op::Lookup { .. })).collect();
    assert_eq!((latest(sinks[0]), latest(sinks[1])), (Value::Int(6), Value::Int(4)), "corrected, and as it was served");
    assert_eq!(latest(sinks[2]), Value::Int(4), "the row's own time is its epoch");
}

#[test]
fn a_lookup_at_another_time_than_the_rows_needs_one_step() {
    for at in [LookupTime::EventTime { column: Some(3) }, as_served(3)] {
        needs_one_step(plan(&[at], false, source));
    }
}

fn needs_one_step(plan: Plan) {
    let input = connectors(&plan, 1, &Shape { rows: 10, ..Shape::default() });
    let folder = tempfile::tempdir().unwrap();
    let steps = EngineConfig { cut: StepCut::Rows(8192), ..EngineConfig::default() };
    let durable = EngineConfig { data_dir: Some(folder.path().to_path_buf()), ..whole() };
    for config in [steps, durable] {
        let error = Engine::start(plan.clone(), config, &input).err().expect("more than one step");
        assert_eq!(error.kind, Kind::Internal);
    }
    let control = Box::new(ScriptedControl::new(&[]));
    assert!(Engine::start_with(plan.clone(), whole(), &input, Some(control)).is_err());
    run(&plan, whole(), &input).shutdown().unwrap();
}

/// E11 at a column: the departure that came at the instant asked for is not seen, one a millisecond earlier is; a retraction likewise.
#[test]
fn e11_the_cut_of_a_column_is_strict_for_arrivals_and_for_what_takes_them_back() {
    let plan = observed_lookups(plan(&[as_served(6)], false, arriving));
    let start = 1_735_689_600_000_i128;
    let row = |offset, diff, n: i128, e: i128, a: i128, asked: i128| RawRecord {
        diff,
        ..RawRecord::insert(
            offset,
            vec![
                Value::Text("k".into()),
                Value::Int(n),
                Value::Null,
                Value::Int((start + e) * 1_000),
                Value::Bool(true),
                Value::Int(start + a),
                Value::Int((start + asked) * 1_000_000),
            ],
        )
    };
    // 4 happens at 90, comes at 100 and is taken back at 200. The questions come at 50, long before, and at 300, long after.
    // The second row, which happens after every question, moves the arrivals on.
    let left = vec![row(0, 1, 4, 90, 100, 0), row(1, 1, 0, 5_000, 200, 0), row(2, -1, 4, 90, 100, 0)];
    let asked = [100, 101, 200, 201];
    let questions = asked.iter().map(|at| (50, *at)).chain(asked.iter().map(|at| (300, *at)));
    let right = questions.enumerate().map(|(offset, (a, at))| row(offset as u64, 1, 1_000 + offset as i128, a, a, at)).collect();
    let input = MemoryConnectors::new(1).with_source("left", left).with_source("right", right);
    let engine = run(&plan, whole(), &input);
    assert_eq!(engine.question_times().iter().map(|times| (times.rows, times.apart)).collect::<Vec<_>>(), [(8, 8)]);
    engine.shutdown().unwrap();
    let sink = plan.sinks.iter().find(|sink| matches!(plan.node(sink.node).op, Op::Lookup { .. })).unwrap();
    let mut found: Vec<(Value, Value)> = input.sink(&sink.name).iter().map(|change| (change.row[1].clone(), change.row[13].clone())).collect();
    found.sort();
    let values: Vec<Value> = found.into_iter().map(|(_, latest)| latest).collect();
    let seen = [Value::Null, Value::Int(4), Value::Int(4), Value::Null];
    assert_eq!(values, [seen.clone(), seen].concat());
}
