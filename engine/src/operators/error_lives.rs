//! Whose error row it is that goes. In: error rows, those of rows that may be taken back with the row's name in `raw`. Out: the same without
//! names; when such a row is taken back, so is the error row with the place of the oldest equal one, as lives of rows have it (T9, C5).
//!
//! Error rows without a name come from operators that remember what they have told: they pass.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Epoch, KeyCodec, Result};

use crate::operators::{ErrorRows, Output, Stateful, StepOperator, error_schema};
use crate::state::{ShardedMap, put_i64, put_u64};

/// The columns by which error rows are found again: operator, field, reason, and the name in `raw`.
pub const ERROR_KEY: [usize; 4] = [0, 1, 2, RAW];
const RAW: usize = 6;

pub struct ErrorLives {
    codec: KeyCodec,
    key: SchemaRef,
    sources: Arc<[String]>,
    live: ShardedMap<VecDeque<Place>>,
}

/// So many error rows of one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    position: u64,
    count: i64,
}

/// What an epoch does to equal error rows.
#[derive(Default)]
struct Change {
    came: BTreeMap<u64, i64>,
    gone: i64,
}

impl ErrorLives {
    /// `sources` are the names of the plan's sources. Errors: none in practice, text has an order.
    pub fn new(sources: Arc<[String]>) -> Result<ErrorLives> {
        let key: SchemaRef = Arc::new(error_schema().project(&ERROR_KEY)?);
        Ok(ErrorLives { codec: KeyCodec::for_schema(&key)?, key, sources, live: ShardedMap::default() })
    }

    /// The changes that are told: positions and diffs. What comes and goes at once was never there.
    fn change(&mut self, key: &[u8], mut change: Change) -> Vec<(u64, i64)> {
        for count in change.came.values_mut() {
            let both = change.gone.min(*count);
            *count -= both;
            change.gone -= both;
        }
        let mut told = Vec::new();
        let came = change.came.into_iter().filter(|(_, count)| *count > 0);
        for (position, count) in came {
            self.live.entry(key, VecDeque::new).push_back(Place { position, count });
            told.push((position, count));
        }
        let Some(live) = self.live.get_mut(key).filter(|_| change.gone > 0) else { return told };
        while let Some(oldest) = live.front_mut().filter(|_| change.gone > 0) {
            let taken = oldest.count.min(change.gone);
            told.push((oldest.position, -taken));
            oldest.count -= taken;
            change.gone -= taken;
            if oldest.count == 0 {
                live.pop_front();
            }
        }
        if live.is_empty() {
            self.live.remove(key);
        }
        told
    }
}

impl StepOperator for ErrorLives {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut changes: BTreeMap<(u64, Box<[u8]>), Change> = BTreeMap::new();
        for batch in std::mem::take(&mut inputs[0]) {
            let named: BooleanArray = (0..batch.len()).map(|row| Some(batch.column(RAW).is_valid(row))).collect();
            let nameless = batch.filter(&arrow::compute::not(&named).expect("a mask has an opposite"));
            out.rows.extend(Some(nameless).filter(|batch| !batch.is_empty()));
            let named = batch.filter(&named);
            let columns: Vec<_> = ERROR_KEY.iter().map(|column| named.column(*column).clone()).collect();
            let keys = self.codec.encode(&columns).expect("the codec was made for these columns");
            for row in 0..named.len() {
                let change = changes.entry((named.epoch(row).0, keys.row(row).as_ref().into())).or_default();
                match named.diff(row) {
                    diff if diff > 0 => *change.came.entry(named.position(row)).or_default() += diff,
                    diff => change.gone -= diff,
                }
            }
        }
        let mut told: Vec<(Box<[u8]>, u64, (u64, i64))> = Vec::new();
        for ((epoch, key), change) in changes {
            let found = self.change(&key, change);
            told.extend(found.into_iter().map(|change| (key.clone(), epoch, change)));
        }
        if told.is_empty() {
            return;
        }
        let rows = self.codec.decode_batch(&self.key, told.iter().map(|change| change.0.as_ref())).expect("these are rows of this codec");
        let text = |column: usize, row: usize| rows.column(column).as_string::<i32>().value(row);
        let mut errors: BTreeMap<&str, ErrorRows> = BTreeMap::new();
        for (row, (_, epoch, (position, diff))) in told.iter().enumerate() {
            let operator = text(0, row);
            let rows = errors.entry(operator).or_insert_with(|| ErrorRows::new(operator, self.sources.clone()));
            rows.push_at(*epoch, *diff, *position, text(1, row), text(2, row), None);
        }
        out.rows.extend(errors.into_values().filter_map(ErrorRows::finish));
    }
}

impl Stateful for ErrorLives {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.live.checkpoint(|out, live| {
            put_u64(out, live.len() as u64);
            for place in live {
                put_u64(out, place.position);
                put_i64(out, place.count);
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.live.restore(shard, bytes, |bytes| (0..bytes.u64()?).map(|_| Ok(Place { position: bytes.u64()?, count: bytes.i64()? })).collect())
    }

    fn size(&self) -> (u64, u64) {
        let places = self.live.iter().map(|(key, live)| (live.len() as u64, key.len() as u64 + 64 + 16 * live.len() as u64));
        places.fold((0, 0), |size, place| (size.0 + place.0, size.1 + place.1))
    }
}
