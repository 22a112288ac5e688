//! The trainer's process: a command of the pipeline's folder, its surroundings, its time limits and its end. In: files and settings as
//! environment variables. Out: exit 0, 75 or another; whatever it started ends with it.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Error, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::retrain::trainer_log::TrainerLog;

/// EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// How often a trainer that exits with 75 is run, and how long it rests before the second time; twice as long before each further one.
pub const ATTEMPTS_MAX: u32 = 3;
const REST_FIRST: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL: enough to remove a lock file, and well within the 10 s in which a pipeline ends.
const GRACE: Duration = Duration::from_secs(2);
/// How long what the trainer printed last is waited for once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often the wait looks at the clock, the process and `stop`.
const WATCH_EVERY: Duration = Duration::from_millis(10);
/// Lines on their way from the pipes. A trainer that prints faster waits.
const LINES_QUEUED_MAX: usize = 256;
/// The rest of a longer line counts as lines of its own.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How to run it.
#[derive(Debug, Clone)]
pub struct Trainer {
    /// For `sh -c`.
    pub command: String,
    /// The pipeline's folder.
    pub folder: PathBuf,
    /// Of one attempt, in machine time.
    pub timeout: Duration,
    /// It must print a line on stdout this often; None: it need not.
    pub heartbeat: Option<Duration>,
    /// Beside those of this process, and PYTHONHASHSEED=0.
    pub variables: Vec<(&'static str, OsString)>,
}

/// How an attempt, or all of them, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainerEnd {
    Done,
    TryAgain(String),
    /// Why, with the last lines of its stderr. Nothing of the machine's time is in it.
    Failed(String),
    /// The pipeline stops; the trainer was killed.
    Stopped,
}

/// The process groups of the trainers that run.
struct Groups(Mutex<Vec<Pid>>);

static RUNNING: Groups = Groups(Mutex::new(Vec::new()));

/// For a process that ends at once: SIGKILL for all trainers, and no further one starts. The runs themselves stop where they are, for a
/// trainer that is killed here has not failed. Only `exit` may follow.
pub fn kill_trainers() {
    // Held to the end: whoever starts a trainer or has seen one end waits for it.
    std::mem::forget(RUNNING.kill());
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) -> MutexGuard<'_, Vec<Pid>> {
        let groups = self.lock();
        for group in groups.iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        groups
    }
}

/// Runs attempts until one does not ask for another. `prepare` makes the output folder of each attempt, counted from 1, and its variables.
/// Errors: those of `prepare`, Unavailable for the log.
pub fn run_attempts(
    trainer: &Trainer,
    log: &Path,
    stop: &AtomicBool,
    mut prepare: impl FnMut(u32) -> Result<Vec<(&'static str, OsString)>>,
) -> Result<(TrainerEnd, u32)> {
    let mut log = TrainerLog::open(log)?;
    let mut rest = REST_FIRST;
    for attempt in 1.. {
        let mut trainer = trainer.clone();
        trainer.variables.extend(prepare(attempt)?);
        match trainer.run(&mut log, stop)? {
            TrainerEnd::TryAgain(reason) if attempt == ATTEMPTS_MAX => {
                return Ok((TrainerEnd::Failed(format!("the trainer asked to be tried again {ATTEMPTS_MAX} times{reason}")), attempt));
            }
            TrainerEnd::TryAgain(_) => {
                log.note("exit 75: trying again")?;
                if !waited(rest, stop) {
                    return Ok((TrainerEnd::Stopped, attempt));
                }
                rest *= 2;
            }
            end => return Ok((end, attempt)),
        }
    }
    unreachable!("the last attempt returns")
}

/// False if `stop` came first.
fn waited(length: Duration, stop: &AtomicBool) -> bool {
    let deadline = Instant::now() + length;
    while Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(WATCH_EVERY);
    }
    !stop.load(Ordering::Relaxed)
}

impl Trainer {
    /// One attempt.
    fn run(&self, log: &mut TrainerLog, stop: &AtomicBool) -> Result<TrainerEnd> {
        log.begin(&self.command)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).current_dir(&self.folder).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python orders sets by the hashes of strings, which are random in each process unless told otherwise; what a library writes in that
        // order would make another file of the same model, and the same run must bring the same bytes in every life.
        command.env("PYTHONHASHSEED", "0");
        // A group of its own: whatever it starts can be ended with it, and a Ctrl-C in the terminal is for Freshet first.
        command.process_group(0);
        let mut groups = RUNNING.lock();
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(TrainerEnd::Failed(format!("the trainer could not be started: {error}"))),
        };
        groups.push(Pid::from_child(&child));
        drop(groups);
        let mut running = RunningTrainer::start(child)?;
        let why = running.watch(self, log, stop)?;
        let status = running.end(why.is_some(), log)?;
        Ok(match why {
            Some(Why::Stop) => TrainerEnd::Stopped,
            Some(Why::Timeout) => TrainerEnd::Failed(format!("the trainer was killed after its timeout of {:?}", self.timeout)),
            Some(Why::Silent) => {
                let heartbeat = self.heartbeat.expect("silence counts only with a heartbeat");
                TrainerEnd::Failed(format!("the trainer was killed: it printed nothing for {heartbeat:?}"))
            }
            None => ended(status, &log.last_words()),
        })
    }
}

