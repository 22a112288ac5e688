//! The life of one pipeline, as a pure function: (state, event, time) → (state, actions). `keeper.rs` performs the actions.
//!
//! What the operator wants is `desired`; what is the case is `phase`. At most one child process lives at a time.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::serve::journal::Left;
use crate::serve::order::{Mode, Offsets, Submission};
use crate::serve::report::{Beat, Report};

/// So many crashes without progress in between, and the pipeline is not started again: another try would end the same way.
pub const CRASHES_MAX: u32 = 3;
/// The wait before a restart: 1 s, doubled for each crash up to 30 s, and 1 s again after a minute of health.
pub const BACKOFF_MS_MIN: u64 = 1_000;
pub const BACKOFF_MS_MAX: u64 = 30_000;
pub const HEALTHY_MS: u64 = 60_000;
/// Crashes that are remembered.
pub const CRASHES_KEPT: usize = 10;
/// How long a child may take to end when it is told to. The supervisor itself has 10 s.
pub const STOP_MS_MAX: u64 = 9_500;
/// How long a start may take: state of many millions of keys is read in seconds.
pub const START_MS_MAX: u64 = 600_000;
/// Rows of a step that may hold the cause of a crash: after the first crash, and after the second, when few rows are left to suspect.
const SUSPECT_ROWS: [usize; 2] = [64, 1];

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    Running,
    Paused,
    Stopped,
}

/// What is the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    Running,
    /// All input has been taken in; it still answers.
    Finished,
    Pausing,
    Paused,
    Stopping,
    Stopped,
    /// It crashed and starts again soon.
    Restarting,
    /// It crashed again and again without progress. The last state is served.
    CrashLooping,
    /// Starting it again would not help. The last state is served if there is one.
    Failed,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Finished => "finished",
            Phase::Pausing => "pausing",
            Phase::Paused => "paused",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::Restarting => "restarting",
            Phase::CrashLooping => "crash_looping",
            Phase::Failed => "failed",
        }
    }
}

/// What is written down of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub submission: Submission,
    pub desired: Desired,
    pub generation: u64,
    /// Crashes and kills since it was submitted.
    pub restarts: u64,
    pub skips: Vec<Offsets>,
    /// It is not started again until somebody resumes it.
    pub halt: Option<Halt>,
    /// The last ones, oldest first.
    pub crashes: Vec<Crash>,
    pub flight: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Halt {
    pub phase: Phase,
    pub reason: String,
    pub since: u64,
}

/// How a generation ended that was not told to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Crash {
    pub generation: u64,
    pub at: u64,
    /// `killed by SIGKILL`, `exit code 1`.
    pub status: String,
    /// What the process said last.
    pub words: String,
    /// The records of the steps that were open.
    pub batch: Vec<Offsets>,
    /// Events before the checkpoint it had gone on from.
    pub resumed_events: Option<u64>,
}

impl Crash {
    /// One line for people.
    pub fn sentence(&self) -> String {
        let batch = match self.batch.as_slice() {
            [] => "no records were being computed".to_string(),
            some => format!("while computing {}", some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        };
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words) };
        format!("{}, {batch}{words}", self.status)
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    pub status: String,
    pub words: String,
    pub left: Left,
    pub cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It ended in order, with its checkpoint.
    Clean,
    /// The system gave no process, or no room for what it is told: no fault of the pipeline's.
    NotStarted,
    /// A panic, a signal, an error while running.
    Crash,
    /// The SQL, the configuration or a record under bad_data = 'fail': a restart would end the same way.
    Final,
}

