//! Values in order, for first_value, last_value, nth_value, array_agg and string_agg. In: encoded entries, in and out. Out: the entries.
//!
//! With an order of its own the multiset of (order, value) decides. Without one the order is that of arrival, which follows the rules of
//! the lives of rows: changes of one epoch cancel first, those with the least positions; then a retraction takes the oldest of its value.

use std::collections::{BTreeMap, HashMap, VecDeque};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use freshet_core::{AggregateCall, AggregateFunction, AggregateParameter, Batch, Epoch, Error, Result, SortKey, Value};

use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// Epoch and position, as bytes in front of an entry that is ordered by arrival.
const ARRIVAL_BYTES: usize = 16;

/// Turns (order columns, value) into bytes that sort as they do, and the value back.
#[derive(Debug)]
pub struct EntryCodec {
    converter: RowConverter,
    order: Vec<SortKey>,
    argument: usize,
}

impl EntryCodec {
    /// `type_of` is the type of an input column. Errors: Invalid for types without order.
    pub fn new(call: &AggregateCall, type_of: impl Fn(usize) -> DataType) -> Result<EntryCodec> {
        let argument = call.argument.ok_or_else(|| Error::internal(format!("{} has an argument", call.function.sql())))?;
        let sorted = |key: &SortKey| {
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            SortField::new_with_options(type_of(key.column), options)
        };
        let value = SortField::new_with_options(type_of(argument), SortOptions { descending: false, nulls_first: false });
        let fields = call.order_by.iter().map(sorted).chain([value]).collect();
        let converter = RowConverter::new(fields).map_err(|error| Error::invalid(format!("these types have no order: {error}")))?;
        Ok(EntryCodec { converter, order: call.order_by.clone(), argument })
    }

    pub fn encode(&self, batch: &Batch) -> Result<Rows> {
        let columns: Vec<ArrayRef> = self.order.iter().map(|key| batch.column(key.column)).chain([batch.column(self.argument)]).cloned().collect();
        Ok(self.converter.convert_columns(&columns)?)
    }

    fn values<'a>(&self, entries: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let mut columns = self.converter.convert_rows(entries.map(|entry| parser.parse(entry)))?;
        columns.pop().ok_or_else(|| Error::internal("an entry holds a value"))
    }
}

/// The entries of one group.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    entries: BTreeMap<Box<[u8]>, i64>,
    arrivals: Option<Box<Arrivals>>,
}

#[derive(Debug, Clone, Default)]
struct Arrivals {
    /// When the rows of each value came, oldest first.
    queues: HashMap<Box<[u8]>, VecDeque<(u64, u64)>, ahash::RandomState>,
    /// Changes of the open epoch: position and count.
    open: Vec<(Box<[u8]>, u64, i64)>,
}

impl Sequence {
    pub fn new(by_arrival: bool) -> Sequence {
        Sequence { entries: BTreeMap::new(), arrivals: by_arrival.then(Box::default) }
    }

    pub fn add(&mut self, entry: &[u8], position: u64, times: i64) {
        match &mut self.arrivals {
            Some(arrivals) => arrivals.open.push((entry.into(), position, times)),
            None => change(&mut self.entries, entry.into(), times),
        }
    }

    /// The epoch is over: rows that stay take their places.
    pub fn close(&mut self, epoch: Epoch) {
        let Some(arrivals) = &mut self.arrivals else { return };
        let mut open = std::mem::take(&mut arrivals.open);
        open.sort_unstable();
        for changes in open.chunk_by(|left, right| left.0 == right.0) {
            let value = &changes[0].0;
            let retracted: i64 = changes.iter().map(|change| (-change.2).max(0)).sum();
            let mut cancelled = retracted;
            let queue = arrivals.queues.entry(value.clone()).or_default();
            for (_, position, times) in changes.iter().filter(|change| change.2 > 0) {
                let gone = cancelled.min(*times);
                cancelled -= gone;
                for _ in gone..*times {
                    queue.push_back((epoch.0, *position));
                }
                change(&mut self.entries, arrived(epoch.0, *position, value), times - gone);
            }
            for _ in 0..cancelled {
                if let Some((epoch, position)) = queue.pop_front() {
                    change(&mut self.entries, arrived(epoch, position, value), -1);
                }
            }
            if queue.is_empty() {
                arrivals.queues.remove(value);
            }
        }
    }

    /// What the function answers. Errors: Data if the values cannot be read back.
    pub fn value(&self, call: &AggregateCall, codec: &EntryCodec) -> Result<Value> {
        let skipped = if self.arrivals.is_some() { ARRIVAL_BYTES } else { 0 };
        let one = |entry: Option<&[u8]>| match entry {
            None => Ok(Value::Null),
            Some(entry) => Value::of(&codec.values(std::iter::once(entry))?, 0),
        };
        let all = || self.entries.iter().map(|(entry, count)| (&entry[skipped..], *count)).filter(|(_, count)| *count > 0);
        let rows = || all().flat_map(|(entry, count)| std::iter::repeat_n(entry, if call.distinct { 1 } else { count as usize }));
        match (call.function, &call.parameter) {
            (AggregateFunction::FirstValue, _) => one(all().next().map(|found| found.0)),
            (AggregateFunction::LastValue, _) => one(all().next_back().map(|found| found.0)),
            (AggregateFunction::NthValue, Some(AggregateParameter::Index(index))) => one(match *index {
                1.. => nth(all(), *index, call.distinct),
                _ => nth(all().rev(), -index, call.distinct),
            }),
            (AggregateFunction::ArrayAgg, _) => {
                if self.entries.is_empty() {
                    return Ok(Value::Null);
                }
                Ok(Value::List(Value::all_of(&codec.values(rows())?)?))
            }
            (AggregateFunction::StringAgg, Some(AggregateParameter::Text(separator))) => {
                if self.entries.is_empty() {
                    return Ok(Value::Null);
                }
                let texts = codec.values(rows())?;
                let texts = arrow::compute::cast(&texts, &DataType::Utf8)?;
                let texts: Vec<&str> = texts.as_string::<i32>().iter().flatten().collect();
                Ok(Value::Text(texts.join(separator)))
            }
            _ => Err(Error::internal(format!("{} is no function of a sequence with this constant", call.function.sql()))),
        }
    }

