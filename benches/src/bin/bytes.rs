//! Whether the loop over the whole year writes the same bytes however it is run: retraining included, by one worker and by two, in steps of many
//! epochs and with every epoch its own step. In: the folder that prepare.py wrote. Out: a line per run; it fails at the first difference.
//! Short runs of this, with crashes between, are ordinary tests; the year takes minutes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use freshet_benches::{data_folder, replay, whole_loop};
use freshet_engine::{EngineConfig, StepCut};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILE: &str = "predictions.jsonl";

fn main() -> Result<()> {
    let data = data_folder()?;
    let place = data.join("bench-bytes");
    let runs = [("one-worker", 1, StepCut::Rows(8192)), ("two-workers", 2, StepCut::Rows(8192)), ("one-epoch-steps", 1, StepCut::Epochs(1))];
    let mut first: Option<Vec<u8>> = None;
    for (name, workers, cut) in runs {
        let (started, bytes) = (Instant::now(), run(&data, &place.join(name), workers, cut).with_context(|| format!("the run {name}"))?);
        println!("{name:<16} {} bytes in {:.1} s", bytes.len(), started.elapsed().as_secs_f64());
        let expected = first.get_or_insert_with(|| bytes.clone());
        let differs =
            expected.iter().zip(&bytes).position(|(a, b)| a != b).or((expected.len() != bytes.len()).then_some(expected.len().min(bytes.len())));
        ensure!(differs.is_none(), "{name} differs from the first run at byte {differs:?}; the files lie in {}", place.display());
    }
    println!("all the same");
    fs::remove_dir_all(&place).context("removing the files")
}

/// The prediction file of one run from nothing.
fn run(data: &Path, folder: &Path, workers: usize, cut: StepCut) -> Result<Vec<u8>> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("removing the files of an earlier run")?;
    }
    fs::create_dir_all(folder).context("making a folder")?;
    let program = Arc::new(whole_loop(data, folder)?);
    let state = folder.join("state");
    let config = EngineConfig { workers, cut, data_dir: Some(state.clone()), ..EngineConfig::default() };
    replay(program.plan.clone(), config, &program, &state)?;
    fs::read(folder.join(FILE)).with_context(|| format!("reading {FILE}"))
}
