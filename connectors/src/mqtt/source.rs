//! The poller's side of an MQTT source. In: messages from its thread. Out: rows; one partition, whose offset is the running number of a message.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use freshet_core::{Error, MetadataColumn, OptionError, Poll, Result, Source, SourceDef, SourceReport};

use super::journal::Journal;
use super::packet::Message;
use super::receiver::{Kept, Receiver, Shared};
use super::settings::{Qos, SourceSettings};
use crate::decode::{Cell, Fault, Metadata, Record, RecordDecoder, Rows, record_bytes_max};

pub struct MqttSource {
    name: String,
    settings: SourceSettings,
    decoder: RecordDecoder,
    record_bytes_max: usize,
    rows: Rows,
    shared: Arc<Shared>,
    /// Where messages are kept that checkpoints do not hold yet. None: the broker keeps them.
    journal: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
    /// Where the first message of this run stands.
    base: u64,
    /// Messages polled in this run.
    polled: u64,
    /// Why the next message cannot be decoded yet.
    waits: Option<String>,
}

impl MqttSource {
    /// Checks what can be checked without the broker; it is connected to by the first poll. With a folder for a journal messages are
    /// acknowledged once they are there. Errors: Invalid, naming the source.
    pub fn open(def: &SourceDef, journal: Option<PathBuf>) -> Result<MqttSource> {
        let named = |message: String| Error::invalid(format!("source {}: {message}", def.name));
        let settings = SourceSettings::parse(&def.name, &def.options).map_err(|error| named(error.message))?;
        if let Some(files) = &settings.broker.tls {
            files.client_config().map_err(|error| named(error.message))?;
        }
        // A quality of 0 has no acknowledgements.
        let journal = journal.filter(|_| settings.qos > Qos::AtMostOnce);
        Ok(MqttSource {
            name: def.name.clone(),
            settings,
            journal,
            decoder: RecordDecoder::open(def)?,
            record_bytes_max: record_bytes_max(def).map_err(|error| named(error.message))?,
            rows: Rows::new(def.schema.clone()),
            shared: Arc::new(Shared::new()),
            thread: None,
            base: 0,
            polled: 0,
            waits: None,
        })
    }

    fn start(&mut self) -> Result<()> {
        let kept = match &self.journal {
            None => None,
            Some(folder) => {
                let opened = Journal::open(folder, self.base);
                let (journal, replay) = opened.map_err(|error| {
                    Error::unavailable(format!("source {}: its journal in {} cannot be read: {error}", self.name, folder.display()))
                })?;
                Some(Kept { journal, replay, base: self.base })
            }
        };
        let receiver = Receiver {
            settings: self.settings.clone(),
            shared: self.shared.clone(),
            record_bytes_max: self.record_bytes_max,
            resumed: self.base > 0 || kept.as_ref().is_some_and(|kept| kept.journal.kept() > 0),
            kept,
        };
        let thread =
            receiver.start(&self.name).map_err(|error| Error::unavailable(format!("source {}: cannot start a thread: {error}", self.name)))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// False: the message must be decoded again later.
    fn decode(&mut self, message: &Message) -> bool {
        let record =
            Record { key: None, payload: Some(&message.payload), offset: self.base + self.polled, origin: &message.topic, metadata: message };
        if let Some(bytes) = message.oversized {
            let reason = format!("the message has {bytes} bytes, max_record_bytes is {}; raise it, or send smaller messages", self.record_bytes_max);
            self.rows.bury_beginning(Fault::new("", reason), &record, bytes as u64);
            return true;
        }
        match self.decoder.decode(&record, &mut self.rows) {
            Ok(()) => true,
            Err(wait) => {
                self.waits = Some(wait.reason);
                false
            }
        }
    }
}

impl Source for MqttSource {
    /// What was sent before the subscription is gone.
    fn is_whole(&self, _partition: u32) -> bool {
        false
    }

    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        assert!(rows_max > 0);
        match &self.thread {
            None => self.start()?,
            Some(thread) if thread.is_finished() => return Err(Error::internal(format!("source {}: its thread has ended", self.name))),
            Some(_) => {}
        }
        let before = self.polled;
        self.waits = None;
        while self.rows.records() < rows_max && !self.rows.is_full() {
            let Some(message) = self.shared.pop() else { break };
            if !self.decode(&message) {
                self.shared.put_back(message);
                break;
            }
            self.polled += 1;
        }
        if self.polled == before {
            return Ok(Poll::Pending);
        }
        Ok(Poll::Batch(self.rows.finish(0, self.base + self.polled)?))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        assert!(self.thread.is_none(), "seek comes before the first poll");
        if partition != 0 {
            return Err(Error::invalid(format!("source {} has one partition, 0; it has no partition {partition}", self.name)));
        }
        self.base = offset;
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn accepted(&mut self, partition: u32, offset: u64) -> Result<()> {
        assert_eq!(partition, 0, "there is one partition");
        self.shared.accept(offset.saturating_sub(self.base));
        Ok(())
    }

    fn report(&self) -> SourceReport {
        let (trouble, waiting) = self.shared.report();
        SourceReport { trouble: self.waits.clone().or(trouble), lag_rows: Some(waiting) }
    }
}

impl Drop for MqttSource {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Metadata for Message {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        let text = |text: &'_ Option<String>| text.as_ref().map_or(Cell::Null, |text| Cell::Text(Cow::Owned(text.clone())));
        if let Some(number) = level(name) {
            let found = self.topic.split('/').nth(number - 1);
            return Some(found.map_or(Cell::Null, |level| Cell::Raw(Cow::Borrowed(level))));
        }
        if let Some(wanted) = name.strip_prefix("user.") {
            let found = self.user.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            return Some(found.map_or(Cell::Null, |(_, value)| Cell::Raw(Cow::Borrowed(value))));
        }
        match name {
            "topic" => Some(Cell::Text(Cow::Borrowed(&self.topic))),
            "qos" => Some(Cell::Int(i64::from(self.qos))),
            "retain" => Some(Cell::Bool(self.retain)),
            "content_type" => Some(text(&self.content_type)),
            "response_topic" => Some(text(&self.response_topic)),
            _ => None,
        }
    }
}

/// N of `level.N`, from 1.
fn level(name: &str) -> Option<usize> {
    name.strip_prefix("level.")?.parse().ok().filter(|number| (1..=65_536).contains(number))
}

/// Errors: a name that messages do not have.
pub fn check_metadata(columns: &[MetadataColumn]) -> Result<(), OptionError> {
    let message = Message::default();
    match columns.iter().find(|column| message.cell(&column.name).is_none()) {
        None => Ok(()),
        Some(MetadataColumn { name, .. }) => Err(OptionError::metadata(
            name,
            format!(
                "an MQTT message has no metadata {name}; it has topic, level.1, level.2 …, qos, retain, content_type, response_topic and user.NAME"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_topic_count_from_one() {
        let message = Message { topic: "factory/7//x".into(), ..Message::default() };
        let cell = |name: &str| message.cell(name);
        assert_eq!(cell("level.1"), Some(Cell::Raw("factory".into())));
        assert_eq!(cell("level.2"), Some(Cell::Raw("7".into())));
        assert_eq!(cell("level.3"), Some(Cell::Raw("".into())));
        assert_eq!(cell("level.5"), Some(Cell::Null));
        assert_eq!((cell("level.0"), cell("offset")), (None, None));
    }
}
