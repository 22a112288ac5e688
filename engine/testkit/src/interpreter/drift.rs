//! What a drift monitor says at each instant d: from all rows that had come before d, counted from scratch (C8).

use freshet_core::{ControlRecord, DriftMethod, DriftSpec, Epoch, EventTime, Histogram, NodeId, PredictRoute, Value};

use crate::interpreter::evaluate::event_time_of;
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::Life;

impl Interpreter {
    /// The grid from the first row's arrival on, as far as time goes.
    pub(super) fn evaluations(&self, node: NodeId, spec: &DriftSpec) -> Vec<u64> {
        let lives = self.lives(self.plan.node(node).inputs[0]);
        let Some(first) = lives.iter().map(|life| life.entered.0).min() else { return Vec::new() };
        let grid = (first / spec.every_ms + 1..).map(|step| step * spec.every_ms);
        grid.take_while(|d| *d <= self.end().0 + 1).collect()
    }

    pub(super) fn lives_of_drift(&self, node: NodeId, spec: &DriftSpec) -> Vec<Life<Row>> {
        let mut found: Vec<Life<Row>> = Vec::new();
        let mut held = vec![0i128; spec.conditions.len()];
        for d in self.evaluations(node, spec) {
            for row in self.evaluation(node, spec, d, &mut held) {
                found.push(Life { row, position: 0, entered: Epoch(d - 1), left: None });
            }
        }
        found
    }

    /// `held` counts for each condition at how many evaluations before this one it held without a break.
    fn evaluation(&self, node: NodeId, spec: &DriftSpec, d: u64, held: &mut [i128]) -> Vec<Row> {
        let input = self.plan.node(node).inputs[0];
        let time_type = self.plan.node(input).schema.field(spec.time).data_type().clone();
        let (from, until) = (EventTime((d as i64 - spec.window_ms as i64) * 1_000_000), EventTime(d as i64 * 1_000_000));
        let lives = self.lives(input);
        let seen = lives.iter().filter(|life| life.is_seen_below(Epoch(d)));
        let rows: Vec<&Row> = seen
            .filter(|life| event_time_of(&life.row[spec.time], &time_type).is_some_and(|time| from <= time && time < until))
            .map(|life| &life.row)
            .collect();
        let live = self.version_at(spec.model, Epoch(d), PredictRoute::Live);
        let mut out = Vec::new();
        for ((column, name), is_score) in spec.columns.iter().zip(&spec.names).zip(&spec.scores) {
            let mut values: Vec<Option<f64>> = rows.iter().map(|row| number(&row[*column])).collect();
            // Without a score there is nothing to compare.
            values.retain(|value| value.is_some() || !is_score);
            for method in &spec.methods {
                let (value, state) = measured(spec, live, (name, *is_score), *method, &values);
                let mut row = vec![Value::Int(d.into()), Value::Text(name.clone()), Value::Text(method.sql().into())];
                row.push(value.map_or(Value::Null, Value::Float));
                row.extend(conditions(spec, (name, *method), value, held));
                row.push(Value::Text(state.into()));
                row.push(Value::Int(rows.len() as i128));
                row.push(live.map_or(Value::Null, |live| Value::Int(live.version.into())));
                out.push(row);
            }
        }
        out
    }
}

fn measured(
    spec: &DriftSpec,
    live: Option<&ControlRecord>,
    (name, is_score): (&str, bool),
    method: DriftMethod,
    values: &[Option<f64>],
) -> (Option<f64>, &'static str) {
    let reference = live.and_then(|live| live.reference.columns.get(name)).filter(|reference| reference.total() > 0);
    let Some(mut reference) = reference.cloned() else { return (None, "no_reference") };
    if is_score {
        reference.nulls = 0;
    }
    let reference = &reference;
    if (values.len() as u64) < spec.rows_min {
        return (None, "too_few_rows");
    }
    let numbers: Vec<f64> = values.iter().flatten().copied().collect();
    let of_method = |count: usize, numbers: usize| if method == DriftMethod::Psi { count } else { numbers };
    let (expected, found) = (reference.total() as usize, values.len());
    if of_method(expected, expected - reference.nulls as usize) == 0 {
        return (None, "no_reference");
    }
    if of_method(found, numbers.len()) == 0 {
        return (None, "too_few_rows");
    }
    let value = if method == DriftMethod::Psi { stability(reference, &numbers, found) } else { farthest(reference, &numbers) };
    (Some(value), "measured")
}

/// Bin by bin, the bin of NULLs last.
fn stability(reference: &Histogram, numbers: &[f64], rows: usize) -> f64 {
    let mut sum = 0.0;
    for bin in 0..=reference.counts.len() {
        let is_nulls = bin == reference.counts.len();
        let r = if is_nulls { reference.nulls } else { reference.counts[bin] };
        let c = if is_nulls { rows - numbers.len() } else { numbers.iter().filter(|number| bin_of(reference, **number) == bin).count() };
        let raised = |share: f64| if share < 1e-4 { 1e-4 } else { share };
        let (r, c) = (raised(r as f64 / reference.total() as f64), raised(c as f64 / rows as f64));
        sum += (c - r) * (c / r).ln();
    }
    sum
}

/// The greatest difference of the shares of numbers below an edge.
fn farthest(reference: &Histogram, numbers: &[f64]) -> f64 {
    let known = reference.total() - reference.nulls;
    let mut farthest = 0.0f64;
    for (index, edge) in reference.edges.iter().enumerate() {
        let r: u64 = reference.counts[..=index].iter().sum();
        let c = numbers.iter().filter(|number| *number < edge).count();
        farthest = farthest.max((r as f64 / known as f64 - c as f64 / numbers.len() as f64).abs());
    }
    farthest
}

/// How many edges are not above the number.
fn bin_of(reference: &Histogram, number: f64) -> usize {
    reference.edges.iter().filter(|edge| **edge <= number).count()
}

/// Threshold, exceeded, drifted.
fn conditions(spec: &DriftSpec, (name, method): (&str, DriftMethod), value: Option<f64>, held: &mut [i128]) -> [Value; 3] {
    let mut all = Vec::new();
    for (condition, held) in spec.conditions.iter().zip(held) {
        if spec.names[condition.column] != name || condition.method != method {
            continue;
        }
        let holds = match value {
            Some(value) if condition.inclusive => value >= condition.threshold,
            Some(value) => value > condition.threshold,
            None => false,
        };
        *held = if holds { *held + 1 } else { 0 };
        all.push((condition.threshold, *held, *held >= i128::from(condition.evaluations)));
    }
    match all.iter().find(|(_, _, fires)| *fires).or(all.first()) {
        Some((threshold, held, fires)) => [Value::Float(*threshold), Value::Int(*held), Value::Bool(*fires)],
        None => [Value::Null, Value::Int(0), Value::Bool(false)],
    }
}

/// NULL and NaN are no numbers.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Null => return None,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        other => unreachable!("the planner lets {other} not be measured"),
    };
    (!number.is_nan()).then_some(number)
}
