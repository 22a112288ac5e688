//! The binary `freshet`: joins SQL, engine, connectors and servers, and is all of the command line.
//!
//! | file | what it is |
//! |---|---|
//! | `cli.rs` | the command line |
//! | `config.rs` | settings: file < environment < flag |
//! | `exit.rs` | exit codes, and how an error becomes one |
//! | `scripts.rs` | paths to scripts |
//! | `onnx.rs` | where ONNX Runtime lies |
//! | `node.rs` | `freshet run`: THE wiring |
//! | `queries.rs` | SQL behind the servers |
//! | `progress.rs`, `watch.rs` | the live line on the terminal |
//! | `client.rs`, `shell.rs`, `features.rs` | `freshet sql` and `freshet features get`, over Flight |
//! | `dead_letters.rs` | `freshet dead-letters`: what could not be read, and how it comes in again |
//! | `serve/` | `freshet serve`: the supervisor, its children, and the commands that talk to it |
//! | `retrain/` | retraining jobs: the control plane, training data, trainers, validation |
//! | `training_set.rs`, `models.rs` | `freshet training-set export` and `freshet models` |
//! | `rows.rs` | answers as table, JSON or CSV |
//! | `explain.rs` | `freshet explain` |
//! | `test/` | `freshet test`: sqllogictest files and pipeline fixtures in an embedded engine |
#![forbid(unsafe_code)]

mod cli;
mod client;
mod config;
mod dead_letters;
mod exit;
mod explain;
mod features;
mod models;
mod node;
mod onnx;
mod progress;
mod queries;
mod retrain;
mod rows;
mod scripts;
mod serve;
mod shell;
mod test;
mod training_set;
mod watch;

pub use cli::main;
pub use config::{Config, Layer};
pub use exit::abort_on_panic;
pub use node::control;
pub use queries::PipelineQueries;
pub use retrain::Place;
