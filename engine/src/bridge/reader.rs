//! Reads of a running pipeline, from any thread. In: names or keys and an instant. Out: answers that are all true at that one instant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use freshet_core::{
    CatalogService, CatalogView, ClockKind, Epoch, Error, EventTime, FeatureAnswer, FeatureRequest, JobStatus, ModelStatus, NodeId, ObjectState, Op,
    OperatorStatus, PipelineStatus, Plan, ReadMode, ReadPoint, Reader, Result, ServiceColumn, ServiceDef, SinkStatus, Snapshot, State, Status,
    SubscribeRequest, Subscription, ViewKind, ViewStatus,
};

use crate::bridge::pace::OPEN_STEPS_MAX;
use crate::bridge::{
    FeatureRows, FeatureStore, Feed, Follower, Positions, Progress, ReadError, Routes, SinkThread, ViewLog, incomplete, machine_now,
};
use crate::metrics::Metrics;
use crate::render::error_view;

/// How often a read takes a newer instant because the stores have folded beyond its own; each try is microseconds, a step milliseconds.
const READ_TRIES: usize = 100;

pub struct EngineReader {
    pub plan: Arc<Plan>,
    pub progress: Arc<Progress>,
    pub positions: Arc<Positions>,
    pub metrics: Arc<Metrics>,
    pub stores: BTreeMap<NodeId, Arc<FeatureStore>>,
    /// By readable name.
    pub logs: BTreeMap<String, Arc<ViewLog>>,
    pub sinks: Arc<Vec<SinkThread>>,
    pub routes: Arc<Routes>,
    pub workers: usize,
    pub durable: bool,
    /// Epoch and events of the checkpoint this generation went on from.
    pub resumed: Option<(Epoch, u64)>,
    /// Sources, by index, that each view depends on.
    pub view_sources: Vec<Vec<usize>>,
}

