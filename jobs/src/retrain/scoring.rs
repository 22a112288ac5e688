//! A model over rows of a training set. In: columns by name. Out: its outputs, and what monitors will compare with.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_empty_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float64Type};
use freshet_core::{Error, Histogram, Model, ModelDef, Reference, Result};
use freshet_inference::Signature;

use crate::retrain::training::named;

/// As many as the dataflow scores at once.
const BATCH_ROWS: usize = 8192;

/// A loaded file, and what it takes and gives.
#[derive(Debug, Clone)]
pub struct Opened {
    pub model: Arc<dyn Model>,
    pub signature: Signature,
}

/// Loads files of models. `freshet_core::Models` with the signature beside it, for the registry.
pub trait Runtime: std::fmt::Debug + Send + Sync {
    /// Errors: Invalid or Data for a file that is no model or does not fit; Unavailable.
    fn open(&self, def: &ModelDef, file: &Path) -> Result<Opened>;
}

/// One array per output. A model whose bits depend on the batch sees one row at a time (C7). Errors: the model's.
pub fn score(model: &dyn Model, def: &ModelDef, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let inputs: Vec<ArrayRef> = def.inputs.iter().map(|input| Ok(cast(named(rows, input.name())?, input.data_type())?)).collect::<Result<_>>()?;
    let batch = if model.batch_invariant() { BATCH_ROWS } else { 1 };
    let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); def.outputs.len()];
    for offset in (0..rows.num_rows()).step_by(batch) {
        let length = batch.min(rows.num_rows() - offset);
        let slices: Vec<ArrayRef> = inputs.iter().map(|input| input.slice(offset, length)).collect();
        let outputs = model.predict(&slices)?;
        if outputs.len() != parts.len() || outputs.iter().any(|output| output.len() != length) {
            return Err(Error::data(format!("model {} did not answer with {} outputs of {length} rows", def.name, parts.len())));
        }
        parts.iter_mut().zip(outputs).for_each(|(part, output)| part.push(output));
    }
    let joined = parts.iter().zip(&def.outputs).map(|(part, output)| match part.as_slice() {
        [] => Ok(new_empty_array(output.data_type())),
        part => Ok(concat(&part.iter().map(|array| array.as_ref()).collect::<Vec<_>>())?),
    });
    joined.collect()
}

/// Numbers, and BOOLEAN as 0 and 1.
pub fn numbers(column: &ArrayRef) -> Result<Vec<Option<f64>>> {
    let column = cast(column, &DataType::Float64).map_err(|_| Error::invalid(format!("{} is no number", column.data_type())))?;
    Ok(column.as_primitive::<Float64Type>().iter().collect())
}

/// The distribution of each column that monitors compare with: of inputs in the training rows, of outputs on the holdout.
pub fn reference(def: &ModelDef, train: &RecordBatch, scores: &[ArrayRef]) -> Result<Reference> {
    let mut reference = Reference::default();
    for name in &def.references {
        let output = def.outputs.iter().position(|output| output.name() == name);
        let column = match output {
            Some(output) => &scores[output],
            None => named(train, name)?,
        };
        reference.columns.insert(name.clone(), Histogram::of(numbers(column)?));
    }
    Ok(reference)
}

impl Runtime for freshet_inference::OnnxRuntime {
    fn open(&self, def: &ModelDef, file: &Path) -> Result<Opened> {
        let model = self.load(def, file)?;
        let signature = model.signature().clone();
        Ok(Opened { model: Arc::new(model), signature })
    }
}
