//! A sink's queue and its thread. In: the ordered changes of closed steps. Out: writes, in order. A sink that is away is tried again until it is
//! back; what it has not taken waits in its queue, and a full queue holds up the sources, never a worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use freshet_core::{Batch, ClockKind, Connectors, Epoch, Error, Kind, Result, Sink, SinkDef, State};

use crate::bridge::retry::Backoff;
use crate::metrics::Metrics;

/// Steps with changes a sink may be behind before the sources pause: in event clock, where a replay would only fill memory, and in wall clock,
/// where steps are small and a sink that stops for half a minute must not be felt.
const SINK_STEPS_MAX: u64 = 64;
const SINK_STEPS_MAX_WALL: u64 = 16_384;
/// Bytes a sink may be behind before the sources pause: half a minute of 50,000 changes a second of 150 bytes.
const SINK_BYTES_MAX: u64 = 256 << 20;
/// Steps that may wait, and how long a write may take, before a checkpoint in wall clock is rather taken later.
const BEHIND_STEPS: u64 = 16;
const BEHIND: Duration = Duration::from_millis(100);
/// How long a checkpoint waits for a sink: one that is away or slow holds up the checkpoint, not the sources.
pub const SINK_WAIT: Duration = Duration::from_secs(2);
/// A flush that takes so many times as long as any before it is not waited for in wall clock.
const USUAL_TIMES: u32 = 4;
/// How long a sink that is away is still tried once the pipeline was told to stop.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// Without checkpoints a sink in wall clock makes visible what it has written this often.
const FLUSH: Duration = Duration::from_secs(1);

enum Message {
    Step(Batch, u64),
    Flush(Epoch, Sender<Result<u64>>),
    Stop,
}

/// What the two ends of the queue share.
#[derive(Default)]
struct Depth {
    steps: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// When the write or flush under way began, and how long it may take before waiting for it would be felt.
    busy: Mutex<Option<(Instant, Duration)>>,
    /// The longest flush that was waited for, in ms.
    flush_ms: AtomicU64,
    /// Everything up to here has been pushed, and has been written.
    closed: AtomicU64,
    written: AtomicU64,
    away: AtomicBool,
}