pub enum Event {
    /// The supervisor has started, or the pipeline has been submitted.
    Begin,
    Pause,
    Stop,
    Resume(Vec<Offsets>),
    /// The supervisor ends; what the operator wants stays.
    Leave,
    Reported(Report),
    Exited(Ending),
    Tick,
    /// The process takes so many bytes of memory.
    Resident(u64),
    /// The clock shows so many ms more than have been lived through: it was set, or the supervisor or the machine had been stopped.
    Jumped(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start a child. The order is that of the machine.
    Start(Mode),
    TellPause,
    TellStop,
    Kill,
    /// Write the record down.
    Save,
    /// Nothing more will happen.
    Done,
}

/// One pipeline.
pub struct Machine {
    pub record: Record,
    pub phase: Phase,
    pub reason: Option<String>,
    pub since: u64,
    pub child: Option<Child>,
    /// Crashes without progress, and since the last minute of health.
    streak: u32,
    backoffs: u32,
    /// When a waiting pipeline starts again.
    due: Option<u64>,
    /// Serve-only children that ended by themselves.
    serving_failures: u32,
    leaving: bool,
    stuck_ms: u64,
}

/// The process that lives.
#[derive(Debug, Clone)]
pub struct Child {
    pub mode: Mode,
    pub ready: bool,
    pub started: u64,
    /// When it last said anything.
    pub heard: u64,
    pub beat: Option<Beat>,
    /// The last instant at which it got on, or had nothing to do.
    pub moved: u64,
    /// When it is killed if it has not ended.
    deadline: Option<u64>,
    /// Why it was killed.
    killed: Option<String>,
    /// Its own last error was that something outside was not there.
    unavailable: bool,
}

impl Machine {
    /// `stuck_ms`: without progress for so long, a generation is replaced.
    pub fn new(record: Record, stuck_ms: u64, now: u64) -> Machine {
        let phase = match (record.desired, &record.halt) {
            (Desired::Stopped, _) => Phase::Stopped,
            (Desired::Paused, _) => Phase::Paused,
            (Desired::Running, Some(halt)) => halt.phase,
            (Desired::Running, None) => Phase::Starting,
        };
        Machine {
            record,
            phase,
            reason: None,
            since: now,
            child: None,
            streak: 0,
            backoffs: 0,
            due: None,
            serving_failures: 0,
            leaving: false,
            stuck_ms,
        }
    }

    /// Errors: the operator asked for what cannot be; nothing has changed then.
    pub fn step(&mut self, event: Event, now: u64) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        match event {
            Event::Begin => self.begin(now, &mut actions),
            Event::Pause => self.pause(now, &mut actions)?,
            Event::Stop => self.stop(now, &mut actions),
            Event::Resume(skips) => self.resume(skips, now, &mut actions)?,
            Event::Leave => self.leave(now, &mut actions),
            Event::Reported(report) => self.reported(report, now, &mut actions),
            Event::Exited(ending) => self.exited(ending, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
            Event::Resident(bytes) => self.resident(bytes, &mut actions),
            Event::Jumped(ms) => self.jumped(ms),
        }
        Ok(actions)
    }

    fn resident(&mut self, bytes: u64, actions: &mut Vec<Action>) {
        let Some(limit) = self.record.submission.memory_bytes.filter(|limit| bytes > *limit) else { return };
        let Some(child) = self.child.as_mut().filter(|child| child.killed.is_none()) else { return };
        child.killed = Some(format!("it took {} MiB of memory, more than the {} MiB of --memory", bytes >> 20, limit >> 20));
        actions.push(Action::Kill);
    }

    /// Nobody was silent or late in time that nobody lived through.
    fn jumped(&mut self, ms: i64) {
        let moved = |at: &mut u64| *at = at.saturating_add_signed(ms);
        self.due.iter_mut().for_each(moved);
        if let Some(child) = &mut self.child {
            [&mut child.started, &mut child.heard, &mut child.moved].into_iter().chain(&mut child.deadline).for_each(moved);
        }
    }

    /// What the next generation looks at closely, and how many rows it takes at a time.
    pub fn suspects(&self) -> (Vec<Offsets>, Option<usize>) {
        let Some(crash) = self.record.crashes.last().filter(|_| self.streak > 0) else { return (Vec::new(), None) };
        (crash.batch.clone(), Some(SUSPECT_ROWS[(self.streak as usize - 1).min(1)]))
    }

