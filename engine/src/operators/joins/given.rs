//! The rows of a step, encoded once. In: the batches of both sides. Out: key and row bytes, and the order in which rows are taken in.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::row::Rows;
use freshet_core::{Batch, hash_bytes};

use crate::operators::joins::Shape;

/// All rows of a step.
pub(super) struct Given<'a> {
    pub batches: Vec<GivenBatch<'a>>,
}

/// One batch of one side.
pub(super) struct GivenBatch<'a> {
    pub side: usize,
    /// Its place among the batches of its side.
    pub place: usize,
    pub batch: &'a Batch,
    keys: Option<Rows>,
    /// Rows with a NULL among their keys are NULL.
    null_keys: Option<NullBuffer>,
    rows: Option<Rows>,
}

/// A row of a step, by its batch and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub batch: u32,
    pub row: u32,
}

/// What an epoch changes of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Net {
    pub at: At,
    pub count: i64,
    pub position: u64,
}

impl<'a> Given<'a> {
    pub fn new(shape: &Shape, inputs: &'a [Vec<Batch>], keeps: [bool; 2]) -> Given<'a> {
        let mut batches = Vec::new();
        for (side, given) in inputs.iter().enumerate() {
            for (place, batch) in given.iter().enumerate() {
                let columns: Vec<ArrayRef> = shape.keys[side].iter().map(|key| batch.column(*key).clone()).collect();
                let keys = (!columns.is_empty()).then(|| shape.key_codec.encode(&columns).expect("the codec was made for these columns"));
                let null_keys = columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()));
                let encodes = keeps[side] && !shape.types[side].is_empty();
                let rows = encodes.then(|| shape.row_codecs[side].encode(batch.rows().columns()).expect("the codec was made for these columns"));
                batches.push(GivenBatch { side, place, batch, keys, null_keys: null_keys.filter(|nulls| nulls.null_count() > 0), rows });
            }
        }
        Given { batches }
    }

    /// Rows of both sides.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|given| given.batch.len()).sum()
    }

    pub fn of(&self, at: At) -> &GivenBatch<'a> {
        &self.batches[at.batch as usize]
    }

    pub fn key(&self, at: At) -> &[u8] {
        self.of(at).keys.as_ref().map_or(&[], |keys| keys.row(at.row as usize).data())
    }

    /// The encoded row; empty where its side's rows are only counted, or have no columns.
    pub fn row(&self, at: At) -> &[u8] {
        self.of(at).rows.as_ref().map_or(&[], |rows| rows.row(at.row as usize).data())
    }

    pub fn has_null_key(&self, at: At) -> bool {
        self.of(at).null_keys.as_ref().is_some_and(|nulls| nulls.is_null(at.row as usize))
    }

    pub fn epoch(&self, at: At) -> u64 {
        self.of(at).batch.epoch(at.row as usize).0
    }

    pub fn diff(&self, at: At) -> i64 {
        self.of(at).batch.diff(at.row as usize)
    }

    pub fn position(&self, at: At) -> u64 {
        self.of(at).batch.position(at.row as usize)
    }

    fn all(&self) -> impl Iterator<Item = At> {
        self.batches.iter().enumerate().flat_map(|(index, given)| (0..given.batch.len()).map(move |row| At { batch: index as u32, row: row as u32 }))
    }

    /// Every row with its epoch, in the order of epochs and of what came first.
    pub fn in_order(&self) -> Vec<(u64, At)> {
        let mut order: Vec<(u64, At)> = self.all().map(|at| (self.epoch(at), at)).collect();
        order.sort_unstable();
        order
    }

    /// Every row for which `wanted`, with its epoch: in the order of epochs, rows of one epoch and key side by side.
    pub fn by_key(&self, wanted: impl Fn(At) -> bool) -> Vec<(u64, u64, At)> {
        let mut order: Vec<(u64, u64, At)> = self.all().filter(|at| wanted(*at)).map(|at| (self.epoch(at), hash_bytes(self.key(at)), at)).collect();
        order.sort_unstable_by(|left, right| {
            let place = (left.0, left.1).cmp(&(right.0, right.1));
            place.then_with(|| self.key(left.2).cmp(self.key(right.2))).then_with(|| left.2.cmp(&right.2))
        });
        order
    }

    /// True for rows of one epoch and key.
    pub fn belong_together(&self, left: &(u64, u64, At), right: &(u64, u64, At)) -> bool {
        (left.0, left.1) == (right.0, right.1) && self.key(left.2) == self.key(right.2)
    }

    /// What these rows change of one side, equal rows added up.
    pub fn net(&self, side: usize, group: &[(u64, u64, At)], into: &mut Vec<Net>) {
        into.clear();
        let of_side = group.iter().map(|(_, _, at)| *at).filter(|at| self.of(*at).side == side);
        into.extend(of_side.map(|at| Net { at, count: self.diff(at), position: self.position(at) }));
        if into.len() < 2 {
            return;
        }
        into.sort_by(|left, right| self.row(left.at).cmp(self.row(right.at)));
        into.dedup_by(|next, kept| {
            let same = self.row(next.at) == self.row(kept.at);
            if same {
                kept.position = match (kept.count > 0, next.count > 0) {
                    (true, false) => kept.position,
                    (false, true) => next.position,
                    _ => kept.position.max(next.position),
                };
                kept.count += next.count;
            }
            same
        });
        into.retain(|net| net.count != 0);
    }
}
