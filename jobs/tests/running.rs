//! A `freshet run` of the test pipeline that is stopped with the test. In: arguments. Out: its addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far more than a start or an end takes on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Running {
    child: Child,
    pub flight: String,
    pub http: String,
    _data: Option<tempfile::TempDir>,
}

/// The binary under test.
pub fn freshet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
    command.stdin(Stdio::null());
    command
}

pub fn tests_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

impl Running {
    /// The test pipeline, kept up, on free ports, all of its input read.
    pub fn start(extra: &[&str]) -> Running {
        let data = tempfile::tempdir().unwrap();
        let mut command = freshet();
        command.arg("run").arg(tests_folder().join("pipeline")).args(["--keep", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.arg("--var").arg(format!("data={}", tests_folder().join("pipeline/input").display()));
        command.arg("--data-dir").arg(data.path().join("state")).args(extra);
        let mut running = Running::spawn(command);
        running._data = Some(data);
        running.wait_until("the replay has finished", || running.get("/v1/status").1.contains("\"finished\":true"));
        running
    }

    /// A pipeline that goes on until it is stopped, with this data directory.
    pub fn endless(pipeline: &Path, data_dir: &Path) -> Running {
        let mut command = freshet();
        command.arg("run").arg(pipeline).args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        Running::spawn(command)
    }

    /// This `freshet run`, once it has said where it listens.
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |name: &str| {
            let line = lines.next().expect("freshet prints its addresses").unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line} does not begin with {name}")).trim().to_string()
        };
        let (flight, http) = (address("Flight"), address("HTTP"));
        Running { child, flight, http: http.trim_start_matches("http://").to_string(), _data: None }
    }

    /// Status code and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        send(&self.http, &format!("GET {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n"))
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.post_with(path, &[], body)
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        post(&self.http, path, headers, body)
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code, once it has ended, and how long that took.
    pub fn end(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let mut code = None;
        self.wait_for("freshet has ended", |child| {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        (code.unwrap().code(), started.elapsed())
    }

    fn wait_for(&mut self, what: &str, mut holds: impl FnMut(&mut Child) -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !holds(&mut self.child) {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !holds() {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Status code and body of a POST to this address.
pub fn post(http: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let length = body.len();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    send(http, &format!("POST {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

fn send(http: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head and a body");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both streams, for messages.
pub fn all(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}
