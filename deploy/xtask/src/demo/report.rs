//! What the demo tells at its end. In: a finished, still answering server. Out: text for a person, with commands to copy.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::latency::Latencies;
use super::loop_report::{TrainerTimes, months, runs};
use super::server::{Replay, Server};

const QUALITY: &str = "SELECT month, flights, auc_live, auc_frozen, log_loss_live, log_loss_frozen FROM quality ORDER BY month";
const RUNS: &str = "SELECT decided_at, cause, result, reason, version, challenger_value, champion_value FROM runs(retrain_delay) ORDER BY decided_at";
/// The year's most flown aircraft on one of its daily routes.
const LOOKUP_KEYS: &str = "origin=JFK,carrier=AA,dest=LAX,tailnum=N328AA,distance=2475,hour=9,weekday=1";
const LOOKUP_PATH: &str = "/get-online-features";
const LOOKUP_JSON: &str = r#"{"feature_service":"delay_features","entities":{"origin":["JFK"],"carrier":["AA"],"dest":["LAX"],"tailnum":["N328AA"],"distance":[2475.0],"hour":[9],"weekday":[1]}}"#;

pub fn print(server: &Server, binary: &Path, replay: &Replay) -> Result<()> {
    println!("\n== A year of flights. Asked one hour before departure: will it arrive more than 15 minutes late? ==\n");
    let trainers = TrainerTimes::read(&server.state())?;
    print!("{}", summary(replay, &trainers));
    println!("lookups   {}", Latencies::measure(server.http, LOOKUP_PATH, LOOKUP_JSON)?.line());
    println!("\nHow well each month was predicted, with retraining and by the first model alone (AUC: 1 is perfect, 0.5 a coin):");
    print!("{}", months(&query(server, binary, QUALITY)?));
    println!("\nWhich alarm caused which model (auc: on the week before the decision, new model and the one before):");
    print!("{}", runs(&query(server, binary, RUNS)?));
    print!("{}", commands(server, binary));
    Ok(())
}

fn summary(replay: &Replay, trainers: &TrainerTimes) -> String {
    let events = replay.status["events"].as_u64().unwrap_or(0);
    let rate = |seconds: f64| grouped((events as f64 / seconds.max(0.001)) as u64);
    let data = replay.seconds - trainers.total();
    let mut text = String::new();
    let _ = writeln!(text, "events    {} in {:.1} s", grouped(events), replay.seconds);
    let _ = writeln!(text, "data      {data:.1} s without the trainers: {} events a second", rate(data));
    if !trainers.seconds.is_empty() {
        let (total, runs) = (trainers.total(), trainers.seconds.len());
        let noun = if runs == 1 { "run" } else { "runs" };
        let _ = writeln!(text, "trainers  {total:.1} s in {runs} {noun}: {:.1} s a run, {:.1} s at most", total / runs as f64, trainers.longest());
    }
    let _ = writeln!(text, "cpu       {:.1} s of the server: {} events a CPU-second", replay.cpu_seconds, rate(replay.cpu_seconds));
    let errors = |list: &str| {
        let rows = replay.status[list].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["errors"].as_u64()).sum::<u64>()
    };
    let _ = writeln!(text, "errors    {} rows of views, {} scores", errors("views"), errors("models"));
    text
}

/// The rows of an answer, one object each.
fn query(server: &Server, binary: &Path, sql: &str) -> Result<Vec<Value>> {
    let address = server.flight.to_string();
    let output = Command::new(binary).args(["sql", "--address", &address, "--format", "json", sql]).output().context("starting freshet sql")?;
    ensure!(output.status.success(), "freshet sql failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("reading the answer {line}"))).collect()
}

fn commands(server: &Server, binary: &Path) -> String {
    let (binary, flight) = (binary.display(), server.flight);
    let python = "import sys, adbc_driver_flightsql.dbapi as d; c = d.connect(sys.argv[1]).cursor(); c.execute(sys.argv[2]); print(c.fetchall())";
    let mut text = format!("\nStatus page http://{}   Flight SQL grpc://{flight}   files {}\n", server.http, server.folder.display());
    let _ = writeln!(text, "Copy and paste:");
    let _ = writeln!(text, "  {binary} sql --address {flight} \"SELECT * FROM runs(retrain_delay)\"");
    let _ = writeln!(text, "  {binary} features get delay_features --address {flight} --keys {LOOKUP_KEYS}");
    let interpreter = python_of_the_setup();
    let _ = writeln!(text, "  {interpreter} -c '{python}' grpc://{flight} 'SELECT month, auc_live, auc_frozen FROM quality'");
    text
}

/// The interpreter that `./dev setup` prepared, else whatever the shell finds.
#[allow(clippy::disallowed_methods, reason = "the tool's own setting, handed over by ./dev")]
pub fn python_of_the_setup() -> String {
    std::env::var("FRESHET_PYTHON").unwrap_or_else(|_| "python3".to_string())
}

/// 1018758 as 1,018,758.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_018_758].map(grouped), ["0", "999", "1,000", "1,018,758"]);
    }

    #[test]
    fn the_summary_tells_the_data_part_from_the_trainers() {
        let status = json!({"events": 2_000_000, "views": [{"errors": 1}, {"errors": 2}], "models": [{"errors": 4}]});
        let replay = Replay { seconds: 14.0, cpu_seconds: 20.0, status };
        let text = summary(&replay, &TrainerTimes { seconds: vec![1.0, 3.0] });
        assert!(text.contains("2,000,000 in 14.0 s"), "{text}");
        assert!(text.contains("10.0 s without the trainers: 200,000 events a second"), "{text}");
        assert!(text.contains("4.0 s in 2 runs: 2.0 s a run, 3.0 s at most"), "{text}");
        assert!(text.contains("100,000 events a CPU-second"), "{text}");
        assert!(text.contains("3 rows of views, 4 scores"), "{text}");
        assert!(!summary(&replay, &TrainerTimes { seconds: Vec::new() }).contains("trainers  "));
    }
}