/// What a name stands for.
enum Named<'a> {
    Log(&'a ViewLog),
    Store(NodeId, &'a FeatureStore),
}

impl EngineReader {
    /// The content behind a name, and which view's progress rules it (None: that of all).
    fn named(&self, name: &str) -> Result<(Named<'_>, Option<usize>)> {
        if let Some(index) = self.plan.views.iter().position(|view| view.name == name || error_view(&view.name) == name) {
            let node = self.plan.views[index].node;
            return Ok(match self.logs.get(name) {
                Some(log) => (Named::Log(log), Some(index)),
                None => (Named::Store(node, &self.stores[&node]), Some(index)),
            });
        }
        match self.logs.get(name) {
            Some(log) => Ok((Named::Log(log), None)),
            None => {
                let names = self.logs.keys().map(String::as_str).chain(self.plan.views.iter().map(|view| view.name.as_str()));
                let known: Vec<&str> = names.collect();
                Err(Error::invalid(format!("there is no view {name}; there are: {}", known.join(", "))))
            }
        }
    }

    fn frontier_of(&self, names: &[&str]) -> Result<Epoch> {
        let mut least = Epoch::MAX;
        for name in names {
            let (_, view) = self.named(name)?;
            least = least.min(view.map_or_else(|| self.progress.settled(), |view| self.progress.frontier(view)));
        }
        Ok(if names.is_empty() { self.progress.settled() } else { least })
    }

    fn request_time(&self, frontier: Epoch) -> Epoch {
        match self.plan.clock {
            ClockKind::Event => frontier,
            // The clock that tickets follow: it does not jump when the machine's does (T0c), and never stands before a ticket that was issued,
            // so who has waited for a position sees it at once, also in the millisecond of its ticket.
            ClockKind::Wall => Epoch(machine_now().0.saturating_add_signed(self.metrics.clock_offset_ms.load(Relaxed))).max(frontier),
        }
    }

    fn point(&self, mode: ReadMode, views: &[&str]) -> Result<ReadPoint> {
        let mut frontier = self.frontier_of(views)?;
        let include_now = views.iter().any(|view| matches!(self.named(view), Ok((Named::Store(_, store), _)) if store.spec().include_now()));
        if include_now {
            // Such a view is complete at t only once all of t has arrived (T1).
            frontier = Epoch(frontier.0.saturating_sub(1));
        }
        if frontier == Epoch::ZERO {
            return Err(Error::unavailable("no epoch is complete yet; try again in a moment"));
        }
        let now = self.request_time(frontier);
        Ok(match mode {
            ReadMode::Fresh => ReadPoint::at(now.min(frontier)),
            ReadMode::RequestTime => ReadPoint { q: now, s: frontier },
            ReadMode::Consistent => {
                ReadPoint { q: self.watermark(views, frontier).map_or(frontier, |watermark| watermark.min(frontier)), s: frontier }
            }
            ReadMode::AsOf(epoch) if epoch > frontier => {
                return Err(Error::invalid(format!("epoch {epoch} is not complete yet; the newest instant is {frontier}")));
            }
            ReadMode::AsOf(epoch) => ReadPoint::at(epoch),
        })
    }

    /// The least watermark of the views' sources that have not ended, after the epochs below `frontier` (T12, T15).
    fn watermark(&self, views: &[&str], frontier: Epoch) -> Option<Epoch> {
        let sources = views.iter().filter_map(|view| self.named(view).ok()?.1).flat_map(|view| self.view_sources[view].iter().copied());
        sources.filter_map(|source| self.metrics.watermark_at(source, frontier)).min()
    }

    fn sources_of(&self, view: &str) -> &[usize] {
        let index = self.plan.views.iter().position(|def| def.name == view);
        index.map_or(&[], |index| &self.view_sources[index])
    }

    fn snapshot_at(&self, views: &[&str], point: ReadPoint) -> Result<Vec<Vec<RecordBatch>>, ReadError> {
        let mut found = Vec::new();
        for name in views {
            let (named, _) = self.named(name).map_err(ReadError::Failed)?;
            found.push(match named {
                Named::Log(log) => log.snapshot(point.s).map_err(|kept| ReadError::Folded(crate::bridge::Folded(kept)))?,
                Named::Store(node, store) => {
                    // Content at epoch t is T1 at (t + 1, t + 1), or at (t, t) with include_now.
                    let at = if store.spec().include_now() { ReadPoint::at(Epoch(point.s.0 - 1)) } else { point };
                    vec![store.scan(&self.plan.node(node).schema, at)?]
                }
            });
        }
        Ok(found)
    }

    fn service(&self, name: &str) -> Result<&ServiceDef> {
        self.plan.service(name).ok_or_else(|| {
            let known: Vec<&str> = self.plan.services.iter().map(|service| service.name.as_str()).collect();
            Error::invalid(format!("there is no feature service {name}; there are: {}", known.join(", ")))
        })
    }

    fn features_at(&self, service: &ServiceDef, request: &FeatureRequest, point: ReadPoint) -> Result<FeatureAnswer, ReadError> {
        let mut parts = Vec::new();
        for part in &service.parts {
            let view = self.plan.view(&part.view).ok_or_else(|| ReadError::Failed(Error::internal(format!("service part {} is gone", part.view))))?;
            let store = &self.stores[&view.node];
            let entity = part.entity.iter().map(|field| column_named(&request.rows, field)).collect::<Result<Vec<_>>>().map_err(ReadError::Failed)?;
            let keys = store.encode_keys(&entity).map_err(ReadError::Failed)?;
            let mut rows = store.read(&entity, &keys, false, |_| point)?;
            if let Some(since) = self.metrics.complete_since(self.sources_of(&part.view)) {
                rows.incomplete = incomplete(store.spec(), point.q, since);
            }
            parts.push((entity, rows));
        }
        compose(service, request, &parts, point).map_err(ReadError::Failed)
    }

    fn model_status(&self, index: usize, name: &str) -> ModelStatus {
        let (live, versions) = self.routes.summary(index);
        let (rows, errors) = self.metrics.scored_by(index);
        ModelStatus { name: name.to_string(), state: self.state_of(true, None), live, versions, rows, errors }
    }

    /// From the rows of `runs(job)`: a job has few.
    fn job_status(&self, name: &str) -> JobStatus {
        let batches = self.logs.get(&format!("runs({name})")).and_then(|log| log.snapshot(Epoch::MAX).ok()).unwrap_or_default();
        let promoted = |batch: &RecordBatch| {
            let results = batch.column_by_name("result").map(|column| column.as_string::<i32>().clone());
            results.iter().flatten().filter(|result| *result == Some("promoted")).count() as u64
        };
        let running = self.metrics.jobs_running().get(name).copied();
        JobStatus {
            name: name.to_string(),
            state: self.state_of(true, None),
            runs: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            promoted: batches.iter().map(promoted).sum(),
            running,
        }
    }

    /// The state of what lives and ends with the pipeline.
    fn state_of(&self, begun: bool, progress: Option<Epoch>) -> ObjectState {
        let (state, since) = self.metrics.shown(begun);
        let reason = self.metrics.failure().map(|error| error.message).filter(|_| state == State::Failed);
        ObjectState { state, reason, since, progress }
    }

    fn durable_epoch(&self) -> Option<Epoch> {
        self.durable.then(|| self.metrics.checkpoint().map(|(epoch, _, _)| epoch)).flatten()
    }
}

/// The column of this name, in the type asked for. Errors: Invalid, naming the column.
fn column_named(rows: &RecordBatch, field: &Field) -> Result<ArrayRef> {
    let column = rows.column_by_name(field.name()).ok_or_else(|| {
        let schema = rows.schema();
        let found: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::invalid(format!("column {} ({}) is missing; the request has: {}", field.name(), field.data_type(), found.join(", ")))
    })?;
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(column, field.data_type(), &options)
        .map_err(|error| Error::invalid(format!("column {} is {}, not {}: {error}", field.name(), column.data_type(), field.data_type())))
}

fn compose(service: &ServiceDef, request: &FeatureRequest, parts: &[(Vec<ArrayRef>, FeatureRows)], point: ReadPoint) -> Result<FeatureAnswer> {
    let rows = request.rows.num_rows();
    let (mut columns, mut statuses, mut event_times) = (Vec::new(), Vec::new(), Vec::new());
    for output in &service.output {
        let (column, status, times) = match output {
            ServiceColumn::Request { index } => {
                let column = column_named(&request.rows, &service.request[*index])?;
                let status = (0..rows).map(|row| if column.is_null(row) { Status::NullValue } else { Status::Present }).collect();
                (column, status, vec![None; rows])
            }
            ServiceColumn::Feature { part, column } => {
                let (entity, found) = &parts[*part];
                match column.checked_sub(entity.len()) {
                    None => (entity[*column].clone(), found.statuses.clone(), found.event_times.clone()),
                    Some(feature) => feature_column(found, feature),
                }
            }
        };
        columns.push(column);
        statuses.push(status);
        event_times.push(times);
    }
    let columns = columns.iter().zip(service.schema.fields()).map(|(column, field)| Ok(cast(column, field.data_type())?)).collect::<Result<_>>()?;
    let nullable = service.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let features = RecordBatch::try_new_with_options(Arc::new(Schema::new(nullable)), columns, &options)?;
    Ok(FeatureAnswer { features, statuses, event_times, point, durable_epoch: None })
}

fn feature_column(found: &FeatureRows, feature: usize) -> (ArrayRef, Vec<Status>, Vec<Option<EventTime>>) {
    let column = found.columns[feature].clone();
    let mut statuses: Vec<Status> = found
        .statuses
        .iter()
        .enumerate()
        .map(|(row, status)| if *status == Status::Present && column.is_null(row) { Status::NullValue } else { *status })
        .collect();
    if found.incomplete.get(feature) == Some(&true) {
        // The value stays; whose key is unknown or too old says so, which is worse.
        statuses.iter_mut().filter(|status| matches!(status, Status::Present | Status::NullValue)).for_each(|status| *status = Status::Incomplete);
    }
    for (row, failed, _) in &found.errors {
        if *failed == feature {
            statuses[*row] = Status::Error;
        }
    }
    (column, statuses, found.event_times.clone())
}

impl Reader for EngineReader {
    fn views(&self) -> Vec<CatalogView> {
        let mut views: Vec<CatalogView> = self
            .plan
            .views
            .iter()
            .map(|view| CatalogView {
                name: view.name.clone(),
                schema: view.schema.clone(),
                kind: if view.kind == ViewKind::Feature { "FEATURE VIEW" } else { "VIEW" },
                entity: view.entity.clone(),
            })
            .collect();
        for (name, log) in self.logs.iter().filter(|(name, _)| self.plan.view(name).is_none()) {
            let kind = match name {
                name if name.starts_with("errors(") => "ERRORS",
                name if name.starts_with("late(") => "LATE",
                name if name.starts_with("runs(") => "RUNS",
                name if name.starts_with("versions(") => "VERSIONS",
                _ => "DEAD LETTERS",
            };
            views.push(CatalogView { name: name.clone(), schema: log.schema.clone(), kind, entity: Vec::new() });
        }
        views
    }

    fn services(&self) -> Vec<CatalogService> {
        let input = |service: &ServiceDef| {
            let mut fields: Vec<Field> = Vec::new();
            for field in service.parts.iter().flat_map(|part| &part.entity).chain(&service.request) {
                if !fields.iter().any(|known| known.name() == field.name()) {
                    fields.push(field.clone());
                }
            }
            Arc::new(Schema::new(fields))
        };
        self.plan.services.iter().map(|service| CatalogService { def: service.clone(), input: input(service) }).collect()
    }

    fn sources(&self) -> Vec<(String, SchemaRef)> {
        self.plan.sources.iter().map(|source| (source.name.clone(), source.schema.clone())).collect()
    }

    fn frontier(&self, views: &[&str]) -> Result<Epoch> {
        self.frontier_of(views)
    }

    fn snapshot(&self, views: &[&str], as_of: Option<Epoch>) -> Result<Snapshot> {
        for _ in 0..READ_TRIES {
            let frontier = self.frontier_of(views)?;
            if frontier == Epoch::ZERO {
                return Err(Error::unavailable("no epoch is complete yet; try again in a moment"));
            }
            let point = match as_of {
                None => ReadPoint::at(frontier),
                Some(epoch) if epoch >= frontier => {
                    return Err(Error::invalid(format!("epoch {epoch} is not complete yet; the last complete one is {}", frontier.0 - 1)));
                }
                Some(epoch) => ReadPoint::at(epoch.next()),
            };
            match self.snapshot_at(views, point) {
                Ok(views) => return Ok(Snapshot { point, views, durable_epoch: self.durable_epoch() }),
                Err(ReadError::Failed(error)) => return Err(error),
                Err(ReadError::Folded(folded)) if as_of.is_some() => {
                    let earliest = folded.0.0.saturating_sub(1);
                    return Err(Error::invalid(format!("the history of these views begins at epoch {earliest}; as_of must not be earlier")));
                }
                Err(ReadError::Folded(_)) => {}
            }
        }
        Err(Error::unavailable("the pipeline moves too fast for this read; try again"))
    }

    fn features(&self, request: &FeatureRequest) -> Result<FeatureAnswer> {
        let service = self.service(&request.service)?;
        let views: Vec<&str> = service.parts.iter().map(|part| part.view.as_str()).collect();
        for _ in 0..READ_TRIES {
            let point = self.point(request.mode, &views)?;
            match self.features_at(service, request, point) {
                Ok(answer) => return Ok(FeatureAnswer { durable_epoch: self.durable_epoch(), ..answer }),
                Err(ReadError::Failed(error)) => return Err(error),
                Err(ReadError::Folded(folded)) if matches!(request.mode, ReadMode::AsOf(_)) => {
                    return Err(Error::invalid(format!("the history of these features begins at epoch {}; as_of must not be earlier", folded.0)));
                }
                Err(ReadError::Folded(_)) => {}
            }
        }
        Err(Error::unavailable("the pipeline moves too fast for this read; try again"))
    }

    fn reached(&self, source: &str, partition: u32, offset: u64) -> Result<Option<Epoch>> {
        let index = self.plan.sources.iter().position(|def| def.name == source).ok_or_else(|| {
            let known: Vec<&str> = self.plan.sources.iter().map(|def| def.name.as_str()).collect();
            Error::invalid(format!("there is no source {source}; there are: {}", known.join(", ")))
        })?;
        Ok(self.positions.reached(index, partition, offset))
    }

    fn subscribe(&self, request: &SubscribeRequest) -> Result<Box<dyn Subscription>> {
        let (named, index) = self.named(&request.view)?;
        let Named::Log(log) = named else {
            return Err(Error::invalid(format!(
                "feature view {} changes with time alone, so its changes are not told; look features up, or subscribe to a materialized view",
                request.view
            )));
        };
        let frontier = self.frontier_of(&[&request.view])?;
        let told = match request.as_of {
            Some(epoch) if epoch >= frontier => {
                let last = frontier.0.saturating_sub(1);
                return Err(Error::invalid(format!("epoch {epoch} is not complete yet; the last complete one is {last}")));
            }
            Some(epoch) => epoch.next(),
            None => frontier,
        };
        if let Some(up_to) = request.up_to.filter(|up_to| *up_to <= told) {
            return Err(Error::invalid(format!("up to {up_to} ends before it begins: the content is that of epoch {}", told.0.saturating_sub(1))));
        }
        let feed = Arc::new(Feed::default());
        let content = log.follow(told, &feed).map_err(|kept| {
            let earliest = kept.0.saturating_sub(1);
            Error::invalid(format!("the history of view {} begins at epoch {earliest}; as_of must not be earlier", request.view))
        })?;
        Ok(Box::new(Follower {
            view: request.view.clone(),
            reader: request.reader.clone(),
            feed,
            content: content.filter(|_| request.snapshot),
            pending: Vec::new(),
            told,
            up_to: request.up_to,
            progress: self.progress.clone(),
            index,
            metrics: self.metrics.clone(),
            ended: false,
        }))
    }

    fn status(&self) -> PipelineStatus {
        let epoch = Epoch(self.metrics.epoch.load(Relaxed));
        let finished = self.metrics.finished.load(Relaxed);
        // In wall clock time goes on, whether it is handed out or not.
        let now = if self.plan.clock == ClockKind::Wall && !finished { epoch.max(machine_now()) } else { epoch };
        let view = |index: usize, view: &freshet_core::ViewDef| {
            let frontier = self.progress.frontier(index);
            let closed = (frontier > Epoch::ZERO).then(|| Epoch(frontier.0 - 1));
            let count = |name: &str| self.logs.get(name).map_or(0, |log| log.rows());
            ViewStatus {
                name: view.name.clone(),
                state: self.state_of(closed.is_some(), self.progress.moved(index)),
                closed,
                lag_ms: closed.map_or(0, |closed| now.0.saturating_sub(closed.0)),
                rows: self.stores.get(&view.node).map_or_else(|| count(&view.name), |store| store.keys()),
                errors: count(&error_view(&view.name)),
            }
        };
        let sink = |index: usize, sink: &SinkThread| {
            let (rows, state) = self.metrics.of_sink(index);
            let (lag_rows, lag_ms) = sink.lag();
            SinkStatus { name: sink.name.clone(), state, rows, lag_rows, lag_ms, queue_depth: sink.depth(), queue_limit: sink.depth_max() }
        };
        let checkpoint = self.metrics.checkpoint();
        PipelineStatus {
            clock: if self.plan.clock == ClockKind::Event { "event" } else { "wall" },
            workers: self.workers,
            finished,
            failure: self.metrics.failure().map(|error| error.to_string()),
            epoch,
            clock_jumps: self.metrics.clock_jumps.load(Relaxed),
            clock_offset_ms: self.metrics.clock_offset_ms.load(Relaxed),
            events: self.metrics.events.load(Relaxed),
            resumed: self.resumed,
            sources: self.metrics.sources(),
            views: self.plan.views.iter().enumerate().map(|(index, def)| view(index, def)).collect(),
            operators: self.metrics.operators().into_iter().map(|(name, (rows, bytes))| OperatorStatus { name, rows, bytes }).collect(),
            sinks: self.sinks.iter().enumerate().map(|(index, thread)| sink(index, thread)).collect(),
            models: self.plan.models.iter().enumerate().map(|(index, def)| self.model_status(index, &def.name)).collect(),
            jobs: self.plan.retraining.iter().map(|job| self.job_status(&job.name)).collect(),
            queue_depth: self.metrics.open_steps.load(Relaxed),
            queue_limit: OPEN_STEPS_MAX as u64,
            checkpoint_epoch: checkpoint.map(|(epoch, _, _)| epoch),
            checkpoint_age_ms: checkpoint.map(|(_, age, _)| age.max(Duration::ZERO).as_millis() as u64),
            checkpoint_bytes: checkpoint.map_or(0, |(_, _, bytes)| bytes),
            checkpoints: self.metrics.checkpoints(),
            checkpointing: self.metrics.checkpointing.load(Relaxed),
        }
    }
}

/// The sources each view depends on.
pub fn sources_of_views(plan: &Plan) -> Vec<Vec<usize>> {
    let mut of_node: Vec<Vec<usize>> = Vec::new();
    for node in &plan.nodes {
        let mut sources: Vec<usize> = match node.op {
            Op::Source { source } => vec![source],
            _ => node.inputs.iter().flat_map(|input| of_node[input.index()].clone()).collect(),
        };
        sources.sort_unstable();
        sources.dedup();
        of_node.push(sources);
    }
    plan.views.iter().map(|view| of_node[view.node.index()].clone()).collect()
}
