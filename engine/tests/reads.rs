//! Reads from outside: one instant for all views, exact at any kept epoch, and equal to the interpreter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_core::{
    Epoch, FeatureAnswer, FeatureRequest, FeatureSpec, NodeId, Op, Plan, ReadMode, ReadPoint, ServiceColumn, ServiceDef, ServicePart, Status, Value,
    ViewKind,
};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::compare::{accumulate, assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::{Interpreter, assign_epochs};

use crate::plans::every_operator;
use crate::running::{connectors, interpreter, observed, run};

#[test]
fn t16_a_snapshot_of_any_kept_epoch_is_the_content_at_that_epoch() {
    let plan = observed(every_operator());
    for seed in 300..304 {
        let input = connectors(&plan, seed, &Shape { rows: 50, ..Shape::default() });
        let interpreter = interpreter(&plan, &input);
        let config = EngineConfig { workers: 2, cut: StepCut::Rows(20), history_ms: u64::MAX, ..EngineConfig::default() };
        let engine = run(&plan, config, &input);
        let reader = engine.reader();
        let names: Vec<&str> = plan.views.iter().map(|view| view.name.as_str()).collect();
        for index in 0..plan.nodes.len() {
            let node = NodeId(index as u32);
            let history = interpreter.history(node);
            let mut epochs: Vec<Epoch> = history.iter().map(|change| change.1).collect();
            epochs.dedup();
            for epoch in epochs.into_iter().step_by(5) {
                let snapshot = reader.snapshot(&names, Some(epoch)).unwrap();
                assert_eq!(snapshot.point, ReadPoint::at(epoch.next()));
                let found = content_of(&snapshot.views[index]).unwrap();
                let expected = accumulate(history.iter().filter(|change| change.1 <= epoch).map(|(row, _, diff)| (row.clone(), *diff)));
                assert_same(&format!("node {index} at {epoch}: {:?}", plan.nodes[index].op), seed, &expected, &found);
            }
        }
        engine.shutdown().unwrap();
    }
}

#[test]
fn a_read_outside_the_kept_history_names_what_is_kept() {
    let plan = observed(every_operator());
    let input = connectors(&plan, 5, &Shape::default());
    let engine = run(&plan, EngineConfig { cut: StepCut::Epochs(1), history_ms: 0, ..EngineConfig::default() }, &input);
    let reader = engine.reader();
    let feature = plan.views.iter().find(|view| matches!(plan.node(view.node).op, Op::Feature { .. })).unwrap();
    let early = reader.snapshot(&[&feature.name], Some(Epoch(1))).unwrap_err();
    assert!(early.message.contains("history of these views begins at epoch"), "{early}");
    let last = reader.status().epoch;
    let late = reader.snapshot(&["v0"], Some(last.next())).unwrap_err();
    assert!(late.message.contains(&format!("the last complete one is {last}")), "{late}");
    let unknown = reader.snapshot(&["nothing"], None).unwrap_err();
    assert!(unknown.message.contains("there is no view nothing"), "{unknown}");
    engine.shutdown().unwrap();
}

/// A service over every feature view of the plan, its columns renamed so that they are unique.
fn with_service(mut plan: Plan) -> Plan {
    let features: Vec<(String, SchemaRef)> =
        plan.views.iter().filter(|view| view.kind == ViewKind::Feature).map(|view| (view.name.clone(), view.schema.clone())).collect();
    let (mut output, mut fields) = (Vec::new(), Vec::new());
    for (part, (view, schema)) in features.iter().enumerate() {
        for column in 1..schema.fields().len() {
            output.push(ServiceColumn::Feature { part, column });
            fields.push(schema.field(column).clone().with_name(format!("{view}_{column}")).with_nullable(true));
        }
    }
    let entity = || vec![Field::new("k", DataType::Utf8, true)];
    let parts = features.iter().map(|(view, _)| ServicePart { view: view.clone(), entity: entity() }).collect();
    plan.services.push(ServiceDef { name: "all".into(), parts, request: Vec::new(), output, schema: Arc::new(Schema::new(fields)) });
    plan
}

fn keys() -> RecordBatch {
    let keys = StringArray::from(vec![Some("k0"), Some("k1"), None, Some("nobody"), Some("k2"), Some("k3"), Some("k0")]);
    RecordBatch::try_from_iter([("k", Arc::new(keys) as ArrayRef)]).unwrap()
}

fn check_answer(plan: &Plan, interpreter: &Interpreter, answer: &FeatureAnswer, seed: u64) {
    let mut column = 0;
    for view in plan.views.iter().filter(|view| view.kind == ViewKind::Feature) {
        let width = view.schema.fields().len() - 1;
        for (row, key) in Value::rows_of(&keys()).unwrap().into_iter().enumerate() {
            let expected = interpreter.lookup(view.node, &key, answer.point);
            for feature in 0..width {
                let found = Value::of(answer.features.column(column + feature), row).unwrap();
                let place = format!("seed {seed}: {} feature {feature} of {key:?} at {:?}", view.name, answer.point);
                assert_eq!(found, expected.values[feature], "{place}");
                assert_eq!(answer.statuses[column + feature][row], expected.statuses[feature], "{place}");
                assert_eq!(answer.event_times[column + feature][row], expected.e_last, "{place}");
            }
        }
        column += width;
    }
}

#[test]
fn c2_reads_made_during_the_run_equal_the_interpreter_at_their_instant() {
    let plan = with_service(observed(every_operator()));
    for seed in 400..404 {
        let input = connectors(&plan, seed, &Shape { rows: 60, ..Shape::default() });
        let interpreter = interpreter(&plan, &input);
        let config = EngineConfig { workers: 2, cut: StepCut::Epochs(1), history_ms: 0, events_per_second: Some(400), ..EngineConfig::default() };
        let engine = Engine::start(plan.clone(), config, &input).unwrap();
        let reader = engine.reader();
        let request = |mode| FeatureRequest { service: "all".into(), rows: keys(), mode };
        let mut answers = Vec::new();
        while !engine.wait_timeout(Duration::ZERO).unwrap() {
            answers.extend(reader.features(&request(ReadMode::Fresh)));
        }
        answers.push(reader.features(&request(ReadMode::Fresh)).unwrap());
        answers.dedup_by_key(|answer| answer.point);
        assert!(answers.len() > 10, "the run was read {} times", answers.len());
        answers.iter().for_each(|answer| check_answer(&plan, &interpreter, answer, seed));
        engine.shutdown().unwrap();
    }
}

#[test]
fn t16_features_as_of_any_kept_instant_equal_the_interpreter() {
    let plan = with_service(observed(every_operator()));
    for seed in 410..413 {
        let input = connectors(&plan, seed, &Shape { rows: 50, ..Shape::default() });
        let interpreter = interpreter(&plan, &input);
        let engine = run(&plan, EngineConfig { workers: 1, cut: StepCut::All, history_ms: u64::MAX, ..EngineConfig::default() }, &input);
        let reader = engine.reader();
        let last = interpreter.end();
        for back in [0, 1, 999, 1000, 5_000, 7_777, 20_000, 31_000] {
            let mode = ReadMode::AsOf(Epoch(last.0.saturating_sub(back)));
            let answer = reader.features(&FeatureRequest { service: "all".into(), rows: keys(), mode }).unwrap();
            check_answer(&plan, &interpreter, &answer, seed);
        }
        engine.shutdown().unwrap();
    }
}

/// Whether rows of this source reach the node.
fn reads(plan: &Plan, node: NodeId, source: usize) -> bool {
    let node = plan.node(node);
    matches!(node.op, Op::Source { source: found } if found == source) || node.inputs.iter().any(|input| reads(plan, *input, source))
}

/// T23 by its letter: q − w < complete_since for some window that the feature reads.
fn is_incomplete(spec: &FeatureSpec, feature: usize, q: Epoch, since: Epoch) -> bool {
    let FeatureSpec::Rolling(spec) = spec else { return false };
    let columns = spec.features[feature].expr.columns();
    let windows = columns.iter().filter_map(|column| spec.aggregates.get(column.checked_sub(spec.entity.len())?)).map(|aggregate| aggregate.window);
    windows.into_iter().any(|window| window.lower.is_none_or(|edge| (q.0 as i64) - edge.offset_ms < since.0 as i64))
}

#[test]
fn t23_a_window_that_reaches_behind_where_reading_began_is_incomplete_and_keeps_its_value() {
    let plan = with_service(observed(every_operator()));
    let (mut incomplete, mut complete) = (0, 0);
    for seed in 420..424 {
        let input = connectors(&plan, seed, &Shape { rows: 60, ..Shape::default() }).with_cut("left");
        let interpreter = interpreter(&plan, &input);
        let left = plan.sources.iter().position(|def| def.name == "left").unwrap();
        let mut firsts = BTreeMap::new();
        for row in assign_epochs(&plan.sources[left], left, input.records("left")).unwrap().rows.into_iter().filter(|row| !row.dead) {
            firsts.entry(row.position >> 40 & 0xffff).or_insert(row.epoch);
        }
        let since = *firsts.values().max().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = EngineConfig { data_dir: Some(folder.path().into()), history_ms: u64::MAX, ..EngineConfig::default() };
        let engine = run(&plan, config.clone(), &input);
        let reader = engine.reader();
        assert_eq!(reader.status().sources[left].complete_since, Some(since));
        let end = interpreter.end();
        let soon = [1, 100, 1_000, 3_000, 10_000].map(|after| Epoch((since.0 + after).min(end.0)));
        for instant in soon.into_iter().chain([end]) {
            let mode = ReadMode::AsOf(instant);
            let answer = reader.features(&FeatureRequest { service: "all".into(), rows: keys(), mode }).unwrap();
            let mut column = 0;
            for view in plan.views.iter().filter(|view| view.kind == ViewKind::Feature) {
                let Op::Feature { spec, .. } = &plan.node(view.node).op else { panic!("a feature view is one") };
                for feature in 0..view.schema.fields().len() - 1 {
                    let cut = reads(&plan, view.node, left) && is_incomplete(spec, feature, answer.point.q, since);
                    for (row, key) in Value::rows_of(&keys()).unwrap().into_iter().enumerate() {
                        let expected = interpreter.lookup(view.node, &key, answer.point);
                        let status = match expected.statuses[feature] {
                            Status::Present | Status::NullValue if cut => Status::Incomplete,
                            status => status,
                        };
                        let place = format!("seed {seed}: {} feature {feature} of {key:?} at {:?}", view.name, answer.point);
                        assert_eq!(answer.statuses[column][row], status, "{place}");
                        assert_eq!(Value::of(answer.features.column(column), row).unwrap(), expected.values[feature], "{place}");
                        incomplete += usize::from(status == Status::Incomplete);
                        complete += usize::from(matches!(status, Status::Present | Status::NullValue));
                    }
                    column += 1;
                }
            }
        }
        engine.shutdown().unwrap();
        // Where reading began is known after a restart too.
        let engine = run(&plan, config, &input);
        assert_eq!(engine.reader().status().sources[left].complete_since, Some(since));
        engine.shutdown().unwrap();
    }
    assert!(incomplete > 10 && complete > 50, "{incomplete} incomplete, {complete} complete");
}

#[test]
fn a_lookup_with_a_missing_column_or_a_wrong_service_says_what_it_needs() {
    let plan = with_service(observed(every_operator()));
    let input = connectors(&plan, 1, &Shape { rows: 20, ..Shape::default() });
    let engine = run(&plan, EngineConfig::default(), &input);
    let rows = RecordBatch::try_from_iter([("key", keys().column(0).clone())]).unwrap();
    let missing = engine.reader().features(&FeatureRequest { service: "all".into(), rows: rows.clone(), mode: ReadMode::Fresh }).unwrap_err();
    assert!(missing.message.contains("column k (Utf8) is missing; the request has: key"), "{missing}");
    let unknown = engine.reader().features(&FeatureRequest { service: "al".into(), rows, mode: ReadMode::Fresh }).unwrap_err();
    assert!(unknown.message.contains("there is no feature service al; there are: all"), "{unknown}");
    engine.shutdown().unwrap();
}
