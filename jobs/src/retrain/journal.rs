//! What is known of every run, one file each, rewritten whole after each step (C6). In: steps that have ended. Out, after any end of the
//! process: how far each run had come. Only a renamed file counts, so there is never half a step.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use freshet_core::{Epoch, Error, Result};
use serde::{Deserialize, Serialize};

const RECORD: &str = "run.json";
const BEGUN: &str = "begun.json";

/// One run: who decided on it, and what its ended steps brought. A step that has not ended is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    pub run_id: String,
    pub job: String,
    pub model: String,
    /// Fingerprint of the pipeline's text; the runs of another text are not ours.
    pub pipeline: String,
    pub decided_at: Epoch,
    /// Of its control record: `decided_at` + DELAY.
    pub epoch: Epoch,
    pub cause: String,
    /// The live version when it was decided.
    pub champion: Option<u32>,
    pub data: Option<DataFacts>,
    pub trained: Option<TrainingFacts>,
    pub verdict: Option<Verdict>,
    /// Its number in the registry, promoted or not.
    pub version: Option<u32>,
    /// The run has ended.
    pub result: Option<RunResult>,
    /// Why it was not promoted.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    Promoted,
    Rejected,
    Failed,
    Skipped,
}

impl RunResult {
    pub fn name(self) -> &'static str {
        match self {
            RunResult::Promoted => "promoted",
            RunResult::Rejected => "rejected",
            RunResult::Failed => "failed",
            RunResult::Skipped => "skipped",
        }
    }
}

/// The files of the training data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFacts {
    pub train_rows: u64,
    pub holdout_rows: u64,
    /// Rows of both that were left out because their label is NULL.
    pub null_labels: u64,
    /// One per lookup AS OF a column; absent where the set asks as of arrival.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_at: Vec<AskedAt>,
    /// Spine times of the training rows: [from, until).
    pub train_from: Epoch,
    pub train_until: Epoch,
    pub train_sha256: String,
    pub holdout_sha256: String,
    pub labels_sha256: String,
}

/// How many rows a lookup AS OF a column was asked for, and for how many of them the column is not their arrival (T5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedAt {
    pub column: String,
    pub rows: u64,
    pub apart: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFacts {
    /// The folder of the attempt that succeeded, in the run's.
    pub output: String,
    pub attempts: u32,
    pub model_sha256: String,
    /// Machine time, of all attempts; never in a row (C9).
    pub trainer_ms: u64,
}

/// What validation said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub promote: bool,
    pub reason: Option<String>,
    pub metric: Option<String>,
    #[serde(with = "exact")]
    pub challenger_value: Option<f64>,
    #[serde(with = "exact")]
    pub champion_value: Option<f64>,
}

/// Floats as text: JSON has no NaN, and serde_json may miss the last bit when it reads a number.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|value| format!("{value:?}")).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

/// The folder of all runs.
#[derive(Debug, Clone)]
pub struct Journal {
    root: PathBuf,
}

impl Journal {
    /// Makes the folder. Errors: Unavailable.
    pub fn open(root: PathBuf) -> Result<Journal> {
        fs::create_dir_all(&root).map_err(|error| unavailable(&root, &error))?;
        Ok(Journal { root })
    }

    /// Everything about one run lies here.
    pub fn folder(&self, run_id: &str) -> PathBuf {
        self.root.join(run_id)
    }

    /// All runs by id. Errors: Data for a file that is no record.
    pub fn runs(&self) -> Result<BTreeMap<String, RunRecord>> {
        let mut runs = BTreeMap::new();
        for entry in fs::read_dir(&self.root).map_err(|error| unavailable(&self.root, &error))? {
            let path = entry.map_err(|error| unavailable(&self.root, &error))?.path().join(RECORD);
            if let Some(record) = read::<RunRecord>(&path)? {
                runs.insert(record.run_id.clone(), record);
            }
        }
        Ok(runs)
    }

