//! Builds the dataflow of a plan on one worker. In: the plan and what the workers share. Out: inputs, probes and state handles.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use freshet_core::{
    Error, ExprRef, Format, Horizon, Horizons, JoinKind, LookupPart, LookupTime, Node, NodeId, Op, Plan, PredictCall, RecursionBody, Result,
};
use timely::dataflow::operators::{Concatenate, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, Scope};
use timely::worker::Worker;

use crate::bridge::{FeatureStore, Progress, Questions, Routes, Scorers, SinkQueue, ViewLog, Watermarks, entries};
use crate::edge::{EdgeBuilder, owner_of};
use crate::metrics::Metrics;
use crate::operators::{
    Aggregate, Arrival, Asof, Bundle, Closing, Drift, ERROR_KEY, EmitEvery, EmitOnClose, ErrorLives, Feature, Freeing, Gate, Join, Live, Lookup,
    LookupJoin, Materialize, NotIn, Origins, Over, Predict, RecursionInput, RecursionOutput, ResidualJoin, Route, Rows, Scoring, Session,
    SetOperator, Shape, SingleRow, Stateful, StepOperator, TemporalFilter, ToSink, Top, TopSpec, Upsert, Values, arrivals, error_schema, filter,
    map_batches, offloaded_operator, project, recursion, shared, step_operator, unnest, windows,
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
    /// How far the time of each source has come, epoch by epoch.
    pub watermarks: Arc<Watermarks>,
}

/// What a worker holds of its dataflow.
pub struct Rendered {
    /// In the order of the plan's sources; behind them those that only time goes through.
    pub inputs: Vec<InputHandle<u64, EdgeBuilder>>,
    /// In the order of the plan's views, then its sinks, then the entries of [`crate::bridge::entries`].
    pub probes: Vec<ProbeHandle<u64>>,
    pub states: Vec<(String, Rc<RefCell<dyn Stateful>>)>,
}

