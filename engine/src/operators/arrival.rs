//! Rows with the epoch at which they entered. In: changes. Out: each with its arrival; a retraction takes the oldest row with its own
//! arrival out (C1b), so the arrivals of rows that may be retracted are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{ShardedMap, put_i64, put_u64};

/// Of rows that stay.
pub fn arrivals(schema: SchemaRef) -> impl FnMut(Batch, &mut Output) + 'static {
    move |batch, out| {
        let arrivals: Vec<u64> = (0..batch.len()).map(|row| batch.epoch(row).0).collect();
        let rows = with_arrivals(batch.rows(), &arrivals, &schema);
        out.rows.push(batch.with_rows(rows));
    }
}

fn with_arrivals(rows: &RecordBatch, arrivals: &[u64], schema: &SchemaRef) -> RecordBatch {
    let instants = arrivals.iter().map(|epoch| i64::try_from(*epoch).unwrap_or(i64::MAX).saturating_mul(1_000));
    let column = Arc::new(TimestampMicrosecondArray::from_iter_values(instants)) as ArrayRef;
    let columns = rows.columns().iter().cloned().chain([column]).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the planner fixed the schema")
}

/// Of rows that may be retracted: when each live row came, oldest first.
pub struct Arrival {
    codec: KeyCodec,
    input: SchemaRef,
    schema: SchemaRef,
    live: ShardedMap<VecDeque<Came>>,
}

/// So many equal rows came at this epoch.
#[derive(Debug, Clone, Copy)]
struct Came {
    epoch: u64,
    count: i64,
    position: u64,
}

impl Arrival {
    /// Errors: Invalid for columns without order.
    pub fn new(input: &SchemaRef, schema: SchemaRef) -> Result<Arrival> {
        Ok(Arrival { codec: KeyCodec::for_schema(input)?, input: input.clone(), schema, live: ShardedMap::default() })
    }

    /// What a row's change of an epoch means: (arrival, position, diff) each.
    fn change(&mut self, row: &[u8], epoch: u64, mut diff: i64, position: u64) -> Vec<(u64, u64, i64)> {
        if diff > 0 {
            self.live.entry(row, VecDeque::new).push_back(Came { epoch, count: diff, position });
            return vec![(epoch, position, diff)];
        }
        let Some(live) = self.live.get_mut(row) else { return Vec::new() };
        let mut gone = Vec::new();
        while let Some(oldest) = live.front_mut().filter(|_| diff < 0) {
            let taken = oldest.count.min(-diff);
            gone.push((oldest.epoch, oldest.position, -taken));
            oldest.count -= taken;
            diff += taken;
            if oldest.count == 0 {
                live.pop_front();
            }
        }
        if live.is_empty() {
            self.live.remove(row);
        }
        gone
    }
}

impl StepOperator for Arrival {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut sums: BTreeMap<(u64, Box<[u8]>), (i64, u64)> = BTreeMap::new();
        for batch in std::mem::take(&mut inputs[0]) {
            let rows = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            for row in 0..batch.len() {
                let sum = sums.entry((batch.epoch(row).0, rows.row(row).as_ref().into())).or_default();
                *sum = (sum.0 + batch.diff(row), sum.1.max(batch.position(row)));
            }
        }
        let mut changes: Vec<(Box<[u8]>, u64, (u64, u64, i64))> = Vec::new();
        for ((epoch, row), (diff, position)) in sums.into_iter().filter(|(_, (diff, _))| *diff != 0) {
            let found = self.change(&row, epoch, diff, position);
            changes.extend(found.into_iter().map(|change| (row.clone(), epoch, change)));
        }
        if changes.is_empty() {
            return;
        }
        let rows = self.codec.decode_batch(&self.input, changes.iter().map(|change| change.0.as_ref())).expect("these are rows of this codec");
        let arrivals: Vec<u64> = changes.iter().map(|change| change.2.0).collect();
        let rows = with_arrivals(&rows, &arrivals, &self.schema);
        let epochs = Counts::Each(changes.iter().map(|change| change.1).collect());
        let positions = Counts::Each(changes.iter().map(|change| change.2.1).collect());
        let diffs = Diffs::Each(changes.iter().map(|change| change.2.2).collect());
        out.rows.push(Batch::new(rows, epochs, diffs, positions));
    }
}

impl Stateful for Arrival {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.live.checkpoint(|out, live| {
            put_u64(out, live.len() as u64);
            for came in live {
                put_u64(out, came.epoch);
                put_i64(out, came.count);
                put_u64(out, came.position);
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.live.restore(shard, bytes, |bytes| {
            (0..bytes.u64()?).map(|_| Ok(Came { epoch: bytes.u64()?, count: bytes.i64()?, position: bytes.u64()? })).collect()
        })
    }

    fn size(&self) -> (u64, u64) {
        let (mut rows, mut bytes) = (0, 0);
        for (row, live) in self.live.iter() {
            rows += live.len() as u64;
            bytes += row.len() as u64 + 64 + 24 * live.len() as u64;
        }
        (rows, bytes)
    }
}
