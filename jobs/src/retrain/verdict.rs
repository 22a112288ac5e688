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
/// with MARGIN 0.0 an equal one does not replace it, for every switch costs a new reference. A metric that is undefined proves nothing.
pub fn judge(validation: Option<Validation>, evidence: Evidence) -> Verdict {
    let Some(Validation { metric, margin }) = validation else {
        return Verdict { promote: true, reason: None, metric: None, challenger_value: None, champion_value: None };
    };
    let of = |scores: &[Option<f64>]| value(metric, &scores.iter().copied().zip(evidence.labels.iter().copied()).collect::<Vec<_>>());
    let (challenger, champion) = (of(evidence.challenger), evidence.champion.and_then(of));
    let name = metric.sql();
    let (promote, reason) = match (challenger, champion) {
        _ if evidence.champion.is_none() => (true, None),
        (Some(new), Some(old)) if greater_is_better(metric) => (
            new > old - margin,
            (new <= old - margin || new.is_nan() || old.is_nan()).then(|| format!("{name} is not above the champion's less {margin}")),
        ),
        (Some(new), Some(old)) => (
            new < old + margin,
            (new >= old + margin || new.is_nan() || old.is_nan()).then(|| format!("{name} is not below the champion's plus {margin}")),
        ),
        _ => (false, Some(format!("{name} is undefined on this holdout of {} rows", evidence.labels.len()))),
    };
    Verdict { promote, reason, metric: Some(name.to_string()), challenger_value: challenger, champion_value: champion }
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
    fn an_undefined_metric_promotes_only_the_first() {
        let evidence = Evidence { challenger: &[], champion: Some(&[]), labels: &[] };
        let validation = Some(Validation { metric: Metric::Auc, margin: 0.0 });
        let verdict = judge(validation, evidence);
        assert_eq!(verdict.reason.as_deref(), Some("auc is undefined on this holdout of 0 rows"));
        assert!(judge(validation, Evidence { champion: None, ..evidence }).promote);
        assert!(judge(None, evidence).promote, "without VALIDATE everything is");
    }
}
