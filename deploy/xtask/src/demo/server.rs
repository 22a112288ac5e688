//! The demo's `freshet` process. In: pipeline and data. Out: its addresses, progress and end; whatever happens here, no process is left behind.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::report::python_of_the_setup;
use crate::http;

const FLIGHT_PORT: u16 = 8815;
const HTTP_PORT: u16 = 8816;
/// What the line of progress ends with: the newest month that has outcomes.
const WATCHED: &str = "SELECT month, auc_live, auc_frozen FROM quality ORDER BY month DESC LIMIT 1";
/// The run's data directory, in its folder.
const STATE: &str = "state";
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Many times what the year takes on two slow cores.
const REPLAY_WAIT_MAX: Duration = Duration::from_secs(1_800);
/// The binary promises to end within 10 s of SIGTERM.
const STOP_WAIT_MAX: Duration = Duration::from_secs(15);

pub struct Server {
    child: Child,
    started: Instant,
    pub flight: SocketAddr,
    pub http: SocketAddr,
    /// Where the run writes its state and sinks; new for each demo.
    pub folder: PathBuf,
}

/// The replay as the server itself counted it.
pub struct Replay {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub status: Value,
}

impl Server {
    /// Starts the binary over a folder of its own below the data, from files or from these brokers. Errors: the folder cannot be written, no port is free.
    pub fn start(binary: &Path, pipeline: &Path, data: &Path, brokers: Option<&str>) -> Result<Server> {
        let folder = data.join("demo-run");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing the earlier run in {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let (flight, http) = (free_address(FLIGHT_PORT)?, free_address(HTTP_PORT)?);
        let variable = |name: &str, path: &Path| format!("{name}={}", path.display());
        let mut command = Command::new(binary);
        command.arg("run").arg("--keep");
        match brokers {
            None => command.arg(pipeline),
            Some(brokers) => command.arg(pipeline.join("kafka")).arg(pipeline.join("pipeline.sql")).args(["--var", &format!("brokers={brokers}")]),
        };
        command.args(["--var", &variable("data", data), "--var", &variable("out", &folder)]);
        command.args(["--var", &format!("python={}", python_of_the_setup())]);
        command.args(["--progress", "--watch", WATCHED]);
        command.arg("--data-dir").arg(folder.join(STATE));
        command.args(["--flight", &flight.to_string(), "--http", &http.to_string()]);
        let child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        Ok(Server { child, started: Instant::now(), flight, http, folder })
    }

    /// Where the server keeps its state, models and runs.
    pub fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    /// Waits until every source has ended, every view is complete and /readyz agrees.
    pub fn wait_until_finished(&mut self) -> Result<Replay> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("freshet ended during the replay ({status}); its message stands above");
            }
            if let Some(status) = self.status() {
                if let Some(failure) = status["failure"].as_str() {
                    bail!("the pipeline failed: {failure}");
                }
                let ready = status["finished"] == true && http::get(self.http, "/readyz").is_ok_and(|answer| answer.status == 200);
                if ready {
                    return Ok(Replay { seconds: self.started.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds(self.child.id())?, status });
                }
            }
            ensure!(self.started.elapsed() < REPLAY_WAIT_MAX, "the replay did not finish within {} s", REPLAY_WAIT_MAX.as_secs());
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// None while the server is not listening yet.
    fn status(&self) -> Option<Value> {
        let answer = http::get(self.http, "/v1/status").ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Asks it to end and waits. Errors: it did not end in time (then it is killed), or not cleanly.
    pub fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().context("starting kill")?;
        ensure!(asked.success(), "freshet could not be asked to stop");
        let since = Instant::now();
        while since.elapsed() < STOP_WAIT_MAX {
            if let Some(status) = self.child.try_wait()? {
                return check_end(status);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        bail!("freshet did not end within {} s of SIGTERM", STOP_WAIT_MAX.as_secs())
    }

    /// Until somebody interrupts it.
    pub fn wait_until_ended(mut self) -> Result<()> {
        check_end(self.child.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a regular end both calls find nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 0, and the ends by signal (130, 143), are clean.
fn check_end(status: ExitStatus) -> Result<()> {
    ensure!(matches!(status.code(), Some(0 | 130 | 143)), "freshet ended with {status}");
    Ok(())
}

/// The usual port if nobody has it, else any free one.
fn free_address(port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    Ok(listener.context("finding a free port")?.local_addr()?)
}

/// User and system time of a process so far.
fn cpu_seconds(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).context("reading the CPU time of freshet")?;
    parse_cpu_seconds(&text).context("the process's stat file has another shape")
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name may hold spaces and parentheses: fields are counted from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux reports clock ticks of 1/100 s on every platform we run on.
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_plus_system() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0 9 0 1 1 1";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert_eq!(parse_cpu_seconds("7 (a"), None);
    }

    #[test]
    fn a_taken_port_is_avoided() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_address(port).unwrap().port(), port);
    }
}
