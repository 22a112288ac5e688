//! A finished run in one line, for the terminal.

use std::time::Duration;

use crate::progress::grouped;
use crate::retrain::journal::{AskedAt, RunRecord, RunResult};

/// `run retrain_delay-2013-…: every 60 days; auc 0.7100 against 0.6900: version 3 promoted (2.3 s)`.
pub fn line(run: &RunRecord, took: Duration) -> String {
    let verdict = run.verdict.as_ref();
    let measured = verdict.and_then(|verdict| Some((verdict.metric.as_deref()?, verdict.challenger_value?, verdict.champion_value)));
    let measured = match measured {
        Some((metric, new, Some(old))) => format!("; {metric} {new:.4} against {old:.4}"),
        Some((metric, new, None)) => format!("; {metric} {new:.4}"),
        None => String::new(),
    };
    let version = run.version.map_or(String::new(), |version| format!("version {version} "));
    let result = match run.result {
        Some(RunResult::Promoted) => "promoted".to_string(),
        Some(result) => format!("{} ({})", result.name(), run.reason.as_deref().unwrap_or("no reason given")),
        None => "not finished".to_string(),
    };
    let asked_at = run.data.iter().flat_map(|data| &data.asked_at).filter(|asked| asked.apart > 0);
    let asked_at: String = asked_at.map(|asked| format!("; {}", not_as_served(asked))).collect();
    format!("run {}: {}{measured}: {version}{result}{asked_at} ({:.1} s)", run.run_id, run.cause, took.as_secs_f64())
}

/// `1,204 of 20,679 rows ask at a time (at) that is not their arrival (T5)`.
pub fn not_as_served(asked: &AskedAt) -> String {
    format!("{} of {} rows ask at a time ({}) that is not their arrival (T5)", grouped(asked.apart), grouped(asked.rows), asked.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrain::journal::Verdict;
    use crate::retrain::journal::tests::record;

    #[test]
    fn the_line_says_why_how_good_and_what_came_of_it() {
        let mut run = record("r-1");
        run.result = Some(RunResult::Failed);
        run.reason = Some("the trainer exited with 3".into());
        assert_eq!(line(&run, Duration::from_millis(2345)), "run r-1: first: failed (the trainer exited with 3) (2.3 s)");
        run.result = Some(RunResult::Promoted);
        run.version = Some(3);
        let metric = Some("auc".to_string());
        run.verdict = Some(Verdict { promote: true, reason: None, metric, challenger_value: Some(0.71), champion_value: Some(0.69) });
        assert_eq!(line(&run, Duration::from_millis(900)), "run r-1: first; auc 0.7100 against 0.6900: version 3 promoted (0.9 s)");
    }
}
