//! Bad input (C3, T13) through a running pipeline: where it lands, what it leaves alone, and how it comes in again.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::running::{Running, all, freshet, tests_folder, text};
use crate::serving::Serving;

const RAW_BYTES_MAX: usize = 64 << 10;

const PIPELINE: &str = "SET clock = 'wall';
CREATE SOURCE rides (
  ride_id BIGINT NOT NULL, city VARCHAR NOT NULL, fare DOUBLE, at TIMESTAMP(3), place BIGINT METADATA FROM 'offset',
  WATERMARK FOR at
) WITH (connector = 'push', max_record_bytes = '100000', max_skew = '1 second') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW kept AS SELECT ride_id, city, fare, place FROM rides;
";

const GOOD: &str = "{\"ride_id\": 7, \"city\": \"Bern\", \"fare\": 2.5, \"at\": \"2025-01-01T00:00:00Z\"}";

fn start(folder: &Path) -> Running {
    let script = folder.join("pipeline.sql");
    fs::write(&script, PIPELINE).unwrap();
    let running = Running::endless(&script, &folder.join("state"));
    let answers = || asked(&running, "SELECT count(*) AS n FROM kept").status.success();
    running.wait_until("an epoch is complete", answers);
    running
}

/// Pushes these lines, which may be no text, as one request.
fn push(running: &Running, lines: &[&[u8]]) {
    let body: Vec<u8> = lines.iter().flat_map(|line| [*line, b"\n"].concat()).collect();
    let head = format!(
        "POST /v1/ingest/rides HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // The first poll opens the source.
    running.wait_until("the push is taken", || {
        let mut stream = TcpStream::connect(&running.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    });
}

fn asked(running: &Running, query: &str) -> Output {
    freshet().args(["sql", "--address", &running.flight, "--format", "json", query]).output().unwrap()
}

/// The answer as one object a line.
fn sql(running: &Running, query: &str) -> Vec<Value> {
    let output = asked(running, query);
    assert!(output.status.success(), "{}", all(&output));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn letters(running: &Running) -> Vec<Value> {
    sql(running, "SELECT * FROM \"dead_letters(rides)\" ORDER BY \"offset\"")
}

fn places(running: &Running) -> Vec<u64> {
    sql(running, "SELECT place FROM kept ORDER BY place").iter().map(|row| row["place"].as_u64().unwrap()).collect()
}

fn command(running: &Running, arguments: &[&str]) -> Output {
    freshet().arg("dead-letters").args(arguments).args(["--address", &running.flight]).output().unwrap()
}

/// How many dead letters the metrics count for `rides`.
fn counted(running: &Running) -> u64 {
    let metrics = running.get("/metrics").1;
    let lines = metrics.lines().filter(|line| line.starts_with("freshet_dead_letters_total{source=\"rides\""));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[allow(clippy::disallowed_methods, reason = "a client stamps its rows with its clock")]
fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + seconds * 1000
}

/// Each with the field and the beginning of the reason, and whether its bytes were still at hand.
fn bad_records() -> Vec<(Vec<u8>, &'static str, &'static str, bool)> {
    let deep = format!("{{\"ride_id\": 1, \"fare\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let large = format!("{{\"ride_id\": 1, \"city\": \"{}\"}}", "x".repeat(100_000));
    let record = |text: &str| text.as_bytes().to_vec();
    vec![
        (record("{\"ride_id\": 1, \"city\": \"Be"), "", "not a JSON object: EOF while parsing a string", true),
        (record(&large), "", "the record has 100026 bytes, max_record_bytes is 100000", true),
        (record("{\"ride_id\": \"x\", \"city\": \"Bern\"}"), "ride_id", "expected BIGINT, found the string \"x\"", true),
        (record("{\"ride\": 1}"), "ride_id", "NULL or missing, but the column is NOT NULL", true),
        (record("[1, 2]"), "", "invalid type: sequence", true),
        (b"{\"ride_id\": 1, \"city\": \"\xff\xfe\"}".to_vec(), "", "not UTF-8 at byte", true),
        (record(&deep), "fare", "expected DOUBLE, found an array", true),
        (record("{\"ride_id\": 1, \"city\": \"Bern\", \"fare\": NaN}"), "", "not a JSON object: expected value", true),
        (record("{\"ride_id\": 1, \"city\": \"Bern\", \"at\": null}"), "at", "event time is NULL", true),
        (record("{\"ride_id\": 1, \"city\": \"Bern\"}"), "at", "event time is NULL", true),
        (record("{\"ride_id\": 1, \"city\": \"Bern\", \"at\": \"1969-12-31T23:59:59Z\"}"), "at", "event time is before 1970", true),
        (record("{\"ride_id\": 1, \"city\": \"Bern\", \"at\": \"2201-01-01T00:00:00Z\"}"), "at", "event time is after 2200", true),
        (
            record("{\"ride_id\": 1, \"city\": \"Bern\", \"at\": \"2099-01-01T00:00:00Z\"}"),
            "at",
            "event time is more than max_skew (1 second) ahead",
            false,
        ),
        (record("{\"ride_id\": 1, \"city\": \"Bern\", \"ride_id\": 2}"), "ride_id", "the member stands twice in its object", true),
    ]
}

#[test]
fn c3_every_kind_of_bad_record_keeps_place_reason_and_bytes_over_a_restart_and_touches_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let bad = bad_records();
    let lines: Vec<&[u8]> = bad.iter().flat_map(|record| [record.0.as_slice(), GOOD.as_bytes()]).collect();
    push(&running, &lines);
    let good: Vec<u64> = (0..bad.len() as u64).map(|index| 2 * index + 1).collect();
    running.wait_until("all is read", || places(&running) == good);
    let found = letters(&running);
    assert_eq!(found.len(), bad.len());
    for (index, ((raw, field, reason, exact), letter)) in bad.iter().zip(&found).enumerate() {
        assert_eq!((&letter["source"], &letter["partition"], &letter["offset"]), (&json!("rides"), &json!(0), &json!(2 * index)));
        assert_eq!(letter["field"], *field, "{reason}");
        assert!(letter["reason"].as_str().unwrap().starts_with(reason), "{} is not {reason}", letter["reason"]);
        assert!(letter["epoch"].as_u64().unwrap() > 1_700_000_000_000 && letter["key"].is_null());
        if *exact {
            assert!(letter["raw"] == hexadecimal(&raw[..raw.len().min(RAW_BYTES_MAX)]), "{reason}");
            assert_eq!((&letter["raw_bytes"], &letter["form"]), (&json!(raw.len()), &json!("record")));
        } else {
            let row: Value = serde_json::from_str(letter["text"].as_str().unwrap()).unwrap();
            assert_eq!((&row["ride_id"], &row["at"], &letter["form"]), (&json!(1), &json!("2099-01-01T00:00:00"), &json!("row")));
        }
    }
    assert_eq!(counted(&running), bad.len() as u64);
    assert_eq!(sql(&running, "SELECT count(*) AS n FROM \"errors(kept)\"")[0]["n"], 0);
    assert!(sql(&running, "SELECT DISTINCT city, fare FROM kept") == [json!({"city": "Bern", "fare": 2.5})]);

    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    let running = start(folder.path());
    running.wait_until("what was kept is there", || places(&running) == good);
    assert!(letters(&running) == found, "the dead letters are others after a restart");
}

#[test]
fn dead_letters_are_listed_for_people_and_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let long = format!("{{\"ride_id\": 1, \"city\": \"a\x1b[2J{}", "y".repeat(200));
    push(&running, &[b"no json", GOOD.as_bytes(), long.as_bytes()]);
    running.wait_until("all is read", || places(&running) == [1]);
    let table = command(&running, &["list", "rides"]);
    let shown = text(&table.stdout);
    assert!(
        shown.lines().next().unwrap().split_whitespace().eq(["epoch", "source", "partition", "offset", "origin", "field", "reason", "record"]),
        "{shown}"
    );
    assert!(shown.contains("no json") && shown.ends_with("(2 rows)\n") && !shown.contains('\x1b'), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 300) && shown.contains('…'), "{shown}");
    let one = command(&running, &["list", "--reason", "expected ident", "--format", "json"]);
    let one: Value = serde_json::from_str(&text(&one.stdout)).unwrap();
    assert_eq!((&one["raw"], &one["offset"]), (&json!(hexadecimal(b"no json")), &json!(0)));
    let limited = command(&running, &["list", "--limit", "1", "--format", "csv"]);
    assert_eq!(text(&limited.stdout).lines().count(), 2);
    assert!(text(&limited.stderr).contains("1 of 2 dead letters"), "{}", all(&limited));
    let unknown = command(&running, &["list", "taxis"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", all(&unknown));
}

#[test]
fn corrected_records_come_in_again_at_their_offsets_and_leave_the_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    push(&running, &[b"{\"ride_id\": \"x\", \"city\": \"Bern\"}", GOOD.as_bytes(), b"no json", b"\xff"]);
    running.wait_until("all is read", || places(&running) == [1]);

    let tried = command(&running, &["replay", "rides"]);
    assert_eq!(tried.status.code(), Some(1), "{}", all(&tried));
    let said = text(&tried.stdout);
    assert!(said.starts_with("0 of 3 dead letters of rides have come in again\n"), "{said}");
    assert!(said.contains("stays: partition 0, offset 0, field ride_id: expected BIGINT"), "{said}");
    assert_eq!(letters(&running).len(), 3);

    let file = folder.path().join("letters.jsonl");
    let exported = command(&running, &["export", "rides", "--out", file.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", all(&exported));
    let lines = fs::read_to_string(&file).unwrap();
    assert!(lines.contains("\"raw\":\"no json\"") && lines.contains("\"raw_hex\":\"ff\""), "{lines}");
    let at = "\"at\": \"2025-01-01T00:00:00Z\"";
    let fixed = format!(
        "{}\n{}\n",
        json!({"offset": 0, "raw": format!("{{\"ride_id\": 1, \"city\": \"Bern\", {at}}}"), "reason": "as exported"}),
        json!({"partition": 0, "offset": 3, "raw_hex": hexadecimal(format!("{{\"ride_id\": 3, \"city\": \"Genf\", {at}}}").as_bytes())}),
    );
    fs::write(&file, fixed).unwrap();
    let dry = command(&running, &["replay", "rides", "--from", file.to_str().unwrap(), "--dry-run"]);
    assert!(text(&dry.stdout).starts_with("2 of 2 dead letters of rides can be read now; nothing was changed"), "{}", all(&dry));
    assert_eq!((places(&running), letters(&running).len()), (vec![1], 3));
    let replayed = command(&running, &["replay", "rides", "--from", file.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(0), "{}", all(&replayed));
    assert!(text(&replayed.stdout).starts_with("2 of 2 dead letters of rides have come in again, the last at epoch "), "{}", all(&replayed));
    running.wait_until("they are rows", || places(&running) == [0, 1, 3]);
    let left: Vec<Value> = letters(&running).iter().map(|letter| letter["offset"].clone()).collect();
    assert_eq!(left, [2]);

    let again = command(&running, &["replay", "rides", "--from", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "{}", all(&again));
    assert!(text(&again.stderr).contains("partition 0, offset 0 is no dead letter of rides"), "{}", all(&again));
    let unknown = command(&running, &["replay", "taxis"]);
    assert!(text(&unknown.stderr).contains("there is no source taxis; known: rides"), "{}", all(&unknown));

    // By HTTP too, and over a stop.
    let (code, answer) = running.post("/v1/dead-letters/rides/replay", "{\"offsets\": [{\"partition\": 0, \"from\": 2, \"to\": 9}]}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["selected"], &answer["replayed"], &answer["refused"][0]["offset"]), (200, &json!(1), &json!(0), &json!(2)));
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    let running = start(folder.path());
    running.wait_until("what came in again is there", || places(&running) == [0, 1, 3]);
    assert_eq!(letters(&running).len(), 1);
    // Positions go on where they were.
    push(&running, &[GOOD.as_bytes()]);
    running.wait_until("the next row has the next place", || places(&running) == [0, 1, 3, 4]);
}

#[test]
fn t13_a_row_that_was_ahead_of_its_time_comes_in_once_the_time_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let ahead = format!("{{\"ride_id\": 1, \"city\": \"Bern\", \"fare\": 1.25, \"at\": {}}}", in_seconds(9));
    push(&running, &[ahead.as_bytes()]);
    running.wait_until("it is set aside", || letters(&running).len() == 1);
    let early = command(&running, &["replay", "rides"]);
    let said = text(&early.stdout);
    assert!(early.status.code() == Some(1) && said.starts_with("0 of 1 dead letters of rides have come in again"), "{}", all(&early));
    assert!(said.contains("stays: partition 0, offset 0, field at: event time is more than max_skew (1 second) ahead of the clock"), "{said}");
    running.wait_until("it comes in", || command(&running, &["replay", "rides"]).status.code() == Some(0) && letters(&running).is_empty());
    running.wait_until("it is a row", || sql(&running, "SELECT ride_id, city, fare, place FROM kept").len() == 1);
    assert_eq!(sql(&running, "SELECT * FROM kept"), [json!({"ride_id": 1, "city": "Bern", "fare": 1.25, "place": 0})]);
}

#[test]
fn in_event_clock_a_replay_is_refused_with_the_reason() {
    let running = Running::start(&[]);
    let refused = command(&running, &["replay", "rides"]);
    assert_eq!(refused.status.code(), Some(2), "{}", all(&refused));
    assert!(text(&refused.stderr).contains("with clock = 'event' a run is a function of its input"), "{}", all(&refused));
    let listed = command(&running, &["list"]);
    assert!(text(&listed.stdout).ends_with("(0 rows)\n"), "{}", all(&listed));
}

/// A `freshet run` over these lines in event clock.
fn run_file(folder: &Path, lines: &[u8], bad_data: &str) -> Command {
    fs::write(folder.join("rows.jsonl"), lines).unwrap();
    let script = format!(
        "SET clock = 'event';
CREATE SOURCE r (a BIGINT, at TIMESTAMP(3), WATERMARK FOR at)
WITH (connector = 'file', path = '{}/rows.jsonl', bad_data = '{bad_data}') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW v AS SELECT a FROM r;
",
        folder.display()
    );
    fs::write(folder.join("p.sql"), script).unwrap();
    let mut command = freshet();
    command.arg("run").arg(folder.join("p.sql")).args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(folder.join("state"));
    command
}

#[test]
fn c3_bad_data_is_kept_or_dropped_and_counted_in_both_cases() {
    let lines = b"{\"a\": 1, \"at\": 1000}\nnonsense\n{\"a\": 2, \"at\": 2000}\n{\"a\": 4}\n";
    for (bad_data, dead) in [("dead_letter", json!([1, 3])), ("drop", json!([]))] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = run_file(folder.path(), lines, bad_data);
        command.arg("--keep");
        let running = Running::spawn(command);
        running.wait_until("the run has finished", || running.get("/v1/status").1.contains("\"finished\":true"));
        assert_eq!(sql(&running, "SELECT sum(a) AS a, count(*) AS n FROM v"), [json!({"a": 3, "n": 2})]);
        let found = sql(&running, "SELECT \"offset\" FROM \"dead_letters(r)\" ORDER BY \"offset\"");
        assert_eq!(json!(found.iter().map(|letter| letter["offset"].clone()).collect::<Vec<_>>()), dead, "{bad_data}");
        let metrics = running.get("/metrics").1;
        for reason in ["not a JSON object: expected ident at byte 2", "event time is NULL"] {
            let line = format!("freshet_dead_letters_total{{source=\"r\",reason=\"{reason}\"}} 1\n");
            assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        }
    }
}

#[test]
fn c3_bad_data_fail_ends_with_three_and_names_source_partition_offset_field_and_reason() {
    for (line, words) in [
        ("{\"a\": \"x\", \"at\": 2000}", "field \"a\": expected BIGINT, found the string \"x\""),
        ("{\"a\": 1, \"at\": null}", "field \"at\": event time is NULL"),
        ("{\"a\": 1, \"at\": \"2250-01-01\"}", "field \"at\": event time is after 2200"),
        ("{\"a\": 1, \"at\": \"2050-01-01\"}", "field \"at\": event time is more than max_jump (30 days) ahead"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = run_file(folder.path(), format!("{{\"a\": 1, \"at\": 1000}}\n{line}\n").as_bytes(), "fail").output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", all(&output));
        let said = text(&output.stderr);
        assert!(said.contains("source r, partition 0, offset 1") && said.contains(words), "{said}");
    }
}

#[test]
fn dead_letters_of_a_pipeline_are_listed_through_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(tests_folder().join("pipeline/input/rides.jsonl")).unwrap();
    fs::write(folder.path().join("rides.jsonl"), format!("not json\n{good}")).unwrap();
    let serving = Serving::start(&folder.path().join("state"), &[], None);
    let data = format!("data={}", folder.path().display());
    let submitted = serving.ask(&["submit", "taxi", tests_folder().join("pipeline").to_str().unwrap(), "--var", &data]);
    assert!(submitted.status.success(), "{}", all(&submitted));
    serving.wait_for_state("taxi", "finished");
    let listed = freshet().args(["dead-letters", "list", "--pipeline", "taxi", "--address", &serving.flight]).output().unwrap();
    assert!(text(&listed.stdout).contains("rides.jsonl") && text(&listed.stdout).contains("not json"), "{}", all(&listed));
    let refused = freshet().args(["dead-letters", "replay", "rides", "--pipeline", "taxi", "--address", &serving.flight]).output().unwrap();
    assert!(text(&refused.stderr).contains("clock = 'event'"), "{}", all(&refused));
}
