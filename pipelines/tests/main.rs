#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arroyo;
mod epochs;
mod export;
mod faults;
#[path = "../../connectors/tests/kafka_broker.rs"]
#[allow(dead_code, reason = "the tests of the connectors use all of it")]
mod kafka_broker;
mod kafka_year;
mod leak;
mod machine_health;
mod nexmark;
mod node;
mod online;
mod policies;
mod same_bytes;
mod small_loop;
mod year;
mod year_loop;

use std::fs;

use freshet_pipelines::Pipeline;

#[test]
fn every_shipped_pipeline_opens_and_sets_its_clock() {
    let pipelines = Pipeline::all().unwrap();
    assert!(pipelines.iter().any(|pipeline| pipeline.name == "flight_delay"));
    for pipeline in pipelines {
        let last = pipeline.scripts.last().unwrap();
        assert!(last.path.ends_with("pipeline.sql"), "{}", pipeline.name);
        assert!(pipeline.scripts.iter().any(|script| script.text.contains("CREATE SOURCE")), "{} has no source", pipeline.name);
        assert!(last.text.contains("SET clock"), "{} leaves its clock to a default", pipeline.name);
    }
}

#[test]
fn sources_come_first_and_the_pipeline_last() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pipeline.sql", "b.sql", "sources.sql", "a.sql", "notes.txt"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let pipeline = Pipeline::open(folder.path()).unwrap();
    let texts: Vec<&str> = pipeline.scripts.iter().map(|script| script.text.as_str()).collect();
    assert_eq!(texts, ["sources.sql", "a.sql", "b.sql", "pipeline.sql"]);
}

#[test]
fn a_folder_without_pipeline_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = Pipeline::open(folder.path()).unwrap_err();
    assert!(format!("{error:#}").ends_with("has no pipeline.sql"), "{error:#}");
    let missing = Pipeline::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(format!("{missing:#}").starts_with("reading pipeline folder"), "{missing:#}");
}
