//! Float sums that are the correctly rounded true sum, whatever the order, the batching or the retractions (T19, T20).
//!
//! Adaptive fixed point: while the values of a sum span few enough bits it is one 128-bit integer and a scale; beyond that it is a
//! superaccumulator over the whole range of f64 (Kulisch; see also Neal, "Fast exact summation using small and large
//! superaccumulators", 2015). NaN, infinities and −0.0 are counted, so that retracting one restores the earlier result.

const LIMBS: usize = 70;
/// Exponent of the lowest bit of the wide form: the smallest subnormal.
const LOWEST: i32 = -1074;

/// An exact sum of f64 values with multiplicities. Adding a value with multiplicity −1 undoes adding it.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    finite: Finite,
    /// Finite summands that are not −0.0: an exact zero of only −0.0 is −0.0.
    others: i64,
    special: Option<Box<Special>>,
}

#[derive(Debug, Clone)]
enum Finite {
    /// sum · 2^scale
    Fixed { sum: i128, scale: i32 },
    /// Σ limb[i] · 2^(32 i + LOWEST), limbs carried after every addition.
    Wide(Box<[i64; LIMBS]>),
}

impl Default for Finite {
    fn default() -> Finite {
        Finite::Fixed { sum: 0, scale: 0 }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Special {
    nan: i64,
    infinite: i64,
    negative_infinite: i64,
    negative_zero: i64,
}

impl ExactSum {
    /// Adds `value` `times` times; a negative `times` retracts.
    pub fn add(&mut self, value: f64, times: i64) {
        if !value.is_finite() || (value == 0.0 && value.is_sign_negative()) {
            let special = self.special.get_or_insert_with(Box::default);
            match value {
                v if v.is_nan() => special.nan += times,
                v if v == f64::INFINITY => special.infinite += times,
                v if v == f64::NEG_INFINITY => special.negative_infinite += times,
                _ => special.negative_zero += times,
            }
            if **special == Special::default() {
                self.special = None;
            }
            return;
        }
        self.others += times;
        if value == 0.0 {
            return;
        }
        let (mantissa, exponent) = split(value);
        self.add_scaled(i128::from(mantissa), exponent, times);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &ExactSum) {
        self.others += other.others;
        if let Some(theirs) = &other.special {
            let ours = self.special.get_or_insert_with(Box::default);
            ours.nan += theirs.nan;
            ours.infinite += theirs.infinite;
            ours.negative_infinite += theirs.negative_infinite;
            ours.negative_zero += theirs.negative_zero;
            if **ours == Special::default() {
                self.special = None;
            }
        }
        match &other.finite {
            Finite::Fixed { sum: 0, .. } => {}
            Finite::Fixed { sum: more, scale: at } => {
                if let Finite::Fixed { sum, scale } = &mut self.finite
                    && scale == at
                    && let Some(total) = sum.checked_add(*more)
                {
                    *sum = total;
                    return;
                }
                self.add_scaled(*more, *at, 1);
            }
            Finite::Wide(theirs) => {
                let ours = self.widen();
                for (limb, their) in ours.iter_mut().zip(theirs.iter()) {
                    *limb += their;
                }
                carry(ours);
            }
        }
    }

    /// The true sum, rounded once to nearest-even; NaN and infinities as IEEE says. The empty sum is 0.
    pub fn value(&self) -> f64 {
        self.rounded(1)
    }

    /// The true sum divided by `count`, rounded once. `count` must be positive.
    pub fn mean(&self, count: i64) -> f64 {
        assert!(count > 0);
        self.rounded(count as u128)
    }

    /// The sum as a head and a tail (106 bits), for formulas that cancel.
    pub fn head_and_tail(&self) -> (f64, f64) {
        let head = self.value();
        if !head.is_finite() {
            return (head, 0.0);
        }
        let mut rest = self.clone();
        rest.add(head, -1);
        (head, rest.value())
    }

    /// Floats that add up to the sum exactly, the greatest first. None if it is not finite.
    pub fn expansion(&self) -> Option<Vec<f64>> {
        let (mut rest, mut terms) = (self.clone(), Vec::new());
        loop {
            let term = rest.value();
            if term == 0.0 {
                return Some(terms);
            }
            if !term.is_finite() {
                return None;
            }
            rest.add(term, -1);
            terms.push(term);
        }
    }

    /// For checkpoints. `from_bytes(to_bytes(x))` has the value of x and goes on as x does.
    pub fn to_bytes(&self) -> Vec<u8> {
        let special = self.special.as_deref().copied().unwrap_or_default();
        let mut bytes = Vec::with_capacity(64);
        for count in [self.others, special.nan, special.infinite, special.negative_infinite, special.negative_zero] {
            bytes.extend(count.to_le_bytes());
        }
        match &self.finite {
            Finite::Fixed { sum, scale } => {
                bytes.extend(sum.to_le_bytes());
                bytes.extend(scale.to_le_bytes());
            }
            Finite::Wide(limbs) => limbs.iter().for_each(|limb| bytes.extend(limb.to_le_bytes())),
        }
        bytes
    }

    /// `None` if these are not the bytes of a sum.
    pub fn from_bytes(bytes: &[u8]) -> Option<ExactSum> {
        let (head, tail) = bytes.split_at_checked(40)?;
        let count = |index: usize| Some(i64::from_le_bytes(head.get(index * 8..index * 8 + 8)?.try_into().ok()?));
        let special = Special { nan: count(1)?, infinite: count(2)?, negative_infinite: count(3)?, negative_zero: count(4)? };
        let finite = if tail.len() == 20 {
            Finite::Fixed { sum: i128::from_le_bytes(tail[..16].try_into().ok()?), scale: i32::from_le_bytes(tail[16..].try_into().ok()?) }
        } else if tail.len() == LIMBS * 8 {
            let mut limbs = Box::new([0; LIMBS]);
            for (limb, chunk) in limbs.iter_mut().zip(tail.chunks_exact(8)) {
                *limb = i64::from_le_bytes(chunk.try_into().ok()?);
            }
            Finite::Wide(limbs)
        } else {
            return None;
        };
        Some(ExactSum { finite, others: count(0)?, special: (special != Special::default()).then(|| Box::new(special)) })
    }

    /// Heap bytes beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        let wide = if matches!(self.finite, Finite::Wide(_)) { LIMBS * 8 } else { 0 };
        wide + self.special.as_ref().map_or(0, |_| size_of::<Special>())
    }

    fn add_scaled(&mut self, mantissa: i128, exponent: i32, times: i64) {
        if let Finite::Fixed { sum, scale } = &mut self.finite {
            // The common case: a value on the grid of the sum, 10 bits of room to spare.
            let above = exponent - *scale;
            if (0..60).contains(&above) && times.unsigned_abs() == 1 && mantissa.unsigned_abs() < 1 << 57 {
                let term = mantissa << above;
                if let Some(total) = sum.checked_add(if times < 0 { -term } else { term }) {
                    *sum = total;
                    return;
                }
            }
            if *sum == 0 {
                *scale = exponent;
            }
            let common = exponent.min(*scale);
            let added = shifted(mantissa, exponent - common).and_then(|term| term.checked_mul(i128::from(times)));
            if let (Some(old), Some(term)) = (shifted(*sum, *scale - common), added)
                && let Some(total) = old.checked_add(term)
            {
                (*sum, *scale) = (total, common);
                return;
            }
        }
        // |mantissa| · |times| may pass 128 bits: split both into 32-bit digits.
        let negative = (mantissa < 0) != (times < 0);
        let (digits, times) = (mantissa.unsigned_abs(), u128::from(times.unsigned_abs()));
        let limbs = self.widen();
        for half in 0..2 {
            let factor = (times >> (32 * half)) & 0xffff_ffff;
            for digit in 0..4 {
                let product = ((digits >> (32 * digit)) & 0xffff_ffff) * factor;
                if product != 0 {
                    add_product(limbs, product as u64, exponent + 32 * (half + digit), negative);
                }
            }
        }
        carry(limbs);
    }

    fn widen(&mut self) -> &mut [i64; LIMBS] {
        if let Finite::Fixed { sum, scale } = self.finite {
            let mut limbs = Box::new([0; LIMBS]);
            for digit in 0..4 {
                let value = (sum.unsigned_abs() >> (32 * digit)) & 0xffff_ffff;
                if value != 0 {
                    add_product(&mut limbs, value as u64, scale + 32 * digit, sum < 0);
                }
            }
            carry(&mut limbs);
            self.finite = Finite::Wide(limbs);
        }
        match &mut self.finite {
            Finite::Wide(limbs) => limbs,
            Finite::Fixed { .. } => unreachable!("widened above"),
        }
    }

    fn rounded(&self, divisor: u128) -> f64 {
        let special = self.special.as_deref().copied().unwrap_or_default();
        if special.nan > 0 || (special.infinite > 0 && special.negative_infinite > 0) {
            return f64::NAN;
        }
        if special.infinite > 0 {
            return f64::INFINITY;
        }
        if special.negative_infinite > 0 {
            return f64::NEG_INFINITY;
        }
        let Some((negative, mantissa, exponent)) = self.parts() else {
            return if special.negative_zero > 0 && self.others == 0 { -0.0 } else { 0.0 };
        };
        // The mantissa has 127 bits and the divisor at most 63, so the quotient keeps at least 64; its last bit is sticky.
        let quotient = (mantissa / divisor) | u128::from(!mantissa.is_multiple_of(divisor));
        let magnitude = scale_by_power(quotient as f64, exponent);
        if negative { -magnitude } else { magnitude }
    }

    /// Sign, mantissa with bit 126 set and a sticky last bit, exponent. `None` for zero.
    fn parts(&self) -> Option<(bool, u128, i32)> {
        match &self.finite {
            Finite::Fixed { sum: 0, .. } => None,
            Finite::Fixed { sum, scale } => {
                let magnitude = sum.unsigned_abs();
                let left = magnitude.leading_zeros() as i32 - 1;
                if left < 0 {
                    return Some((*sum < 0, magnitude >> 1, scale + 1)); // only i128::MIN, whose last bit is 0
                }
                Some((*sum < 0, magnitude << left, scale - left))
            }
            Finite::Wide(limbs) => {
                let mut limbs = limbs.clone();
                let negative = limbs[LIMBS - 1] < 0;
                if negative {
                    limbs.iter_mut().for_each(|limb| *limb = -*limb);
                    carry(&mut limbs);
                }
                let top = limbs.iter().rposition(|limb| *limb != 0)?;
                let (mut mantissa, lowest) = (0u128, top as i32 - 3);
                for index in (lowest..=top as i32).rev() {
                    mantissa = (mantissa << 32) | usize::try_from(index).map_or(0, |index| limbs[index] as u128);
                }
                let below = limbs[..usize::try_from(lowest).unwrap_or(0)].iter().any(|limb| *limb != 0);
                let (left, exponent) = (mantissa.leading_zeros() as i32 - 1, lowest * 32 + LOWEST);
                if left >= 0 {
                    return Some((negative, (mantissa << left) | u128::from(below), exponent - left));
                }
                Some((negative, (mantissa >> 1) | u128::from(below || mantissa & 1 == 1), exponent + 1))
            }
        }
    }
}

/// Variance of `count` values from their exact sum and exact sum of squares, with `ddof` 0 (population) or 1 (sample).
/// `None` if there are not more than `ddof` values. (Σx² − (Σx)²/n) / (n − ddof) in double-double arithmetic, never negative.
pub fn variance(count: i64, sum: &ExactSum, squares: &ExactSum, ddof: i64) -> Option<f64> {
    if count <= ddof {
        return None;
    }
    let ((s, s_tail), (q, q_tail)) = (sum.head_and_tail(), squares.head_and_tail());
    if !s.is_finite() || !q.is_finite() {
        return Some(f64::NAN);
    }
    let n = count as f64;
    let (square, square_error) = product(s, s);
    let square_tail = square_error + 2.0 * s * s_tail;
    let mean_square = square / n;
    let (back, back_error) = product(mean_square, n);
    let mean_square_tail = ((square - back) - back_error + square_tail) / n;
    let spread = (q - mean_square) + (q_tail - mean_square_tail);
    Some((spread / (count - ddof) as f64).max(0.0))
}

/// Adds x² exactly: the product and its rounding error (Dekker's two-product by fused multiply-add).
pub fn add_square(squares: &mut ExactSum, value: f64, times: i64) {
    let (square, error) = product(value, value);
    squares.add(square, times);
    if square.is_finite() && error != 0.0 {
        squares.add(error, times);
    }
}

/// The product and its rounding error.
pub(crate) fn product(a: f64, b: f64) -> (f64, f64) {
    let head = a * b;
    (head, a.mul_add(b, -head))
}

/// value = mantissa · 2^exponent with an odd mantissa. `value` is finite and not zero.
fn split(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let raw_exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) = if raw_exponent == 0 { (fraction, LOWEST) } else { (fraction | (1 << 52), raw_exponent - 1075) };
    let zeros = mantissa.trailing_zeros();
    let odd = mantissa >> zeros;
    (if value < 0.0 { -odd } else { odd }, exponent + zeros as i32)
}

