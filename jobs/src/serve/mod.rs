//! `freshet serve`: one supervisor, and each generation of each pipeline in a child process of its own, so that none can harm another.
//!
//! | file | what it is |
//! |---|---|
//! | `supervisor.rs` | the server: start, signals, end |
//! | `pipelines.rs` | all pipelines by name |
//! | `keeper.rs` | one task per pipeline: performs what its machine says |
//! | `machine.rs` | the life of a pipeline, as a pure function |
//! | `process.rs` | a child process, seen from outside |
//! | `catalog.rs` | what survives the supervisor |
//! | `api.rs`, `proxy.rs` | the server's HTTP and Flight |
//! | `commands.rs`, `http_client.rs` | `freshet submit`, `pipelines`, `stop`, `pause`, `resume`, `drop` |
//! | `order.rs`, `report.rs` | what a child is told, and what it tells |
//! | `generation.rs`, `link.rs` | the child: a `freshet run` on a leash |
//! | `guard.rs` | its connectors: skipped records, suspects, silence |
//! | `journal.rs` | which records are being computed, for whoever finds it dead |
//! | `fault.rs` | faults on purpose, for tests |
mod api;
mod catalog;
mod commands;
mod fault;
mod generation;
mod guard;
mod http_client;
mod journal;
mod keeper;
mod link;
mod machine;
mod order;
mod pipelines;
mod process;
mod proxy;
mod report;
mod supervisor;

pub use commands::{SubmitOptions, Verb, change, drop_pipeline, pipelines, submit};
pub use generation::{check, run as run_generation};
pub use link::{Link, Told};
pub use order::{Offsets, parse_bytes};
pub use proxy::HEADER as PIPELINE_HEADER;
pub use supervisor::{options, serve};
