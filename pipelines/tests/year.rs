//! What the tests of the year share. In: the folder that prepare.py wrote, and the texts of pipelines/flight_delay. Out: plans, running
//! engines, and the rows of the files, read without any code of the engine.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, TimestampMillisecondType};
use freshet_connectors::BuiltIn;
use freshet_core::{Plan, Reader};
use freshet_engine::{Engine, EngineConfig};
use freshet_pipelines::Pipeline;
use freshet_sql::{Program, Script, compile};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::node::{demo_folder, python};

pub const HOUR_MS: u64 = 3_600_000;
pub const FILES: [&str; 4] = ["schedules", "departures", "arrivals", "weather"];

/// `./dev test` prepares the year and says where it is.
#[allow(clippy::disallowed_methods, reason = "where the demo's data is, is told by the environment")]
pub fn data_folder() -> PathBuf {
    let folder = std::env::var("FRESHET_DEMO_DATA").expect("FRESHET_DEMO_DATA must name the year of flights: run ./dev test");
    let folder = PathBuf::from(folder);
    assert!(folder.join("schedules.parquet").is_file(), "{} holds no year of flights: run ./dev test", folder.display());
    folder
}

/// A copy of the demo, or the demo, over the files of `data`, with its sink below `out`.
pub fn program(pipeline: &Path, data: &Path, out: &Path) -> Program {
    let pipeline = Pipeline::open(pipeline).unwrap();
    let script = |script: &freshet_pipelines::Script| Script { name: script.path.display().to_string(), text: script.text.clone() };
    let scripts: Vec<Script> = pipeline.scripts.iter().map(script).collect();
    let variable = |name: &str, path: &Path| (name.to_string(), path.display().to_string());
    let variables = BTreeMap::from([variable("data", data), variable("out", out), variable("python", &python())]);
    compile(&scripts, &variables, &BuiltIn).unwrap_or_else(|error| panic!("{error}"))
}

/// The demo's plan with its views in memory only, and nobody who trains: scores are NULL.
pub fn plan_without_sink(data: &Path) -> Plan {
    Plan { sinks: Vec::new(), ..program(&demo_folder(), data, Path::new("unused")).plan }
}

pub fn start(plan: Plan, config: EngineConfig) -> Engine {
    Engine::start(plan, config, &BuiltIn).unwrap()
}

/// One file of the year as one batch.
pub fn table(data: &Path, name: &str) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(data.join(format!("{name}.parquet"))).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// How many events the four files hold.
pub fn event_count(data: &Path) -> u64 {
    FILES.iter().map(|name| table(data, name).num_rows() as u64).sum()
}

pub fn strings<'a>(batch: &'a RecordBatch, column: &str) -> &'a StringArray {
    batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}")).as_string()
}

pub fn floats<'a>(batch: &'a RecordBatch, column: &str) -> &'a Float64Array {
    batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}")).as_primitive::<Float64Type>()
}

/// Milliseconds since 1970.
pub fn times(batch: &RecordBatch, column: &str) -> Vec<u64> {
    let array = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}")).as_primitive::<TimestampMillisecondType>();
    assert_eq!(array.null_count(), 0, "{column} has no NULL");
    array.values().iter().map(|time| u64::try_from(*time).unwrap()).collect()
}

/// The row numbers of each key, in file order. The file must be in the order of `times`, so that the arrival of a row is its event time.
pub fn rows_by_key(keys: &StringArray, times: &[u64]) -> HashMap<String, Vec<usize>> {
    assert!(times.is_sorted(), "the file is in event-time order");
    let mut rows: HashMap<String, Vec<usize>> = HashMap::new();
    for (row, key) in keys.iter().enumerate() {
        if let Some(key) = key {
            rows.entry(key.to_string()).or_default().push(row);
        }
    }
    rows
}

/// Waits until the workers were handed this many events, or all of them, and every view can be read.
pub fn wait_for_events(reader: &dyn Reader, events: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let status = reader.status();
        assert_eq!(status.failure, None);
        let readable = status.views.iter().all(|view| view.closed.is_some());
        if readable && (status.events >= events || status.finished) {
            return;
        }
        assert!(Instant::now() < deadline, "only {} of {events} events after two minutes", status.events);
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
