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
        Op::Asof { .. } => "asof join",
        Op::LookupJoin { .. } => "lookup join",
        Op::Top { .. } => "top",
        Op::Over { .. } => "over",
        Op::Union => "union",
        Op::SetOperation { .. } => "set operation",
        Op::SingleRow => "single row",
        Op::Values { .. } => "values",
        Op::Unnest { .. } => "unnest",
        Op::Feature { spec: FeatureSpec::Rolling(_), .. } => "rolling",
        Op::Feature { spec: FeatureSpec::Latest(_), .. } => "latest",
        Op::Lookup { .. } => "lookup",
        Op::Predict { .. } => "predict",
        Op::Windows { .. } => "windows",
        Op::Session { .. } => "session",
        Op::Arrival => "arrival",
        Op::Gate { .. } => "gate",
        Op::EmitOnClose { .. } => "emit on close",
        Op::EmitEvery { .. } => "emit every",
        Op::Drift { .. } => "drift",
        Op::Recursive { .. } => "recursive",
        Op::Argument { .. } => "argument",
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
            Op::Project { .. } | Op::Filter { .. } | Op::Union | Op::Unnest { .. } => ("local", "none"),
            Op::SingleRow => ("all to one worker", "the rows of the subquery"),
            Op::Values { .. } => ("on one worker", "none"),
            Op::TemporalFilter { .. } => ("exchange by row", "changes to come"),
            Op::Join { kind, left_keys, .. } if left_keys.len() == usize::from(kind.is_null_aware()) => ("all to one worker", "both sides"),
            Op::Join { .. } => ("exchange both sides by key", "both sides by key"),
            Op::SetOperation { .. } => ("exchange both sides by row", "counts of both sides by row"),
            Op::Aggregate { .. } => ("exchange by key", "accumulators by key"),
            Op::Asof { .. } => ("exchange both sides by key", "both sides by key, in the order of time"),
            Op::LookupJoin { at: None, .. } if !changing(0) => ("exchange both sides by key", "the right side by key"),
            Op::LookupJoin { at: None, .. } => ("exchange both sides by key", "the right side by key, answers of live left rows"),
            Op::LookupJoin { .. } => ("exchange both sides by key", "all versions of the right side by key"),
            Op::Top { .. } if !changing(0) => ("exchange by partition", "the top of each partition"),
            Op::Top { .. } | Op::Over { .. } => ("exchange by partition", "rows in order by partition"),
            Op::Feature { eager: true, .. } => ("exchange by entity", "events by entity, content shown"),
            Op::Feature { .. } => ("exchange by entity", "events by entity"),
            Op::Lookup { .. } if changing(0) => ("exchange left by row", "answers of live left rows"),
            Op::Lookup { .. } => ("local", "none"),
            Op::Predict { .. } if changing(0) => ("exchange by row", "predictions of live rows"),
            Op::Predict { .. } => ("local", "none"),
            Op::Windows { .. } => ("local", "none"),
            Op::Session { .. } => ("exchange by key", "rows by key and time"),
            Op::Arrival if changing(0) => ("exchange by row", "arrivals of live rows"),
            Op::Arrival => ("local", "none"),
            Op::Gate { .. } => ("local", "none"),
            Op::EmitOnClose { .. } => ("exchange by row", "rows of open windows"),
            Op::EmitEvery { .. } => ("exchange by row", "changes to come"),
            Op::Recursive { .. } => ("exchange by row and by the keys of its joins", "its inputs, and each round's rows by key"),
            Op::Argument { .. } => ("local", "none"),
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
