//! Output rows of a join. In: references to rows of the step and copies of rows that are kept. Out: batches, whose columns are gathered from the
//! step's own where the row came in it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{Schema, SchemaRef};
use freshet_core::{Batch, Counts, Diffs, Epoch, KeyCodec};

use crate::operators::joins::Shape;
use crate::operators::joins::given::{At, Given};

/// The cells of one side.
#[derive(Debug)]
enum Cells {
    /// Place of the batch among those of its side, and row.
    Given(Vec<(usize, usize)>),
    Kept(Encoded),
    Nothing,
}

/// Rows of one codec, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Encoded {
    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    pub fn columns(&self, codec: &KeyCodec) -> Vec<ArrayRef> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        codec.decode(starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])).expect("these are rows of this codec")
    }
}

/// Where an output row is true, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub epoch: u64,
    pub diff: i64,
    pub position: u64,
}

/// Rows whose cells come from the same places.
#[derive(Debug)]
pub(super) struct Part {
    cells: [Cells; 2],
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
    marks: Vec<Option<bool>>,
}

impl Part {
    fn new(cells: [Cells; 2]) -> Part {
        Part { cells, epochs: Vec::new(), diffs: Vec::new(), positions: Vec::new(), marks: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    fn push(&mut self, facts: Facts, mark: Option<bool>) {
        self.epochs.push(facts.epoch);
        self.diffs.push(facts.diff);
        self.positions.push(facts.position);
        self.marks.push(mark);
    }

    fn give(&mut self, side: usize, given: &Given, at: At) {
        let Cells::Given(rows) = &mut self.cells[side] else { unreachable!("this part takes rows of the step on this side") };
        rows.push((given.of(at).place, at.row as usize));
    }

    fn keep(&mut self, side: usize, row: &[u8]) {
        let Cells::Kept(rows) = &mut self.cells[side] else { unreachable!("this part takes kept rows on this side") };
        rows.push(row);
    }

    fn side(&self, side: usize, given: &Given, shape: &Shape) -> Vec<ArrayRef> {
        match &self.cells[side] {
            Cells::Nothing => shape.types[side].iter().map(|data_type| new_null_array(data_type, self.len())).collect(),
            Cells::Kept(_) if shape.types[side].is_empty() => Vec::new(),
            Cells::Kept(rows) => rows.columns(&shape.row_codecs[side]),
            Cells::Given(rows) => gathered(rows, side, given, shape.types[side].len()),
        }
    }

    /// The rows as a batch of this schema, which says what is shown: the left side, the right side, the mark.
    fn batch(self, schema: &SchemaRef, shows: (bool, bool), given: &Given, shape: &Shape) -> Batch {
        if self.len() == 0 {
            return Batch::inserts(RecordBatch::new_empty(schema.clone()), Epoch::ZERO);
        }
        let mut columns = self.side(0, given, shape);
        if shows.0 {
            columns.extend(self.side(1, given, shape));
        }
        if shows.1 {
            columns.push(Arc::new(BooleanArray::from(self.marks.clone())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the planner fixed the schema");
        let diffs = if self.diffs.iter().all(|diff| *diff == 1) { Diffs::One } else { Diffs::Each(self.diffs.into()) };
        Batch::new(rows, counts(self.epochs), diffs, counts(self.positions))
    }
}

fn counts(values: Vec<u64>) -> Counts {
    match values.first() {
        Some(first) if values.iter().all(|value| value == first) => Counts::Const(*first),
        _ => Counts::Each(values.into()),
    }
}

/// The columns of these rows of one side's batches.
fn gathered(rows: &[(usize, usize)], side: usize, given: &Given, width: usize) -> Vec<ArrayRef> {
    let batches: Vec<&Batch> = given.batches.iter().filter(|batch| batch.side == side).map(|batch| batch.batch).collect();
    if let [batch] = batches[..] {
        let indexes = UInt32Array::from_iter_values(rows.iter().map(|(_, row)| *row as u32));
        return (0..width).map(|column| take(batch.column(column), &indexes, None).expect("the rows are there")).collect();
    }
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        interleave(&arrays, rows).expect("batches of one side share their types")
    };
    (0..width).map(column).collect()
}

/// Output rows that are gathered before they are put out.
const ROWS_MAX: usize = 1 << 16;

/// The rows a step puts out, by where their cells come from.
#[derive(Debug)]
pub(super) struct Parts {
    /// By the side that changed: its rows beside the kept ones of the other.
    pairs: [Part; 2],
    /// By side: rows without a partner that changed in this step.
    alone_given: [Part; 2],
    /// By side: rows that gained their first partner or lost their last one.
    alone_kept: [Part; 2],
}

impl Parts {
    pub fn new() -> Parts {
        let (given, kept, nothing) = (|| Cells::Given(Vec::new()), || Cells::Kept(Encoded::default()), || Cells::Nothing);
        Parts {
            pairs: [Part::new([given(), kept()]), Part::new([kept(), given()])],
            alone_given: [Part::new([given(), nothing()]), Part::new([nothing(), given()])],
            alone_kept: [Part::new([kept(), nothing()]), Part::new([nothing(), kept()])],
        }
    }

    /// A row of the step beside a kept one of the other side.
    pub fn pair(&mut self, side: usize, given: &Given, at: At, other: &[u8], facts: Facts) {
        let part = &mut self.pairs[side];
        part.give(side, given, at);
        part.keep(1 - side, other);
        part.push(facts, None);
    }

    pub fn alone(&mut self, side: usize, given: &Given, at: At, mark: Option<bool>, facts: Facts) {
        self.alone_given[side].give(side, given, at);
        self.alone_given[side].push(facts, mark);
    }

    pub fn alone_again(&mut self, side: usize, row: &[u8], mark: Option<bool>, facts: Facts) {
        self.alone_kept[side].keep(side, row);
        self.alone_kept[side].push(facts, mark);
    }

    pub fn pairs(&self) -> usize {
        self.pairs.iter().map(Part::len).sum()
    }

    /// The pairs so far in which this side changed.
    pub fn pairs_of(&self, side: usize) -> usize {
        self.pairs[side].len()
    }

    /// The pairs as batches of left and right columns, by the side that changed; they are taken out.
    pub fn take_pairs(&mut self, schema: &SchemaRef, given: &Given, shape: &Shape) -> [Batch; 2] {
        let pairs = std::mem::replace(&mut self.pairs, Parts::new().pairs);
        pairs.map(|part| part.batch(schema, (true, false), given, shape))
    }

    /// Puts out what there is once it is much, so that no batch grows without bound.
    pub fn spill(&mut self, given: &Given, shape: &Shape, out: &mut Vec<Batch>) {
        let alone = self.alone_given.iter().chain(&self.alone_kept).map(Part::len).sum::<usize>();
        if self.pairs() + alone >= ROWS_MAX {
            std::mem::replace(self, Parts::new()).finish(given, shape, out);
        }
    }

    pub fn finish(self, given: &Given, shape: &Shape, out: &mut Vec<Batch>) {
        let shows = (shape.kind.shows_right(), shape.kind.has_mark());
        let parts = self.pairs.into_iter().chain(self.alone_given).chain(self.alone_kept);
        out.extend(parts.filter(|part| part.len() > 0).map(|part| part.batch(&shape.schema, shows, given, shape)));
    }
}

/// Left columns, then right columns, all of which may be NULL.
pub(super) fn pair_schema(inputs: [&SchemaRef; 2]) -> SchemaRef {
    let fields = inputs.into_iter().flat_map(|schema| schema.fields().iter());
    Arc::new(Schema::new(fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}
