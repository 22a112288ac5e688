//! What is known about a version of a model: where it came from, how good it was, what it takes and gives. In and out: `version.json`.

use std::collections::BTreeMap;

use freshet_core::{Epoch, Reference};
use serde::{Deserialize, Serialize};

/// What a caller tells the registry beside the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    pub created_by: CreatedBy,
    /// Of the trainer and of the validation, by name; for people. Values that are not finite are left out: JSON has none.
    pub metrics: BTreeMap<String, f64>,
    pub batch_invariant: bool,
    pub signature: Signature,
    pub reference: Reference,
}

/// Who made a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum CreatedBy {
    /// FROM 'x.onnx' of the script.
    Script,
    /// A run of a retraining job.
    Run(RunLineage),
}

impl CreatedBy {
    /// The run's id; 'script' for the file of the script.
    pub fn run_id(&self) -> &str {
        match self {
            CreatedBy::Script => "script",
            CreatedBy::Run(run) => &run.run_id,
        }
    }
}

/// The run behind a version, down to the rows it was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLineage {
    pub run_id: String,
    pub job: String,
    /// The decision point d.
    pub decided_at: Epoch,
    /// Which triggers, and why.
    pub trigger: String,
    pub training: TrainingLineage,
}

/// The training rows of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingLineage {
    pub training_set: String,
    pub rows: u64,
    /// Spine times are in [from, until).
    pub from: Epoch,
    pub until: Epoch,
    /// Of the file the trainer read, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// The inputs and outputs of a model file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub inputs: Vec<TensorSignature>,
    pub outputs: Vec<TensorSignature>,
}

/// An input or output of a model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSignature {
    pub name: String,
    /// As ONNX names elements: `float`, `int64`; or a whole type that is no tensor.
    pub element: String,
    /// −1: any number.
    pub shape: Vec<i64>,
}

impl std::fmt::Display for TensorSignature {
    /// `x: float [N, 3]`; a dimension of any size is N where it is the first, `?` elsewhere.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dimension = |(index, size): (usize, &i64)| match (index, *size) {
            (0, -1) => "N".to_string(),
            (_, -1) => "?".to_string(),
            (_, size) => size.to_string(),
        };
        let shape: Vec<String> = self.shape.iter().enumerate().map(dimension).collect();
        write!(f, "{}: {} [{}]", self.name, self.element, shape.join(", "))
    }
}

/// A registered version, as `version.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionInfo {
    pub model: String,
    /// Counts from 1.
    pub version: u32,
    pub created_by: CreatedBy,
    pub metrics: BTreeMap<String, f64>,
    pub batch_invariant: bool,
    pub signature: Signature,
    /// Of `model.onnx`, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Size of `model.onnx`.
    pub bytes: u64,
    /// Of `reference.json`.
    pub reference_sha256: String,
}
