//! Writes records to a topic. In: changes of complete epochs. Out: records in that order, each delivered before a flush returns.
//!
//! The producer is idempotent, so a broker never has a record twice because a connection broke. What was written since the last checkpoint is
//! written again after a crash: records arrive at least once, and each carries its epoch in a header, by which a reader can tell.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Batch, Epoch, Error, OptionError, Result, Sink, SinkDef};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::bounds::REQUEST_WAIT;
use super::client::{Listener, Watch, check_files, described, refused, writer_config};
use super::options::SinkOptions;
use crate::encode::{self, OutRecord, RecordEncoder};
use crate::reject::Rejects;

/// The header that holds the logical time of a record, in milliseconds since 1970.
const EPOCH_HEADER: &str = "freshet-epoch";
/// How long a write waits for room before it says that brokers are away.
const WRITE_WAIT: Duration = Duration::from_secs(2);
/// How long a flush waits for deliveries before it says that brokers are away.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// One look at what was delivered.
const POLL_WAIT: Duration = Duration::from_millis(1);
/// Before a record is sent again that librdkafka has given up.
const RESEND_WAIT: Duration = Duration::from_millis(100);

/// Errors: what is wrong with the declaration. Asks no broker.
pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    SinkOptions::parse(def)?;
    encode::check_sink(def)
}

pub struct KafkaSink {
    name: String,
    topic: String,
    producer: BaseProducer<Deliveries>,
    encoder: RecordEncoder,
    /// Encoded and not yet given to librdkafka, in order, with their places in that order: what one write brought, at most.
    unsent: VecDeque<(usize, OutRecord)>,
    written: usize,
    /// Places of records that went out beside others in a batch that was too large: they go out again by themselves.
    alone: BTreeSet<usize>,
    rejects: Rejects,
    /// Delivered by earlier generations.
    before: u64,
    topic_found: bool,
    failure: Option<Error>,
}

/// What librdkafka has delivered, and what it has given up.
struct Deliveries {
    listener: Listener,
    done: AtomicUsize,
    failed: Mutex<Vec<(usize, OutRecord, KafkaError)>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// The record's place in the order of writing.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Err((error, message)) = result {
            let epoch = message.headers().and_then(epoch_of).unwrap_or_default();
            let record = OutRecord { key: message.key().map(<[u8]>::to_vec), payload: message.payload().map(<[u8]>::to_vec), epoch, row: 0 };
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((place, record, error.clone()));
        }
        self.done.fetch_add(1, Ordering::AcqRel);
    }
}

fn epoch_of<H: rdkafka::message::Headers>(headers: &H) -> Option<Epoch> {
    let header = headers.iter().find(|header| header.key == EPOCH_HEADER)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok().map(Epoch)
}

impl KafkaSink {
    /// Errors: Invalid, naming the sink; brokers are not asked.
    pub fn open(def: &SinkDef) -> Result<KafkaSink> {
        let options = SinkOptions::parse(def).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        check_files(&format!("sink {}", def.name), &options.connection)?;
        let watch = Watch::new(&options.connection.topic);
        let deliveries = Deliveries { listener: Listener(watch), done: AtomicUsize::new(0), failed: Mutex::default() };
        let created = writer_config(&options.connection).create_with_context(deliveries);
        Ok(KafkaSink {
            name: def.name.clone(),
            topic: options.connection.topic,
            producer: created.map_err(|error| refused(&format!("sink {}", def.name), &error))?,
            encoder: RecordEncoder::open(def)?,
            unsent: VecDeque::new(),
            written: 0,
            alone: BTreeSet::new(),
            rejects: options.rejects,
            before: 0,
            topic_found: false,
            failure: None,
        })
    }

