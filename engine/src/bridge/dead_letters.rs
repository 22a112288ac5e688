//! What could not be read of a source: kept as a table, and let in again. In: dead letters with epochs; records that come in again. Out: rows of
//! `dead_letters(source)`, their retractions, and for the ingest thread what enters with the next ticket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use freshet_core::{Batch, Counts, DeadLetter, Diffs, Epoch, LetterForm, SourceBatch, SourceDef, Value};
use serde_json::{Map, Number};

use crate::bridge::ViewLog;
use crate::bridge::retention::Retention;
use crate::metrics::Metrics;

/// What a dead letter keeps of its record, as in the decoders.
pub const RAW_BYTES_MAX: usize = 64 << 10;
/// How much of it stands there as text besides.
const TEXT_CHARS_MAX: usize = 4096;

/// Columns of `dead_letters(source)`.
pub fn dead_letter_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, true);
        let number = |name| Field::new(name, DataType::Int64, true);
        let bytes = |name| Field::new(name, DataType::Binary, true);
        Arc::new(Schema::new(vec![
            number("epoch"),
            text("source"),
            number("partition"),
            number("offset"),
            text("origin"),
            text("field"),
            text("reason"),
            bytes("raw"),
            number("raw_bytes"),
            bytes("key"),
            text("text"),
            text("form"),
            text("context"),
        ]))
    });
    SCHEMA.clone()
}

/// Letters as rows of the table, at epochs of their own. None without letters.
fn table(source: &str, index: usize, letters: &[(Epoch, &DeadLetter)]) -> Option<Batch> {
    if letters.is_empty() {
        return None;
    }
    let mut texts: [StringBuilder; 7] = std::array::from_fn(|_| StringBuilder::new());
    let mut numbers: [Int64Builder; 4] = std::array::from_fn(|_| Int64Builder::new());
    let mut bytes: [BinaryBuilder; 2] = std::array::from_fn(|_| BinaryBuilder::new());
    let mut positions = Vec::with_capacity(letters.len());
    for (epoch, letter) in letters {
        let text = shown(&letter.raw);
        let row = [source, &letter.origin, &letter.field, &letter.reason, &text, letter.form.name(), &letter.context];
        texts.iter_mut().zip(row).for_each(|(column, text)| column.append_value(text));
        let row = [epoch.0, u64::from(letter.partition), letter.offset, letter.raw_bytes()];
        numbers.iter_mut().zip(row).for_each(|(column, number)| column.append_value(i64::try_from(number).unwrap_or(i64::MAX)));
        bytes[0].append_value(&letter.raw);
        bytes[1].append_option(letter.key.as_deref());
        positions.push((index as u64) << 56 | u64::from(letter.partition & 0xffff) << 40 | (letter.offset + 1));
    }
    let [source, origin, field, reason, text, form, context] = texts.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
    let [epoch, partition, offset, raw_bytes] = numbers.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
    let [raw, key] = bytes.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
    let columns = vec![epoch, source, partition, offset, origin, field, reason, raw, raw_bytes, key, text, form, context];
    let rows = RecordBatch::try_new(dead_letter_schema(), columns).expect("columns of the table of dead letters");
    let epochs = letters.iter().map(|(epoch, _)| epoch.0).collect::<Vec<_>>();
    Some(Batch::new(rows, Counts::Each(epochs.into()), Diffs::One, Counts::Each(positions.into())))
}

/// For people: what is no text stands as replacement characters.
fn shown(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Partition and offset of the letters in rows of the table.
pub fn places(rows: &RecordBatch) -> impl Iterator<Item = (u32, u64)> + '_ {
    let (partitions, offsets) = (rows.column(2).as_primitive::<Int64Type>(), rows.column(3).as_primitive::<Int64Type>());
    (0..rows.num_rows()).map(|row| (partitions.value(row) as u32, offsets.value(row) as u64))
}

