//! One loaded version of a model. In: batches of columns. Out: one array per OUTPUT column, the bits of a row the same in every batch where
//! `batch_invariant` says so.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, filter, take};
use freshet_core::{Error, Missing, Model, ModelDef, Result};
use ort::ErrorCode;
use ort::environment::Environment;
use ort::value::ValueType;

use crate::binding::{Inputs, Output, bind_inputs, bind_outputs, signature};
use crate::invariance::{SAMPLE_ROWS, is_batch_invariant, sample};
use crate::sessions::Sessions;
use crate::tensors::{input_values, output_arrays};
use crate::version::Signature;

/// 1 GiB: ONNX itself ends at 2 GiB, and each scoring thread holds the weights once.
const MODEL_BYTES_MAX: u64 = 1 << 30;

/// Rows of one run: ONNX Runtime peaks at 256 to 1,024 rows a batch on tabular models, and its arena grows to the largest.
const RUN_ROWS_MAX: usize = 1024;

/// A model on ONNX Runtime. `predict` may be called by many threads at once.
#[derive(Debug)]
pub struct OnnxModel {
    def: ModelDef,
    file: PathBuf,
    inputs: Inputs,
    outputs: Vec<Output>,
    signature: Signature,
    sessions: Sessions,
    batch_invariant: bool,
}

impl OnnxModel {
    /// Loads a file, binds it to its definition and scores the sample. Errors: Invalid, naming the file, what was found and what was wanted.
    pub(crate) fn open(environment: &Environment, def: &ModelDef, file: &Path) -> Result<OnnxModel> {
        let unusable = |reason: &dyn std::fmt::Display| Error::invalid(format!("{} cannot be used as model {}: {reason}", file.display(), def.name));
        let sessions = Sessions::new(environment, read(file).map_err(|reason| unusable(&reason))?);
        let not_loaded =
            |error: ort::Error| unusable(&format!("it is not an ONNX model that ONNX Runtime can load ({}); export it again", tidy(&error)));
        let (signature, inputs) = sessions.with(|session| (signature(session), bind_inputs(def, session.inputs()))).map_err(not_loaded)?;
        let unfit = |reason: String| unusable(&format!("it does not fit: {reason}; found {}", found(&signature)));
        let inputs = inputs.map_err(unfit)?;
        let sample = sample(def, &inputs)?;
        let outputs = probe(def, &sessions, &inputs, &sample).map_err(unfit)?;
        let mut model = OnnxModel { def: def.clone(), file: file.to_path_buf(), inputs, outputs, signature, sessions, batch_invariant: false };
        model.batch_invariant = is_batch_invariant(&sample, |columns| model.run(columns)).map_err(|error| unusable(&error))?;
        Ok(model)
    }

    /// The inputs and outputs of the file.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Scores rows of which none is left out.
    fn score(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let rows = columns[0].len();
        if rows <= RUN_ROWS_MAX {
            return self.run(columns);
        }
        let mut parts = Vec::new();
        for start in (0..rows).step_by(RUN_ROWS_MAX) {
            let part: Vec<ArrayRef> = columns.iter().map(|column| column.slice(start, RUN_ROWS_MAX.min(rows - start))).collect();
            parts.push(self.run(&part)?);
        }
        let output = |index: usize| Ok(concat(&parts.iter().map(|part| part[index].as_ref()).collect::<Vec<_>>())?);
        (0..self.outputs.len()).map(output).collect()
    }

    /// One call of ONNX Runtime.
    fn run(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let values = input_values(&self.def, &self.inputs, columns)?;
        let run = |session: &mut ort::session::Session| match session.run(values.as_slice()) {
            Ok(outputs) => output_arrays(&self.def, &self.outputs, &outputs, columns[0].len()),
            Err(error) => Err(self.failed(&error)),
        };
        self.sessions.with(run).unwrap_or_else(|error| Err(self.failed(&error)))
    }

    fn failed(&self, error: &ort::Error) -> Error {
        let message = format!("model {} of {} failed: {}", self.def.name, self.file.display(), tidy(error));
        match error.code() {
            ErrorCode::EngineError | ErrorCode::ExecutionProviderFailure | ErrorCode::DeviceReset => Error::internal(message),
            // What the rows hold decides whether a graph can be computed.
            _ => Error::data(message),
        }
    }

    /// Scores the rows without a NULL; the others have no prediction.
    fn score_complete(&self, columns: &[ArrayRef], nulls: &NullBuffer) -> Result<Vec<ArrayRef>> {
        let complete = BooleanArray::new(nulls.inner().clone(), None);
        let count = complete.true_count();
        if count == 0 {
            return Ok(self.def.outputs.iter().map(|field| new_null_array(field.data_type(), columns[0].len())).collect());
        }
        let kept: Vec<ArrayRef> = columns.iter().map(|column| Ok(filter(column, &complete)?)).collect::<Result<_>>()?;
        let mut next = 0..count as u32;
        let places: UInt32Array = nulls.iter().map(|complete| if complete { next.next() } else { None }).collect();
        self.score(&kept)?.iter().map(|output| Ok(take(output, &places, None)?)).collect()
    }
}

impl Model for OnnxModel {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let rows = inputs.first().map_or(0, |column| column.len());
        let right = inputs.len() == self.def.inputs.len() && inputs.iter().all(|column| column.len() == rows);
        if !right {
            let (name, wanted) = (&self.def.name, self.def.inputs.len());
            return Err(Error::internal(format!("model {name} takes {wanted} columns of one length, not {}", inputs.len())));
        }
        if rows == 0 {
            return Ok(self.def.outputs.iter().map(|field| new_empty_array(field.data_type())).collect());
        }
        let nulls = inputs.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()));
        match nulls.filter(|nulls| self.def.missing == Missing::Null && nulls.null_count() > 0) {
            Some(nulls) => self.score_complete(inputs, &nulls),
            None => self.score(inputs),
        }
    }

    fn batch_invariant(&self) -> bool {
        self.batch_invariant
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    opened.take(MODEL_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 {
        0 => Err("it is empty".to_string()),
        MODEL_BYTES_MAX.. if bytes.len() as u64 > MODEL_BYTES_MAX => Err(format!("it has more than {MODEL_BYTES_MAX} bytes")),
        _ => Ok(bytes),
    }
}

/// Runs some rows to see what comes out: shapes that a file leaves open are known only then. Errors: the reason, as text.
fn probe(def: &ModelDef, sessions: &Sessions, inputs: &Inputs, sample: &[ArrayRef]) -> Result<Vec<Output>, String> {
    let values = input_values(def, inputs, sample).map_err(|error| error.message)?;
    let run = |session: &mut ort::session::Session| {
        let outputs = session.run(values.as_slice()).map_err(|error| format!("it fails on {SAMPLE_ROWS} made-up rows ({})", tidy(&error)))?;
        let values: Vec<_> = outputs.iter().collect();
        let types: Vec<(&str, &ValueType)> = values.iter().map(|(name, value)| (*name, value.dtype())).collect();
        bind_outputs(def, &types, SAMPLE_ROWS)
    };
    sessions.with(run).unwrap_or_else(|error| Err(tidy(&error)))
}

/// Everything a file takes and gives, in one line.
fn found(signature: &Signature) -> String {
    let list = |tensors: &[crate::version::TensorSignature]| tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    format!("inputs ({}), outputs ({})", list(&signature.inputs), list(&signature.outputs))
}

/// ONNX Runtime's message in one line.
fn tidy(error: &ort::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
