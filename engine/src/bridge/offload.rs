//! Slow work on threads of its own. In: pieces of work of operators. Out: their results, and a wake-up for the operator that waits.
//!
//! Workers never block (DESIGN 4): a piece that finds no room stays with its operator, which is woken as soon as there is some.
//! Panics come back as answers, so nobody waits for work that has died.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use freshet_core::{Error, Result};
use timely::scheduling::SyncActivator;

use crate::bridge::text_of;

/// 256 pieces: several steps of every PREDICT of a pipeline, so that no thread runs dry between two activations.
const QUEUE_PIECES: usize = 256;
/// 64 MiB of rows that wait for a thread: some dozens of steps. What is beyond it waits with its operator, up to the steps the pace allows.
const QUEUE_BYTES: usize = 64 << 20;

/// The threads `scorer-0`, `scorer-1`, … of one pipeline.
pub struct Scorers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Operators that found the queue full.
    refused: Vec<SyncActivator>,
    closed: bool,
}

struct Piece {
    bytes: usize,
    run: Box<dyn FnOnce() + Send>,
}

/// Work that yields an `A`.
pub struct Work<A> {
    /// About how much memory it holds.
    pub bytes: usize,
    pub run: Box<dyn FnOnce() -> A + Send>,
}

/// One operator's place at the queue. Answers may come in another order than the work went in.
pub struct Desk<A> {
    queue: Arc<Queue>,
    wake: SyncActivator,
    tx: Sender<(u64, Result<A>)>,
    rx: Receiver<(u64, Result<A>)>,
}

impl Scorers {
    /// Errors: Unavailable if the system gives no thread.
    pub fn start(count: usize) -> Result<Scorers> {
        let mut scorers = Scorers { queue: Arc::default(), threads: Vec::new() };
        for index in 0..count.max(1) {
            let queue = scorers.queue.clone();
            let thread = std::thread::Builder::new().name(format!("scorer-{index}")).spawn(move || queue.serve());
            scorers.threads.push(thread.map_err(|error| Error::unavailable(format!("no thread for scoring: {error}")))?);
        }
        Ok(scorers)
    }

    /// A place for the operator that `wake` activates.
    pub fn desk<A: Send + 'static>(&self, wake: SyncActivator) -> Desk<A> {
        let (tx, rx) = channel();
        Desk { queue: self.queue.clone(), wake, tx, rx }
    }

    /// Pieces that wait for a thread, and their bytes.
    pub fn depth(&self) -> (u64, u64) {
        let waiting = self.queue.lock();
        (waiting.pieces.len() as u64, waiting.bytes as u64)
    }
}

impl Drop for Scorers {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl<A: Send + 'static> Desk<A> {
    /// Hands work over, to be answered under `ticket`. A full queue gives it back and wakes the operator once there is room.
    pub fn submit(&self, ticket: u64, work: Work<A>) -> Result<(), Work<A>> {
        let mut waiting = self.queue.lock();
        let full = waiting.pieces.len() >= QUEUE_PIECES || (!waiting.pieces.is_empty() && waiting.bytes + work.bytes > QUEUE_BYTES);
        if full {
            waiting.refused.push(self.wake.clone());
            return Err(work);
        }
        let (tx, wake, run) = (self.tx.clone(), self.wake.clone(), work.run);
        let run = move || {
            let answer =
                catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Error::internal(format!("scoring has panicked: {}", text_of(panic.as_ref()))));
            // The operator may be gone: then nobody waits.
            let _ = tx.send((ticket, answer));
            let _ = wake.activate();
        };
        waiting.bytes += work.bytes;
        waiting.pieces.push_back(Piece { bytes: work.bytes, run: Box::new(run) });
        drop(waiting);
        self.queue.changed.notify_one();
        Ok(())
    }

    /// The next answer that has come, if there is one. Errors in it: the work panicked.
    pub fn answer(&self) -> Option<(u64, Result<A>)> {
        self.rx.try_recv().ok()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the queue is closed: what still waits then is dropped, its pipeline has ended.
    fn serve(&self) {
        loop {
            let mut waiting = self.lock();
            while waiting.pieces.is_empty() && !waiting.closed {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if waiting.closed {
                return;
            }
            let Some(piece) = waiting.pieces.pop_front() else { continue };
            waiting.bytes -= piece.bytes;
            let refused = std::mem::take(&mut waiting.refused);
            drop(waiting);
            for wake in refused {
                let _ = wake.activate();
            }
            (piece.run)();
        }
    }
}
