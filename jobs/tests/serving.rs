//! A `freshet serve` that is stopped with the test, and its children with it. In: arguments. Out: its addresses, and the commands against it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{all, freshet, tests_folder, text};

/// Far more than a start or an end takes on a busy machine.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

pub struct Serving {
    child: Child,
    pub flight: String,
    pub http: String,
    data: PathBuf,
}

impl Serving {
    /// On free ports, over this data directory.
    pub fn start(data: &Path, extra: &[&str], fault: Option<&str>) -> Serving {
        let mut command = freshet();
        command.arg("serve").args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(data).args(extra);
        if let Some(fault) = fault {
            command.env("FRESHET_FAULT", fault);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |name: &str| {
            let line = lines.next().expect("freshet prints its addresses").unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line} does not begin with {name}")).trim().to_string()
        };
        let (flight, http) = (address("Flight"), address("HTTP"));
        Serving { child, flight, http: http.trim_start_matches("http://").to_string(), data: data.to_path_buf() }
    }

    /// A command against this server.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        freshet().args(arguments).args(["--server", &self.http]).output().unwrap()
    }

    /// Submits the test pipeline over its input.
    pub fn submit_rides(&self, name: &str) -> Output {
        let (folder, data) = (tests_folder().join("pipeline"), format!("data={}", tests_folder().join("pipeline/input").display()));
        self.ask(&["submit", name, folder.to_str().unwrap(), "--var", &data])
    }

    pub fn sql(&self, pipeline: Option<&str>, sql: &str) -> Output {
        let named = pipeline.map_or_else(Vec::new, |name| vec!["--pipeline", name]);
        freshet().args(["sql", "--address", &self.flight, "--format", "csv", sql]).args(named).output().unwrap()
    }

    /// What the server says of a pipeline.
    pub fn shown(&self, name: &str) -> Value {
        serde_json::from_str(&self.get(&format!("/v1/pipelines/{name}")).1).unwrap()
    }

    pub fn wait_for_state(&self, name: &str, state: &str) -> Value {
        self.wait_until(name, state, |shown| shown["state"] == state)
    }

    pub fn wait_until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let shown = self.shown(name);
            if holds(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "waited too long until {name} is {what}: {shown:#}\n{}", self.logs(name));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// What the generations have written.
    pub fn logs(&self, name: &str) -> String {
        let mut text = String::new();
        let Ok(entries) = std::fs::read_dir(self.data.join("logs").join(name)) else { return text };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let _ = writeln!(text, "{}:\n{}", path.display(), std::fs::read_to_string(&path).unwrap_or_default());
        }
        text
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head and a body");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }

    pub fn signal(&self, name: &str) {
        kill(name, u64::from(self.child.id()));
    }

    /// The exit code, once it has ended, and how long that took.
    pub fn end(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), started.elapsed());
            }
            assert!(started.elapsed() < WAIT_MAX, "the server does not end");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn kill(signal: &str, pid: u64) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Whether a process is there and no zombie.
pub fn lives(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn wait_for_end(pid: u64) {
    let deadline = Instant::now() + WAIT_MAX;
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} still lives");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The rows of an answer in CSV, without the header.
pub fn rows(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", all(output));
    text(&output.stdout).lines().skip(1).map(str::to_string).collect()
}

/// So many rides, one a second from ten o'clock on, in a folder of its own.
pub fn write_rides(folder: &Path, count: usize) {
    assert!(count < 50_000, "the day has no more seconds");
    let mut text = String::new();
    for ride in 0..count {
        let (city, second) = (if ride % 3 == 0 { "Genf" } else { "Bern" }, 36_000 + ride);
        let at = format!("2025-01-01T{:02}:{:02}:{:02}.000", second / 3600, second / 60 % 60, second % 60);
        let _ = writeln!(text, "{{\"ride_id\": {ride}, \"city\": \"{city}\", \"driver\": {}, \"fare\": 1.5, \"at\": \"{at}\"}}", ride % 7);
    }
    std::fs::write(folder.join("rides.jsonl"), text).unwrap();
}
