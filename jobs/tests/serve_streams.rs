//! Pipelines of a server whose rows come from Kafka, or from clients that push them: paused, killed, crashed by one record, and gone on with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients::python;
use crate::kafka_broker::{self as broker, Kafka};
use crate::running::{all, freshet, post, tests_folder, text};
use crate::serving::{Serving, WAIT_MAX, kill, rows};

const TOTALS: &str = "SELECT n, ids FROM totals";

/// Counts the records of a topic, in wall clock and without an end.
fn kafka_pipeline(folder: &Path, kafka: &Kafka, topic: &str) -> PathBuf {
    let script = format!(
        "SET clock = 'wall';
CREATE SOURCE events (id BIGINT NOT NULL, place BIGINT METADATA FROM 'offset')
WITH (connector = 'kafka', bootstrap.servers = '{}', topic = '{topic}') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events;
",
        kafka.servers
    );
    let path = folder.join("kafka.sql");
    std::fs::write(&path, script).unwrap();
    path
}

fn submit(serving: &Serving, name: &str, script: &Path) {
    let submitted = serving.ask(&["submit", name, script.to_str().unwrap()]);
    assert!(submitted.status.success(), "{}", all(&submitted));
}

fn told(serving: &Serving, arguments: &[&str]) {
    let output = serving.ask(arguments);
    assert!(output.status.success(), "{}", all(&output));
}

/// Asks until the answer is this one; meanwhile there may be none.
fn wait_for_answer(serving: &Serving, name: &str, query: &str, wanted: &[&str]) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let output = serving.sql(Some(name), query);
        if output.status.success() && rows(&output) == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "waited too long for {wanted:?}: {}\n{}", all(&output), serving.logs(name));
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Records of 0..count of this round into each partition; no id comes twice.
fn send(kafka: &Kafka, topic: &str, partitions: i64, round: i64, count: i64) {
    for partition in 0..partitions {
        let first = (round * 100 + partition) * 100_000;
        kafka.send_ids(topic, partition as i32, first..first + count);
    }
}

#[test]
fn a_paused_kafka_pipeline_answers_reads_nothing_and_goes_on_where_it_was() {
    let (data, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(3);
    send(kafka, &topic, 3, 0, 500);
    let serving = Serving::start(&data.path().join("state"), &[], None);
    submit(&serving, "b", &kafka_pipeline(data.path(), kafka, &topic));
    wait_for_answer(&serving, "b", TOTALS, &["1500,1500"]);
    told(&serving, &["pause", "b"]);
    send(kafka, &topic, 3, 1, 200);
    for _ in 0..5 {
        assert_eq!(rows(&serving.sql(Some("b"), TOTALS)), ["1500,1500"]);
    }
    assert_eq!(serving.shown("b")["state"], "paused");
    let objects = serving.shown("b")["objects"].as_array().unwrap().iter().map(|object| object["state"].clone()).collect::<Vec<_>>();
    assert!(!objects.is_empty() && objects.iter().all(|state| state == "paused"), "its objects stand still with it: {objects:?}");
    told(&serving, &["resume", "b"]);
    wait_for_answer(&serving, "b", TOTALS, &["2100,2100"]);
    // Stopped, it has no process; what comes meanwhile waits in the topic.
    told(&serving, &["stop", "b"]);
    send(kafka, &topic, 3, 2, 100);
    told(&serving, &["resume", "b"]);
    wait_for_answer(&serving, "b", TOTALS, &["2400,2400"]);
    let shown = serving.shown("b");
    assert_eq!((&shown["generation"], &shown["restarts"]), (&json!(3), &json!(0)), "{shown}");
}

#[test]
fn a_kafka_pipeline_that_is_killed_while_records_come_loses_none_and_doubles_none() {
    let (data, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(3);
    let serving = Serving::start(&data.path().join("state"), &[], None);
    submit(&serving, "b", &kafka_pipeline(data.path(), kafka, &topic));
    send(kafka, &topic, 3, 0, 1_000);
    wait_for_answer(&serving, "b", TOTALS, &["3000,3000"]);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| (1..=60).for_each(|round| send(kafka, &topic, 3, round, 100)));
        // Once before there is any checkpoint, and once behind one.
        for what in ["running", "durable"] {
            let shown = serving.wait_until("b", what, |shown| shown["state"] == "running" && (what == "running" || shown["durable"].is_u64()));
            kill("-KILL", shown["pid"].as_u64().unwrap());
            let crashed = serving.wait_for_state("b", "restarting");
            assert!(crashed["reason"].as_str().unwrap().contains("killed by SIGKILL"), "{crashed}");
        }
        sending.join().unwrap();
    });
    wait_for_answer(&serving, "b", TOTALS, &["21000,21000"]);
    assert_eq!(serving.shown("b")["restarts"], 2);
    // And the other way round: nothing that was read once more counts twice.
    told(&serving, &["pause", "b"]);
    told(&serving, &["resume", "b"]);
    wait_for_answer(&serving, "b", TOTALS, &["21000,21000"]);
}