/// One row of the table as the letter that it was.
pub fn letter_of(rows: &RecordBatch, row: usize) -> DeadLetter {
    let text = |column: usize| rows.column(column).as_string::<i32>().value(row).to_string();
    let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().value(row) as u64;
    let raw = rows.column(7).as_binary::<i32>().value(row).to_vec();
    let key = rows.column(9).as_binary::<i32>();
    let bytes = number(8);
    DeadLetter {
        partition: number(2) as u32,
        offset: number(3),
        origin: text(4),
        field: text(5),
        reason: text(6),
        bytes_whole: if bytes > raw.len() as u64 { bytes } else { 0 },
        raw,
        key: key.is_valid(row).then(|| key.value(row).to_vec()),
        context: text(12),
        form: LetterForm::of(rows.column(11).as_string::<i32>().value(row)),
    }
}

/// The reason of the letter at `row`.
pub fn reason_of(rows: &RecordBatch, row: usize) -> &str {
    rows.column(6).as_string::<i32>().value(row)
}

/// A kept batch of the table. One that was written with the columns of error streams gets those of today; what was not kept then is empty.
pub fn with_columns_of_today(batch: &Batch) -> Batch {
    if batch.rows().num_columns() != 7 {
        return batch.with_schema(&dead_letter_schema());
    }
    let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
    let number = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row).max(0) as u64;
    let letters: Vec<(Epoch, DeadLetter)> = (0..batch.len())
        .map(|row| {
            let raw = text(6, row).into_bytes();
            let (partition, offset, field, reason) = (number(4, row) as u32, number(5, row), text(1, row), text(2, row));
            (batch.epoch(row), DeadLetter { partition, offset, field, reason, raw, ..DeadLetter::default() })
        })
        .collect();
    let source = if batch.is_empty() { String::new() } else { text(3, 0) };
    let index = if batch.is_empty() { 0 } else { (batch.position(0) >> 56) as usize };
    let rows = table(&source, index, &letters.iter().map(|(epoch, letter)| (*epoch, letter)).collect::<Vec<_>>());
    rows.unwrap_or_else(|| Batch::inserts(RecordBatch::new_empty(dead_letter_schema()), Epoch::ZERO))
}

/// Records of dead letters on their way in, and the letters that leave.
pub struct Returning {
    pub batches: Vec<SourceBatch>,
    leaving: RecordBatch,
    /// Set by who is first: the ingest thread that begins, or the asker who gives up.
    settled: Arc<AtomicBool>,
    reply: SyncSender<Epoch>,
}

/// Why records did not come in.
#[derive(Debug, PartialEq, Eq)]
pub enum NotReturned {
    /// The ingest thread has not come to it.
    Busy,
    Stopped,
}

/// Where other threads put records that are to come in again.
#[derive(Clone)]
pub struct ReturnSlot(SyncSender<Returning>);

impl ReturnSlot {
    /// Waits until the records have come in, and says at which epoch; they have not if it fails.
    pub fn put(&self, batches: Vec<SourceBatch>, leaving: RecordBatch, wait: std::time::Duration) -> Result<Epoch, NotReturned> {
        let (reply, replied) = sync_channel(1);
        let settled = Arc::new(AtomicBool::new(false));
        self.0.try_send(Returning { batches, leaving, settled: settled.clone(), reply }).map_err(|_| NotReturned::Busy)?;
        match replied.recv_timeout(wait) {
            Ok(epoch) => Ok(epoch),
            Err(_) if !settled.swap(true, Ordering::SeqCst) => Err(NotReturned::Busy),
            // It has begun, which takes no longer than decoded rows take to be looked at.
            Err(_) => replied.recv().map_err(|_| NotReturned::Stopped),
        }
    }
}

/// The dead letters of one source, as its ingest sees them.
pub struct DeadLetterBox {
    source: String,
    index: usize,
    log: Arc<ViewLog>,
    retention: Retention,
    metrics: Arc<Metrics>,
    returns: Receiver<Returning>,
}

impl DeadLetterBox {
    /// One request waits at most; a second one is refused.
    pub fn open(source: &SourceDef, index: usize, log: Arc<ViewLog>, metrics: Arc<Metrics>) -> (DeadLetterBox, ReturnSlot) {
        let (tx, returns) = sync_channel(1);
        let retention = Retention::new(source.letters);
        (DeadLetterBox { source: source.name.clone(), index, log, retention, metrics, returns }, ReturnSlot(tx))
    }

    pub fn keep(&mut self, letters: &[(Epoch, &DeadLetter)]) {
        if let Some(batch) = table(&self.source, self.index, letters) {
            let now = letters.iter().map(|(epoch, _)| *epoch).max().unwrap_or_default();
            self.append(batch, now);
        }
    }

