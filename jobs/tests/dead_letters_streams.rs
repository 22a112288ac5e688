//! Dead letters of real brokers: what they keep of records of Kafka and MQTT, and how these come in again, corrected, with everything that
//! surrounded them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde_json::{Value, json};

use crate::kafka_broker as broker;
use crate::mqtt_broker::{Broker, Peer, until};
use crate::running::{Running, all, freshet, text};
use crate::serving::Serving;

/// Where commands go: the address, and the pipeline if a server has several.
struct Place<'a> {
    address: &'a str,
    pipeline: Option<&'a str>,
}

impl Place<'_> {
    fn command(&self, arguments: &[&str]) -> Output {
        let named = self.pipeline.map_or_else(Vec::new, |name| vec!["--pipeline", name]);
        freshet().args(arguments).args(["--address", self.address]).args(named).output().unwrap()
    }

    /// One object a row; none while there is no answer.
    fn sql(&self, query: &str) -> Vec<Value> {
        let output = self.command(&["sql", "--format", "json", query]);
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn letters(&self) -> Vec<Value> {
        self.sql("SELECT * FROM \"dead_letters(events)\" ORDER BY \"partition\", \"offset\"")
    }

    fn wait_for(&self, query: &str, wanted: &Value) {
        let mut found = Vec::new();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the answer is there", || {
                found = self.sql(query);
                (json!(found) == *wanted).then_some(())
            });
        }));
        assert!(ended.is_ok(), "{query}: found {found:?}, wanted {wanted}");
    }

    /// Replays these corrections and says what the command has said.
    fn replay(&self, folder: &Path, corrections: &[Value]) -> Output {
        let file = folder.join("corrected.jsonl");
        fs::write(&file, corrections.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        self.command(&["dead-letters", "replay", "events", "--from", file.to_str().unwrap()])
    }
}

fn of(running: &Running) -> Place<'_> {
    Place { address: &running.flight, pipeline: None }
}

fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("pipeline.sql");
    fs::write(&path, text).unwrap();
    path
}

const KAFKA_ROWS: &str = "SELECT id, place, part, k, sent, trace FROM kept ORDER BY id";

/// Rows with everything that a record has beside its bytes.
fn kafka_script(folder: &Path, servers: &str, topic: &str) -> PathBuf {
    script(
        folder,
        &format!(
            "SET clock = 'wall';
CREATE SOURCE events (
  id BIGINT NOT NULL, at TIMESTAMP(3), place BIGINT METADATA FROM 'offset', part BIGINT METADATA FROM 'partition', k VARCHAR METADATA FROM 'key',
  sent TIMESTAMP(3) METADATA FROM 'timestamp', trace VARCHAR METADATA FROM 'header.trace', WATERMARK FOR at
) WITH (connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW kept AS SELECT id, place, part, k, sent, trace FROM events;
"
        ),
    )
}

/// Good, bad, bad, good into partition 1: not JSON, then a wrong type; and a time that is NULL into partition 0.
fn send_good_and_bad(topic: &str) {
    let producer = broker::shared().producer(&[]);
    let payload = |id: &str, at: &str| format!("{{\"id\": {id}, \"at\": {at}}}");
    let at = "\"2025-01-01T00:00:00Z\"";
    for (partition, payload) in
        [(1, payload("1", at)), (1, "{\"id\": 2".to_string()), (1, payload("\"x\"", at)), (1, payload("4", at)), (0, payload("5", "null"))]
    {
        let key = format!("key of {payload}");
        let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some(b"t-7") });
        let record = BaseRecord::to(topic).partition(partition).payload(&payload).key(&key).timestamp(1_735_689_600_000).headers(headers);
        broker::send(&producer, record);
    }
    broker::flush(&producer);
}

fn kafka_row(id: u64, part: u64, place: u64, payload: &str) -> Value {
    json!({ "id": id, "place": place, "part": part, "k": format!("key of {payload}"), "sent": "2025-01-01T00:00:00Z", "trace": "t-7" })
}

fn good_rows() -> Vec<Value> {
    let payload = |id: u64| format!("{{\"id\": {id}, \"at\": \"2025-01-01T00:00:00Z\"}}");
    vec![kafka_row(1, 1, 0, &payload(1)), kafka_row(4, 1, 3, &payload(4))]
}

/// Looks at the letters, replays them, and looks at the rows.
fn correct_kafka(place: &Place<'_>, folder: &Path) -> Value {
    place.wait_for(KAFKA_ROWS, &json!(good_rows()));
    place.wait_for("SELECT count(*) AS n FROM \"dead_letters(events)\"", &json!([{ "n": 3 }]));
    let letters = place.letters();
    let places: Vec<(&Value, &Value, &Value)> = letters.iter().map(|letter| (&letter["partition"], &letter["offset"], &letter["field"])).collect();
    assert_eq!(places, [(&json!(0), &json!(0), &json!("at")), (&json!(1), &json!(1), &json!("")), (&json!(1), &json!(2), &json!("id"))]);
    assert!(letters.iter().all(|letter| letter["origin"].as_str().is_some_and(|origin| origin.starts_with("topic-"))), "{letters:?}");

    // As they are, they are refused with the same reasons.
    let tried = place.command(&["dead-letters", "replay", "events"]);
    assert_eq!(tried.status.code(), Some(1), "{}", all(&tried));
    assert!(text(&tried.stdout).contains("stays: partition 1, offset 2, field id: expected BIGINT"), "{}", all(&tried));

    let right = |id: u64| format!("{{\"id\": {id}, \"at\": \"2025-01-02T00:00:00Z\"}}");
    let correction = |partition: u64, offset: u64, id: u64| json!({ "partition": partition, "offset": offset, "raw": right(id) });
    let replayed = place.replay(folder, &[correction(1, 1, 2), correction(1, 2, 3), correction(0, 0, 5)]);
    assert!(text(&replayed.stdout).starts_with("3 of 3 dead letters of events have come in again"), "{}", all(&replayed));
    let good = good_rows();
    let bad = |id: &str, at: &str| format!("{{\"id\": {id}, \"at\": {at}}}");
    let rows = json!([
        good[0],
        kafka_row(2, 1, 1, "{\"id\": 2"),
        kafka_row(3, 1, 2, &bad("\"x\"", "\"2025-01-01T00:00:00Z\"")),
        good[1],
        kafka_row(5, 0, 0, &bad("5", "null"))
    ]);
    place.wait_for(KAFKA_ROWS, &rows);
    place.wait_for("SELECT count(*) AS n FROM \"dead_letters(events)\"", &json!([{ "n": 0 }]));
    rows
}