    /// Before the first record: a topic that does not exist is said at once, not after the timeouts of a client.
    fn find_topic(&mut self) -> Result<()> {
        if self.topic_found {
            return Ok(());
        }
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), REQUEST_WAIT);
        // Serves logs and errors, which hold better reasons.
        self.producer.poll(POLL_WAIT * 10);
        let metadata = metadata.map_err(|error| self.unavailable(&format!("no broker answers: {}", self.watch().reason(&error))))?;
        match metadata.topics().iter().find(|found| found.name() == self.topic).map(|found| found.error().map(RDKafkaErrorCode::from)) {
            Some(None) => {
                self.topic_found = true;
                Ok(())
            }
            Some(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) | None => {
                Err(self.unavailable(&format!("topic {} does not exist; create it, or check the name", self.topic)))
            }
            Some(Some(code)) => Err(self.unavailable(&format!("topic {}: {}", self.topic, described(code)))),
        }
    }

    /// Sends and takes deliveries until `enough` says so or the time is up.
    fn drive(&mut self, wait: Duration, enough: impl Fn(&KafkaSink) -> bool) -> Result<()> {
        let deadline = Instant::now() + wait;
        loop {
            self.take_failures()?;
            let blocked = self.send()?;
            if enough(self) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let count = self.undelivered() + self.unsent.len();
                let because = self.watch().words().map_or(String::new(), |words| format!(": {words}"));
                return Err(self.unavailable(&format!("{count} records are not delivered yet{because}")));
            }
            self.producer.poll(if blocked || self.unsent.is_empty() { POLL_WAIT } else { Duration::ZERO });
        }
    }

    /// Gives librdkafka what it takes. True if it is full.
    fn send(&mut self) -> Result<bool> {
        while let Some((place, record)) = self.unsent.front() {
            if !self.alone.is_empty() {
                if self.undelivered() > 0 {
                    return Ok(true);
                }
                // Failures have been taken before, so what is not here any more has been delivered.
                self.alone = self.alone.split_off(place);
            }
            let epoch = record.epoch.0.to_string();
            let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: EPOCH_HEADER, value: Some(&epoch) });
            let message = BaseRecord::<[u8], [u8], usize> {
                topic: &self.topic,
                partition: None,
                payload: record.payload.as_deref(),
                key: record.key.as_deref(),
                timestamp: None,
                headers: Some(headers),
                delivery_opaque: *place,
            };
            match self.producer.send(message) {
                Ok(()) => {
                    self.unsent.pop_front();
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return Ok(true),
                Err((error, _)) => {
                    let (_, record) = self.unsent.pop_front().expect("it is the first");
                    self.refuse(&error, &record)?;
                    // It waits for no delivery.
                    self.producer.context().done.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        Ok(false)
    }

    /// Records that librdkafka has given up go out again, before those that came later.
    fn take_failures(&mut self) -> Result<()> {
        let mut failed = std::mem::take(&mut *self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(code) = failed.first().and_then(|(_, _, error)| error.rdkafka_error_code()) {
            self.watch().set_words(format!("topic {}: {}", self.topic, described(code)));
        }
        failed.sort_by_key(|(place, _, _)| std::cmp::Reverse(*place));
        let mut again = 0;
        for (place, record, error) in failed {
            // The batch was too large; the record may not be. What went out behind it may overtake it, so this is for those who drop records.
            let too_large = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
            let batched = too_large && self.rejects.drops() && self.alone.insert(place);
            if !batched && !passes(&error) {
                self.refuse(&error, &record)?;
                continue;
            }
            again += 1;
            self.unsent.push_front((place, record));
        }
        if again > 0 {
            // They are counted again when they are delivered.
            self.producer.context().done.fetch_sub(again, Ordering::AcqRel);
            self.producer.poll(RESEND_WAIT);
        }
        Ok(())
    }

    /// Sent and neither delivered nor given up.
    fn undelivered(&self) -> usize {
        self.written - self.unsent.len() - self.producer.context().done.load(Ordering::Acquire)
    }

    /// Errors: it cannot go on without the record, or must not.
    fn refuse(&mut self, error: &KafkaError, record: &OutRecord) -> Result<()> {
        let bytes = record.payload.as_ref().map_or(0, Vec::len) + record.key.as_ref().map_or(0, Vec::len);
        let code = error.rdkafka_error_code();
        if !matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::BadMessage)) {
            return Err(self.fail(error));
        }
        let (name, topic, reason) = (&self.name, &self.topic, code.map(described).unwrap_or_default());
        let said = || match code {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => format!(
                "sink {name}: a record of {bytes} bytes is larger than topic {topic} or the client takes, or the batch it was in; raise max.message.bytes \
                 of the topic and properties.message.max.bytes, lower properties.batch.size, or set on_reject = 'drop'"
            ),
            _ => format!("sink {name}: topic {topic} refuses a record for good: {reason}; mend it, or set on_reject = 'drop'"),
        };
        let rejected = self.rejects.reject_as(&format!("a record of {bytes} bytes of epoch {}", record.epoch), &reason, said);
        self.failure = rejected.clone().err();
        rejected
    }

    fn fail(&mut self, error: &KafkaError) -> Error {
        let (name, topic) = (&self.name, &self.topic);
        let message = match error.rdkafka_error_code() {
            Some(code) => format!("sink {name}: topic {topic} refuses a record for good: {}", described(code)),
            None => format!("sink {name}: topic {topic} refuses a record for good: {error}"),
        };
        let failure = Error::data(message);
        self.failure = Some(failure.clone());
        failure
    }

    fn unavailable(&self, reason: &str) -> Error {
        Error::unavailable(format!("sink {}: {reason}", self.name))
    }

    fn watch(&self) -> Arc<Watch> {
        self.producer.context().listener.0.clone()
    }

    fn check(&self) -> Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.clone()))
    }
}

/// Whether sending it again may help.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        BadMessage, Fatal, InvalidProducerEpoch, InvalidRecord, MessageSizeTooLarge, OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId,
    };
    !matches!(
        error.rdkafka_error_code(),
        Some(
            BadMessage
                | Fatal
                | InvalidProducerEpoch
                | InvalidRecord
                | MessageSizeTooLarge
                | OutOfOrderSequenceNumber
                | ProducerFenced
                | UnknownProducerId
        )
    )
}

impl Sink for KafkaSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        self.check()?;
        self.find_topic()?;
        // Before anything of these changes is taken: if there is no room, they come again.
        self.drive(WRITE_WAIT, |sink| sink.unsent.is_empty())?;
        let mut records = Vec::new();
        self.encoder.encode(changes, &mut records)?;
        for record in records {
            self.unsent.push_back((self.written, record));
            self.written += 1;
        }
        self.drive(Duration::ZERO, |_| true)
    }

    /// The position is how many records were delivered.
    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        self.check()?;
        self.drive(FLUSH_WAIT, |sink| sink.unsent.is_empty() && sink.undelivered() == 0)?;
        self.watch().clear();
        Ok(self.before + self.written as u64)
    }

    /// A topic cannot be cut: what was written after the position stays, and comes again.
    fn restore(&mut self, position: u64) -> Result<()> {
        self.before = position;
        Ok(())
    }
}
