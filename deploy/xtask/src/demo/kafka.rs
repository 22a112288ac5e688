//! The demo's streams in a real Kafka. In: the prepared files. Out: a broker with four topics of four partitions, filled by Freshet itself; it ends
//! with this value, or with this process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::report::python_of_the_setup;

const TOPICS: [&str; 4] = ["schedules", "departures", "arrivals", "weather"];
const PARTITIONS: u32 = 4;

pub struct Kafka {
    /// The launcher ends, and its broker with it, when this is closed.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    child: Child,
    /// `host:port`.
    pub brokers: String,
}

impl Kafka {
    /// A broker of its own on a free port, with empty topics. Errors: no Java, no jars, or it does not start; the reason stands on stderr.
    pub fn start(root: &Path) -> Result<Kafka> {
        let mut command = Command::new(python_of_the_setup());
        command.arg(root.join("deploy/kafka/kafka.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting deploy/kafka/kafka.py")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the launcher has no output")?);
        let mut kafka = Kafka { input, output, child, brokers: String::new() };
        let started: Value = serde_json::from_str(&kafka.line()?).context("Kafka did not start; the reason stands above")?;
        kafka.brokers = started["bootstrap"].as_str().context("the launcher names no address")?.to_string();
        for topic in TOPICS {
            kafka.obey(&format!("topic {topic} {PARTITIONS}"))?;
        }
        Ok(kafka)
    }

    /// Writes the files to the topics. Errors: the run failed; its message stands on stderr.
    pub fn fill(&self, binary: &Path, pipeline: &Path, data: &Path) -> Result<()> {
        let started = Instant::now();
        println!("filling {} topics of {PARTITIONS} partitions at {}", TOPICS.len(), self.brokers);
        let mut command = Command::new(binary);
        command.arg("run").arg(pipeline.join("sources.sql")).arg(pipeline.join("kafka/fill/fill.sql"));
        command.args(["--var", &format!("data={}", data.display()), "--var", &format!("brokers={}", self.brokers)]);
        let state = data.join("demo-fill");
        if state.exists() {
            std::fs::remove_dir_all(&state).with_context(|| format!("removing {}", state.display()))?;
        }
        command.arg("--data-dir").arg(&state).args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let status = command.stdout(Stdio::null()).status().with_context(|| format!("starting {}", binary.display()))?;
        ensure!(status.success(), "the topics could not be filled ({status})");
        std::fs::remove_dir_all(&state).with_context(|| format!("removing {}", state.display()))?;
        println!("filled in {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    fn obey(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("the launcher has been told to end")?;
        writeln!(input, "{command}").and_then(|()| input.flush()).context("telling the launcher of Kafka")?;
        let answer = self.line()?;
        ensure!(answer == "ok", "{command}: {answer}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("reading from the launcher of Kafka")?;
        Ok(line.trim_end().to_string())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
