//! The part of a plan that one declaration needs, which is what EXPLAIN shows of it. In: the whole plan and a name. Out: a plan of its own,
//! with models and training sets counted anew.

use std::collections::BTreeSet;

use freshet_core::{NodeId, Op, Plan, RetrainingDef, ServiceDef};

use crate::pipeline::prune;

/// Only what the view, sink, source, service, model, training set or retraining job of this name needs. None: nothing is called so.
pub(crate) fn part_of(plan: &Plan, name: &str) -> Option<Plan> {
    let mut part = plan.clone();
    part.sinks.retain(|sink| sink.name == name);
    let service: Option<ServiceDef> = plan.service(name).cloned();
    let of_service = |view: &str| service.as_ref().is_some_and(|service| service.parts.iter().any(|part| part.view == view));
    let from_sink: Vec<String> = part.sinks.iter().map(|sink| sink.from.clone()).collect();
    part.views.retain(|view| view.name == name || of_service(&view.name) || from_sink.contains(&view.name));
    part.services.retain(|service| service.name == name);
    part.retraining.retain(|job| job.name == name);
    let models: BTreeSet<usize> = indexes(&plan.models, |model| model.name == name).chain(part.retraining.iter().map(|job| job.model)).collect();
    let sets: BTreeSet<usize> =
        indexes(&plan.training_sets, |set| set.name == name).chain(part.retraining.iter().map(|job| job.training_set)).collect();
    let mut roots = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let of_source = |op: &Op| matches!(op, Op::Source { source } if plan.sources[*source].name == name);
        if of_source(&node.op) || matches!(node.op, Op::Upsert { .. } if of_source(&plan.node(node.inputs[0]).op)) {
            roots.push(NodeId(index as u32));
        }
    }
    if part.views.is_empty() && part.sinks.is_empty() && roots.is_empty() && models.is_empty() && sets.is_empty() {
        return None;
    }
    Some(retain(prune(part, &roots), &models, &sets))
}

/// The plan with only those models and training sets that its nodes or the caller name. Jobs whose model or set goes with it go too.
pub(crate) fn retain(mut plan: Plan, models: &BTreeSet<usize>, training_sets: &BTreeSet<usize>) -> Plan {
    let mut models = models.clone();
    for node in &plan.nodes {
        match &node.op {
            Op::Predict { calls } => models.extend(calls.iter().map(|call| call.model)),
            Op::Drift { spec } => drop(models.insert(spec.model)),
            _ => {}
        }
    }
    let rank = |kept: &BTreeSet<usize>, index: usize| kept.iter().position(|known| *known == index);
    let renamed =
        |job: RetrainingDef| Some(RetrainingDef { model: rank(&models, job.model)?, training_set: rank(training_sets, job.training_set)?, ..job });
    plan.retraining = std::mem::take(&mut plan.retraining).into_iter().filter_map(renamed).collect();
    for node in &mut plan.nodes {
        let used: Vec<&mut usize> = match &mut node.op {
            Op::Predict { calls } => calls.iter_mut().map(|call| &mut call.model).collect(),
            Op::Drift { spec } => vec![&mut spec.model],
            _ => Vec::new(),
        };
        used.into_iter().for_each(|model| *model = rank(&models, *model).expect("models of nodes are kept"));
    }
    plan.models = models.iter().map(|index| plan.models[*index].clone()).collect();
    plan.training_sets = training_sets.iter().map(|index| plan.training_sets[*index].clone()).collect();
    plan
}

fn indexes<'a, T>(items: &'a [T], wanted: impl Fn(&T) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    items.iter().enumerate().filter(move |(_, item)| wanted(item)).map(|(index, _)| index)
}
