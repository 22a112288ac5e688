//! Builds the dataflow of a plan on one worker. In: the plan and what the workers share. Out: inputs, probes and state handles.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use freshet_core::{Error, Format, LookupPart, LookupTime, Node, NodeId, Op, Plan, PredictCall, Result};
use timely::dataflow::operators::{Concatenate, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, Scope};
use timely::worker::Worker;

use crate::bridge::{FeatureStore, Progress, Questions, Routes, Scorers, SinkQueue, ViewLog, entries};
use crate::edge::{EdgeBuilder, owner_of};
use crate::metrics::Metrics;
use crate::operators::{
    Aggregate, Bundle, Drift, Feature, Join, Live, Lookup, Materialize, Predict, Route, Scoring, Stateful, StepOperator, TemporalFilter, ToSink,
    Upsert, filter, map_batches, offloaded_operator, project, shared, step_operator,
};
use crate::render::{error_view, operator_name};

/// What the workers of a pipeline share.
pub struct Shared {
    pub plan: Arc<Plan>,
    pub progress: Arc<Progress>,
    /// Feature view node → its store.
    pub stores: BTreeMap<NodeId, Arc<FeatureStore>>,
    /// By readable name: views, errors of views.
    pub logs: BTreeMap<String, Arc<ViewLog>>,
    /// In the order of the plan's sinks.
    pub sinks: Vec<SinkQueue>,
    /// Which version of a model scores a row.
    pub routes: Arc<Routes>,
    pub metrics: Arc<Metrics>,
    pub questions: Arc<Questions>,
    /// There if the plan has a PREDICT.
    pub scorers: Option<Scorers>,
    pub source_names: Arc<[String]>,
}

/// What a worker holds of its dataflow.
pub struct Rendered {
    /// In the order of the plan's sources.
    pub inputs: Vec<InputHandle<u64, EdgeBuilder>>,
    /// In the order of the plan's views, then its sinks, then the entries of [`crate::bridge::entries`].
    pub probes: Vec<ProbeHandle<u64>>,
    pub states: Vec<(String, Rc<RefCell<dyn Stateful>>)>,
}

/// Builds the whole plan as one dataflow. Every worker does the same in the same order.
pub fn render(worker: &mut Worker, with: &Shared) -> Result<Rendered> {
    let (index, peers) = (worker.index(), worker.peers());
    worker.dataflow(|scope| {
        let mut builder = Builder { scope, with, worker: index, peers, inputs: Vec::new(), states: Vec::new(), bundles: Vec::new() };
        for _ in &with.plan.sources {
            builder.inputs.push(InputHandle::new_with_builder());
        }
        for node in 0..with.plan.nodes.len() {
            let bundle = builder.node(NodeId(node as u32))?;
            builder.bundles.push(bundle);
        }
        let probes = builder.exports()?;
        Ok(Rendered { inputs: builder.inputs, probes, states: builder.states })
    })
}

struct Builder<'scope, 'a> {
    scope: Scope<'scope, u64>,
    with: &'a Shared,
    worker: usize,
    peers: usize,
    inputs: Vec<InputHandle<u64, EdgeBuilder>>,
    states: Vec<(String, Rc<RefCell<dyn Stateful>>)>,
    bundles: Vec<Bundle<'scope>>,
}

