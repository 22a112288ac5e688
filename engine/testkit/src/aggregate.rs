//! One aggregate over one set of values, from scratch (T17, T19, T20, T21, T24). In: the rows that count. Out: a value.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, i256};
use freshet_core::{
    AggregateCall, AggregateFunction, AggregateParameter, DISTINCT_EXACT_MAX, Error, ExactSum, PairMoments, Result, SortKey, Value, add_square,
    distinct_estimate, distinct_hash, percentile_bucket, percentile_value, register_and_rank, register_share, variance,
};

/// What a call answers over the rows of its group, in any order. `arrived` are the values of a sequence without an order, as they came.
/// Errors: Data where a result does not fit its type.
pub fn call(
    call: &AggregateCall,
    rows: &[&Vec<Value>],
    arrived: Option<&[Value]>,
    (argument_type, output): (Option<&DataType>, &DataType),
) -> Result<Value> {
    let counted: Vec<&Vec<Value>> = rows.iter().copied().filter(|row| counts(call, row)).collect();
    let arguments: Option<Vec<Value>> = call.argument.map(|argument| counted.iter().map(|row| row[argument].clone()).collect());
    if call.function.is_of_sequences() {
        let values = match arrived {
            Some(arrived) => arrived.to_vec(),
            None => in_order(call, &counted),
        };
        return Ok(sequence(call, values));
    }
    if let (Some(first), Some(second)) = (call.argument, call.second) {
        let pairs: Vec<(Value, Value)> = counted.iter().map(|row| (row[first].clone(), row[second].clone())).collect();
        return Ok(match call.function {
            AggregateFunction::Auc => auc(&pairs),
            AggregateFunction::ApproxPercentile => weighted(&pairs, fraction(call), output),
            function => of_pairs(function, &pairs),
        });
    }
    let mut values: Vec<Value> = arguments.iter().flatten().filter(|value| !value.is_null()).cloned().collect();
    if call.distinct {
        values = values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    }
    match call.function {
        AggregateFunction::ApproxDistinct => return Ok(about_distinct(&values)),
        _ if values.is_empty() => {}
        AggregateFunction::PercentileCont => return Ok(percentile(values, fraction(call))),
        AggregateFunction::ApproxPercentile => {
            values.sort();
            let value = &values[(fraction(call) * (values.len() - 1) as f64).floor() as usize];
            return Ok(bucketed(percentile_bucket(float(value)), output));
        }
        AggregateFunction::BitAnd => return Ok(bits(&values, output, |left, right| left & right)),
        AggregateFunction::BitOr => return Ok(bits(&values, output, |left, right| left | right)),
        AggregateFunction::BitXor => return Ok(bits(&values, output, |left, right| left ^ right)),
        AggregateFunction::Sum | AggregateFunction::Avg if matches!(argument_type, Some(DataType::Decimal128(_, _))) => {
            return decimal(call.function, &values, argument_type, output);
        }
        _ => {}
    }
    if matches!(call.function, AggregateFunction::PercentileCont | AggregateFunction::ApproxPercentile)
        || matches!(call.function, AggregateFunction::BitAnd | AggregateFunction::BitOr | AggregateFunction::BitXor)
    {
        return Ok(Value::Null);
    }
    aggregate(call.function, counted.len(), arguments.as_deref(), call.distinct, output)
}

/// Whether a row reaches the call.
pub fn counts(call: &AggregateCall, row: &[Value]) -> bool {
    let skips_nulls = call.function.is_of_sequences() && (call.ignore_nulls || call.function == AggregateFunction::StringAgg);
    call.filter.is_none_or(|filter| row[filter] == Value::Bool(true)) && !(skips_nulls && call.argument.is_some_and(|column| row[column].is_null()))
}

fn fraction(call: &AggregateCall) -> f64 {
    match &call.parameter {
        Some(AggregateParameter::Fraction(fraction)) => fraction.get(),
        other => unreachable!("the planner gives a fraction, not {other:?}"),
    }
}

/// The values by ORDER BY, then by themselves, NULLs last.
fn in_order(call: &AggregateCall, rows: &[&Vec<Value>]) -> Vec<Value> {
    let argument = call.argument.expect("a sequence has an argument");
    let by_itself = SortKey { column: argument, descending: false, nulls_first: false };
    let keys: Vec<SortKey> = call.order_by.iter().copied().chain([by_itself]).collect();
    let order = |left: &&Vec<Value>, right: &&Vec<Value>| {
        let of_key = |key: &SortKey| {
            let (left, right) = (&left[key.column], &right[key.column]);
            match (left.is_null(), right.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) if key.nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if key.nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) if key.descending => right.cmp(left),
                (false, false) => left.cmp(right),
            }
        };
        keys.iter().map(of_key).find(|ordering| *ordering != Ordering::Equal).unwrap_or(Ordering::Equal)
    };
    let mut sorted = rows.to_vec();
    sorted.sort_by(order);
    if call.distinct {
        sorted.dedup_by(|left, right| order(left, right) == Ordering::Equal);
    }
    sorted.into_iter().map(|row| row[argument].clone()).collect()
}

