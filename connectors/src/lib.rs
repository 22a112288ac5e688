//! The connectors of this build: where changes come from and where they go.
//!
//! | folder | what it does |
//! |---|---|
//! | `connectors.rs`, `options.rs` | names, checks and opens what a script declares |
//! | `store.rs` | finds and reads files through `object_store`; a bucket will be one line there |
//! | `source/` | reads files record by record, ahead of the poller |
//! | `decode/` | bytes of one record to typed cells, or a dead letter |
//! | `encode/`, `sink/` | rows to bytes that are the same in every run |
#![forbid(unsafe_code)]

mod connectors;
mod decode;
mod encode;
mod options;
mod sink;
mod source;
mod store;

pub use connectors::BuiltIn;
