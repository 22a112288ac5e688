//! How far two distributions lie apart, from counts between the same edges. In: histograms. Out: one number; 0 for equal shares.

use freshet_core::Histogram;

/// Shares below this count as this, so that an empty bin is far away but not infinitely so.
const SHARE_MIN: f64 = 1e-4;

/// The population stability index, Σ (c − r) · ln(c / r) over the shares of all bins, that of NULL and NaN included: where neither side has
/// any, it adds nothing. None if a side is empty.
pub fn psi(reference: &Histogram, current: &Histogram) -> Option<f64> {
    let (expected, found) = (reference.total(), current.total());
    if expected == 0 || found == 0 {
        return None;
    }
    let share = |count: u64, total: u64| (count as f64 / total as f64).max(SHARE_MIN);
    let numbers = reference.counts.iter().zip(&current.counts);
    let bins = numbers.chain([(&reference.nulls, &current.nulls)]);
    Some(bins.map(|(r, c)| (share(*r, expected), share(*c, found))).map(|(r, c)| (c - r) * (c / r).ln()).sum())
}

/// The statistic of Kolmogorov and Smirnov at the edges: the greatest difference of the cumulated shares of the numbers. None if a side has
/// no number.
pub fn ks(reference: &Histogram, current: &Histogram) -> Option<f64> {
    let (expected, found): (u64, u64) = (reference.counts.iter().sum(), current.counts.iter().sum());
    if expected == 0 || found == 0 {
        return None;
    }
    let (mut below, mut farthest) = ((0, 0), 0.0f64);
    for (r, c) in reference.counts.iter().zip(&current.counts) {
        below = (below.0 + r, below.1 + c);
        farthest = farthest.max((below.0 as f64 / expected as f64 - below.1 as f64 / found as f64).abs());
    }
    Some(farthest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u64], nulls: u64) -> Histogram {
        Histogram { edges: (1..counts.len()).map(|edge| edge as f64).collect(), counts: counts.to_vec(), nulls }
    }

    #[test]
    fn equal_shares_have_not_drifted() {
        let (reference, current) = (histogram(&[10, 20, 0], 10), histogram(&[5, 10, 0], 5));
        assert_eq!(psi(&reference, &current), Some(0.0));
        assert_eq!(ks(&reference, &current), Some(0.0));
    }

    #[test]
    fn nulls_count_for_psi_and_not_for_ks() {
        let (reference, current) = (histogram(&[50, 50], 0), histogram(&[25, 25], 50));
        let expected = 2.0 * (0.25 - 0.5) * 0.5f64.ln() + (0.5 - 1e-4) * (0.5f64 / 1e-4).ln();
        assert!((psi(&reference, &current).unwrap() - expected).abs() < 1e-12);
        assert_eq!(ks(&reference, &current), Some(0.0));
    }

    #[test]
    fn an_empty_side_has_no_distance() {
        let (some, none, nulls) = (histogram(&[1, 2], 0), histogram(&[0, 0], 0), histogram(&[0, 0], 3));
        assert_eq!((psi(&some, &none), psi(&none, &some), ks(&some, &nulls)), (None, None, None));
        assert!(psi(&some, &nulls).is_some());
    }
}
