//! The golden SQL: every file under slt/, run in every way, and a count of cases for each feature.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use freshet_core::{Connectors, Plan, Reader};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::logic::{self, Engines, Pipeline, Way};

use crate::given::AnyFile;

/// Fewer cases than this do not show a feature.
const CASES_MIN: usize = 5;
/// Nothing in these files takes long.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// What the SELECT surface must have, and what of it is still to come.
const FEATURES: [(&str, bool); 66] = [
    ("scalar", true),
    ("case", true),
    ("cast", true),
    ("timestamp", true),
    ("interval", true),
    ("string", true),
    ("regex", true),
    ("json", true),
    ("array", true),
    ("struct", true),
    ("map", true),
    ("decimal", true),
    ("group_by", true),
    ("count", true),
    ("sum", true),
    ("avg", true),
    ("min_max", true),
    ("variance", true),
    ("regression", true),
    ("bool_and", true),
    ("bit_and", true),
    ("median", true),
    ("percentile", true),
    ("approx_distinct", true),
    ("approx_percentile", true),
    ("first_last_value", true),
    ("array_agg", true),
    ("string_agg", true),
    ("aggregate_distinct", true),
    ("filter", true),
    ("aggregate_order_by", true),
    ("grouping_sets", true),
    ("having", true),
    ("inner_join", true),
    ("left_join", true),
    ("right_join", true),
    ("full_join", true),
    ("semi_join", true),
    ("anti_join", true),
    ("mark_join", true),
    ("not_in", true),
    ("multi_way_join", true),
    ("residual_join", true),
    ("cross_join", true),
    ("asof_join", true),
    ("tumble", true),
    ("hop", true),
    ("session", true),
    ("cumulate", true),
    ("emit", true),
    ("top_n", true),
    ("qualify", true),
    ("order_by_limit", true),
    ("distinct", true),
    ("distinct_on", true),
    ("union", true),
    ("intersect", true),
    ("except", true),
    ("subquery", true),
    ("lateral", true),
    ("cte", true),
    ("unnest", true),
    ("temporal_filter", false),
    ("over", true),
    ("recursive", true),
    ("dml", true),
];

/// The engine as tests run it.
struct Embedded;

struct Running(Engine);

impl Engines for Embedded {
    fn run(&self, plan: &Plan, way: &Way, connectors: &dyn Connectors) -> freshet_core::Result<Box<dyn Pipeline>> {
        let cut = match way.step_epochs {
            Some(0) => StepCut::All,
            Some(epochs) => StepCut::Epochs(epochs),
            None => StepCut::Rows(8192),
        };
        let (data_dir, stop_after) = (way.data_dir.clone(), way.stop_after);
        let config = EngineConfig { workers: way.workers, cut, data_dir, stop_after, history_ms: u64::MAX, ..EngineConfig::default() };
        let engine = Engine::start(plan.clone(), config, connectors)?;
        if !engine.wait_timeout(FINISH_MAX)? && stop_after.is_none() {
            return Err(freshet_core::Error::unavailable("the pipeline does not end"));
        }
        Ok(Box::new(Running(engine)))
    }

    fn folder(&self) -> freshet_core::Result<Box<dyn AsRef<Path>>> {
        Ok(Box::new(tempfile::tempdir().map_err(|error| freshet_core::Error::unavailable(error.to_string()))?))
    }
}

impl Pipeline for Running {
    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn end(self: Box<Self>) -> freshet_core::Result<()> {
        self.0.shutdown()
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    files
}

/// All files, or one: `FRESHET_SLT=joins cargo test --workspace --test sql golden_sql`.
#[test]
#[expect(clippy::disallowed_methods, reason = "the only variable of this test")]
fn golden_sql_holds_in_every_way_of_running_it() {
    let wanted = std::env::var("FRESHET_SLT").unwrap_or_default();
    let mut failures = Vec::new();
    for path in files() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !name.contains(&wanted) {
            continue;
        }
        match logic::run_file(&path, &BTreeMap::new(), &AnyFile, &Embedded) {
            Ok(counts) => {
                println!("{name}: {} records, {} answers, {} of the oracle", counts.records, counts.answers, counts.oracle);
                counts.refused.iter().for_each(|reason| println!("  not maintained: {reason}"));
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_feature_has_its_golden_cases() {
    let mut cases: BTreeMap<String, usize> = BTreeMap::new();
    for path in files() {
        let file = logic::read(&path).unwrap_or_else(|failure| panic!("{failure}"));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!file.tags.is_empty(), "{name} begins with `# tags: feature, …`");
        for tag in &file.tags {
            assert!(FEATURES.iter().any(|(known, _)| known == tag), "{name}: {tag} is no feature of the list in slt_files.rs");
            *cases.entry(tag.clone()).or_default() += file.case_count();
        }
    }
    let few = |feature: &&(&str, bool)| cases.get(feature.0).copied().unwrap_or(0) < CASES_MIN;
    let lacking: Vec<&str> = FEATURES.iter().filter(|feature| feature.1).filter(few).map(|feature| feature.0).collect();
    assert!(lacking.is_empty(), "these features have fewer than {CASES_MIN} cases under sql/tests/slt: {}", lacking.join(", "));
    let there = FEATURES.iter().filter(|feature| !feature.1 && !few(feature)).map(|feature| feature.0).collect::<Vec<_>>();
    println!("not marked as there, and have their cases: {}", there.join(", "));
    let missing: Vec<&str> = FEATURES.iter().filter(|feature| !feature.1).map(|feature| feature.0).collect();
    println!("{} of {} features; still to come: {}", FEATURES.len() - missing.len(), FEATURES.len(), missing.join(", "));
}
