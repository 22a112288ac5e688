//! Kafka on librdkafka: sources that keep their own offsets, and sinks with an idempotent producer.
//!
//! | file | what it does |
//! |---|---|
//! | `options.rs` | WITH options as typed values, checked without a broker |
//! | `client.rs` | what librdkafka is told, and what it says of brokers that are away |
//! | `bounds.rs` | which partitions there are, where reading begins and where it ends |
//! | `identity.rs` | whether the topic is still the one that was read, and not one of the same name |
//! | `topic_id.rs` | the id of a topic, from librdkafka itself: all the unsafe code there is |
//! | `message.rs` | key, headers, timestamp and offset as metadata columns |
//! | `reader.rs` | the thread that polls, decodes and hands over; a partition is one log, in offset order |
//! | `handover.rs` | between that thread and the poller: a queue bounded in bytes |
//! | `source.rs` | the poller's side |
//! | `sink.rs` | records out, in order, each delivered before a flush returns |

mod bounds;
mod client;
mod handover;
mod identity;
mod message;
mod options;
mod reader;
mod sink;
mod source;
mod topic_id;

pub use sink::{KafkaSink, check_sink};
pub use source::{KafkaSource, check_source};
