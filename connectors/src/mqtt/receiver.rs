//! The thread of a source. In: a broker's messages. Out: a bounded queue of them; acknowledgements go back once the journal has them, and where
//! there is none, as the poller takes them in.
//!
//! It never gives up: a broker that is away, refuses or falls silent is tried again, and `trouble` says why meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::connection::Connection;
use super::inflight::{Answer, Inflight};
use super::journal::{Journal, Replay};
use super::packet::{Incoming, Message, Outgoing};
use super::settings::{SourceSettings, unshared};

/// Bytes of messages that wait for the poller; beyond them nothing is read, and the broker holds back.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Between two tries, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where the thread and the poller meet.
pub struct Shared {
    state: Mutex<State>,
    /// The thread must look again: there is room, more has been taken in, or it is over.
    wake: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    queue_bytes: usize,
    /// Messages ever put into the queue: the number of the next one.
    received: u64,
    /// Messages with numbers below this have been taken in for good.
    accepted: u64,
    trouble: Option<String>,
    stopped: bool,
}

impl Shared {
    pub fn new() -> Shared {
        Shared { state: Mutex::new(State { trouble: Some("not connected yet".into()), ..State::default() }), wake: Notify::new() }
    }

    /// The next message, in order.
    pub fn pop(&self) -> Option<Message> {
        let mut state = self.lock();
        let message = state.queue.pop_front()?;
        let was_full = state.queue_bytes >= QUEUE_BYTES_MAX;
        state.queue_bytes -= message.bytes();
        if was_full && state.queue_bytes < QUEUE_BYTES_MAX {
            self.wake.notify_one();
        }
        Some(message)
    }

    /// Back to where `pop` took it from.
    pub fn put_back(&self, message: Message) {
        let mut state = self.lock();
        state.queue_bytes += message.bytes();
        state.queue.push_front(message);
    }

    fn has_room(&self) -> bool {
        self.lock().queue_bytes < QUEUE_BYTES_MAX
    }

    fn put(&self, message: Message) {
        let mut state = self.lock();
        state.received += 1;
        state.queue_bytes += message.bytes();
        state.queue.push_back(message);
    }

    pub fn accept(&self, below: u64) {
        let mut state = self.lock();
        if below > state.accepted {
            state.accepted = below;
            self.wake.notify_one();
        }
    }

    /// Why nothing may come, and how many messages wait here.
    pub fn report(&self) -> (Option<String>, u64) {
        let state = self.lock();
        (state.trouble.clone(), state.queue.len() as u64)
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}

/// What a receiver needs to know beside the settings.
pub struct Receiver {
    pub settings: SourceSettings,
    pub shared: Arc<Shared>,
    pub record_bytes_max: usize,
    /// The source goes on where an earlier run has stopped: messages that the broker retains have been read before.
    pub resumed: bool,
    pub kept: Option<Kept>,
}

/// The messages that are on the disk.
pub struct Kept {
    pub journal: Journal,
    pub replay: Replay,
    /// The offset of the first message of this run.
    pub base: u64,
}

impl Receiver {
    /// Starts the thread; it ends after `Shared::stop`.
    pub fn start(self, name: &str) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("mqtt {name}")).spawn(move || runtime.block_on(self.run()))
    }

    async fn run(mut self) {
        let mut kept = self.kept.take();
        while let Err(trouble) = self.replay(kept.as_mut()).await {
            self.shared.lock().trouble = Some(trouble);
            self.rest(PAUSE_MAX).await;
            if self.shared.is_stopped() {
                return;
            }
        }
        let mut inflight = Inflight::default();
        let mut pause = PAUSE_MIN;
        let mut subscribed = false;
        let mut first = true;
        while !self.shared.is_stopped() {
            // A session that ends with its connection begins anew each time; one that is kept is gone on with.
            let clean = self.settings.broker.session_expiry.is_zero();
            let trouble = match Connection::open(&self.settings.broker, clean, self.record_bytes_max).await {
                Err(trouble) => trouble,
                Ok((connection, greeting)) => {
                    inflight.reconnect(greeting.session_present);
                    let subscribe = !(greeting.session_present && subscribed);
                    let retained = first && !self.resumed || !greeting.session_present;
                    let session = Session { receiver: &self, inflight: &mut inflight, kept: kept.as_mut(), subscribed: false };
                    let (ended, now_subscribed) = session.run(connection, subscribe, retained).await;
                    if now_subscribed {
                        (subscribed, first, pause) = (true, false, PAUSE_MIN);
                    }
                    match ended {
                        Ok(()) => return,
                        Err(trouble) => format!("broker {}: {trouble}", self.settings.broker.address()),
                    }
                }
            };
            self.shared.lock().trouble = Some(trouble);
            self.rest(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Puts into the queue what an earlier run has acknowledged and no checkpoint holds. Errors: it cannot be read.
    async fn replay(&self, kept: Option<&mut Kept>) -> Result<(), String> {
        let Some(kept) = kept else { return Ok(()) };
        while !self.shared.is_stopped() {
            if !self.shared.has_room() {
                self.shared.wake.notified().await;
                continue;
            }
            let message = kept.replay.next().map_err(|error| format!("the messages kept in its journal cannot be read: {error}"))?;
            let Some(message) = message else { return Ok(()) };
            self.shared.put(message);
        }
        Ok(())
    }

    /// Waits, but not beyond the end.
    async fn rest(&self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        while !self.shared.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.shared.wake.notified() => {}
            }
        }
    }
}

