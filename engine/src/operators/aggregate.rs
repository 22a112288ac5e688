//! Grouped aggregation. In: changes, sharded by group key. Out: per epoch, the old row of each changed group retracted and the new one
//! inserted, groups in key order. A group without rows is no row; without keys there is always exactly one row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use freshet_core::{AggregateCall, AggregateFunction, Batch, Counts, Diffs, Epoch, Error, KeyCodec, Result, Value};

use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{Bytes, Cell, CellKind, DatumReader, ShardedMap, put_bytes, put_cell, put_i64, put_u64, put_value};

/// The operator and its state.
pub struct Aggregate {
    name: String,
    keys: Vec<usize>,
    calls: Vec<AggregateCall>,
    kinds: Vec<CellKind>,
    codec: KeyCodec,
    schema: SchemaRef,
    sources: Arc<[String]>,
    /// This worker answers for the one group of an aggregate without keys.
    owns_global: bool,
    groups: ShardedMap<Group>,
}

#[derive(Debug, Default)]
struct Group {
    rows: i64,
    cells: Vec<Cell>,
    shown: Shown,
    touched: bool,
}

/// What downstream has been told of a group.
#[derive(Debug, Clone, Default, PartialEq)]
enum Shown {
    #[default]
    Nothing,
    Row(Vec<Value>),
    /// Column and reason.
    Error(usize, String),
}

