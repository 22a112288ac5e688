//! The events of Nexmark in memory, and a sink that counts and hashes. In: a plan of the queries in `pipelines/nexmark`. Out: a source that hands
//! out batches made before, or reads the same rows from JSON; what reached the sink.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use freshet_connectors::nexmark::{Columns, Event, Generator, Settings};
use freshet_connectors::{BuiltIn, NoMetadata, Record, RecordDecoder, Rows};
use freshet_core::{Batch, Connectors, Encode, Epoch, Error, OptionError, Plan, Poll, Sink, SinkDef, Source, SourceBatch, SourceDef, hash_bytes};
use serde_json::{Map, Value};

/// Rows of a batch, as the engine cuts its steps.
const BATCH_ROWS: u64 = 8_192;

/// What a source of events reads.
#[derive(Clone)]
pub enum Events {
    Batches(Arc<Vec<RecordBatch>>),
    /// One JSON text per event.
    Json(Arc<Vec<Vec<u8>>>),
    /// Made while they are read.
    Made,
}

/// The folder of the queries.
pub fn nexmark_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/nexmark")
}

/// The scripts of a query as views: events.sql, then the query's text with its sink replaced by a view. Errors: it cannot be read, or has no
/// INSERT INTO.
pub fn nexmark_query(query: &str) -> Result<(String, String)> {
    let read = |name: &str| std::fs::read_to_string(nexmark_folder().join(name)).with_context(|| format!("reading {name}"));
    let text = read(&format!("{query}.sql"))?;
    let table = format!("CREATE TABLE nexmark_{query}");
    let insert = format!("INSERT INTO nexmark_{query}\n");
    let (before, select) = text.split_once(&insert).with_context(|| format!("{query}.sql has no INSERT INTO nexmark_{query}"))?;
    let before = before.split_once(&table).with_context(|| format!("{query}.sql has no CREATE TABLE nexmark_{query}"))?.0;
    let view = format!("{before}CREATE MATERIALIZED VIEW v AS\n{select}\nCREATE SINK out FROM v WITH ('connector' = 'blackhole');\n");
    Ok((read("events.sql")?, view))
}

/// The source of events that the plan declares. Errors: it has another.
pub fn nexmark_source(plan: &Plan) -> Result<&SourceDef> {
    plan.sources.iter().find(|source| source.connector == "nexmark").context("the plan has no source of events")
}

/// So many events as batches of plain columns. Errors: the source declares others.
pub fn nexmark_batches(source: &SourceDef, events: u64) -> Result<Events> {
    let (columns, generator) = made(source)?;
    let batch = |first: u64| Ok(columns.batch(&generator, first..events.min(first + BATCH_ROWS))?);
    Ok(Events::Batches(Arc::new((0..events).step_by(BATCH_ROWS as usize).map(batch).collect::<Result<Vec<_>>>()?)))
}

/// The same events as JSON, each with the columns of its kind.
pub fn nexmark_json(source: &SourceDef, events: u64) -> Result<Events> {
    let (_, generator) = made(source)?;
    let text = |number: u64| Ok(serde_json::to_vec(&json(&generator, number))?);
    Ok(Events::Json(Arc::new((0..events).map(text).collect::<Result<Vec<_>>>()?)))
}

fn made(source: &SourceDef) -> Result<(Columns, Generator)> {
    let settings = Settings::parse(&source.options).map_err(|error| anyhow!(error.message))?;
    let columns = Columns::new(&source.schema, settings.kind).map_err(|(column, reason)| anyhow!("{column}: {reason}"))?;
    Ok((columns, Generator::new(settings.shape)))
}

fn json(generator: &Generator, number: u64) -> Value {
    let mut row = Map::new();
    row.insert("event_type".into(), generator.kind(number).into());
    let mut put = |name: &str, value: Value| drop(row.insert(name.into(), value));
    match generator.event(number) {
        Event::Person(person) => {
            put("person_id", person.id.into());
            put("person_name", person.name.into());
            put("person_emailaddress", person.email_address.into());
            put("person_creditcard", person.credit_card.into());
            put("person_city", person.city.into());
            put("person_state", person.state.into());
            put("person_extra", person.extra.into());
        }
        Event::Auction(auction) => {
            put("auction_id", auction.id.into());
            put("auction_itemname", auction.item_name.into());
            put("auction_description", auction.description.into());
            put("auction_initialbid", auction.initial_bid.into());
            put("auction_reserve", auction.reserve.into());
            put("auction_expires", auction.expires_ms.into());
            put("auction_seller", auction.seller.into());
            put("auction_category", auction.category.into());
            put("auction_extra", auction.extra.into());
        }
        Event::Bid(bid) => {
            put("bid_auction", bid.auction.into());
            put("bid_bidder", bid.bidder.into());
            put("bid_price", bid.price.into());
            put("bid_channel", bid.channel.into());
            put("bid_url", bid.url.into());
            put("bid_extra", bid.extra.into());
        }
    }
    put("datetime", generator.time_ms(number).into());
    row.into()
}

/// What reached the sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Insertions and retractions.
    pub changes: u64,
    /// Rows that are left.
    pub rows: i64,
    /// The same for any order and any cut of the changes: the sum of the hashes of the rows that are left.
    pub hash: u64,
}

/// Connectors of one run.
#[derive(Clone)]
pub struct NexmarkConnectors {
    events: Events,
    counted: Arc<Mutex<Counted>>,
}

impl std::fmt::Debug for NexmarkConnectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NexmarkConnectors")
    }
}

impl NexmarkConnectors {
    pub fn new(events: Events) -> NexmarkConnectors {
        NexmarkConnectors { events, counted: Arc::default() }
    }