#[test]
fn corrected_kafka_records_come_in_again_with_key_time_headers_and_place_and_stay_over_a_restart() {
    let (folder, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(2);
    send_good_and_bad(&topic);
    let script = kafka_script(folder.path(), &kafka.servers, &topic);
    let mut running = Running::endless(&script, &folder.path().join("state"));
    let rows = correct_kafka(&of(&running), folder.path());
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    let running = Running::endless(&script, &folder.path().join("state"));
    of(&running).wait_for(KAFKA_ROWS, &rows);
    // Reading goes on where it was: behind what came in again nothing comes twice.
    kafka.send_ids(&topic, 1, 6..7);
    of(&running).wait_for("SELECT \"offset\", field FROM \"dead_letters(events)\"", &json!([{ "offset": 4, "field": "at" }]));
    assert_eq!(json!(of(&running).sql(KAFKA_ROWS)), rows);
}

#[test]
fn kafka_records_of_a_server_s_pipeline_come_in_again_too() {
    let (folder, kafka) = (tempfile::tempdir().unwrap(), broker::shared());
    let topic = kafka.topic(2);
    send_good_and_bad(&topic);
    let script = kafka_script(folder.path(), &kafka.servers, &topic);
    let serving = Serving::start(&folder.path().join("state"), &[], None);
    let submitted = serving.ask(&["submit", "b", script.to_str().unwrap()]);
    assert!(submitted.status.success(), "{}", all(&submitted));
    assert!(serving.submit_rides("a").status.success());
    let place = Place { address: &serving.flight, pipeline: Some("b") };
    let rows = correct_kafka(&place, folder.path());
    let stopped = serving.ask(&["stop", "b"]);
    assert!(stopped.status.success(), "{}", all(&stopped));
    assert!(serving.ask(&["resume", "b"]).status.success());
    place.wait_for(KAFKA_ROWS, &rows);
}

#[test]
fn corrected_mqtt_messages_come_in_again_with_their_topic_and_its_levels() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    let script = script(
        folder.path(),
        &format!(
            "SET clock = 'wall';
CREATE SOURCE events (
  id BIGINT NOT NULL, topic VARCHAR METADATA FROM 'topic', line VARCHAR METADATA FROM 'level.2', quality BIGINT METADATA FROM 'qos'
) WITH (connector = 'mqtt', url = '{}', topic = 'plant/+/vibration', qos = '1', client_id = 'letters') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW kept AS SELECT id, topic, line, quality FROM events;
",
            broker.url()
        ),
    );
    let rows = "SELECT id, topic, line, quality FROM kept ORDER BY id";
    let row = |id: u64, line: u64| json!({ "id": id, "topic": format!("plant/{line}/vibration"), "line": line.to_string(), "quality": 1 });
    let mut running = Running::endless(&script, &folder.path().join("state"));
    until("the subscription", || broker.log().contains("Sending SUBACK to letters").then_some(()));
    let peer = Peer::connect(broker.port);
    for (line, payload) in [(7, "{\"id\": 1}"), (7, "no reading"), (8, "{\"id\": \"x\"}"), (9, "{\"id\": 4}")] {
        peer.publish(&format!("plant/{line}/vibration"), 1, payload.as_bytes());
    }
    of(&running).wait_for(rows, &json!([row(1, 7), row(4, 9)]));
    let letters = of(&running).letters();
    let told: Vec<(&Value, &Value)> = letters.iter().map(|letter| (&letter["origin"], &letter["text"])).collect();
    let expected = [(json!("plant/7/vibration"), json!("no reading")), (json!("plant/8/vibration"), json!("{\"id\": \"x\"}"))];
    assert_eq!(told, expected.each_ref().map(|(origin, text)| (origin, text)));

    let corrections: Vec<Value> = letters
        .iter()
        .zip([2, 3])
        .map(|(letter, id)| json!({ "partition": 0, "offset": letter["offset"], "raw": format!("{{\"id\": {id}}}") }))
        .collect();
    let replayed = of(&running).replay(folder.path(), &corrections);
    assert!(text(&replayed.stdout).starts_with("2 of 2 dead letters of events have come in again"), "{}", all(&replayed));
    let all_rows = json!([row(1, 7), row(2, 7), row(3, 8), row(4, 9)]);
    of(&running).wait_for(rows, &all_rows);
    assert!(of(&running).letters().is_empty());

    // Over a stop, and messages of the next life do not take the places of these.
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    peer.publish("plant/7/vibration", 1, b"{\"id\": 5}");
    let running = Running::endless(&script, &folder.path().join("state"));
    of(&running).wait_for(rows, &json!([row(1, 7), row(2, 7), row(3, 8), row(4, 9), row(5, 7)]));
}