/// Changes gathered over a step.
#[derive(Default)]
struct Changes {
    keys: Vec<Box<[u8]>>,
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
        let type_of = |column: &usize| input.field(*column).data_type().clone();
        let codec = KeyCodec::new(&keys.iter().map(type_of).collect::<Vec<_>>())?;
        for call in calls.iter().filter(|call| call.function == AggregateFunction::Auc || call.label.is_some()) {
            let (scores, labels) = (call.argument.as_ref().map(type_of), call.label.as_ref().map(type_of));
            if (scores, labels) != (Some(DataType::Float64), Some(DataType::Boolean)) || call.function != AggregateFunction::Auc || call.distinct {
                return Err(Error::internal(format!("{name}: auc alone takes labels, of scores that are Float64, without DISTINCT")));
            }
        }
        let kind = |call: &AggregateCall| CellKind {
            function: call.function,
            argument: call.argument.as_ref().map(type_of),
            distinct: call.distinct,
            retractable: !append_only,
        };
        let kinds = calls.iter().map(kind).collect();
        Ok(Aggregate { name, keys, kinds, calls, codec, schema, sources, owns_global, groups: ShardedMap::default() })
    }

    fn absorb(&mut self, batches: &[Batch], changes: &mut Changes, errors: &mut ErrorRows) {
        let mut order: Vec<(u64, u32, u32)> = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, index as u32, row as u32)));
        }
        order.sort_unstable();
        let encoded: Vec<_> = batches
            .iter()
            .map(|batch| {
                let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
                (!columns.is_empty()).then(|| self.codec.encode(&columns).expect("the codec was made for these columns"))
            })
            .collect();
        let readers: Vec<Vec<DatumReader>> = batches
            .iter()
            .map(|batch| {
                let reader = |call: &AggregateCall| {
                    DatumReader::new(call.argument.map(|column| batch.column(column)), call.filter.map(|column| batch.column(column)))
                        .with_label(call.label.map(|column| batch.column(column)))
                };
                self.calls.iter().map(reader).collect()
            })
            .collect();
        let mut touched: Vec<Box<[u8]>> = Vec::new();
        let mut current = order.first().map_or(0, |first| first.0);
        for (epoch, batch, row) in order {
            if epoch != current {
                self.show(&mut touched, Epoch(current), changes, errors);
                current = epoch;
            }
            let (batch, row) = (batch as usize, row as usize);
            let row_key = encoded[batch].as_ref().map(|keys| keys.row(row));
            let key: &[u8] = row_key.as_ref().map_or(&[], |key| key.as_ref());
            let group = self.groups.entry(key, || Group { cells: self.kinds.iter().map(CellKind::empty).collect(), ..Group::default() });
            let diff = batches[batch].diff(row);
            group.rows += diff;
            for (cell, reader) in group.cells.iter_mut().zip(&readers[batch]) {
                cell.add(&reader.get(row), diff);
            }
            if !group.touched {
                group.touched = true;
                touched.push(key.into());
            }
        }
        self.show(&mut touched, Epoch(current), changes, errors);
    }

    /// Emits what an epoch changed in the groups it touched.
    fn show(&mut self, touched: &mut Vec<Box<[u8]>>, epoch: Epoch, changes: &mut Changes, errors: &mut ErrorRows) {
        touched.sort_unstable();
        for key in touched.drain(..) {
            let group = self.groups.get_mut(&key).expect("it was touched");
            group.touched = false;
            let shown =
                if group.rows == 0 && !self.keys.is_empty() { Shown::Nothing } else { shown(&self.calls, &self.schema, self.keys.len(), group) };
            let gone = group.rows == 0 && !self.keys.is_empty();
            let before = std::mem::replace(&mut group.shown, shown.clone());
            if gone {
                self.groups.remove(&key);
            }
            if before == shown {
                continue;
            }
            for (state, diff) in [(before, -1), (shown, 1)] {
                match state {
                    Shown::Nothing => {}
                    Shown::Row(values) => changes.push(key.clone(), values, epoch, diff),
                    Shown::Error(column, reason) => errors.push_at(epoch.0, diff, 0, self.schema.field(column).name(), &reason, None),
                }
            }
        }
    }

    fn batch_of(&self, changes: Changes) -> Option<Batch> {
        if changes.epochs.is_empty() {
            return None;
        }
        let mut columns = if self.keys.is_empty() {
            Vec::new()
        } else {
            self.codec.decode(changes.keys.iter().map(|key| key.as_ref())).expect("these are keys of this codec")
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

impl Changes {
    fn push(&mut self, key: Box<[u8]>, values: Vec<Value>, epoch: Epoch, diff: i64) {
        self.keys.push(key);
        self.values.push(values);
        self.epochs.push(epoch.0);
        self.diffs.push(diff);
    }
}

fn shown(calls: &[AggregateCall], schema: &SchemaRef, keys: usize, group: &Group) -> Shown {
    let mut values = Vec::with_capacity(calls.len());
    for (index, (call, cell)) in calls.iter().zip(&group.cells).enumerate() {
        match cell.output(call.function, schema.field(keys + index).data_type()) {
            Ok(value) => values.push(value),
            Err(error) => return Shown::Error(keys + index, error.to_string()),
        }
    }
    Shown::Row(values)
}

impl StepOperator for Aggregate {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut changes = Changes::default();
        let mut errors = ErrorRows::new(&self.name, self.sources.clone());
        if self.keys.is_empty() && self.owns_global && self.groups.get(&[]).is_none() {
            self.groups.entry(&[], || Group { cells: self.kinds.iter().map(CellKind::empty).collect(), ..Group::default() });
            self.show(&mut vec![Box::default()], Epoch::ZERO, &mut changes, &mut errors);
        }
        let batches = std::mem::take(&mut inputs[0]);
        if !batches.is_empty() {
            self.absorb(&batches, &mut changes, &mut errors);
        }
        out.rows.extend(self.batch_of(changes));
        out.errors.extend(errors.finish());
    }
}

impl Stateful for Aggregate {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.groups.checkpoint(|out, group| {
            put_i64(out, group.rows);
            group.cells.iter().for_each(|cell| put_cell(out, cell));
            match &group.shown {
                Shown::Nothing => out.push(0),
                Shown::Row(values) => {
                    out.push(1);
                    values.iter().for_each(|value| put_value(out, value));
                }
                Shown::Error(column, reason) => {
                    out.push(2);
                    put_u64(out, *column as u64);
                    put_bytes(out, reason.as_bytes());
                }
            }
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let calls = self.calls.len();
        self.groups.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let rows = bytes.i64()?;
            let cells = (0..calls).map(|_| bytes.cell()).collect::<Result<_>>()?;
            let shown = match bytes.u8()? {
                0 => Shown::Nothing,
                1 => Shown::Row((0..calls).map(|_| bytes.value()).collect::<Result<_>>()?),
                _ => Shown::Error(bytes.u64()? as usize, String::from_utf8_lossy(bytes.bytes()?).into_owned()),
            };
            Ok(Group { rows, cells, shown, touched: false })
        })
    }

    fn size(&self) -> (u64, u64) {
        let bytes: usize = self.groups.iter().map(|(key, group)| key.len() + 96 + group.cells.iter().map(Cell::bytes).sum::<usize>()).sum();
        (self.groups.len() as u64, bytes as u64)
    }
}
