//! Expressions on one row (C4). In: one row of cells. Out: one cell, or the message of the row's error.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_core::{EventTime, Expr, ExprRef, Value};

/// One row as a batch. Cells of a column that is not nullable may be NULL after an error upstream, so nullability is not kept.
pub fn batch_of_row(schema: &SchemaRef, row: &[Value]) -> RecordBatch {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let columns = schema.fields().iter().zip(row).map(|(field, cell)| Value::column_of(field.data_type(), std::iter::once(cell)));
    let columns = columns.collect::<Result<_, _>>().expect("a row fits the schema of its node");
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).expect("one cell per column")
}

/// The value of an expression on a one-row batch.
pub fn evaluate(expr: &dyn Expr, row: &RecordBatch) -> Result<Value, String> {
    let values = expr.evaluate(row).map_err(|error| error.to_string())?;
    Value::of(&values, 0).map_err(|error| error.to_string())
}

/// What conjuncts say about a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Kept,
    Dropped,
    /// Index of the first conjunct that fails, and its message.
    Failed(usize, String),
}

/// C4: an error only if one conjunct fails and no other is false. One that is false decides, wherever it stands; one that is NULL does not, as
/// NULL AND an error is an error.
pub fn judge(conjuncts: &[ExprRef], row: &RecordBatch) -> Verdict {
    let results: Vec<Result<Value, String>> = conjuncts.iter().map(|conjunct| evaluate(conjunct.as_ref(), row)).collect();
    if results.iter().flatten().any(|value| *value == Value::Bool(false)) {
        return Verdict::Dropped;
    }
    let kept = results.iter().flatten().all(|value| *value == Value::Bool(true));
    match results.into_iter().enumerate().find_map(|(index, result)| Some((index, result.err()?))) {
        Some((index, message)) => Verdict::Failed(index, message),
        None if kept => Verdict::Kept,
        None => Verdict::Dropped,
    }
}

/// A cell of a time column on the axis of event time; None where it is NULL.
pub fn event_time_of(value: &Value, data_type: &DataType) -> Option<EventTime> {
    let Value::Int(value) = value else { return None };
    let ns_per_unit: i128 = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        DataType::Date32 => 86_400_000_000_000,
        other => unreachable!("the planner lets no column of type {other} be a time"),
    };
    let ns = value.saturating_mul(ns_per_unit).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Some(EventTime(ns as i64))
}
