//! What the demo tells at its end. In: a finished, still answering server. Out: text for a person, with commands to copy.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::server::{Replay, Server};
use crate::http;

const MONTHS_QUERY: &str = "SELECT month, flights, late, 100.0 * late / flights AS late_percent, arr_delay_mean FROM monthly_outcomes ORDER BY month";
const AGREEMENT_QUERY: &str =
    "SELECT (SELECT sum(departures) FROM departures_by_origin) AS by_origin, (SELECT sum(departures) FROM departures_by_carrier) AS by_carrier";
/// The year's most flown aircraft on one of its daily routes.
const LOOKUP_KEYS: &str = "origin=JFK,carrier=AA,dest=LAX,tailnum=N328AA,distance=2475,hour=9,weekday=1";
const LOOKUP_JSON: &str = r#"{"feature_service":"delay_features","entities":{"origin":["JFK"],"carrier":["AA"],"dest":["LAX"],"tailnum":["N328AA"],"distance":[2475.0],"hour":[9],"weekday":[1]}}"#;

pub fn print(server: &Server, binary: &Path, replay: &Replay) -> Result<()> {
    println!("\n== A year of flights, asked one hour before departure: how late will it be? ==\n");
    print!("{}", summary(replay));
    println!("\nHow it turned out, by month (a view over the delayed feedback):");
    println!("{}", query(server, binary, MONTHS_QUERY)?);
    println!("Departures counted by two views, read in one request at one epoch:");
    println!("{}", query(server, binary, AGREEMENT_QUERY)?);
    println!("Features of flight AA, JFK to LAX, aircraft N328AA, at the end of the replay:");
    print!("{}", features(&lookup(server)?)?);
    print!("{}", commands(server, binary));
    Ok(())
}

fn summary(replay: &Replay) -> String {
    let events = replay.status["events"].as_u64().unwrap_or(0);
    let mut text = String::new();
    let rate = |seconds: f64| grouped((events as f64 / seconds.max(0.001)) as u64);
    let _ = writeln!(text, "events   {} in {:.1} s: {} a second", grouped(events), replay.seconds, rate(replay.seconds));
    let _ = writeln!(text, "cpu      {:.1} s: {} events a CPU-second", replay.cpu_seconds, rate(replay.cpu_seconds));
    let named = |list: &str| replay.status[list].as_array().cloned().unwrap_or_default();
    let count = |value: &Value, field: &str| value[field].as_u64().unwrap_or(0);
    for source in named("sources") {
        let _ = writeln!(text, "source   {:<24} {:>9} rows", source["name"].as_str().unwrap_or("?"), grouped(count(&source, "rows")));
    }
    for view in named("views") {
        let name = view["name"].as_str().unwrap_or("?");
        let _ = writeln!(text, "view     {name:<24} {:>9} rows, {} errors", grouped(count(&view, "rows")), count(&view, "errors"));
    }
    text
}

fn query(server: &Server, binary: &Path, sql: &str) -> Result<String> {
    let address = server.flight.to_string();
    let output = Command::new(binary).args(["sql", "--address", &address, sql]).output().context("starting freshet sql")?;
    ensure!(output.status.success(), "freshet sql failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lookup(server: &Server) -> Result<Value> {
    let answer = http::post(server.http, "/get-online-features", LOOKUP_JSON)?;
    ensure!(answer.status == 200, "the lookup was answered with status {}: {}", answer.status, answer.body);
    serde_json::from_str(&answer.body).context("reading the answer of the lookup")
}

/// One line per feature of the first entity: name, value, status.
fn features(answer: &Value) -> Result<String> {
    let names = answer["metadata"]["feature_names"].as_array().context("the lookup's answer has no feature_names")?;
    let results = answer["results"].as_array().context("the lookup's answer has no results")?;
    let mut text = String::new();
    for (name, result) in names.iter().zip(results) {
        let status = result["statuses"][0].as_str().unwrap_or("?");
        let _ = writeln!(text, "  {:<28} {:<22} {status}", name.as_str().unwrap_or("?"), result["values"][0].to_string());
    }
    Ok(text)
}

fn commands(server: &Server, binary: &Path) -> String {
    let (binary, flight) = (binary.display(), server.flight);
    let python = "import sys, adbc_driver_flightsql.dbapi as d; c = d.connect(sys.argv[1]).cursor(); c.execute(sys.argv[2]); print(c.fetchall())";
    let mut text = format!("\nStatus page http://{}   Flight SQL grpc://{flight}   files {}\n", server.http, server.folder.display());
    let _ = writeln!(text, "Copy and paste:");
    let _ = writeln!(text, "  {binary} sql --address {flight} \"SELECT count(*) AS questions FROM questions\"");
    let _ = writeln!(text, "  {binary} features get delay_features --address {flight} --keys {LOOKUP_KEYS}");
    let interpreter = python_of_the_setup();
    let _ = writeln!(text, "  {interpreter} -c '{python}' grpc://{flight} 'SELECT * FROM departures_by_origin'");
    text
}

/// The interpreter that `./dev setup` prepared, else whatever the shell finds.
#[allow(clippy::disallowed_methods, reason = "the tool's own setting, handed over by ./dev")]
fn python_of_the_setup() -> String {
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
    fn the_summary_names_rates_sources_and_views() {
        let status =
            json!({"events": 2_000_000, "sources": [{"name": "arrivals", "rows": 1000}], "views": [{"name": "questions", "rows": 5, "errors": 1}]});
        let text = summary(&Replay { seconds: 10.0, cpu_seconds: 20.0, status });
        assert!(text.contains("2,000,000 in 10.0 s: 200,000 a second"), "{text}");
        assert!(text.contains("100,000 events a CPU-second"), "{text}");
        assert!(text.contains("arrivals") && text.contains("5 rows, 1 errors"), "{text}");
    }

    #[test]
    fn features_are_listed_with_their_status() {
        let answer = json!({"metadata": {"feature_names": ["a", "b"]}, "results": [{"values": [1], "statuses": ["PRESENT"]}, {"values": [null], "statuses": ["NOT_FOUND"]}]});
        let text = features(&answer).unwrap();
        assert!(text.lines().count() == 2 && text.contains("NOT_FOUND"), "{text}");
        assert!(features(&json!({})).is_err());
    }
}
