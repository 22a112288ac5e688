//! A running pipeline. `start` opens connectors, restores state and starts the threads; the handle reads, waits and stops.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::{
    Blobs, ClockKind, Connectors, Control, Error, NodeId, Op, Plan, Reader, Replay, Result, SHARDS, ViewKind, fingerprint, hash_bytes, runs_schema,
    versions_schema,
};

use crate::bridge::{
    Around, Buried, DeadLetterBox, Decisions, EngineReader, FeatureStore, Ingest, Pace, Positions, Progress, QuestionTimes, Questions, Replayer,
    Routes, Running, Scorers, SinkPlace, SinkThread, SourceInput, Tickets, Times, ViewLog, Watermarks, dead_letter_schema, sources_of_views,
    start_workers, with_columns_of_today,
};
use crate::checkpoint::{Checkpointer, LocalBlobs, Manifest, Place};
use crate::config::{EngineConfig, StepCut};
use crate::edge::decode;
use crate::metrics::Metrics;
use crate::operators::error_schema;
use crate::render::{Shared, error_view};
use crate::worker::Restore;

/// One pipeline: ingest thread, workers, sink threads, and what readers share.
pub struct Engine {
    reader: Arc<EngineReader>,
    replayer: Arc<Replayer>,
    metrics: Arc<Metrics>,
    questions: Arc<Questions>,
    sinks: Arc<Vec<SinkThread>>,
    running: Option<Running>,
    /// Held as long as the pipeline runs, so that no other process writes the same state.
    _lock: Option<File>,
}

impl Engine {
    /// Starts the pipeline, from the newest checkpoint in the data directory if there is one.
    ///
    /// Errors: Invalid (a source that cannot be opened, a data directory of another plan), Data (a broken checkpoint), Unavailable.
    pub fn start(plan: Plan, config: EngineConfig, connectors: &dyn Connectors) -> Result<Engine> {
        Engine::start_with(plan, config, connectors, None)
    }

