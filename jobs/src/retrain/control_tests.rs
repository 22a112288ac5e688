//! The whole saga over a real engine, real files and real trainers (shell), with a model that is one number: the score is x times it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use freshet_connectors::BuiltIn;
use freshet_core::{
    ClockKind, Encode, Format, Metric, Missing, ModelDef, Node, NodeId, Op, Plan, RetrainingDef, RetrainingTrigger, SourceDef, TrainingMode,
    TrainingSetDef, Validation, ViewDef, ViewKind,
};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_inference::Signature;

use super::*;
use crate::retrain::journal::Journal;
use crate::retrain::scoring::{Opened, Runtime};
use crate::retrain::training::{TrainingEngine, TrainingPlan, TrainingPlans};
use crate::rows::{RowFormat, format_rows};

const DAY: u64 = 86_400_000;
/// A multiple of a day: 2013-01-01.
const START: u64 = 15_706 * DAY;
const DAYS: u64 = 40;

#[derive(Debug)]
struct Times(f64);

impl Model for Times {
    fn predict(&self, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let x = inputs[0].as_primitive::<Float64Type>();
        Ok(vec![Arc::new(Float64Array::from_iter(x.iter().map(|x| x.map(|x| x * self.0))))])
    }

    fn batch_invariant(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Numbers;

impl Runtime for Numbers {
    fn open(&self, _: &ModelDef, file: &Path) -> Result<Opened> {
        let text = fs::read_to_string(file).map_err(|error| unavailable(file, &error))?;
        let number = text.trim().parse().map_err(|_| Error::invalid(format!("{} is no model: {}", file.display(), text.trim())))?;
        Ok(Opened { model: Arc::new(Times(number)), signature: Signature::default() })
    }
}

/// The training set is the source.
#[derive(Debug)]
struct Plain(PathBuf);

impl TrainingPlans for Plain {
    fn plan(&self, _: &str, _: Option<Epoch>, _: Option<Epoch>) -> Result<TrainingPlan> {
        Ok(TrainingPlan { plan: source_plan(&self.0, "t"), horizons: BTreeMap::new() })
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("x", DataType::Float64, true),
        Field::new("late", DataType::Boolean, true),
    ]))
}

fn source_plan(data: &Path, view: &str) -> Plan {
    let mut plan = Plan { clock: ClockKind::Event, ..Plan::default() };
    plan.sources.push(SourceDef {
        event_time: Some(1),
        options: [("path".to_string(), data.display().to_string())].into(),
        ..SourceDef::new("rides", schema(), "file", Format::Plain, Encode::Json)
    });
    let node = plan.push(Node { op: Op::Source { source: 0 }, inputs: Vec::new(), schema: schema(), append_only: true });
    plan.views.push(ViewDef { name: view.into(), node, kind: ViewKind::Materialized, schema: schema(), entity: Vec::new() });
    assert_eq!(node, NodeId(0));
    plan
}

fn job() -> RetrainingDef {
    RetrainingDef {
        name: "j".into(),
        model: 0,
        training_set: 0,
        last_ms: 8 * DAY,
        holdout_ms: 2 * DAY,
        gap_ms: 0,
        delay_ms: 0,
        rows_min: 20,
        command: String::new(),
        timeout_ms: 60_000,
        heartbeat_ms: None,
        first_at: Some(Epoch(START + 10 * DAY)),
        triggers: vec![RetrainingTrigger::Every { ms: 10 * DAY }],
        cooldown_ms: 0,
        validation: Some(Validation { metric: Metric::Auc, margin: 0.0 }),
        grids_ms: vec![DAY],
    }
}

/// Lives of one pipeline in one folder.
struct Rig {
    folder: tempfile::TempDir,
    job: RetrainingDef,
    from: Option<String>,
}

/// What SQL sees in the end.
#[derive(Debug, PartialEq, Clone)]
struct Told {
    runs: String,
    versions: String,
}