    fn begin(&mut self, now: u64, actions: &mut Vec<Action>) {
        match (self.record.desired, self.record.halt.clone()) {
            (Desired::Stopped, _) => self.enter(Phase::Stopped, None, now),
            (Desired::Paused, _) => self.serve_only(Phase::Paused, None, now, actions),
            (Desired::Running, Some(halt)) => {
                self.serve_only(halt.phase, Some(halt.reason), now, actions);
                self.since = halt.since;
            }
            (Desired::Running, None) => self.start(now, actions),
        }
    }

    fn start(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.serving_failures = 0;
        self.enter(Phase::Starting, None, now);
        self.launch(Mode::Run, now, actions);
    }

    fn serve_only(&mut self, phase: Phase, reason: Option<String>, now: u64, actions: &mut Vec<Action>) {
        self.enter(phase, reason, now);
        self.launch(Mode::ServeOnly, now, actions);
    }

    fn launch(&mut self, mode: Mode, now: u64, actions: &mut Vec<Action>) {
        assert!(self.child.is_none());
        self.due = None;
        self.record.generation += 1;
        self.child =
            Some(Child { mode, ready: false, started: now, heard: now, beat: None, moved: now, deadline: None, killed: None, unavailable: false });
        actions.extend([Action::Save, Action::Start(mode)]);
    }

    fn enter(&mut self, phase: Phase, reason: Option<String>, now: u64) {
        if self.phase != phase {
            self.since = now;
        }
        (self.phase, self.reason) = (phase, reason);
    }

    fn pause(&mut self, now: u64, actions: &mut Vec<Action>) -> Result<(), String> {
        match self.phase {
            Phase::Paused | Phase::Pausing => return Ok(()),
            Phase::CrashLooping | Phase::Failed => {
                return Err(format!("it is {} and reads nothing; its last state is served already", self.phase.name()));
            }
            _ => {}
        }
        self.record.desired = Desired::Paused;
        match (&mut self.child, self.phase) {
            (Some(child), Phase::Running | Phase::Finished) => {
                child.deadline = Some(now + STOP_MS_MAX);
                self.enter(Phase::Pausing, None, now);
                actions.extend([Action::Save, Action::TellPause]);
            }
            // Half started it cannot pause; it begins anew, without reading.
            (Some(_), _) => self.end_child(now, actions),
            (None, _) => self.serve_only(Phase::Paused, None, now, actions),
        }
        Ok(())
    }

    fn stop(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.record.desired = Desired::Stopped;
        self.record.halt = None;
        self.due = None;
        if self.child.is_some() {
            self.end_child(now, actions);
        } else {
            self.enter(Phase::Stopped, None, now);
            actions.push(Action::Save);
        }
    }

    fn resume(&mut self, skips: Vec<Offsets>, now: u64, actions: &mut Vec<Action>) -> Result<(), String> {
        if matches!(self.phase, Phase::Starting | Phase::Running | Phase::Finished) {
            return if skips.is_empty() { Ok(()) } else { Err("it is running; pause it first, offsets are skipped from a start on".to_string()) };
        }
        for skip in skips {
            if !self.record.skips.contains(&skip) {
                self.record.skips.push(skip);
            }
        }
        self.record.desired = Desired::Running;
        self.record.halt = None;
        (self.streak, self.backoffs) = (0, 0);
        if self.child.is_some() {
            self.end_child(now, actions);
        } else {
            self.start(now, actions);
        }
        Ok(())
    }

    fn leave(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.leaving = true;
        self.due = None;
        if self.child.is_some() {
            self.end_child(now, actions);
        } else {
            actions.push(Action::Done);
        }
    }

    /// Tells the child to end; what comes after its end is decided there.
    fn end_child(&mut self, now: u64, actions: &mut Vec<Action>) {
        actions.push(Action::Save);
        if self.phase == Phase::Stopping {
            // A second word would end it at once, without its checkpoint.
            return;
        }
        self.enter(Phase::Stopping, None, now);
        if let Some(child) = &mut self.child {
            child.deadline = Some(now + STOP_MS_MAX);
        }
        actions.push(Action::TellStop);
    }

