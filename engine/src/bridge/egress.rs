//! A sink's queue and its thread. In: the ordered changes of closed steps. Out: writes, in order, with retries. A slow sink holds up the
//! sources (the queue is counted against the step limit), never a worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_core::{Batch, Epoch, Kind, Result, Sink};

use crate::metrics::Metrics;

/// Steps a sink may be behind before the sources pause.
pub const SINK_STEPS_MAX: u64 = 64;
/// How often an unavailable sink is tried before the pipeline stops: about 10 s in all.
const WRITE_TRIES: u32 = 8;

enum Message {
    Step(Option<Batch>, Epoch),
    Flush(Sender<Result<u64>>),
    Stop,
}

/// Where the workers put closed steps.
#[derive(Clone)]
pub struct SinkQueue {
    tx: Sender<Message>,
    depth: Arc<AtomicU64>,
}

impl SinkQueue {
    pub fn push(&self, changes: Option<Batch>, upto: Epoch) {
        self.depth.fetch_add(1, Ordering::AcqRel);
        // A stopped thread has left a failure behind; the step is not lost, it is not durable either.
        let _ = self.tx.send(Message::Step(changes, upto));
    }
}

/// The thread that owns a sink.
pub struct SinkThread {
    pub name: String,
    tx: Sender<Message>,
    depth: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SinkThread {
    pub fn start(index: usize, name: String, sink: Box<dyn Sink>, metrics: Arc<Metrics>) -> SinkThread {
        let (tx, rx) = channel();
        let depth = Arc::new(AtomicU64::new(0));
        let queue_depth = depth.clone();
        let thread = std::thread::spawn(move || run(index, sink, &rx, &queue_depth, &metrics));
        SinkThread { name, tx, depth, thread: Mutex::new(Some(thread)) }
    }

    pub fn queue(&self) -> SinkQueue {
        SinkQueue { tx: self.tx.clone(), depth: self.depth.clone() }
    }

    pub fn depth(&self) -> u64 {
        self.depth.load(Ordering::Acquire)
    }

    /// Writes and makes visible everything pushed so far; the position to restore to.
    pub fn flush(&self) -> Result<u64> {
        let (tx, rx) = channel();
        let gone = || freshet_core::Error::unavailable(format!("sink {} has stopped", self.name));
        self.tx.send(Message::Flush(tx)).map_err(|_| gone())?;
        rx.recv().map_err(|_| gone())?
    }

    pub fn stop(&self) {
        let _ = self.tx.send(Message::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn run(index: usize, mut sink: Box<dyn Sink>, rx: &Receiver<Message>, depth: &AtomicU64, metrics: &Metrics) {
    let mut closed = Epoch::ZERO;
    while let Ok(message) = rx.recv() {
        match message {
            Message::Step(changes, upto) => {
                if let Some(changes) = &changes
                    && let Err(error) = write(sink.as_mut(), changes)
                {
                    metrics.fail(error);
                    return;
                }
                metrics.sink_rows(index, changes.map_or(0, |changes| changes.len() as u64));
                closed = upto;
                depth.fetch_sub(1, Ordering::AcqRel);
            }
            Message::Flush(reply) => {
                let _ = reply.send(sink.flush(closed));
            }
            Message::Stop => return,
        }
    }
}

fn write(sink: &mut dyn Sink, changes: &Batch) -> Result<()> {
    let mut pause = Duration::from_millis(40);
    for _ in 1..WRITE_TRIES {
        match sink.write(changes) {
            Err(error) if error.kind == Kind::Unavailable => std::thread::park_timeout(pause),
            done => return done,
        }
        pause *= 2;
    }
    sink.write(changes)
}
