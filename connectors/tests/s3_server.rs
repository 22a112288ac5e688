//! A real S3 server: one that all tests share, and one for each test that kills it. They end with the process or their owner, because the
//! launcher's standard input closes then.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

pub struct Server {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    launcher: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
}

/// The server of every test that leaves it alone.
pub fn shared() -> Arc<Server> {
    static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Arc::new(Server::start())).clone()
}

impl Server {
    pub fn start() -> Server {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/s3/s3.py");
        let mut child = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the launcher said why above: {line}"));
        let text = |name: &str| started[name].as_str().unwrap().to_string();
        Server {
            endpoint: text("endpoint"),
            access_key: text("access_key"),
            secret_key: text("secret_key"),
            region: text("region"),
            launcher: Mutex::new((child.stdin.take().unwrap(), output)),
            child,
        }
    }

    /// `kill`, `start`, `bucket NAME`.
    pub fn command(&self, command: &str) {
        let mut launcher = self.launcher.lock().unwrap();
        writeln!(launcher.0, "{command}").unwrap();
        let mut answer = String::new();
        launcher.1.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{command}");
    }

    /// The options with which a pipeline reaches it.
    pub fn options(&self) -> Vec<(String, String)> {
        [
            ("s3.endpoint", self.endpoint.as_str()),
            ("s3.region", &self.region),
            ("s3.access_key", &self.access_key),
            ("s3.secret_key", &self.secret_key),
            ("s3.path_style", "true"),
            ("s3.allow_http", "true"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asks the launcher to end and waits, so that the server is gone when the test is.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
