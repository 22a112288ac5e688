//! A part of a suite in a process of its own, so that its memory and its pauses are not the engine's. In: the words that this program is started
//! with again. Out: lines of what it prints; it ends with this value.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

pub struct Role {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Role {
    pub fn start(words: &[&str]) -> Result<Role> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting this program as {}", words.join(" ")))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        Ok(Role { child, input, output })
    }

    /// Waits for the next line.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line).context("reading what it prints")? > 0, "it has ended early; the reason stands above");
        Ok(line.trim_end().to_string())
    }

    /// Closes its standard input, which asks it to come to an end.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("asking for its end")?.is_none())
    }

    /// STOP lets it stand where it is, CONT lets it go on.
    pub fn signal(&self, name: &str) -> Result<()> {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().context("starting kill")?;
        ensure!(done.success(), "signal {name} could not be sent");
        Ok(())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of this process that is in use now, in bytes. Errors: no /proc on this system.
pub fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status; benches run on Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/self/status has another shape")?;
    let kib: u64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).context("/proc/self/status has another shape")?;
    Ok(kib << 10)
}