impl Rig {
    fn new(job: RetrainingDef, command: &str) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = String::new();
        for day in 0..DAYS {
            for row in 0..10 {
                let (at, x) = (START + day * DAY + row * 3_600_000 + 1, (row * 7 % 10) as f64 / 10.0);
                // Every seventh label is not known, and every fifth is not as x says.
                let number = day * 10 + row;
                let late = if number % 7 == 0 { "null".to_string() } else { ((x > 0.45) != (number % 5 == 0)).to_string() };
                rows.push_str(&format!("{{\"id\": \"r{number}\", \"at\": {at}, \"x\": {x}, \"late\": {late}}}\n"));
            }
        }
        fs::write(folder.path().join("rides.jsonl"), rows).unwrap();
        Rig { folder, job: RetrainingDef { command: command.into(), ..job }, from: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plan(&self) -> Plan {
        let float = |name: &str| Field::new(name, DataType::Float64, true);
        let model = ModelDef {
            name: "m".into(),
            service: None,
            inputs: vec![float("x")],
            outputs: vec![float("p")],
            missing: Missing::Nan,
            from: self.from.clone(),
            references: vec!["p".into(), "x".into()],
        };
        let set = TrainingSetDef {
            name: "t".into(),
            id: "id".into(),
            time: "at".into(),
            label: "late".into(),
            mode: TrainingMode::AsServed,
            schema: schema(),
        };
        let plan = source_plan(&self.path("rides.jsonl"), "v");
        Plan { models: vec![model], training_sets: vec![set], retraining: vec![self.job.clone()], ..plan }
    }

    fn config(&self) -> EngineConfig {
        EngineConfig { data_dir: Some(self.path("state")), ..EngineConfig::default() }
    }

    fn control(&self) -> Result<Retraining> {
        let plans = Arc::new(Plain(self.path("rides.jsonl")));
        let workshop = Workshop {
            plan: Arc::new(self.plan()),
            training: TrainingEngine { plans, connectors: Arc::new(BuiltIn), workers: 1 },
            runtime: Arc::new(Numbers),
            journal: Journal::open(self.path("state/runs")).unwrap(),
            folder: self.folder.path().to_path_buf(),
            flight: "grpc://127.0.0.1:1".into(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        Retraining::open(workshop, &self.path("state/models"))
    }

    /// Tests run beside each other: a trainer that another one just forks holds our lock until it has become a shell.
    fn start(&self, config: EngineConfig) -> Result<Engine> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match Engine::start_with(self.plan(), config.clone(), &BuiltIn, Some(Box::new(self.control()?))) {
                Err(error) if error.message.contains("is in use by process") && Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                started => return started,
            }
        }
    }

    /// One life to the end of the input.
    fn life(&self, config: EngineConfig) -> Told {
        let engine = self.start(config).unwrap();
        engine.wait().unwrap();
        let reader = engine.reader();
        // A life that begins at the end has finished before its state is read in.
        while reader.frontier(&["v"]).unwrap() == Epoch::ZERO {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let table = |name: &str| {
            let snapshot = reader.snapshot(&[name], None).unwrap();
            let schema = reader.views().into_iter().find(|view| view.name == name).unwrap().schema;
            format_rows(&schema, &snapshot.views[0], RowFormat::Csv).unwrap()
        };
        let told = Told { runs: table("runs(j)"), versions: table("versions(m)") };
        engine.shutdown().unwrap();
        told
    }

    fn run(&self) -> Told {
        self.life(self.config())
    }

    /// How often the trainer ran; commands write a line to `ran` each time.
    fn trained(&self) -> usize {
        fs::read_to_string(self.path("ran")).unwrap_or_default().lines().count()
    }

    fn records(&self) -> Vec<RunRecord> {
        Journal::open(self.path("state/runs")).unwrap().runs().unwrap().into_values().collect()
    }
}

/// The first version is bad, the second good, the third as good as the second.
const IMPROVING: &str = "echo $FRESHET_RUN_ID >> ran; case $FRESHET_RUN_ID in *01-11T*) echo -1;; *) echo 1;; esac > $FRESHET_OUTPUT/model.onnx";

/// (decided_at, cause, result, version, champion, reason) of each run.
fn outline(told: &Told) -> Vec<[String; 6]> {
    let cells = |line: &str| line.split(',').map(str::to_string).collect::<Vec<_>>();
    let rows = told.runs.lines().skip(1).map(cells);
    rows.map(|row| [row[1][..10].to_string(), row[2].clone(), row[3].clone(), row[5].clone(), row[6].clone(), row[4].clone()]).collect()
}

#[test]
fn first_better_and_equal_versions_are_promoted_promoted_and_rejected() {
    let rig = Rig::new(job(), IMPROVING);
    let told = rig.run();
    let tie = "auc is not above the champion's less 0";
    let expected = [
        ["2013-01-11", "first", "promoted", "1", "", ""],
        ["2013-01-21", "every 10 days", "promoted", "2", "1", ""],
        ["2013-01-31", "every 10 days", "rejected", "3", "2", tie],
    ];
    assert_eq!(outline(&told), expected.map(|row| row.map(str::to_string)), "{}", told.runs);
    assert_eq!(told.versions.lines().count(), 4, "{}", told.versions);
    // 6 and 2 days of ten rows, every seventh without a label.
    assert!(told.runs.lines().nth(1).unwrap().contains(",51,17,12"), "{}", told.runs);
    let folder = rig.path("state/runs/j-2013-01-11T00-00-00Z");
    for file in ["train.parquet", "holdout.parquet", "schema.json", "trainer.log", "run.json", "judge/labels.parquet", "attempt-1/model.onnx"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let registry = Registry::open(&rig.path("state/models")).unwrap();
    let info = registry.load_info("m", 2).unwrap();
    assert!(matches!(&info.created_by, CreatedBy::Run(run) if run.training.rows > 40 && run.trigger == "every 10 days"));
    assert!(info.metrics["holdout.auc"] > info.metrics["holdout.auc.champion"]);
    let reference = registry.reference("m", 2).unwrap();
    assert_eq!(reference.columns["x"].total(), rig.records()[1].data.as_ref().unwrap().train_rows);
    assert_eq!(reference.columns["p"].total(), rig.records()[1].data.as_ref().unwrap().holdout_rows);
}

#[test]
fn c9_runs_do_not_depend_on_workers_or_steps() {
    let expected = Rig::new(job(), IMPROVING).run();
    for (workers, cut) in [(2, StepCut::Rows(8192)), (1, StepCut::Epochs(1)), (2, StepCut::Rows(16))] {
        let rig = Rig::new(job(), IMPROVING);
        assert_eq!(rig.life(EngineConfig { workers, cut, ..rig.config() }), expected, "{workers} {cut:?}");
    }
}

#[test]
fn a_broken_trainer_fails_its_run_and_the_champion_stays() {
    let cases = [
        ("echo 'out of memory' >&2; exit 3", "the trainer exited with 3: out of memory"),
        ("true", "the trainer left no model.onnx in FRESHET_OUTPUT"),
        ("echo rubbish > $FRESHET_OUTPUT/model.onnx", "model.onnx is no model: rubbish"),
        ("no-such-trainer 2> /dev/null", "the trainer's command was not found"),
        ("rm -f $FRESHET_TRAIN; echo 1 > $FRESHET_OUTPUT/model.onnx", "the trainer changed or removed train.parquet"),
        ("cp $FRESHET_TRAIN new; mv -f new $FRESHET_HOLDOUT; exit 3", "the trainer changed or removed holdout.parquet"),
        ("[ -w $FRESHET_TRAIN ] && [ $(id -u) != 0 ] && exit 4; exit 5", "the trainer exited with 5"),
        ("sleep 60", "the trainer was killed after its timeout of 500ms"),
    ];
    for (command, reason) in cases {
        let command = format!("case $FRESHET_RUN_ID in *01-21T*) {command};; *) echo 1 > $FRESHET_OUTPUT/model.onnx;; esac");
        let told = Rig::new(RetrainingDef { timeout_ms: 500, ..job() }, &command).run();
        let row = |point: &str, cause: &str, result: &str, version: &str, champion: &str, reason: &str| {
            [point, cause, result, version, champion, reason].map(str::to_string)
        };
        let found = outline(&told);
        assert_eq!(found[1], row("2013-01-21", "every 10 days", "failed", "", "1", reason));
        assert_eq!(found[2][2..5], row("", "", "rejected", "2", "1", "")[2..5], "the next run has the next number, and the same champion");
    }
}

#[test]
fn too_few_rows_skip_a_run_and_the_next_point_tries_again() {
    let early = RetrainingDef { first_at: Some(Epoch(START + 3 * DAY)), rows_min: 25, ..job() };
    let told = Rig::new(early, IMPROVING).run();
    let found = outline(&told);
    // Rows of the first day, of two, of three and of four, less two of holdout and a seventh without a label.
    assert_eq!(found[0][..3], ["2013-01-04", "first", "skipped"].map(str::to_string));
    assert!(found[0][5].starts_with("too few rows (8 < 25)"), "{found:?}");
    assert_eq!(found[1][..3], ["2013-01-05", "first", "skipped"].map(str::to_string));
    assert_eq!(found[2][..3], ["2013-01-06", "first", "promoted"].map(str::to_string));
    assert_eq!(
        found[3][..3],
        ["2013-01-16", "every 10 days", "rejected"].map(str::to_string),
        "every counts from the run, not from what was skipped"
    );
}

#[test]
fn a_file_is_version_one_from_the_start() {
    let mut rig = Rig::new(RetrainingDef { first_at: None, ..job() }, IMPROVING);
    rig.from = Some("first.onnx".into());
    fs::write(rig.path("first.onnx"), "0.5").unwrap();
    let told = rig.run();
    assert!(told.versions.lines().nth(1).unwrap().starts_with("1,1970-01-01 00:00:00,,,t,t,"), "{}", told.versions);
    // Ten days after the first row, not after 1970. Half of x ranks as x does.
    assert_eq!(outline(&told)[0][..5], ["2013-01-12", "every 10 days", "rejected", "2", "1"].map(str::to_string));
    assert_eq!(rig.run(), told, "a second life says the same");
}

#[test]
fn c6_a_delayed_command_is_settled_in_the_order_of_its_epoch() {
    let told = Rig::new(RetrainingDef { delay_ms: 3 * DAY, ..job() }, IMPROVING).run();
    assert_eq!(outline(&told).len(), 3);
    assert!(told.versions.contains("1,2013-01-14 00:00:00,j-2013-01-11T00-00-00Z"), "{}", told.versions);
}

#[test]
fn c6_a_run_goes_on_from_its_last_whole_step_wherever_it_was_cut_off() {
    let whole = Rig::new(job(), IMPROVING);
    let expected = whole.run();
    let records = whole.records();
    for cut_off in 0..5 {
        let rig = Rig::new(job(), IMPROVING);
        assert_eq!(rig.run(), expected);
        // As if the process had died before its first checkpoint: the second run has come so far, the third was never begun.
        fs::remove_dir_all(rig.path("state/checkpoints")).unwrap();
        fs::remove_dir_all(rig.path("state/runs").join(&records[2].run_id)).unwrap();
        let [_, second, _] = <[RunRecord; 3]>::try_from(rig.records().into_iter().chain([records[2].clone()]).collect::<Vec<_>>()).unwrap();
        let mut left = RunRecord { version: None, result: None, reason: None, ..second };
        if cut_off < 4 {
            fs::remove_dir_all(rig.path("state/models/m/2")).unwrap();
        }
        fs::remove_dir_all(rig.path("state/models/m/3")).unwrap();
        left.verdict = left.verdict.filter(|_| cut_off >= 3);
        left.trained = left.trained.filter(|_| cut_off >= 2);
        left.data = left.data.filter(|_| cut_off >= 1);
        Journal::open(rig.path("state/runs")).unwrap().write(&left).unwrap();
        assert_eq!(rig.run(), expected, "cut off at {cut_off}");
        // 3 at first, then the third, and the second only if its training had not ended.
        assert_eq!(rig.trained(), 4 + usize::from(cut_off < 2), "cut off at {cut_off}");
    }
}

#[test]
fn c6_c9_a_life_that_goes_on_from_a_checkpoint_decides_and_tells_the_same() {
    let expected = Rig::new(job(), IMPROVING).run();
    for (delay_ms, expected) in [(0, expected), (4 * DAY, Rig::new(RetrainingDef { delay_ms: 4 * DAY, ..job() }, IMPROVING).run())] {
        for day in [9, 10, 12, 20, 23, 33] {
            let rig = Rig::new(RetrainingDef { delay_ms, ..job() }, IMPROVING);
            let stop_after = Some(Epoch(START + day * DAY + 2 * 3_600_000));
            let config = EngineConfig { checkpoint_every_step: true, cut: StepCut::Rows(16), ..rig.config() };
            let engine = rig.start(EngineConfig { stop_after, ..config.clone() }).unwrap();
            let stopped = engine.wait();
            assert!(stopped.is_err(), "it was stopped before its end");
            engine.shutdown().unwrap();
            assert_eq!(rig.life(EngineConfig { workers: 2, ..config }), expected, "day {day}, delay {delay_ms}");
            assert_eq!(rig.trained(), 3, "day {day}, delay {delay_ms}: nothing is trained twice");
            assert_eq!(rig.run(), expected, "a third life has nothing to do and says the same");
            assert_eq!(rig.trained(), 3);
        }
    }
}

#[test]
fn a_stop_during_training_kills_the_trainer_and_the_next_life_trains_anew() {
    let waiting = "echo $$ >> ran; [ -e go ] || sleep 60; echo 1 > $FRESHET_OUTPUT/model.onnx";
    let rig = Rig::new(job(), waiting);
    let engine = rig.start(rig.config()).unwrap();
    while rig.trained() == 0 {
        assert!(!engine.wait_timeout(Duration::from_millis(10)).unwrap(), "it waits for the trainer");
    }
    assert_eq!(engine.reader().status().jobs[0].running, Some(Epoch(START + 10 * DAY)));
    let stopping = Instant::now();
    engine.shutdown().unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    let pid = fs::read_to_string(rig.path("ran")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "the trainer has ended with its pipeline");
    fs::write(rig.path("go"), "").unwrap();
    let told = rig.run();
    assert_eq!(outline(&told)[0][..4], ["2013-01-11", "first", "promoted", "1"].map(str::to_string));
    assert_eq!(rig.trained(), 1 + 3);
}

#[test]
fn a_version_whose_run_is_missing_is_refused() {
    let rig = Rig::new(job(), IMPROVING);
    rig.run();
    for with_checkpoint in [true, false] {
        if !with_checkpoint {
            fs::remove_dir_all(rig.path("state/checkpoints")).unwrap();
        }
        let (folder, aside) = (rig.path("state/runs/j-2013-01-21T00-00-00Z"), rig.path("aside"));
        fs::rename(&folder, &aside).unwrap();
        let error = rig.start(rig.config()).err().unwrap();
        assert_eq!(error.kind, freshet_core::Kind::Data);
        let words = format!("version 2 of model m comes from run j-2013-01-21T00-00-00Z, of which there is no record in {}", folder.display());
        assert!(error.message.contains(&words) && error.message.contains("restore the folder of the runs"), "{error}");
        fs::rename(&aside, &folder).unwrap();
    }
    rig.run();
    assert_eq!(rig.trained(), 3, "once it is restored, nothing is trained anew");
}

#[test]
fn runs_of_other_sql_and_damaged_files_are_refused() {
    let mut rig = Rig::new(job(), IMPROVING);
    rig.run();
    fs::remove_dir_all(rig.path("state/checkpoints")).unwrap();
    rig.job.rows_min = 21;
    let error = rig.start(rig.config()).err().unwrap();
    assert!(error.message.contains("of another pipeline (the SQL has changed)"), "{error}");
    rig.job.rows_min = 20;
    fs::write(rig.path("state/models/m/2/model.onnx"), "7").unwrap();
    let engine = rig.start(rig.config()).unwrap();
    let error = engine.wait().unwrap_err();
    assert!(error.message.contains("is damaged: its SHA-256"), "{error}");
}
