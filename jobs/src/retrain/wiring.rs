//! A compiled pipeline becomes a control plane. In: a program, folders, an address. Out: `Control`, or nothing if no model is declared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use freshet_connectors::BuiltIn;
use freshet_core::{Control, Epoch, Error, Result};
use freshet_sql::{Program, skippable_sources};

use crate::retrain::control::Retraining;
use crate::retrain::journal::Journal;
use crate::retrain::runner::Workshop;
use crate::retrain::scoring::Runtime;
use crate::retrain::training::{TrainingEngine, TrainingPlan, TrainingPlans};

/// Training sets as the script declares them.
#[derive(Debug)]
pub struct ProgramPlans {
    program: Arc<Program>,
}

impl ProgramPlans {
    pub fn new(program: Arc<Program>) -> ProgramPlans {
        ProgramPlans { program }
    }
}

impl TrainingPlans for ProgramPlans {
    fn plan(&self, set: &str, from: Option<Epoch>, until: Option<Epoch>) -> Result<TrainingPlan> {
        let plan = self.program.training_plan(set, from, until).map_err(|error| Error::internal(format!("training set {set}: {error}")))?;
        let horizons = skippable_sources(&plan);
        Ok(TrainingPlan { plan, horizons })
    }
}

/// Where a pipeline's control plane works.
pub struct Place {
    pub data_dir: PathBuf,
    /// The pipeline's folder: commands run there, and FROM is relative to it.
    pub folder: PathBuf,
    /// Where the pipeline answers.
    pub flight: String,
    pub workers: usize,
}

/// None: nothing is to be controlled. Errors: Invalid, Unavailable.
pub fn open_control(program: &Arc<Program>, runtime: Arc<dyn Runtime>, place: &Place) -> Result<Box<dyn Control>> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Error::unavailable(format!("{}: {error}", path.display())));
    let data_dir = absolute(&place.data_dir)?;
    let plans = Arc::new(ProgramPlans::new(program.clone()));
    let workshop = Workshop {
        plan: Arc::new(program.plan.clone()),
        training: TrainingEngine { plans, connectors: Arc::new(BuiltIn), workers: place.workers },
        runtime,
        journal: Journal::open(data_dir.join("runs"))?,
        folder: absolute(&place.folder)?,
        flight: place.flight.clone(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    Ok(Box::new(Retraining::open(workshop, &data_dir.join("models"))?))
}
