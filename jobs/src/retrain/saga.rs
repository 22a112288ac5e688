//! The steps of one run (C6). Pure: the record says what comes next, and the outcome of a step gives the next record. Who performs a step
//! writes the record before the next begins, so a run that was cut off anywhere goes on from its last whole step.

use crate::retrain::journal::{DataFacts, RunRecord, RunResult, TrainingFacts, Verdict};

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Compute the training data and write its files.
    Prepare,
    Train,
    /// Score the holdout with challenger and champion.
    Judge,
    /// Give the version its number. In the order of control records, not of the machine: numbers are results.
    Register,
    /// The run has ended.
    Rest,
}

/// How a step ended.
#[derive(Debug, Clone)]
pub enum Ended {
    Prepared(DataFacts),
    TooFewRows {
        facts: DataFacts,
        wanted: u64,
    },
    Trained(TrainingFacts),
    Judged(Verdict),
    Registered(u32),
    /// The trainer, or what it left behind, is to blame. The pipeline goes on with what it has.
    Failed(String),
}

pub fn next(run: &RunRecord) -> Step {
    match run {
        RunRecord { result: Some(_), .. } => Step::Rest,
        RunRecord { verdict: Some(_), .. } => Step::Register,
        RunRecord { trained: Some(_), .. } => Step::Judge,
        RunRecord { data: Some(_), .. } => Step::Train,
        _ => Step::Prepare,
    }
}

pub fn after(run: RunRecord, ended: Ended) -> RunRecord {
    match ended {
        Ended::Prepared(facts) => RunRecord { data: Some(facts), ..run },
        Ended::TooFewRows { facts, wanted } => {
            let reason = format!("too few rows ({} < {wanted})", facts.train_rows);
            RunRecord { data: Some(facts), result: Some(RunResult::Skipped), reason: Some(reason), ..run }
        }
        Ended::Trained(facts) => RunRecord { trained: Some(facts), ..run },
        Ended::Judged(verdict) => RunRecord { verdict: Some(verdict), ..run },
        Ended::Registered(version) => {
            let verdict = run.verdict.as_ref().expect("what is registered was judged");
            let result = if verdict.promote { RunResult::Promoted } else { RunResult::Rejected };
            RunRecord { version: Some(version), result: Some(result), reason: verdict.reason.clone(), ..run }
        }
        Ended::Failed(reason) => RunRecord { result: Some(RunResult::Failed), reason: Some(reason), ..run },
    }
}

#[cfg(test)]
mod tests {
    use freshet_core::Epoch;

    use super::*;
    use crate::retrain::journal::tests::record;

    fn facts() -> DataFacts {
        DataFacts {
            train_rows: 7,
            holdout_rows: 3,
            null_labels: 0,
            asked_at: Vec::new(),
            train_from: Epoch(0),
            train_until: Epoch(1),
            train_sha256: String::new(),
            holdout_sha256: String::new(),
            labels_sha256: String::new(),
        }
    }

    fn outcomes(step: Step) -> Vec<Ended> {
        let failed = Ended::Failed("it broke".into());
        let trained = TrainingFacts { output: "attempt-1".into(), attempts: 1, model_sha256: String::new(), trainer_ms: 5 };
        let verdict = |promote| Verdict { promote, reason: None, metric: None, challenger_value: None, champion_value: None };
        match step {
            Step::Prepare => vec![Ended::Prepared(facts()), Ended::TooFewRows { facts: facts(), wanted: 8 }, failed],
            Step::Train => vec![Ended::Trained(trained), failed],
            Step::Judge => vec![Ended::Judged(verdict(true)), Ended::Judged(verdict(false)), failed],
            Step::Register => vec![Ended::Registered(4)],
            Step::Rest => vec![],
        }
    }

    /// Every way a run can go.
    fn ends(run: RunRecord) -> Vec<RunRecord> {
        let step = next(&run);
        let ways = outcomes(step);
        if ways.is_empty() { vec![run] } else { ways.into_iter().flat_map(|ended| ends(after(run.clone(), ended))).collect() }
    }

    #[test]
    fn every_run_ends_with_a_result_and_a_version_only_if_it_was_judged() {
        let ends = ends(record("r"));
        let mut found: Vec<(&str, bool, bool)> =
            ends.iter().map(|run| (run.result.unwrap().name(), run.version.is_some(), run.verdict.is_some())).collect();
        found.sort_unstable();
        let expected = [
            ("failed", false, false),
            ("failed", false, false),
            ("failed", false, false),
            ("promoted", true, true),
            ("rejected", true, true),
            ("skipped", false, false),
        ];
        assert_eq!(found, expected);
        assert!(ends.iter().all(|run| run.result != Some(RunResult::Skipped) || run.reason.as_deref() == Some("too few rows (7 < 8)")));
    }

    #[test]
    fn no_step_is_done_twice_and_reading_a_record_back_changes_nothing() {
        let mut waiting = vec![record("r")];
        while let Some(run) = waiting.pop() {
            let step = next(&run);
            let read: RunRecord = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
            assert_eq!(next(&read), step);
            for ended in outcomes(step) {
                let run = after(run.clone(), ended);
                assert_ne!(next(&run), step);
                waiting.push(run);
            }
        }
    }
}
