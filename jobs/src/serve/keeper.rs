//! One task per pipeline: it alone holds the machine and the child, feeds events in and performs the actions. In: requests of operators,
//! reports of the child, time. Out: what others are shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::serve::catalog::Catalog;
use crate::serve::journal::Left;
use crate::serve::machine::{Action, Cause, Crash, Ending, Event, Machine, Phase, Record};
use crate::serve::order::{Mode, Offsets, Order, Submission};
use crate::serve::process::{Happened, Process};
use crate::serve::report::{Beat, ObjectReport, date, machine_ms};

/// How often time itself is an event: finer than any wait of the machine.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks at the size of the log.
const LOG_TICKS: u32 = 100;
/// More between two events, or less than nothing, is no time that was lived through: ticks alone come twenty times a second.
const JUMP_MS_MIN: i64 = 2_000;
/// Ticks between two looks at how much memory the process takes.
const MEMORY_TICKS: u32 = 4;
/// Requests of operators that wait; more are refused.
const REQUESTS_MAX: usize = 16;

/// What all pipelines of a server have in common.
pub struct Common {
    pub catalog: Catalog,
    pub onnxruntime: Option<PathBuf>,
    /// Without progress for so long, a generation is replaced.
    pub stuck_ms: u64,
}

/// How a pipeline fares, as programs and people are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    pub name: String,
    pub state: Phase,
    pub reason: Option<String>,
    /// Since when it is in this state, and how long.
    pub since: String,
    pub since_ms: u64,
    pub generation: u64,
    /// Ends of a generation that nobody asked for.
    pub restarts: u64,
    pub pid: Option<u32>,
    /// The addresses of the child itself; none while there is none.
    pub flight: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    /// The last complete epoch, its date, and what survives a crash.
    pub closed: Option<u64>,
    pub closed_date: Option<String>,
    pub durable: Option<u64>,
    pub events: u64,
    /// None: unknown.
    pub lag_rows: Option<u64>,
    pub lag_seconds: Option<f64>,
    /// When the child was last heard of.
    pub heard_ms: Option<u64>,
    /// Why its answers are not to be used, and what is not well in it.
    pub reasons: Vec<String>,
    pub objects: Vec<ObjectReport>,
    pub crashes: Vec<Crash>,
    pub skips: Vec<Offsets>,
    pub clock: String,
    /// What the process takes, and what it may.
    pub resident_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// A pipeline, from outside.
