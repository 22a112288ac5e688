//! A `freshet run` of the demo that ends with the test. In: a pipeline folder, data, workers. Out: its status, answers and files.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::year::{FILES, HOUR_MS, table};

/// Many times what a year with its trainings takes on two busy cores.
const RUN_WAIT_MAX: Duration = Duration::from_secs(900);
const END_WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Midnight of 1 January 2013 in New York.
const YEAR_BEGIN_MS: i64 = 1_357_016_400_000;
const DAY_MS: i64 = 24 * HOUR_MS as i64;
/// The event time of each of `FILES`.
const TIMES: [&str; 4] = ["ask_time", "dep_time", "arr_time", "observed_at"];

/// Python with the packages of deploy/requirements.txt, as `./dev setup` installs it.
#[allow(clippy::disallowed_methods, reason = "where the test's Python is, is told by the environment")]
pub fn python() -> PathBuf {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(PathBuf::from);
    variable("FRESHET_PYTHON").unwrap_or_else(|| {
        let cache = variable("FRESHET_CACHE").or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("freshet")));
        let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache/freshet"))).expect("HOME is set");
        cache.join("venv/bin/python")
    })
}

/// Runs a script of this folder; it must succeed. Out: what it printed.
pub fn check(script: &str, arguments: &[&Path]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let output = Command::new(python()).arg("-B").arg(&script).args(arguments).output().expect("Python runs: run ./dev test");
    assert!(output.status.success(), "{}: {}", script.display(), all(&output));
    all(&output)
}

pub fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("flight_delay")
}

/// A copy of the demo whose pipeline.sql is edited: each left text stands there and becomes the right one.
pub fn edited(folder: &Path, edits: &[(&str, &str)]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(demo_folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let file = folder.join("pipeline.sql");
    let mut text = fs::read_to_string(&file).unwrap();
    for (from, to) in edits {
        assert!(text.contains(from), "pipeline.sql has no {from}");
        text = text.replace(from, to);
    }
    fs::write(file, text).unwrap();
    folder.to_path_buf()
}

/// What happens before the end of day `days` in New York, in files of its own: a prefix of the replay of the year.
pub fn first_days(data: &Path, days: i64, folder: &Path) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let end = YEAR_BEGIN_MS + days * DAY_MS;
    for (name, time) in FILES.iter().zip(TIMES) {
        let rows = table(data, name);
        let times = rows.column_by_name(time).unwrap().as_primitive::<TimestampMillisecondType>();
        let before: BooleanArray = times.iter().map(|time| time.map(|time| time < end)).collect();
        write_table(&folder.join(format!("{name}.parquet")), &filter_record_batch(&rows, &before).unwrap());
    }
    folder.to_path_buf()
}

/// The same files with every question asked later.
pub fn asked_later(data: &Path, later_ms: i64, folder: &Path) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    for name in FILES {
        fs::copy(data.join(format!("{name}.parquet")), folder.join(format!("{name}.parquet"))).unwrap();
    }
    let schedules = table(data, "schedules");
    let column = schedules.schema().index_of("ask_time").unwrap();
    let mut columns = schedules.columns().to_vec();
    let shifted: arrow::array::TimestampMillisecondArray = columns[column].as_primitive::<TimestampMillisecondType>().unary(|time| time + later_ms);
    columns[column] = Arc::new(shifted) as ArrayRef;
    write_table(&folder.join("schedules.parquet"), &RecordBatch::try_new(schedules.schema(), columns).unwrap());
    folder.to_path_buf()
}