    /// As `start`, with a control plane that takes decisions and brings versions of models.
    pub fn start_with(plan: Plan, config: EngineConfig, connectors: &dyn Connectors, control: Option<Box<dyn Control>>) -> Result<Engine> {
        plan.validate()?;
        check_one_step(&plan, &config, control.is_some())?;
        let workers = config.workers.max(1);
        if workers > SHARDS {
            return Err(Error::invalid(format!(
                "{workers} workers are too many: state is cut into {SHARDS} shards, so at most {SHARDS} workers have work"
            )));
        }
        let lock = config.data_dir.as_deref().map(lock_folder).transpose()?;
        let plan = Arc::new(plan);
        let names: Arc<[String]> = plan.sources.iter().map(|source| source.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names));
        let progress = Arc::new(Progress::new(&plan, config.history_ms));
        let stores = open_stores(&plan)?;
        let logs = open_logs(&plan)?;
        let (blobs, checkpointer, restore) = open_checkpoints(&plan, &config)?;
        if let Some(restore) = &restore {
            restore_logs(&logs, restore)?;
        }
        let positions = Arc::new(Positions::default());
        let watermarks = Arc::new(Watermarks::new(plan.sources.len()));
        let times = Times { watermarks: watermarks.clone(), progress: progress.clone(), closes: closes_windows(&plan) };
        let around = Around { clock: plan.clock, metrics: metrics.clone(), positions: positions.clone(), from: None, until: config.until, times };
        let (sources, buried) = open_sources(&plan, &config, connectors, &logs, around, restore.as_ref())?;
        let sinks = Arc::new(open_sinks(&plan, connectors, &metrics, checkpointer.is_none(), restore.as_ref())?);
        let routes = Arc::new(Routes::new(plan.models.len()));
        let view_sources = sources_of_views(&plan);
        let questions = Arc::new(Questions::new(&plan));
        let durable = checkpointer.is_some();
        let last = restore.as_ref().map(|restore| restore.manifest.epoch);
        let reader = Arc::new(EngineReader {
            plan: plan.clone(),
            progress: progress.clone(),
            positions,
            metrics: metrics.clone(),
            stores: stores.clone(),
            logs: logs.clone(),
            sinks: sinks.clone(),
            routes: routes.clone(),
            workers,
            durable,
            resumed: restore.as_ref().map(|restore| (restore.manifest.epoch, restore.manifest.events)),
            view_sources,
        });
        let decisions = Decisions::open(control, routes.clone(), reader.clone(), logs.clone(), last)?;
        let shared = Arc::new(Shared {
            plan: plan.clone(),
            progress: progress.clone(),
            stores: stores.clone(),
            logs: logs.clone(),
            sinks: sinks.iter().map(SinkThread::queue).collect(),
            routes: routes.clone(),
            metrics: metrics.clone(),
            questions: questions.clone(),
            scorers: plan.nodes.iter().any(|node| matches!(node.op, Op::Predict { .. })).then(|| Scorers::start(workers)).transpose()?,
            source_names: names.clone(),
            watermarks,
        });
        let (guards, commands) = start_workers(workers, shared, metrics.clone(), restore.clone())?;
        let pace = Pace::new(progress.clone(), metrics.clone(), sinks.clone(), config.events_per_second);
        if let Some(restore) = &restore {
            // Everything up to the checkpoint is complete and was restored before the workers were ready: readers need not wait for a step.
            progress.resume(restore.manifest.epoch.next());
            metrics.events.store(restore.manifest.events, std::sync::atomic::Ordering::Relaxed);
            metrics.epoch.store(restore.manifest.epoch.0, std::sync::atomic::Ordering::Relaxed);
        }
        if let Some(journal) = &config.journal {
            journal.resumed(restore.as_ref().map_or(0, |restore| restore.manifest.events));
        }
        let tickets = match plan.clock {
            ClockKind::Event => None,
            ClockKind::Wall => Some(Tickets::open(last, blobs)?),
        };
        let replayer = Arc::new(Replayer::new((plan.clock, config.frozen), buried, connectors.shared(), metrics.clone()));
        let ingest = Ingest {
            clock: plan.clock,
            config,
            sources,
            workers: commands,
            metrics: metrics.clone(),
            sinks: sinks.clone(),
            logs: logs.values().cloned().collect(),
            decisions,
            checkpointer,
            last,
            pace,
            checkpointed: Instant::now(),
            taken: Instant::now(),
            store: Default::default(),
            tickets,
        };
        Ok(Engine { reader, replayer, metrics, questions, sinks, running: Some(Running::start(ingest, guards)?), _lock: lock })
    }

    /// Reads from any thread, also after the sources have ended.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.reader.clone()
    }

    /// Lets dead letters come in again, from any thread.
    pub fn replayer(&self) -> Arc<dyn Replay> {
        self.replayer.clone()
    }

    /// How many rows each lookup at a column has answered, and for how many that was not their epoch (T5): of the rows that are there now.
    pub fn question_times(&self) -> Vec<QuestionTimes> {
        self.questions.times()
    }

    /// Blocks until every source has ended and every view is complete, or the pipeline has failed.
    /// Errors: what it failed with; Data for a record under bad_data = 'fail'.
    pub fn wait(&self) -> Result<()> {
        while !self.wait_timeout(Duration::from_secs(3600))? {
            if self.has_stopped() {
                return Err(Error::unavailable("the pipeline was stopped before its sources ended"));
            }
        }
        Ok(())
    }

    /// As `wait`, for at most this long; true if the pipeline has finished.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(error) = self.metrics.failure() {
                return Err(error);
            }
            if self.metrics.finished.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.has_stopped() {
                return Ok(false);
            }
            self.metrics.wait(left.min(Duration::from_millis(50)));
        }
    }

    fn has_stopped(&self) -> bool {
        self.running.as_ref().is_none_or(Running::is_finished)
    }

    /// Stops the sources, closes the open step and takes a checkpoint, as `shutdown` does, but what was true then can be read until then.
    /// Errors: what the pipeline failed with.
    pub fn halt(&self) -> Result<()> {
        self.metrics.request_stop();
        while !self.has_stopped() && self.metrics.failure().is_none() {
            self.metrics.wait(Duration::from_millis(5));
        }
        self.metrics.failure().map_or(Ok(()), Err)
    }

    /// Stops the sources, closes the open step, takes a checkpoint, flushes the sinks and ends the threads.
    /// Errors: what the pipeline failed with.
    pub fn shutdown(mut self) -> Result<()> {
        self.metrics.request_stop();
        let Some(running) = self.running.take() else { return Ok(()) };
        let failure = || self.metrics.failure();
        running.join(|| failure().is_some())?;
        self.sinks.iter().for_each(SinkThread::stop);
        failure().map_or(Ok(()), Err)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.metrics.request_stop();
        if let Some(running) = self.running.take() {
            let _ = running.join(|| self.metrics.failure().is_some());
        }
    }
}