    /// Keeps the record; when this returns it survives the end of the process and of the machine.
    pub fn write(&self, record: &RunRecord) -> Result<()> {
        let folder = self.folder(&record.run_id);
        fs::create_dir_all(&folder).map_err(|error| unavailable(&folder, &error))?;
        keep(&folder.join(RECORD), record)?;
        sync(&self.root)
    }

    /// The first epoch of the input, if a process has seen it.
    pub fn begun(&self) -> Result<Option<Epoch>> {
        read(&self.root.join(BEGUN))
    }

    pub fn begin(&self, first: Epoch) -> Result<()> {
        keep(&self.root.join(BEGUN), &first)
    }
}

/// `retrain_delay-2013-02-01T05-00-00Z`: a function of job and point. A name may hold anything, a folder may not: other characters than
/// letters, digits and underscores become the hexadecimal of their bytes.
pub fn run_id(job: &str, decided_at: Epoch) -> String {
    let mut id = String::new();
    for byte in job.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' { id.push(char::from(byte)) } else { id.push_str(&format!("%{byte:02x}")) }
    }
    let date = freshet_serving::epoch_date(decided_at).unwrap_or_else(|| decided_at.to_string());
    format!("{id}-{}", date.replace(".000Z", "Z").replace([':', '.'], "-"))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // A folder whose first record was never written: the run had not begun.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unavailable(path, &error)),
    };
    let damaged = |error| Error::data(format!("{} is damaged ({error}); delete the data directory to begin anew", path.display()));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Written beside, made durable, renamed.
fn keep<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::internal(format!("{}: {error}", path.display())))?;
    let beside = path.with_extension("json.new");
    let written = File::create(&beside).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&beside, path)).map_err(|error| unavailable(path, &error))?;
    sync(path.parent().expect("a record lies in a folder"))
}

/// Makes the names in a folder durable.
pub fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unavailable(folder, &error))
}

pub fn unavailable(path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn record(run_id: &str) -> RunRecord {
        RunRecord {
            run_id: run_id.into(),
            job: "j".into(),
            model: "m".into(),
            pipeline: "p".into(),
            decided_at: Epoch(10),
            epoch: Epoch(20),
            cause: "first".into(),
            champion: None,
            data: None,
            trained: None,
            verdict: None,
            version: None,
            result: None,
            reason: None,
        }
    }

    #[test]
    fn what_was_written_is_read_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("runs")).unwrap();
        let mut run = record("a");
        for value in [0.1 + 0.2, f64::MIN_POSITIVE / 3.0, f64::INFINITY, 1.0 / 3.0] {
            run.verdict = Some(Verdict {
                promote: false,
                reason: Some("x".into()),
                metric: Some("auc".into()),
                challenger_value: Some(value),
                champion_value: None,
            });
            journal.write(&run).unwrap();
            assert_eq!(journal.runs().unwrap()["a"], run);
        }
        assert_eq!(journal.begun().unwrap(), None);
        journal.begin(Epoch(7)).unwrap();
        assert_eq!(journal.begun().unwrap(), Some(Epoch(7)));
    }

    #[test]
    fn a_half_written_record_does_not_count_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().to_path_buf()).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/run.json.new"), "{").unwrap();
        assert!(journal.runs().unwrap().is_empty());
        fs::write(folder.path().join("a/run.json"), "{").unwrap();
        let error = journal.runs().unwrap_err();
        assert!(error.message.contains("run.json is damaged"), "{error}");
    }

    #[test]
    fn run_ids_are_folders_whatever_the_name() {
        assert_eq!(run_id("retrain_delay", Epoch(1_359_694_800_000)), "retrain_delay-2013-02-01T05-00-00Z");
        assert_eq!(run_id("../x y", Epoch(1)), "%2e%2e%2fx%20y-1970-01-01T00-00-00-001Z");
    }
}