    fn reported(&mut self, report: Report, now: u64, actions: &mut Vec<Action>) {
        let Some(child) = &mut self.child else { return };
        child.heard = now;
        match report {
            Report::Starting => {}
            Report::Failed { kind, message } => {
                child.unavailable = kind == "unavailable" && !child.ready;
                tracing::warn!(pipeline = self.record.submission.name, message, "a generation ends");
            }
            Report::Ready { flight, http } => {
                child.ready = true;
                (self.record.flight, self.record.http) = (Some(flight), Some(http));
                if self.phase == Phase::Starting {
                    self.enter(Phase::Running, None, now);
                }
                actions.push(Action::Save);
            }
            Report::Paused => {
                if self.phase == Phase::Pausing {
                    child.deadline = None;
                    self.enter(Phase::Paused, None, now);
                }
            }
            Report::Beat(beat) => {
                if moves(child, &beat) {
                    child.moved = now;
                }
                let (finished, mode) = (beat.finished, child.mode);
                child.beat = Some(*beat);
                if mode == Mode::Run && finished && self.phase == Phase::Running {
                    self.enter(Phase::Finished, None, now);
                }
            }
        }
    }

    fn exited(&mut self, ending: Ending, now: u64, actions: &mut Vec<Action>) {
        let Some(child) = self.child.take() else { return };
        if self.leaving {
            actions.push(Action::Done);
            return;
        }
        let ending = match &child.killed {
            Some(why) => Ending { status: format!("{} ({why})", ending.status), ..ending },
            None => ending,
        };
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Finished => self.crashed(&child, ending, now, actions),
            Phase::Stopping => match self.record.desired {
                Desired::Stopped => {
                    let loses = child.ready && child.mode == Mode::Run && ending.cause != Cause::Clean;
                    let reason = loses.then(|| format!("it ended without its last checkpoint: {}: {}", ending.status, ending.words));
                    self.enter(Phase::Stopped, reason, now);
                }
                Desired::Paused => self.serve_only(Phase::Paused, None, now, actions),
                Desired::Running => self.start(now, actions),
            },
            // It ended while it was to pause: the last checkpoint is what is left.
            Phase::Pausing => self.serve_only(Phase::Paused, Some(format!("it ended while it paused: {}", ending.status)), now, actions),
            Phase::Paused | Phase::CrashLooping | Phase::Failed => self.serving_failed(&child, ending, now),
            Phase::Stopped | Phase::Restarting => {}
        }
    }

    fn crashed(&mut self, child: &Child, ending: Ending, now: u64, actions: &mut Vec<Action>) {
        let Left { resumed_events, batch } = ending.left;
        let crash = Crash { generation: self.record.generation, at: now, status: ending.status, words: ending.words, batch, resumed_events };
        // It got on if it began beyond where those before it had begun, or was well for a while. One that ended before it began tells nothing.
        let before = self.record.crashes.iter().filter_map(|crash| crash.resumed_events).max();
        let healthy = child.ready && now.saturating_sub(child.started) >= HEALTHY_MS;
        let moved = resumed_events.zip(before).is_some_and(|(now, before)| now > before);
        self.streak = if healthy || moved { 1 } else { self.streak + 1 };
        self.backoffs = if healthy { 0 } else { self.backoffs };
        let sentence = crash.sentence();
        self.record.restarts += 1;
        self.record.crashes.push(crash);
        let surplus = self.record.crashes.len().saturating_sub(CRASHES_KEPT);
        self.record.crashes.drain(..surplus);
        match ending.cause {
            Cause::Final => self.halt(Phase::Failed, sentence, now, actions),
            // A start later may help, however often it takes.
            cause if child.unavailable || cause == Cause::NotStarted => {
                self.streak -= 1;
                self.wait(sentence, now, actions);
            }
            _ if self.streak >= CRASHES_MAX => {
                let reason = format!("{CRASHES_MAX} crashes without progress; the last one: {sentence}");
                self.halt(Phase::CrashLooping, reason, now, actions);
            }
            _ => self.wait(sentence, now, actions),
        }
    }

