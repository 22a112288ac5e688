//! Inner equi-join. In: changes of both sides, sharded by key. Out: each change joined with the other side as of its epoch, at the
//! greater epoch of the two rows. NULL keys match nothing. Any retraction on either side is followed.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows as KeyRows;
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec, Result};

use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, ShardedMap, put_bytes, put_i64, put_u64};

/// The operator and its state: both sides, by key.
pub struct Join {
    keys: [Vec<usize>; 2],
    key_codec: KeyCodec,
    row_codecs: [KeyCodec; 2],
    schema: SchemaRef,
    matches: ShardedMap<[Vec<JoinRow>; 2]>,
}

/// A live row of one side.
#[derive(Debug, Clone)]
struct JoinRow {
    row: Box<[u8]>,
    count: i64,
    position: u64,
}

#[derive(Default)]
struct Joined {
    rows: [Vec<Box<[u8]>>; 2],
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
}

impl Join {
    /// Errors: Invalid for columns without order.
    pub fn new(keys: [Vec<usize>; 2], inputs: [&SchemaRef; 2], schema: SchemaRef) -> Result<Join> {
        let key_types: Vec<_> = keys[0].iter().map(|key| inputs[0].field(*key).data_type().clone()).collect();
        Ok(Join {
            key_codec: KeyCodec::new(&key_types)?,
            row_codecs: [KeyCodec::for_schema(inputs[0])?, KeyCodec::for_schema(inputs[1])?],
            keys,
            schema,
            matches: ShardedMap::default(),
        })
    }

    fn change(&mut self, side: usize, key: &[u8], change: JoinRow, epoch: u64, out: &mut Joined) {
        let sides = self.matches.entry(key, Default::default);
        for other in &sides[1 - side] {
            out.rows[side].push(change.row.clone());
            out.rows[1 - side].push(other.row.clone());
            out.epochs.push(epoch);
            out.diffs.push(change.count * other.count);
            out.positions.push(change.position.max(other.position));
        }
        match sides[side].iter_mut().position(|row| row.row == change.row) {
            Some(at) => {
                let row = &mut sides[side][at];
                row.count += change.count;
                row.position = if change.count > 0 { row.position.max(change.position) } else { row.position };
                if row.count == 0 {
                    sides[side].swap_remove(at);
                }
            }
            None => sides[side].push(change),
        }
        if sides.iter().all(Vec::is_empty) {
            self.matches.remove(key);
        }
    }

    fn batch_of(&self, joined: Joined) -> Option<Batch> {
        if joined.epochs.is_empty() {
            return None;
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (codec, rows) in self.row_codecs.iter().zip(&joined.rows) {
            columns.extend(codec.decode(rows.iter().map(|row| row.as_ref())).expect("these are rows of this codec"));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(joined.epochs.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the planner fixed the schema");
        Some(Batch::new(rows, Counts::Each(joined.epochs.into()), Diffs::Each(joined.diffs.into()), Counts::Each(joined.positions.into())))
    }
}

/// The encoded keys and rows of one batch.
struct Encoded<'a> {
    batch: &'a Batch,
    keys: Option<KeyRows>,
    key_columns: Vec<ArrayRef>,
    rows: KeyRows,
}

impl StepOperator for Join {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut encoded: Vec<(usize, Encoded)> = Vec::new();
        let mut order: Vec<(u64, u32, u32)> = Vec::new();
        for (side, batches) in inputs.iter().enumerate() {
            for batch in batches {
                let key_columns: Vec<ArrayRef> = self.keys[side].iter().map(|key| batch.column(*key).clone()).collect();
                let keys = (!key_columns.is_empty()).then(|| self.key_codec.encode(&key_columns).expect("the codec was made for these columns"));
                let rows = self.row_codecs[side].encode(batch.rows().columns()).expect("the codec was made for these columns");
                order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, encoded.len() as u32, row as u32)));
                encoded.push((side, Encoded { batch, keys, key_columns, rows }));
            }
        }
        order.sort_unstable();
        let mut joined = Joined::default();
        for (epoch, part, row) in order {
            let (side, part) = &encoded[part as usize];
            let row = row as usize;
            if part.key_columns.iter().any(|column| column.is_null(row)) {
                continue;
            }
            let key = part.keys.as_ref().map(|keys| keys.row(row));
            let change = JoinRow { row: part.rows.row(row).as_ref().into(), count: part.batch.diff(row), position: part.batch.position(row) };
            self.change(*side, key.as_ref().map_or(&[], |key| key.as_ref()), change, epoch, &mut joined);
        }
        out.rows.extend(self.batch_of(joined));
    }
}

impl Stateful for Join {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.matches.checkpoint(|out, sides| {
            for side in sides {
                put_u64(out, side.len() as u64);
                for row in side {
                    put_bytes(out, &row.row);
                    put_i64(out, row.count);
                    put_u64(out, row.position);
                }
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        self.matches.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let mut sides: [Vec<JoinRow>; 2] = Default::default();
            for side in &mut sides {
                for _ in 0..bytes.u64()? {
                    side.push(JoinRow { row: bytes.bytes()?.into(), count: bytes.i64()?, position: bytes.u64()? });
                }
            }
            Ok(sides)
        })
    }

    fn size(&self) -> (u64, u64) {
        let rows = |sides: &[Vec<JoinRow>; 2]| sides.iter().map(Vec::len).sum::<usize>();
        let bytes = |sides: &[Vec<JoinRow>; 2]| sides.iter().flatten().map(|row| row.row.len() + size_of::<JoinRow>()).sum::<usize>();
        let mut size = (0, 0);
        for (key, sides) in self.matches.iter() {
            size = (size.0 + rows(sides) as u64, size.1 + (key.len() + 64 + bytes(sides)) as u64);
        }
        size
    }
}
