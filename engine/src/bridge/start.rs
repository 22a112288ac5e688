//! What passes between the threads of a pipeline: commands to workers, parts of checkpoints back, and the handle that ends it all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_core::{Batch, Epoch, Error, Result};
use timely::communication::WorkerGuards;

use crate::bridge::Ingest;
use crate::metrics::Metrics;
use crate::render::Shared;
use crate::worker::{Restore, run};

/// What every worker is told, in one order.
pub enum Command {
    /// Rows of the next step for this worker, per source; all epochs up to `end` are then complete.
    Step {
        end: Epoch,
        batches: Vec<(usize, Batch)>,
    },
    /// Everything handed out so far is closed: write what changed.
    Checkpoint(Sender<Vec<Part>>),
    Stop,
}

/// The state of one shard of one operator.
#[derive(Debug, Clone)]
pub struct Part {
    pub operator: String,
    pub shard: usize,
    pub bytes: Vec<u8>,
}

/// How a pipeline came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All sources ended.
    Finished,
    /// It was asked to.
    Requested,
}

/// A worker's end of the command queue. The pace keeps it short: no more than the open steps are ever in it.
pub struct Commands(Receiver<Command>);

impl Commands {
    /// The next command; waits for one at most this long. A sender that is gone means stop.
    pub fn next(&self, wait: Option<Duration>) -> Option<Command> {
        match wait {
            Some(wait) => match self.0.recv_timeout(wait) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
            },
            None => match self.0.try_recv() {
                Ok(command) => Some(command),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Command::Stop),
            },
        }
    }
}

/// The threads of a pipeline.
pub struct Running {
    ingest: JoinHandle<()>,
    workers: WorkerGuards<()>,
}

impl Running {
    /// Errors: Unavailable if the system gives no thread.
    pub fn start(ingest: Ingest, workers: WorkerGuards<()>) -> Result<Running> {
        let metrics = ingest.metrics.clone();
        let thread = std::thread::Builder::new().name("ingest".into()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ingest.run())) {
                metrics.fail(Error::internal(format!("the ingest thread has panicked: {}", text_of(panic.as_ref()))));
            }
        });
        Ok(Running { ingest: thread.map_err(|error| Error::unavailable(error.to_string()))?, workers })
    }

    pub fn is_finished(&self) -> bool {
        self.ingest.is_finished()
    }

    /// Waits for the threads. With `failed`, the workers are left behind: siblings of one that panicked wait for it for ever and end
    /// with the process.
    pub fn join(self, failed: impl Fn() -> bool) -> Result<()> {
        self.ingest.join().map_err(|_| Error::internal("the ingest thread has panicked"))?;
        if failed() {
            std::mem::forget(self.workers);
            return Ok(());
        }
        for worker in self.workers.join() {
            worker.map_err(Error::internal)?;
        }
        Ok(())
    }
}

type Started = (WorkerGuards<()>, Vec<Sender<Command>>);

/// Starts the workers and waits until each has built its dataflow and taken over its state. Errors: of rendering or restoring.
pub fn start_workers(workers: usize, shared: Arc<Shared>, metrics: Arc<Metrics>, restore: Option<Restore>) -> Result<Started> {
    let (senders, receivers): (Vec<_>, Vec<Receiver<Command>>) = (0..workers).map(|_| channel()).unzip();
    let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
    let (ready, started) = channel::<Result<()>>();
    let ready = Mutex::new(ready);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let commands =
            receivers.lock().unwrap_or_else(PoisonError::into_inner)[worker.index()].take().expect("each worker takes its own receiver once");
        let ready = ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let built = || {
            let _ = ready.send(Ok(()));
        };
        let done = catch_unwind(AssertUnwindSafe(|| run(worker, &shared, &metrics, &Commands(commands), restore.as_ref(), built)));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let _ = ready.send(Err(error.clone()));
                metrics.fail(error);
            }
            Err(panic) => {
                let error = Error::internal(format!("a worker has panicked: {}", text_of(panic.as_ref())));
                let _ = ready.send(Err(error.clone()));
                metrics.fail(error);
            }
        }
    })
    .map_err(|error| Error::internal(format!("the workers do not start: {error}")))?;
    for _ in 0..workers {
        if let Err(error) = started.recv().unwrap_or_else(|_| Err(Error::internal("a worker has stopped"))) {
            std::mem::forget(guards);
            return Err(error);
        }
    }
    Ok((guards, senders))
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
