//! Which partitions a topic has, where reading begins in each and where it ends. In: options, a checkpoint's offsets, what brokers say. Out: an
//! offset per partition, why there is none yet, or why there will never be one.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::Error;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::client::{Consumer, described};
use super::options::{Begin, End, SourceOptions};

/// How long one request to a broker may take before it counts as away.
pub const REQUEST_WAIT: Duration = Duration::from_millis(1_500);

/// Where one partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub partition: u32,
    /// The first offset to read; for Earliest, the earliest one there was when it was asked for.
    pub begin: u64,
    /// Begin with whatever is earliest when reading begins.
    pub earliest: bool,
    /// Read what is before this offset.
    pub end: Option<u64>,
    /// Behind the last record there is.
    pub high: u64,
}

/// Why bounds are not known.
#[derive(Debug)]
pub enum Unready {
    /// Ask again later.
    Trouble(String),
    /// The same, because a request has failed.
    Unanswered(String, KafkaError),
    Failed(Error),
}

/// Asks brokers about one topic.
pub struct Asker<'a> {
    pub source: &'a str,
    pub options: &'a SourceOptions,
    pub consumer: &'a Consumer,
}

impl Asker<'_> {
    /// The topic's partitions in order.
    pub fn partitions(&self) -> Result<Vec<u32>, Unready> {
        let topic = self.topic();
        let servers = &self.options.connection.servers;
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_WAIT);
        let metadata = metadata.map_err(|error| Unready::Unanswered(format!("no broker of {servers} answers"), error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(Unready::Trouble(format!("{servers} does not know topic {topic}")));
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(Unready::Trouble(format!("topic {topic} does not exist on {servers}; create it, or check the name")));
            }
            Some(code) => return Err(Unready::Trouble(format!("topic {topic}: {}", described(code)))),
        }
        let mut partitions: Vec<u32> = found.partitions().iter().filter_map(|partition| u32::try_from(partition.id()).ok()).collect();
        partitions.sort_unstable();
        if partitions.is_empty() {
            return Err(Unready::Trouble(format!("topic {topic} has no partition yet")));
        }
        Ok(partitions)
    }

    /// The earliest offset of a partition, and the one behind its last record that may be read.
    pub fn watermarks(&self, partition: u32) -> Result<(u64, u64), Unready> {
        let asked = self.consumer.fetch_watermarks(self.topic(), partition as i32, REQUEST_WAIT);
        let (low, high) = asked.map_err(|error| Unready::Unanswered(format!("the offsets of {} are unknown", self.place(partition)), error))?;
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(low), Ok(high)) => Ok((low, high)),
            _ => Err(Unready::Trouble(format!("the offsets of {} are unknown", self.place(partition)))),
        }
    }

    /// Where to read what was there when `marks` were taken. `seeks` are a checkpoint's offsets: they go before the options.
    pub fn bounds(&self, marks: &BTreeMap<u32, (u64, u64)>, seeks: &BTreeMap<u32, u64>) -> Result<Vec<Bounds>, Unready> {
        if let Some(partition) = seeks.keys().find(|partition| !marks.contains_key(partition)) {
            return Err(Unready::Failed(Error::data(format!(
                "source {}: the checkpoint goes on in partition {partition} of topic {}, which has only {} partitions: it has been deleted and created \
                 again; start from an empty data directory",
                self.source,
                self.topic(),
                marks.len()
            ))));
        }
        let times = match (&self.options.begin, seeks.is_empty()) {
            (Begin::Timestamp(millis), true) => self.offsets_at(marks, *millis)?,
            _ => BTreeMap::new(),
        };
        if let (Begin::Offsets(offsets), true) = (&self.options.begin, seeks.is_empty()) {
            self.check_named(marks, offsets)?;
        }
        let bounds = marks.iter().map(|(partition, (low, high))| {
            let (partition, low, high) = (*partition, *low, *high);
            let (begin, earliest) = match (seeks.get(&partition), &self.options.begin) {
                (Some(offset), _) => (*offset, false),
                // The partition has been added since the checkpoint: all of it is new.
                (None, _) if !seeks.is_empty() => (low, true),
                (None, Begin::Earliest) => (low, true),
                (None, Begin::Latest) => (high, false),
                (None, Begin::Timestamp(_)) => (times.get(&partition).copied().unwrap_or(high), false),
                (None, Begin::Offsets(offsets)) => offsets.get(&partition).map_or((low, true), |offset| (*offset, false)),
            };
            let end = match &self.options.end {
                End::Never => None,
                End::Latest => Some(high),
                End::Offsets(ends) => Some(ends.get(&partition).copied().unwrap_or(0)),
            };
            Bounds { partition, begin, earliest, end, high }
        });
        Ok(bounds.collect())
    }

    /// Errors: an offset that the partition does not have.
    pub fn check_begin(&self, bounds: &Bounds, low: u64, from_checkpoint: bool) -> Result<(), Unready> {
        let Bounds { begin, high, .. } = *bounds;
        if bounds.earliest || (low <= begin && begin <= high) {
            return Ok(());
        }
        if from_checkpoint {
            return Err(Unready::Failed(self.out_of_range(bounds.partition, begin, (low, high))));
        }
        Err(Unready::Failed(Error::invalid(format!(
            "source {}: scan.startup.specific-offsets begins at offset {begin} of {}, which has offsets {low} to {high}; choose one of them",
            self.source,
            self.place(bounds.partition)
        ))))
    }

    /// What to say where the records that come next are gone.
    pub fn out_of_range(&self, partition: u32, wanted: u64, (low, high): (u64, u64)) -> Error {
        let (source, place) = (self.source, self.place(partition));
        if wanted < low {
            return Error::data(format!(
                "source {source}: {place} goes on at offset {wanted}, but its earliest is {low}: retention has deleted {} records that were not read; \
                 raise retention.ms of the topic, and go on without them from an empty data directory or with freshet resume --skip-offsets",
                low - wanted
            ));
        }
        Error::data(format!(
            "source {source}: {place} goes on at offset {wanted}, but it ends at {high}: the topic has been deleted and created again, or its brokers \
             have lost records; start from an empty data directory"
        ))
    }

    pub fn topic(&self) -> &str {
        &self.options.connection.topic
    }

    pub fn place(&self, partition: u32) -> String {
        format!("partition {partition} of topic {}", self.topic())
    }

    fn check_named(&self, marks: &BTreeMap<u32, (u64, u64)>, offsets: &BTreeMap<u32, u64>) -> Result<(), Unready> {
        match offsets.keys().find(|partition| !marks.contains_key(partition)) {
            None => Ok(()),
            Some(partition) => Err(Unready::Failed(Error::invalid(format!(
                "source {}: scan.startup.specific-offsets names partition {partition}, but topic {} has {} partitions, from 0",
                self.source,
                self.topic(),
                marks.len()
            )))),
        }
    }

    /// Per partition the offset of the first record of this time or later, where there is one.
    fn offsets_at(&self, marks: &BTreeMap<u32, (u64, u64)>, millis: i64) -> Result<BTreeMap<u32, u64>, Unready> {
        let what = format!("topic {} cannot be searched for a timestamp", self.topic());
        let unready = |error: KafkaError| Unready::Unanswered(what.clone(), error);
        let mut asked = TopicPartitionList::with_capacity(marks.len());
        for partition in marks.keys() {
            asked.add_partition_offset(self.topic(), *partition as i32, Offset::Offset(millis)).map_err(unready)?;
        }
        let found = self.consumer.offsets_for_times(asked, REQUEST_WAIT).map_err(unready)?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(unready)?;
            if let (Offset::Offset(offset), Ok(partition)) = (element.offset(), u32::try_from(element.partition())) {
                offsets.insert(partition, offset as u64);
            }
        }
        Ok(offsets)
    }
}
