//! History in Kafka: a bounded topic of several partitions whose records say when they arrived (T0b), read with stops, a crash and a broker that
//! goes away in between; and partitions that lie hours apart (T0a), which wait in a buffer that does not grow with the distance.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::admin::TopicReplication;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::BaseRecord;
use serde_json::{Value, json};

use crate::kafka_broker::{self as broker, Kafka};
use crate::running::{Running, all, freshet, text};

const TOPIC: &str = "history";
const RECORDS: i64 = 60_000;
const PARTITIONS: i64 = 3;
/// 2025-01-01 in UTC.
const BEGIN_MS: i64 = 1_735_689_600_000;

fn script(folder: &Path, servers: &str) -> PathBuf {
    let path = folder.join("history.sql");
    let text = format!(
        "SET clock = 'wall';
CREATE SOURCE events (id BIGINT NOT NULL, k VARCHAR NOT NULL, at TIMESTAMP(3), came TIMESTAMP(3), WATERMARK FOR at, ARRIVAL FOR came)
WITH (connector = 'kafka', bootstrap.servers = '{servers}', topic = '{TOPIC}', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;
CREATE FEATURE VIEW load ENTITY (k) TIMESTAMP at WINDOWS ('1 minute') AS SELECT k, count(*) AS n, sum(id) AS total FROM events GROUP BY k;
CREATE FEATURE SERVICE loads AS (load);
CREATE MATERIALIZED VIEW seen AS SELECT e.id, e.k, f.* FROM events e LEFT JOIN FEATURES(loads) FOR SYSTEM_TIME AS OF now() AS f USING (k);
CREATE SINK seen_out FROM seen WITH (connector = 'file', path = '${{out}}') FORMAT DEBEZIUM ENCODE JSON;
"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A record every 10 ms of history, event time some seconds before its arrival and not in order; partitions in turn, but for a while in which only
/// one of them has any.
fn send_history(kafka: &Kafka) {
    kafka.create(TOPIC, PARTITIONS as i32, TopicReplication::Fixed(1), &[]);
    let producer = kafka.producer(&[]);
    for id in 0..RECORDS {
        let partition = if (9_000..12_000).contains(&id) { 1 } else { id % PARTITIONS };
        let (came, at) = (BEGIN_MS + id * 10, BEGIN_MS + id * 10 - id * 7_919 % 5_000);
        let payload = format!("{{\"id\": {id}, \"k\": \"k{}\", \"at\": {at}, \"came\": {came}}}", id * 31 % 17);
        broker::send(&producer, BaseRecord::<[u8], str>::to(TOPIC).partition(partition as i32).payload(&payload));
    }
    broker::flush(&producer);
}

fn run(script: &Path, folder: &Path, rate: Option<&str>) -> std::process::Command {
    let mut command = freshet();
    command.arg("run").arg(script).arg("--var").arg(format!("out={}", folder.join("seen.jsonl").display()));
    command.args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(folder.join("state"));
    if let Some(rate) = rate {
        command.args(["--events-per-second", rate, "--keep"]);
    }
    command
}

fn events(running: &Running) -> u64 {
    let status: Value = serde_json::from_str(&running.get("/v1/status").1).unwrap();
    assert_eq!(status["failure"], Value::Null, "{status}");
    status["events"].as_u64().unwrap()
}

#[test]
fn t0b_history_has_the_same_epochs_and_results_whatever_stops_in_the_middle_of_it() {
    let (folder, kafka) = (tempfile::tempdir().unwrap(), Kafka::start(&[]));
    send_history(&kafka);
    let script = script(folder.path(), &kafka.servers);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    for folder in [&whole, &broken] {
        std::fs::create_dir(folder).unwrap();
    }
    let output = run(&script, &whole, None).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let lines: Vec<Value> = text(&std::fs::read(whole.join("seen.jsonl")).unwrap()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let epochs: Vec<(i64, i64)> = lines.iter().map(|line| (line["epoch"].as_i64().unwrap(), line["after"]["id"].as_i64().unwrap())).collect();
    assert!(epochs == (0..RECORDS).map(|id| (BEGIN_MS + id * 10, id)).collect::<Vec<_>>(), "each enters at its arrival: {:?}", &epochs[..3]);
    assert!(lines[20_000]["after"]["n_1m"].as_i64() > Some(100), "{}", lines[20_000]);

    // Stopped in order, then as a crash does, both in the middle of history.
    let rate = Some("8000");
    for (signal, least) in [("-TERM", 10_000), ("-KILL", 20_000)] {
        let mut running = Running::spawn(run(&script, &broken, rate));
        running.wait_until("some of it is in", || events(&running) >= least);
        running.signal(signal);
        running.end();
        assert!(std::fs::read(broken.join("seen.jsonl")).unwrap().len() < std::fs::read(whole.join("seen.jsonl")).unwrap().len());
    }
    // A crash again, and when the pipeline comes back the broker is away, for longer than a source that is merely quiet is given.
    let mut running = Running::spawn(run(&script, &broken, rate));
    running.wait_until("most of it is in", || events(&running) >= 40_000);
    running.signal("-KILL");
    running.end();
    kafka.command("kill 1");
    let running = Running::spawn(run(&script, &broken, None));
    let begun = std::time::Instant::now();
    running.wait_until("it has waited for the broker", || begun.elapsed() > Duration::from_secs(2));
    assert!(events(&running) < RECORDS as u64);
    kafka.command("start 1");
    let mut running = running;
    assert_eq!(running.end().0, Some(0));
    let found = std::fs::read(broken.join("seen.jsonl")).unwrap();
    let expected = std::fs::read(whole.join("seen.jsonl")).unwrap();
    let first = found.split(|byte| *byte == b'\n').zip(expected.split(|byte| *byte == b'\n')).find(|(found, expected)| found != expected);
    assert!(found == expected, "{:?}", first.map(|(found, expected)| (text(found), text(expected))));
}

#[test]
fn t0a_partitions_that_lie_hours_apart_wait_in_a_buffer_that_does_not_grow_with_the_distance() {
    const ROWS: i64 = 400_000;
    const TEXT_BYTES: usize = 400;
    const ROW_BYTES: u64 = 8 + 8 + 4 + TEXT_BYTES as u64;
    // Rows that a partition may be ahead before it is paused, what the connector has decoded by then (32 MiB), and one poll.
    const WAITING_BYTES_MAX: u64 = (131_072 + 65_536) * ROW_BYTES + (32 << 20);
    assert!(WAITING_BYTES_MAX < ROWS as u64 * ROW_BYTES * 3 / 4, "the whole partition would be too much");
    let (folder, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(2);
    let producer = kafka.producer(&[("compression.type", "lz4"), ("linger.ms", "20"), ("queue.buffering.max.messages", "1000000")]);
    let filler = "x".repeat(TEXT_BYTES);
    // Partition 1 begins some hours behind the end of partition 0; both have as many rows.
    for id in 0..ROWS {
        for (partition, hours) in [(0, 0), (1, 10)] {
            let payload = format!("{{\"id\": {id}, \"at\": {}, \"filler\": \"{filler}\"}}", BEGIN_MS + hours * 3_600_000 + id * 60);
            let mut record = BaseRecord::<[u8], str>::to(&topic).partition(partition).payload(&payload);
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
    }
    broker::flush(&producer);
    let path = folder.path().join("skew.sql");
    let sql = format!(
        "SET clock = 'event';
CREATE SOURCE events (id BIGINT NOT NULL, at TIMESTAMP(3), filler VARCHAR, WATERMARK FOR at)
WITH (connector = 'kafka', bootstrap.servers = '{}', topic = '{topic}', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(id) AS total FROM events WHERE filler IS NOT NULL;
",
        kafka.servers
    );
    std::fs::write(&path, sql).unwrap();
    let mut command = freshet();
    command.arg("run").arg(&path).args(["--keep", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("state"));
    let running = Running::spawn(command);
    let most = AtomicU64::new(0);
    running.wait_until("all is read", || {
        let metrics = running.get("/metrics").1;
        let waiting = metrics.lines().find_map(|line| line.strip_prefix("freshet_operator_bytes{operator=\"read of events\"} "));
        let waiting: f64 = waiting.map_or(0.0, |text| text.parse().unwrap());
        most.fetch_max(waiting as u64, Ordering::Relaxed);
        assert!(waiting as u64 <= WAITING_BYTES_MAX, "{waiting} bytes wait");
        metrics.contains("\nfreshet_finished 1\n")
    });
    let most = most.into_inner();
    assert!(most >= 100_000 * ROW_BYTES, "partition 1 was never far ahead: {most} bytes");
    let total = freshet().args(["sql", "--address", &running.flight, "--format", "json", "SELECT n, total FROM totals"]).output().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text(&total.stdout)).unwrap(), json!({ "n": 2 * ROWS, "total": ROWS * (ROWS - 1) }));
}
