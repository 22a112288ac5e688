//! T4: a lookup in hindsight answers for the left row's own time by everything that ever arrived and stayed.

use arrow::datatypes::{DataType, Field, TimeUnit};
use freshet_core::{ClockKind, FeatureSpec, Format, Kind, LatestSpec, LookupPart, LookupTime, NodeId, Op, Plan, RollingSpec, SourceDef, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::generate::Shape;
use freshet_testkit::{MemoryConnectors, RawRecord, ScriptedControl};

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

#[test]
fn t4_rows_that_stay_are_found_however_old_they_are() {
    let mut plan = plan(&[LookupTime::EventTime { column: Some(3) }], false, source);
    plan.sources.iter_mut().for_each(|source| source.format = Format::Plain);
    plan.nodes.iter_mut().for_each(|node| node.append_only = matches!(node.op, Op::Source { .. } | Op::Lookup { .. }));
    let plan = observed_lookups(plan);
    for seed in 830..836 {
        let shape = Shape { rows: 300, late: 0.5, late_ms: 3_000_000, ..Shape::append_only() };
        let input = connectors(&plan, seed, &shape);
        let interpreter = interpreter(&plan, &input);
        run(&plan, EngineConfig { workers: 1 + seed as usize % 3, ..whole() }, &input).shutdown().unwrap();
        assert_histories(&format!("append-only, seed {seed}"), &plan, &interpreter, &input);
    }
}

#[test]
fn e3_the_corrected_value_counts_in_hindsight() {
    let plan = observed_lookups(plan(&[LookupTime::EventTime { column: Some(3) }, LookupTime::Now], false, source));
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
}

#[test]
fn a_lookup_in_hindsight_needs_one_step() {
    let plan = plan(&[LookupTime::EventTime { column: Some(3) }], false, source);
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
