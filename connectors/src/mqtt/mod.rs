//! `connector = 'mqtt'`: messages of a broker as a source, a view's changes as messages.
//!
//! | file | what it does |
//! |---|---|
//! | `settings.rs` | WITH options as values |
//! | `packet.rs`, `connection.rs` | MQTT 3.1.1 and 5 over TCP or TLS |
//! | `inflight.rs`, `receiver.rs`, `source.rs` | messages in, acknowledged once they are kept |
//! | `journal.rs` | messages on disk until a checkpoint holds them |
//! | `publisher.rs`, `sink.rs` | messages out, each until the broker has it |

mod check;
mod connection;
mod identity;
mod inflight;
mod journal;
mod packet;
mod publisher;
mod receiver;
mod settings;
mod sink;
mod source;

pub use check::{check_sink, check_source};
pub use identity::{sink_of, source_of};
pub use sink::MqttSink;
pub use source::MqttSource;