/// One connection's life.
struct Session<'a> {
    receiver: &'a Receiver,
    inflight: &'a mut Inflight,
    kept: Option<&'a mut Kept>,
    subscribed: bool,
}

impl Session<'_> {
    /// Ends with Ok when the source is over, else with the trouble; says too whether the broker took the subscription.
    async fn run(mut self, mut connection: Connection, subscribe: bool, retained: bool) -> (Result<(), String>, bool) {
        if !subscribe {
            self.settle_in();
        }
        let result = self.work(&mut connection, subscribe, retained).await;
        if result.is_ok() {
            connection.close().await;
        }
        (result, self.subscribed)
    }

    async fn work(&mut self, connection: &mut Connection, subscribe: bool, retained: bool) -> Result<(), String> {
        let settings = &self.receiver.settings;
        if subscribe {
            connection.send(&Outgoing::Subscribe { filters: &settings.filters, qos: settings.qos, retained })?;
        }
        loop {
            let (accepted, room, stopped) = {
                let state = self.receiver.shared.lock();
                (state.accepted, state.queue_bytes < QUEUE_BYTES_MAX, state.stopped)
            };
            if stopped || self.kept.as_ref().is_some_and(|kept| kept.journal.is_full()) {
                self.commit()?;
            }
            let settled = self.settle(accepted)?;
            while let Some(answer) = self.inflight.answer(settled) {
                connection.send(&match answer {
                    Answer::Acknowledge(id) => Outgoing::Acknowledge(id),
                    Answer::Receive(id) => Outgoing::Receive(id),
                })?;
            }
            if stopped {
                return Ok(());
            }
            let dirty = self.kept.as_ref().is_some_and(|kept| kept.journal.is_dirty());
            tokio::select! {
                biased;
                incoming = connection.turn(room) => {
                    if let Some(incoming) = incoming? {
                        self.handle(incoming, connection)?;
                    }
                }
                () = self.receiver.shared.wake.notified() => {}
                // Nothing more is there at once: what has come is written down together.
                () = std::future::ready(()), if dirty => self.commit()?,
            }
        }
    }

    /// Messages with numbers below this may be acknowledged, now that the poller has taken in those below `accepted` for good.
    fn settle(&mut self, accepted: u64) -> Result<u64, String> {
        let Some(kept) = &mut self.kept else { return Ok(accepted) };
        kept.journal.trim(kept.base + accepted).map_err(|error| format!("its journal cannot be shortened: {error}"))?;
        Ok(kept.journal.kept() - kept.base)
    }

    fn commit(&mut self) -> Result<(), String> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.journal.commit().map_err(|error| format!("messages cannot be kept in its journal: {error}; free the disk or mend its rights"))
    }

    fn handle(&mut self, incoming: Incoming, connection: &mut Connection) -> Result<(), String> {
        match incoming {
            Incoming::Message(message) => {
                self.take(message);
                Ok(())
            }
            Incoming::Release(id) => {
                // Also one that is not known: an earlier run has answered it.
                self.inflight.release(id);
                connection.send(&Outgoing::Complete(id))
            }
            Incoming::Subscribed(answers) => {
                for (answer, filter) in answers.into_iter().zip(&self.receiver.settings.filters) {
                    answer.map_err(|reason| format!("it refuses the subscription to '{filter}': {reason}"))?;
                }
                self.settle_in();
                Ok(())
            }
            Incoming::Farewell(reason) if reason.starts_with("SessionTakenOver") => {
                Err(format!("another client has connected as {}; give each source its own client_id", self.receiver.settings.broker.client_id))
            }
            Incoming::Farewell(reason) => Err(reason),
            _ => Ok(()),
        }
    }

    fn take(&mut self, message: Message) {
        // A kept session may hold subscriptions that an earlier version of the script made.
        let wanted = self.receiver.settings.filters.iter().any(|filter| matches(&message.topic, unshared(filter)));
        if !wanted {
            return self.inflight.discard(&message);
        }
        let number = self.receiver.shared.lock().received;
        if self.inflight.receive(&message, number) {
            if let Some(kept) = &mut self.kept {
                kept.journal.add(&message);
            }
            self.receiver.shared.put(message);
        }
    }

    fn settle_in(&mut self) {
        self.subscribed = true;
        self.receiver.shared.lock().trouble = None;
    }
}

/// Whether a filter covers a topic. The broker's own topics begin with `$` and are covered by filters that say so.
fn matches(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') != filter.starts_with('$') {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            // It covers its parent too.
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_cover_what_brokers_deliver() {
        for (topic, filter) in [("a/b/c", "a/+/c"), ("a", "a/#"), ("a/b/c", "#"), ("a/", "a/+"), ("$SYS/x", "$SYS/#"), ("/a", "+/a")] {
            assert!(matches(topic, filter), "{topic} {filter}");
        }
        for (topic, filter) in [("a/b/c", "a/+"), ("a", "a/+"), ("$SYS/x", "#"), ("a/b", "a/c"), ("ab", "a/#")] {
            assert!(!matches(topic, filter), "{topic} {filter}");
        }
    }

    #[test]
    fn a_full_queue_has_room_again_when_it_is_polled() {
        let shared = Shared::new();
        let message = Message { payload: bytes::Bytes::from(vec![0; QUEUE_BYTES_MAX]), ..Message::default() };
        {
            let mut state = shared.lock();
            state.queue_bytes = message.bytes();
            state.queue.push_back(message);
        }
        let message = shared.pop().unwrap();
        assert_eq!(shared.lock().queue_bytes, 0);
        shared.put_back(message);
        assert!(shared.lock().queue_bytes > QUEUE_BYTES_MAX);
    }
}
