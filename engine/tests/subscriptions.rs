//! Subscriptions: the content at one epoch and all changes after it, complete epochs only, whoever reads and however slowly.

use std::time::Duration;

use freshet_core::{Epoch, NodeId, Plan, SubscribeRequest, Subscription, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::Interpreter;
use freshet_testkit::compare::{accumulate, assert_same};
use freshet_testkit::generate::Shape;

use crate::plans::every_operator;
use crate::running::{connectors, interpreter, observed};

const WAIT: Duration = Duration::from_millis(200);

/// Everything that is told, with epochs; checks that no epoch is told of after it was said to be complete.
fn all(subscription: &mut dyn Subscription) -> Vec<(Vec<Value>, Epoch, i64)> {
    let (mut told, mut progress) = (Vec::new(), Epoch::ZERO);
    while let Some(next) = subscription.next(WAIT).unwrap() {
        assert!(next.progress >= progress, "progress never falls");
        if let Some(changes) = next.changes {
            for (row, values) in Value::rows_of(changes.rows()).unwrap().into_iter().enumerate() {
                let epoch = changes.epoch(row);
                assert!(told.is_empty() || progress == Epoch::ZERO || epoch >= progress, "epoch {epoch} was complete at {progress}");
                assert!(epoch < next.progress);
                told.push((values, epoch, changes.diff(row)));
            }
        }
        progress = next.progress;
    }
    assert!(told.is_sorted_by_key(|change| change.1));
    told
}

fn start(plan: &Plan, seed: u64, workers: usize, events_per_second: Option<u64>) -> (Engine, Interpreter) {
    let input = connectors(plan, seed, &Shape { rows: 60, ..Shape::default() });
    let interpreter = interpreter(plan, &input);
    let config = EngineConfig { workers, cut: StepCut::Rows(20), history_ms: u64::MAX, events_per_second, ..EngineConfig::default() };
    (Engine::start(plan.clone(), config, &input).unwrap(), interpreter)
}

fn ask(view: &str, snapshot: bool) -> SubscribeRequest {
    SubscribeRequest { view: view.into(), snapshot, reader: "the test".into(), ..SubscribeRequest::default() }
}

#[test]
fn content_and_changes_add_up_to_the_view_at_every_epoch() {
    let plan = observed(every_operator());
    for (seed, workers) in [(500, 1), (501, 2), (502, 4)] {
        // Slow enough that most of it happens while somebody listens.
        let (engine, interpreter) = start(&plan, seed, workers, Some(400));
        let reader = engine.reader();
        let views = plan.views.iter().enumerate().filter(|(_, view)| view.kind == freshet_core::ViewKind::Materialized);
        let open: Vec<_> = views.map(|(index, view)| (index, reader.subscribe(&ask(&view.name, true)).unwrap())).collect();
        let threads: Vec<_> = open.into_iter().map(|(index, mut follower)| std::thread::spawn(move || (index, all(follower.as_mut())))).collect();
        let mut later = 0;
        for thread in threads {
            let (index, told) = thread.join().unwrap();
            let history = interpreter.history(NodeId(index as u32));
            let mut epochs: Vec<Epoch> = told.iter().map(|change| change.1).collect();
            epochs.dedup();
            later += epochs.len();
            for epoch in epochs {
                let upto = |changes: &[(Vec<Value>, Epoch, i64)]| {
                    accumulate(changes.iter().filter(|change| change.1 <= epoch).map(|(row, _, diff)| (row.clone(), *diff)))
                };
                assert_same(&format!("node {index} at {epoch}: {:?}", plan.nodes[index].op), seed, &upto(&history), &upto(&told));
            }
            let last = |changes: &[(Vec<Value>, Epoch, i64)]| accumulate(changes.iter().map(|(row, _, diff)| (row.clone(), *diff)));
            assert_same(&format!("node {index} at the end"), seed, &last(&history), &last(&told));
        }
        assert!(later > plan.views.len() * 3, "{later} epochs were told of as they came");
        engine.shutdown().unwrap();
    }
}

#[test]
fn as_of_begins_there_and_up_to_ends_there() {
    let plan = observed(every_operator());
    let (engine, interpreter) = start(&plan, 510, 2, None);
    engine.wait().unwrap();
    let reader = engine.reader();
    let history = interpreter.history(NodeId(0));
    let (early, late) = (history[history.len() / 3].1, history[2 * history.len() / 3].1);
    let request = SubscribeRequest { as_of: Some(early), up_to: Some(late), ..ask("v0", false) };
    let told = all(reader.subscribe(&request).unwrap().as_mut());
    let expected: Vec<_> = history.iter().filter(|change| change.1 > early && change.1 < late).cloned().collect();
    let sum = |changes: &[(Vec<Value>, Epoch, i64)]| {
        accumulate(changes.iter().map(|(row, epoch, diff)| ([row.clone(), vec![Value::Int(i128::from(epoch.0))]].concat(), *diff)))
    };
    assert_same("the changes between", 510, &sum(&expected), &sum(&told));

    let with_content = SubscribeRequest { as_of: Some(early), up_to: Some(late), ..ask("v0", true) };
    let told = all(reader.subscribe(&with_content).unwrap().as_mut());
    assert!(told.iter().any(|change| change.1 == early), "the content stands at {early}");
    engine.shutdown().unwrap();
}

#[test]
fn what_cannot_be_told_is_refused_with_the_way_out() {
    let plan = observed(every_operator());
    let (engine, _) = start(&plan, 520, 1, None);
    engine.wait().unwrap();
    let reader = engine.reader();
    let refused = |request: SubscribeRequest| reader.subscribe(&request).err().expect("a refusal").message;
    assert!(refused(ask("nothing", true)).contains("there is no view nothing"));
    let feature = plan.views.iter().find(|view| view.kind == freshet_core::ViewKind::Feature).unwrap();
    assert!(refused(ask(&feature.name, true)).contains("subscribe to a materialized view"));
    assert!(refused(SubscribeRequest { as_of: Some(Epoch::MAX), ..ask("v0", true) }).contains("is not complete yet"));
    assert!(refused(SubscribeRequest { up_to: Some(Epoch(1)), ..ask("v0", true) }).contains("ends before it begins"));
    engine.shutdown().unwrap();
}