    fn append(&mut self, batch: Batch, now: Epoch) {
        self.retention.prepare(&self.log);
        self.retention.noted(&batch);
        self.log.append(batch, Epoch::ZERO);
        self.retain(now);
    }

    /// Lets go of what is too much or too old by now.
    fn retain(&mut self, now: Epoch) {
        let Some(dropped) = self.retention.enforce(&self.log, now) else { return };
        let (kept, bytes) = (self.log.rows(), self.retention.bytes());
        self.metrics.source(self.index, |counts| {
            (counts.letters_kept, counts.letters_bytes) = (kept, bytes);
            counts.letters_dropped += dropped;
        });
    }

    /// What comes in with this ticket, if anybody still waits for it: its letters leave.
    pub fn next(&mut self, ticket: Epoch) -> Option<Returning> {
        if self.retention.prepare(&self.log) || self.retention.is_due(ticket) {
            self.retain(ticket);
        }
        let returning = self.returns.try_iter().find(|returning| !returning.settled.swap(true, Ordering::SeqCst))?;
        let count = returning.leaving.num_rows();
        if count > 0 {
            let diffs = Diffs::Each(vec![-1; count].into());
            self.append(Batch::new(returning.leaving.clone(), Counts::Const(ticket.0), diffs, Counts::Const(0)), ticket);
        }
        Some(returning)
    }
}

impl Returning {
    /// All of it has entered.
    pub fn done(self, ticket: Epoch) {
        // Whoever asked waits for nothing else.
        let _ = self.reply.send(ticket);
    }
}

/// A decoded row as a JSON object that its source's columns can be read from again: the bytes it came from are gone.
pub fn row_as_json(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let cells = rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, column)| (field.name().clone(), cell_as_json(column, row)));
    serde_json::to_vec(&Map::from_iter(cells)).unwrap_or_default()
}

fn cell_as_json(column: &ArrayRef, row: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    let text = || array_value_to_string(column, row).ok();
    match (column.data_type(), Value::of(column, row)) {
        (_, Ok(Value::Null) | Err(_)) => Json::Null,
        (DataType::Decimal128(_, _), _) => text().map_or(Json::Null, Json::from),
        // Years of four digits: others have no text that is read again.
        (DataType::Timestamp(_, _), Ok(Value::Int(number))) => match text().filter(|text| text.as_bytes().get(4) == Some(&b'-')) {
            Some(text) => Json::from(text),
            None => integer(number),
        },
        (_, Ok(Value::Bool(value))) => Json::from(value),
        (_, Ok(Value::Int(number))) => integer(number),
        (_, Ok(Value::Float(number))) => match Number::from_f64(number) {
            Some(number) => Json::from(number),
            None if number.is_nan() => Json::from("NaN"),
            None => Json::from(if number > 0.0 { "Infinity" } else { "-Infinity" }),
        },
        (_, Ok(Value::Text(text))) => Json::from(text),
        (_, Ok(Value::Bytes(bytes))) => Json::from(base64(&bytes)),
        (_, Ok(nested @ (Value::Interval(_) | Value::List(_) | Value::Struct(_) | Value::Map(_)))) => Json::from(nested.to_string()),
    }
}

fn integer(number: i128) -> serde_json::Value {
    let signed = i64::try_from(number).map(serde_json::Value::from);
    signed.or_else(|_| u64::try_from(number).map(serde_json::Value::from)).unwrap_or(serde_json::Value::Null)
}

