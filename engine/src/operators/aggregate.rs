//! Grouped aggregation. In: changes, sharded by group key. Out: per epoch, the old row of each changed group retracted and the new one
//! inserted, groups in key order. A group without rows is no row; without keys there is always exactly one row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::Rows;
use freshet_core::{AggregateCall, AggregateFunction, Batch, Counts, Diffs, Epoch, Error, KeyCodec, Result, Value};

use crate::operators::{ErrorRows, Freeing, Output, Stateful, StepOperator};
use crate::state::{Bytes, Cell, CellKind, DatumReader, EntryCodec, ShardedMap, put_cell, put_i64};

/// The operator and its state.
pub struct Aggregate {
    name: String,
    keys: Vec<usize>,
    calls: Vec<Call>,
    codec: KeyCodec,
    schema: SchemaRef,
    sources: Arc<[String]>,
    /// This worker answers for the one group of an aggregate without keys.
    owns_global: bool,
    groups: ShardedMap<Group>,
    freeing: Option<Freeing>,
}

/// A column of the output.
struct Call {
    call: AggregateCall,
    kind: CellKind,
    /// Of sequences.
    codec: Option<EntryCodec>,
    data_type: DataType,
}

#[derive(Debug)]
struct Group {
    rows: i64,
    cells: Box<[Cell]>,
    touched: bool,
}

/// What downstream is told of a group. It follows from the group's cells, so nobody has to remember it.
#[derive(Debug, Clone, Default, PartialEq)]
enum Shown {
    #[default]
    Nothing,
    Row(Vec<Value>),
    /// Column and reason.
    Error(usize, String),
}

/// A group that the open epoch has changed: the batch and row that has its key, and what was shown before.
struct Touched {
    batch: u32,
    row: u32,
    before: Shown,
}

/// The keys of a step's rows.
struct Keys(Vec<Option<Rows>>);

impl Keys {
    fn of(&self, touched: &Touched) -> &[u8] {
        self.0.get(touched.batch as usize).and_then(Option::as_ref).map_or(&[], |rows| rows.row(touched.row as usize).data())
    }
}

/// Changes gathered over a step.
#[derive(Default)]
struct Changes {
    keys: Vec<(u32, u32)>,
    values: Vec<Vec<Value>>,
    epochs: Vec<u64>,
    diffs: Vec<i64>,
}

impl Aggregate {
    /// `input` is the schema of the rows, `schema` of the output. Errors: Invalid for keys without order,
    /// Internal for a call whose columns have other types than its function takes.
    pub fn new(
        name: String,
        (keys, calls): (Vec<usize>, Vec<AggregateCall>),
        (input, schema): (&SchemaRef, SchemaRef),
        append_only: bool,
        sources: Arc<[String]>,
        owns_global: bool,
    ) -> Result<Aggregate> {
        let type_of = |column: usize| input.field(column).data_type().clone();
        let codec = KeyCodec::new(&keys.iter().map(|key| type_of(*key)).collect::<Vec<_>>())?;
        let outputs = schema.fields().iter().skip(keys.len()).map(|field| field.data_type().clone());
        let calls = calls
            .into_iter()
            .zip(outputs)
            .map(|(call, data_type)| {
                check_second(&name, &call, type_of)?;
                let sequence = call.function.is_of_sequences();
                let by_arrival = sequence && call.order_by.is_empty() && !call.distinct;
                let kind = CellKind {
                    variant: by_arrival || (call.function == AggregateFunction::ApproxPercentile && call.second.is_some()),
                    parameter: call.parameter.clone(),
                    ..CellKind::new(call.function, call.argument.map(type_of), call.distinct, !append_only)
                };
                let codec = sequence.then(|| EntryCodec::new(&call, type_of)).transpose()?;
                Ok(Call { call, kind, codec, data_type })
            })
            .collect::<Result<_>>()?;
        Ok(Aggregate { name, keys, calls, codec, schema, sources, owns_global, groups: ShardedMap::default(), freeing: None })
    }

    /// Groups that no row can reach any more are forgotten.
    pub fn freeing(self, freeing: Option<Freeing>) -> Aggregate {
        Aggregate { freeing, ..self }
    }

