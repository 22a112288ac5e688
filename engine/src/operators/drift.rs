//! A drift monitor. In: changes, all to one worker. Out: at each instant d of the grid one row per column and method, with epoch d − 1:
//! the rows with arrivals below d and times in [d − window, d), compared with the version live at d. Nothing is ever retracted (C8).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use freshet_core::{Batch, Counts, Diffs, DriftMethod, DriftSpec, Epoch, Error, EventTime, PredictRoute, Result, Value, event_times};

use crate::bridge::{Routes, Version};
use crate::drift::{DriftWindow, ks, psi};
use crate::operators::{Output, Stateful, StepOperator};
use crate::state::{Bytes, put_u64};

/// The operator and its window.
pub struct Drift {
    spec: DriftSpec,
    routes: Arc<Routes>,
    window: DriftWindow,
    /// The next evaluation; None before the first input.
    next: Option<u64>,
    /// Per condition: at how many evaluations in a row it has held.
    exceeded: Vec<u64>,
    changed: bool,
}

/// Evaluations of a step: cells of the output, row by row, and their epochs.
#[derive(Default)]
struct Rows {
    cells: Vec<Vec<Value>>,
    epochs: Vec<u64>,
}

/// What came of one column and method.
enum Measured {
    Value(f64),
    NoReference,
    TooFewRows,
}

/// The columns of a batch that a monitor looks at.
struct Measures {
    times: Vec<Option<EventTime>>,
    columns: Vec<Float64Array>,
}

impl Drift {
    /// `input` is the schema of the rows. Errors: Internal for a column that is neither an integer, a float nor BOOLEAN, or a window that is not a
    /// multiple of the grid.
    pub fn new(name: &str, spec: DriftSpec, input: &SchemaRef, routes: Arc<Routes>) -> Result<Drift> {
        for column in &spec.columns {
            let data_type = input.field(*column).data_type();
            if !(data_type.is_integer() || data_type.is_floating() || *data_type == DataType::Boolean) {
                return Err(Error::internal(format!("{name}: column {} is {data_type}, a monitor measures numbers", input.field(*column).name())));
            }
        }
        if spec.every_ms == 0 || !spec.window_ms.is_multiple_of(spec.every_ms) {
            return Err(Error::internal(format!("{name}: a window of {} ms is no multiple of {} ms", spec.window_ms, spec.every_ms)));
        }
        let window = DriftWindow::new(spec.names.clone(), spec.every_ms, spec.window_ms);
        Ok(Drift { exceeded: vec![0; spec.conditions.len()], spec, routes, window, next: None, changed: false })
    }

