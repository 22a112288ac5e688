//! The end of a view. In: its changes, or its errors. Out: nothing; the log that readers share has them before the step counts as closed.

use std::sync::Arc;

use freshet_core::{Batch, Epoch};

use crate::bridge::{Progress, ViewLog};
use crate::operators::{Output, StepOperator};

/// The operator; its rows are in the log.
pub struct Materialize {
    pub log: Arc<ViewLog>,
    pub progress: Arc<Progress>,
}

impl StepOperator for Materialize {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, _out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        if let Some(batch) = Batch::concat(&batches) {
            self.log.append(batch, self.progress.floors().history);
        }
    }
}