fn sequence(call: &AggregateCall, values: Vec<Value>) -> Value {
    let found = match (call.function, &call.parameter) {
        (AggregateFunction::FirstValue, _) => values.first(),
        (AggregateFunction::LastValue, _) => values.last(),
        (AggregateFunction::NthValue, Some(AggregateParameter::Index(index))) if *index > 0 => values.get(*index as usize - 1),
        (AggregateFunction::NthValue, Some(AggregateParameter::Index(index))) => {
            values.len().checked_sub(index.unsigned_abs() as usize).and_then(|place| values.get(place))
        }
        _ if values.is_empty() => None,
        (AggregateFunction::StringAgg, Some(AggregateParameter::Text(separator))) => {
            return Value::Text(values.iter().map(Value::to_string).collect::<Vec<_>>().join(separator));
        }
        _ => return Value::List(values),
    };
    found.cloned().unwrap_or(Value::Null)
}

fn of_pairs(function: AggregateFunction, pairs: &[(Value, Value)]) -> Value {
    let mut moments = PairMoments::default();
    for (y, x) in pairs.iter().filter(|(y, x)| !y.is_null() && !x.is_null()) {
        moments.add(float(y), float(x), 1);
    }
    match function {
        AggregateFunction::RegrCount => Value::Int(moments.count.into()),
        function => moments.value(function).map_or(Value::Null, Value::Float),
    }
}

fn percentile(mut values: Vec<Value>, fraction: f64) -> Value {
    values.sort();
    let place = fraction * (values.len() - 1) as f64;
    let (low, high, share) = (&values[place.floor() as usize], &values[place.ceil() as usize], place.fract());
    match (low, high) {
        _ if share == 0.0 => low.clone(),
        (Value::Int(low), Value::Int(high)) => {
            Value::Int(i256::from_i128(*low).wrapping_add(i256::from_i128(*high)).wrapping_div(i256::from_i128(2)).as_i128())
        }
        _ if low == high => low.clone(),
        _ => {
            let (low, high) = (float(low), float(high));
            let far = (high - low).is_infinite() && low.is_finite() && high.is_finite();
            Value::Float(if far { low * (1.0 - share) + high * share } else { low + (high - low) * share })
        }
    }
}

fn bucketed(bucket: i32, output: &DataType) -> Value {
    let value = percentile_value(bucket);
    match output {
        DataType::Float32 | DataType::Float64 => Value::Float(value),
        DataType::Decimal128(_, scale) => Value::Int((value * 10f64.powi(i32::from(*scale))).round() as i128),
        _ => Value::Int(value.round() as i128),
    }
}

/// The first bucket with at least this fraction of the weight below and in it.
fn weighted(pairs: &[(Value, Value)], fraction: f64, output: &DataType) -> Value {
    let mut buckets: BTreeMap<i32, ExactSum> = BTreeMap::new();
    let mut total = ExactSum::default();
    for (value, weight) in pairs.iter().filter(|(value, weight)| !value.is_null() && !weight.is_null() && float(weight) > 0.0) {
        buckets.entry(percentile_bucket(float(value))).or_default().add(float(weight), 1);
        total.add(float(weight), 1);
    }
    let mut below = ExactSum::default();
    for (bucket, weight) in &buckets {
        below.merge(weight);
        if below.value() >= fraction * total.value() {
            return bucketed(*bucket, output);
        }
    }
    buckets.last_key_value().map_or(Value::Null, |(bucket, _)| bucketed(*bucket, output))
}

fn about_distinct(values: &[Value]) -> Value {
    let distinct: BTreeSet<&Value> = values.iter().collect();
    if distinct.len() <= DISTINCT_EXACT_MAX {
        return int(distinct.len());
    }
    let mut greatest: BTreeMap<u16, u8> = BTreeMap::new();
    for value in distinct {
        let (register, rank) = register_and_rank(distinct_hash(value));
        let known = greatest.entry(register).or_default();
        *known = rank.max(*known);
    }
    Value::Int(distinct_estimate(greatest.len(), greatest.values().map(|rank| register_share(*rank)).sum()).into())
}

fn bits(values: &[Value], output: &DataType, join: impl Fn(u64, u64) -> u64) -> Value {
    let words = values.iter().map(|value| match value {
        Value::Int(value) => *value as u64,
        other => unreachable!("the planner lets no bits be taken of {other}"),
    });
    let joined = words.reduce(join).unwrap_or_default();
    Value::Int(if output.is_unsigned_integer() { joined.into() } else { (joined as i64).into() })
}

fn decimal(function: AggregateFunction, values: &[Value], argument: Option<&DataType>, output: &DataType) -> Result<Value> {
    let (Some(DataType::Decimal128(_, from)), DataType::Decimal128(precision, to)) = (argument, output) else {
        unreachable!("the planner lets the result of a decimal be one")
    };
    let mut total = i256::ZERO;
    for value in values {
        let Value::Int(value) = value else { unreachable!("a decimal is an integer") };
        total = total.wrapping_add(i256::from_i128(*value));
    }
    if function == AggregateFunction::Avg {
        total = total.wrapping_mul(i256::from_i128(10i128.pow((to - from) as u32))).wrapping_div(i256::from_i128(values.len() as i128));
    }
    match total.to_i128() {
        Some(fitting) if fitting.to_string().trim_start_matches('-').len() <= usize::from(*precision) => Ok(Value::Int(fitting)),
        _ => Err(Error::data(format!("{} is out of range of {output}", function.sql()))),
    }
}

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
        other => unreachable!("{} has a function of its own", other.sql()),
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
