//! The child's end of the two pipes to its supervisor. In, on stdin: `pause`, `stop`; its end means that the supervisor is gone. Out, on
//! stdout: `Report`s as lines of JSON, a few a second.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use freshet_core::{Connectors, Error, Plan, Reader};
use freshet_engine::EngineConfig;
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::serve::fault::Fault;
use crate::serve::guard::Guarded;
use crate::serve::journal::Notes;
use crate::serve::order::{Mode, Order};
use crate::serve::report::{Beat, Report, kind_name};

/// Often enough that `freshet pipelines` is never old; a report costs some microseconds.
const BEAT_EVERY: Duration = Duration::from_millis(200);
/// What a child may take to end once its supervisor is gone; then it ends as it is.
const ORPHAN_MAX: Duration = Duration::from_secs(10);
/// How long a child waits for one of the same pipeline, left behind by a supervisor that was killed, to end.
const PREDECESSOR_MAX: Duration = Duration::from_secs(15);
/// The supervisor says a word or two in a generation's life.
const TOLD_MAX: usize = 16;
/// Where the notes of the steps lie, in the data directory of the pipeline.
pub const NOTES: &str = "steps";

/// What the supervisor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Pause,
    Stop,
}

pub struct Link {
    pub order: Order,
    told: Mutex<Option<mpsc::Receiver<Told>>>,
    reader: Mutex<Option<Arc<dyn Reader>>>,
    notes: Mutex<Option<Arc<Notes>>>,
    fault: Option<Fault>,
}

impl Link {
    /// Listens to the supervisor from now on and reports that this process lives. Errors: the system gives no thread.
    pub fn open(order: Order, fault: Option<Fault>) -> Result<Arc<Link>> {
        let (tx, rx) = mpsc::channel(TOLD_MAX);
        let link = Arc::new(Link { order, told: Mutex::new(Some(rx)), reader: Mutex::new(None), notes: Mutex::new(None), fault });
        std::thread::Builder::new().name("supervisor".into()).spawn(move || listen(&tx)).context("starting a thread")?;
        let beating = Arc::downgrade(&link);
        std::thread::Builder::new().name("heartbeat".into()).spawn(move || beat(&beating)).context("starting a thread")?;
        Ok(link)
    }

    /// It reads nothing and answers from its last checkpoint.
    pub fn only_serves(&self) -> bool {
        self.order.mode == Mode::ServeOnly
    }

    /// What the supervisor says from now on. One caller takes it.
    pub fn told(&self) -> Option<mpsc::Receiver<Told>> {
        lock(&self.told).take()
    }

    /// The connectors and settings of this generation.
    pub fn prepare(&self, plan: &Plan, settings: &mut EngineConfig, connectors: Arc<dyn Connectors>) -> Result<Guarded> {
        let order = &self.order;
        std::fs::create_dir_all(&order.data_dir).with_context(|| format!("making {}", order.data_dir.display()))?;
        let names = plan.sources.iter().map(|source| source.name.clone()).collect();
        let notes = Notes::open(&order.data_dir.join(NOTES), names, order.suspects.clone(), order.step_rows, self.fault.clone())?;
        let notes = Arc::new(notes);
        *lock(&self.notes) = Some(notes.clone());
        settings.frozen = order.mode == Mode::ServeOnly;
        settings.journal = Some(notes.clone());
        Ok(Guarded::new(connectors, order.mode, &order.skips, notes, plan.clock))
    }

    /// A supervisor that was killed leaves children behind that end by themselves; the next one's wait for them here.
    pub fn wait_for_predecessor(&self) {
        let Ok(file) = std::fs::File::open(self.order.data_dir.join("lock")) else { return };
        let deadline = std::time::Instant::now() + PREDECESSOR_MAX;
        while file.try_lock().is_err() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// It answers at these addresses.
    pub fn ready(&self, flight: SocketAddr, http: SocketAddr, reader: Arc<dyn Reader>) {
        write(&Report::Ready { flight, http });
        *lock(&self.reader) = Some(reader);
    }

    pub fn paused(&self) {
        write(&Report::Paused);
    }

    /// It ends because of this.
    pub fn failed(&self, failure: &Failure) {
        let kind = failure.error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map_or("internal", |error| kind_name(error.kind));
        write(&Report::Failed { kind: kind.to_string(), message: format!("{:#}", failure.error) });
    }
}

fn listen(told: &mpsc::Sender<Told>) {
    for line in std::io::stdin().lock().lines() {
        let word = match line.as_deref() {
            Ok("pause") => Told::Pause,
            Ok("stop") => Told::Stop,
            Ok(other) => {
                tracing::warn!(other, "the supervisor said something unknown");
                continue;
            }
            Err(_) => break,
        };
        let _ = told.blocking_send(word);
    }
    let _ = told.try_send(Told::Stop);
    let deadline = std::time::Instant::now() + ORPHAN_MAX;
    while let Some(left) = deadline.checked_duration_since(std::time::Instant::now()) {
        std::thread::park_timeout(left);
    }
    crate::node::exit_at_once(crate::exit::FAILED)
}

fn beat(link: &Weak<Link>) {
    while let Some(link) = link.upgrade() {
        let reader = lock(&link.reader).clone();
        let polls = lock(&link.notes).as_ref().map_or(0, |notes| notes.polls());
        drop(link);
        write(&reader.map_or(Report::Starting, |reader| Report::Beat(Box::new(Beat { polls, ..Beat::of(&reader.status()) }))));
        std::thread::park_timeout(BEAT_EVERY);
    }
}

/// A supervisor that is gone hears nothing; the end of stdin says so too.
fn write(report: &Report) {
    let Ok(line) = serde_json::to_string(report) else { return };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
