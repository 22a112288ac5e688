//! The measured values of a sliding window, and how many lie in each bin of the present reference.
//!
//! In: rows in and out, by event time. Out: counts at each instant of the grid. A row touches one bucket and one count per column; moving
//! from one instant to the next adds the newest bucket and takes the oldest away, however wide the window. Only another reference makes it
//! count anew. Counts are linear, so late rows and retractions are exact (C8).

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_core::{EventTime, Histogram, Reference, Result};

use crate::state::{Bytes, put_i64, put_u64};

/// What stands for NULL and NaN: they share a bin.
const NOTHING: u64 = u64::MAX;

const NS_PER_MS: i64 = 1_000_000;

/// Rows of one stretch of the grid.
#[derive(Debug, Default)]
struct Bucket {
    rows: i64,
    /// Bits of the measured values → how many rows have them. Negative only inside an open epoch.
    values: BTreeMap<Box<[u64]>, i64>,
}

/// The rows of a window, and of windows to come.
#[derive(Debug)]
pub struct DriftWindow {
    names: Vec<String>,
    every_ms: u64,
    /// How many buckets a window has.
    width: i64,
    /// Number of the bucket → its rows; bucket b holds times in [b · every, (b + 1) · every).
    buckets: BTreeMap<i64, Bucket>,
    /// The buckets that are counted: those of the last evaluation.
    covered: std::ops::Range<i64>,
    rows: i64,
    counted: Option<Counted>,
    /// How often a value was put into a bin: the cost of what was done.
    #[cfg(test)]
    placed: u64,
}

/// Counts between the edges of one reference, per column; None where it lacks the column.
#[derive(Debug)]
struct Counted {
    reference: Arc<Reference>,
    columns: Vec<Option<Histogram>>,
}

impl DriftWindow {
    /// Over columns of these names; `window_ms` is a multiple of `every_ms`.
    pub fn new(names: Vec<String>, every_ms: u64, window_ms: u64) -> DriftWindow {
        assert!(every_ms > 0, "the planner lets no grid be empty");
        assert_eq!(window_ms % every_ms, 0, "the planner lets a window be whole stretches of the grid");
        DriftWindow {
            names,
            every_ms,
            width: (window_ms / every_ms) as i64,
            buckets: BTreeMap::new(),
            covered: i64::MIN..i64::MIN,
            rows: 0,
            counted: None,
            #[cfg(test)]
            placed: 0,
        }
    }

    /// Takes in a row with one value per column, `diff` times. `next` is the next evaluation: a row older than its window is dropped.
    pub fn change(&mut self, time: EventTime, values: impl Iterator<Item = Option<f64>>, diff: i64, next: u64) {
        let bucket = time.0.div_euclid((self.every_ms as i64).saturating_mul(NS_PER_MS));
        if bucket < self.position(next) - self.width {
            return;
        }
        let values: Box<[u64]> = values.map(bits).collect();
        if self.covered.contains(&bucket) {
            self.rows += diff;
            self.place(&values, diff);
        }
        let rows = self.buckets.entry(bucket).or_default();
        rows.rows += diff;
        match rows.values.get_mut(&values) {
            None => {
                rows.values.insert(values, diff);
            }
            Some(count) if *count + diff == 0 => {
                rows.values.remove(&values);
            }
            Some(count) => *count += diff,
        }
        if rows.values.is_empty() {
            self.buckets.remove(&bucket);
        }
    }

    /// Moves to [d − window, d), where d is a multiple of the grid and not before the last one. Older rows are dropped.
    pub fn advance(&mut self, d: u64) {
        let until = self.position(d);
        let from = until - self.width;
        assert!(until >= self.covered.end, "evaluations go forward");
        let kept = self.buckets.split_off(&from);
        for (number, bucket) in std::mem::replace(&mut self.buckets, kept) {
            if self.covered.contains(&number) {
                self.count(&bucket, -1);
            }
        }
        let entering: Vec<i64> = self.buckets.range(from.max(self.covered.end)..until.max(self.covered.end)).map(|(number, _)| *number).collect();
        for number in entering {
            let bucket = self.buckets.remove(&number).expect("it was just seen");
            self.count(&bucket, 1);
            self.buckets.insert(number, bucket);
        }
        self.covered = from..until;
    }

