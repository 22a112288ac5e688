//! A child process as the supervisor sees it. In: an order. Out: its reports, and how it ended: status, last words, and the records it was
//! computing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use crate::exit::{BAD_RECORD, WRONG};
use crate::serve::catalog::{Catalog, write_atomically};
use crate::serve::generation::Checked;
use crate::serve::journal::read_notes;
use crate::serve::link::NOTES;
use crate::serve::machine::{Cause, Ending};
use crate::serve::order::{Order, Submission};
use crate::serve::report::Report;

/// What a generation may write to its log; then it begins anew.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Logs that are kept, one a generation.
const LOGS_KEPT: usize = 10;
/// How much of the end of a log is looked at, and how many of its lines are the last words.
const WORDS_BYTES_MAX: u64 = 64 << 10;
const WORDS_LINES_MAX: usize = 4;
/// How lines begin that every generation may write and that tell nothing of its end.
const USUAL_WORDS: [&str; 4] = ["note: run with", "warning: ", "help: ", "resumed at "];
/// What the dead has still to say in the pipe.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// How often a child is asked whether it still lives.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Reports that wait for the keeper; then the child waits in its pipe, which costs it nothing but reports.
const REPORTS_MAX: usize = 64;
/// A script is compiled in milliseconds, on a busy machine in seconds.
const CHECK_MAX: Duration = Duration::from_secs(60);

pub struct Process {
    child: Child,
    stdin: ChildStdin,
    reports: mpsc::Receiver<Report>,
    log: PathBuf,
    notes: PathBuf,
}

/// What a child did.
pub enum Happened {
    Reported(Report),
    Exited(ExitStatus),
}

impl Process {
    /// Starts a generation. Errors: its folder or the binary is gone, or the system gives no process.
    pub fn start(order: &Order, catalog: &Catalog) -> Result<Process> {
        let name = &order.submission.name;
        std::fs::create_dir_all(&order.data_dir).with_context(|| format!("making {}", order.data_dir.display()))?;
        let path = order.data_dir.join("order.json");
        write_atomically(&path, &serde_json::to_vec_pretty(order)?)?;
        let log = open_log(&catalog.logs(name), order.generation)?;
        let mut command = command(&order.submission)?;
        command.arg("generation").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::options().create(true).append(true).open(&log).with_context(|| format!("making {}", log.display()))?);
        let mut child = command.spawn().with_context(|| format!("starting a process in {}", order.submission.directory.display()))?;
        let (stdin, stdout) = (child.stdin.take().context("stdin is a pipe")?, child.stdout.take().context("stdout is a pipe")?);
        let (tx, reports) = mpsc::channel(REPORTS_MAX);
        std::thread::Builder::new().name(format!("hears {name}")).spawn(move || hear(stdout, &tx)).context("starting a thread")?;
        Ok(Process { child, stdin, reports, log, notes: order.data_dir.join(NOTES) })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it takes; None: it has ended, or the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())?;
        Some(kib * 1024)
    }

    /// The next report, or the end. May be called again after it was dropped unfinished.
    pub async fn next(&mut self) -> Happened {
        loop {
            if let Ok(report) = tokio::time::timeout(LOOK_EVERY, self.reports.recv()).await {
                match report {
                    Some(report) => return Happened::Reported(report),
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
            match self.child.try_wait() {
                Ok(Some(status)) => return Happened::Exited(status),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a child cannot be waited for"),
            }
        }
    }

    /// What it said last, after its end.
    pub async fn rest(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        // A process that it started may hold the pipe open.
        while let Ok(Some(report)) = tokio::time::timeout(DRAIN_MAX, self.reports.recv()).await {
            reports.push(report);
        }
        reports
    }

    /// A word to the child. One that cannot hear it ends by itself or is killed.
    pub fn tell(&mut self, word: &str) {
        if let Err(error) = self.stdin.write_all(format!("{word}\n").as_bytes()) {
            tracing::debug!(%error, word, "a child hears nothing");
        }
    }

    pub fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            tracing::debug!(%error, "a child has ended already");
        }
    }

    /// Keeps the log within its bound: the process appends, so it goes on at the beginning.
    pub fn bound_log(&self) {
        if std::fs::metadata(&self.log).is_ok_and(|found| found.len() > LOG_BYTES_MAX)
            && let Ok(log) = File::options().write(true).open(&self.log)
        {
            let _ = log.set_len(0);
        }
    }

    pub fn ending(&self, status: ExitStatus) -> Ending {
        let cause = match status.code() {
            Some(0) => Cause::Clean,
            Some(code) if code == i32::from(WRONG) || code == i32::from(BAD_RECORD) => Cause::Final,
            _ => Cause::Crash,
        };
        Ending { status: status_text(status), words: last_words(&self.log), left: read_notes(&self.notes), cause }
    }
}

