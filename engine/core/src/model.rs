//! Models as the plan and the engine see them: what they take and give, and the seam behind which a runtime scores rows.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;

use crate::Result;

/// A model as the script declares it. Its versions are data (see [`crate::ControlRecord`]).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDef {
    pub name: String,
    /// INPUT FEATURES: the service whose output list the inputs are.
    pub service: Option<String>,
    /// In the order the model takes them.
    pub inputs: Vec<Field>,
    pub outputs: Vec<Field>,
    pub missing: Missing,
    /// FROM 'x.onnx': the file of version 1, which is live from the start; relative to the pipeline's folder.
    pub from: Option<String>,
    /// Columns whose distribution monitors with REFERENCE MODEL compare with: names of inputs and outputs, ascending.
    pub references: Vec<String>,
}

/// What a NULL input means to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// NaN.
    #[default]
    Nan,
    /// The row has no prediction: all outputs are NULL.
    Null,
}

/// One loaded version of a model. Any thread may score, several at once.
pub trait Model: Debug + Send + Sync {
    /// One array per input of its definition, of its types, all of one length → one array per output. Deterministic: the bits of a row's
    /// outputs depend on that row alone, if `batch_invariant`. Errors: Data, Internal; which row is to blame is not said.
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>>;

    /// Whether a row gets the same bits in every batch (C7). If not, rows are scored one by one.
    fn batch_invariant(&self) -> bool;
}

/// The runtimes of this build.
pub trait Models: Debug + Send + Sync {
    /// Loads a file and checks that it fits the definition. Errors: Invalid, naming the file and the shapes found.
    fn open(&self, def: &ModelDef, file: &Path) -> Result<Arc<dyn Model>>;
}
