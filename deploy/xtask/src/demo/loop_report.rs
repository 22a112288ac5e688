//! The loop in two tables: how well each month was predicted, with and without retraining, and which alarm made which model. In: rows of
//! `quality` and of `runs(retrain_delay)` as JSON, and the runs' records. Out: text for a person.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The frozen model's training data ends in this month: until the next one both are the same model.
const FIRST_MONTH: i64 = 2;

/// AUC and log loss per month, both ways, and the mean gain of AUC over the months after the first model's.
pub fn months(quality: &[Value]) -> String {
    if quality.is_empty() {
        return "No prediction has been judged yet: the first model is trained as of 1 February 2013, and these data end before its first\n\
                answers have arrived. Leave --days away, or give it more than 31.\n"
            .to_string();
    }
    let mut text = String::from("            ------------ AUC ------------   ----- log loss -----\n");
    text.push_str("month   flights  retrained   frozen     gain   retrained   frozen\n");
    let mut gains = Vec::new();
    for row in quality {
        let month = row["month"].as_i64().unwrap_or(0);
        let number = |name: &str| row[name].as_f64();
        let gain = number("auc_live").zip(number("auc_frozen")).map(|(live, frozen)| live - frozen);
        gains.extend(gain.filter(|_| month > FIRST_MONTH));
        let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
        let _ = writeln!(
            text,
            "{month:>5} {:>9} {:>10} {:>8} {:>8} {:>11} {:>8}",
            row["flights"].as_u64().unwrap_or(0),
            shown(number("auc_live")),
            shown(number("auc_frozen")),
            gain.map_or_else(|| "-".into(), |gain| format!("{gain:+.3}")),
            shown(number("log_loss_live")),
            shown(number("log_loss_frozen")),
        );
    }
    if !gains.is_empty() {
        let _ = writeln!(text, "Retraining gained {:+.3} of AUC on average from March on.", gains.iter().sum::<f64>() / gains.len() as f64);
    }
    text
}

/// One line per run: when, what came of it, why.
pub fn runs(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "No retraining run yet.\n".to_string();
    }
    let mut text = String::from("decided at         result               auc    before  why\n");
    for row in rows {
        let shown = |name: &str| row[name].as_f64().map_or_else(|| "-".into(), |value| format!("{value:.3}"));
        let word = |name: &str| row[name].as_str().unwrap_or("?");
        let version = row["version"].as_i64().map_or(String::new(), |version| format!(" v{version}"));
        let result = format!("{}{version}", word("result"));
        let decided: String = word("decided_at").replace('T', " ").chars().take(16).collect();
        let failed = matches!(word("result"), "failed" | "skipped");
        let reason = row["reason"].as_str().filter(|_| failed).map_or(String::new(), |reason| format!(": {reason}"));
        let (new, old) = (shown("challenger_value"), shown("champion_value"));
        let _ = writeln!(text, "{decided:<17}  {result:<16} {new:>8} {old:>8}  {}{reason}", word("cause"));
    }
    text
}

/// Machine time of the trainers, one per run that trained.
pub struct TrainerTimes {
    pub seconds: Vec<f64>,
}

impl TrainerTimes {
    /// Reads `run.json` of every run below the data directory; none if there is no run. Errors: a record cannot be read.
    pub fn read(data_dir: &Path) -> Result<TrainerTimes> {
        let mut seconds = Vec::new();
        let Ok(folders) = std::fs::read_dir(data_dir.join("runs")) else {
            return Ok(TrainerTimes { seconds });
        };
        for folder in folders {
            let path = folder?.path().join("run.json");
            if !path.is_file() {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let record: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
            seconds.extend(record["trained"]["trainer_ms"].as_f64().map(|ms| ms / 1e3));
        }
        Ok(TrainerTimes { seconds })
    }

    pub fn total(&self) -> f64 {
        self.seconds.iter().sum()
    }

    pub fn longest(&self) -> f64 {
        self.seconds.iter().fold(0.0, |longest, seconds| longest.max(*seconds))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn months_show_both_ways_and_the_mean_gain_after_the_first() {
        let row = |month: i64, live: f64| json!({"month": month, "flights": 10, "auc_live": live, "auc_frozen": 0.6, "log_loss_live": 0.5, "log_loss_frozen": null});
        let text = months(&[row(2, 0.6), row(3, 0.65), row(4, 0.63)]);
        assert!(text.contains("    3        10      0.650    0.600   +0.050       0.500        -"), "{text}");
        assert!(text.ends_with("gained +0.040 of AUC on average from March on.\n"), "{text}");
        assert!(months(&[]).contains("No prediction has been judged yet"));
    }

    #[test]
    fn runs_tell_what_made_which_version() {
        let first = json!({"decided_at": "2013-02-01T05:00:00.000Z", "cause": "first", "result": "promoted", "reason": null, "version": 1, "challenger_value": 0.7, "champion_value": null});
        let failed = json!({"decided_at": "2013-04-02T00:00:00.000Z", "cause": "every 60 days", "result": "failed", "reason": "exit 3", "version": null, "challenger_value": null, "champion_value": null});
        let text = runs(&[first, failed]);
        assert!(text.contains("2013-02-01 05:00   promoted v1         0.700        -  first\n"), "{text}");
        assert!(text.contains("failed                  -        -  every 60 days: exit 3\n"), "{text}");
        assert_eq!(runs(&[]), "No retraining run yet.\n");
    }

    #[test]
    fn trainer_time_is_that_of_the_runs_that_trained() {
        let folder = std::env::temp_dir().join(format!("freshet-trainer-times-{}", std::process::id()));
        for (run, text) in [("a", r#"{"trained":{"trainer_ms":1500}}"#), ("b", r#"{"trained":null}"#), ("c", r#"{"trained":{"trainer_ms":500}}"#)] {
            std::fs::create_dir_all(folder.join("runs").join(run)).unwrap();
            std::fs::write(folder.join("runs").join(run).join("run.json"), text).unwrap();
        }
        let times = TrainerTimes::read(&folder).unwrap();
        assert_eq!((times.seconds.len(), times.total(), times.longest()), (2, 2.0, 1.5));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(TrainerTimes::read(&folder).unwrap().seconds.is_empty());
    }
}
