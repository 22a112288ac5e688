//! Scores rows, on whichever thread asks. In: rows with epochs. Out: one column per PREDICT call, and which rows failed.
//!
//! A row's values depend on that row, its epoch and the control records alone: models are called with many rows only if they say that
//! the batch changes no bit (C7), and a failing call is halved until the failing rows stand alone (C4).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use freshet_core::{Batch, Error, ModelDef, PredictCall, PredictOutput, Result};

use crate::bridge::{Routes, Version, text_of};
use crate::metrics::Metrics;

/// 256 rows: beyond it a call costs no less per row, below it the call itself shows.
const CALL_ROWS: usize = 256;

/// All calls of one PREDICT node, shared by its workers and the threads that score for them.
pub struct Scoring {
    calls: Vec<(PredictCall, Arc<ModelDef>)>,
    /// The node's; its last fields are the calls'.
    schema: SchemaRef,
    routes: Arc<Routes>,
    metrics: Arc<Metrics>,
}

/// What came of a batch.
pub struct Scored {
    /// One per call.
    pub columns: Vec<ArrayRef>,
    /// By call, then row.
    pub failures: Vec<Failure>,
}

/// A row that a model could not score; its value is NULL.
pub struct Failure {
    pub row: usize,
    pub call: usize,
    pub reason: String,
}

/// Rows of a batch that one version scores.
struct Group {
    version: Option<Arc<Version>>,
    rows: Vec<u32>,
}

impl Scoring {
    /// `schema` is the node's. Errors: Internal if a call's column has another type than the model's outputs.
    pub fn new(calls: &[PredictCall], models: &[ModelDef], schema: SchemaRef, routes: Arc<Routes>, metrics: Arc<Metrics>) -> Result<Scoring> {
        let scoring =
            Scoring { calls: calls.iter().map(|call| (call.clone(), Arc::new(models[call.model].clone()))).collect(), schema, routes, metrics };
        for (index, (call, model)) in scoring.calls.iter().enumerate() {
            let (found, wanted) = (scoring.field(index).data_type(), output_type(call, model));
            if *found != wanted {
                return Err(Error::internal(format!("column {} is {found}, model {} gives {wanted}", scoring.field(index).name(), model.name)));
            }
            if !scoring.field(index).is_nullable() {
                return Err(Error::internal(format!("column {} must be nullable: a row may have no prediction", scoring.field(index).name())));
            }
        }
        Ok(scoring)
    }

    /// The column of a call.
    pub fn field(&self, call: usize) -> &Field {
        self.schema.field(self.schema.fields().len() - self.calls.len() + call)
    }

    /// The types of the calls' columns.
    pub fn types(&self) -> Vec<DataType> {
        (0..self.calls.len()).map(|call| self.field(call).data_type().clone()).collect()
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The calls' columns for these rows, each row under the version of its own epoch (C1b). May take as long as the models do.
    pub fn score(&self, batch: &Batch) -> Scored {
        let mut scored = Scored { columns: Vec::new(), failures: Vec::new() };
        for (index, (call, model)) in self.calls.iter().enumerate() {
            let groups = self.groups(call, batch);
            let column = match call.output {
                PredictOutput::Version => versions(&groups, batch.len()),
                PredictOutput::Score => self.scores(index, (call, model), &groups, batch.rows(), &mut scored.failures),
            };
            scored.columns.push(column);
        }
        scored
    }

    /// The rows by the version that scores them; nearly always one group.
    fn groups(&self, call: &PredictCall, batch: &Batch) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let (mut epoch, mut current) = (None, 0);
        for row in 0..batch.len() {
            if epoch != Some(batch.epoch(row)) {
                epoch = Some(batch.epoch(row));
                let version = self.routes.at(call.model, batch.epoch(row), call.route);
                let number = |version: &Option<Arc<Version>>| version.as_ref().map(|version| version.number);
                current = groups.iter().position(|group| number(&group.version) == number(&version)).unwrap_or_else(|| {
                    groups.push(Group { version, rows: Vec::new() });
                    groups.len() - 1
                });
            }
            groups[current].rows.push(row as u32);
        }
        groups
    }

    fn scores(
        &self,
        index: usize,
        (call, model): (&PredictCall, &ModelDef),
        groups: &[Group],
        rows: &RecordBatch,
        failures: &mut Vec<Failure>,
    ) -> ArrayRef {
        let arguments: Vec<ArrayRef> = call.arguments.iter().map(|column| rows.column(*column).clone()).collect();
        let mut calling = Calling { model, parts: Vec::new(), failed: Vec::new() };
        for group in groups {
            let whole = group.rows.len() == rows.num_rows();
            let arguments: Vec<ArrayRef> =
                if whole { arguments.clone() } else { arguments.iter().map(|column| picked(column, &group.rows)).collect() };
            match &group.version {
                None => calling.parts.push(nulls(model, group.rows.len())),
                Some(version) => calling.group(version, &arguments, group),
            }
        }
        let scored: usize = groups.iter().filter(|group| group.version.is_some()).map(|group| group.rows.len()).sum();
        self.metrics.scored(call.model, scored as u64, calling.failed.len() as u64);
        let outputs = calling.outputs(groups);
        let failed: Vec<(usize, String)> = calling.failed;
        let column = self.assemble(index, outputs, groups, &failed);
        failures.extend(failed.into_iter().map(|(row, reason)| Failure { row, call: index, reason }));
        column
    }