#[test]
fn a_kafka_record_that_crashes_its_pipeline_is_found_skipped_and_kept() {
    let (data, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(3);
    let serving = Serving::start(&data.path().join("state"), &[], Some("b:panic@events:1:300"));
    send(kafka, &topic, 3, 0, 200);
    submit(&serving, "b", &kafka_pipeline(data.path(), kafka, &topic));
    wait_for_answer(&serving, "b", TOTALS, &["600,600"]);
    // A checkpoint, so that there is a last state.
    told(&serving, &["pause", "b"]);
    send(kafka, &topic, 3, 1, 200);
    let resumed = serving.ask(&["resume", "b", "--no-wait"]);
    assert!(resumed.status.success(), "{}", all(&resumed));
    let looping = serving.wait_for_state("b", "crash_looping");
    let reason = looping["reason"].as_str().unwrap();
    assert!(reason.contains("3 crashes without progress") && reason.contains("source events, partition 1, offset 300"), "{reason}");
    let last = looping["crashes"].as_array().unwrap().last().unwrap();
    assert_eq!(last["batch"], json!([{ "source": "events", "partition": 1, "from": 300, "to": 300 }]), "{looping}");

    wait_for_answer(&serving, "b", TOTALS, &["600,600"]);
    let ready = serving.get("/readyz");
    assert!(ready.0 == 503 && ready.1.contains("crash_looping"), "{ready:?}");
    told(&serving, &["resume", "b", "--skip-offsets", "events:1:300"]);
    wait_for_answer(&serving, "b", TOTALS, &["1199,1199"]);
    let letters = rows(&serving.sql(Some("b"), "SELECT \"partition\", \"offset\", reason, \"text\", form FROM \"dead_letters(events)\""));
    let skipped = format!("1,300,skipped by the operator,\"{{\"\"id\"\":{},\"\"place\"\":300}}\",row", (100 + 1) * 100_000 + 100);
    assert_eq!(letters, [skipped]);
    // What comes later is read as ever.
    send(kafka, &topic, 3, 2, 10);
    wait_for_answer(&serving, "b", TOTALS, &["1229,1229"]);
}

#[test]
fn a_skipped_record_comes_in_again_once_it_does_no_harm() {
    let (data, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(1);
    kafka.send_ids(&topic, 0, 0..10);
    let serving = Serving::start(&data.path().join("state"), &[], None);
    submit(&serving, "b", &kafka_pipeline(data.path(), kafka, &topic));
    wait_for_answer(&serving, "b", TOTALS, &["10,10"]);
    told(&serving, &["pause", "b"]);
    kafka.send_ids(&topic, 0, 10..20);
    told(&serving, &["resume", "b", "--skip-offsets", "events:0:12-13"]);
    wait_for_answer(&serving, "b", TOTALS, &["18,18"]);
    let replayed = freshet().args(["dead-letters", "replay", "events", "--pipeline", "b", "--address", &serving.flight]).output().unwrap();
    assert!(text(&replayed.stdout).starts_with("2 of 2 dead letters of events have come in again"), "{}", all(&replayed));
    wait_for_answer(&serving, "b", TOTALS, &["20,20"]);
    wait_for_answer(&serving, "b", "SELECT count(*) AS n FROM \"dead_letters(events)\"", &["0"]);
}

/// Pushes rides with these ids under a name, as often as it takes; the answer.
fn push(serving: &Serving, id: &str, ids: std::ops::Range<u64>) -> Value {
    let lines: String = ids.map(|id| format!("{{\"ride_id\": {id}, \"city\": \"Bern\", \"at\": \"2025-01-01T00:00:00Z\"}}\n")).collect();
    let headers = [("Content-Type", "application/x-ndjson"), ("X-Freshet-Batch-Id", id)];
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let shown = serving.wait_until("b", "running", |shown| shown["state"] == "running" && shown["http"].is_string());
        // It may fall between the look and the request.
        let answer = std::panic::catch_unwind(|| post(shown["http"].as_str().unwrap(), "/v1/ingest/rides", &headers, &lines));
        if let Ok((200, answer)) = answer {
            return serde_json::from_str(&answer).unwrap();
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

const RIDES: &str = "SELECT rides, places FROM by_city WHERE city = 'Bern'";

#[test]
fn pushed_rows_are_there_once_after_a_pause_a_kill_and_a_crash_if_their_client_repeats_them() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], Some("b:panic@rides:0:45"));
    submit(&serving, "b", &tests_folder().join("pushed"));
    push(&serving, "a", 0..10);
    wait_for_answer(&serving, "b", RIDES, &["10,10"]);

    told(&serving, &["pause", "b"]);
    let http = serving.shown("b")["http"].as_str().unwrap().to_string();
    let refused = post(&http, "/v1/ingest/rides", &[("Content-Type", "application/x-ndjson")], "{\"ride_id\": 1, \"city\": \"Bern\"}\n");
    assert!(refused.0 == 429 && refused.1.contains("try again when it is back"), "{refused:?}");
    assert_eq!(rows(&serving.sql(Some("b"), RIDES)), ["10,10"]);
    told(&serving, &["resume", "b"]);
    assert_eq!(push(&serving, "a", 0..10)["duplicate"], true, "the pause was a checkpoint");

    push(&serving, "b", 10..20);
    kill("-KILL", serving.shown("b")["pid"].as_u64().unwrap());
    serving.wait_until("b", "started again", |shown| shown["restarts"] == 1 && shown["state"] == "running");
    push(&serving, "b", 10..20);
    assert_eq!(push(&serving, "a", 0..10)["duplicate"], true);
    wait_for_answer(&serving, "b", RIDES, &["20,20"]);

    // The record at offset 45 crashes it. Its like comes again at another offset, for positions are never given twice.
    told(&serving, &["pause", "b"]);
    told(&serving, &["resume", "b"]);
    let first = push(&serving, "c", 20..50);
    assert!(first["position"].as_u64().unwrap() > 45, "{first}");
    let crashed = serving.wait_until("b", "crashed", |shown| shown["restarts"] == 2);
    assert!(crashed["reason"].as_str().is_none_or(|reason| reason.contains("a fault on purpose")), "{crashed}");
    let again = push(&serving, "c", 20..50);
    assert_eq!((&again["duplicate"], again["position"].as_u64() > first["position"].as_u64()), (&json!(false), true), "{again}");
    wait_for_answer(&serving, "b", RIDES, &["50,50"]);
    assert_eq!(serving.shown("b")["state"], "running");
}

#[test]
fn clients_push_through_the_server_s_flight_as_they_do_to_a_run() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], None);
    submit(&serving, "b", &tests_folder().join("pushed"));
    let shown = serving.wait_until("b", "running", |shown| shown["state"] == "running" && shown["http"].is_string());
    let client = tests_folder().join("client/push.py");
    let output = Command::new(python()).arg(client).args([serving.flight.as_str(), shown["http"].as_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    assert!(text(&output.stdout).lines().filter(|line| line.starts_with("ok ")).count() >= 20, "{}", all(&output));
}
