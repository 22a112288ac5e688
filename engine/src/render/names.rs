//! Stable names of operators: keys of checkpoints, labels of metrics, lines of EXPLAIN DATAFLOW.

use freshet_core::{FeatureSpec, NodeId, Op, Plan};

/// For example `n3 join`.
pub fn operator_name(plan: &Plan, node: NodeId) -> String {
    let kind = match &plan.node(node).op {
        Op::Source { source } => return format!("n{} source {}", node.0, plan.sources[*source].name),
        Op::Upsert { .. } => "upsert",
        Op::Project { .. } => "project",
        Op::Filter { .. } => "filter",
        Op::TemporalFilter { .. } => "temporal filter",
        Op::Join { .. } => "join",
        Op::Aggregate { .. } => "aggregate",
        Op::Union => "union",
        Op::Feature { spec: FeatureSpec::Rolling(_), .. } => "rolling",
        Op::Feature { spec: FeatureSpec::Latest(_), .. } => "latest",
        Op::Lookup { .. } => "lookup",
        Op::Predict { .. } => "predict",
        Op::Drift { .. } => "drift",
    };
    format!("n{} {kind}", node.0)
}

/// The readable name of a view's error rows.
pub fn error_view(view: &str) -> String {
    format!("errors({view})")
}

/// The operators a plan is rendered to, one a line: name, how rows reach it, whether it keeps state.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for index in 0..plan.nodes.len() {
        let id = NodeId(index as u32);
        let node = plan.node(id);
        let changing = |input: usize| !plan.node(node.inputs[input]).append_only;
        let (route, state) = match &node.op {
            Op::Source { source } if plan.sources[*source].format == freshet_core::Format::Debezium => ("exchange by row", "live rows"),
            Op::Source { .. } => ("from the sources' thread", "none"),
            Op::Upsert { .. } => ("exchange by key", "the live row of each key"),
            Op::Project { .. } | Op::Filter { .. } | Op::Union => ("local", "none"),
            Op::TemporalFilter { .. } => ("exchange by row", "changes to come"),
            Op::Join { .. } => ("exchange both sides by key", "both sides by key"),
            Op::Aggregate { .. } => ("exchange by key", "accumulators by key"),
            Op::Feature { eager: true, .. } => ("exchange by entity", "events by entity, content shown"),
            Op::Feature { .. } => ("exchange by entity", "events by entity"),
            Op::Lookup { .. } if changing(0) => ("exchange left by row", "answers of live left rows"),
            Op::Lookup { .. } => ("local", "none"),
            Op::Predict { .. } if changing(0) => ("exchange by row", "predictions of live rows"),
            Op::Predict { .. } => ("local", "none"),
            Op::Drift { .. } => ("all to one worker", "measured values of the window"),
        };
        text.push_str(&format!("{}: {route}; state: {state}\n", operator_name(plan, id)));
    }
    for view in &plan.views {
        text.push_str(&format!("view {}: local; state: log of changes\n", view.name));
    }
    for sink in &plan.sinks {
        text.push_str(&format!("sink {}: all to one worker; state: none\n", sink.name));
    }
    text
}
