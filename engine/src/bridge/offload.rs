//! Slow work on threads of its own. In: pieces of work of operators. Out: their results, and a wake-up for the operator that waits.
//!
//! Workers never block (DESIGN 4): a piece that finds no room stays with its operator, which is woken as soon as there is some.
//! Panics come back as answers, so nobody waits for work that has died.
//!
//! Even small pieces are handed over: measured with one row a step, that costs no more CPU than the same work on the worker (in all
//! 16 µs a step for PREDICT, 22 µs for the rest of a step), and a worker cannot know which small piece is a slow one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshet_core::{Error, Result};
use timely::scheduling::SyncActivator;

use crate::bridge::text_of;

/// 256 pieces: several steps of every PREDICT of a pipeline, so that no thread runs dry between two activations.
const QUEUE_PIECES: usize = 256;
/// 64 MiB of rows that wait for a thread: some dozens of steps. What is beyond it waits with its operator, up to the steps the pace allows.
const QUEUE_BYTES: usize = 64 << 20;

/// How long the end of a pipeline waits for a piece that is being worked on. What comes of it later is for nobody.
const END_WAIT: Duration = Duration::from_secs(2);

/// The threads `scorer-0`, `scorer-1`, … of one pipeline.
pub struct Scorers {
    queue: Arc<Queue>,
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
    /// Threads that work on a piece.
    busy: usize,
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
        let scorers = Scorers { queue: Arc::default() };
        for index in 0..count.max(1) {
            let queue = scorers.queue.clone();
            let thread = std::thread::Builder::new().name(format!("scorer-{index}")).spawn(move || queue.serve());
            thread.map_err(|error| Error::unavailable(format!("no thread for scoring: {error}")))?;
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
        let mut waiting = self.queue.lock();
        waiting.closed = true;
        waiting.pieces.clear();
        self.queue.changed.notify_all();
        drop(self.queue.changed.wait_timeout_while(waiting, END_WAIT, |waiting| waiting.busy > 0));
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
            waiting.busy += 1;
            let refused = std::mem::take(&mut waiting.refused);
            drop(waiting);
            for wake in refused {
                let _ = wake.activate();
            }
            (piece.run)();
            self.lock().busy -= 1;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `test` with a desk whose operator does not exist: waking it is tried and does nothing.
    fn at_desk(threads: usize, test: impl FnOnce(Scorers, Desk<u64>) + Send + Sync + 'static) {
        timely::execute_directly(move |worker| {
            let scorers = Scorers::start(threads).unwrap();
            let desk = scorers.desk(worker.sync_activator_for(Vec::new()));
            test(scorers, desk);
        });
    }

    fn work(bytes: usize, run: impl FnOnce() -> u64 + Send + 'static) -> Work<u64> {
        Work { bytes, run: Box::new(run) }
    }

    /// The answers of this many pieces, by ticket.
    fn answers(desk: &Desk<u64>, count: usize) -> std::collections::BTreeMap<u64, Result<u64>> {
        (0..count).map(|_| desk.rx.recv_timeout(Duration::from_secs(60)).unwrap()).collect()
    }

    #[test]
    fn every_piece_is_answered_and_a_panic_is_an_answer() {
        at_desk(3, |_scorers, desk| {
            for ticket in 0..100 {
                let run = move || {
                    assert!(ticket % 10 != 7, "no sevens");
                    ticket * 2
                };
                assert!(desk.submit(ticket, work(1, run)).is_ok());
            }
            for (ticket, answer) in answers(&desk, 100) {
                match answer {
                    Ok(answer) => assert_eq!(answer, ticket * 2),
                    Err(error) => assert!(ticket % 10 == 7 && error.message.contains("no sevens"), "{error}"),
                }
            }
        });
    }

    #[test]
    fn a_full_queue_gives_work_back_and_takes_it_later() {
        for (bytes, room) in [(1, QUEUE_PIECES), (QUEUE_BYTES / 4, 4), (2 * QUEUE_BYTES, 1)] {
            at_desk(1, move |scorers, desk| {
                let (open, gate) = channel::<()>();
                let (begun, has_begun) = channel();
                let first = work(0, move || {
                    let _ = begun.send(());
                    let _ = gate.recv();
                    0
                });
                assert!(desk.submit(0, first).is_ok());
                // The only thread is busy, so the rest waits.
                has_begun.recv_timeout(Duration::from_secs(60)).unwrap();
                for ticket in 0..room as u64 {
                    assert!(desk.submit(ticket + 1, work(bytes, move || ticket)).is_ok(), "piece {ticket} of {room}");
                }
                let Err(back) = desk.submit(9_999, work(bytes, || 9_999)) else { panic!("the queue takes more than {room} pieces") };
                assert_eq!(scorers.depth(), (room as u64, (room * bytes) as u64));
                assert_eq!(scorers.queue.lock().refused.len(), 1, "it is woken later");
                drop(open);
                assert_eq!(answers(&desk, room + 1).len(), room + 1);
                assert!(scorers.queue.lock().refused.is_empty());
                assert!(desk.submit(9_999, back).is_ok());
                assert_eq!(answers(&desk, 1)[&9_999].as_ref().unwrap(), &9_999);
            });
        }
    }
}
