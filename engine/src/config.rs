//! Settings of the engine, as plain data. Who reads files, flags and the environment is `jobs`.

use std::path::PathBuf;

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
        }
    }
}
