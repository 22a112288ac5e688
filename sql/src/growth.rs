//! Which views keep state that grows with time (T12). In: a statement and the plan of the whole script. Out: a warning that names the source
//! which does not say how late its rows may come.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use freshet_core::{NodeId, Op, Plan};

use crate::ast::{Stmt, normal_name};
use crate::refusal::Refusal;

/// At most one a view, and none for what a view before it keeps already: `warned` holds those nodes. Only with clock = 'wall': under 'event'
/// all input is bounded, and so is the state. Features are no matter of LATENESS, they forget by their windows.
pub(crate) fn warning(statement: &Stmt, plan: &Plan, warned: &mut BTreeSet<NodeId>) -> Option<Refusal> {
    let Stmt::CreateMaterializedView(create) = statement else { return None };
    let name = normal_name(&create.name);
    let view = plan.view(&name)?;
    let below = reached(plan, view.node);
    let known = warned.len();
    warned.extend(below.iter().filter(|id| grows(plan, **id)));
    if warned.len() == known {
        return None;
    }
    let sources = below.into_iter().filter_map(|id| match plan.node(id).op {
        Op::Source { source } => Some(&plan.sources[source]),
        _ => None,
    });
    let source = sources.filter(|source| source.event_time.is_some() && source.lateness_ms.is_none()).map(|source| &source.name).min()?;
    let warning = Refusal::new(format!("the state of view {name} grows for as long as it runs: source {source} declares no LATENESS"));
    Some(warning.help(format!("say in CREATE SOURCE {source} how late a row may come: LATENESS INTERVAL '1 day'")).at(create.name.span))
}

/// A join keeps the rows of both sides, and an aggregate by time a group for each instant. Other groups grow with their keys, not with time.
fn grows(plan: &Plan, id: NodeId) -> bool {
    let node = plan.node(id);
    match &node.op {
        Op::Join { .. } => true,
        Op::Aggregate { keys, .. } => {
            (0..keys.len()).any(|key| matches!(node.schema.field(key).data_type(), DataType::Timestamp(_, _) | DataType::Date32))
        }
        _ => false,
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
