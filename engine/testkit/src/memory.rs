//! Sources and sinks in memory. In: records per source. Out: the same records in batches of random size; what a sink was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use freshet_core::{Batch, Connectors, DeadLetter, Epoch, Error, OptionError, Poll, Result, Sink, SinkDef, Source, SourceBatch, SourceDef, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One record of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRecord {
    pub partition: u32,
    /// Ascending within its partition; two rows of one record share it.
    pub offset: u64,
    /// All columns of the source.
    pub values: Vec<Value>,
    pub diff: i64,
    /// Why it cannot be decoded, if so.
    pub broken: Option<String>,
}

impl RawRecord {
    /// An insertion into partition 0.
    pub fn insert(offset: u64, values: Vec<Value>) -> RawRecord {
        RawRecord { partition: 0, offset, values, diff: 1, broken: None }
    }

    /// Its rank among all records of a plan; `source` is the index of its source there.
    pub fn position(&self, source: usize) -> u64 {
        (source as u64) << 56 | u64::from(self.partition) << 40 | self.offset
    }
}

/// A change as a sink was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkChange {
    pub row: Vec<Value>,
    pub epoch: Epoch,
    pub diff: i64,
}

/// Everything one sink was given.
#[derive(Debug, Clone, Default)]
pub struct SinkLog {
    pub changes: Vec<SinkChange>,
    /// How many of them have been flushed.
    pub visible: usize,
    /// The greatest epoch of a flush.
    pub closed: Option<Epoch>,
}

/// Connectors whose sources and sinks live in this process. The name of a source or sink is its address.
#[derive(Debug, Clone, Default)]
pub struct MemoryConnectors {
    seed: u64,
    sources: BTreeMap<String, Arc<Vec<RawRecord>>>,
    cut: BTreeSet<String>,
    sinks: Arc<Mutex<BTreeMap<String, SinkLog>>>,
}

impl MemoryConnectors {
    /// `seed` decides how large each poll is.
    pub fn new(seed: u64) -> MemoryConnectors {
        MemoryConnectors { seed, ..MemoryConnectors::default() }
    }

    /// With a source of these records, partition by partition in the order given.
    pub fn with_source(mut self, name: &str, records: Vec<RawRecord>) -> MemoryConnectors {
        self.sources.insert(name.to_string(), Arc::new(records));
        self
    }

    /// This source had other records before these, which nobody reads (T23).
    pub fn with_cut(mut self, name: &str) -> MemoryConnectors {
        self.cut.insert(name.to_string());
        self
    }

    /// The same records and sinks, read in polls of other sizes.
    pub fn with_seed(mut self, seed: u64) -> MemoryConnectors {
        self.seed = seed;
        self
    }

    pub fn records(&self, source: &str) -> &[RawRecord] {
        self.sources.get(source).map_or(&[], |records| records.as_slice())
    }

    /// What a sink has made visible.
    pub fn sink(&self, name: &str) -> Vec<SinkChange> {
        let log = self.sink_log(name);
        log.changes[..log.visible].to_vec()
    }

