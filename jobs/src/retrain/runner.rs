//! Performs the steps of one run on a thread of its own, and writes each down before the next begins. In: a record, perhaps of an earlier
//! process. Out: the same run with its verdict, or why it failed. What only logical time may order (registering) is left to `control.rs`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use freshet_core::{Error, Kind, Model, ModelDef, Plan, Result, RetrainingDef, TrainingSetDef, hash_bytes};

use crate::retrain::files::{check_unchanged, read_unchanged, sha256, write_durably, write_read_only};
use crate::retrain::journal::{DataFacts, Journal, RunRecord, TrainingFacts, sync, unavailable};
use crate::retrain::saga::{self, Ended, Step};
use crate::retrain::scoring::{Answer, Runtime, ask, late, numbers, reference, score};
use crate::retrain::trainer::{Trainer, TrainerEnd, run_attempts};
use crate::retrain::training::{Asked, TrainingEngine, TrainingRows, label_values, schema_json, split, train_range};
use crate::retrain::verdict::{Evidence, judge, unusable};

const TRAIN: &str = "train.parquet";
const HOLDOUT: &str = "holdout.parquet";
const SCHEMA: &str = "schema.json";
/// Where the trainer is not told to look.
const LABELS: &str = "judge/labels.parquet";
const FIRST_ATTEMPT: &str = "attempt-1";
pub const REFERENCE: &str = "reference.json";
pub const MODEL: &str = "model.onnx";
pub const METRICS: &str = "metrics.json";

/// Everything a run needs. Shared by all runs.
#[derive(Debug, Clone)]
pub struct Workshop {
    pub plan: Arc<Plan>,
    pub training: TrainingEngine,
    pub runtime: Arc<dyn Runtime>,
    pub journal: Journal,
    /// The pipeline's folder: trainers run there.
    pub folder: PathBuf,
    /// Where the pipeline answers, for the trainer.
    pub flight: String,
    pub stop: Arc<AtomicBool>,
}

/// The version to beat.
#[derive(Debug, Clone)]
pub struct Champion {
    pub version: u32,
    pub file: PathBuf,
    pub model: Arc<dyn Model>,
}

/// One run, with what it is about.
pub struct Runner<'a> {
    pub workshop: &'a Workshop,
    pub job: &'a RetrainingDef,
    pub champion: Option<Champion>,
}

