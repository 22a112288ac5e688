//! EXPLAIN: what a statement says (AST), the plan it becomes (PLAN), the operators that run it (DATAFLOW) and what they keep (STATE).
//!
//! The text is a function of the pipeline's text alone: it is what golden tests hold.

use std::fmt::Write;

use freshet_core::{JoinKind, Node, Op, Plan};

use crate::ast::{Explain, ExplainKind, ExplainSubject, Statement, Stmt, normal_name};
use crate::part::part_of;
use crate::pipeline::Pipeline;
use crate::refusal::{Refusal, Result};
use crate::state::growth;
use crate::training::TrainingSets;

/// One answer of EXPLAIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainOutput {
    pub title: String,
    pub text: String,
}

/// EXPLAIN of a statement that is not applied.
pub(crate) fn statement(explain: &Explain, pipeline: &Pipeline<'_>) -> Result<ExplainOutput> {
    let ExplainSubject::Statement(statement) = &explain.subject else { unreachable!("a name is explained when all is compiled") };
    let title = format!("{} {}", heading(explain.what), statement.body.kind());
    if explain.what == ExplainKind::Ast {
        return Ok(ExplainOutput { title, text: syntax(statement) });
    }
    let plan = match &statement.body {
        Stmt::Select(query) => pipeline.clone().explain_query(query)?,
        Stmt::CreateView(view) => pipeline.clone().explain_query(&view.query)?,
        Stmt::Explain(_) => return Err(Refusal::new("EXPLAIN of EXPLAIN explains nothing")),
        _ => {
            let mut applied = pipeline.clone();
            applied.apply(statement)?;
            let training = applied.training_sets();
            let plan = applied.finish();
            let Some(name) = statement.body.declares().map(normal_name) else {
                return Ok(ExplainOutput { title, text: text_of(explain.what, &plan) });
            };
            let plan = declared(&plan, &training, &name)?.unwrap_or(plan);
            return Ok(ExplainOutput { title, text: text_of(explain.what, &plan) + &training.notes_of(&name) });
        }
    };
    Ok(ExplainOutput { title, text: text_of(explain.what, &plan) })
}

/// EXPLAIN of something the pipeline declares.
pub(crate) fn named(explain: &Explain, plan: &Plan, training: &TrainingSets, statements: &[Statement]) -> Result<ExplainOutput> {
    let ExplainSubject::Name(ident) = &explain.subject else { unreachable!("a statement is explained where it stands") };
    let name = normal_name(ident);
    let unknown = || Refusal::new(format!("nothing is named {name}")).at(ident.span);
    let title = format!("{} {name}", heading(explain.what));
    if explain.what == ExplainKind::Ast {
        let found = statements.iter().find(|statement| statement.body.declares().is_some_and(|declared| normal_name(declared) == name));
        return Ok(ExplainOutput { title, text: syntax(found.ok_or_else(unknown)?) });
    }
    let part = declared(plan, training, &name)?.ok_or_else(unknown)?;
    Ok(ExplainOutput { title, text: text_of(explain.what, &part) + &training.notes_of(&name) })
}

/// What one declaration needs: of a training set the plan of its own rows, of all others a part of the pipeline's plan.
fn declared(plan: &Plan, training: &TrainingSets, name: &str) -> Result<Option<Plan>> {
    match training.plan_of(name) {
        Some(own) => own.map(Some),
        None => Ok(part_of(plan, name)),
    }
}

/// The whole plan as EXPLAIN shows it.
pub fn explain_plan(what: ExplainKind, plan: &Plan) -> String {
    text_of(what, plan)
}

fn heading(what: ExplainKind) -> &'static str {
    match what {
        ExplainKind::Ast => "AST of",
        ExplainKind::Plan => "PLAN of",
        ExplainKind::Dataflow => "DATAFLOW of",
        ExplainKind::State => "STATE of",
    }
}

fn syntax(statement: &Statement) -> String {
    format!("{statement}\n")
}

fn text_of(what: ExplainKind, plan: &Plan) -> String {
    match what {
        ExplainKind::Ast | ExplainKind::Plan => freshet_core::explain(plan),
        ExplainKind::Dataflow => dataflow(plan, true),
        ExplainKind::State => dataflow(plan, false),
    }
}

/// `all`: also operators that keep nothing.
fn dataflow(plan: &Plan, all: bool) -> String {
    let mut text = String::new();
    let laws = growth(plan);
    for (index, (node, law)) in plan.nodes.iter().zip(&laws).enumerate().filter(|(_, (_, law))| all || law.is_some()) {
        let changes = if node.append_only { "appends only" } else { "tells changes" };
        write!(text, "%{index} {}, {changes}", operator(plan, node)).expect("a string takes every write");
        for (position, input) in node.inputs.iter().enumerate() {
            write!(text, "\n    from %{}: {}", input.0, exchange(plan, node, position)).expect("a string takes every write");
        }
        if let Some(law) = law {
            write!(text, "\n    state: {}", law.sentence()).expect("a string takes every write");
        }
        text.push('\n');
    }
    for view in &plan.views {
        writeln!(
            text,
            "index {} of %{}: by {}",
            view.name,
            view.node.0,
            if view.entity.is_empty() { "row".to_string() } else { view.entity.join(", ") }
        )
        .expect("a string takes every write");
    }
    for sink in &plan.sinks {
        writeln!(text, "sink {} of %{}: to one worker, in (epoch, all columns) order", sink.name, sink.node.0).expect("a string takes every write");
    }
    text
}

