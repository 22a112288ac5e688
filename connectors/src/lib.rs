//! The connectors of this build: where changes come from and where they go.
//!
//! | folder | what it does |
//! |---|---|
//! | `connectors.rs`, `options.rs` | names, checks and opens what a script declares |
//! | `store/` | finds, reads and creates files on disk and in buckets through `object_store` |
//! | `source/` | reads files record by record, ahead of the poller, and watches for new ones |
//! | `decode/` | bytes of one record to typed cells, or a dead letter |
//! | `avro/`, `protobuf/` | the two encodings whose records need a schema, both ways |
//! | `registry/`, `schema_text.rs` | where such schemas come from: a registry, a file, the script |
//! | `push/` | rows that clients push, and the queue they wait in |
//! | `kafka/` | topics, in and out |
//! | `mqtt/` | messages of a broker, in and out |
//! | `nexmark/` | a made-up auction site, for benchmarks and demonstrations |
//! | `webhook/`, `redis/` | changes as HTTP requests, rows under keys |
//! | `secret.rs` | values that no script holds |
//! | `template.rs`, `reject.rs`, `tls.rs` | what several of them need: texts per row, what nobody takes, certificates |
//! | `encode/`, `sink/` | rows to bytes that are the same in every run |
#![deny(unsafe_code)]

mod avro;
mod connectors;
mod decode;
mod encode;
mod kafka;
mod mqtt;
pub mod nexmark;
mod options;
mod protobuf;
mod push;
mod redis;
mod registry;
mod reject;
mod schema_text;
mod secret;
mod sink;
mod source;
mod store;
mod template;
mod tls;
mod webhook;

pub use connectors::BuiltIn;
pub use decode::{Cell, Metadata, NoMetadata, Record, RecordDecoder, Rows, Wait};
pub use encode::{OutRecord, RecordEncoder};
pub use push::{PipelineConnectors, Pushes};
