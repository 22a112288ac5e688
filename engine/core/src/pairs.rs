//! Statistics of pairs (y, x) from exact moments. In: pairs, in and out. Out: covariances, correlation and the regression of y on x.
//!
//! Each result is a quotient of exact sums, so it depends on the multiset of pairs alone (T19); a spread of equal values is exactly zero.

use crate::exact::product;
use crate::{AggregateFunction, ExactSum, add_square};

/// Count and exact sums of pairs.
#[derive(Debug, Clone, Default)]
pub struct PairMoments {
    pub count: i64,
    pub y: ExactSum,
    pub x: ExactSum,
    pub yy: ExactSum,
    pub xx: ExactSum,
    pub xy: ExactSum,
}

impl PairMoments {
    /// Adds a pair `times` times; negative takes it out.
    pub fn add(&mut self, y: f64, x: f64, times: i64) {
        self.count += times;
        self.y.add(y, times);
        self.x.add(x, times);
        add_square(&mut self.yy, y, times);
        add_square(&mut self.xx, x, times);
        add_product(&mut self.xy, y, x, times);
    }

    /// None where SQL says NULL; RegrCount is the count as a float. NaN where a pair holds NaN or an infinity.
    pub fn value(&self, function: AggregateFunction) -> Option<f64> {
        let n = self.count as f64;
        // n · Σ(x − mean)² and its like.
        let (xx, yy) = (|| self.spread(&self.x, &self.x, &self.xx), || self.spread(&self.y, &self.y, &self.yy));
        let xy = || self.spread(&self.x, &self.y, &self.xy);
        match function {
            AggregateFunction::RegrCount => return Some(n),
            _ if self.count < 1 => return None,
            AggregateFunction::RegrAvgX => return Some(self.x.mean(self.count)),
            AggregateFunction::RegrAvgY => return Some(self.y.mean(self.count)),
            AggregateFunction::RegrSxx => return Some(xx() / n),
            AggregateFunction::RegrSyy => return Some(yy() / n),
            AggregateFunction::RegrSxy => return Some(xy() / n),
            AggregateFunction::CovarPop => return Some(xy() / n / n),
            _ if self.count < 2 => return None,
            AggregateFunction::CovarSamp => return Some(xy() / n / (n - 1.0)),
            _ => {}
        }
        let (xx, xy) = (xx(), xy());
        if xx == 0.0 {
            return None;
        }
        let slope = xy / xx;
        match function {
            AggregateFunction::RegrSlope => Some(slope),
            AggregateFunction::RegrIntercept => Some(self.y.mean(self.count) - slope * self.x.mean(self.count)),
            AggregateFunction::Corr => match yy() {
                0.0 => None,
                yy => Some((xy / xx.sqrt() / yy.sqrt()).clamp(-1.0, 1.0)),
            },
            AggregateFunction::RegrR2 => match yy() {
                0.0 => None,
                yy => Some((xy / xx) * (xy / yy)),
            },
            other => unreachable!("{} is no function of pairs", other.sql()),
        }
    }

    /// n · Σab − Σa · Σb, rounded once.
    fn spread(&self, a: &ExactSum, b: &ExactSum, ab: &ExactSum) -> f64 {
        let (Some(a), Some(b), Some(ab)) = (a.expansion(), b.expansion(), ab.expansion()) else { return f64::NAN };
        let mut total = ExactSum::default();
        ab.iter().for_each(|term| total.add(*term, self.count));
        for left in &a {
            b.iter().for_each(|right| add_product(&mut total, *left, *right, -1));
        }
        total.value()
    }

    pub fn heap_bytes(&self) -> usize {
        [&self.y, &self.x, &self.yy, &self.xx, &self.xy].into_iter().map(ExactSum::heap_bytes).sum()
    }
}

/// Adds a · b exactly: the product and its rounding error.
fn add_product(sum: &mut ExactSum, a: f64, b: f64, times: i64) {
    let (head, error) = product(a, b);
    sum.add(head, times);
    if head.is_finite() && error != 0.0 {
        sum.add(error, times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AggregateFunction::*;

    fn moments(pairs: &[(f64, f64)]) -> PairMoments {
        let mut moments = PairMoments::default();
        pairs.iter().for_each(|(y, x)| moments.add(*y, *x, 1));
        moments
    }

    #[test]
    fn a_line_is_found_again() {
        let found = moments(&[(3.0, 1.0), (5.0, 2.0), (7.0, 3.0)]);
        let expected = [
            (RegrSlope, 2.0),
            (RegrIntercept, 1.0),
            (RegrR2, 1.0),
            (Corr, 1.0),
            (RegrCount, 3.0),
            (RegrAvgX, 2.0),
            (RegrAvgY, 5.0),
            (RegrSxx, 2.0),
            (RegrSyy, 8.0),
            (RegrSxy, 4.0),
            (CovarSamp, 2.0),
            (CovarPop, 4.0 / 3.0),
        ];
        for (function, value) in expected {
            assert_eq!(found.value(function), Some(value), "{}", function.sql());
        }
    }

    #[test]
    fn what_has_no_spread_has_no_slope() {
        let vertical = moments(&[(1.0, 0.1), (2.0, 0.1), (5.0, 0.1)]);
        assert_eq!([RegrSlope, RegrIntercept, RegrR2, Corr].map(|function| vertical.value(function)), [None; 4]);
        let one = moments(&[(1.0, 2.0)]);
        assert_eq!((one.value(CovarSamp), one.value(CovarPop), one.value(RegrSlope)), (None, Some(0.0), None));
        assert_eq!((PairMoments::default().value(RegrSxx), PairMoments::default().value(RegrCount)), (None, Some(0.0)));
    }

    #[test]
    fn t20_a_retracted_nan_leaves_no_trace() {
        let mut found = moments(&[(3.0, 1.0), (5.0, 2.0)]);
        found.add(f64::NAN, 1e300, 1);
        assert!(found.value(Corr).is_some_and(f64::is_nan));
        found.add(f64::NAN, 1e300, -1);
        assert_eq!(found.value(RegrSlope), Some(2.0));
    }
}
