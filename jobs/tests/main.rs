//! The binary from outside: real processes, real clients, free ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clients;
mod commands;
mod completeness;
mod dead_letters;
mod dead_letters_streams;
mod files;
mod http;
#[path = "../../connectors/tests/kafka_broker.rs"]
#[allow(dead_code, reason = "the tests of the connectors use all of it")]
mod kafka_broker;
mod kafka_history;
#[path = "../../connectors/tests/mqtt_broker.rs"]
#[allow(dead_code, reason = "the tests of the connectors use all of it")]
mod mqtt_broker;
mod push;
mod retraining;
mod running;
#[path = "../../connectors/tests/s3_server.rs"]
#[allow(dead_code, reason = "the tests of the connectors use all of it")]
mod s3_server;
mod serve;
mod serve_crashes;
mod serve_streams;
mod serving;
mod signals;
mod tables;
