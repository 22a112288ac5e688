//! The year of flights, replayed by the real binary and told to a person.
//!
//! `run.rs` is the story in order, `server.rs` the process it starts and stops, `report.rs` what it prints, `loop_report.rs` its tables of
//! months and runs, `kafka.rs` the broker of `--kafka`, `latency.rs` how fast a lookup is.

mod kafka;
mod latency;
mod loop_report;
mod report;
mod run;
mod server;

pub use run::run;