/// A lookup at another time than the row's own may ask for what comes after the row, so there must be one step and nothing before it.
fn check_one_step(plan: &Plan, config: &EngineConfig, decides: bool) -> Result<()> {
    let one_step = plan.clock == ClockKind::Event && config.cut == StepCut::All && config.data_dir.is_none() && !decides;
    if plan.needs_whole_input() && !one_step {
        return Err(Error::internal(
            "a lookup in hindsight or at a column needs the whole input in one step: clock = 'event', StepCut::All, no data directory and no \
             control plane",
        ));
    }
    Ok(())
}

/// Takes the data directory for this process. Errors: Invalid if another one has it, Unavailable if it cannot be made.
fn lock_folder(folder: &Path) -> Result<File> {
    let failed = |error: std::io::Error| Error::unavailable(format!("cannot use the data directory {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join("lock");
    let mut file = File::options().create(true).read(true).write(true).truncate(false).open(&path).map_err(failed)?;
    if file.try_lock().is_err() {
        let holder = std::fs::read_to_string(&path).unwrap_or_default();
        return Err(Error::invalid(format!(
            "the data directory {} is in use by process {}; stop it or use another data directory",
            folder.display(),
            holder.trim()
        )));
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
    Ok(file)
}

/// Whether some view waits for its windows to close.
fn closes_windows(plan: &Plan) -> bool {
    plan.nodes.iter().any(|node| matches!(node.op, Op::Gate { .. } | Op::EmitOnClose { .. }))
}

fn open_stores(plan: &Plan) -> Result<BTreeMap<NodeId, Arc<FeatureStore>>> {
    let mut stores = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        if let Op::Feature { spec, .. } = &node.op {
            let id = NodeId(index as u32);
            let name = plan.views.iter().find(|view| view.node == id).map_or_else(|| format!("n{index}"), |view| view.name.clone());
            let input = plan.node(node.inputs[0]);
            stores.insert(id, Arc::new(FeatureStore::new(name, spec.clone(), (&input.schema, input.append_only), &node.schema, plan.clock)?));
        }
    }
    Ok(stores)
}

fn open_logs(plan: &Plan) -> Result<BTreeMap<String, Arc<ViewLog>>> {
    let mut logs = BTreeMap::new();
    let mut add = |name: String, schema, append_only| -> Result<()> {
        logs.insert(name.clone(), Arc::new(ViewLog::new(name, schema, append_only)?));
        Ok(())
    };
    for view in &plan.views {
        if view.kind == ViewKind::Materialized {
            add(view.name.clone(), view.schema.clone(), plan.node(view.node).append_only)?;
        }
        add(error_view(&view.name), error_schema(), false)?;
    }
    for node in &plan.nodes {
        if let Op::Gate { view, .. } = &node.op {
            add(format!("late({view})"), error_schema(), false)?;
        }
    }
    for source in &plan.sources {
        add(format!("late({})", source.name), source.schema.clone(), source.format == freshet_core::Format::Plain)?;
    }
    for job in &plan.retraining {
        add(format!("runs({})", job.name), runs_schema(), true)?;
    }
    for model in &plan.models {
        add(format!("versions({})", model.name), versions_schema(), true)?;
    }
    for source in &plan.sources {
        // A letter whose record comes in again leaves.
        let name = format!("dead_letters({})", source.name);
        logs.insert(name.clone(), Arc::new(ViewLog::new(name, dead_letter_schema(), false)?.joining()));
    }
    Ok(logs)
}

type Checkpoints = (Option<Arc<dyn Blobs>>, Option<Checkpointer>, Option<Restore>);

fn open_checkpoints(plan: &Plan, config: &EngineConfig) -> Result<Checkpoints> {
    let Some(folder) = &config.data_dir else { return Ok((None, None, None)) };
    let blobs: Arc<dyn Blobs> = Arc::new(LocalBlobs::open(&folder.join("checkpoints"))?);
    let fingerprint = format!("{:016x}", fingerprint(plan));
    let manifest = Manifest::newest(blobs.as_ref(), &fingerprint)?;
    let restore = manifest.clone().map(|manifest| {
        let blobs = blobs.clone();
        let fetch = move |place: &Place| {
            let bytes = blobs.get_range(&place.blob, place.offset, place.len)?;
            if hash_bytes(&bytes) != place.hash {
                return Err(Error::data(format!(
                    "checkpoint file {} is damaged at byte {}; delete the data directory to begin anew",
                    place.blob, place.offset
                )));
            }
            Ok(bytes)
        };
        Restore { manifest, fetch: Arc::new(fetch) }
    });
    Ok((Some(blobs.clone()), Some(Checkpointer::new(blobs, fingerprint, manifest)), restore))
}

/// Late rows and dead letters were logged as they were read, perhaps beyond the checkpoint; those come again.
fn restore_logs(logs: &BTreeMap<String, Arc<ViewLog>>, restore: &Restore) -> Result<()> {
    for (name, state) in &restore.manifest.logs {
        let Some(log) = logs.get(name) else { continue };
        let mut batches = Vec::new();
        for (id, place) in &state.batches {
            if let Some(batch) = decode(&(restore.fetch)(place)?) {
                let batch = if name.starts_with("dead_letters(") { with_columns_of_today(&batch) } else { batch.with_schema(&log.schema) };
                let kept = (0..batch.len()).map(|row| Some(batch.epoch(row) <= restore.manifest.epoch)).collect();
                batches.push((*id, batch.filter(&kept)));
            }
        }
        log.restore(batches, state.compacted);
    }
    Ok(())
}

fn open_sinks(
    plan: &Plan,
    connectors: &dyn Connectors,
    metrics: &Arc<Metrics>,
    flush_themselves: bool,
    restore: Option<&Restore>,
) -> Result<Vec<SinkThread>> {
    let mut places = Vec::new();
    for def in &plan.sinks {
        let position = restore.and_then(|restore| restore.manifest.sinks.get(&def.name).copied()).unwrap_or(0);
        places.push(SinkPlace::open(def, position, connectors)?);
    }
    let start = |(index, place)| SinkThread::start(index, place, metrics.clone(), plan.clock, flush_themselves);
    Ok(places.into_iter().enumerate().map(start).collect())
}

fn open_sources(
    plan: &Plan,
    config: &EngineConfig,
    connectors: &dyn Connectors,
    logs: &BTreeMap<String, Arc<ViewLog>>,
    around: Around,
    restore: Option<&Restore>,
) -> Result<(Vec<SourceInput>, Vec<Buried>)> {
    let (mut sources, mut buried) = (Vec::new(), Vec::new());
    for (index, def) in plan.sources.iter().enumerate() {
        let log = |kind: &str| logs[&format!("{kind}({})", def.name)].clone();
        let (letters, slot) = DeadLetterBox::open(def, index, log("dead_letters"), around.metrics.clone());
        buried.push(Buried { def: def.clone(), log: log("dead_letters"), slot });
        let around = Around { from: config.from.get(&def.name).copied(), ..around.clone() };
        let mut input = SourceInput::new(index, def.clone(), around, log("late"), letters);
        if let Some(restore) = restore
            && let Some(state) = restore.manifest.sources.get(&def.name)
        {
            let held = restore.manifest.held.get(&def.name).map(|place| (restore.fetch)(place)).transpose()?;
            let held = held.and_then(|bytes| decode(&bytes)).map(|held| held.with_schema(&def.schema));
            input.restore(state, held.as_ref(), restore.manifest.epoch);
        }
        input.open(connectors)?;
        sources.push(input);
    }
    Ok((sources, buried))
}