/// Why a trainer is killed.
enum Why {
    Stop,
    Timeout,
    Silent,
}

fn ended(status: ExitStatus, words: &str) -> TrainerEnd {
    match (status.code(), status.signal()) {
        (Some(0), _) => TrainerEnd::Done,
        (Some(TRY_AGAIN), _) => TrainerEnd::TryAgain(words.to_string()),
        (Some(127), _) => TrainerEnd::Failed(format!("the trainer's command was not found{words}")),
        (Some(126), _) => TrainerEnd::Failed(format!("the trainer's command is not executable{words}")),
        (Some(code), _) => TrainerEnd::Failed(format!("the trainer exited with {code}{words}")),
        (None, signal) => TrainerEnd::Failed(format!("the trainer was ended by signal {}{words}", signal.unwrap_or(0))),
    }
}

/// A line of the trainer.
pub enum Line {
    Out(String),
    Err(String),
}

/// The process, and the lines that come from it. Dropped while it runs, it is killed with its group.
struct RunningTrainer {
    child: Child,
    group: Pid,
    lines: Receiver<Line>,
    reaped: bool,
}

impl RunningTrainer {
    fn start(mut child: Child) -> Result<RunningTrainer> {
        let group = Pid::from_child(&child);
        let (tx, lines) = sync_channel(LINES_QUEUED_MAX);
        let (out, err) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let running = RunningTrainer { child, group, lines, reaped: false };
        read_lines(out, tx.clone(), Line::Out)?;
        read_lines(err, tx, Line::Err)?;
        Ok(running)
    }

    /// Until the process has ended (None) or must be killed. It is not reaped yet, so its number is still its own.
    fn watch(&mut self, trainer: &Trainer, log: &mut TrainerLog, stop: &AtomicBool) -> Result<Option<Why>> {
        let started = Instant::now();
        let mut heard = started;
        loop {
            match self.lines.recv_timeout(WATCH_EVERY) {
                Ok(line) => {
                    if matches!(line, Line::Out(_)) {
                        heard = Instant::now();
                    }
                    log.write(&line)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // It has closed its streams and goes on.
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(WATCH_EVERY),
            }
            if self.has_ended()? {
                return Ok(None);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Some(Why::Stop));
            }
            if started.elapsed() >= trainer.timeout {
                return Ok(Some(Why::Timeout));
            }
            if trainer.heartbeat.is_some_and(|heartbeat| heard.elapsed() >= heartbeat) {
                return Ok(Some(Why::Silent));
            }
        }
    }

    fn has_ended(&self) -> Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.group), options) {
            Ok(status) => Ok(status.is_some()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(Error::unavailable(format!("waiting for the trainer: {error}"))),
        }
    }

    /// Ends what is left of the group, writes down its last words, and reaps the process.
    fn end(mut self, kill: bool, log: &mut TrainerLog) -> Result<ExitStatus> {
        if kill {
            self.terminate(log)?;
        }
        // Also after an end of its own: what it started in the background must not outlive it.
        let _ = kill_process_group(self.group, Signal::KILL);
        let deadline = Instant::now() + LAST_WORDS;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            log.write(&line)?;
        }
        // Before it is reaped: afterwards the number may be another's.
        RUNNING.lock().retain(|group| *group != self.group);
        let status = self.child.wait().map_err(|error| Error::unavailable(format!("waiting for the trainer: {error}")))?;
        self.reaped = true;
        Ok(status)
    }

    /// SIGTERM, and time to clean up.
    fn terminate(&self, log: &mut TrainerLog) -> Result<()> {
        // It may have ended just now.
        let _ = kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && !self.has_ended()? {
            match self.lines.recv_timeout(WATCH_EVERY) {
                Ok(line) => log.write(&line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(WATCH_EVERY),
            }
        }
        Ok(())
    }
}

impl Drop for RunningTrainer {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.group, Signal::KILL);
            RUNNING.lock().retain(|group| *group != self.group);
            let _ = self.child.wait();
        }
    }
}

/// A thread that ends with the pipe, or with whoever listens.
fn read_lines(mut pipe: impl Read + Send + 'static, tx: SyncSender<Line>, wrap: fn(String) -> Line) -> Result<()> {
    let read = move || {
        let (mut buffer, mut line) = (vec![0; 8 << 10], Vec::new());
        while let Ok(bytes) = pipe.read(&mut buffer)
            && bytes > 0
        {
            for byte in &buffer[..bytes] {
                if *byte != b'\n' {
                    line.push(*byte);
                }
                if (*byte == b'\n' || line.len() == LINE_BYTES_MAX) && tx.send(wrap(take_text(&mut line))).is_err() {
                    return;
                }
            }
        }
        if !line.is_empty() {
            let _ = tx.send(wrap(take_text(&mut line)));
        }
    };
    let spawned = std::thread::Builder::new().name("freshet-trainer-output".into()).spawn(read);
    spawned.map(|_| ()).map_err(|error| Error::unavailable(format!("starting a thread: {error}")))
}

fn take_text(line: &mut Vec<u8>) -> String {
    String::from_utf8_lossy(&std::mem::take(line)).trim_end_matches('\r').to_string()
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
