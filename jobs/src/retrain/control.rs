//! The control plane of a pipeline (C6): decides at points of logical time, runs jobs on threads, and turns their ends into control records
//! and rows, in the order of epochs. In: what readers see below a point, and the journal. Out: records that are the same in every life.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use freshet_core::{Control, ControlOutput, ControlRecord, Epoch, Error, Model, Reader, Reference, Result, fingerprint};
use freshet_inference::{CreatedBy, Registration, Registry, RunLineage, TrainingLineage};

use crate::progress::print_apart;
use crate::retrain::alarms::alarms;
use crate::retrain::journal::{RunRecord, RunResult, run_id, unavailable};
use crate::retrain::report::line;
use crate::retrain::rows::{run_row, version_row};
use crate::retrain::runner::{Champion, METRICS, MODEL, REFERENCE, Runner, Workshop};
use crate::retrain::saga::{self, Ended, Step};
use crate::retrain::schedule::{Event, JobState, Sight, is_point, next_point};
use crate::retrain::scoring::{Answer, Opened, ask, late};

/// How often a wait for a run looks whether it should stop.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// All jobs and models of one pipeline.
#[derive(Debug)]
pub struct Retraining {
    workshop: Arc<Workshop>,
    registry: Registry,
    pipeline: String,
    /// The first epoch of the input.
    begun: OnceLock<Epoch>,
    /// Per job of the plan.
    jobs: Vec<JobState>,
    running: Vec<Option<Running>>,
    /// Per model of the plan: the live version.
    champions: Vec<Option<Champion>>,
    /// Runs of earlier lives that this one has not come to yet.
    known: BTreeMap<String, RunRecord>,
}

/// A run on its thread.
#[derive(Debug)]
struct Running {
    epoch: Epoch,
    started: Instant,
    thread: JoinHandle<Result<Option<RunRecord>>>,
}

impl Retraining {
    /// `models` is the folder of the registry. Touches no data yet: the engine takes the data directory first.
    /// Errors: Invalid for jobs in a pipeline whose time is the machine's.
    pub fn open(workshop: Workshop, models: &Path) -> Result<Retraining> {
        let plan = workshop.plan.clone();
        if plan.clock != freshet_core::ClockKind::Event && !plan.retraining.is_empty() {
            return Err(Error::invalid("a retraining job needs SET clock = 'event': its decisions are points of event time"));
        }
        let pipeline = pipeline_hash(&workshop)?;
        Ok(Retraining {
            registry: Registry::open(models)?,
            pipeline,
            begun: OnceLock::new(),
            jobs: vec![JobState::default(); plan.retraining.len()],
            running: plan.retraining.iter().map(|_| None).collect(),
            champions: vec![None; plan.models.len()],
            known: BTreeMap::new(),
            workshop: Arc::new(workshop),
        })
    }

    /// Version 1 of every model that names a file, live from the start.
    fn register_files(&mut self, output: &mut ControlOutput) -> Result<()> {
        let plan = self.workshop.plan.clone();
        for (model, def) in plan.models.iter().enumerate() {
            let Some(from) = &def.from else { continue };
            let file = self.workshop.folder.join(from);
            let opened = self.open_model(model, &file)?.ok_or_else(|| unanswered(&file))?;
            let registration = Registration {
                created_by: CreatedBy::Script,
                metrics: BTreeMap::new(),
                batch_invariant: opened.model.batch_invariant(),
                signature: opened.signature,
                reference: Reference::default(),
            };
            let version = self.registry.register(&def.name, &file, registration)?;
            self.publish(output, model, version, Epoch::ZERO, true)?;
        }
        Ok(())
    }

    /// A version and its row; from here on it is the champion if it is promoted.
    fn publish(&mut self, output: &mut ControlOutput, model: usize, version: u32, epoch: Epoch, promoted: bool) -> Result<()> {
        let name = self.workshop.plan.models[model].name.clone();
        let champion = self.load(model, version)?;
        let info = self.registry.load_info(&name, version)?;
        let loaded: Arc<dyn Model> = champion.model.clone();
        let reference = Arc::new(self.registry.reference(&name, version)?);
        output.records.push(ControlRecord { epoch, model, version, promoted, loaded, reference });
        output.rows.push((format!("versions({name})"), version_row(&info, epoch, promoted)?));
        if promoted {
            self.champions[model] = Some(champion);
        }
        Ok(())
    }