impl Runner<'_> {
    /// Until the run waits for its number or has ended. `None`: the pipeline stops, and the record says how far it came.
    /// Errors: what is not the trainer's fault: a source, the disk, a bug. The run is taken up again by the next process.
    pub fn perform(&self, mut run: RunRecord) -> Result<Option<RunRecord>> {
        loop {
            let ended = match saga::next(&run) {
                Step::Register | Step::Rest => return Ok(Some(run)),
                Step::Prepare => self.prepare(&run)?,
                Step::Train => self.train(&run)?,
                Step::Judge => self.judge(&run)?,
            };
            let Some(ended) = ended else { return Ok(None) };
            run = saga::after(run, ended);
            self.workshop.journal.write(&run)?;
        }
    }

    fn prepare(&self, run: &RunRecord) -> Result<Option<Ended>> {
        let set = self.set();
        let (from, until) = train_range(self.job, run.decided_at);
        let asked = Asked { set, from: Some(from), until: Some(run.decided_at), known: Some(run.decided_at) };
        let Some(TrainingRows { rows, asked_at }) = self.workshop.training.rows(asked, &self.workshop.stop)? else { return Ok(None) };
        let split = split(set, self.job, run.decided_at, &rows)?;
        let folder = self.workshop.journal.folder(&run.run_id);
        let apart = folder.join(LABELS);
        let apart_folder = apart.parent().expect("labels lie in a folder");
        fs::create_dir_all(apart_folder).map_err(|error| unavailable(&apart, &error))?;
        write_durably(&folder.join(SCHEMA), &schema_json(set))?;
        let facts = DataFacts {
            train_rows: split.train.num_rows() as u64,
            holdout_rows: split.holdout.num_rows() as u64,
            null_labels: split.null_labels,
            asked_at,
            train_from: from,
            train_until: until,
            train_sha256: write_read_only(&folder.join(TRAIN), &split.train)?,
            holdout_sha256: write_read_only(&folder.join(HOLDOUT), &split.holdout)?,
            labels_sha256: write_read_only(&apart, &split.labels)?,
        };
        sync(apart_folder)?;
        sync(&folder)?;
        let wanted = self.job.rows_min;
        Ok(Some(if facts.train_rows < wanted { Ended::TooFewRows { facts, wanted } } else { Ended::Prepared(facts) }))
    }

    fn train(&self, run: &RunRecord) -> Result<Option<Ended>> {
        let folder = self.workshop.journal.folder(&run.run_id);
        let facts = self.facts(run)?;
        // A trainer that was cut off may have done it as well as one that ended.
        if folder.join(FIRST_ATTEMPT).exists()
            && let Some(name) = changed(&folder, facts)?
        {
            return Ok(Some(meddled(name)));
        }
        check_unchanged(&folder.join(TRAIN), &facts.train_sha256)?;
        let trainer = Trainer {
            command: self.job.command.clone(),
            folder: self.workshop.folder.clone(),
            timeout: Duration::from_millis(self.job.timeout_ms),
            heartbeat: self.job.heartbeat_ms.map(Duration::from_millis),
            variables: self.variables(run, &folder),
        };
        let started = Instant::now();
        let mut output = PathBuf::new();
        let (end, attempts) = run_attempts(&trainer, &folder.join("trainer.log"), &self.workshop.stop, |_| {
            output = new_attempt(&folder)?;
            Ok(vec![("FRESHET_OUTPUT", output.clone().into_os_string())])
        })?;
        if end != TrainerEnd::Stopped
            && let Some(name) = changed(&folder, facts)?
        {
            return Ok(Some(meddled(name)));
        }
        match end {
            TrainerEnd::Stopped => Ok(None),
            TrainerEnd::TryAgain(reason) | TrainerEnd::Failed(reason) => Ok(Some(Ended::Failed(without(&without(&reason, &output), &folder)))),
            TrainerEnd::Done if !output.join(MODEL).is_file() => Ok(Some(Ended::Failed(format!("the trainer left no {MODEL} in FRESHET_OUTPUT")))),
            TrainerEnd::Done => {
                let trainer_ms = started.elapsed().as_millis() as u64;
                let file = output.join(MODEL);
                fs::File::open(&file).and_then(|file| file.sync_all()).map_err(|error| unavailable(&file, &error))?;
                sync(&output)?;
                let output = output.file_name().expect("an attempt has a name").to_string_lossy().into_owned();
                Ok(Some(Ended::Trained(TrainingFacts { output, attempts, model_sha256: sha256(&file)?, trainer_ms })))
            }
        }
    }

    /// DESIGN: the trainer contract.
    fn variables(&self, run: &RunRecord, folder: &Path) -> Vec<(&'static str, OsString)> {
        let champion = self.champion.as_ref().map(|champion| champion.file.clone().into_os_string());
        vec![
            ("FRESHET_RUN_ID", run.run_id.clone().into()),
            ("FRESHET_MODEL", run.model.clone().into()),
            ("FRESHET_TRAIN", folder.join(TRAIN).into()),
            ("FRESHET_HOLDOUT", folder.join(HOLDOUT).into()),
            ("FRESHET_SCHEMA", folder.join(SCHEMA).into()),
            ("FRESHET_CHAMPION", champion.unwrap_or_default()),
            ("FRESHET_SEED", seed(&run.run_id).to_string().into()),
            ("FRESHET_FLIGHT", self.workshop.flight.clone().into()),
        ]
    }

    fn judge(&self, run: &RunRecord) -> Result<Option<Ended>> {
        let folder = self.workshop.journal.folder(&run.run_id);
        let (facts, set, def) = (self.facts(run)?, self.set(), self.model());
        let trained = run.trained.as_ref().expect("judging comes after training");
        let file = folder.join(&trained.output).join(MODEL);
        check_unchanged(&file, &trained.model_sha256)?;
        let train = read_unchanged(&folder.join(TRAIN), &facts.train_sha256)?;
        let holdout = read_unchanged(&folder.join(HOLDOUT), &facts.holdout_sha256)?;
        let labels = label_values(set, &read_unchanged(&folder.join(LABELS), &facts.labels_sha256)?)?;
        let challenger = match self.challenger(&file, &holdout)? {
            Answer::Stopped => return Ok(None),
            Answer::Late => return Ok(Some(Ended::Failed(late("model")))),
            Answer::Given(Ok(scores)) => scores,
            // The model is to blame, not the machine.
            Answer::Given(Err(error)) if error.kind != Kind::Unavailable => {
                return Ok(Some(Ended::Failed(without(&error.message, &folder.join(&trained.output)))));
            }
            Answer::Given(Err(error)) => return Err(error),
        };
        write_durably(&folder.join(REFERENCE), &serde_json::to_vec(&reference(def, &train, &challenger)?).map_err(not_json)?)?;
        sync(&folder)?;
        let champion = match self.champion_scores(&holdout)? {
            Answer::Stopped => return Ok(None),
            Answer::Late => return Ok(Some(Ended::Failed(late("champion")))),
            Answer::Given(scores) => scores.transpose()?,
        };
        let champion = champion.map(|scores| numbers(&scores[0])).transpose()?;
        let evidence = Evidence { challenger: &numbers(&challenger[0])?, champion: champion.as_deref(), labels: &labels };
        let reason = unusable(self.job.validation, evidence);
        Ok(Some(reason.map_or_else(|| Ended::Judged(judge(self.job.validation, evidence)), Ended::Failed)))
    }

    fn challenger(&self, file: &Path, holdout: &RecordBatch) -> Result<Answer<Result<Vec<ArrayRef>>>> {
        let (runtime, def) = (self.workshop.runtime.clone(), self.model().clone());
        let (file, holdout) = (file.to_path_buf(), holdout.clone());
        ask(&self.workshop.stop, move || runtime.open(&def, &file).and_then(|opened| score(opened.model.as_ref(), &def, &holdout)))
    }

    /// None without a champion.
    fn champion_scores(&self, holdout: &RecordBatch) -> Result<Answer<Option<Result<Vec<ArrayRef>>>>> {
        let Some(Champion { model, .. }) = self.champion.clone() else { return Ok(Answer::Given(None)) };
        let (def, holdout) = (self.model().clone(), holdout.clone());
        ask(&self.workshop.stop, move || Some(score(model.as_ref(), &def, &holdout)))
    }

    fn facts<'r>(&self, run: &'r RunRecord) -> Result<&'r DataFacts> {
        run.data.as_ref().ok_or_else(|| Error::internal(format!("run {} has no data", run.run_id)))
    }

    fn set(&self) -> &TrainingSetDef {
        &self.workshop.plan.training_sets[self.job.training_set]
    }

    fn model(&self) -> &ModelDef {
        &self.workshop.plan.models[self.job.model]
    }
}