    fn absorb(&mut self, batches: &[Batch], out: &mut Rows) {
        let measures: Vec<Measures> = batches.iter().map(|batch| self.measures(batch)).collect();
        let mut order: Vec<(u64, u32, u32)> = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, index as u32, row as u32)));
        }
        order.sort_unstable();
        for rows in order.chunk_by(|a, b| a.0 == b.0) {
            let epoch = rows[0].0;
            self.evaluate_until(epoch, out);
            let next = (epoch / self.spec.every_ms + 1) * self.spec.every_ms;
            let mut inserted = 0;
            for (_, batch, row) in rows {
                let (batch, row) = (*batch as usize, *row as usize);
                let diff = batches[batch].diff(row);
                inserted += diff;
                if let Some(time) = measures[batch].times[row] {
                    let values = measures[batch].columns.iter().map(|column| column.is_valid(row).then(|| column.value(row)));
                    self.window.change(time, values, diff, next);
                }
            }
            // Rows that left in the epoch they came in were never there.
            if self.next.is_none() && inserted > 0 {
                self.next = Some(next);
            }
        }
        self.changed |= !order.is_empty();
    }

    fn measures(&self, batch: &Batch) -> Measures {
        let float = |column: &usize| -> Float64Array {
            let column: &ArrayRef = batch.column(*column);
            cast(column, &DataType::Float64).expect("only numbers and BOOLEAN are measured").as_primitive::<Float64Type>().clone()
        };
        let times = event_times(batch.column(self.spec.time)).expect("the planner lets only times be TIME");
        Measures { times, columns: self.spec.columns.iter().map(float).collect() }
    }

    /// All evaluations at d ≤ `last`: what they see has epochs below d.
    fn evaluate_until(&mut self, last: u64, out: &mut Rows) {
        while let Some(d) = self.next.filter(|d| *d <= last) {
            self.window.advance(d);
            self.evaluate(d, out);
            self.next = d.checked_add(self.spec.every_ms);
            self.changed = true;
        }
    }

    fn evaluate(&mut self, d: u64, out: &mut Rows) {
        let live = self.routes.at(self.spec.model, Epoch(d), PredictRoute::Live);
        let methods = self.spec.methods.clone();
        for column in 0..self.spec.columns.len() {
            for method in &methods {
                let measured = self.measure(live.as_deref(), column, *method);
                let cells = self.judge(d, (column, *method), measured, live.as_deref());
                out.cells.push(cells);
                out.epochs.push(d - 1);
            }
        }
    }

    fn measure(&mut self, live: Option<&Version>, column: usize, method: DriftMethod) -> Measured {
        let Some(version) = live else { return Measured::NoReference };
        let Some(current) = self.window.histogram(&version.reference, column) else { return Measured::NoReference };
        let (mut current, mut reference) = (current.clone(), version.reference.columns[&self.spec.names[column]].clone());
        if self.spec.scores[column] {
            (current.nulls, reference.nulls) = (0, 0);
        }
        if current.total() < self.spec.rows_min {
            return Measured::TooFewRows;
        }
        let value = match method {
            DriftMethod::Psi => psi(&reference, &current),
            DriftMethod::Ks => ks(&reference, &current),
        };
        match value {
            Some(value) => Measured::Value(value),
            // Numbers are missing on one side, all of them.
            None if reference.total() == reference.nulls => Measured::NoReference,
            None => Measured::TooFewRows,
        }
    }

    /// One output row; moves the counters of the conditions on this column and method.
    fn judge(&mut self, d: u64, (column, method): (usize, DriftMethod), measured: Measured, live: Option<&Version>) -> Vec<Value> {
        let (value, state) = match measured {
            Measured::Value(value) => (Some(value), "measured"),
            Measured::NoReference => (None, "no_reference"),
            Measured::TooFewRows => (None, "too_few_rows"),
        };
        let mut shown: Option<(f64, u64, bool)> = None;
        for (condition, exceeded) in self.spec.conditions.iter().zip(&mut self.exceeded) {
            if (condition.column, condition.method) != (column, method) {
                continue;
            }
            let holds = value.is_some_and(|value| value > condition.threshold || condition.inclusive && value == condition.threshold);
            *exceeded = if holds { *exceeded + 1 } else { 0 };
            let fires = *exceeded >= u64::from(condition.evaluations.max(1));
            // Of several conditions the row shows the first that fires, else the first.
            if shown.is_none_or(|shown| fires && !shown.2) {
                shown = Some((condition.threshold, *exceeded, fires));
            }
        }
        let (exceeded, drifted) = shown.map_or((0, false), |shown| (shown.1, shown.2));
        vec![
            Value::Int(d.into()),
            Value::Text(self.spec.names[column].clone()),
            Value::Text(method.sql().into()),
            value.map_or(Value::Null, Value::Float),
            shown.map_or(Value::Null, |shown| Value::Float(shown.0)),
            Value::Int(exceeded.into()),
            Value::Bool(drifted),
            Value::Text(state.into()),
            Value::Int(self.window.rows().into()),
            live.map_or(Value::Null, |version| Value::Int(version.number.into())),
        ]
    }
}

impl StepOperator for Drift {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let mut rows = Rows::default();
        self.absorb(&std::mem::take(&mut inputs[0]), &mut rows);
        self.evaluate_until(upto.next().0, &mut rows);
        if !rows.epochs.is_empty() {
            let batch = Value::batch_of(&DriftSpec::schema(), &rows.cells).expect("these are cells of the monitor's schema");
            out.rows.push(Batch::new(batch, Counts::Each(rows.epochs.into()), Diffs::One, Counts::Const(0)));
        }
    }
}

impl Stateful for Drift {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let mut out = Vec::new();
        // 0 is no grid point that is evaluated: the first one lies after an epoch.
        put_u64(&mut out, self.next.unwrap_or(0));
        self.exceeded.iter().for_each(|count| put_u64(&mut out, *count));
        self.window.put(&mut out);
        vec![(0, out)]
    }

    fn restore(&mut self, _shard: usize, bytes: &[u8]) -> Result<()> {
        let mut bytes = Bytes(bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        self.next = Some(bytes.u64()?).filter(|next| *next > 0);
        for count in &mut self.exceeded {
            *count = bytes.u64()?;
        }
        self.window.take(&mut bytes)
    }

    fn size(&self) -> (u64, u64) {
        self.window.size()
    }
}
