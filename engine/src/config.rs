//! Settings of the engine, as plain data. Who reads files, flags and the environment is `jobs`.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use freshet_core::Epoch;

/// How epochs are cut into steps. Results per epoch do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepCut {
    /// As many epochs as fit this many rows, at least one.
    Rows(usize),
    /// This many epochs that hold rows.
    Epochs(usize),
    /// All epochs of bounded input in one step.
    All,
}

/// Is told what a step is about to compute, so that whoever finds the process dead knows where to look.
pub trait StepJournal: Debug + Send + Sync {
    /// Called once, before the first step: the checkpoint it goes on from has so many events; 0 if there is none.
    fn resumed(&self, events: u64);

    /// Called before the workers get the step. So many steps, this one included, are open.
    fn opening(&self, end: Epoch, records: &[StepRecords], open_steps: usize);

    /// How many rows the next step should have at most; it is then computed alone. None: as many as usual.
    fn rows_max(&self) -> Option<usize>;
}

/// Records of one partition in one step: the first and the last offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRecords {
    /// By its place in the plan.
    pub source: usize,
    pub partition: u32,
    pub from: u64,
    pub to: u64,
}

#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub workers: usize,
    /// 8,192 rows: an Arrow batch of the usual size; the cost per step (about 0.1 ms) is then below 2 % of its work.
    pub cut: StepCut,
    /// Where checkpoints are kept; None: nothing survives the process.
    pub data_dir: Option<PathBuf>,
    /// 5 s: DESIGN's lower bound; the drain before a checkpoint takes a few milliseconds.
    pub checkpoint_interval_ms: u64,
    /// Takes a checkpoint after every step as well; for tests of restore.
    pub checkpoint_every_step: bool,
    /// How far back reads `as_of` may go, in logical ms. 5 minutes.
    pub history_ms: u64,
    /// Slows a replay down to this many events per second.
    pub events_per_second: Option<u64>,
    /// Rows of these sources below this epoch are read but not input: they cannot change what is asked for. By name.
    pub from: std::collections::BTreeMap<String, freshet_core::Epoch>,
    /// Rows of this epoch and later are not input; event clock only.
    pub until: Option<freshet_core::Epoch>,
    /// Stops handing out steps after this epoch, as if the process had been asked to stop there; for tests of restore.
    pub stop_after: Option<freshet_core::Epoch>,
    /// Answers from the newest checkpoint: reads no source, and time stands still.
    pub frozen: bool,
    pub journal: Option<Arc<dyn StepJournal>>,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            workers: 1,
            cut: StepCut::Rows(8192),
            data_dir: None,
            checkpoint_interval_ms: 5_000,
            checkpoint_every_step: false,
            history_ms: 300_000,
            events_per_second: None,
            from: std::collections::BTreeMap::new(),
            until: None,
            stop_after: None,
            frozen: false,
            journal: None,
        }
    }
}
