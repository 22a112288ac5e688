//! Streams that a test feeds while a pipeline runs, and what can happen to them. In: rows, absences, ends. Out: what a source says of them, and
//! which positions it was told to forget.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Batch, Connectors, Epoch, Error, OptionError, Poll, Result, Sink, SinkDef, Source, SourceBatch, SourceDef, SourceReport, Value};

use crate::memory::{MemoryConnectors, MemorySink};

/// Connectors whose sources are fed while they are read, and whose sinks can be away.
#[derive(Debug, Clone, Default)]
pub struct StreamConnectors {
    streams: BTreeMap<String, Stream>,
    /// Where sinks write.
    pub written: MemoryConnectors,
    sinks_away: Arc<AtomicBool>,
    sinks_stopped: Arc<AtomicBool>,
}

/// The test's end of one stream.
#[derive(Debug, Clone, Default)]
pub struct Stream(Arc<Mutex<StreamState>>);

#[derive(Debug, Default)]
struct StreamState {
    partitions: BTreeMap<u32, Vec<Vec<Value>>>,
    away: Option<String>,
    ended: bool,
    polled: u64,
    /// How many rows of each partition the last reader has read, and may forget.
    read: BTreeMap<u32, u64>,
    accepted: BTreeMap<u32, u64>,
}

impl Stream {
    fn state(&self) -> MutexGuard<'_, StreamState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a row and returns the offset behind it.
    pub fn push(&self, partition: u32, row: Vec<Value>) -> u64 {
        let mut state = self.state();
        let rows = state.partitions.entry(partition).or_default();
        rows.push(row);
        rows.len() as u64
    }

    /// The broker goes away for this reason, or comes back.
    pub fn set_away(&self, reason: Option<&str>) {
        self.state().away = reason.map(str::to_string);
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.state().ended = true;
    }

    /// Positions of this partition below it may be forgotten.
    pub fn accepted(&self, partition: u32) -> u64 {
        self.state().accepted.get(&partition).copied().unwrap_or(0)
    }

    pub fn polled(&self) -> u64 {
        self.state().polled
    }

    pub fn read(&self, partition: u32) -> u64 {
        self.state().read.get(&partition).copied().unwrap_or(0)
    }
}

impl StreamConnectors {
    /// With a source of this name; its partitions come up as rows are pushed.
    pub fn with_stream(mut self, name: &str, partitions: u32) -> StreamConnectors {
        let stream = Stream::default();
        (0..partitions).for_each(|partition| drop(stream.state().partitions.insert(partition, Vec::new())));
        self.streams.insert(name.to_string(), stream);
        self
    }

    pub fn stream(&self, name: &str) -> Stream {
        self.streams[name].clone()
    }

    pub fn set_sinks_away(&self, away: bool) {
        self.sinks_away.store(away, Ordering::SeqCst);
    }

    /// Writes to sinks do not end until this is taken back, or 20 s have passed.
    pub fn set_sinks_stopped(&self, stopped: bool) {
        self.sinks_stopped.store(stopped, Ordering::SeqCst);
    }

    fn sinks(&self) -> Result<()> {
        let begun = Instant::now();
        while self.sinks_stopped.load(Ordering::SeqCst) && begun.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if self.sinks_away.load(Ordering::SeqCst) { Err(Error::unavailable("the store of the sinks is away")) } else { Ok(()) }
    }
}

impl Connectors for StreamConnectors {
    fn check_source(&self, _source: &SourceDef) -> Result<(), OptionError> {
        Ok(())
    }

    fn check_sink(&self, _sink: &SinkDef) -> Result<(), OptionError> {
        Ok(())
    }

    fn open_source(&self, source: &SourceDef) -> Result<Box<dyn Source>> {
        let stream = self.streams.get(&source.name).ok_or_else(|| Error::invalid(format!("there is no stream {}", source.name)))?.clone();
        if let Some(reason) = &stream.state().away {
            return Err(Error::unavailable(reason.clone()));
        }
        stream.state().read.clear();
        Ok(Box::new(StreamSource { def: source.clone(), stream: stream.clone() }))
    }

    fn open_sink(&self, sink: &SinkDef) -> Result<Box<dyn Sink>> {
        self.sinks()?;
        Ok(Box::new(StreamSink { inner: MemorySink { name: sink.name.clone(), connectors: self.written.clone() }, connectors: self.clone() }))
    }

    fn shared(&self) -> Option<Arc<dyn Connectors>> {
        Some(Arc::new(self.clone()))
    }
}

struct StreamSource {
    def: SourceDef,
    stream: Stream,
}

impl Source for StreamSource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        let mut state = self.stream.state();
        state.polled += 1;
        if let Some(reason) = &state.away {
            return Err(Error::unavailable(reason.clone()));
        }
        let read = |partition: &u32| state.read.get(partition).copied().unwrap_or(0) as usize;
        let next = state.partitions.iter().find(|(partition, rows)| read(partition) < rows.len()).map(|(partition, rows)| {
            let first = read(partition);
            let end = rows.len().min(first + rows_max);
            (*partition, first as u64, rows[first..end].to_vec())
        });
        let Some((partition, first, rows)) = next else {
            return Ok(if state.ended { Poll::Ended } else { Poll::Pending });
        };
        let next_offset = first + rows.len() as u64;
        state.read.insert(partition, next_offset);
        Ok(Poll::Batch(SourceBatch {
            partition,
            rows: Value::batch_of(&self.def.schema, &rows)?,
            diffs: None,
            offsets: (first..next_offset).collect(),
            dead_letters: Vec::new(),
            next_offset,
        }))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.stream.state().read.insert(partition, offset);
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        Ok(Some(self.stream.state().partitions.keys().copied().collect()))
    }

    fn accepted(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.stream.state().accepted.insert(partition, offset);
        Ok(())
    }

    fn report(&self) -> SourceReport {
        let state = self.stream.state();
        let there: u64 = state.partitions.values().map(|rows| rows.len() as u64).sum();
        SourceReport { trouble: state.away.clone(), lag_rows: Some(there - state.read.values().sum::<u64>().min(there)) }
    }
}

struct StreamSink {
    inner: MemorySink,
    connectors: StreamConnectors,
}

impl Sink for StreamSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        self.connectors.sinks()?;
        self.inner.write(changes)
    }

    fn flush(&mut self, closed: Epoch) -> Result<u64> {
        self.connectors.sinks()?;
        self.inner.flush(closed)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        self.connectors.sinks()?;
        self.inner.restore(position)
    }
}
