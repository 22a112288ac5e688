//! Generated input, the sources and sinks in memory, and comparison.

use std::collections::BTreeMap;

use freshet_core::{Batch, Connectors, Encode, Epoch, Format, NodeId, Poll, SinkDef, Source, SourceDef, Value};
use freshet_testkit::compare::{accumulate, roughly_same, same, smallest};
use freshet_testkit::generate::{Shape, micro_batches, records};
use freshet_testkit::{MemoryConnectors, RawRecord, assign_epochs};

use crate::plans::source;
use crate::written::int;

fn shape() -> Shape {
    Shape { partitions: 3, broken: 0.1, rows: 200, ..Shape::default() }
}

/// (partition, offset) → row and diff, dead letters as None.
type Read = BTreeMap<(u32, u64), Option<(Vec<Value>, i64)>>;

fn read_all(source: &mut dyn Source, batches_max: usize, next: &mut BTreeMap<u32, u64>) -> Read {
    let mut read = Read::new();
    let mut batches = 0;
    while batches < batches_max {
        match source.poll(16).unwrap() {
            Poll::Ended => break,
            Poll::Pending | Poll::PartitionEnded(_) => {}
            Poll::Batch(batch) => {
                batches += 1;
                next.insert(batch.partition, batch.next_offset);
                for (index, row) in Value::rows_of(&batch.rows).unwrap().into_iter().enumerate() {
                    let diff = batch.diffs.as_ref().map_or(1, |diffs| diffs[index]);
                    assert!(read.insert((batch.partition, batch.offsets[index]), Some((row, diff))).is_none());
                }
                for letter in batch.dead_letters {
                    assert!(read.insert((batch.partition, letter.offset), None).is_none());
                }
            }
        }
    }
    read
}

fn expected(records: &[RawRecord]) -> Read {
    let row = |record: &RawRecord| record.broken.is_none().then(|| (record.values.clone(), record.diff));
    records.iter().map(|record| ((record.partition, record.offset), row(record))).collect()
}

#[test]
fn a_source_in_memory_gives_every_record_once_whatever_the_poll_sizes() {
    let def = source("left");
    let records = records(1, &def, &shape());
    for seed in 0..10 {
        let connectors = MemoryConnectors::new(seed).with_source("left", records.clone());
        let mut source = connectors.open_source(&def).unwrap();
        assert!(source.is_bounded());
        assert_eq!(read_all(source.as_mut(), usize::MAX, &mut BTreeMap::new()), expected(&records));
    }
}

#[test]
fn a_source_in_memory_goes_on_where_an_earlier_batch_said() {
    let def = source("left");
    let records = records(2, &def, &shape());
    let connectors = MemoryConnectors::new(7).with_source("left", records.clone());
    for batches in 0..20 {
        let mut next = BTreeMap::new();
        let mut read = read_all(connectors.open_source(&def).unwrap().as_mut(), batches, &mut next);
        let mut again = connectors.clone().with_seed(8).open_source(&def).unwrap();
        next.iter().for_each(|(partition, offset)| again.seek(*partition, *offset).unwrap());
        read.extend(read_all(again.as_mut(), usize::MAX, &mut next));
        assert_eq!(read, expected(&records));
    }
    assert!(connectors.open_source(&SourceDef { name: "other".into(), ..def }).is_err());
}

#[test]
fn a_sink_in_memory_shows_what_was_flushed_and_cuts_off_what_was_not() {
    let schema = source("left").schema;
    let sink = SinkDef {
        name: "out".into(),
        node: NodeId(0),
        from: "v".into(),
        schema: schema.clone(),
        connector: "memory".into(),
        options: BTreeMap::new(),
        format: Format::Plain,
        encode: Encode::Json,
        key: Vec::new(),
    };
    let connectors = MemoryConnectors::new(0);
    let mut out = connectors.open_sink(&sink).unwrap();
    let row = |n| vec![Value::Text("a".into()), int(n), Value::Float(0.5), int(n), Value::Bool(true)];
    let batch = |n| Batch::inserts(Value::batch_of(&schema, &[row(n)]).unwrap(), Epoch(n as u64));
    out.write(&batch(1)).unwrap();
    assert!(connectors.sink("out").is_empty());
    let position = out.flush(Epoch(1)).unwrap();
    out.write(&batch(2)).unwrap();
    out.flush(Epoch(2)).unwrap();
    assert_eq!(connectors.sink("out").len(), 2);
    connectors.open_sink(&sink).unwrap().restore(position).unwrap();
    let left = connectors.sink("out");
    assert_eq!((left.len(), left[0].row.clone(), left[0].epoch, left[0].diff), (1, row(1), Epoch(1), 1));
}

#[test]
fn a_seed_fixes_the_input_and_the_input_has_everything_in_it() {
    let def = source("left");
    let shape = Shape { rows: 2_000, ..shape() };
    let input = records(3, &def, &shape);
    assert_eq!(format!("{input:?}"), format!("{:?}", records(3, &def, &shape)));
    let any = |found: &dyn Fn(&RawRecord) -> bool| assert!(input.iter().any(found));
    any(&|record| record.diff < 0);
    any(&|record| record.broken.is_some());
    any(&|record| record.values[0].is_null());
    any(&|record| matches!(record.values[2], Value::Float(x) if x.is_nan()));
    any(&|record| matches!(record.values[2], Value::Float(x) if x == 0.0 && x.is_sign_negative()));
    let assigned = assign_epochs(&SourceDef { lateness_ms: Some(5_000), ..def }, 2, &input).unwrap();
    assert_eq!(assigned.rows.len(), input.len());
    assert!(!assigned.late.is_empty());
    assert!(assigned.late.iter().all(|index| assigned.rows[*index].dead));
    assert_eq!(assigned.rows[5].position >> 56, 2);
    let lives =
        freshet_testkit::Interpreter::new(&crate::plans::every_operator(), vec![assign_epochs(&source("left"), 0, &input).unwrap().rows, Vec::new()]);
    assert!(lives.unmatched(0).is_empty(), "a retraction follows its row in the same partition");
    let together: Vec<RawRecord> = micro_batches(4, &input, 9).concat();
    assert_eq!(together.len(), input.len());
}

#[test]
fn comparison_sees_bits_or_does_not() {
    let content = |x: f64| accumulate([(vec![Value::Float(x)], 1)]);
    assert!(same(&content(0.1 + 0.2), &content(0.3)).is_err());
    assert!(roughly_same(&content(0.1 + 0.2), &content(0.3)).is_ok());
    assert!(roughly_same(&content(0.3), &content(0.300001)).is_err());
    assert!(same(&content(0.0), &content(-0.0)).is_err());
    assert!(roughly_same(&content(0.0), &content(-0.0)).is_ok());
    assert!(same(&content(f64::NAN), &content(f64::NAN)).is_ok());
    let twice = accumulate([(vec![int(1)], 2)]);
    let message = same(&twice, &accumulate([(vec![int(1)], 1)])).unwrap_err();
    assert_eq!(message, "1 rows differ; the first is (1), expected 2 times, found 1 times");
    assert!(roughly_same(&twice, &accumulate([(vec![int(1)], 1)])).is_err());
}

#[test]
fn the_smallest_failing_input_is_found() {
    let input: Vec<u32> = (0..100).collect();
    assert_eq!(smallest(&input, |rows| rows.contains(&13) && rows.contains(&77)), [13, 77]);
}