    fn absorb(&mut self, batches: &[Batch], changes: &mut Changes, errors: &mut ErrorRows) -> Keys {
        let keys = batches.iter().map(|batch| {
            let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
            (!columns.is_empty()).then(|| self.codec.encode(&columns).expect("the codec was made for these columns"))
        });
        let keys = Keys(keys.collect());
        let calls = std::mem::take(&mut self.calls);
        let readers: Vec<Vec<DatumReader>> = batches.iter().map(|batch| calls.iter().map(|call| call.reader(batch)).collect()).collect();
        let mut touched: Vec<Touched> = Vec::new();
        let runs = runs_in_order(batches);
        let mut current = runs.first().map_or(0, |first| first.0);
        for (epoch, index, rows) in runs {
            if epoch != current {
                self.show(&calls, &keys, &mut touched, Epoch(current), changes, errors);
                current = epoch;
            }
            let (batch, readers) = (&batches[index], &readers[index]);
            let Some(encoded) = &keys.0[index] else {
                self.group(&calls, &[], (index, rows.start), &mut touched).absorb(batch, rows, readers);
                continue;
            };
            for row in rows {
                self.group(&calls, encoded.row(row).data(), (index, row), &mut touched).absorb(batch, row..row + 1, readers);
            }
        }
        self.show(&calls, &keys, &mut touched, Epoch(current), changes, errors);
        drop(readers);
        self.calls = calls;
        keys
    }

    /// The group of this key, which the row at `(batch, row)` is about to touch.
    fn group(&mut self, calls: &[Call], key: &[u8], (batch, row): (usize, usize), touched: &mut Vec<Touched>) -> &mut Group {
        let keyed = !self.keys.is_empty();
        let group = self.groups.entry(key, || Group::empty(calls));
        if !group.touched {
            group.touched = true;
            touched.push(Touched { batch: batch as u32, row: row as u32, before: group.shown(calls, keyed) });
        }
        group
    }

    /// Emits what an epoch changed in the groups it touched.
    fn show(&mut self, calls: &[Call], keys: &Keys, touched: &mut Vec<Touched>, epoch: Epoch, changes: &mut Changes, errors: &mut ErrorRows) {
        let keyed = !self.keys.is_empty();
        touched.sort_unstable_by(|left, right| keys.of(left).cmp(keys.of(right)));
        for touched in touched.drain(..) {
            let key = keys.of(&touched);
            let group = self.groups.get_mut(key).expect("it was touched");
            group.touched = false;
            group.cells.iter_mut().for_each(|cell| cell.close(epoch));
            let shown = group.shown(calls, keyed);
            if keyed && group.rows == 0 {
                self.groups.remove(key);
            }
            if touched.before == shown {
                continue;
            }
            for (state, diff) in [(touched.before, -1), (shown, 1)] {
                match state {
                    Shown::Nothing => {}
                    Shown::Row(values) => changes.push((touched.batch, touched.row), values, epoch, diff),
                    Shown::Error(call, reason) => {
                        errors.push_at(epoch.0, diff, 0, self.schema.field(self.keys.len() + call).name(), &reason, None);
                    }
                }
            }
        }
    }

    fn batch_of(&self, keys: &Keys, changes: Changes) -> Option<Batch> {
        if changes.epochs.is_empty() {
            return None;
        }
        let mut columns = if self.keys.is_empty() {
            Vec::new()
        } else {
            let key = |place: &(u32, u32)| keys.of(&Touched { batch: place.0, row: place.1, before: Shown::Nothing });
            self.codec.decode(changes.keys.iter().map(key)).expect("these are keys of this codec")
        };
        for (index, field) in self.schema.fields().iter().enumerate().skip(self.keys.len()) {
            let values = changes.values.iter().map(|row| &row[index - self.keys.len()]);
            columns.push(Value::column_of(field.data_type(), values).expect("the planner fixed the types of the calls"));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.epochs.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the planner fixed the schema");
        Some(Batch::new(rows, Counts::Each(changes.epochs.into()), Diffs::Each(changes.diffs.into()), Counts::Const(0)))
    }
}

impl Group {
    fn empty(calls: &[Call]) -> Group {
        Group { rows: 0, cells: calls.iter().map(|call| call.kind.empty()).collect(), touched: false }
    }

    fn absorb(&mut self, batch: &Batch, rows: Range<usize>, readers: &[DatumReader]) {
        self.rows += rows.clone().map(|row| batch.diff(row)).sum::<i64>();
        for (cell, reader) in self.cells.iter_mut().zip(readers) {
            for row in rows.clone() {
                cell.add(&reader.get(row), batch.diff(row));
            }
        }
    }

