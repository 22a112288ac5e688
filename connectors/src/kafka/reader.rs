//! The thread of a Kafka source. In: messages of librdkafka, of any partition. Out: decoded batches of one partition each, in offset order, with
//! no record twice and none left out: offsets are checked here, never committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::{Error, Result, SourceDef};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;

use super::bounds::{Asker, Bounds, Unready};
use super::client::{Consumer, Watch, described};
use super::handover::{Handover, Item, Progress};
use super::identity::Identity;
use super::message::Surroundings;
use super::options::{End, SourceOptions};
use crate::decode::{Record, RecordDecoder, Rows};

/// How long a poll waits where nothing is under way.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long rows may grow into a larger batch while the poller is busy with earlier ones.
const GROW_WAIT: Duration = Duration::from_millis(1);
/// How long rows wait at most while messages keep coming.
const BATCH_AGE_MAX: Duration = Duration::from_millis(4);
/// Messages between two looks at the clock.
const CLOCK_EVERY: u32 = 128;
/// Messages behind batches under construction, over all partitions.
const BUILT_BYTES_MAX: usize = 16 << 20;
/// How long to wait before brokers are asked again: doubled from the first to the second.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Between two looks at what only time changes: pauses, ends that were not there yet.
const CHORES_EVERY: Duration = Duration::from_millis(200);
/// Logs and errors that are served between two attempts to reach a broker.
const EVENTS_AT_A_TIME: usize = 64;
/// A record whose schema has not come is tried again so often.
const SCHEMA_WAIT: Duration = Duration::from_millis(100);
/// How often the ends are asked for while the poller takes nothing.
const LAG_EVERY: Duration = Duration::from_secs(1);
/// How often the topic's id is asked for while it may have changed.
const DOUBT_EVERY: Duration = Duration::from_secs(1);
/// A follower that has just become the leader may know less of the end than its predecessor: for so long an offset behind the end is no error.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);

/// One partition: a log that is read in order.
struct Log {
    rows: Rows,
    /// For dead letters: topic/partition.
    origin: String,
    /// The offset that comes next, or one before it where offsets have gaps.
    next: u64,
    /// `next` is where the broker's earliest record was, which may be gone by now.
    approximate: bool,
    end: Option<u64>,
    ended: bool,
    at_end: bool,
}

pub struct Reader {
    name: String,
    options: SourceOptions,
    def: SourceDef,
    watch: Arc<Watch>,
    handover: Arc<Handover>,
    decoder: RecordDecoder,
    logs: BTreeMap<u32, Log>,
    /// Partitions with rows that were not handed over, and the bytes behind them.
    built: BTreeSet<u32>,
    built_bytes: usize,
    built_since: Instant,
    paused: BTreeSet<u32>,
    pauses_seen: u64,
    chores_done: Instant,
    discovered: Instant,
    /// Since when some partition goes on behind its end.
    ahead_since: Option<Instant>,
    /// Some partition may have stopped because its offset was out of range, and brokers could not be asked.
    lost: bool,
    identity: Identity,
    /// Brokers did not know the topic, or not our place in it: since then, or since the last look, it may be another.
    doubted: Option<Instant>,
}

impl Reader {
    pub fn new(
        def: &SourceDef,
        options: SourceOptions,
        decoder: RecordDecoder,
        identity: Identity,
        (watch, handover): (Arc<Watch>, Arc<Handover>),
    ) -> Reader {
        let now = Instant::now();
        Reader {
            name: def.name.clone(),
            options,
            def: def.clone(),
            watch,
            handover,
            decoder,
            logs: BTreeMap::new(),
            built: BTreeSet::new(),
            built_bytes: 0,
            built_since: now,
            paused: BTreeSet::new(),
            pauses_seen: 0,
            chores_done: now,
            discovered: now,
            ahead_since: None,
            lost: false,
            identity,
            doubted: None,
        }
    }

    /// Runs until every partition has ended, something fails for good, or the poller is gone.
    pub fn run(mut self, consumer: &Consumer) {
        match self.read(consumer) {
            Ok(()) if self.handover.is_stopped() => {}
            Ok(()) => self.handover.end(),
            Err(error) => self.handover.fail(error),
        }
    }