pub struct Handle {
    submission: Submission,
    requests: mpsc::Sender<Request>,
    shown: Arc<RwLock<Shown>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Request {
    event: Event,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Handle {
    /// Begins to keep a pipeline.
    pub fn start(record: Record, common: Arc<Common>) -> Handle {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (now, submission) = (machine_ms(), record.submission.clone());
        let machine = Machine::new(record, common.stuck_ms, now);
        let shown = Arc::new(RwLock::new(show(&machine, None, None)));
        let keeper = Keeper { machine, common, process: None, shown: shown.clone(), resident: None, fed: now, done: false };
        Handle { submission, requests, shown, task: tokio::sync::Mutex::new(Some(tokio::spawn(keeper.run(inbox)))) }
    }

    /// Why another one of its name is not taken, and the way out.
    pub fn differs(&self, other: &Submission) -> String {
        let (name, mine) = (&other.name, &self.submission);
        if mine == other {
            return format!("there is a pipeline {name} already, and it is this one: nothing to submit; freshet pipelines {name} shows how it fares");
        }
        let changed = other.scripts.iter().filter(|script| !mine.scripts.contains(script)).map(|script| script.name.as_str());
        let gone =
            mine.scripts.iter().filter(|script| other.scripts.iter().all(|other| other.name != script.name)).map(|script| script.name.as_str());
        let scripts: Vec<&str> = changed.chain(gone).collect();
        let what = if scripts.is_empty() { "its variables or settings differ".to_string() } else { format!("{} differ", scripts.join(", ")) };
        format!(
            "there is a pipeline {name} already, and {what}. What runs keeps its text: submit the new one under another name and drop the old one when it \
             has caught up, or drop it first with its state (freshet drop {name})"
        )
    }

    /// Errors: why that cannot be.
    pub async fn ask(&self, event: Event) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the pipeline is being removed".to_string();
        self.requests.try_send(Request { event, answer }).map_err(|_| "too many requests wait for this pipeline; try again".to_string())?;
        answered.await.map_err(|_| gone())?
    }

    pub fn shown(&self) -> Shown {
        let mut shown = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        if shown.clock == "wall" {
            shown.lag_seconds = shown.closed.map(|closed| machine_ms().saturating_sub(closed) as f64 / 1000.0);
        }
        shown
    }

    /// Ends the child, and returns when it has ended.
    pub async fn leave(&self) {
        let (answer, _) = oneshot::channel();
        let _ = self.requests.send(Request { event: Event::Leave, answer }).await;
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

struct Keeper {
    machine: Machine,
    common: Arc<Common>,
    process: Option<Process>,
    shown: Arc<RwLock<Shown>>,
    /// What the process took at the last look.
    resident: Option<u64>,
    /// When the machine last heard of anything.
    fed: u64,
    done: bool,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut count: u32 = 0;
        let _ = self.feed(Event::Begin).await;
        while !self.done {
            tokio::select! {
                request = inbox.recv() => {
                    let Some(Request { event, answer }) = request else { return };
                    let _ = answer.send(self.feed(event).await);
                }
                happened = next(&mut self.process) => match happened {
                    Happened::Reported(report) => drop(self.feed(Event::Reported(report)).await),
                    Happened::Exited(status) => self.exited(status).await,
                },
                _ = ticks.tick() => {
                    count = count.wrapping_add(1);
                    if count.is_multiple_of(MEMORY_TICKS)
                        && let Some(bytes) = self.process.as_ref().and_then(Process::resident_bytes)
                    {
                        self.resident = Some(bytes);
                        let _ = self.feed(Event::Resident(bytes)).await;
                    }
                    if count.is_multiple_of(LOG_TICKS) {
                        self.process.iter().for_each(Process::bound_log);
                    }
                    let _ = self.feed(Event::Tick).await;
                }
            }
        }
    }

    async fn exited(&mut self, status: std::process::ExitStatus) {
        let Some(mut process) = self.process.take() else { return };
        for report in process.rest().await {
            let _ = self.feed(Event::Reported(report)).await;
        }
        let ending = process.ending(status);
        let _ = self.feed(Event::Exited(ending)).await;
    }

    /// One event and what follows from it; an action may be an event itself.
    async fn feed(&mut self, event: Event) -> Result<(), String> {
        let now = machine_ms();
        let passed = now.cast_signed() - self.fed.cast_signed();
        self.fed = now;
        if !(0..JUMP_MS_MIN).contains(&passed) {
            self.machine.step(Event::Jumped(passed), now)?;
        }
        let mut actions = self.machine.step(event, now)?;
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                more.extend(self.perform(action).await);
            }
            actions = more;
        }
        let shown = show(&self.machine, self.process.as_ref().map(Process::id), self.resident);
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::Start(mode) => match Process::start(&self.order(mode), &self.common.catalog) {
                Ok(process) => self.process = Some(process),
                Err(error) => {
                    let status = format!("it cannot be started: {error:#}");
                    let ending = Ending { status, words: String::new(), left: Left::default(), cause: Cause::NotStarted };
                    return self.machine.step(Event::Exited(ending), machine_ms()).unwrap_or_default();
                }
            },
            Action::TellPause => self.tell("pause"),
            Action::TellStop => self.tell("stop"),
            Action::Kill => self.process.iter_mut().for_each(Process::kill),
            Action::Save => {
                // The old record stands; whoever starts from it starts an older generation, which harms nothing.
                if let Err(error) = self.common.catalog.save(&self.machine.record) {
                    tracing::error!(pipeline = self.machine.record.submission.name, error = format!("{error:#}"), "the catalog cannot be written");
                }
            }
            Action::Done => self.done = true,
        }
        Vec::new()
    }

    fn tell(&mut self, word: &str) {
        if let Some(process) = &mut self.process {
            process.tell(word);
        }
    }

    fn order(&self, mode: Mode) -> Order {
        let record = &self.machine.record;
        let (suspects, step_rows) = self.machine.suspects();
        Order {
            submission: record.submission.clone(),
            generation: record.generation,
            mode,
            data_dir: self.common.catalog.state(&record.submission.name),
            flight: record.flight,
            http: record.http,
            onnxruntime: self.common.onnxruntime.clone(),
            skips: record.skips.clone(),
            suspects,
            step_rows,
        }
    }
}

async fn next(process: &mut Option<Process>) -> Happened {
    match process {
        Some(process) => process.next().await,
        None => std::future::pending().await,
    }
}

/// What a process says that only answers: its objects stand still with the pipeline, whatever they could do.
fn halted(machine: &Machine, object: ObjectReport) -> ObjectReport {
    let stands = matches!(machine.phase, Phase::Paused | Phase::CrashLooping | Phase::Failed);
    if !stands || !["starting", "running", "idle"].contains(&object.state.as_str()) {
        return object;
    }
    ObjectReport { state: machine.phase.name().into(), reason: object.reason.or_else(|| machine.reason.clone()), since: machine.since, ..object }
}

fn show(machine: &Machine, pid: Option<u32>, resident: Option<u64>) -> Shown {
    let (record, child) = (&machine.record, machine.child.as_ref());
    let ready = child.is_some_and(|child| child.ready);
    let none = Beat::default();
    let beat = child.and_then(|child| child.beat.as_ref()).unwrap_or(&none);
    Shown {
        name: record.submission.name.clone(),
        state: machine.phase,
        reason: machine.reason.clone(),
        since: date(machine.since),
        since_ms: machine.since,
        generation: record.generation,
        restarts: record.restarts,
        pid,
        flight: record.flight.filter(|_| ready),
        http: record.http.filter(|_| ready),
        closed: beat.closed,
        closed_date: beat.closed.map(date),
        durable: beat.durable,
        events: beat.events,
        lag_rows: beat.lag_rows,
        lag_seconds: child.and_then(|child| child.beat.as_ref()).map(|beat| beat.lag_ms as f64 / 1000.0),
        heard_ms: child.map(|child| child.heard),
        reasons: beat.reasons.clone(),
        objects: beat.objects.iter().map(|object| halted(machine, object.clone())).collect(),
        crashes: record.crashes.clone(),
        skips: record.skips.clone(),
        clock: beat.clock.clone(),
        resident_bytes: resident.filter(|_| pid.is_some()),
        memory_bytes: record.submission.memory_bytes,
    }
}
