//! One aggregate over one set of values, from scratch (T17, T19, T20, T21). In: the values of the rows that count. Out: a value.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use freshet_core::{AggregateFunction, Error, ExactSum, Result, Value, add_square, variance};

/// The aggregate's value. `rows` is how many rows count; `arguments` are their arguments, in any order (none for count(*)).
/// Errors: Data where a sum does not fit `output`.
pub fn aggregate(function: AggregateFunction, rows: usize, arguments: Option<&[Value]>, distinct: bool, output: &DataType) -> Result<Value> {
    let Some(arguments) = arguments else {
        assert_eq!(function, AggregateFunction::Count, "only count works without an argument");
        return Ok(int(rows));
    };
    let mut values: Vec<&Value> = arguments.iter().filter(|value| !value.is_null()).collect();
    if distinct {
        values = values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    }
    if function == AggregateFunction::Count {
        return Ok(int(values.len()));
    }
    if values.is_empty() {
        return Ok(Value::Null);
    }
    let holds = |value: &&Value| **value == Value::Bool(true);
    Ok(match function {
        AggregateFunction::Count => int(values.len()),
        AggregateFunction::Sum => return sum(&values, output),
        AggregateFunction::Avg => Value::Float(exact_sum(&values).mean(values.len() as i64)),
        AggregateFunction::Min => values.into_iter().min().cloned().unwrap_or(Value::Null),
        AggregateFunction::Max => values.into_iter().max().cloned().unwrap_or(Value::Null),
        AggregateFunction::VarSamp => spread(&values, 1, |variance| variance),
        AggregateFunction::VarPop => spread(&values, 0, |variance| variance),
        AggregateFunction::StddevSamp => spread(&values, 1, f64::sqrt),
        AggregateFunction::StddevPop => spread(&values, 0, f64::sqrt),
        AggregateFunction::BoolAnd => Value::Bool(values.iter().all(holds)),
        AggregateFunction::BoolOr => Value::Bool(values.iter().any(holds)),
        AggregateFunction::Auc => unreachable!("auc has a function of its own"),
    })
}

/// The area under the ROC curve: over all pairs of a true and a false row, 1 where the true one scores higher and half where they tie.
/// `rows` are scores and labels; a row with a NULL of either does not count.
pub fn auc(rows: &[(Value, Value)]) -> Value {
    let scores = |label: bool| -> Vec<f64> {
        let of_label = rows.iter().filter(|row| row.1 == Value::Bool(label) && !row.0.is_null());
        of_label.map(|row| float(&row.0)).collect()
    };
    let (trues, falses) = (scores(true), scores(false));
    if trues.is_empty() || falses.is_empty() {
        return Value::Null;
    }
    let mut halves = 0u64;
    for high in &trues {
        for low in &falses {
            halves += match (high.is_nan(), low.is_nan()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, true) => 0,
                (false, false) => u64::from(high >= low) + u64::from(high > low),
            };
        }
    }
    Value::Float(halves as f64 / (2 * trues.len() * falses.len()) as f64)
}

/// The type of an aggregate before any expression over it, as core's plan says.
pub fn aggregate_type(function: AggregateFunction, argument: Option<&DataType>) -> DataType {
    match (function, argument) {
        (AggregateFunction::Count, _) => DataType::Int64,
        (AggregateFunction::BoolAnd | AggregateFunction::BoolOr, _) => DataType::Boolean,
        (AggregateFunction::Min | AggregateFunction::Max, Some(argument)) => argument.clone(),
        (AggregateFunction::Sum, Some(argument)) if argument.is_unsigned_integer() => DataType::UInt64,
        (AggregateFunction::Sum, Some(argument)) if argument.is_signed_integer() => DataType::Int64,
        _ => DataType::Float64,
    }
}

fn int(count: usize) -> Value {
    Value::Int(count as i128)
}

fn sum(values: &[&Value], output: &DataType) -> Result<Value> {
    let ints: Option<Vec<i128>> = values
        .iter()
        .map(|value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })
        .collect();
    let Some(ints) = ints else { return Ok(Value::Float(exact_sum(values).value())) };
    let total: i128 = ints.iter().sum();
    let fits = match output {
        DataType::UInt64 => u64::try_from(total).is_ok(),
        _ => i64::try_from(total).is_ok(),
    };
    if fits { Ok(Value::Int(total)) } else { Err(Error::data(format!("sum {total} is out of range of {output}"))) }
}

fn exact_sum(values: &[&Value]) -> ExactSum {
    let mut sum = ExactSum::default();
    values.iter().for_each(|value| sum.add(float(value), 1));
    sum
}

fn spread(values: &[&Value], ddof: i64, finish: impl Fn(f64) -> f64) -> Value {
    let mut squares = ExactSum::default();
    values.iter().for_each(|value| add_square(&mut squares, float(value), 1));
    variance(values.len() as i64, &exact_sum(values), &squares, ddof).map_or(Value::Null, |variance| Value::Float(finish(variance)))
}

/// Integers become floats one by one, as SQL's avg casts its argument.
fn float(value: &Value) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        other => unreachable!("the planner lets no sum be taken over {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_of_a_known_curve() {
        let rows = |rows: &[(f64, bool)]| rows.iter().map(|(score, label)| (Value::Float(*score), Value::Bool(*label))).collect::<Vec<_>>();
        let four = rows(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]);
        assert_eq!(auc(&four), Value::Float(0.75));
        assert_eq!(auc(&rows(&[(0.5, false), (0.5, true)])), Value::Float(0.5));
        assert_eq!(auc(&rows(&[(0.5, true), (f64::NAN, true)])), Value::Null);
        let nulls = [four, vec![(Value::Null, Value::Bool(true)), (Value::Float(0.0), Value::Null)]].concat();
        assert_eq!(auc(&nulls), Value::Float(0.75));
    }
}
