//! How good scores are, from scratch. In: scores and labels of the same rows. Out: the number that the SQL aggregate of the same name has.

use freshet_core::{ExactSum, Metric};

/// Scores are kept this far from 0 and 1, so that one sure error is not infinite: the spacing of floats at 1.
const CLIP: f64 = f64::EPSILON;

/// None where it is undefined: no row, or for auc no row of one of the two kinds. Rows whose score is NULL are left out.
pub fn value(metric: Metric, rows: &[(Option<f64>, bool)]) -> Option<f64> {
    let rows: Vec<(f64, bool)> = rows.iter().filter_map(|(score, label)| score.map(|score| (score, *label))).collect();
    match metric {
        Metric::Auc => auc(rows),
        Metric::LogLoss => log_loss(&rows),
    }
}

/// Whether a greater value is the better one.
pub fn greater_is_better(metric: Metric) -> bool {
    match metric {
        Metric::Auc => true,
        Metric::LogLoss => false,
    }
}

/// The share of (true, false) pairs whose true row scores higher, ties counting half; in integers until the one division. NaN is the
/// greatest score (T20), −0.0 equals 0.0.
fn auc(mut rows: Vec<(f64, bool)>) -> Option<f64> {
    rows.iter_mut().for_each(|(score, _)| *score = if score.is_nan() { f64::NAN } else { *score + 0.0 });
    rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut falses, mut trues, mut halves) = (0u128, 0u128, 0u128);
    for tied in rows.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let positive = tied.iter().filter(|row| row.1).count() as u128;
        let negative = tied.len() as u128 - positive;
        halves += positive * (2 * falses + negative);
        trues += positive;
        falses += negative;
    }
    (trues > 0 && falses > 0).then(|| halves as f64 / (2 * trues * falses) as f64)
}

fn log_loss(rows: &[(f64, bool)]) -> Option<f64> {
    let mut sum = ExactSum::default();
    for (score, label) in rows {
        // `clamp` keeps NaN, which makes the whole NaN.
        let score = score.clamp(CLIP, 1.0 - CLIP);
        sum.add(-(if *label { score } else { 1.0 - score }).ln(), 1);
    }
    (!rows.is_empty()).then(|| sum.mean(rows.len() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metric: Metric, scores: &[f64], labels: &[u8]) -> Option<f64> {
        let rows: Vec<(Option<f64>, bool)> = scores.iter().zip(labels).map(|(score, label)| (Some(*score), *label == 1)).collect();
        value(metric, &rows)
    }

    #[test]
    fn auc_is_the_share_of_pairs_in_the_right_order() {
        assert_eq!(of(Metric::Auc, &[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1]), Some(0.75));
        assert_eq!(of(Metric::Auc, &[0.5, 0.5, 0.5, 0.9], &[0, 1, 0, 1]), Some(0.75));
        assert_eq!(of(Metric::Auc, &[0.0, -0.0], &[0, 1]), Some(0.5));
        assert_eq!(of(Metric::Auc, &[f64::NAN, 1.0], &[1, 0]), Some(1.0));
        assert_eq!(of(Metric::Auc, &[0.3, 0.2], &[1, 1]), None);
        assert_eq!(of(Metric::Auc, &[], &[]), None);
    }

    #[test]
    fn auc_equals_counting_every_pair_and_forgets_order() {
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        for rows in [2, 3, 10, 60] {
            let rows: Vec<(Option<f64>, bool)> = (0..rows).map(|_| (Some((random() % 8) as f64 / 8.0), random() % 3 == 0)).collect();
            let (mut halves, mut pairs) = (0.0, 0.0);
            for (high, _) in rows.iter().filter(|row| row.1) {
                for (low, _) in rows.iter().filter(|row| !row.1) {
                    pairs += 1.0;
                    halves += if high > low {
                        1.0
                    } else if high == low {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
            let expected = (pairs > 0.0).then(|| halves / pairs);
            let reversed: Vec<_> = rows.iter().rev().copied().collect();
            assert_eq!(value(Metric::Auc, &rows), expected);
            assert_eq!(value(Metric::Auc, &reversed), expected);
        }
    }

    #[test]
    fn log_loss_is_clipped_and_leaves_null_scores_out() {
        let expected = -(0.9f64.ln() + 0.8f64.ln()) / 2.0;
        assert!((of(Metric::LogLoss, &[0.9, 0.2], &[1, 0]).unwrap() - expected).abs() < 1e-15);
        assert!((of(Metric::LogLoss, &[0.0], &[1]).unwrap() - 52.0 * std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(of(Metric::LogLoss, &[], &[]), None);
        assert!(of(Metric::LogLoss, &[f64::NAN], &[1]).unwrap().is_nan());
        assert_eq!(value(Metric::LogLoss, &[(None, true), (Some(0.5), true)]), Some(0.5f64.ln().abs()));
    }
}