fn write_table(path: &Path, rows: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// The binary of this build: the whole workspace is built before its tests run.
pub fn freshet() -> Command {
    let tests = std::env::current_exe().unwrap();
    let binary = tests.parent().and_then(Path::parent).expect("tests lie in deps").join("freshet");
    assert!(binary.is_file(), "{} is missing; run cargo test --workspace, or cargo build --workspace --bins", binary.display());
    let mut command = Command::new(binary);
    command.stdin(Stdio::null()).env("FRESHET_PYTHON", python());
    command
}

/// What a run is made of. Its state and its sink lie in `folder`, so that a second run of the same goes on with the first.
#[derive(Clone)]
pub struct Setting {
    pub pipeline: PathBuf,
    pub data: PathBuf,
    pub folder: PathBuf,
    pub workers: usize,
}

impl Setting {
    pub fn new(pipeline: PathBuf, data: &Path, folder: PathBuf) -> Setting {
        Setting { pipeline, data: data.to_path_buf(), folder, workers: 1 }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn predictions(&self) -> PathBuf {
        self.folder.join("out/predictions.jsonl")
    }

    /// Runs to the end, asks the statements, and ends the process. Out: the answers' rows.
    pub fn run(&self, statements: &[&str]) -> Vec<Vec<Value>> {
        let mut node = Node::start(self);
        node.wait_until("the end", |status| status["finished"] == true);
        let answers = statements.iter().map(|sql| node.query(sql)).collect();
        assert_eq!(node.stop().code(), Some(143), "SIGTERM is a clean end");
        answers
    }
}

pub struct Node {
    child: Child,
    flight: String,
    http: String,
    log: PathBuf,
}

impl Node {
    pub fn start(setting: &Setting) -> Node {
        fs::create_dir_all(&setting.folder).unwrap();
        let log = setting.folder.join("freshet.log");
        let mut command = freshet();
        command.arg("run").arg(&setting.pipeline).args(["--keep", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
        let variables = [variable("data", &setting.data), variable("out", &setting.folder.join("out")), variable("python", &python())];
        variables.iter().for_each(|variable| _ = command.args(["--var", variable]));
        command.arg("--data-dir").arg(setting.state()).args(["--workers", &setting.workers.to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |name: &str| {
            let line = lines.next().unwrap_or_else(|| panic!("freshet prints no addresses: {}", fs::read_to_string(&log).unwrap())).unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line} does not begin with {name}")).trim().to_string()
        };
        let (flight, http) = (address("Flight"), address("HTTP").trim_start_matches("http://").to_string());
        Node { child, flight, http, log }
    }

    pub fn status(&self) -> Value {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(END_WAIT_MAX)).unwrap();
        write!(stream, "GET /v1/status HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("an HTTP answer has a head and a body").1).unwrap()
    }

    /// Looks at the status until the condition holds. Panics if the process ends before.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + RUN_WAIT_MAX;
        loop {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "freshet ended before {what}: {ended:?}: {}", self.log());
            let status = self.status();
            assert_eq!(status["failure"], Value::Null, "{}", self.log());
            if holds(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "waited too long for {what}: {status}");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// The rows of an answer, one object each.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let output = freshet().args(["sql", "--address", &self.flight, "--format", "json", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", all(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The features of one entity, given as NAME=VALUE,…; one object.
    pub fn lookup(&self, service: &str, keys: &str) -> Vec<Value> {
        let output = freshet().args(["features", "get", service, "--keys", keys, "--address", &self.flight, "--format", "json"]).output().unwrap();
        assert!(output.status.success(), "{service} of {keys}: {}", all(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// As a crash would end it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn stop(mut self) -> ExitStatus {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        let deadline = Instant::now() + END_WAIT_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "freshet does not end: {}", self.log());
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a regular end both find nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both streams, for messages.
pub fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where two files part, instead of 300 MB of both.
pub fn assert_identical(found: &Path, expected: &Path, what: &str) {
    let (found, expected) = (fs::read(found).unwrap(), fs::read(expected).unwrap());
    assert!(!expected.is_empty());
    if found != expected {
        let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let line = expected[..same].iter().filter(|byte| **byte == b'\n').count() + 1;
        panic!("{what}: {} bytes instead of {}, first difference in line {line}", found.len(), expected.len());
    }
}