    fn wait(&mut self, reason: String, now: u64, actions: &mut Vec<Action>) {
        self.due = Some(now + backoff_ms(self.backoffs));
        self.backoffs += 1;
        self.enter(Phase::Restarting, Some(reason), now);
        actions.push(Action::Save);
    }

    fn halt(&mut self, phase: Phase, reason: String, now: u64, actions: &mut Vec<Action>) {
        self.serving_failures = 0;
        self.record.halt = Some(Halt { phase, reason: reason.clone(), since: now });
        self.serve_only(phase, Some(reason), now, actions);
    }

    /// Who only serves starts again a few times, or as often as it takes if that was not its fault.
    fn serving_failed(&mut self, child: &Child, ending: Ending, now: u64) {
        if child.unavailable || ending.cause == Cause::NotStarted {
            tracing::warn!(pipeline = self.record.submission.name, status = ending.status, "the last state cannot be served yet");
            self.due = Some(now + backoff_ms(self.backoffs));
            self.backoffs += 1;
            return;
        }
        self.serving_failures += 1;
        if self.serving_failures < CRASHES_MAX {
            self.due = Some(now + backoff_ms(self.serving_failures - 1));
            return;
        }
        let reason = self.reason.take().map_or_else(String::new, |reason| format!("{reason}; "));
        self.reason = Some(format!("{reason}its last state cannot be served: {}: {}", ending.status, ending.words));
    }

    fn tick(&mut self, now: u64, actions: &mut Vec<Action>) {
        if self.due.is_some_and(|due| due <= now) && self.child.is_none() {
            match self.phase {
                Phase::Restarting => self.start(now, actions),
                Phase::Paused | Phase::CrashLooping | Phase::Failed => {
                    let reason = self.reason.clone();
                    self.serve_only(self.phase, reason, now, actions);
                }
                _ => self.due = None,
            }
        }
        let (stuck_ms, phase) = (self.stuck_ms, self.phase);
        let Some(child) = &mut self.child else { return };
        let overdue = child.deadline.is_some_and(|deadline| deadline <= now).then(|| "it did not end in time".to_string());
        let silent = (now.saturating_sub(child.heard) >= stuck_ms).then(|| format!("it had not been heard of for {} s", stuck_ms as f64 / 1000.0));
        let late = (phase == Phase::Starting && now.saturating_sub(child.started) >= START_MS_MAX)
            .then(|| format!("it was not up after {} s", START_MS_MAX / 1000));
        let stuck = (phase == Phase::Running && now.saturating_sub(child.moved) >= stuck_ms).then(|| {
            let steps = child.beat.as_ref().map_or(0, |beat| beat.open_steps);
            format!("it had not got on for {} s, with {steps} steps open", stuck_ms as f64 / 1000.0)
        });
        if let (Some(why), None) = (overdue.or(silent).or(late).or(stuck), &child.killed) {
            child.killed = Some(why);
            actions.push(Action::Kill);
        }
    }
}

/// Whether the pipeline got on since the last beat, or has no reason to.
fn moves(child: &Child, beat: &Beat) -> bool {
    let Some(before) = &child.beat else { return true };
    // Time passes by itself in wall clock; in event clock only input moves it, and whoever asks for some in vain does what it should.
    let nothing_to_do = beat.clock != "wall" && beat.open_steps == 0 && before.polls != beat.polls;
    before.closed != beat.closed || before.events != beat.events || nothing_to_do || beat.finished || beat.waits
}

fn backoff_ms(crashes: u32) -> u64 {
    BACKOFF_MS_MIN.saturating_mul(1 << crashes.min(16)).min(BACKOFF_MS_MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