    /// Live rows of the window.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.rows).expect("between epochs no count is negative")
    }

    /// The window's values of a column, counted between the edges of the reference; None if it lacks the column.
    pub fn histogram(&mut self, reference: &Arc<Reference>, column: usize) -> Option<&Histogram> {
        if self.counted.as_ref().is_none_or(|counted| !Arc::ptr_eq(&counted.reference, reference)) {
            self.recount(reference);
        }
        self.counted.as_ref().and_then(|counted| counted.columns[column].as_ref())
    }

    /// Rows of all buckets, and about how many bytes they hold.
    pub fn size(&self) -> (u64, u64) {
        let rows: i64 = self.buckets.values().map(|bucket| bucket.rows).sum();
        let values: usize = self.buckets.values().map(|bucket| bucket.values.len()).sum();
        (rows.unsigned_abs(), (values * (8 * self.names.len() + 32)) as u64)
    }

    fn position(&self, d: u64) -> i64 {
        (d / self.every_ms) as i64
    }

    fn recount(&mut self, reference: &Arc<Reference>) {
        let empty = |name: &String| {
            let known = reference.columns.get(name).filter(|known| known.total() > 0)?;
            Some(Histogram { edges: known.edges.clone(), counts: vec![0; known.counts.len()], nulls: 0 })
        };
        self.counted = Some(Counted { reference: reference.clone(), columns: self.names.iter().map(empty).collect() });
        self.rows = 0;
        let buckets = std::mem::take(&mut self.buckets);
        buckets.range(self.covered.clone()).for_each(|(_, bucket)| self.count(bucket, 1));
        self.buckets = buckets;
    }

    fn count(&mut self, bucket: &Bucket, sign: i64) {
        self.rows += sign * bucket.rows;
        bucket.values.iter().for_each(|(values, count)| self.place(values, sign * count));
    }

    fn place(&mut self, values: &[u64], diff: i64) {
        let Some(counted) = &mut self.counted else { return };
        for (histogram, value) in counted.columns.iter_mut().zip(values) {
            let Some(histogram) = histogram else { continue };
            let count = match *value {
                NOTHING => &mut histogram.nulls,
                value => {
                    let bin = histogram.bin(f64::from_bits(value));
                    &mut histogram.counts[bin]
                }
            };
            // Inside an epoch a retraction may come before its insertion; when the epoch is complete the sum is right.
            *count = count.wrapping_add_signed(diff);
            #[cfg(test)]
            {
                self.placed += 1;
            }
        }
    }

    /// The rows and which of them are counted; the counts follow from the reference.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_i64(out, self.covered.start);
        put_i64(out, self.covered.end);
        put_u64(out, self.buckets.len() as u64);
        for (number, bucket) in &self.buckets {
            put_i64(out, *number);
            put_u64(out, bucket.values.len() as u64);
            for (values, count) in &bucket.values {
                values.iter().for_each(|value| put_u64(out, *value));
                put_i64(out, *count);
            }
        }
    }

    /// Fills an empty window with what `put` wrote. Errors: Data.
    pub fn take(&mut self, bytes: &mut Bytes<'_>) -> Result<()> {
        self.covered = bytes.i64()?..bytes.i64()?;
        for _ in 0..bytes.u64()? {
            let number = bytes.i64()?;
            let mut bucket = Bucket::default();
            for _ in 0..bytes.u64()? {
                let values = (0..self.names.len()).map(|_| bytes.u64()).collect::<Result<_>>()?;
                let count = bytes.i64()?;
                bucket.rows += count;
                bucket.values.insert(values, count);
            }
            self.buckets.insert(number, bucket);
        }
        self.counted = None;
        self.rows = self.buckets.range(self.covered.clone()).map(|(_, bucket)| bucket.rows).sum();
        Ok(())
    }
}