/// `value << bits`, if nothing is lost.
fn shifted(value: i128, bits: i32) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    let room = value.unsigned_abs().leading_zeros() as i32 - 1;
    (bits < room).then(|| value << bits)
}

/// Adds ± product · 2^exponent.
fn add_product(limbs: &mut [i64; LIMBS], product: u64, exponent: i32, negative: bool) {
    let bit = (exponent - LOWEST) as u32;
    let (index, shift) = ((bit / 32) as usize, bit % 32);
    let wide = u128::from(product) << shift;
    for (offset, limb) in [wide as u32, (wide >> 32) as u32, (wide >> 64) as u32].into_iter().enumerate() {
        if limb != 0 {
            limbs[index + offset] += if negative { -i64::from(limb) } else { i64::from(limb) };
        }
    }
}

/// Brings every limb but the last into 0..2^32.
fn carry(limbs: &mut [i64; LIMBS]) {
    for index in 0..LIMBS - 1 {
        let over = limbs[index] >> 32;
        limbs[index] -= over << 32;
        limbs[index + 1] += over;
    }
}

/// value · 2^exponent in two exact steps (one rounding at most, and none below the normal range: see the caller's invariant).
fn scale_by_power(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * power_of_two(half) * power_of_two(exponent - half)
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value, 1));
        sum
    }

    #[test]
    fn e7_all_orders_and_then_a_retraction() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let values = [1e16, 1.0, -1e16];
            let mut total = sum(&order.map(|index| values[index]));
            assert_eq!(total.value(), 1.0);
            total.add(1e16, -1);
            assert_eq!(total.value(), -1e16);
        }
    }

    #[test]
    fn t20_special_values_can_be_retracted() {
        let mut total = sum(&[2.5, f64::NAN, f64::INFINITY]);
        assert!(total.value().is_nan());
        total.add(f64::NAN, -1);
        assert_eq!(total.value(), f64::INFINITY);
        total.add(f64::NEG_INFINITY, 1);
        assert!(total.value().is_nan());
        total.add(f64::INFINITY, -1);
        total.add(f64::NEG_INFINITY, -1);
        assert_eq!(total.value(), 2.5);
        assert_eq!(sum(&[-0.0, -0.0]).value().to_bits(), (-0.0f64).to_bits());
        assert_eq!(sum(&[-0.0, 0.0]).value().to_bits(), 0.0f64.to_bits());
    }

    #[test]
    fn t19_order_merge_retraction_and_bytes_do_not_matter() {
        let mut rng = StdRng::seed_from_u64(19);
        for round in 0..300 {
            let spread = [3, 60, 600][round % 3];
            let mut values: Vec<f64> =
                (0..rng.random_range(1..60)).map(|_| (rng.random::<f64>() - 0.5) * 2f64.powi(rng.random_range(-spread..=spread))).collect();
            let straight = sum(&values);
            let extra: Vec<f64> = (0..10).map(|_| rng.random::<f64>() * 2f64.powi(rng.random_range(-900..900))).collect();
            values.shuffle(&mut rng);
            let (left, right) = values.split_at(values.len() / 2);
            let mut merged = sum(right);
            extra.iter().for_each(|value| merged.add(*value, 3));
            merged = ExactSum::from_bytes(&merged.to_bytes()).unwrap();
            merged.merge(&sum(left));
            extra.iter().for_each(|value| merged.add(*value, -3));
            assert_eq!(merged.value().to_bits(), straight.value().to_bits(), "round {round}");
            assert_eq!(merged.mean(7).to_bits(), straight.mean(7).to_bits(), "round {round}");
        }
    }

    #[test]
    fn t19_integers_sum_exactly_and_extremes_round_once() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..200 {
            let integers: Vec<i64> = (0..50).map(|_| rng.random_range(-(1i64 << 53)..1 << 53)).collect();
            let true_sum: i128 = integers.iter().map(|value| i128::from(*value)).sum();
            assert_eq!(sum(&integers.iter().map(|value| *value as f64).collect::<Vec<_>>()).value(), true_sum as f64);
        }
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[5e-324, 1.0, -1.0]).value(), 5e-324);
        assert_eq!(sum(&[1.0, 2.0, 4.0]).mean(3), 7.0 / 3.0);
        // 1 + 2^-53 + 2^-200 rounds up only because nothing below the tie is lost.
        assert_eq!(sum(&[1.0, 2f64.powi(-53), 2f64.powi(-200)]).value(), 1.0 + f64::EPSILON);
        assert_eq!(sum(&[1.0, 2f64.powi(-53)]).value(), 1.0);
    }

    #[test]
    fn variance_of_a_small_spread_on_a_large_mean() {
        let (mut total, mut squares) = (ExactSum::default(), ExactSum::default());
        for value in [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0] {
            total.add(value, 1);
            add_square(&mut squares, value, 1);
        }
        assert_eq!(variance(4, &total, &squares, 1), Some(30.0));
        assert_eq!(variance(4, &total, &squares, 0), Some(22.5));
        assert_eq!(variance(1, &total, &squares, 1), None);
    }
}
