//! The poller's side of a Kafka source. In: what the reading thread hands over. Out: batches of at most so many rows, and how it fares.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_core::{Error, OptionError, Poll, Result, Source, SourceBatch, SourceDef, SourceReport};

use super::client::{Watch, open_consumer};
use super::handover::{Handover, Item, Taken};
use super::identity::Identity;
use super::message::check_metadata;
use super::options::{End, SourceOptions};
use super::reader::Reader;
use crate::decode::{self, RecordDecoder};
use crate::source::cut;

/// How long a poll of a bounded source waits for the thread. Unbounded ones never wait.
const POLL_WAIT: Duration = Duration::from_millis(5);

/// Errors: what is wrong with the declaration. Asks no broker.
pub fn check_source(def: &SourceDef) -> Result<(), OptionError> {
    SourceOptions::parse(def)?;
    check_metadata(def)?;
    decode::check_source(def)
}

/// A topic: one partition of the source for each of its own.
pub struct KafkaSource {
    name: String,
    bounded: bool,
    handover: Arc<Handover>,
    watch: Arc<Watch>,
    /// Where to go on; taken by the first poll.
    seeks: Option<BTreeMap<u32, u64>>,
    /// What the last poll left over.
    rest: VecDeque<SourceBatch>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// Starts the thread, which waits for brokers that are away. `identity` is the file in which the topic's id survives a restart. Errors: Invalid,
    /// naming the source; brokers are not asked.
    pub fn start(def: &SourceDef, identity: Option<PathBuf>) -> Result<KafkaSource> {
        let options = SourceOptions::parse(def).map_err(|error| Error::invalid(format!("source {}: {}", def.name, error.message)))?;
        let bounded = options.end != End::Never;
        let watch = Watch::new(&options.connection.topic);
        let handover = Arc::new(Handover::default());
        let consumer = open_consumer(&options.connection, &def.name, &watch)?;
        let identity = Identity::new(&def.name, &options.connection.topic, identity);
        let reader = Reader::new(def, options, RecordDecoder::open(def)?, identity, (watch.clone(), handover.clone()));
        let thread = std::thread::Builder::new()
            .name(format!("kafka {}", def.name))
            .spawn(move || reader.run(&consumer))
            .map_err(|error| Error::unavailable(format!("source {}: cannot start a thread: {error}", def.name)))?;
        let name = def.name.clone();
        Ok(KafkaSource { name, bounded, handover, watch, seeks: Some(BTreeMap::new()), rest: VecDeque::new(), thread: Some(thread) })
    }

    fn deliver(&mut self, batch: SourceBatch, rows_max: usize) -> Poll {
        let (batch, rest) = cut(batch, rows_max);
        self.rest.extend(rest);
        self.handover.set_polled(batch.partition, batch.next_offset);
        Poll::Batch(batch)
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        assert!(rows_max > 0);
        if let Some(seeks) = self.seeks.take() {
            self.handover.begin(seeks);
        }
        if let Some(rest) = self.rest.pop_front() {
            return Ok(self.deliver(rest, rows_max));
        }
        let wait = if self.bounded { POLL_WAIT } else { Duration::ZERO };
        match self.handover.take(wait) {
            Taken::Item(Item::Batch(batch)) => Ok(self.deliver(batch, rows_max)),
            Taken::Item(Item::PartitionEnded(partition)) => Ok(Poll::PartitionEnded(partition)),
            Taken::Ended => Ok(Poll::Ended),
            Taken::Failed(error) => Err(error),
            Taken::Nothing if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => match self.handover.take(Duration::ZERO) {
                // It ended between the two looks.
                Taken::Item(Item::Batch(batch)) => Ok(self.deliver(batch, rows_max)),
                Taken::Item(Item::PartitionEnded(partition)) => Ok(Poll::PartitionEnded(partition)),
                Taken::Ended => Ok(Poll::Ended),
                Taken::Failed(error) => Err(error),
                Taken::Nothing => Err(Error::internal(format!("source {}: its thread panicked", self.name))),
            },
            Taken::Nothing => Ok(Poll::Pending),
        }
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let seeks = self.seeks.as_mut().expect("seek comes before the first poll");
        seeks.insert(partition, offset);
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Known once the first poll has begun and brokers have answered.
    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        Ok(self.handover.partitions())
    }

    fn pause(&mut self, partition: u32, paused: bool) -> Result<()> {
        self.handover.pause(partition, paused);
        Ok(())
    }

    fn is_whole(&self, partition: u32) -> bool {
        self.handover.is_whole(partition)
    }

    fn has_more(&self, partition: u32) -> Option<bool> {
        self.handover.has_more(partition)
    }

    fn report(&self) -> SourceReport {
        let trouble = self.handover.trouble().or_else(|| self.watch.trouble());
        let lag_rows = self.handover.lag(|partition| self.watch.end(partition));
        SourceReport { trouble, lag_rows }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.handover.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has nobody left to tell.
            let _ = thread.join();
        }
    }
}