    fn read(&mut self, consumer: &Consumer) -> Result<()> {
        let Some(bounds) = self.wait_for_bounds(consumer)? else { return Ok(()) };
        self.begin(consumer, &bounds)?;
        let mut polled: u32 = 0;
        while !self.handover.is_stopped() && (self.options.end == End::Never || self.logs.values().any(|log| !log.ended)) {
            // A look that does not wait costs less, and mostly there is something.
            let found =
                consumer.poll(Duration::ZERO).or_else(|| Some(self.wait()).filter(|wait| !wait.is_zero()).and_then(|wait| consumer.poll(wait)));
            match found {
                Some(Ok(message)) => {
                    self.take(consumer, &message)?;
                    polled += 1;
                    if polled < CLOCK_EVERY {
                        continue;
                    }
                }
                Some(Err(error)) => self.event(consumer, &error)?,
                None => {
                    self.follow_pauses(consumer)?;
                    if self.handover.is_empty() {
                        self.flush_all(consumer)?;
                    }
                }
            }
            polled = 0;
            self.look_at_clock(consumer)?;
        }
        Ok(())
    }

    fn wait(&self) -> Duration {
        match (self.built.is_empty(), self.handover.is_empty()) {
            (true, _) => IDLE_WAIT,
            (false, true) => Duration::ZERO,
            (false, false) => GROW_WAIT,
        }
    }

    // --- where it begins

    /// None: the poller is gone.
    fn wait_for_bounds(&mut self, consumer: &Consumer) -> Result<Option<Vec<Bounds>>> {
        let mut marks = None;
        let mut seeks = None;
        let mut wait = RETRY_WAITS.0;
        loop {
            if self.handover.is_stopped() {
                return Ok(None);
            }
            match self.try_bounds(consumer, &mut marks, &mut seeks) {
                Ok(Some(bounds)) => {
                    self.handover.set_trouble(None);
                    self.watch.clear();
                    return Ok(Some(bounds));
                }
                Ok(None) => {
                    self.handover.set_trouble(None);
                    wait = RETRY_WAITS.0;
                }
                Err(Unready::Failed(error)) => return Err(error),
                Err(unready) => {
                    // Serves logs and errors, which hold the reasons; nothing is assigned yet, so no record is among them.
                    for _ in 0..EVENTS_AT_A_TIME {
                        let _ = consumer.poll(Duration::ZERO);
                    }
                    let reason = match unready {
                        Unready::Unanswered(what, error) => format!("{what}: {}", self.watch.reason(&error)),
                        Unready::Trouble(reason) => reason,
                        Unready::Failed(_) => unreachable!("it has returned"),
                    };
                    self.handover.set_trouble(Some(reason));
                    self.handover.sleep(wait);
                    wait = (wait * 2).min(RETRY_WAITS.1);
                }
            }
        }
    }

    /// One attempt; keeps what it has found out. None: the poller has not begun.
    fn try_bounds(
        &mut self,
        consumer: &Consumer,
        marks: &mut Option<Marks>,
        seeks: &mut Option<BTreeMap<u32, u64>>,
    ) -> Result<Option<Vec<Bounds>>, Unready> {
        let asker = Asker { source: &self.name, options: &self.options, consumer };
        // The ends of a bounded source are those of its start; others are asked for when reading begins.
        if marks.is_none() {
            let partitions = asker.partitions()?;
            if self.options.end == End::Latest {
                *marks = Some(all_marks(&asker, &partitions)?);
            }
        }
        if seeks.is_none() {
            *seeks = self.handover.begun(IDLE_WAIT);
        }
        let Some(seeks) = seeks else { return Ok(None) };
        let found = match marks {
            Some(marks) => marks,
            None => marks.insert(all_marks(&asker, &asker.partitions()?)?),
        };
        let bounds = asker.bounds(found, seeks)?;
        let from_checkpoint = !seeks.is_empty();
        self.identity.begin(consumer, from_checkpoint)?;
        let problem = bounds.iter().find_map(|bound| Some((bound, asker.check_begin(bound, found[&bound.partition].0, from_checkpoint).err()?)));
        match problem {
            None => Ok(Some(bounds)),
            // A broker that has just become the leader may not know the end yet.
            Some((bound, Unready::Failed(error))) if from_checkpoint && bound.begin > bound.high => {
                *marks = None;
                let since = *self.ahead_since.get_or_insert_with(Instant::now);
                Err(if since.elapsed() < CATCH_UP_MAX { Unready::Trouble(error.message) } else { Unready::Failed(error) })
            }
            Some((_, problem)) => Err(problem),
        }
    }