    pub fn bytes(&self) -> usize {
        let entries: usize = self.entries.keys().map(|entry| entry.len() + 40).sum();
        let queues = |arrivals: &Arrivals| arrivals.queues.iter().map(|(value, queue)| value.len() + 48 + queue.len() * 16).sum::<usize>();
        entries + self.arrivals.as_deref().map_or(0, queues)
    }

    /// Between epochs; the queues follow from the entries.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.arrivals.is_some()));
        put_u64(out, self.entries.len() as u64);
        for (entry, count) in &self.entries {
            put_bytes(out, entry);
            put_i64(out, *count);
        }
    }

    /// Reads what `put` wrote. Errors: Data.
    pub fn take(bytes: &mut Bytes<'_>) -> Result<Sequence> {
        let mut sequence = Sequence::new(bytes.u8()? == 1);
        for _ in 0..bytes.u64()? {
            let (entry, count): (Box<[u8]>, i64) = (bytes.bytes()?.into(), bytes.i64()?);
            sequence.entries.insert(entry, count);
        }
        let Some(arrivals) = &mut sequence.arrivals else { return Ok(sequence) };
        // Entries are in order of arrival, and so each queue is.
        for (entry, count) in &sequence.entries {
            let (arrival, value) = entry.split_at_checked(ARRIVAL_BYTES).ok_or_else(|| Error::data("a checkpoint file holds a broken entry"))?;
            let number = |range: std::ops::Range<usize>| u64::from_be_bytes(arrival[range].try_into().expect("eight bytes"));
            let queue = arrivals.queues.entry(value.into()).or_default();
            (0..*count).for_each(|_| queue.push_back((number(0..8), number(8..16))));
        }
        Ok(sequence)
    }
}

fn nth<'a>(entries: impl Iterator<Item = (&'a [u8], i64)>, index: i64, distinct: bool) -> Option<&'a [u8]> {
    let mut rest = index - 1;
    for (entry, count) in entries {
        let rows = if distinct { 1 } else { count };
        if rest < rows {
            return Some(entry);
        }
        rest -= rows;
    }
    None
}

fn arrived(epoch: u64, position: u64, value: &[u8]) -> Box<[u8]> {
    [&epoch.to_be_bytes()[..], &position.to_be_bytes()[..], value].concat().into()
}

fn change(entries: &mut BTreeMap<Box<[u8]>, i64>, entry: Box<[u8]>, times: i64) {
    use std::collections::btree_map::Entry;
    if times == 0 {
        return;
    }
    match entries.entry(entry) {
        Entry::Vacant(vacant) => {
            vacant.insert(times);
        }
        Entry::Occupied(mut occupied) => {
            *occupied.get_mut() += times;
            if *occupied.get() == 0 {
                occupied.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sequence: &Sequence) -> Vec<(u64, u64, u8)> {
        let read = |entry: &[u8]| {
            let number = |at: usize| u64::from_be_bytes(entry[at..at + 8].try_into().unwrap());
            (number(0), number(8), entry[16])
        };
        sequence.entries.iter().flat_map(|(entry, count)| vec![read(entry); *count as usize]).collect()
    }

    #[test]
    fn c5_a_retraction_takes_the_oldest_arrival() {
        let mut sequence = Sequence::new(true);
        [(b'b', 1, 1), (b'a', 2, 1)].into_iter().for_each(|(value, position, times)| sequence.add(&[value], position, times));
        sequence.close(Epoch(5));
        sequence.add(b"b", 3, 1);
        sequence.close(Epoch(6));
        assert_eq!(order(&sequence), [(5, 1, b'b'), (5, 2, b'a'), (6, 3, b'b')]);
        sequence.add(b"b", 9, -1);
        sequence.close(Epoch(7));
        assert_eq!(order(&sequence), [(5, 2, b'a'), (6, 3, b'b')]);
        let mut bytes = Vec::new();
        sequence.put(&mut bytes);
        let mut back = Sequence::take(&mut Bytes(&bytes)).unwrap();
        [b"a", b"b"].into_iter().for_each(|value| back.add(value, 0, -1));
        back.close(Epoch(8));
        assert!(back.entries.is_empty() && back.arrivals.unwrap().queues.is_empty());
    }

    #[test]
    fn t9_changes_of_one_epoch_cancel_before_they_touch_older_rows() {
        let mut sequence = Sequence::new(true);
        sequence.add(b"a", 1, 1);
        sequence.close(Epoch(1));
        [(2, -1), (4, 1), (3, 1)].into_iter().for_each(|(position, times)| sequence.add(b"a", position, times));
        sequence.close(Epoch(2));
        assert_eq!(order(&sequence), [(1, 1, b'a'), (2, 4, b'a')]);
    }
}
