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
use crate::serve::machine::{Action, Cause, Crash, Ending, Event, Machine, Phase, Record};
use crate::serve::order::{Mode, Offsets, Order};
use crate::serve::process::{Happened, Process};
use crate::serve::report::{Beat, ObjectReport, date, machine_ms};

/// How often time itself is an event: finer than any wait of the machine.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks at the size of the log.
const LOG_TICKS: u32 = 100;
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
}

/// A pipeline, from outside.
pub struct Handle {
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
        let now = machine_ms();
        let machine = Machine::new(record, common.stuck_ms, now);
        let shown = Arc::new(RwLock::new(show(&machine, None)));
        let keeper = Keeper { machine, common, process: None, shown: shown.clone(), done: false };
        Handle { requests, shown, task: tokio::sync::Mutex::new(Some(tokio::spawn(keeper.run(inbox)))) }
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
        let mut actions = self.machine.step(event, machine_ms())?;
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                more.extend(self.perform(action).await);
            }
            actions = more;
        }
        let shown = show(&self.machine, self.process.as_ref().map(Process::id));
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::Start(mode) => match Process::start(&self.order(mode), &self.common.catalog) {
                Ok(process) => self.process = Some(process),
                Err(error) => {
                    let status = format!("it cannot be started: {error:#}");
                    let ending = Ending { status, words: String::new(), batch: Vec::new(), cause: Cause::Crash };
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

fn show(machine: &Machine, pid: Option<u32>) -> Shown {
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
        objects: beat.objects.clone(),
        crashes: record.crashes.clone(),
        skips: record.skips.clone(),
        clock: beat.clock.clone(),
    }
}
