//! The demo from Kafka: four topics of four partitions, keyed, filled by the replayer that ships. What it predicts is what it predicts from the
//! files, through two trainings and a crash.

use std::fs;

use rdkafka::admin::TopicReplication;

use crate::kafka_broker as broker;
use crate::node::{Node, Setting, all, assert_identical, demo_folder, freshet};
use crate::small_loop::{Month, RUNS};
use crate::year::FILES;

const PARTITIONS: i32 = 4;
/// Through the trainings of 12 and 19 January, and some days of the second version.
const DAYS: i64 = 22;

#[test]
fn predictions_from_kafka_equal_those_from_the_files_also_after_a_crash() {
    let kafka = broker::shared();
    let month = Month::of(DAYS);
    let files = month.setting("files", &[]);
    let runs = files.run(&[RUNS]).remove(0);
    assert!(runs.iter().filter(|run| run["result"] == "promoted").count() >= 2, "{runs:?}");

    for topic in FILES {
        kafka.create(topic, PARTITIONS, TopicReplication::Fixed(1), &[]);
    }
    let fill = ["sources.sql", "kafka/fill/fill.sql"].map(|script| demo_folder().join(script));
    let variables = [format!("data={}", month.data.display()), format!("brokers={}", kafka.servers)];
    let mut filling = freshet();
    filling.arg("run").args(&fill).args(["--var", &variables[0], "--var", &variables[1], "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let filled = filling.arg("--data-dir").arg(month.path().join("fill")).output().unwrap();
    assert!(filled.status.success(), "{}", all(&filled));

    let mut streams = Setting { workers: 2, ..month.setting("streams", &[]) };
    let sources = fs::read_to_string(demo_folder().join("kafka/sources.sql")).unwrap();
    assert_eq!(sources.matches("${brokers}").count(), FILES.len());
    fs::write(streams.pipeline.join("sources.sql"), sources.replace("${brokers}", &kafka.servers)).unwrap();
    let mut node = Node::start(&streams);
    node.wait_until("the second training", |status| status["jobs"][0]["runs"].as_u64() >= Some(1) && status["jobs"][0]["running"].is_string());
    node.kill();
    streams.workers = 1;
    assert_eq!(streams.run(&[RUNS]).remove(0), runs);
    // Each partition is in the order of its file, so the lines are in the same order too.
    assert_identical(&streams.predictions(), &files.predictions(), "from Kafka, killed once");
}
