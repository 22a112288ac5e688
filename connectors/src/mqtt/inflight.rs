//! Which received messages the broker still waits to hear of. In: messages, how far they have been taken in. Out: acknowledgements, in order.
//!
//! A broker sends again, after a break, what it has heard nothing of. Within one run such a message is known by its packet id and its bytes
//! and is no second record; packet ids are not used again before their message is settled, so nothing new is taken for something old.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::packet::Message;

/// A message that has been received and not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unsettled {
    /// Its running number among all messages taken in.
    number: u64,
    id: u16,
    qos: u8,
    fingerprint: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// QoS 1: taken in.
    Acknowledge(u16),
    /// QoS 2: taken in; the broker will release the packet id.
    Receive(u16),
}

#[derive(Debug, Default)]
pub struct Inflight {
    /// Received over this connection, in its order.
    waiting: VecDeque<Unsettled>,
    /// Received over an earlier one, by packet id.
    earlier: HashMap<u16, Unsettled>,
    /// QoS 2: answered, not yet released.
    received: HashSet<u16>,
    /// Answers that wait for nothing.
    again: VecDeque<Answer>,
}

impl Inflight {
    /// A new connection: the broker has kept what it had for us, or has not.
    pub fn reconnect(&mut self, session_present: bool) {
        self.again.clear();
        if session_present {
            self.earlier.extend(self.waiting.drain(..).map(|unsettled| (unsettled.id, unsettled)));
        } else {
            self.waiting.clear();
            self.earlier.clear();
            self.received.clear();
        }
    }

    /// A message has come; `number` is what it gets if it is new. False: it is known and must not be taken in again.
    pub fn receive(&mut self, message: &Message, number: u64) -> bool {
        if message.qos == 0 {
            return true;
        }
        let unsettled = Unsettled { number, id: message.id, qos: message.qos, fingerprint: fingerprint(message) };
        if message.qos == 2 && self.received.contains(&message.id) {
            self.again.push_back(Answer::Receive(message.id));
            return false;
        }
        match self.earlier.remove(&message.id) {
            Some(known) if message.duplicate && known.fingerprint == unsettled.fingerprint => {
                self.waiting.push_back(known);
                return false;
            }
            _ => {}
        }
        if message.duplicate && self.waiting.iter().any(|known| known.id == unsettled.id && known.fingerprint == unsettled.fingerprint) {
            return false;
        }
        self.waiting.push_back(unsettled);
        true
    }

    /// A message that nobody wants has come: it is settled at once.
    pub fn discard(&mut self, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.again.push_back(Answer::Acknowledge(message.id)),
            _ => {
                self.received.insert(message.id);
                self.again.push_back(Answer::Receive(message.id));
            }
        }
    }

    /// The next answer, now that all messages with numbers below `accepted` have been taken in.
    pub fn answer(&mut self, accepted: u64) -> Option<Answer> {
        if let Some(answer) = self.again.pop_front() {
            return Some(answer);
        }
        let first = self.waiting.front().filter(|first| first.number < accepted).copied()?;
        self.waiting.pop_front();
        if first.qos == 1 {
            return Some(Answer::Acknowledge(first.id));
        }
        self.received.insert(first.id);
        Some(Answer::Receive(first.id))
    }

    /// The broker knows that the message has been received: its packet id is free.
    pub fn release(&mut self, id: u16) {
        self.received.remove(&id);
    }
}

fn fingerprint(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&message.topic, &message.payload, message.oversized).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(id: u16, qos: u8, payload: &'static str, duplicate: bool) -> Message {
        Message { topic: "t".into(), payload: Bytes::from(payload), qos, id, duplicate, ..Message::default() }
    }

    #[test]
    fn messages_are_acknowledged_in_order_once_taken_in() {
        let mut inflight = Inflight::default();
        assert!(inflight.receive(&message(1, 1, "a", false), 0));
        assert!(inflight.receive(&message(0, 0, "b", false), 1));
        assert!(inflight.receive(&message(2, 2, "c", false), 2));
        assert_eq!(inflight.answer(0), None);
        assert_eq!(inflight.answer(2), Some(Answer::Acknowledge(1)));
        assert_eq!(inflight.answer(2), None);
        assert_eq!(inflight.answer(3), Some(Answer::Receive(2)));
        inflight.release(2);
        assert!(inflight.receive(&message(2, 2, "c", true), 3), "a released packet id is free");
    }

    #[test]
    fn what_comes_again_after_a_break_is_known() {
        let mut inflight = Inflight::default();
        assert!(inflight.receive(&message(1, 1, "a", false), 0));
        assert!(inflight.receive(&message(2, 1, "b", false), 1));
        assert!(inflight.receive(&message(3, 2, "c", false), 2));
        inflight.reconnect(true);
        // Taken in meanwhile, but the broker could not be told.
        assert_eq!(inflight.answer(3), None);
        assert!(!inflight.receive(&message(1, 1, "a", true), 3));
        assert!(inflight.receive(&message(2, 1, "other", true), 3), "another message under the same packet id is new");
        assert!(!inflight.receive(&message(3, 2, "c", true), 4));
        assert_eq!(inflight.answer(3), Some(Answer::Acknowledge(1)));
        assert_eq!(inflight.answer(3), None);
        assert_eq!(inflight.answer(4), Some(Answer::Acknowledge(2)));
        assert_eq!(inflight.answer(4), Some(Answer::Receive(3)));
        inflight.reconnect(true);
        assert!(!inflight.receive(&message(3, 2, "c", true), 5), "answered, not released");
        assert_eq!(inflight.answer(0), Some(Answer::Receive(3)));
    }

    #[test]
    fn a_broker_that_has_forgotten_the_session_sends_new_messages_only() {
        let mut inflight = Inflight::default();
        assert!(inflight.receive(&message(1, 1, "a", false), 0));
        assert!(inflight.receive(&message(2, 2, "a", false), 1));
        assert_eq!(inflight.answer(1), Some(Answer::Acknowledge(1)));
        inflight.reconnect(false);
        assert_eq!(inflight.answer(9), None);
        assert!(inflight.receive(&message(2, 2, "a", true), 2));
    }

    #[test]
    fn unwanted_messages_are_settled_at_once() {
        let mut inflight = Inflight::default();
        inflight.discard(&message(1, 1, "a", false));
        inflight.discard(&message(2, 2, "a", false));
        assert_eq!([inflight.answer(0), inflight.answer(0)], [Some(Answer::Acknowledge(1)), Some(Answer::Receive(2))]);
    }
}