    fn load(&self, model: usize, version: u32) -> Result<Champion> {
        let def = &self.workshop.plan.models[model];
        if let Some(champion) = self.champions[model].as_ref().filter(|champion| champion.version == version) {
            return Ok(champion.clone());
        }
        let file = self.registry.path(&def.name, version)?;
        let model = self.open_model(model, &file)?.ok_or_else(|| unanswered(&file))?.model;
        Ok(Champion { version, file, model })
    }

    /// None: the model did not answer in time.
    fn open_model(&self, model: usize, file: &Path) -> Result<Option<Opened>> {
        let (runtime, def, file) = (self.workshop.runtime.clone(), self.workshop.plan.models[model].clone(), file.to_path_buf());
        match ask(&AtomicBool::new(false), move || runtime.open(&def, &file))? {
            Answer::Given(opened) => opened.map(Some),
            Answer::Stopped | Answer::Late => Ok(None),
        }
    }

    /// The job of a run of the journal. Errors: Invalid for runs of another pipeline.
    fn job_of(&self, run: &RunRecord) -> Result<usize> {
        let job = self.workshop.plan.retraining.iter().position(|job| job.name == run.job);
        job.filter(|_| run.pipeline == self.pipeline).ok_or_else(|| {
            Error::invalid(format!(
                "the data directory holds run {} of another pipeline (the SQL has changed); delete it or use another data directory",
                run.run_id
            ))
        })
    }