impl Drop for Process {
    /// Nobody would hear of it again.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(stdout: ChildStdout, reports: &mpsc::Sender<Report>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(report) => {
                if reports.blocking_send(report).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, line, "a child's report is not understood"),
        }
    }
}

/// Compiles a submission in a process of its own: a compiler that falls takes nobody with it.
pub async fn check(submission: &Submission, folder: &Path) -> Result<Checked> {
    let draft = |kind: &str| folder.join(format!("{}.{kind}", submission.name));
    let (path, answer, words) = (draft("submitted"), draft("checked"), draft("said"));
    write_atomically(&path, &serde_json::to_vec(submission)?)?;
    let mut command = command(submission)?;
    command.args(["generation", "--check"]).arg(&path).stdin(Stdio::null()).stdout(File::create(&answer)?).stderr(File::create(&words)?);
    let mut child = command.spawn().with_context(|| format!("starting a process in {}", submission.directory.display()))?;
    let deadline = Instant::now() + CHECK_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let (answered, said) = (std::fs::read(&answer)?, last_words(&words));
    [path, answer, words].iter().for_each(|file| drop(std::fs::remove_file(file)));
    let status = status.with_context(|| format!("compiling took more than {} s", CHECK_MAX.as_secs()))?;
    serde_json::from_slice(&answered).with_context(|| format!("the compiler ended with {}: {said}", status_text(status)))
}

/// This binary, where the submission's paths begin. A Ctrl-C in the terminal of the server is not meant for it.
fn command(submission: &Submission) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this binary")?);
    command.current_dir(&submission.directory).process_group(0);
    Ok(command)
}

fn open_log(folder: &Path, generation: u64) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut logs: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    logs.sort();
    for old in logs.iter().rev().skip(LOGS_KEPT - 1) {
        let _ = std::fs::remove_file(old);
    }
    Ok(folder.join(format!("{generation:08}.log")))
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(6)) => "aborted (SIGABRT)".to_string(),
        (None, Some(9)) => "killed by SIGKILL".to_string(),
        (None, Some(11)) => "killed by SIGSEGV".to_string(),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    }
}

/// The last lines of a log, as one.
fn last_words(log: &Path) -> String {
    let Ok(mut file) = File::open(log) else { return String::new() };
    let length = file.metadata().map_or(0, |found| found.len());
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(length.saturating_sub(WORDS_BYTES_MAX))).and_then(|_| file.read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty() && !USUAL_WORDS.iter().any(|usual| line.starts_with(usual)));
    let lines: Vec<&str> = said.collect();
    // A panic tells most in its first two lines; what follows is the way there.
    let panic = lines.iter().rposition(|line| line.contains(" panicked at ")).map(|at| &lines[at..(at + 2).min(lines.len())]);
    panic.unwrap_or(&lines[lines.len().saturating_sub(WORDS_LINES_MAX)..]).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_a_panic_or_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1.log");
        std::fs::write(&log, format!("{}\nthread 'w' panicked at x.rs:1:2:\nboom\nstack backtrace:\n  0: f\n\nthe end\n", "noise ".repeat(20_000)))
            .unwrap();
        let words = last_words(&log);
        assert_eq!(words, "thread 'w' panicked at x.rs:1:2: boom");
        std::fs::write(&log, "a\nb\n\nerror: c\nd\nmemory allocation of 5 bytes failed\n").unwrap();
        assert_eq!(last_words(&log), "b error: c d memory allocation of 5 bytes failed");
        assert_eq!(last_words(&folder.path().join("none")), "");
        std::fs::write(&log, "warning: p.sql:1:2: state grows\n  help: LATENESS\nresumed at 2026-01-01 00:00, after 5 events\n").unwrap();
        assert_eq!(last_words(&log), "", "who was killed said nothing");
    }

    #[test]
    fn only_the_newest_logs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for generation in 0..30 {
            std::fs::write(open_log(folder.path(), generation).unwrap(), "x").unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), LOGS_KEPT);
        assert!(folder.path().join("00000029.log").exists());
    }
}
