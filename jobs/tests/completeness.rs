//! T23 through a running pipeline: a topic that is not read from its first record makes windows that reach behind it INCOMPLETE.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::producer::BaseRecord;
use serde_json::{Value, json};

use crate::kafka_broker::{self as broker, Kafka};
use crate::running::{Running, all, freshet, text};

#[allow(clippy::disallowed_methods, reason = "a client stamps its rows with its clock")]
fn send_now(kafka: &Kafka, topic: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let producer = kafka.producer(&[]);
    broker::send(&producer, BaseRecord::<[u8], str>::to(topic).partition(0).payload(&format!("{{\"k\": \"a\", \"at\": {now}}}")));
    broker::flush(&producer);
}

fn start(folder: &Path, kafka: &Kafka, topic: &str, mode: &str) -> Running {
    let script = folder.join(format!("{mode}.sql"));
    let sql = format!(
        "SET clock = 'wall';
CREATE SOURCE events (k VARCHAR NOT NULL, at TIMESTAMP(3), WATERMARK FOR at)
WITH (connector = 'kafka', bootstrap.servers = '{}', topic = '{topic}', scan.startup.mode = '{mode}') FORMAT PLAIN ENCODE JSON;
CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP at WINDOWS ('2 seconds', '1 hour') AS SELECT k, count(*) AS n FROM events GROUP BY k;
CREATE FEATURE SERVICE loads AS (load);
",
        kafka.servers
    );
    std::fs::write(&script, sql).unwrap();
    Running::endless(&script, &folder.join(format!("state of {mode}")))
}

/// Status of the short window, status and value of the long one.
fn look(running: &Running) -> (Value, Value, Value) {
    let output = freshet().args(["features", "get", "loads", "--keys", "k=a", "--address", &running.flight, "--format", "json"]).output().unwrap();
    let Ok(row) = serde_json::from_str::<Value>(&text(&output.stdout)) else { return (json!(all(&output)), Value::Null, Value::Null) };
    (row["n_2s__status"].clone(), row["n_1h__status"].clone(), row["n_1h"].clone())
}

fn wait_for(running: &Running, wanted: (&str, &str, i64)) {
    running.wait_until(&format!("{wanted:?}"), || look(running) == (json!(wanted.0), json!(wanted.1), json!(wanted.2)));
}

#[test]
fn t23_windows_that_reach_behind_the_first_record_read_say_so_until_they_no_longer_do() {
    let (folder, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(1);
    send_now(kafka, &topic);
    let earliest = start(folder.path(), kafka, &topic, "earliest");
    wait_for(&earliest, ("PRESENT", "PRESENT", 1));
    drop(earliest);

    let mut latest = start(folder.path(), kafka, &topic, "latest");
    latest.wait_until("its end of the topic is known", || latest.get("/v1/status").1.contains("\"complete_since\":1"));
    send_now(kafka, &topic);
    // The value stays; two seconds later the short window no longer needs what was before.
    wait_for(&latest, ("INCOMPLETE", "INCOMPLETE", 1));
    wait_for(&latest, ("PRESENT", "INCOMPLETE", 1));
    latest.signal("-TERM");
    assert_eq!(latest.end().0, Some(143));
    let latest = start(folder.path(), kafka, &topic, "latest");
    send_now(kafka, &topic);
    wait_for(&latest, ("PRESENT", "INCOMPLETE", 2));
    drop(latest);

    // Earliest of a topic whose beginning is gone.
    kafka.delete_before(&topic, 1);
    let trimmed = tempfile::tempdir().unwrap();
    let trimmed = start(trimmed.path(), kafka, &topic, "earliest");
    wait_for(&trimmed, ("PRESENT", "INCOMPLETE", 2));
}
