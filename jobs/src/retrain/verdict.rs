//! Whether a challenger becomes the live version. In: its scores and the champion's on the same holdout, and the labels. Out: a verdict
//! with its reason. Pure.

use freshet_core::Validation;

use crate::retrain::journal::Verdict;
use crate::retrain::metrics::{greater_is_better, value};

/// What is compared. `None` scores are NULL.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub challenger: &'a [Option<f64>],
    /// None: there is no champion.
    pub champion: Option<&'a [Option<f64>]>,
    pub labels: &'a [bool],
}

/// Without a champion, and without VALIDATE, a version is always promoted. Otherwise it must be better than the champion less the margin:
/// with MARGIN 0.0 an equal one does not replace it, for every switch costs a new reference. A metric that is undefined proves nothing,
/// and NaN is undefined: any number beats it, or a champion that answers NaN could never be replaced.
pub fn judge(validation: Option<Validation>, evidence: Evidence) -> Verdict {
    let Some(Validation { metric, margin }) = validation else {
        return Verdict { promote: true, reason: None, metric: None, challenger_value: None, champion_value: None };
    };
    let of = |scores: &[Option<f64>]| {
        let rows: Vec<_> = scores.iter().copied().zip(evidence.labels.iter().copied()).collect();
        value(metric, &rows).filter(|value| !value.is_nan() && has_finite(scores))
    };
    let (challenger, champion) = (of(evidence.challenger), evidence.champion.and_then(of));
    let name = metric.sql();
    let (promote, reason) = match (challenger, champion) {
        _ if evidence.champion.is_none() => (true, None),
        (Some(_), None) => (true, None),
        (Some(new), Some(old)) if greater_is_better(metric) => {
            (new > old - margin, (new <= old - margin).then(|| format!("{name} is not above the champion's less {margin}")))
        }
        (Some(new), Some(old)) => (new < old + margin, (new >= old + margin).then(|| format!("{name} is not below the champion's plus {margin}"))),
        (None, _) => (false, Some(format!("{name} is undefined on this holdout of {} rows", evidence.labels.len()))),
    };
    Verdict { promote, reason, metric: Some(name.to_string()), challenger_value: challenger, champion_value: champion }
}

/// Why a version must not even be the first: it is to be validated, and has no score for any row of the holdout. A holdout without rows, or
/// without rows of both kinds, is not the model's fault.
pub fn unusable(validation: Option<Validation>, evidence: Evidence) -> Option<String> {
    let silent = validation.is_some() && evidence.champion.is_none() && !evidence.challenger.is_empty() && !has_finite(evidence.challenger);
    silent.then(|| format!("the model gives no finite score on the holdout of {} rows", evidence.challenger.len()))
}

fn has_finite(scores: &[Option<f64>]) -> bool {
    scores.iter().flatten().any(|score| score.is_finite())
}

#[cfg(test)]
mod tests {
    use freshet_core::Metric;

    use super::*;

    const LABELS: [bool; 4] = [false, false, true, true];

    fn scores(values: [f64; 4]) -> Vec<Option<f64>> {
        values.map(Some).to_vec()
    }

    fn promoted(metric: Metric, margin: f64, challenger: [f64; 4], champion: Option<[f64; 4]>) -> (bool, Option<String>) {
        let (challenger, champion) = (scores(challenger), champion.map(scores));
        let evidence = Evidence { challenger: &challenger, champion: champion.as_deref(), labels: &LABELS };
        let verdict = judge(Some(Validation { metric, margin }), evidence);
        assert_eq!(verdict.promote, verdict.reason.is_none(), "{verdict:?}");
        (verdict.promote, verdict.reason)
    }

    #[test]
    fn only_a_better_challenger_replaces_the_champion() {
        let (good, bad) = ([0.1, 0.2, 0.8, 0.9], [0.1, 0.8, 0.2, 0.9]);
        for metric in [Metric::Auc, Metric::LogLoss] {
            assert!(promoted(metric, 0.0, good, Some(bad)).0);
            assert!(!promoted(metric, 0.0, bad, Some(good)).0);
            assert!(!promoted(metric, 0.0, good, Some(good)).0, "a tie keeps the champion");
            assert!(promoted(metric, 0.001, good, Some(good)).0, "unless the margin allows less");
            assert!(promoted(metric, 0.0, bad, None).0, "the first has nobody to beat");
            assert!(!promoted(metric, 0.0, [f64::NAN; 4], Some(bad)).0, "NaN is no better");
        }
    }

    #[test]
    fn a_defined_metric_beats_an_undefined_one() {
        let good = [0.1, 0.2, 0.8, 0.9];
        assert!(promoted(Metric::LogLoss, 0.0, good, Some([0.1, f64::NAN, 0.8, 0.9])).0, "one NaN makes log_loss NaN");
        assert!(promoted(Metric::Auc, 0.0, good, Some([f64::NAN; 4])).0);
        let (_, reason) = promoted(Metric::LogLoss, 0.0, [f64::NAN; 4], Some([f64::NAN; 4]));
        assert_eq!(reason.as_deref(), Some("log_loss is undefined on this holdout of 4 rows"));
        let evidence = Evidence { challenger: &scores(good), champion: Some(&[None; 4]), labels: &LABELS };
        assert!(judge(Some(Validation { metric: Metric::Auc, margin: 0.0 }), evidence).promote);
    }

    #[test]
    fn a_first_version_without_any_score_is_unusable() {
        let validation = Some(Validation { metric: Metric::Auc, margin: 0.0 });
        let first = |challenger: &[Option<f64>]| unusable(validation, Evidence { challenger, champion: None, labels: &LABELS });
        let reason = Some("the model gives no finite score on the holdout of 4 rows".to_string());
        assert_eq!(first(&[Some(f64::NAN), None, Some(f64::INFINITY), None]), reason);
        assert_eq!(first(&[Some(f64::NAN), None, Some(0.5), None]), None);
        assert_eq!(first(&[]), None, "nothing was asked of it");
        let silent = Evidence { challenger: &[None; 4], champion: None, labels: &LABELS };
        assert_eq!(unusable(None, silent), None, "without VALIDATE everything is promoted");
        assert_eq!(unusable(validation, Evidence { champion: Some(&[None; 4]), ..silent }), None, "it is rejected");
    }

    #[test]
    fn an_undefined_metric_promotes_only_the_first() {
        let evidence = Evidence { challenger: &[], champion: Some(&[]), labels: &[] };
        let validation = Some(Validation { metric: Metric::Auc, margin: 0.0 });
        let verdict = judge(validation, evidence);
        assert_eq!(verdict.reason.as_deref(), Some("auc is undefined on this holdout of 0 rows"));
        assert!(judge(validation, Evidence { champion: None, ..evidence }).promote);
        assert!(judge(None, evidence).promote, "without VALIDATE everything is");
    }
}