fn operator(plan: &Plan, node: &Node) -> String {
    match &node.op {
        Op::Source { source } => format!("source {}", plan.sources[*source].name),
        Op::Upsert { .. } => "upsert".into(),
        Op::Project { .. } => "project".into(),
        Op::Filter { .. } => "filter".into(),
        Op::TemporalFilter { .. } => "temporal filter".into(),
        Op::Join { kind, left_keys, .. } => join(*kind, left_keys.is_empty()),
        Op::SingleRow => "single row".into(),
        Op::Values { rows } => format!("{} rows of the script", rows.num_rows()),
        Op::Unnest { .. } => "unnest".into(),
        Op::SetOperation { operation } => operation.sql().to_lowercase(),
        Op::Aggregate { calls, .. } if calls.is_empty() => "distinct".into(),
        Op::Aggregate { .. } => "aggregate".into(),
        Op::Asof { .. } => "asof join".into(),
        Op::LookupJoin { .. } => "lookup join".into(),
        Op::Top { .. } => "top".into(),
        Op::Over { .. } => "over".into(),
        Op::Union => "union".into(),
        Op::Feature { spec: freshet_core::FeatureSpec::Rolling(_), eager } => format!("rolling store{}", if *eager { ", emits changes" } else { "" }),
        Op::Feature { spec: freshet_core::FeatureSpec::Latest(_), eager } => format!("latest store{}", if *eager { ", emits changes" } else { "" }),
        Op::Lookup { parts, .. } => format!("lookup of {} views", parts.len()),
        Op::Predict { .. } => "predict".into(),
        Op::Windows { .. } => "windows".into(),
        Op::Session { .. } => "sessions".into(),
        Op::Arrival => "arrival".into(),
        Op::Gate { .. } => "gate of closed windows".into(),
        Op::EmitOnClose { .. } => "emit on window close".into(),
        Op::EmitEvery { .. } => "emit every".into(),
        Op::Drift { .. } => "drift monitor".into(),
        Op::Recursive { .. } => "recursive".into(),
        Op::Argument { .. } => "argument".into(),
    }
}

fn join(kind: JoinKind, is_cross: bool) -> String {
    let text = match kind {
        JoinKind::Inner if is_cross => return "cross join".into(),
        JoinKind::Inner => "join",
        JoinKind::Left => "left join",
        JoinKind::Full => "full join",
        JoinKind::Semi => "semi join",
        JoinKind::Anti => "anti join",
        JoinKind::Mark => "mark join",
        JoinKind::NullAwareAnti => "not in",
        JoinKind::NullAwareMark => "in as a value",
    };
    if is_cross { format!("{text} of all pairs") } else { text.into() }
}

fn exchange(plan: &Plan, node: &Node, position: usize) -> String {
    let input = plan.node(node.inputs[position]);
    let by = |columns: &[usize]| match columns {
        [] => "to one worker".to_string(),
        columns => {
            let names: Vec<&str> = columns.iter().map(|column| input.schema.field(*column).name().as_str()).collect();
            format!("exchanged by {}", names.join(", "))
        }
    };
    match &node.op {
        Op::Source { .. } | Op::Values { .. } | Op::Project { .. } | Op::Filter { .. } | Op::Union | Op::Unnest { .. } => "on its worker".into(),
        Op::SingleRow => by(&[]),
        Op::Upsert { key } => by(key),
        Op::TemporalFilter { .. } => "exchanged by row".into(),
        Op::Join { kind, left_keys, right_keys, .. } => {
            let keys = if position == 0 { left_keys } else { right_keys };
            by(if kind.is_null_aware() { &keys[1..] } else { keys })
        }
        Op::SetOperation { .. } => "exchanged by row".into(),
        Op::Aggregate { keys, .. } => by(keys),
        Op::Asof { left_keys, right_keys, .. } | Op::LookupJoin { left_keys, right_keys, .. } => {
            by(if position == 0 { left_keys } else { right_keys })
        }
        Op::Top { partition, .. } | Op::Over { partition, .. } => by(partition),
        Op::Feature { spec, .. } => by(spec.entity()),
        Op::Lookup { .. } if position == 0 => "on its worker".into(),
        Op::Predict { .. } if input.append_only => "on its worker".into(),
        Op::Predict { .. } => "exchanged by row".into(),
        Op::Windows { .. } => "on its worker".into(),
        Op::Session { keys, .. } => by(keys),
        Op::Arrival if input.append_only => "on its worker".into(),
        Op::Arrival | Op::EmitOnClose { .. } | Op::EmitEvery { .. } => "exchanged by row".into(),
        Op::Gate { .. } => "on its worker".into(),
        Op::Drift { .. } => "to one worker".into(),
        Op::Recursive { .. } => "exchanged by row".into(),
        Op::Argument { .. } => "on its worker".into(),
        Op::Lookup { parts, .. } => {
            let left = plan.node(node.inputs[0]);
            let names: Vec<&str> = parts[position - 1].keys.iter().map(|key| left.schema.field(*key).name().as_str()).collect();
            format!("asked at the workers of {}", names.join(", "))
        }
    }
}
