//! The registry of versions: numbered once per run, whole or absent, and refused when a byte has changed.

use std::collections::BTreeMap;

use freshet_core::{Epoch, Histogram, Kind};

use super::*;
use crate::version::{RunLineage, Signature, TrainingLineage};

struct Fixture {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("models")).unwrap();
        Fixture { folder, registry }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn version_file(&self, version: u32, name: &str) -> PathBuf {
        self.folder.path().join("models/delay").join(version.to_string()).join(name)
    }
}

fn run(run_id: &str) -> Registration {
    let training = TrainingLineage {
        training_set: "delay_train".to_string(),
        rows: 20_679,
        from: Epoch(1_356_998_400_000),
        until: Epoch(1_359_676_800_000),
        sha256: "ab".repeat(32),
    };
    let lineage = RunLineage {
        run_id: run_id.to_string(),
        job: "retrain_delay".to_string(),
        decided_at: Epoch(1_359_694_800_000),
        trigger: "psi(p_late) = 0.12".to_string(),
        training,
    };
    // Values whose shortest decimal form a careless parser misses by a bit.
    let histogram = Histogram { edges: vec![-1.0 / 3.0, 0.1 + 0.2, 8.988465674311579e307, f64::INFINITY], counts: vec![1, 2, 3, 4, 5], nulls: 6 };
    Registration {
        created_by: CreatedBy::Run(lineage),
        reference: Reference { columns: BTreeMap::from([("p_late".to_string(), histogram)]) },
        ..script()
    }
}

fn script() -> Registration {
    let metrics = BTreeMap::from([("auc".to_string(), 0.75), ("log_loss".to_string(), f64::NAN)]);
    let signature = Signature::default();
    Registration { created_by: CreatedBy::Script, metrics, batch_invariant: true, signature, reference: Reference::default() }
}

#[test]
fn a_run_registers_once_and_numbers_have_no_gaps() {
    let fixture = Fixture::new();
    let registry = &fixture.registry;
    assert!(registry.versions("delay").unwrap().is_empty());
    assert_eq!(registry.register("delay", &fixture.file("a", "first"), run("run-1")).unwrap(), 1);
    assert_eq!(registry.register("delay", &fixture.file("b", "second"), run("run-2")).unwrap(), 2);
    assert_eq!(registry.register("delay", &fixture.file("c", "other"), run("run-1")).unwrap(), 1);
    assert_eq!(registry.register("other", &fixture.file("c", "other"), run("run-1")).unwrap(), 1);
    assert_eq!(registry.versions("delay").unwrap(), [1, 2]);
    assert_eq!(registry.models().unwrap(), ["delay", "other"]);
    assert_eq!(fs::read_to_string(registry.path("delay", 1).unwrap()).unwrap(), "first");

    let info = registry.load_info("delay", 2).unwrap();
    assert_eq!((info.model.as_str(), info.version, info.bytes), ("delay", 2, 6));
    assert_eq!(info.created_by, run("run-2").created_by);
    assert_eq!(info.metrics, BTreeMap::from([("auc".to_string(), 0.75)]));
    assert_eq!(registry.reference("delay", 2).unwrap(), run("run-2").reference);

    fs::remove_dir_all(fixture.version_file(1, "")).unwrap();
    let error = registry.versions("delay").unwrap_err();
    assert_eq!((error.kind, error.message.contains("version 1 of model delay is missing")), (Kind::Data, true), "{error}");
}

#[test]
fn the_file_of_the_script_is_version_1_and_stays_the_same() {
    let fixture = Fixture::new();
    let file = fixture.file("delay.onnx", "bytes");
    assert_eq!(fixture.registry.register("delay", &file, script()).unwrap(), 1);
    assert_eq!(fixture.registry.register("delay", &file, script()).unwrap(), 1);
    assert_eq!(fixture.registry.register("delay", &file, run("run-1")).unwrap(), 2);
    let changed = fixture.registry.register("delay", &fixture.file("delay.onnx", "others"), script()).unwrap_err();
    assert_eq!(changed.kind, Kind::Invalid);
    assert!(changed.message.contains("is no longer the file that was registered as version 1 of model delay"), "{changed}");

    fixture.registry.register("trained", &file, run("run-1")).unwrap();
    let late = fixture.registry.register("trained", &file, script()).unwrap_err();
    assert!(late.message.contains("already holds 1 version(s)"), "{late}");
}

#[test]
fn a_changed_byte_is_named_at_the_next_load() {
    let fixture = Fixture::new();
    fixture.registry.register("delay", &fixture.file("a", "bytes"), run("run-1")).unwrap();
    for (name, content) in [(MODEL_FILE, "bytez"), (REFERENCE_FILE, "{\"columns\": {}}"), (VERSION_FILE, "{\"model\": \"delay\"")] {
        let path = fixture.version_file(1, name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = match name {
            MODEL_FILE => fixture.registry.path("delay", 1).unwrap_err(),
            REFERENCE_FILE => fixture.registry.reference("delay", 1).unwrap_err(),
            _ => fixture.registry.load_info("delay", 1).unwrap_err(),
        };
        assert_eq!(error.kind, Kind::Data);
        assert!(error.message.starts_with(&format!("{} is damaged", path.display())), "{error}");
        fs::write(&path, before).unwrap();
    }
    assert!(fixture.registry.path("delay", 1).is_ok());
    assert_eq!(fixture.registry.load_info("delay", 2).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_crash_before_the_rename_leaves_no_half_version() {
    let fixture = Fixture::new();
    let folder = fixture.registry.folder("delay").unwrap();
    stage(&folder, "delay", 1, &fixture.file("a", "crashed"), run("run-1")).unwrap();
    assert!(fixture.registry.versions("delay").unwrap().is_empty());
    // And one in the middle of writing.
    fs::remove_file(folder.join(UNFINISHED).join(VERSION_FILE)).unwrap();
    fs::write(folder.join(UNFINISHED).join("left over"), "x").unwrap();
    assert_eq!(fixture.registry.register("delay", &fixture.file("b", "again"), run("run-1")).unwrap(), 1);
    assert_eq!(fs::read_to_string(fixture.registry.path("delay", 1).unwrap()).unwrap(), "again");
    assert_eq!(names(&folder).unwrap(), ["1"]);
    assert_eq!(names(&folder.join("1")).unwrap().len(), 3);
}

#[test]
fn a_file_that_is_not_there_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let error = fixture.registry.register("delay", Path::new("nowhere.onnx"), script()).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("nowhere.onnx"), "{error}");
    assert!(fixture.registry.versions("delay").unwrap().is_empty());
}

#[test]
fn names_of_any_kind_stay_inside_the_root() {
    let fixture = Fixture::new();
    let file = fixture.file("a", "bytes");
    for name in ["..", ".", "/etc", "a/b", "Größe %41", ".unfinished", "1"] {
        assert_eq!(fixture.registry.register(name, &file, script()).unwrap(), 1, "{name}");
        assert!(fixture.registry.path(name, 1).unwrap().starts_with(fixture.folder.path().join("models")), "{name}");
        assert!(!fixture.registry.path(name, 1).unwrap().components().any(|part| part.as_os_str() == ".."), "{name}");
    }
    assert_eq!(fixture.registry.models().unwrap(), [".", "..", ".unfinished", "/etc", "1", "Größe %41", "a/b"]);
    assert!(fixture.registry.register("", &file, script()).is_err());
    assert!(fixture.registry.register(&"x".repeat(256), &file, script()).is_err());
}