    pub fn counted(&self) -> Counted {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connectors for NexmarkConnectors {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError> {
        BuiltIn.check_source(source)
    }

    fn check_sink(&self, sink: &SinkDef) -> Result<(), OptionError> {
        BuiltIn.check_sink(sink)
    }

    fn has_bytes(&self, connector: &str) -> bool {
        BuiltIn.has_bytes(connector)
    }

    fn open_source(&self, source: &SourceDef) -> freshet_core::Result<Box<dyn Source>> {
        if source.connector != "nexmark" {
            return BuiltIn.open_source(source);
        }
        match &self.events {
            Events::Batches(batches) => Ok(Box::new(Batches { batches: batches.clone(), batch: 0, row: 0, offset: 0 })),
            Events::Json(texts) => {
                let def = SourceDef { encode: Encode::Json, options: Default::default(), ..source.clone() };
                let decoder = RecordDecoder::open(&def)?;
                Ok(Box::new(Texts { texts: texts.clone(), decoder, rows: Rows::new(source.schema.clone()), next: 0 }))
            }
            Events::Made => BuiltIn.open_source(source),
        }
    }

    fn open_sink(&self, _: &SinkDef) -> freshet_core::Result<Box<dyn Sink>> {
        Ok(Box::new(Count { counted: self.counted.clone(), hashes: Vec::new() }))
    }
}

struct Batches {
    batches: Arc<Vec<RecordBatch>>,
    batch: usize,
    row: usize,
    offset: u64,
}

impl Source for Batches {
    fn poll(&mut self, rows_max: usize) -> freshet_core::Result<Poll> {
        let Some(batch) = self.batches.get(self.batch) else { return Ok(Poll::Ended) };
        let count = rows_max.min(batch.num_rows() - self.row);
        let rows = batch.slice(self.row, count);
        let offsets: Vec<u64> = (self.offset..self.offset + count as u64).collect();
        self.offset += count as u64;
        self.row += count;
        if self.row == batch.num_rows() {
            (self.batch, self.row) = (self.batch + 1, 0);
        }
        Ok(Poll::Batch(SourceBatch { partition: 0, rows, diffs: None, offsets, dead_letters: Vec::new(), next_offset: self.offset }))
    }

    fn seek(&mut self, _: u32, _: u64) -> freshet_core::Result<()> {
        Err(Error::invalid("a bench reads from the beginning"))
    }

    fn is_bounded(&self) -> bool {
        true
    }
}

struct Texts {
    texts: Arc<Vec<Vec<u8>>>,
    decoder: RecordDecoder,
    rows: Rows,
    next: usize,
}

impl Source for Texts {
    fn poll(&mut self, rows_max: usize) -> freshet_core::Result<Poll> {
        let end = self.texts.len().min(self.next + rows_max);
        if self.next == end {
            return Ok(Poll::Ended);
        }
        for (offset, text) in (self.next as u64..).zip(&self.texts[self.next..end]) {
            let record = Record { key: None, payload: Some(text), offset, origin: "", metadata: &NoMetadata };
            self.decoder.decode(&record, &mut self.rows).map_err(|wait| Error::unavailable(wait.reason))?;
        }
        self.next = end;
        Ok(Poll::Batch(self.rows.finish(0, end as u64)?))
    }

    fn seek(&mut self, _: u32, _: u64) -> freshet_core::Result<()> {
        Err(Error::invalid("a bench reads from the beginning"))
    }

    fn is_bounded(&self) -> bool {
        true
    }
}

struct Count {
    counted: Arc<Mutex<Counted>>,
    hashes: Vec<u64>,
}

impl Sink for Count {
    fn write(&mut self, changes: &Batch) -> freshet_core::Result<()> {
        self.hashes.clear();
        self.hashes.resize(changes.len(), 0x9e37_79b9_7f4a_7c15);
        changes.rows().columns().iter().for_each(|column| hash_into(column, &mut self.hashes));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.changes += changes.len() as u64;
        for (row, hash) in self.hashes.iter().enumerate() {
            let diff = changes.diff(row);
            counted.rows += diff;
            counted.hash = counted.hash.wrapping_add(hash.wrapping_mul(diff as u64));
        }
        Ok(())
    }

    fn flush(&mut self, _: Epoch) -> freshet_core::Result<u64> {
        Ok(0)
    }

    fn restore(&mut self, _: u64) -> freshet_core::Result<()> {
        Ok(())
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

/// Folds each cell into the hash of its row; NULL is 1.
fn hash_into(column: &ArrayRef, hashes: &mut [u64]) {
    let mut fold = |row: usize, cell: u64| {
        let product = u128::from(hashes[row] ^ cell) * 0xd6e8_feb8_6659_fd93;
        hashes[row] = (product as u64) ^ ((product >> 64) as u64);
    };
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            (0..texts.len()).for_each(|row| fold(row, if texts.is_null(row) { 1 } else { hash_bytes(texts.value(row).as_bytes()) }));
        }
        DataType::Float64 => {
            let numbers = column.as_primitive::<Float64Type>();
            (0..numbers.len()).for_each(|row| fold(row, if numbers.is_null(row) { 1 } else { numbers.value(row).to_bits() }));
        }
        _ => {
            let numbers = arrow::compute::cast(column, &DataType::Int64).expect("the queries give texts, floats, integers and times");
            let numbers = numbers.as_primitive::<Int64Type>();
            (0..numbers.len()).for_each(|row| fold(row, if numbers.is_null(row) { 1 } else { numbers.value(row) as u64 }));
        }
    }
}