impl<'scope> Builder<'scope, '_> {
    fn node(&mut self, id: NodeId) -> Result<Bundle<'scope>> {
        let plan = self.with.plan.clone();
        let node = plan.node(id);
        let name = operator_name(&plan, id);
        let names = self.with.source_names.clone();
        let inputs: Vec<Bundle<'scope>> = node.inputs.iter().map(|input| self.bundles[input.index()].clone()).collect();
        let schema_of = |input: usize| &plan.node(node.inputs[input]).schema;
        let appends = |input: usize| plan.node(node.inputs[input]).append_only;
        let own = match &node.op {
            Op::Source { source } => return self.source(*source, node, &name),
            Op::Upsert { key } => {
                let operator = Upsert::new(name.clone(), key.clone(), node.schema.clone(), names)?;
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), key))], operator)
            }
            Op::Project { exprs } => {
                map_batches(self.scope, &name, inputs[0].rows.clone(), project(name.clone(), exprs.clone(), node.schema.clone(), names))
            }
            Op::Filter { conjuncts } => map_batches(self.scope, &name, inputs[0].rows.clone(), filter(name.clone(), conjuncts.clone(), names)),
            Op::Union => {
                let rows = self.scope.concatenate(inputs.iter().map(|input| input.rows.clone()));
                let schema = node.schema.clone();
                map_batches(self.scope, &name, rows, move |batch, out| out.rows.push(batch.with_schema(&schema)))
            }
            Op::TemporalFilter { bounds } => {
                let operator = TemporalFilter::new(bounds.clone(), node.schema.clone())?;
                let route = Route::keys(schema_of(0), &all_columns(&plan, node.inputs[0]));
                self.stateful(&name, vec![(inputs[0].clone(), route)], operator)
            }
            Op::Join { left_keys, right_keys, residual } => {
                let operator = Join::new([left_keys.clone(), right_keys.clone()], [schema_of(0), schema_of(1)], node.schema.clone())?;
                let routes = [Route::keys(schema_of(0), left_keys), Route::keys(schema_of(1), right_keys)];
                let joined = self.stateful(&name, inputs.iter().cloned().zip(routes).collect(), operator);
                if residual.is_empty() {
                    joined
                } else {
                    let kept = map_batches(self.scope, &name, joined.rows, filter(name.clone(), residual.clone(), names));
                    Bundle { rows: kept.rows, errors: self.scope.concatenate([joined.errors, kept.errors]) }
                }
            }
            Op::Aggregate { keys, calls } => {
                let owns_global = owner_of(0, self.peers) == self.worker;
                let schemas = (schema_of(0), node.schema.clone());
                let operator = Aggregate::new(name.clone(), (keys.clone(), calls.clone()), schemas, appends(0), names, owns_global)?;
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), keys))], operator)
            }
            Op::Feature { spec, eager } => {
                let store = self.with.stores[&id].clone();
                let route = Route::keys(schema_of(0), spec.entity());
                let hindsight = !eager && is_read_in_hindsight_only(&plan, id);
                let operator = Feature::new(store, self.with.progress.clone(), (self.worker, self.peers), node.schema.clone(), (*eager, hindsight))?;
                self.stateful(&name, vec![(inputs[0].clone(), route)], operator)
            }
            Op::Lookup { parts, at } => self.lookup(&name, id, (parts, *at), &inputs)?,
            Op::Predict { calls } => self.predict(&name, node, calls, &inputs[0])?,
            Op::Drift { spec } => {
                let operator = Drift::new(&name, spec.clone(), schema_of(0), self.with.routes.clone())?;
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), &[]))], operator)
            }
        };
        let errors = inputs.into_iter().map(|input| input.errors).chain([own.errors]);
        Ok(Bundle { rows: own.rows, errors: self.scope.concatenate(errors) })
    }

    fn source(&mut self, source: usize, node: &Node, name: &str) -> Result<Bundle<'scope>> {
        let rows = self.inputs[source].to_stream(self.scope);
        let def = &self.with.plan.sources[source];
        if def.format != Format::Debezium {
            return Ok(map_batches(self.scope, name, rows, |batch, out| out.rows.push(batch)));
        }
        let operator = Live::new(name.to_string(), node.schema.clone(), self.with.source_names.clone())?;
        let columns: Vec<usize> = (0..node.schema.fields().len()).collect();
        let (operator, state) = shared(operator);
        self.states.push((name.to_string(), state));
        Ok(step_operator(self.scope, name, vec![(rows, Route::keys(&node.schema, &columns))], operator))
    }

    fn lookup(&mut self, name: &str, id: NodeId, (parts, at): (&[LookupPart], LookupTime), inputs: &[Bundle<'scope>]) -> Result<Bundle<'scope>> {
        let plan = &self.with.plan;
        let node = plan.node(id);
        let left = plan.node(node.inputs[0]);
        let mut stores = Vec::new();
        for (part, input) in parts.iter().zip(&node.inputs[1..]) {
            let store = self.with.stores.get(input).ok_or_else(|| Error::internal(format!("{name}: node {} is no feature view", input.0)))?;
            for (key, wanted) in part.keys.iter().zip(store.entity_types()) {
                let found = left.schema.field(*key);
                if found.data_type() != wanted {
                    return Err(Error::internal(format!("{name}: column {} is {}, the view's entity is {wanted}", found.name(), found.data_type())));
                }
            }
            stores.push((part.clone(), store.clone()));
        }
        let names = self.with.source_names.clone();
        let operator = Lookup::new(name.to_string(), (stores, at), (&left.schema, node.schema.clone()), left.append_only, names)?;
        let operator = operator.counting(self.with.questions.of(id)).over_whole_input(plan.needs_whole_input());
        // A retracted row must reach the worker that remembers its answer; rows that stay may be answered where they are.
        let route = if left.append_only { Route::Local } else { Route::keys(&left.schema, &all_columns(plan, node.inputs[0])) };
        let mut ports = vec![(inputs[0].clone(), route)];
        ports.extend(inputs[1..].iter().map(|input| (input.clone(), Route::Local)));
        Ok(self.stateful(name, ports, operator))
    }

    fn predict(&mut self, name: &str, node: &Node, calls: &[PredictCall], input: &Bundle<'scope>) -> Result<Bundle<'scope>> {
        let with = self.with;
        let left = with.plan.node(node.inputs[0]);
        let scorers = with.scorers.as_ref().ok_or_else(|| Error::internal(format!("{name}: there are no threads for scoring")))?;
        let scoring = Scoring::new(calls, &with.plan.models, node.schema.clone(), with.routes.clone(), with.metrics.clone())?;
        let operator = Predict::new(name.to_string(), scoring, &left.schema, left.append_only, with.source_names.clone())?;
        // A retracted row must reach the worker that remembers its scores.
        let route = if left.append_only { Route::Local } else { Route::keys(&left.schema, &all_columns(&with.plan, node.inputs[0])) };
        let (operator, state) = shared(operator);
        self.states.push((name.to_string(), state));
        Ok(offloaded_operator(self.scope, name, (input.rows.clone(), route), operator, scorers))
    }

    fn stateful(&mut self, name: &str, inputs: Vec<(Bundle<'scope>, Route)>, operator: impl StepOperator + Stateful + 'static) -> Bundle<'scope> {
        let (operator, state) = shared(operator);
        self.states.push((name.to_string(), state));
        step_operator(self.scope, name, inputs.into_iter().map(|(input, route)| (input.rows, route)).collect(), operator)
    }

    /// Ends every view in its logs and every sink in its queue; one probe each.
    fn exports(&mut self) -> Result<Vec<ProbeHandle<u64>>> {
        let plan = self.with.plan.clone();
        let mut probes = Vec::new();
        for view in &plan.views {
            let probe = ProbeHandle::new();
            let bundle = &self.bundles[view.node.index()];
            for (name, rows) in [(view.name.clone(), bundle.rows.clone()), (error_view(&view.name), bundle.errors.clone())] {
                match self.with.logs.get(&name) {
                    Some(log) => {
                        let end = Materialize { log: log.clone(), progress: self.with.progress.clone() };
                        step_operator(self.scope, &format!("view {name}"), vec![(rows, Route::Local)], end).rows.probe_with(&probe);
                    }
                    // The content of a feature view is in its store.
                    None => {
                        rows.probe_with(&probe);
                    }
                }
            }
            probes.push(probe);
        }
        for (sink, queue) in plan.sinks.iter().zip(&self.with.sinks) {
            let probe = ProbeHandle::new();
            let rows = self.bundles[sink.node.index()].rows.clone();
            let schema = plan.node(sink.node).schema.clone();
            let only = owner_of(0, self.peers) == self.worker;
            let end = ToSink::new(only.then(|| queue.clone()), schema.clone())?;
            step_operator(self.scope, &format!("sink {}", sink.name), vec![(rows, Route::keys(&schema, &[]))], end).rows.probe_with(&probe);
            probes.push(probe);
        }
        for entry in entries(&plan) {
            let probe = ProbeHandle::new();
            self.bundles[entry.index()].rows.clone().probe_with(&probe);
            probes.push(probe);
        }
        Ok(probes)
    }
}

/// Only then may arrivals be folded away: a lookup at (q, s) with a finite s must still tell which had come.
fn is_read_in_hindsight_only(plan: &Plan, feature: NodeId) -> bool {
    let mut readers = plan.nodes.iter().filter(|node| node.inputs.contains(&feature)).peekable();
    readers.peek().is_some() && readers.all(|node| matches!(node.op, Op::Lookup { at: LookupTime::EventTime { .. }, .. }))
}

fn all_columns(plan: &Plan, node: NodeId) -> Vec<usize> {
    (0..plan.node(node).schema.fields().len()).collect()
}