/// The bits of a value; −0.0 is 0.0.
fn bits(value: Option<f64>) -> u64 {
    match value {
        Some(value) if !value.is_nan() => (value + 0.0).to_bits(),
        _ => NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: u64 = 1_000;

    fn reference(edges: &[f64]) -> Arc<Reference> {
        let histogram = Histogram { edges: edges.to_vec(), counts: vec![5; edges.len() + 1], nulls: 0 };
        Arc::new(Reference { columns: [("x".to_string(), histogram)].into() })
    }

    fn window(stretches: u64) -> DriftWindow {
        DriftWindow::new(vec!["x".into()], EVERY_MS, stretches * EVERY_MS)
    }

    fn at(ms: u64) -> EventTime {
        EventTime(ms as i64 * NS_PER_MS)
    }

    #[test]
    fn an_evaluation_costs_the_same_however_wide_the_window() {
        let reference = reference(&[0.0, 0.5]);
        let cost = |stretches: u64| {
            let mut window = window(stretches);
            let mut cost = 0;
            for d in 1..=400 {
                (0..10).for_each(|row| window.change(at((d - 1) * EVERY_MS + row), std::iter::once(Some(row as f64 + d as f64)), 1, d * EVERY_MS));
                let before = window.placed;
                window.advance(d * EVERY_MS);
                assert!(window.histogram(&reference, 0).is_some());
                assert_eq!(window.rows(), 10 * d.min(stretches));
                cost = window.placed - before;
            }
            cost
        };
        assert_eq!((cost(2), cost(20), cost(200)), (20, 20, 20));
    }

    #[test]
    fn only_another_reference_counts_the_window_anew() {
        let (old, new) = (reference(&[0.0]), reference(&[3.0]));
        let mut window = window(50);
        (0..50u64).for_each(|row| window.change(at(row * EVERY_MS), std::iter::once(Some(row as f64)), 1, 50 * EVERY_MS));
        window.advance(50 * EVERY_MS);
        assert_eq!(window.histogram(&old, 0).unwrap().counts, [0, 50]);
        let before = window.placed;
        assert_eq!(window.histogram(&old, 0).unwrap().counts, [0, 50]);
        assert_eq!(window.placed, before);
        assert_eq!(window.histogram(&new, 0).unwrap().counts, [3, 47]);
        assert_eq!(window.placed, before + 50);
    }

    #[test]
    fn c8_late_rows_and_retractions_reach_the_count_they_belong_to() {
        let reference = reference(&[10.0]);
        let mut window = window(3);
        let one = |value: f64| std::iter::once(Some(value));
        window.change(at(500), one(1.0), 1, 1_000);
        window.advance(1_000);
        assert_eq!(window.histogram(&reference, 0).unwrap().counts, [1, 0]);
        // Late, but in the window; one of a window to come; a retraction before its insertion.
        window.change(at(999), one(20.0), 2, 2_000);
        window.change(at(2_500), one(20.0), 1, 2_000);
        window.change(at(700), one(7.0), -1, 2_000);
        window.change(at(700), one(7.0), 1, 2_000);
        window.advance(2_000);
        assert_eq!((window.histogram(&reference, 0).unwrap().counts.clone(), window.rows()), (vec![1, 2], 3));
        window.change(at(500), one(1.0), -1, 3_000);
        window.advance(3_000);
        assert_eq!(window.histogram(&reference, 0).unwrap().counts, [0, 3]);
        window.advance(4_000);
        assert_eq!(window.histogram(&reference, 0).unwrap().counts, [0, 1]);
        // Older than any window to come: nobody will ask for it.
        window.change(at(1_999), one(1.0), 1, 5_000);
        window.advance(5_000);
        assert_eq!((window.rows(), window.size().0), (1, 1));
        window.advance(6_000);
        assert_eq!((window.rows(), window.size().0), (0, 0));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let reference = reference(&[10.0]);
        let mut window = window(3);
        for (row, value) in [Some(1.0), None, Some(-0.0), Some(f64::NAN), Some(30.0)].into_iter().enumerate() {
            window.change(at(row as u64 * 700), std::iter::once(value), 1, 2_000);
        }
        window.advance(2_000);
        let mut bytes = Vec::new();
        window.put(&mut bytes);
        let mut back = super::tests::window(3);
        back.take(&mut Bytes(&bytes)).unwrap();
        assert_eq!(back.rows(), window.rows());
        for d in [3_000, 4_000] {
            for window in [&mut window, &mut back] {
                window.advance(d);
            }
            assert_eq!(back.histogram(&reference, 0), window.histogram(&reference, 0));
            assert_eq!(back.rows(), window.rows());
        }
    }
}