    fn begin(&mut self, consumer: &Consumer, bounds: &[Bounds]) -> Result<()> {
        self.add_logs(consumer, bounds)?;
        let (ended, open): (Vec<&Bounds>, Vec<&Bounds>) = bounds.iter().partition(|bound| bound.end.is_some_and(|end| bound.begin >= end));
        self.assign(consumer, open.into_iter())?;
        for bound in ended {
            self.log(bound.partition).ended = true;
            self.hand_over(consumer, Item::PartitionEnded(bound.partition), 0);
        }
        let now = Instant::now();
        (self.chores_done, self.discovered) = (now, now);
        Ok(())
    }

    /// New partitions begin with an empty batch: a checkpoint must know where each began, even if it never has a row.
    fn add_logs(&mut self, consumer: &Consumer, bounds: &[Bounds]) -> Result<()> {
        for bound in bounds {
            let Bounds { partition, begin, earliest, end, high } = *bound;
            let mut log = Log {
                rows: Rows::new(self.def.schema.clone()),
                origin: format!("{}/{partition}", self.options.connection.topic),
                next: begin,
                approximate: earliest,
                end,
                ended: false,
                at_end: false,
            };
            let empty = log.rows.finish(partition, begin)?;
            self.logs.insert(partition, log);
            self.watch.set_end(partition, high);
            if begin > 0 {
                self.handover.set_cut(partition);
            }
            self.handover.set_progress(partition, Progress { handed: begin, polled: begin, at_end: begin >= high, bound: end });
            self.hand_over(consumer, Item::Batch(empty), 0);
        }
        self.handover.set_partitions(self.logs.keys().copied().collect());
        Ok(())
    }