/// Builds the whole plan as one dataflow. Every worker does the same in the same order.
pub fn render(worker: &mut Worker, with: &Shared) -> Result<Rendered> {
    let (index, peers) = (worker.index(), worker.peers());
    worker.dataflow(|scope| {
        let mut builder = Builder {
            scope,
            with,
            worker: index,
            peers,
            inputs: Vec::new(),
            states: Vec::new(),
            bundles: Vec::new(),
            horizons: with.plan.horizons(),
        };
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
    /// Per node, what times are over.
    horizons: Vec<Horizons>,
}

impl<'scope> Builder<'scope, '_> {
    fn node(&mut self, id: NodeId) -> Result<Bundle<'scope>> {
        let plan = self.with.plan.clone();
        let node = plan.node(id);
        let name = operator_name(&plan, id);
        let names = self.with.source_names.clone();
        let origins = Origins::new(names.clone(), takes_rows_back(&plan, id));
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
                map_batches(self.scope, &name, inputs[0].rows.clone(), project(name.clone(), exprs.clone(), node.schema.clone(), origins))
            }
            Op::Filter { conjuncts } => map_batches(self.scope, &name, inputs[0].rows.clone(), filter(name.clone(), conjuncts.clone(), origins)),
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
            Op::Join { kind, left_keys, right_keys, nulls_equal, residual } => {
                let by = (*kind, [left_keys, right_keys], *nulls_equal);
                self.join(&name, id, by, residual, inputs.clone())?
            }
            Op::SingleRow => {
                let owns = owner_of(0, self.peers) == self.worker;
                let operator = SingleRow::new(name.clone(), node.schema.clone(), names, owns)?;
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), &[]))], operator)
            }
            Op::Values { rows } => {
                // Time goes on for it as for a source.
                let mut time = InputHandle::new_with_builder();
                let ticks = time.to_stream(self.scope);
                self.inputs.push(time);
                let operator = Values::new((owner_of(0, self.peers) == self.worker).then(|| rows.clone()));
                let (operator, state) = shared(operator);
                self.states.push((name.clone(), state));
                return Ok(step_operator(self.scope, &name, vec![(ticks, Route::Local)], operator));
            }
            Op::Unnest { exprs, lists } => {
                let parts = (exprs.clone(), lists.clone());
                map_batches(self.scope, &name, inputs[0].rows.clone(), unnest(name.clone(), parts, node.schema.clone(), origins))
            }
            Op::SetOperation { operation } => {
                let columns = all_columns(&plan, node.inputs[0]);
                let operator = SetOperator::new(*operation, node.schema.clone())?.freeing(self.with_both(node, &columns, &columns));
                let route = |input: usize| Route::keys(schema_of(input), &columns);
                self.stateful(&name, inputs.iter().cloned().zip([route(0), route(1)]).collect(), operator)
            }
            Op::Aggregate { keys, calls } => {
                let owns_global = owner_of(0, self.peers) == self.worker;
                let schemas = (schema_of(0), node.schema.clone());
                let operator = Aggregate::new(name.clone(), (keys.clone(), calls.clone()), schemas, appends(0), names, owns_global)?;
                let operator = operator.freeing(self.with_any(node, keys));
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), keys))], operator)
            }
            Op::Asof { left_keys, right_keys, left_time, right_time, comparison, outer } => {
                let sides = [(left_keys.clone(), *left_time), (right_keys.clone(), *right_time)];
                let operator = Asof::new(sides, (*comparison, *outer), [schema_of(0), schema_of(1)], node.schema.clone())?;
                let routes = [Route::keys(schema_of(0), left_keys), Route::keys(schema_of(1), right_keys)];
                self.stateful(&name, inputs.iter().cloned().zip(routes).collect(), operator)
            }
            Op::LookupJoin { left_keys, right_keys, at, outer } => {
                let keys = [left_keys.clone(), right_keys.clone()];
                let operator = LookupJoin::new(keys, (*at, *outer), [schema_of(0), schema_of(1)], node.schema.clone(), appends(0))?;
                let routes = [Route::keys(schema_of(0), left_keys), Route::keys(schema_of(1), right_keys)];
                self.stateful(&name, inputs.iter().cloned().zip(routes).collect(), operator)
            }
            Op::Top { partition, order, rank, offset, limit, number } => {
                let spec = TopSpec { rank: *rank, offset: *offset, limit: *limit, number: *number };
                let operator = Top::new(spec, (partition.clone(), order), (schema_of(0), node.schema.clone()), appends(0))?;
                let operator = operator.freeing(self.with_any(node, partition));
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), partition))], operator)
            }
            Op::Over { partition, order, calls } => {
                let over = (partition.clone(), order.clone(), calls.clone());
                let operator = Over::new(name.clone(), over, (schema_of(0), node.schema.clone()), names)?;
                let operator = operator.freeing(self.with_any(node, partition));
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), partition))], operator)
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
            Op::Windows { time, windows: shape } => {
                let map = windows(name.clone(), (*time, *shape), node.schema.clone(), origins);
                map_batches(self.scope, &name, inputs[0].rows.clone(), map)
            }
            Op::Session { time, gap, keys } => {
                let horizon = self.horizons[node.inputs[0].index()].get(time).cloned();
                let operator = Session::new((*time, *gap), keys.clone(), schema_of(0), node.schema.clone())?;
                let operator = operator.freeing(horizon.and_then(|horizon| self.freeing(*time, horizon)));
                self.stateful(&name, vec![(inputs[0].clone(), Route::keys(schema_of(0), keys))], operator)
            }
            Op::Gate { end, view } => {
                let late = self.with.logs.get(&format!("late({view})")).cloned();
                let gate = Gate { name: name.clone(), end: *end, closing: self.closing(id), late, sources: names };
                step_operator(self.scope, &name, vec![(inputs[0].rows.clone(), Route::Local)], gate)
            }
            Op::EmitOnClose { end } => {
                let operator = EmitOnClose::new(*end, self.closing(id), node.schema.clone())?;
                let route = Route::keys(schema_of(0), &all_columns(&plan, node.inputs[0]));
                self.stateful(&name, vec![(inputs[0].clone(), route)], operator)
            }
            Op::EmitEvery { every_ms } => {
                let operator = EmitEvery::new(*every_ms, node.schema.clone())?;
                let route = Route::keys(schema_of(0), &all_columns(&plan, node.inputs[0]));
                self.stateful(&name, vec![(inputs[0].clone(), route)], operator)
            }
            Op::Arrival if appends(0) => map_batches(self.scope, &name, inputs[0].rows.clone(), arrivals(node.schema.clone())),
            Op::Arrival => {
                let operator = Arrival::new(schema_of(0), node.schema.clone())?;
                let route = Route::keys(schema_of(0), &all_columns(&plan, node.inputs[0]));
                self.stateful(&name, vec![(inputs[0].clone(), route)], operator)
            }
            Op::Recursive { body, distinct } => self.recursive(&name, node, (body, *distinct), &inputs)?,
            Op::Argument { .. } => return Err(Error::internal(format!("{name}: it stands in the body of a recursion only"))),
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

    fn join(
        &mut self,
        name: &str,
        id: NodeId,
        (kind, keys, nulls_equal): (JoinKind, [&Vec<usize>; 2], bool),
        residual: &[ExprRef],
        inputs: Vec<Bundle<'scope>>,
    ) -> Result<Bundle<'scope>> {
        let plan = self.with.plan.clone();
        let node = plan.node(id);
        let origins = Origins::new(self.with.source_names.clone(), takes_rows_back(&plan, id));
        let schemas = [0, 1].map(|input: usize| &plan.node(node.inputs[input]).schema);
        // A value that NOT IN compares may be equal to one it does not match by key: NULL.
        let by: [Vec<usize>; 2] = keys.map(|keys| if kind.is_null_aware() { keys[1..].to_vec() } else { keys.clone() });
        let routes = [Route::keys(schemas[0], &by[0]), Route::keys(schemas[1], &by[1])];
        let over = self.with_both(node, &by[0], &by[1]);
        let shape = Shape::new(kind, by, nulls_equal, schemas, node.schema.clone())?;
        let inputs = inputs.into_iter().zip(routes).collect();
        if kind.is_null_aware() {
            return Ok(self.stateful(name, inputs, NotIn::new(shape, [keys[0][0], keys[1][0]])?));
        }
        if residual.is_empty() {
            return Ok(self.stateful(name, inputs, Join::new(shape, over)));
        }
        let rows_over = plan.rows_over(id, &self.horizons).map(|over| over.and_then(|(column, horizon)| self.freeing(column, horizon)));
        if kind != JoinKind::Inner {
            let operator = ResidualJoin::new(name.to_string(), shape, residual.to_vec(), schemas, origins);
            return Ok(self.stateful(name, inputs, operator.freeing(over).forgetting(rows_over)));
        }
        let joined = self.stateful(name, inputs, Join::new(shape, over).forgetting(rows_over));
        let kept = map_batches(self.scope, name, joined.rows, filter(name.to_string(), residual.to_vec(), origins));
        Ok(Bundle { rows: kept.rows, errors: self.scope.concatenate([joined.errors, kept.errors]) })
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

    fn freeing(&self, key: usize, horizon: Horizon) -> Option<Freeing> {
        Some(Freeing::new(self.with.watermarks.clone(), key, horizon))
    }

    /// A key is over when any of its columns is.
    fn with_any(&self, node: &Node, keys: &[usize]) -> Option<Freeing> {
        let horizons = &self.horizons[node.inputs[0].index()];
        keys.iter().enumerate().find_map(|(index, key)| self.freeing(index, horizons.get(key)?.clone()))
    }

    /// A key of a join is over when it is over on both sides.
    fn with_both(&self, node: &Node, left_keys: &[usize], right_keys: &[usize]) -> Option<Freeing> {
        let [left, right] = [0, 1].map(|side| &self.horizons[node.inputs[side].index()]);
        let keys = left_keys.iter().zip(right_keys).enumerate();
        let (key, horizon) = keys.into_iter().find_map(|(index, (one, other))| Some((index, left.get(one)?.and(right.get(other)?))))?;
        self.freeing(key, horizon)
    }

    fn closing(&self, id: NodeId) -> Closing {
        Closing::new(self.with.watermarks.clone(), self.with.plan.timed_sources(id))
    }

    fn recursive(&mut self, name: &str, node: &Node, recursion_of: (&RecursionBody, bool), inputs: &[Bundle<'scope>]) -> Result<Bundle<'scope>> {
        let plan = self.with.plan.clone();
        let mut kept = Vec::new();
        for (number, (input, id)) in inputs.iter().zip(&node.inputs).enumerate() {
            let schema = plan.node(*id).schema.clone();
            let route = Route::keys(&schema, &all_columns(&plan, *id));
            let operator = RecursionInput::new(schema.clone())?;
            kept.push((self.stateful(&format!("{name} input {number}"), vec![(input.clone(), route)], operator).rows, schema));
        }
        let found = recursion(self.scope, name, &kept, recursion_of, &node.schema)?;
        let rows = self.stateful(name, vec![(found.clone(), Route::Local)], RecursionOutput::new(node.schema.clone())?);
        let failed = Bundle { rows: found.errors, errors: rows.errors };
        let errors = self.stateful(&format!("{name} errors"), vec![(failed, Route::Local)], RecursionOutput::new(error_schema())?);
        Ok(Bundle { rows: rows.rows, errors: errors.rows })
    }

    fn stateful(&mut self, name: &str, inputs: Vec<(Bundle<'scope>, Route)>, operator: impl StepOperator + Stateful + 'static) -> Bundle<'scope> {
        let (operator, state) = shared(operator);
        self.states.push((name.to_string(), state));
        step_operator(self.scope, name, inputs.into_iter().map(|(input, route)| (input.rows, route)).collect(), operator)
    }

    /// The error rows of a node and of all below it, each with the place of its row.
    fn errors_of(&mut self, name: &str, node: NodeId, errors: Rows<'scope>) -> Result<Rows<'scope>> {
        if !takes_rows_back_below(&self.with.plan, node) {
            return Ok(errors);
        }
        let route = Route::keys(&error_schema(), &ERROR_KEY);
        let errors = Bundle { rows: errors.clone(), errors };
        Ok(self.stateful(name, vec![(errors, route)], ErrorLives::new(self.with.source_names.clone())?).rows)
    }

    /// Ends every view in its logs and every sink in its queue; one probe each.
    fn exports(&mut self) -> Result<Vec<ProbeHandle<u64>>> {
        let plan = self.with.plan.clone();
        let mut probes = Vec::new();
        for view in &plan.views {
            let probe = ProbeHandle::new();
            let bundle = self.bundles[view.node.index()].clone();
            let errors = self.errors_of(&error_view(&view.name), view.node, bundle.errors)?;
            for (name, rows) in [(view.name.clone(), bundle.rows), (error_view(&view.name), errors)] {
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
            let only = !queue.ordered || owner_of(0, self.peers) == self.worker;
            let end = ToSink::new(only.then(|| queue.clone()), schema.clone())?;
            let route = if queue.ordered { Route::keys(&schema, &[]) } else { Route::Local };
            step_operator(self.scope, &format!("sink {}", sink.name), vec![(rows, route)], end).rows.probe_with(&probe);
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

/// Whether it judges rows one by one, and sees some again when they are taken back.
fn takes_rows_back(plan: &Plan, node: NodeId) -> bool {
    let judges = match &plan.node(node).op {
        Op::Project { exprs } => exprs.iter().any(|expr| expr.as_column().is_none()),
        Op::Join { residual, .. } => !residual.is_empty(),
        Op::Filter { .. } | Op::Unnest { .. } | Op::Windows { .. } => true,
        _ => false,
    };
    judges && plan.node(node).inputs.iter().any(|input| !plan.node(*input).append_only)
}

/// Of the node, or of one below it.
fn takes_rows_back_below(plan: &Plan, node: NodeId) -> bool {
    let mut below = vec![false; node.index() + 1];
    below[node.index()] = true;
    // Inputs stand before what reads them.
    for index in (0..=node.index()).rev() {
        if below[index] {
            plan.nodes[index].inputs.iter().for_each(|input| below[input.index()] = true);
        }
    }
    (0..below.len()).any(|index| below[index] && takes_rows_back(plan, NodeId(index as u32)))
}

/// Only then may arrivals be folded away: a lookup at (q, s) with a finite s must still tell which had come.
fn is_read_in_hindsight_only(plan: &Plan, feature: NodeId) -> bool {
    let mut readers = plan.nodes.iter().filter(|node| node.inputs.contains(&feature)).peekable();
    readers.peek().is_some() && readers.all(|node| matches!(node.op, Op::Lookup { at: LookupTime::EventTime { .. }, .. }))
}

fn all_columns(plan: &Plan, node: NodeId) -> Vec<usize> {
    (0..plan.node(node).schema.fields().len()).collect()
}