    pub fn sink_log(&self, name: &str) -> SinkLog {
        self.logs().get(name).cloned().unwrap_or_default()
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<String, SinkLog>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connectors for MemoryConnectors {
    fn check_source(&self, _source: &SourceDef) -> Result<(), OptionError> {
        Ok(())
    }

    fn check_sink(&self, _sink: &SinkDef) -> Result<(), OptionError> {
        Ok(())
    }

    fn has_bytes(&self, connector: &str) -> bool {
        !matches!(connector, "nexmark" | "blackhole")
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        let records = self.sources.get(&source.name).cloned();
        let records = records.ok_or_else(|| Error::invalid(format!("there is no source {} in memory; add it with with_source", source.name)))?;
        let seed = source.name.bytes().fold(self.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let whole = !self.cut.contains(&source.name);
        Ok(Box::new(MemorySource { whole, ..MemorySource::new(source.clone(), &records, seed) }))
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        Ok(Box::new(MemorySink { name: sink.name.clone(), connectors: self.clone() }))
    }
}

/// Replays records: bounded, seekable, a random partition and a random number of records per poll, now and then nothing.
struct MemorySource {
    def: SourceDef,
    whole: bool,
    partitions: BTreeMap<u32, Vec<RawRecord>>,
    /// How many records of each partition have been read.
    read: BTreeMap<u32, usize>,
    /// Partitions whose end has been told, and those that are to wait.
    ended: BTreeSet<u32>,
    paused: BTreeSet<u32>,
    random: StdRng,
}

impl MemorySource {
    fn new(def: SourceDef, records: &[RawRecord], seed: u64) -> MemorySource {
        let mut partitions: BTreeMap<u32, Vec<RawRecord>> = BTreeMap::new();
        records.iter().for_each(|record| partitions.entry(record.partition).or_default().push(record.clone()));
        for (partition, records) in &partitions {
            assert!(records.is_sorted_by_key(|record| record.offset), "offsets of partition {partition} of {} ascend", def.name);
        }
        MemorySource {
            def,
            whole: true,
            read: partitions.keys().map(|partition| (*partition, 0)).collect(),
            ended: BTreeSet::new(),
            paused: BTreeSet::new(),
            partitions,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn batch_of(&self, partition: u32, records: &[RawRecord], next_offset: u64) -> Result<SourceBatch> {
        let (sound, broken): (Vec<&RawRecord>, Vec<&RawRecord>) = records.iter().partition(|record| record.broken.is_none());
        let rows: Vec<Vec<Value>> = sound.iter().map(|record| record.values.clone()).collect();
        let dead_letter = |record: &&RawRecord| DeadLetter {
            partition,
            offset: record.offset,
            field: String::new(),
            reason: record.broken.clone().unwrap_or_default(),
            raw: format!("{:?}", record.values).into_bytes(),
            ..DeadLetter::default()
        };
        let diffs = sound.iter().any(|record| record.diff != 1).then(|| sound.iter().map(|record| record.diff).collect());
        Ok(SourceBatch {
            partition,
            rows: Value::batch_of(&self.def.schema, &rows)?,
            diffs,
            offsets: sound.iter().map(|record| record.offset).collect(),
            dead_letters: broken.iter().map(dead_letter).collect(),
            next_offset,
        })
    }
}

impl Source for MemorySource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        let open: Vec<u32> = self.partitions.iter().filter(|(partition, records)| self.read[*partition] < records.len()).map(|(id, _)| *id).collect();
        if open.is_empty() {
            return Ok(Poll::Ended);
        }
        if self.random.random_bool(0.1) {
            return Ok(Poll::Pending);
        }
        // The end of a partition is told at some time after its last record, or not at all before the end of the source.
        let over = self.partitions.keys().find(|partition| !open.contains(partition) && !self.ended.contains(partition)).copied();
        if let Some(partition) = over.filter(|_| self.random.random_bool(0.3)) {
            self.ended.insert(partition);
            return Ok(Poll::PartitionEnded(partition));
        }
        let open: Vec<u32> = open.into_iter().filter(|partition| !self.paused.contains(partition)).collect();
        if open.is_empty() {
            return Ok(Poll::Pending);
        }
        let partition = open[self.random.random_range(0..open.len())];
        let records = &self.partitions[&partition];
        let first = self.read[&partition];
        let mut end = records.len().min(first + self.random.random_range(1..=rows_max.clamp(1, 40)));
        // A record is read whole.
        while end < records.len() && records[end].offset == records[end - 1].offset {
            end += 1;
        }
        let next_offset = records.get(end).map_or(records[end - 1].offset + 1, |record| record.offset);
        let batch = self.batch_of(partition, &records[first..end], next_offset)?;
        self.read.insert(partition, end);
        Ok(Poll::Batch(batch))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let Some(records) = self.partitions.get(&partition) else {
            return Err(Error::invalid(format!("source {} has no partition {partition}", self.def.name)));
        };
        self.read.insert(partition, records.partition_point(|record| record.offset < offset));
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn is_whole(&self, _partition: u32) -> bool {
        self.whole
    }

    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        Ok(self.random.random_bool(0.5).then(|| self.partitions.keys().copied().collect()))
    }

    fn pause(&mut self, partition: u32, paused: bool) -> Result<()> {
        if paused {
            self.paused.insert(partition)
        } else {
            self.paused.remove(&partition)
        };
        Ok(())
    }
}

pub(crate) struct MemorySink {
    pub name: String,
    pub connectors: MemoryConnectors,
}

impl Sink for MemorySink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        let rows = Value::rows_of(changes.rows())?;
        let changes = rows.into_iter().enumerate().map(|(index, row)| SinkChange { row, epoch: changes.epoch(index), diff: changes.diff(index) });
        self.connectors.logs().entry(self.name.clone()).or_default().changes.extend(changes);
        Ok(())
    }

    fn flush(&mut self, closed: Epoch) -> Result<u64> {
        let mut logs = self.connectors.logs();
        let log = logs.entry(self.name.clone()).or_default();
        log.visible = log.changes.len();
        log.closed = log.closed.max(Some(closed));
        Ok(log.visible as u64)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        let mut logs = self.connectors.logs();
        let log = logs.entry(self.name.clone()).or_default();
        log.changes.truncate(position as usize);
        log.visible = log.changes.len();
        Ok(())
    }
}
