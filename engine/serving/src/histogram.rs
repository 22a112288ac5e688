//! Counts durations by size, from any thread, without a lock. In: durations. Out: cumulative counts as Prometheus wants them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds: dense around the 2 ms a lookup may take.
const BOUNDS_US: [u64; 14] = [25, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// (upper bound in seconds, durations up to it), ascending; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    pub sum_seconds: f64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let bucket = BOUNDS_US.partition_point(|bound| u128::from(*bound) < duration.as_micros());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn distribution(&self) -> Distribution {
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let mut total = 0;
        let buckets = bounds
            .zip(&self.counts)
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect();
        Distribution { buckets, sum_seconds: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.1)
    }

    /// The bound below which this share of the durations lies, in milliseconds; None without any.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let rank = (self.count() as f64 * share).ceil() as u64;
        self.buckets.iter().find(|bucket| rank > 0 && bucket.1 >= rank).map(|bucket| bucket.0 * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::default();
        for micros in [25, 26, 2_000, 5_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let distribution = histogram.distribution();
        assert_eq!(distribution.buckets[0], (0.000_025, 1));
        assert_eq!(distribution.buckets[1], (0.000_05, 2));
        assert_eq!(distribution.buckets[6], (0.002, 3));
        assert_eq!(distribution.count(), 4);
        assert_eq!(distribution.quantile_ms(0.5), Some(0.05));
        assert_eq!(Histogram::default().distribution().quantile_ms(0.99), None);
    }
}