    fn assign<'b>(&self, consumer: &Consumer, bounds: impl Iterator<Item = &'b Bounds>) -> Result<()> {
        let places = bounds.map(|bound| (bound.partition, if bound.earliest { Offset::Beginning } else { Offset::Offset(bound.begin as i64) }));
        self.assign_at(consumer, places)
    }

    fn assign_at(&self, consumer: &Consumer, places: impl Iterator<Item = (u32, Offset)>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            list.add_partition_offset(&self.options.connection.topic, partition as i32, offset).map_err(|error| self.internal(&error))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer.incremental_assign(&list).map_err(|error| self.internal(&error))
    }

    fn unassign(&self, consumer: &Consumer, partition: u32) -> Result<()> {
        let list = self.list([partition]);
        consumer.incremental_unassign(&list).map_err(|error| self.internal(&error))
    }

    // --- records

    fn take(&mut self, consumer: &Consumer, message: &BorrowedMessage<'_>) -> Result<()> {
        let partition = message.partition() as u32;
        let offset = message.offset() as u64;
        let Some(log) = self.logs.get_mut(&partition).filter(|log| !log.ended) else { return Ok(()) };
        if log.end.is_some_and(|end| offset >= end) {
            return self.end(consumer, partition);
        }
        if offset < log.next && !log.approximate {
            // Fetched again after a change of assignment.
            return Ok(());
        }
        if log.at_end {
            log.at_end = false;
            self.handover.set_at_end(partition, false);
            self.watch.clear();
        }
        if self.built.is_empty() {
            self.built_since = Instant::now();
        }
        self.decode(consumer, partition, message)?;
        let log = self.log(partition);
        log.next = offset + 1;
        log.approximate = false;
        let (full, ended) = (log.rows.is_full(), log.end.is_some_and(|end| log.next >= end));
        self.built.insert(partition);
        self.built_bytes += message.payload_len() + message.key_len();
        if ended {
            return self.end(consumer, partition);
        }
        if full {
            return self.flush(consumer, partition);
        }
        if self.built_bytes > BUILT_BYTES_MAX {
            return self.flush_all(consumer);
        }
        Ok(())
    }

    /// Decodes one message, as often as it takes until its schema is there.
    fn decode(&mut self, consumer: &Consumer, partition: u32, message: &BorrowedMessage<'_>) -> Result<()> {
        let mut waited = false;
        loop {
            let log = self.logs.get_mut(&partition).expect("the caller has found it");
            let surroundings = Surroundings { message, topic: &self.options.connection.topic };
            let record = Record {
                key: message.key(),
                payload: message.payload(),
                offset: message.offset() as u64,
                origin: &log.origin,
                metadata: &surroundings,
            };
            let Err(wait) = self.decoder.decode(&record, &mut log.rows) else { break };
            if self.handover.is_stopped() {
                return Ok(());
            }
            if !waited {
                self.flush_all(consumer)?;
            }
            waited = true;
            self.handover.set_trouble(Some(wait.reason));
            self.handover.sleep(SCHEMA_WAIT);
        }
        if waited {
            self.handover.set_trouble(None);
        }
        Ok(())
    }

    fn flush_all(&mut self, consumer: &Consumer) -> Result<()> {
        while let Some(partition) = self.built.first().copied() {
            self.flush(consumer, partition)?;
        }
        Ok(())
    }

    fn flush(&mut self, consumer: &Consumer, partition: u32) -> Result<()> {
        if !self.built.remove(&partition) {
            return Ok(());
        }
        if self.built.is_empty() {
            self.built_bytes = 0;
        }
        self.built_since = Instant::now();
        let log = self.log(partition);
        let next = log.next;
        let batch = log.rows.finish(partition, next)?;
        let letters: usize = batch.dead_letters.iter().map(|letter| letter.raw.len() + letter.reason.len()).sum();
        let bytes = batch.rows.get_array_memory_size() + letters;
        self.hand_over(consumer, Item::Batch(batch), bytes);
        Ok(())
    }

    /// Waits for the poller. Meanwhile nothing is polled, so that librdkafka's queue fills and fetching stops.
    fn hand_over(&self, consumer: &Consumer, item: Item, bytes: usize) {
        let mut item = item;
        while let Some(back) = self.handover.offer(item, bytes, LAG_EVERY) {
            item = back;
            let asker = self.asker(consumer);
            for partition in self.logs.keys() {
                match asker.watermarks(*partition) {
                    Ok((_, high)) if !self.handover.is_stopped() => self.watch.set_end(*partition, high),
                    _ => break,
                }
            }
        }
    }

    /// Nothing more comes from this partition.
    fn end(&mut self, consumer: &Consumer, partition: u32) -> Result<()> {
        let log = self.log(partition);
        log.ended = true;
        // Behind the last record there may be some that are not for us: markers of transactions, what compaction has removed.
        log.next = log.next.max(log.end.unwrap_or(0));
        self.flush(consumer, partition)?;
        self.hand_over(consumer, Item::PartitionEnded(partition), 0);
        self.unassign(consumer, partition)
    }

    // --- events

    fn event(&mut self, consumer: &Consumer, error: &KafkaError) -> Result<()> {
        match error {
            KafkaError::PartitionEOF(partition) => {
                let partition = *partition as u32;
                self.watch.clear();
                // What was read stands in the way of the end.
                self.flush(consumer, partition)?;
                if let Some(log) = self.logs.get_mut(&partition) {
                    log.at_end = true;
                    self.handover.set_at_end(partition, true);
                    self.end_if_reached(consumer, partition)?;
                }
                Ok(())
            }
            KafkaError::MessageConsumptionFatal(code) => {
                Err(Error::data(format!("source {}: the Kafka client has given up: {}", self.name, described(*code))))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => self.out_of_range(consumer),
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                let topic = &self.options.connection.topic;
                self.watch.set_trouble(Some(format!("topic {topic} does not exist any more")));
                self.doubted.get_or_insert_with(Instant::now);
                Ok(())
            }
            KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::BadMessage),
            ) => {
                self.watch.set_trouble(Some(format!("topic {}: {}", self.options.connection.topic, described(*code))));
                Ok(())
            }
            // Connections and leaders come and go: librdkafka heals it, the listener says so.
            _ => Ok(()),
        }
    }

    /// At the broker's end of a partition: is it also ours?
    fn end_if_reached(&mut self, consumer: &Consumer, partition: u32) -> Result<()> {
        let Some(log) = self.logs.get(&partition).filter(|log| !log.ended && log.at_end) else { return Ok(()) };
        let Some(end) = log.end else { return Ok(()) };
        if log.next < end {
            match self.asker(consumer).watermarks(partition) {
                Ok((_, high)) if high >= end => {}
                // It is asked again.
                _ => return Ok(()),
            }
        }
        self.end(consumer, partition)
    }

    /// Some partition goes on where no record is. Which, brokers tell; the others go on where they were.
    fn out_of_range(&mut self, consumer: &Consumer) -> Result<()> {
        self.lost = false;
        self.doubted.get_or_insert_with(Instant::now);
        self.flush_all(consumer)?;
        let open: Vec<u32> = self.logs.iter().filter(|(_, log)| !log.ended).map(|(partition, _)| *partition).collect();
        let mut ahead = None;
        for partition in open {
            let (next, approximate) = (self.logs[&partition].next, self.logs[&partition].approximate);
            let asker = self.asker(consumer);
            let Ok((low, high)) = asker.watermarks(partition) else {
                self.lost = true;
                continue;
            };
            if !approximate && next < low {
                return Err(asker.out_of_range(partition, next, (low, high)));
            }
            if next > high {
                ahead = Some(asker.out_of_range(partition, next, (low, high)));
            }
            self.unassign(consumer, partition)?;
            let offset = if approximate { Offset::Beginning } else { Offset::Offset(next as i64) };
            self.assign_at(consumer, std::iter::once((partition, offset)))?;
            if self.paused.contains(&partition) {
                consumer.pause(&self.list([partition])).map_err(|error| self.internal(&error))?;
            }
        }
        match (ahead, self.ahead_since) {
            (None, _) => self.ahead_since = None,
            (Some(_), None) => self.ahead_since = Some(Instant::now()),
            (Some(error), Some(since)) if since.elapsed() > CATCH_UP_MAX => return Err(error),
            (Some(_), Some(_)) => {}
        }
        self.handover.sleep(RETRY_WAITS.0);
        Ok(())
    }

    // --- chores

    fn look_at_clock(&mut self, consumer: &Consumer) -> Result<()> {
        if !self.built.is_empty() && self.built_since.elapsed() > BATCH_AGE_MAX && self.handover.is_empty() {
            self.flush_all(consumer)?;
        }
        if self.chores_done.elapsed() < CHORES_EVERY {
            return Ok(());
        }
        self.chores_done = Instant::now();
        self.follow_pauses(consumer)?;
        if self.lost {
            self.out_of_range(consumer)?;
        }
        if self.doubted.is_some_and(|since| since.elapsed() > DOUBT_EVERY) {
            self.doubted = if self.identity.check(consumer)? { None } else { Some(Instant::now()) };
        }
        if self.options.end != End::Never {
            let waiting: Vec<u32> = self.logs.iter().filter(|(_, log)| log.at_end && !log.ended).map(|(partition, _)| *partition).collect();
            for partition in waiting {
                self.end_if_reached(consumer, partition)?;
            }
        } else if self.options.discovery.is_some_and(|interval| self.discovered.elapsed() > interval) {
            self.discovered = Instant::now();
            self.discover(consumer)?;
        }
        Ok(())
    }

    fn follow_pauses(&mut self, consumer: &Consumer) -> Result<()> {
        let Some(wanted) = self.handover.pauses(&mut self.pauses_seen) else { return Ok(()) };
        let here = |partition: &u32| self.logs.get(partition).is_some_and(|log| !log.ended);
        let pause = self.list(wanted.difference(&self.paused).copied().filter(here));
        let resume = self.list(self.paused.difference(&wanted).copied().filter(here));
        consumer.pause(&pause).map_err(|error| self.internal(&error))?;
        consumer.resume(&resume).map_err(|error| self.internal(&error))?;
        self.paused = wanted;
        Ok(())
    }

    /// Takes in partitions that have been added, from their first record.
    fn discover(&mut self, consumer: &Consumer) -> Result<()> {
        self.identity.check(consumer)?;
        let asker = self.asker(consumer);
        // A broker that is away is told of by others.
        let Ok(partitions) = asker.partitions() else { return Ok(()) };
        let mut added = Vec::new();
        for partition in partitions.iter().filter(|partition| !self.logs.contains_key(partition)) {
            let Ok((low, high)) = asker.watermarks(*partition) else { continue };
            added.push(Bounds { partition: *partition, begin: low, earliest: true, end: None, high });
        }
        if added.is_empty() {
            return Ok(());
        }
        self.add_logs(consumer, &added)?;
        self.assign(consumer, added.iter())
    }

    fn asker<'a>(&'a self, consumer: &'a Consumer) -> Asker<'a> {
        Asker { source: &self.name, options: &self.options, consumer }
    }

    fn log(&mut self, partition: u32) -> &mut Log {
        self.logs.get_mut(&partition).expect("logs are never removed")
    }

    fn list(&self, partitions: impl IntoIterator<Item = u32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.options.connection.topic, partition as i32);
        }
        list
    }

    fn internal(&self, error: &KafkaError) -> Error {
        Error::internal(format!("source {}: {error}", self.name))
    }
}

/// Per partition its earliest offset and the one behind its last record.
type Marks = BTreeMap<u32, (u64, u64)>;

fn all_marks(asker: &Asker<'_>, partitions: &[u32]) -> Result<Marks, Unready> {
    partitions.iter().map(|partition| Ok((*partition, asker.watermarks(*partition)?))).collect()
}
