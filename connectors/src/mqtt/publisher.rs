//! The thread of a sink. In: a bounded queue of messages. Out: the same messages at the broker, in order, each until the broker has it.
//!
//! After a break what was not settled is sent again, under its packet id where the broker still knows the session, else anew.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use freshet_core::{Error, Result};
use tokio::sync::Notify;

use super::connection::Connection;
use super::packet::{Greeting, Incoming, Outgoing};
use super::settings::{Qos, SinkSettings, Version};
use crate::reject::Rejects;

/// Bytes of messages that the broker does not have yet; beyond them the sink waits.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Messages sent and not settled, where the broker does not say how many it takes: what mosquitto takes by default.
const INFLIGHT_MAX: u16 = 20;
/// Bytes that wait for the socket before more messages are put behind them.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// A broker has little to say to a sink.
const INCOMING_BYTES_MAX: usize = 1 << 20;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    pub topic: String,
    pub payload: Bytes,
}

impl Outbound {
    fn bytes(&self) -> usize {
        64 + self.topic.len() + self.payload.len()
    }
}

/// Where the thread and the sink meet.
pub struct Shared {
    state: Mutex<State>,
    /// For the thread: there is something to send, or it is over.
    wake: Notify,
    /// For the sink: messages have been settled, or the thread has failed.
    moved: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Outbound>,
    /// Of all that is not settled.
    bytes: usize,
    /// Messages ever taken and ever settled.
    taken: u64,
    settled: u64,
    trouble: Option<String>,
    failure: Option<Error>,
    stopped: bool,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            state: Mutex::new(State { trouble: Some("not connected yet".into()), ..State::default() }),
            wake: Notify::new(),
            moved: Condvar::new(),
        }
    }

    /// Waits for room, then takes all of them. Errors: Unavailable and none is taken; or what has stopped the thread.
    pub fn push(&self, messages: Vec<Outbound>, wait: Duration) -> Result<()> {
        let mut state = self.wait_until(wait, |state| state.bytes < QUEUE_BYTES_MAX)?;
        state.bytes += messages.iter().map(Outbound::bytes).sum::<usize>();
        state.taken += messages.len() as u64;
        state.queue.extend(messages);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits until everything taken has been settled; how much that is. Errors as `push`.
    pub fn flush(&self, wait: Duration) -> Result<u64> {
        Ok(self.wait_until(wait, |state| state.settled == state.taken)?.settled)
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

    /// As long as messages are being settled it goes on waiting.
    fn wait_until(&self, wait: Duration, done: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let (mut settled, mut deadline) = (state.settled, Instant::now() + wait);
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if done(&state) {
                return Ok(state);
            }
            if state.settled > settled {
                (settled, deadline) = (state.settled, Instant::now() + wait);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waiting = state.taken - state.settled;
                let trouble = state.trouble.clone().unwrap_or_else(|| format!("the broker has acknowledged nothing for {} s", wait.as_secs()));
                return Err(Error::unavailable(format!("{trouble}; {waiting} messages wait")));
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn settle(&self, message: &Outbound) {
        let mut state = self.lock();
        state.settled += 1;
        state.bytes -= message.bytes();
        drop(state);
        self.moved.notify_all();
    }

    fn fail(&self, error: Error) {
        self.lock().failure = Some(error);
        self.moved.notify_all();
    }
}

/// A message that has been sent and not settled.
#[derive(Debug)]
struct Sent {
    id: u16,
    message: Outbound,
    /// QoS 2: the broker has it and waits for the release.
    received: bool,
}

pub struct Publisher {
    pub settings: SinkSettings,
    pub content_type: Option<&'static str>,
    pub shared: Arc<Shared>,
    pub rejects: Rejects,
}

impl Publisher {
    /// Starts the thread; it ends after `Shared::stop`, or when a message is refused for good.
    pub fn start(self, name: &str) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("mqtt {name}")).spawn(move || runtime.block_on(self.run()))
    }

    async fn run(mut self) {
        let mut window = Window { sent: VecDeque::new(), next_id: 1, max: INFLIGHT_MAX };
        let mut pause = PAUSE_MIN;
        // What an earlier run has left in a session would take our packet ids for its own: the first connection begins anew.
        let mut clean = true;
        while !self.shared.is_stopped() {
            let trouble = match Connection::open(&self.settings.broker, clean, INCOMING_BYTES_MAX).await {
                Err(trouble) => trouble,
                Ok((mut connection, greeting)) => {
                    // MQTT 3.1.1 cannot keep a session that began anew.
                    clean = self.settings.broker.version == Version::V3;
                    pause = PAUSE_MIN;
                    self.shared.lock().trouble = None;
                    match self.session(&mut connection, &greeting, &mut window).await {
                        Ok(()) => {
                            connection.close().await;
                            return;
                        }
                        Err(Ended::Failed(error)) => return self.shared.fail(error),
                        Err(Ended::Broken(trouble)) => format!("broker {}: {trouble}", self.settings.broker.address()),
                    }
                }
            };
            self.shared.lock().trouble = Some(trouble);
            self.rest(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn rest(&self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        while !self.shared.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.shared.wake.notified() => {}
            }
        }
    }

    async fn session(&mut self, connection: &mut Connection, greeting: &Greeting, window: &mut Window) -> Result<(), Ended> {
        window.max = greeting.receive_maximum.map_or(INFLIGHT_MAX, |most| most.max(1));
        let packet_bytes_max = greeting.packet_bytes_max.map_or(256 << 20, |most| most as usize);
        for packet in window.again(greeting.session_present) {
            self.say(connection, window, packet)?;
        }
        loop {
            let stopped = {
                while let Some(message) = self.next(window, connection.unsent()) {
                    self.publish(connection, window, message, packet_bytes_max)?;
                }
                let state = self.shared.lock();
                state.stopped && state.queue.is_empty() && window.sent.is_empty()
            };
            if stopped {
                return Ok(());
            }
            tokio::select! {
                incoming = connection.turn(true) => {
                    if let Some(incoming) = incoming? {
                        self.handle(incoming, connection, window)?;
                    }
                }
                () = self.shared.wake.notified() => {
                    // A flush comes before the end; what a pipeline that fails has not flushed is not waited for.
                    if self.shared.is_stopped() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The next message, if it may be sent now.
    fn next(&self, window: &Window, unsent: usize) -> Option<Outbound> {
        if window.sent.len() >= usize::from(window.max) || unsent >= UNSENT_BYTES_MAX {
            return None;
        }
        self.shared.lock().queue.pop_front()
    }

    fn publish(&mut self, connection: &mut Connection, window: &mut Window, message: Outbound, packet_bytes_max: usize) -> Result<(), Ended> {
        let size = 32 + message.topic.len() + message.payload.len() + self.content_type.map_or(0, str::len);
        if size > packet_bytes_max {
            return self.reject(&message, &format!("it has {size} bytes, the broker takes packets of {packet_bytes_max}"));
        }
        if self.settings.qos == Qos::AtMostOnce {
            self.say_message(connection, &message, 0, false)?;
            self.shared.settle(&message);
            return Ok(());
        }
        let id = window.free_id();
        window.sent.push_back(Sent { id, message, received: false });
        self.say(connection, window, Packet::Message { id, duplicate: false })
    }

    fn say(&self, connection: &mut Connection, window: &Window, packet: Packet) -> Result<(), Ended> {
        match packet {
            Packet::Release(id) => Ok(connection.send(&Outgoing::Release(id))?),
            Packet::Message { id, duplicate } => {
                let sent = window.sent.iter().find(|sent| sent.id == id).expect("it is in the window");
                self.say_message(connection, &sent.message, id, duplicate)
            }
        }
    }

    fn say_message(&self, connection: &mut Connection, message: &Outbound, id: u16, duplicate: bool) -> Result<(), Ended> {
        let (qos, retain, content_type) = (self.settings.qos, self.settings.retain, self.content_type);
        Ok(connection.send(&Outgoing::Message { topic: &message.topic, payload: &message.payload, qos, retain, duplicate, id, content_type })?)
    }

    fn handle(&mut self, incoming: Incoming, connection: &mut Connection, window: &mut Window) -> Result<(), Ended> {
        match incoming {
            Incoming::Acknowledged { id, refused } => self.settle(window, id, refused),
            Incoming::Received { id, refused: Some(reason) } => self.settle(window, id, Some(reason)),
            Incoming::Received { id, refused: None } => {
                if let Some(sent) = window.sent.iter_mut().find(|sent| sent.id == id) {
                    sent.received = true;
                }
                Ok(connection.send(&Outgoing::Release(id))?)
            }
            Incoming::Completed(id) => self.settle(window, id, None),
            Incoming::Farewell(reason) => Err(Ended::Broken(reason)),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, window: &mut Window, id: u16, refused: Option<String>) -> Result<(), Ended> {
        let Some(at) = window.sent.iter().position(|sent| sent.id == id) else { return Ok(()) };
        match refused {
            None => {
                let sent = window.sent.remove(at).expect("it was found there");
                self.shared.settle(&sent.message);
                Ok(())
            }
            // It may be taken later: the connection is given up, and what is not settled is sent again.
            Some(reason) if reason.starts_with("QuotaExceeded") => Err(Ended::Broken(reason)),
            Some(reason) => {
                let sent = window.sent.remove(at).expect("it was found there");
                self.reject(&sent.message, &format!("the broker refuses it: {reason}"))
            }
        }
    }

    /// Errors: `on_reject` says so.
    fn reject(&mut self, message: &Outbound, reason: &str) -> Result<(), Ended> {
        self.rejects.reject(&format!("a message to {}", message.topic), reason).map_err(Ended::Failed)?;
        self.shared.settle(message);
        Ok(())
    }
}

/// Why a session is over.
enum Ended {
    /// The connection; another may do.
    Broken(String),
    /// The sink.
    Failed(Error),
}

impl From<String> for Ended {
    fn from(trouble: String) -> Ended {
        Ended::Broken(trouble)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Message { id: u16, duplicate: bool },
    Release(u16),
}

/// What has been sent and not settled, in its order.
struct Window {
    sent: VecDeque<Sent>,
    next_id: u16,
    max: u16,
}

impl Window {
    fn free_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.sent.iter().all(|sent| sent.id != id) {
                return id;
            }
        }
    }

    /// What must be said again over a new connection.
    fn again(&mut self, session_present: bool) -> Vec<Packet> {
        self.sent
            .iter_mut()
            .map(|sent| {
                if !session_present {
                    sent.received = false;
                }
                if sent.received { Packet::Release(sent.id) } else { Packet::Message { id: sent.id, duplicate: session_present } }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: u16, received: bool) -> Sent {
        Sent { id, message: Outbound { topic: "t".into(), payload: Bytes::new() }, received }
    }

    #[test]
    fn packet_ids_in_use_are_passed_over() {
        let mut window = Window { sent: VecDeque::from([sent(65_535, false), sent(1, false)]), next_id: 65_534, max: 10 };
        assert_eq!([window.free_id(), window.free_id(), window.free_id()], [65_534, 2, 3]);
    }

    #[test]
    fn what_is_not_settled_is_said_again_in_order() {
        let mut window = Window { sent: VecDeque::from([sent(5, true), sent(6, false)]), next_id: 7, max: 10 };
        assert_eq!(window.again(true), [Packet::Release(5), Packet::Message { id: 6, duplicate: true }]);
        assert_eq!(window.again(false), [Packet::Message { id: 5, duplicate: false }, Packet::Message { id: 6, duplicate: false }]);
    }

    #[test]
    fn a_full_queue_takes_nothing_and_says_why() {
        let shared = Shared::new();
        let message = Outbound { topic: "t".into(), payload: Bytes::from(vec![0; QUEUE_BYTES_MAX]) };
        shared.push(vec![message.clone()], Duration::ZERO).unwrap();
        let error = shared.push(vec![message], Duration::ZERO).unwrap_err();
        assert_eq!(error.message, "not connected yet; 1 messages wait");
        assert_eq!(shared.lock().taken, 1);
    }
}