pub fn not_json(error: serde_json::Error) -> Error {
    Error::internal(format!("JSON: {error}"))
}

/// A number that is the same in every life of a run and fits what libraries take as a seed.
fn seed(run_id: &str) -> u64 {
    hash_bytes(run_id.as_bytes()) >> 33
}

/// The first file of the run's data that is gone or no longer what was written.
fn changed(folder: &Path, facts: &DataFacts) -> Result<Option<&'static str>> {
    for (name, hash) in [(TRAIN, &facts.train_sha256), (HOLDOUT, &facts.holdout_sha256), (LABELS, &facts.labels_sha256)] {
        let path = folder.join(name);
        if !path.is_file() || sha256(&path)? != *hash {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The files are the trainer's to read: what it has learned from is no longer known, and a holdout that it wrote judges nothing.
fn meddled(name: &str) -> Ended {
    Ended::Failed(format!("the trainer changed or removed {name}"))
}

/// A folder that no earlier attempt has written to, not even one that outlived its pipeline.
fn new_attempt(run: &Path) -> Result<PathBuf> {
    for attempt in 1.. {
        let folder = run.join(format!("attempt-{attempt}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unavailable(&folder, &error)),
        }
    }
    unreachable!("some number is free")
}

/// A reason becomes a row, and rows know nothing of the machine's folders (C9).
fn without(reason: &str, folder: &Path) -> String {
    reason.replace(&format!("{}/", folder.display()), "")
}
