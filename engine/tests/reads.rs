//! Reads from outside: one instant for all views, exact at any kept epoch, and equal to the interpreter.

use freshet_core::{Epoch, NodeId, Op, ReadPoint};
use freshet_engine::{EngineConfig, StepCut};
use freshet_testkit::compare::{accumulate, assert_same, content_of};
use freshet_testkit::generate::Shape;

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
