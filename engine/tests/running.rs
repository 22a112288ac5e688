//! Runs a plan over generated input and compares what its sinks were given with the interpreter's history, change by change.

use std::collections::BTreeMap;

use freshet_core::{ClockKind, Encode, Epoch, Format, NodeId, Op, Plan, SinkDef, Value, ViewDef, ViewKind};
use freshet_engine::{Engine, EngineConfig};
use freshet_testkit::generate::{Shape, records};
use freshet_testkit::memory::SinkChange;
use freshet_testkit::{Interpreter, MemoryConnectors, assign_epochs};

/// The plan with a view and a sink on every node, so that every operator is checked at every epoch.
pub fn observed(mut plan: Plan) -> Plan {
    plan.clock = ClockKind::Event;
    for index in 0..plan.nodes.len() {
        let id = NodeId(index as u32);
        let schema = plan.node(id).schema.clone();
        let kind = if matches!(plan.node(id).op, Op::Feature { .. }) { ViewKind::Feature } else { ViewKind::Materialized };
        plan.views.push(ViewDef { name: format!("v{index}"), node: id, kind, schema: schema.clone(), entity: vec!["k".into()] });
        plan.sinks.push(SinkDef {
            name: format!("n{index}"),
            node: id,
            from: format!("v{index}"),
            schema,
            connector: "memory".into(),
            options: BTreeMap::new(),
            format: Format::Debezium,
            encode: Encode::Json,
            key: Vec::new(),
        });
    }
    plan
}

pub fn connectors(plan: &Plan, seed: u64, shape: &Shape) -> MemoryConnectors {
    let mut connectors = MemoryConnectors::new(seed);
    for (index, def) in plan.sources.iter().enumerate() {
        connectors = connectors.with_source(&def.name, records(seed * 31 + index as u64, def, shape));
    }
    connectors
}

pub fn interpreter(plan: &Plan, connectors: &MemoryConnectors) -> Interpreter {
    let inputs = plan.sources.iter().enumerate().map(|(index, def)| assign_epochs(def, index, connectors.records(&def.name)).unwrap().rows);
    Interpreter::new(plan, inputs.collect())
}

pub fn run(plan: &Plan, config: EngineConfig, connectors: &MemoryConnectors) -> Engine {
    let engine = Engine::start(plan.clone(), config, connectors).unwrap();
    engine.wait().unwrap();
    engine
}

/// What every sink was given equals the history of its node.
pub fn assert_histories(question: &str, plan: &Plan, interpreter: &Interpreter, connectors: &MemoryConnectors) {
    for sink in &plan.sinks {
        let found: Vec<(Vec<Value>, Epoch, i64)> = ordered(connectors.sink(&sink.name));
        let expected = interpreter.history(sink.node);
        let first = expected.iter().zip(&found).position(|(expected, found)| expected != found).unwrap_or(expected.len().min(found.len()));
        assert!(
            expected == found,
            "{question}: node {} ({:?}): {} changes expected, {} found; change {first}: expected {:?}, found {:?}",
            sink.node.0,
            plan.node(sink.node).op,
            expected.len(),
            found.len(),
            expected.get(first),
            found.get(first)
        );
    }
}

fn ordered(changes: Vec<SinkChange>) -> Vec<(Vec<Value>, Epoch, i64)> {
    assert!(changes.is_sorted_by_key(|change| change.epoch), "a sink is given epochs in order");
    let mut sums: BTreeMap<(Epoch, Vec<Value>), i64> = BTreeMap::new();
    for change in changes {
        *sums.entry((change.epoch, change.row)).or_default() += change.diff;
    }
    sums.into_iter().filter(|(_, diff)| *diff != 0).map(|((epoch, row), diff)| (row, epoch, diff)).collect()
}
