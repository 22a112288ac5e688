//! A real Kafka for a suite. In: nothing; the jars are those of `./dev setup`. Out: a broker on a free port, which ends with this value.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

pub struct Broker {
    /// The launcher ends, and its broker with it, when this is closed.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    child: Child,
    /// `host:port`.
    pub servers: String,
}

impl Broker {
    /// Errors: no Java, no jars, or it does not start; the reason stands on stderr.
    pub fn start() -> Result<Broker> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/kafka.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--heap", "1g"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting deploy/kafka/kafka.py")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the launcher has no output")?);
        let mut broker = Broker { input, output, child, servers: String::new() };
        let line = broker.line()?;
        let started: serde_json::Value = serde_json::from_str(&line).context("Kafka did not start; the reason stands above")?;
        broker.servers = started["bootstrap"].as_str().context("the launcher names no address")?.to_string();
        Ok(broker)
    }

    pub fn topic(&mut self, name: &str, partitions: u32) -> Result<()> {
        let input = self.input.as_mut().context("the launcher has been told to end")?;
        writeln!(input, "topic {name} {partitions}").and_then(|()| input.flush()).context("telling the launcher of Kafka")?;
        let answer = self.line()?;
        ensure!(answer == "ok", "topic {name}: {answer}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("reading from the launcher of Kafka")?;
        Ok(line.trim_end().to_string())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