    fn shown(&self, calls: &[Call], keyed: bool) -> Shown {
        if keyed && self.rows == 0 {
            return Shown::Nothing;
        }
        let mut values = Vec::with_capacity(calls.len());
        for (index, (call, cell)) in calls.iter().zip(&self.cells).enumerate() {
            match call.value(cell) {
                Ok(value) => values.push(value),
                Err(error) => return Shown::Error(index, error.to_string()),
            }
        }
        Shown::Row(values)
    }
}

impl Call {
    fn reader<'a>(&self, batch: &'a Batch) -> DatumReader<'a> {
        let column = |column: Option<usize>| column.map(|column| batch.column(column));
        let filter = column(self.call.filter);
        match (&self.codec, column(self.call.argument)) {
            (Some(codec), Some(values)) => {
                let rows = codec.encode(batch).expect("the codec was made for these columns");
                let skip_nulls = self.call.ignore_nulls || self.call.function == AggregateFunction::StringAgg;
                DatumReader::entries(rows, values, skip_nulls, batch, filter)
            }
            (_, argument) => DatumReader::new(argument, filter).with_second(column(self.call.second)),
        }
    }

    fn value(&self, cell: &Cell) -> Result<Value> {
        match (cell, &self.codec) {
            (Cell::Sequence(sequence), Some(codec)) => sequence.value(&self.call, codec),
            (cell, _) => self.kind.value(cell, &self.data_type),
        }
    }
}

/// Errors: Internal for a second argument of a wrong type, or where there is none to take.
fn check_second(name: &str, call: &AggregateCall, type_of: impl Fn(usize) -> DataType) -> Result<()> {
    let wanted = match call.function {
        AggregateFunction::Auc => Some(DataType::Boolean),
        function if function.is_of_pairs() => Some(DataType::Float64),
        AggregateFunction::ApproxPercentile if call.second.is_some() => Some(DataType::Float64),
        _ => None,
    };
    let first_ok = wanted.is_none() || (call.argument.map(&type_of) == Some(DataType::Float64) && !call.distinct);
    if first_ok && call.second.map(type_of) == wanted {
        return Ok(());
    }
    Err(Error::internal(format!("{name}: {} takes other arguments than these", call.function.sql())))
}

/// Epoch, batch and rows, in the order of epochs and of what came first.
fn runs_in_order(batches: &[Batch]) -> Vec<(u64, usize, Range<usize>)> {
    let mut runs: Vec<(u64, usize, Range<usize>)> = Vec::new();
    for (index, batch) in batches.iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
        match batch.epochs() {
            Counts::Const(epoch) => runs.push((*epoch, index, 0..batch.len())),
            Counts::Each(epochs) => {
                let mut first = 0;
                for run in epochs.chunk_by(|left, right| left == right) {
                    runs.push((run[0], index, first..first + run.len()));
                    first += run.len();
                }
            }
        }
    }
    // Stable, so batches and rows of one epoch keep their order.
    runs.sort_by_key(|run| run.0);
    runs
}

impl Changes {
    fn push(&mut self, key: (u32, u32), values: Vec<Value>, epoch: Epoch, diff: i64) {
        self.keys.push(key);
        self.values.push(values);
        self.epochs.push(epoch.0);
        self.diffs.push(diff);
    }
}

impl StepOperator for Aggregate {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let mut changes = Changes::default();
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        if self.keys.is_empty() && self.owns_global && self.groups.get(&[]).is_none() {
            let group = Group::empty(&self.calls);
            if let Shown::Row(values) = group.shown(&self.calls, false) {
                changes.push((0, 0), values, Epoch::ZERO, 1);
            }
            self.groups.entry(&[], || group);
        }
        let batches = std::mem::take(&mut inputs[0]);
        let count = batches.iter().map(Batch::len).sum();
        let keys = if batches.is_empty() { Keys(Vec::new()) } else { self.absorb(&batches, &mut changes, &mut errors) };
        out.rows.extend(self.batch_of(&keys, changes));
        out.errors.extend(errors.finish());
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.groups, &self.codec, (upto, count));
        }
    }
}

impl Stateful for Aggregate {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.groups.checkpoint(|out, group| {
            put_i64(out, group.rows);
            group.cells.iter().for_each(|cell| put_cell(out, cell));
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let calls = self.calls.len();
        self.groups.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let rows = bytes.i64()?;
            let cells = (0..calls).map(|_| bytes.cell()).collect::<Result<_>>()?;
            Ok(Group { rows, cells, touched: false })
        })
    }

    fn size(&self) -> (u64, u64) {
        let bytes: usize = self.groups.iter().map(|(key, group)| key.len() + 56 + group.cells.iter().map(Cell::bytes).sum::<usize>()).sum();
        (self.groups.len() as u64, bytes as u64)
    }
}
