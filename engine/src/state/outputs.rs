//! What accumulators answer where it takes more than reading a number. In: their state. Out: a value, or why there is none (T21).

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, i256};
use freshet_core::{Error, ExactSum, Result, Value, percentile_value};

use crate::state::Counted;

/// A sum of decimals, in the scale of the argument, which is that of the sum.
pub fn decimal_sum(sum: i256, data_type: &DataType) -> Result<Value> {
    fit(sum, "sum", data_type)
}

/// A mean of decimals, truncated to the scale of its type.
pub fn decimal_mean(sum: i256, count: i64, argument: Option<&DataType>, data_type: &DataType) -> Result<Value> {
    let (Some(DataType::Decimal128(_, from)), DataType::Decimal128(_, to)) = (argument, data_type) else {
        return Err(Error::internal(format!("the mean of a decimal is a decimal, not {data_type}")));
    };
    let factor = i256::from_i128(10i128.pow((*to - *from).max(0) as u32));
    let scaled = sum.checked_mul(factor).ok_or_else(|| Error::data(format!("avg is out of range of {data_type}")))?;
    fit(scaled.wrapping_div(i256::from_i128(count.into())), "avg", data_type)
}

fn fit(value: i256, what: &str, data_type: &DataType) -> Result<Value> {
    let DataType::Decimal128(precision, _) = data_type else { return Err(Error::internal(format!("the {what} of a decimal is a decimal"))) };
    let limit = i256::from_i128(10).wrapping_pow(u32::from(*precision));
    match value.to_i128() {
        Some(fitting) if value < limit && value > limit.wrapping_neg() => Ok(Value::Int(fitting)),
        _ => Err(Error::data(format!("{what} is out of range of {data_type}"))),
    }
}

/// The value at this fraction of the ordered values, between two neighbours if it must be.
pub fn percentile(values: &Counted<Value>, fraction: f64) -> Value {
    let last = values.rows() - 1;
    if last < 0 {
        return Value::Null;
    }
    let place = fraction * last as f64;
    let at = |rank: f64| values.nth((rank as i64).min(last));
    match (at(place.floor()), at(place.ceil())) {
        (Some(Value::Float(low)), Some(Value::Float(high))) => Value::Float(between(*low, *high, place - place.floor())),
        (Some(Value::Int(low)), Some(Value::Int(high))) if place.fract() == 0.5 => {
            Value::Int(i256::from_i128(*low).wrapping_add(i256::from_i128(*high)).wrapping_div(i256::from_i128(2)).as_i128())
        }
        (Some(low), _) => low.clone(),
        (None, _) => Value::Null,
    }
}

fn between(low: f64, high: f64, share: f64) -> f64 {
    if low.to_bits() == high.to_bits() || share == 0.0 {
        return low;
    }
    let distance = high - low;
    // Two finite values may be further apart than any double.
    if distance.is_infinite() && low.is_finite() && high.is_finite() { low * (1.0 - share) + high * share } else { low + distance * share }
}

/// The bucket of the row at this fraction, without looking between rows.
pub fn sketched_percentile(buckets: &Counted<i32>, fraction: f64, data_type: &DataType) -> Value {
    let last = buckets.rows() - 1;
    let rank = if last < 0 { return Value::Null } else { (fraction * last as f64).floor() as i64 };
    buckets.nth(rank.min(last)).map_or(Value::Null, |bucket| number(percentile_value(*bucket), data_type))
}

/// The first bucket up to which at least this fraction of the weight lies. Looks at every bucket: at most about 75,000, a few hundred
/// where values span six decimal places.
pub fn weighted_percentile(buckets: &BTreeMap<i32, ExactSum>, fraction: f64, data_type: &DataType) -> Value {
    let mut total = ExactSum::default();
    buckets.values().for_each(|weight| total.merge(weight));
    let wanted = fraction * total.value();
    let mut sum = ExactSum::default();
    let found = buckets.iter().find(|(_, weight)| {
        sum.merge(weight);
        sum.value() >= wanted
    });
    found.or(buckets.last_key_value()).map_or(Value::Null, |(bucket, _)| number(percentile_value(*bucket), data_type))
}

/// In the type of the argument; integers and decimals as the nearest one.
fn number(value: f64, data_type: &DataType) -> Value {
    match data_type {
        DataType::Float64 | DataType::Float32 => Value::Float(value),
        DataType::Decimal128(_, scale) => Value::Int((value * 10f64.powi((*scale).into())).round() as i128),
        _ => Value::Int(value.round() as i128),
    }
}