    /// One output is the column itself; several are a struct, NULL as a whole where there is no version or scoring failed.
    fn assemble(&self, index: usize, mut outputs: Vec<ArrayRef>, groups: &[Group], failed: &[(usize, String)]) -> ArrayRef {
        let DataType::Struct(fields) = self.field(index).data_type() else { return outputs.swap_remove(0) };
        let mut valid = vec![true; outputs[0].len()];
        groups.iter().filter(|group| group.version.is_none()).flat_map(|group| &group.rows).for_each(|row| valid[*row as usize] = false);
        failed.iter().for_each(|(row, _)| valid[*row] = false);
        let column = StructArray::try_new(fields.clone(), outputs, Some(NullBuffer::from(valid)));
        Arc::new(column.expect("the outputs were checked against the model's definition"))
    }
}

/// The calls of one model for one batch, part by part.
struct Calling<'a> {
    model: &'a ModelDef,
    /// The outputs of consecutive rows, group by group.
    parts: Vec<Vec<ArrayRef>>,
    failed: Vec<(usize, String)>,
}

impl Calling<'_> {
    fn group(&mut self, version: &Version, arguments: &[ArrayRef], group: &Group) {
        let step = if version.loaded.batch_invariant() { CALL_ROWS } else { 1 };
        for first in (0..group.rows.len()).step_by(step) {
            self.rows(version, arguments, group, (first, step.min(group.rows.len() - first)));
        }
    }

    fn rows(&mut self, version: &Version, arguments: &[ArrayRef], group: &Group, (first, count): (usize, usize)) {
        let slices: Vec<ArrayRef> = arguments.iter().map(|column| column.slice(first, count)).collect();
        match outputs_of(version, self.model, &slices, count) {
            Ok(outputs) => self.parts.push(outputs),
            Err(error) if count == 1 => {
                self.failed.push((group.rows[first] as usize, error.to_string()));
                self.parts.push(nulls(self.model, 1));
            }
            Err(_) => {
                let half = count / 2;
                self.rows(version, arguments, group, (first, half));
                self.rows(version, arguments, group, (first + half, count - half));
            }
        }
    }

    /// One array per output, rows in the order of the batch.
    fn outputs(&self, groups: &[Group]) -> Vec<ArrayRef> {
        let mut order: Vec<u32> = vec![0; groups.iter().map(|group| group.rows.len()).sum()];
        groups.iter().flat_map(|group| &group.rows).enumerate().for_each(|(at, row)| order[*row as usize] = at as u32);
        let output = |(index, field): (usize, &Field)| -> ArrayRef {
            let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part[index].as_ref()).collect();
            if parts.is_empty() {
                return new_empty_array(field.data_type());
            }
            let joined = concat(&parts).expect("the outputs were checked against the model's definition");
            if groups.len() == 1 { joined } else { picked(&joined, &order) }
        };
        self.model.outputs.iter().enumerate().map(output).collect()
    }
}

/// Calls the model and checks what it gives; a panic of the model is an error like any other.
fn outputs_of(version: &Version, model: &ModelDef, arguments: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>> {
    let called = catch_unwind(AssertUnwindSafe(|| version.loaded.predict(arguments)));
    let outputs = called.unwrap_or_else(|panic| Err(Error::internal(format!("the model has panicked: {}", text_of(panic.as_ref())))))?;
    let fits = outputs.len() == model.outputs.len()
        && outputs.iter().zip(&model.outputs).all(|(output, field)| output.len() == rows && output.data_type() == field.data_type());
    if !fits {
        let found: Vec<String> = outputs.iter().map(|output| format!("{} of {}", output.len(), output.data_type())).collect();
        return Err(Error::internal(format!("model {} gave {} for {rows} rows", model.name, found.join(", "))));
    }
    Ok(outputs)
}

/// The type of a call's column.
fn output_type(call: &PredictCall, model: &ModelDef) -> DataType {
    match (call.output, model.outputs.as_slice()) {
        (PredictOutput::Version, _) => DataType::Int64,
        (PredictOutput::Score, [output]) => output.data_type().clone(),
        (PredictOutput::Score, outputs) => DataType::Struct(Fields::from(outputs.to_vec())),
    }
}

fn versions(groups: &[Group], rows: usize) -> ArrayRef {
    let mut numbers: Vec<Option<i64>> = vec![None; rows];
    for group in groups {
        let number = group.version.as_ref().map(|version| i64::from(version.number));
        group.rows.iter().for_each(|row| numbers[*row as usize] = number);
    }
    Arc::new(Int64Array::from(numbers))
}

fn nulls(model: &ModelDef, rows: usize) -> Vec<ArrayRef> {
    model.outputs.iter().map(|output| new_null_array(output.data_type(), rows)).collect()
}

fn picked(column: &ArrayRef, rows: &[u32]) -> ArrayRef {
    take(column, &UInt32Array::from(rows.to_vec()), None).expect("the rows are of this batch")
}
