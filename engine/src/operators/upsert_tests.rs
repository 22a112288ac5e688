//! Random records in random batches, steps and shards against the plain reading of T8 and T9: the last record of a key wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use freshet_core::{SHARDS, Value};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;

/// Key, value (None: deleted), epoch, position.
type Record = (Option<&'static str>, Option<i64>, u64, u64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("v", DataType::Int64, true)]))
}

fn operator() -> Upsert {
    Upsert::new("n1 upsert".into(), vec![0], schema(), Arc::from(["s".to_string()])).unwrap()
}

fn batch(records: &[Record]) -> Batch {
    let columns: [ArrayRef; 2] = [
        Arc::new(records.iter().map(|record| record.0).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| record.1).collect::<Int64Array>()),
    ];
    let rows = RecordBatch::try_new(schema(), columns.to_vec()).unwrap();
    let diffs = Diffs::Each(records.iter().map(|record| if record.1.is_some() { 1 } else { -1 }).collect());
    let (epochs, positions) = records.iter().map(|record| (record.2, record.3)).unzip::<u64, u64, Vec<u64>, Vec<u64>>();
    Batch::new(rows, Counts::Each(epochs.into()), diffs, Counts::Each(positions.into()))
}

/// Row, epoch, diff, position.
type Emitted = (Vec<Value>, u64, i64, u64);

/// Every change in the order it was emitted, and the errors' epochs.
fn step(operator: &mut Upsert, records: &[Vec<Record>]) -> (Vec<Emitted>, Vec<u64>) {
    let mut out = Output::default();
    let batches = records.iter().filter(|records| !records.is_empty()).map(|records| batch(records)).collect();
    operator.step(&mut [batches], Epoch(u64::MAX), &mut out);
    let mut changes = Vec::new();
    for batch in &out.rows {
        let rows = Value::rows_of(batch.rows()).unwrap();
        changes.extend(rows.into_iter().enumerate().map(|(row, values)| (values, batch.epoch(row).0, batch.diff(row), batch.position(row))));
    }
    (changes, out.errors.iter().flat_map(|batch| (0..batch.len()).map(|row| batch.epoch(row).0).collect::<Vec<_>>()).collect())
}

fn text(key: &str) -> Value {
    Value::Text(key.into())
}

#[test]
fn t8_the_last_position_of_a_key_takes_the_former_row_back_whatever_the_batches() {
    let mut operator = operator();
    let first = [vec![(Some("a"), Some(3), 5, 30), (Some("b"), Some(9), 5, 40)], vec![(Some("a"), Some(1), 5, 10), (Some("a"), None, 5, 20)]];
    let (changes, _) = step(&mut operator, &first);
    assert_eq!(changes, [(vec![text("a"), Value::Int(3)], 5, 1, 30), (vec![text("b"), Value::Int(9)], 5, 1, 40)]);
    let (changes, _) = step(&mut operator, &[vec![(Some("a"), Some(4), 6, 60), (Some("b"), None, 7, 70)]]);
    assert_eq!(
        changes,
        [(vec![text("a"), Value::Int(3)], 6, -1, 0), (vec![text("a"), Value::Int(4)], 6, 1, 60), (vec![text("b"), Value::Int(9)], 7, -1, 0)]
    );
}

#[test]
fn t9_a_row_that_stands_as_it_stood_at_the_end_of_its_epoch_is_no_change() {
    let mut operator = operator();
    step(&mut operator, &[vec![(Some("a"), Some(1), 1, 1)]]);
    let (changes, _) = step(&mut operator, &[vec![(Some("a"), Some(2), 2, 2), (Some("a"), None, 2, 3), (Some("a"), Some(1), 2, 4)]]);
    assert!(changes.is_empty(), "{changes:?}");
    let (changes, _) = step(&mut operator, &[vec![(Some("b"), Some(2), 3, 5), (Some("b"), None, 3, 6)]]);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn t9_a_deletion_of_an_unknown_key_is_no_change_and_a_null_key_is_an_error_record() {
    let (changes, errors) = step(&mut operator(), &[vec![(Some("a"), None, 1, 1), (None, Some(7), 2, 2), (None, None, 3, 3)]]);
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(errors, [2, 3]);
}

#[test]
fn t8_every_epoch_equals_the_last_record_of_each_key_after_any_restart() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut epoch = 0;
        let mut records: Vec<Record> = Vec::new();
        for index in 0..120 {
            epoch += u64::from(random.random_bool(0.4));
            let partition: u64 = random.random_range(0..3);
            let value = random.random_bool(0.7).then(|| random.random_range(0..3));
            records.push((Some(["a", "b", "c", "dd"][random.random_range(0..4)]), value, epoch, partition << 40 | (index + 1)));
        }
        let mut operator = operator();
        let mut held: BTreeMap<Vec<Value>, i64> = BTreeMap::new();
        let mut lower = 0;
        while lower <= epoch {
            let upper = lower + random.random_range(1..4);
            let mut within: Vec<Record> = records.iter().filter(|record| (lower..upper).contains(&record.2)).copied().collect();
            within.shuffle(&mut random);
            let (changes, _) = step(&mut operator, &within.chunks(5).map(<[Record]>::to_vec).collect::<Vec<_>>());
            assert!(changes.is_sorted_by_key(|change| change.1), "seed {seed}: epochs in order");
            for at in lower..upper {
                for (row, _, diff, _) in changes.iter().filter(|change| change.1 == at) {
                    *held.entry(row.clone()).or_default() += diff;
                }
                held.retain(|_, count| *count != 0);
                assert_eq!(held, last_records(&records, at), "seed {seed}, epoch {at}");
            }
            lower = upper;
            if random.random_bool(0.3) {
                operator = restored(&mut operator);
            }
        }
    }
}

fn last_records(records: &[Record], at: u64) -> BTreeMap<Vec<Value>, i64> {
    let mut sorted: Vec<&Record> = records.iter().filter(|record| record.2 <= at).collect();
    sorted.sort_by_key(|record| (record.2, record.3));
    let last: BTreeMap<Option<&str>, Option<i64>> = sorted.into_iter().map(|record| (record.0, record.1)).collect();
    last.into_iter().filter_map(|(key, value)| Some((vec![text(key?), Value::Int(value?.into())], 1))).collect()
}

/// What other workers make of its shards, put together again.
fn restored(operator: &mut Upsert) -> Upsert {
    let mut fresh = self::operator();
    // Shards that have not changed since the last checkpoint are in that one; here there was none.
    for shard in 0..SHARDS {
        fresh.restore(shard, &operator.live.shard_bytes(shard, |out, row| put_bytes(out, row))).unwrap();
    }
    assert_eq!(fresh.size(), operator.size());
    assert!(operator.checkpoint().len() <= SHARDS && operator.checkpoint().is_empty(), "only changed shards are written");
    fresh
}