/// As JSON decoders read BYTEA.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A letter whose record was read before a fault was found: its row takes the place of its bytes.
pub fn letter_of_row(rows: &RecordBatch, row: usize, whole: bool) -> DeadLetter {
    let mut raw = row_as_json(rows, row);
    let bytes = raw.len();
    raw.truncate(RAW_BYTES_MAX);
    let form = if whole { LetterForm::Row } else { LetterForm::Change };
    DeadLetter { raw, bytes_whole: if bytes > RAW_BYTES_MAX { bytes as u64 } else { 0 }, form, ..DeadLetter::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{BinaryArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
    use freshet_core::{Encode, Format, LetterLimits};

    use super::*;

    fn letter(offset: u64, raw: &[u8]) -> DeadLetter {
        let (field, reason) = ("n".to_string(), "no number".to_string());
        DeadLetter { partition: 3, offset, origin: "a/3".into(), field, reason, raw: raw.to_vec(), ..DeadLetter::default() }
    }

    fn opened() -> (DeadLetterBox, ReturnSlot, Arc<ViewLog>) {
        opened_with(LetterLimits::default())
    }

    fn opened_with(letters: LetterLimits) -> (DeadLetterBox, ReturnSlot, Arc<ViewLog>) {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let def = SourceDef { letters, ..SourceDef::new("s", schema, "memory", Format::Plain, Encode::Json) };
        let log = Arc::new(ViewLog::new("dead_letters(s)".into(), dead_letter_schema(), false).unwrap().joining());
        let (letters, slot) = DeadLetterBox::open(&def, 1, log.clone(), Arc::new(Metrics::new(&["r".into(), "s".into()])));
        (letters, slot, log)
    }

    #[test]
    fn c3_a_letter_keeps_every_byte_and_comes_back_as_it_was() {
        let (mut letters, _, log) = opened();
        let cut = DeadLetter { bytes_whole: 1 << 20, key: Some(vec![0, 255]), context: "{}".into(), ..letter(8, &vec![b'x'; RAW_BYTES_MAX]) };
        let row = DeadLetter { form: LetterForm::Row, ..letter(9, b"{}") };
        let all = [letter(7, b"\xff\x00{"), cut, row];
        letters.keep(&all.each_ref().map(|letter| (Epoch(5), letter)));
        let rows = log.snapshot(Epoch(6)).unwrap();
        assert_eq!(places(&rows[0]).collect::<Vec<_>>(), [(3, 7), (3, 8), (3, 9)]);
        assert_eq!((0..3).map(|row| letter_of(&rows[0], row)).collect::<Vec<_>>(), all);
        assert_eq!(rows[0].column(10).as_string::<i32>().value(0), "\u{fffd}\0{");
    }

    #[test]
    fn what_comes_in_again_leaves_at_its_ticket_and_once() {
        let (mut letters, slot, log) = opened();
        for offset in 0..600 {
            letters.keep(&[(Epoch(offset), &letter(offset, b"x"))]);
        }
        assert!(log.batches().0.len() < 600, "small batches are joined");
        let rows = log.snapshot(Epoch(1_000)).unwrap();
        let first = rows[0].slice(0, 1);
        let asking = std::thread::spawn(move || slot.put(Vec::new(), first, Duration::from_secs(20)));
        let returning = loop {
            match letters.next(Epoch(2_000)) {
                Some(returning) => break returning,
                None => std::thread::yield_now(),
            }
        };
        returning.done(Epoch(2_000));
        assert_eq!(asking.join().unwrap(), Ok(Epoch(2_000)));
        assert_eq!(
            (log.rows(), log.snapshot(Epoch(2_000)).unwrap()[0].num_rows(), log.snapshot(Epoch(2_001)).unwrap()[0].num_rows()),
            (599, 600, 599)
        );
    }

    fn offsets(log: &ViewLog) -> Vec<u64> {
        log.snapshot(Epoch::MAX).unwrap().iter().flat_map(|rows| places(rows).map(|(_, offset)| offset).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_oldest_letters_make_room_and_what_is_gone_is_counted() {
        let (mut letters, _, log) = opened_with(LetterLimits { bytes_max: 10_000, age_ms: None });
        for offset in 0..1_000 {
            letters.keep(&[(Epoch(offset), &letter(offset, &[b'x'; 100]))]);
            assert!(letters.retention.bytes() <= 10_000);
        }
        let left = offsets(&log);
        assert!((20..50).contains(&left.len()) && left.is_sorted(), "{left:?}");
        assert_eq!(left.last(), Some(&999));
        let status = letters.metrics.sources().remove(1);
        assert_eq!((status.letters_kept, status.letters_dropped), (left.len() as u64, 1_000 - left.len() as u64));
        assert!((1..=10_000).contains(&status.letters_bytes));
        // What is left is found at every epoch, also by who reads the past.
        assert_eq!(log.snapshot(Epoch(995)).unwrap()[0].num_rows(), left.len() - 5);
    }

    #[test]
    fn letters_that_are_too_old_go_when_time_passes_and_after_a_restart_too() {
        let limits = LetterLimits { age_ms: Some(1_600), ..LetterLimits::default() };
        let (mut letters, _, log) = opened_with(limits);
        (0..10).for_each(|offset| letters.keep(&[(Epoch(1_000 + 100 * offset), &letter(offset, b"x"))]));
        assert!(letters.next(Epoch(2_700)).is_none());
        assert_eq!(offsets(&log).len(), 10, "a sixteenth of the age passes first");
        assert!(letters.next(Epoch(2_701)).is_none());
        assert_eq!(offsets(&log), (2..10).collect::<Vec<_>>());
        let (mut again, _, other) = opened_with(limits);
        other.restore(log.batches().0, Epoch::ZERO);
        assert!(again.next(Epoch(3_450)).is_none());
        assert_eq!(offsets(&other), [9]);
        assert_eq!(again.metrics.sources()[1].letters_kept, 1);
    }

    #[test]
    fn letters_that_have_come_in_again_take_no_room() {
        let (mut letters, slot, log) = opened_with(LetterLimits { bytes_max: 100_000, age_ms: None });
        for round in 0..100 {
            letters.keep(&[(Epoch(round), &letter(round, &[b'x'; 1_000]))]);
            let rows = log.snapshot(Epoch::MAX).unwrap().remove(0);
            let slot = slot.clone();
            let asking = std::thread::spawn(move || slot.put(Vec::new(), rows, Duration::from_secs(20)));
            let returning = loop {
                match letters.next(Epoch(round)) {
                    Some(returning) => break returning,
                    None => std::thread::yield_now(),
                }
            };
            returning.done(Epoch(round));
            asking.join().unwrap().unwrap();
        }
        assert_eq!(log.rows(), 0);
        assert!(letters.retention.bytes() <= 100_000);
        assert_eq!(letters.metrics.sources()[1].letters_dropped, 0, "they were not dropped, they came in");
    }

    #[test]
    fn who_gives_up_has_let_nothing_in() {
        let (mut letters, slot, _) = opened();
        let none = RecordBatch::new_empty(dead_letter_schema());
        assert_eq!(slot.put(Vec::new(), none.clone(), Duration::ZERO), Err(NotReturned::Busy));
        assert!(letters.next(Epoch(1)).is_none());
        drop(letters);
        assert_eq!(slot.put(Vec::new(), none, Duration::ZERO), Err(NotReturned::Busy));
    }

    #[test]
    fn rows_become_json_that_decoders_read() {
        let columns = [
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(4_070_908_800_123), None])) as ArrayRef),
            ("b", Arc::new(BinaryArray::from_vec(vec![b"\xff", b"abcd"]))),
            ("d", Arc::new(Decimal128Array::from(vec![-12_345, 7]).with_precision_and_scale(9, 2).unwrap())),
            ("f", Arc::new(Float64Array::from(vec![f64::NAN, 0.1]))),
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
            ("t", Arc::new(StringArray::from(vec!["a\"b", ""]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let text = |row| String::from_utf8(row_as_json(&rows, row)).unwrap();
        assert_eq!(text(0), r#"{"at":"2099-01-01T00:00:00.123","b":"/w==","d":"-123.45","f":"NaN","n":1,"t":"a\"b"}"#);
        assert_eq!(text(1), r#"{"at":null,"b":"YWJjZA==","d":"0.07","f":0.1,"n":2,"t":""}"#);
    }

    #[test]
    fn letters_of_an_older_checkpoint_are_read() {
        let sources: Arc<[String]> = Arc::new(["r".to_string(), "s".to_string()]);
        let mut old = crate::operators::ErrorRows::new("source s", sources);
        old.push_at(9, 1, 1 << 56 | 3 << 40 | 8, "n", "no number", Some("x"));
        let lifted = with_columns_of_today(&old.finish().unwrap());
        assert_eq!((lifted.epoch(0), letter_of(lifted.rows(), 0)), (Epoch(9), DeadLetter { origin: String::new(), ..letter(7, b"x") }));
        assert_eq!(with_columns_of_today(&lifted).len(), 1);
    }
}
