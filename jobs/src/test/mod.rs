//! `freshet test`: what users' pipelines say about themselves, checked in an engine inside this process.
//!
//! | file | what |
//! |---|---|
//! | `suite.rs` | finds the tests under the paths, runs them, counts |
//! | `embedded.rs` | a pipeline run to its end without data directory or ports |
//! | `logic.rs` | sqllogictest files: statements, and queries with their rows |
//! | `fixture.rs` | pipeline folders with input/ and expected/ |
mod embedded;
mod fixture;
mod logic;
mod suite;

pub use suite::run;
