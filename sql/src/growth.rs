//! Which views keep state that grows with time (T12), and which compare all rows with all rows. In: a statement and the plan of the whole
//! script. Out: a warning that names the source which does not say how late its rows may come, what is kept for ever, or the join without an
//! equality.

use std::collections::BTreeSet;

use freshet_core::{JoinKind, NodeId, Op, Plan, SourceDef};

use crate::ast::{Stmt, normal_name};
use crate::refusal::Refusal;
use crate::state::{Growth, growth};

/// At most one a view, and none for what a view before it keeps already: `warned` holds those nodes. Only with clock = 'wall': under 'event'
/// all input is bounded, and so is the state. Features are no matter of LATENESS, they forget by their windows.
pub(crate) fn warning(statement: &Stmt, plan: &Plan, warned: &mut BTreeSet<NodeId>) -> Option<Refusal> {
    let Stmt::CreateMaterializedView(create) = statement else { return None };
    let name = normal_name(&create.name);
    let view = plan.view(&name)?;
    let below = reached(plan, view.node);
    let known = warned.len();
    let laws = growth(plan);
    warned.extend(below.iter().filter(|id| laws[id.index()].as_ref().is_some_and(Growth::is_unbounded)));
    if warned.len() == known {
        return None;
    }
    let timed: Vec<_> = below.iter().filter_map(|id| timed_source(plan, *id)).collect();
    let grows = format!("the state of view {name} grows for as long as it runs");
    if let Some(source) = timed.iter().filter(|source| source.lateness_ms.is_none()).map(|source| &source.name).min() {
        let warning = Refusal::new(format!("{grows}: source {source} declares no LATENESS"));
        return Some(warning.help(format!("say in CREATE SOURCE {source} how late a row may come: LATENESS INTERVAL '1 day'")).at(create.name.span));
    }
    let law = below.iter().filter_map(|id| laws[id.index()].as_ref()).find(|law| law.is_unbounded())?;
    let (name, column) = timed.iter().find_map(|source| Some((&source.name, source.schema.field(source.event_time?).name())))?;
    let help = format!("group or join by a window (TUMBLE of {name}), or keep what is recent: WHERE {column} > now() - INTERVAL '7 days'");
    Some(Refusal::new(format!("{grows}: {}", law.sentence())).help(help).at(create.name.span))
}

/// A view that compares every row of one side with every row of the other, of which no node has been warned of before.
pub(crate) fn all_pairs(statement: &Stmt, plan: &Plan, warned: &mut BTreeSet<NodeId>) -> Option<Refusal> {
    let Stmt::CreateMaterializedView(create) = statement else { return None };
    let name = normal_name(&create.name);
    let below = reached(plan, plan.view(&name)?.node);
    let known = warned.len();
    warned.extend(below.into_iter().filter(|id| joins_all_pairs(plan, *id)));
    if warned.len() == known {
        return None;
    }
    let warning = Refusal::new(format!("view {name} joins without an equality: on one worker, each change meets every row of the other side"));
    Some(warning.help("add ON left.key = right.key if there is one").at(create.name.span))
}

fn joins_all_pairs(plan: &Plan, id: NodeId) -> bool {
    let node = plan.node(id);
    match &node.op {
        Op::Join { kind, left_keys, residual, .. } => {
            left_keys.is_empty() && (kind.shows_right() || !residual.is_empty()) && !node.inputs.iter().any(|input| has_one_row(plan, *input))
        }
        _ => false,
    }
}

/// At most.
fn has_one_row(plan: &Plan, id: NodeId) -> bool {
    let node = plan.node(id);
    match &node.op {
        Op::Aggregate { keys, .. } => keys.is_empty(),
        Op::SingleRow => true,
        Op::Values { rows } => rows.num_rows() <= 1,
        Op::Project { .. } | Op::Filter { .. } | Op::TemporalFilter { .. } => has_one_row(plan, node.inputs[0]),
        Op::Join { kind: JoinKind::Inner, .. } => node.inputs.iter().all(|input| has_one_row(plan, *input)),
        _ => false,
    }
}

fn timed_source(plan: &Plan, id: NodeId) -> Option<&SourceDef> {
    match plan.node(id).op {
        Op::Source { source } => Some(&plan.sources[source]).filter(|source| source.event_time.is_some()),
        _ => None,
    }
}

/// The node and all below it.
fn reached(plan: &Plan, from: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        open.extend(plan.node(id).inputs.iter().copied().filter(|input| found.insert(*input)));
    }
    found
}
