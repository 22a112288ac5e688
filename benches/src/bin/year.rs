//! The year of flights, from Parquet in the page cache to predictions of a fixed version 1 in memory. In: the folder that prepare.py wrote.
//! Out: events per CPU-second with steps of many epochs and, beside it, with every epoch its own step; median, least and greatest of
//! interleaved runs. The model is trained by the demo itself before anything is measured.
//! Arguments: the number of rounds (5), and a word of the one variant to run (`many`, say, for a profile).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use freshet_benches::{Spread, Variant, data_folder, first_model, interleaved, predictions, replay};
use freshet_engine::{EngineConfig, StepCut};
use freshet_sql::Program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let data = data_folder()?;
    let rounds = arguments.first().map_or(Ok(5), |rounds| rounds.parse()).context("the first argument is the number of rounds")?;
    let model = first_model(&data)?;
    let program = Arc::new(predictions(&data, &model)?);
    let scratch = data.join("bench-year");
    let run = |cut| run(&program, cut, &scratch);
    let (mut many, mut single) = (|| run(StepCut::Rows(8192)), || run(StepCut::Epochs(1)));
    let mut variants: Vec<Variant> = vec![("steps of many epochs", &mut many), ("every epoch its own step", &mut single)];
    if let Some(wanted) = arguments.get(1) {
        variants.retain(|(name, _)| name.contains(wanted.as_str()));
    }
    let series = interleaved(rounds, &mut variants)?;
    println!("the year of flights to predictions in memory, one worker, {rounds} interleaved runs");
    for series in &series {
        let figure = |spread: Option<Spread>| spread.map_or("-".into(), |s| format!("{:.0} ({:.0} to {:.0})", s.median, s.min, s.max));
        println!("  {:<26} {} events per CPU-second; {} per second", series.name, figure(series.per_cpu_second()), figure(series.per_second()));
    }
    if let [many, single] = series.as_slice()
        && let (Some(many), Some(single)) = (many.per_cpu_second(), single.per_cpu_second())
    {
        println!("  ratio of the medians       {:.1}", many.median / single.median);
    }
    Ok(())
}

/// The registry of versions is all that is written: nothing is checkpointed.
fn run(program: &Arc<Program>, cut: StepCut, scratch: &Path) -> Result<u64> {
    replay(program.plan.clone(), EngineConfig { cut, ..EngineConfig::default() }, program, scratch)
}