    /// Each version of a run needs the run's record: without it the run would be decided on anew, and its trainer run, beside a version that
    /// may be live. A record without a result is fine: the process died between registering and writing. Errors: Data.
    fn check_lineage(&self) -> Result<()> {
        for def in &self.workshop.plan.models {
            for version in self.registry.versions(&def.name)? {
                let CreatedBy::Run(lineage) = self.registry.load_info(&def.name, version)?.created_by else { continue };
                if !self.known.contains_key(&lineage.run_id) {
                    return Err(Error::data(format!(
                        "version {version} of model {} comes from run {}, of which there is no record in {}; restore the folder of the runs, \
                         or delete the data directory to begin anew",
                        def.name,
                        lineage.run_id,
                        self.workshop.journal.folder(&lineage.run_id).display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes up the runs of earlier lives: those settled by `restored` are history, those decided by then go on, the others wait until
    /// time comes to them again.
    fn restore(&mut self, restored: Epoch, output: &mut ControlOutput) -> Result<()> {
        let mut decided = Vec::new();
        for run in self.known.values() {
            let job = self.job_of(run)?;
            if run.decided_at <= restored {
                decided.push((run.epoch, job, run.run_id.clone()));
            }
        }
        decided.sort();
        for (epoch, job, id) in decided {
            let run = self.known.remove(&id).expect("it was just found");
            let mut state = JobState { running: Some(run.decided_at), ..self.jobs[job] };
            if epoch <= restored {
                let Some(result) = run.result else {
                    return Err(Error::data(format!("run {id} has no result, but the checkpoint is behind it; delete the data directory")));
                };
                state = state.step(&self.workshop.plan.retraining[job], Event::Ended { skipped: result == RunResult::Skipped }).0;
                if let Some(version) = run.version {
                    let model = self.workshop.plan.retraining[job].model;
                    self.publish(output, model, version, epoch, result == RunResult::Promoted)?;
                }
            } else {
                self.launch(job, run)?;
            }
            self.jobs[job] = state;
        }
        Ok(())
    }

    fn launch(&mut self, job: usize, run: RunRecord) -> Result<()> {
        let model = self.workshop.plan.retraining[job].model;
        let champion = run.champion.map(|version| self.load(model, version)).transpose()?;
        let (workshop, epoch) = (self.workshop.clone(), run.epoch);
        let perform = move || {
            let definition = &workshop.plan.retraining[job];
            Runner { workshop: &workshop, job: definition, champion }.perform(run)
        };
        let thread = std::thread::Builder::new().name(format!("freshet-retrain-{job}")).spawn(perform);
        let thread = thread.map_err(|error| Error::unavailable(format!("starting a thread: {error}")))?;
        self.running[job] = Some(Running { epoch, started: Instant::now(), thread });
        Ok(())
    }

    /// The run that begins at a point: of an earlier life, or a new one.
    fn begin(&mut self, job: usize, point: Epoch, cause: String) -> Result<RunRecord> {
        let def = &self.workshop.plan.retraining[job];
        let champion = self.champions[def.model].as_ref().map(|champion| champion.version);
        let id = run_id(&def.name, point);
        if let Some(run) = self.known.remove(&id) {
            self.job_of(&run)?;
            if (&run.cause, run.champion) != (&cause, champion) {
                return Err(Error::data(format!(
                    "run {id} was decided on before for another reason ({}, now {cause}): the input has changed; delete the data directory",
                    run.cause
                )));
            }
            return Ok(run);
        }
        let run = RunRecord {
            run_id: id,
            job: def.name.clone(),
            model: self.workshop.plan.models[def.model].name.clone(),
            pipeline: self.pipeline.clone(),
            decided_at: point,
            epoch: Epoch(point.0 + def.delay_ms),
            cause,
            champion,
            data: None,
            trained: None,
            verdict: None,
            version: None,
            result: None,
            reason: None,
        };
        self.workshop.journal.write(&run)?;
        Ok(run)
    }

    /// Waits until a job's thread has ended. False: `stop` said so first, and the trainers are being killed.
    fn wait(&self, job: usize, stop: &dyn Fn() -> bool) -> bool {
        while !self.running[job].as_ref().is_none_or(|running| running.thread.is_finished()) {
            if stop() {
                self.workshop.stop.store(true, Ordering::Relaxed);
                return false;
            }
            std::thread::park_timeout(WATCH_EVERY);
        }
        true
    }

    /// What a finished thread brings. `None`: it was stopped.
    fn join(&mut self, job: usize) -> Result<Option<(RunRecord, Duration)>> {
        let Some(running) = self.running[job].take() else { return Ok(None) };
        let took = running.started.elapsed();
        let ended = running.thread.join().map_err(|_| Error::internal("the thread of a run panicked"))?;
        Ok(ended?.map(|run| (run, took)))
    }

    /// Gives a judged version its number. The same run has the same number in every life.
    fn register(&self, job: usize, run: RunRecord) -> Result<RunRecord> {
        if saga::next(&run) != Step::Register {
            return Ok(run);
        }
        let def = &self.workshop.plan.retraining[job];
        let folder = self.workshop.journal.folder(&run.run_id);
        let (data, trained) = (run.data.as_ref().expect("it was judged"), run.trained.as_ref().expect("it was judged"));
        let file = folder.join(&trained.output).join(MODEL);
        crate::retrain::files::check_unchanged(&file, &trained.model_sha256)?;
        let Some(opened) = self.open_model(def.model, &file)? else {
            let run = saga::after(run, Ended::Failed(late("model")));
            self.workshop.journal.write(&run)?;
            return Ok(run);
        };
        let path = folder.join(REFERENCE);
        let reference = fs::read(&path).map_err(|error| unavailable(&path, &error))?;
        let reference = serde_json::from_slice(&reference).map_err(|error| Error::data(format!("{} is damaged: {error}", path.display())))?;
        let training = TrainingLineage {
            training_set: self.workshop.plan.training_sets[def.training_set].name.clone(),
            rows: data.train_rows,
            from: data.train_from,
            until: data.train_until,
            sha256: data.train_sha256.clone(),
        };
        let lineage =
            RunLineage { run_id: run.run_id.clone(), job: run.job.clone(), decided_at: run.decided_at, trigger: run.cause.clone(), training };
        let registration = Registration {
            created_by: CreatedBy::Run(lineage),
            metrics: metrics(&run, &folder.join(&trained.output).join(METRICS)),
            batch_invariant: opened.model.batch_invariant(),
            signature: opened.signature,
            reference,
        };
        let version = self.registry.register(&run.model, &file, registration)?;
        let run = saga::after(run, Ended::Registered(version));
        self.workshop.journal.write(&run)?;
        Ok(run)
    }

    /// Everything that follows from the end of a run.
    fn close(&mut self, job: usize, run: RunRecord, took: Duration, output: &mut ControlOutput) -> Result<()> {
        let run = self.register(job, run)?;
        let result = run.result.expect("a run rests only with a result");
        let model = self.workshop.plan.retraining[job].model;
        output.rows.push((format!("runs({})", run.job), run_row(&run)?));
        if let Some(version) = run.version {
            self.publish(output, model, version, run.epoch, result == RunResult::Promoted)?;
        }
        let ended = Event::Ended { skipped: result == RunResult::Skipped };
        self.jobs[job] = self.jobs[job].step(&self.workshop.plan.retraining[job], ended).0;
        print_apart(&line(&run, took));
        Ok(())
    }
}

impl Control for Retraining {
    fn start(&mut self, restored: Option<Epoch>) -> Result<ControlOutput> {
        let mut output = ControlOutput::default();
        self.known = self.workshop.journal.runs()?;
        self.known.values().try_for_each(|run| self.job_of(run).map(|_| ()))?;
        self.check_lineage()?;
        self.register_files(&mut output)?;
        if let Some(restored) = restored {
            if let Some(begun) = self.workshop.journal.begun()? {
                self.begun.get_or_init(|| begun);
            }
            self.restore(restored, &mut output)?;
        }
        Ok(output)
    }

    fn next_point(&self, after: Epoch) -> Option<Epoch> {
        self.begun.get_or_init(|| {
            // If the disk is full, the first decision says so.
            let _ = self.workshop.journal.begin(after);
            after
        });
        next_point(&self.workshop.plan.retraining, after)
    }

    fn decide(&mut self, point: Epoch, reader: &dyn Reader) -> Result<ControlOutput> {
        let plan = self.workshop.plan.clone();
        let begun = *self.begun.get_or_init(|| point);
        for (job, def) in plan.retraining.iter().enumerate().filter(|(_, def)| is_point(def, point)) {
            let alarms = alarms(&plan, def, point, reader)?;
            let sight = Sight { begun, champion: self.champions[def.model].is_some(), alarms: &alarms };
            let (state, start) = self.jobs[job].step(def, Event::Point { at: point, sight });
            if let Some(start) = start {
                let run = self.begin(job, point, start.cause)?;
                self.launch(job, run)?;
            }
            self.jobs[job] = state;
        }
        Ok(ControlOutput::default())
    }

    fn pending(&self) -> Option<Epoch> {
        self.running.iter().flatten().map(|running| running.epoch).min()
    }

    fn running(&self) -> Vec<(String, Epoch)> {
        let names = self.workshop.plan.retraining.iter().map(|job| &job.name);
        names.zip(&self.jobs).filter_map(|(name, state)| Some((name.clone(), state.running?))).collect()
    }

    fn settle(&mut self, epoch: Epoch, stop: &dyn Fn() -> bool) -> Result<Option<ControlOutput>> {
        let mut output = ControlOutput::default();
        let due = |running: &Option<Running>| running.as_ref().is_some_and(|running| running.epoch <= epoch);
        let jobs: Vec<usize> = (0..self.running.len()).filter(|job| due(&self.running[*job])).collect();
        // All of them first: half of an instant is none.
        if !jobs.iter().all(|job| self.wait(*job, stop)) {
            return Ok(None);
        }
        for job in jobs {
            let Some((run, took)) = self.join(job)? else { return Ok(None) };
            self.close(job, run, took, &mut output)?;
        }
        Ok(Some(output))
    }
}

impl Drop for Retraining {
    /// No trainer outlives its pipeline.
    fn drop(&mut self) {
        self.workshop.stop.store(true, Ordering::Relaxed);
        for running in self.running.iter_mut().filter_map(Option::take) {
            let _ = running.thread.join();
        }
    }
}

fn unanswered(file: &Path) -> Error {
    Error::invalid(format!("{}: {}", file.display(), late("model")))
}

/// Of the plan and of what its training sets compute, which is no part of it.
fn pipeline_hash(workshop: &Workshop) -> Result<String> {
    let mut hash = format!("{:016x}", fingerprint(&workshop.plan));
    for set in &workshop.plan.training_sets {
        let training = workshop.training.plans.plan(&set.name, None, None)?;
        hash.push_str(&format!("-{:016x}", fingerprint(&training.plan)));
    }
    Ok(hash)
}

/// What the trainer says about itself, and what validation found, for the registry. The trainer's file is optional, and only numbers count.
fn metrics(run: &RunRecord, file: &PathBuf) -> BTreeMap<String, f64> {
    let said: Option<serde_json::Map<String, serde_json::Value>> = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut metrics: BTreeMap<String, f64> =
        said.into_iter().flatten().filter_map(|(name, value)| Some((format!("trainer.{name}"), value.as_f64()?))).collect();
    if let Some(verdict) = &run.verdict {
        let name = verdict.metric.as_deref().unwrap_or("metric");
        metrics.extend(verdict.challenger_value.map(|value| (format!("holdout.{name}"), value)));
        metrics.extend(verdict.champion_value.map(|value| (format!("holdout.{name}.champion"), value)));
    }
    metrics
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
