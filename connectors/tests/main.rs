#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::type_complexity, reason = "records of a test are written as tuples")]
mod dead_letters;
mod encodings;
mod encodings_avro;
mod encodings_protobuf;
mod encodings_registry;
mod errors;
mod files;
mod kafka_broker;
mod kafka_encodings;
mod kafka_outage;
mod kafka_sink;
mod kafka_source;
mod mqtt;
mod mqtt_broker;
mod mqtt_sink;
mod parts;
mod redis;
mod s3_bucket;
mod s3_server;
mod setup;
mod sinks;
mod sources;
mod webhook;
