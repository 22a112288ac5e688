//! A model over rows of a training set. In: columns by name. Out: its outputs, and what monitors will compare with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

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

/// How long a model has, in machine time, to be loaded and to score a holdout; it takes seconds. A file can hold a loop without end.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How often the wait looks whether it should stop.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// What came of asking a model.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Given(T),
    /// The pipeline stops.
    Stopped,
    /// Its thread is left behind, for nothing can end it.
    Late,
}

/// Does the work of a model on a thread of its own, so that one that never returns holds up nothing else. Errors: Unavailable without a
/// thread, Internal for a panic.
pub fn ask<T: Send + 'static>(stop: &AtomicBool, work: impl FnOnce() -> T + Send + 'static) -> Result<Answer<T>> {
    ask_within(ANSWER_MAX, stop, work)
}

fn ask_within<T: Send + 'static>(limit: Duration, stop: &AtomicBool, work: impl FnOnce() -> T + Send + 'static) -> Result<Answer<T>> {
    let (tx, rx) = sync_channel(1);
    let answer = move || {
        // Whoever asked may have gone.
        let _ = tx.send(work());
    };
    let spawned = std::thread::Builder::new().name("freshet-model".into()).spawn(answer);
    spawned.map_err(|error| Error::unavailable(format!("starting a thread: {error}")))?;
    let deadline = Instant::now() + limit;
    loop {
        match rx.recv_timeout(WATCH_EVERY.min(deadline.saturating_duration_since(Instant::now()))) {
            Ok(given) => return Ok(Answer::Given(given)),
            Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("the thread of a model panicked")),
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(Answer::Stopped),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => return Ok(Answer::Late),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The reason for [`Answer::Late`], of the model or the champion.
pub fn late(who: &str) -> String {
    format!("the {who} did not answer within {} s", ANSWER_MAX.as_secs())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_never_returns_is_left_behind() {
        let (go, stop) = (AtomicBool::new(false), AtomicBool::new(true));
        let never = || loop {
            std::thread::park();
        };
        assert_eq!(ask(&go, || 7).unwrap(), Answer::Given(7));
        assert_eq!(ask_within::<()>(Duration::from_millis(50), &go, never).unwrap(), Answer::Late);
        assert_eq!(ask::<()>(&stop, never).unwrap(), Answer::Stopped);
        assert!(ask::<()>(&go, || std::panic::resume_unwind(Box::new(()))).unwrap_err().message.contains("panicked"));
        assert_eq!(late("model"), "the model did not answer within 60 s");
    }
}
