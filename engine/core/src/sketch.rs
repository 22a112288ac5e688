//! The rules of approximate aggregates (T24): which bucket a value falls into and what a bucket answers; which register a hash falls into
//! and what registers answer. Pure functions of values, so sketches made of them are linear: what was added can be taken out.

use crate::Value;

/// The relative error of approx_percentile.
pub const PERCENTILE_ERROR: f64 = 0.01;
/// Up to this many values approx_distinct is exact.
pub const DISTINCT_EXACT_MAX: usize = 256;
/// Registers of approx_distinct: a standard error of 1.04 / √4096 = 1.6 %.
pub const REGISTERS: usize = 4096;

/// The ratio of the edges of a bucket.
const GAMMA: f64 = (1.0 + PERCENTILE_ERROR) / (1.0 - PERCENTILE_ERROR);
/// Between the buckets of the least positive double (about −37,200) and of 0; further out lie infinity and NaN.
const OFFSET: i32 = 40_000;
const INFINITE: i32 = 100_000;

/// The bucket of a value; buckets are in the order of values, NaN greatest (T20).
pub fn percentile_bucket(value: f64) -> i32 {
    if value.is_nan() {
        return INFINITE + 1;
    }
    let magnitude = match value.abs() {
        0.0 => 0,
        f64::INFINITY => INFINITE,
        finite => OFFSET + (finite.ln() / GAMMA.ln()).ceil() as i32,
    };
    if value < 0.0 { -magnitude } else { magnitude }
}

/// What is answered for a bucket: within 1 % of every value in it.
pub fn percentile_value(bucket: i32) -> f64 {
    let magnitude = match bucket.abs() {
        0 => 0.0,
        INFINITE => f64::INFINITY,
        beyond if beyond > INFINITE => return f64::NAN,
        finite => {
            let upper = (f64::from(finite - OFFSET) * GAMMA.ln()).exp();
            (upper * (2.0 / (GAMMA + 1.0))).clamp(f64::MIN_POSITIVE / (1u64 << 52) as f64, f64::MAX)
        }
    };
    if bucket < 0 { -magnitude } else { magnitude }
}

/// Register and rank of a hash.
pub fn register_and_rank(hash: u64) -> (u16, u8) {
    let register = (hash >> 52) as u16;
    // The 52 bits below, with a guard so that the rank is at most 53.
    let rank = ((hash << 12) | (1 << 11)).leading_zeros() as u8 + 1;
    (register, rank)
}

/// What a register whose greatest rank this is adds to the sum that [`distinct_estimate`] takes.
pub fn register_share(rank: u8) -> u128 {
    1 << (64 - rank)
}

/// How many values stand behind this many registers in use and the sum of their shares (HyperLogLog, with linear counting where many
/// registers are empty).
pub fn distinct_estimate(used: usize, shares: u128) -> u64 {
    let m = REGISTERS as f64;
    let empty = (REGISTERS - used) as f64;
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / (shares as f64 / 2f64.powi(64) + empty);
    let estimate = if raw <= 2.5 * m && empty > 0.0 { m * (m / empty).ln() } else { raw };
    estimate.round() as u64
}

/// The hash by which approx_distinct knows a value; every NaN is the same.
pub fn distinct_hash(value: &Value) -> u64 {
    let mut bytes = Vec::with_capacity(24);
    put(value, &mut bytes);
    crate::hash_bytes(&bytes)
}

fn put(value: &Value, out: &mut Vec<u8>) {
    fn list<'a>(values: impl ExactSizeIterator<Item = &'a Value>, out: &mut Vec<u8>) {
        out.extend((values.len() as u64).to_le_bytes());
        values.for_each(|value| put(value, out));
    }
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        Value::Int(value) => out.extend(value.to_le_bytes()),
        Value::Float(value) => out.extend(if value.is_nan() { f64::NAN } else { *value }.to_bits().to_le_bytes()),
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::Interval(value) => {
            out.extend(value.months.to_le_bytes());
            out.extend(value.days.to_le_bytes());
            out.extend(value.nanoseconds.to_le_bytes());
        }
        Value::List(values) | Value::Struct(values) => {
            list(values.iter(), out);
        }
        Value::Map(entries) => {
            entries.iter().for_each(|(key, value)| list([key, value].into_iter(), out));
        }
    }
    if let Value::Text(_) | Value::Bytes(_) = value {
        out.push(0xff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t24_a_bucket_answers_within_one_percent() {
        let mut value = f64::MIN_POSITIVE;
        while value < f64::MAX / 2.0 {
            for signed in [value, -value] {
                let found = percentile_value(percentile_bucket(signed));
                assert!((found - signed).abs() <= 0.010_000_1 * value, "{signed}: {found}");
            }
            value *= 1.37;
        }
        for exact in [0.0, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(percentile_value(percentile_bucket(exact)), exact);
        }
        assert!(percentile_value(percentile_bucket(f64::NAN)).is_nan());
        assert!(percentile_value(percentile_bucket(5e-324)) > 0.0);
        let ordered = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 1e300, f64::INFINITY, f64::NAN];
        assert!(ordered.windows(2).all(|pair| percentile_bucket(pair[0]) < percentile_bucket(pair[1])));
    }

    #[test]
    fn t24_an_estimate_is_within_a_few_percent() {
        for count in [300u64, 3_000, 30_000, 300_000] {
            let mut registers = vec![0u8; REGISTERS];
            for value in 0..count {
                let (register, rank) = register_and_rank(distinct_hash(&Value::Int(value.into())));
                registers[register as usize] = registers[register as usize].max(rank);
            }
            registers.retain(|rank| *rank > 0);
            let found = distinct_estimate(registers.len(), registers.iter().map(|rank| register_share(*rank)).sum()) as f64;
            assert!((found / count as f64 - 1.0).abs() < 0.06, "{count}: {found}");
        }
    }
}