impl Depth {
    fn busy(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stuck(&self) -> bool {
        self.busy().is_some_and(|(since, allowed)| since.elapsed() > allowed)
    }

    /// How long a flush may take; the first one shows how long they take.
    fn usual_flush(&self) -> Duration {
        match self.flush_ms.load(Ordering::Acquire) {
            0 => SINK_WAIT,
            longest => (Duration::from_millis(longest) * USUAL_TIMES + BEHIND).min(SINK_WAIT),
        }
    }
}

/// Where the workers put closed steps.
#[derive(Clone)]
pub struct SinkQueue {
    tx: Sender<Message>,
    depth: Arc<Depth>,
    /// The sink wants changes consolidated, in order and from one worker.
    pub ordered: bool,
}

impl SinkQueue {
    pub fn push(&self, changes: Option<Batch>, upto: Epoch) {
        if let Some(changes) = changes {
            let bytes = changes.rows().get_array_memory_size() as u64;
            if self.depth.steps.fetch_add(1, Ordering::AcqRel) == 0 {
                // Nothing waited, so everything before this step has been written.
                let before = Some(self.depth.closed.load(Ordering::Acquire)).filter(|closed| *closed > 0);
                self.depth.written.fetch_max(before.unwrap_or(upto.0), Ordering::AcqRel);
            }
            self.depth.rows.fetch_add(changes.len() as u64, Ordering::AcqRel);
            self.depth.bytes.fetch_add(bytes, Ordering::AcqRel);
            // A stopped thread has left a failure behind; the step is not lost, it is not durable either.
            let _ = self.tx.send(Message::Step(changes, bytes));
        }
        // After the step: who reads this number finds the step in the queue.
        self.depth.closed.fetch_max(upto.0, Ordering::AcqRel);
    }
}

/// Where a sink thread gets its sink.
pub struct SinkPlace {
    pub def: SinkDef,
    /// The position of the checkpoint that the pipeline goes on from.
    pub position: u64,
    /// The sink, if it could be opened, else what opens it later.
    pub sink: Result<Box<dyn Sink>, Arc<dyn Connectors>>,
}

impl SinkPlace {
    /// Errors: Invalid; Unavailable from connectors that cannot be kept.
    pub fn open(def: &SinkDef, position: u64, connectors: &dyn Connectors) -> Result<SinkPlace> {
        let sink = match (open(def, position, connectors), connectors.shared()) {
            (Ok(sink), _) => Ok(sink),
            (Err(error), Some(shared)) if error.kind == Kind::Unavailable => Err(shared),
            (Err(error), _) => return Err(error),
        };
        Ok(SinkPlace { def: def.clone(), position, sink })
    }
}

fn open(def: &SinkDef, position: u64, connectors: &dyn Connectors) -> Result<Box<dyn Sink>> {
    let mut sink = connectors.open_sink(def)?;
    sink.restore(position)?;
    Ok(sink)
}

/// The thread that owns a sink.
pub struct SinkThread {
    pub name: String,
    tx: Sender<Message>,
    depth: Arc<Depth>,
    ordered: bool,
    steps_max: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SinkThread {
    /// `flushes_itself`: nobody asks it to, because there are no checkpoints.
    pub fn start(index: usize, place: SinkPlace, metrics: Arc<Metrics>, clock: ClockKind, flushes_itself: bool) -> SinkThread {
        let (tx, rx) = channel();
        let depth = Arc::new(Depth::default());
        let name = place.def.name.clone();
        let ordered = place.sink.as_ref().map_or(true, |sink| sink.is_ordered());
        let mut writer = Writer { index, place, depth: depth.clone(), metrics, backoff: Backoff::new(index), patience: None };
        let flushes = (flushes_itself && clock == ClockKind::Wall).then_some(FLUSH);
        let thread = std::thread::spawn(move || writer.run(&rx, flushes));
        let steps_max = if clock == ClockKind::Wall { SINK_STEPS_MAX_WALL } else { SINK_STEPS_MAX };
        SinkThread { name, tx, depth, ordered, steps_max, thread: Mutex::new(Some(thread)) }
    }

    pub fn queue(&self) -> SinkQueue {
        SinkQueue { tx: self.tx.clone(), depth: self.depth.clone(), ordered: self.ordered }
    }

    /// Steps with changes that wait.
    pub fn depth(&self) -> u64 {
        self.depth.steps.load(Ordering::Acquire)
    }

    /// Changes that wait, and how far what has been written is behind what has been pushed, in ms.
    pub fn lag(&self) -> (u64, u64) {
        let (closed, written) = (self.depth.closed.load(Ordering::Acquire), self.depth.written.load(Ordering::Acquire));
        let rows = self.depth.rows.load(Ordering::Acquire);
        (rows, if rows == 0 { 0 } else { closed.saturating_sub(written) })
    }

    pub fn depth_max(&self) -> u64 {
        self.steps_max
    }

    /// The sources have to wait for it.
    pub fn is_full(&self) -> bool {
        self.depth() >= self.steps_max || self.depth.bytes.load(Ordering::Acquire) >= SINK_BYTES_MAX
    }

    /// Waiting for it now would be felt: it has steps to catch up with, or a write that does not end.
    pub fn is_behind(&self) -> bool {
        self.depth() > BEHIND_STEPS || self.depth.is_stuck()
    }

    /// It could not be opened or written to and is being tried again.
    pub fn is_away(&self) -> bool {
        self.depth.away.load(Ordering::Acquire)
    }

    /// Writes and makes visible everything pushed so far; the position to restore to. None: not within `wait`, or not within what is usual for
    /// one that is `patient` and comes back later.
    pub fn flush(&self, wait: Duration, patient: bool) -> Result<Option<u64>> {
        let (tx, rx) = channel();
        let gone = || Error::unavailable(format!("sink {} has stopped", self.name));
        let closed = Epoch(self.depth.closed.load(Ordering::Acquire));
        self.tx.send(Message::Flush(closed, tx)).map_err(|_| gone())?;
        let begun = Instant::now();
        loop {
            match rx.recv_timeout(if patient { BEHIND / 4 } else { wait }) {
                Ok(flushed) => return flushed.map(Some),
                Err(RecvTimeoutError::Timeout) if patient && begun.elapsed() < wait && !self.depth.is_stuck() => {}
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    pub fn stop(&self) {
        let _ = self.tx.send(Message::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Writer {
    index: usize,
    place: SinkPlace,
    depth: Arc<Depth>,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    /// Until when a sink that is away is tried after the pipeline was told to stop.
    patience: Option<Instant>,
}

impl Writer {
    fn run(&mut self, rx: &Receiver<Message>, flushes: Option<Duration>) {
        if let Err(error) = self.with_sink(|_| Ok(())) {
            return self.fail(error);
        }
        let mut unflushed = false;
        loop {
            let message = match flushes.filter(|_| unflushed) {
                None => rx.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(pause) => rx.recv_timeout(pause),
            };
            let done = match message {
                Ok(Message::Step(changes, bytes)) => {
                    unflushed = true;
                    *self.depth.busy() = Some((Instant::now(), BEHIND));
                    let written = self.with_sink(|sink| sink.write(&changes));
                    *self.depth.busy() = None;
                    if written.is_ok() {
                        self.metrics.sink_rows(self.index, changes.len() as u64);
                    }
                    let last = changes.len().checked_sub(1).map_or(0, |row| changes.epoch(row).0);
                    self.depth.written.fetch_max(last, Ordering::AcqRel);
                    self.depth.rows.fetch_sub(changes.len() as u64, Ordering::AcqRel);
                    self.depth.steps.fetch_sub(1, Ordering::AcqRel);
                    self.depth.bytes.fetch_sub(bytes, Ordering::AcqRel);
                    written
                }
                Ok(Message::Flush(closed, reply)) => {
                    unflushed = false;
                    let begun = Instant::now();
                    *self.depth.busy() = Some((begun, self.depth.usual_flush()));
                    let flushed = self.with_sink(|sink| sink.flush(closed));
                    *self.depth.busy() = None;
                    if begun.elapsed() < SINK_WAIT {
                        self.depth.flush_ms.fetch_max(begun.elapsed().as_millis() as u64 + 1, Ordering::AcqRel);
                    }
                    let _ = reply.send(flushed.clone());
                    flushed.map(drop)
                }
                Err(RecvTimeoutError::Timeout) => {
                    unflushed = false;
                    let closed = Epoch(self.depth.closed.load(Ordering::Acquire));
                    self.with_sink(|sink| sink.flush(closed)).map(drop)
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = done {
                return self.fail(error);
            }
        }
    }

    fn fail(&self, error: Error) {
        self.metrics.sink_state(self.index, State::Failed, Some(error.message.clone()));
        self.metrics.fail(error);
    }

    /// Does it, as soon as the sink is there. Errors: any but Unavailable, and that once the pipeline has been told to stop for a while.
    fn with_sink<T>(&mut self, mut act: impl FnMut(&mut dyn Sink) -> Result<T>) -> Result<T> {
        loop {
            let done = match &mut self.place.sink {
                Ok(sink) => act(sink.as_mut()),
                Err(connectors) => match open(&self.place.def, self.place.position, connectors.as_ref()) {
                    Ok(mut sink) => {
                        let done = act(sink.as_mut());
                        self.place.sink = Ok(sink);
                        done
                    }
                    Err(error) => Err(error),
                },
            };
            match done {
                Err(error) if error.kind == Kind::Unavailable => self.wait(error)?,
                done => {
                    self.backoff.succeeded();
                    self.depth.away.store(false, Ordering::Release);
                    if done.is_ok() {
                        self.metrics.sink_state(self.index, State::Running, None);
                    }
                    return done;
                }
            }
        }
    }

    /// Waits until it is time to try again.
    fn wait(&mut self, error: Error) -> Result<()> {
        if !self.depth.away.swap(true, Ordering::AcqRel) {
            tracing::warn!(sink = %self.place.def.name, reason = %error, "a sink is away; it is tried again until it is back");
        }
        self.metrics.sink_state(self.index, State::Retrying, Some(error.message.clone()));
        let until = Instant::now() + self.backoff.failed();
        loop {
            if self.metrics.failure().is_some() {
                return Err(error);
            }
            if self.metrics.stop_requested() && *self.patience.get_or_insert_with(|| Instant::now() + STOP_WAIT) < Instant::now() {
                return Err(error);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left.min(Duration::from_millis(50)));
        }
    }
}
