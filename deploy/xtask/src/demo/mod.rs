//! The year of flights, replayed by the real binary and told to a person.
//!
//! `run.rs` is the story in order, `server.rs` the process it starts and stops, `report.rs` what it prints.

mod report;
mod run;
mod server;

pub use run::run;
