//! The integration tests of freshet-sql, in one binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adhoc;
mod given;
mod golden;
mod lookups;
mod loops;
mod parse;
mod predict;
mod streams;
mod three_way;
mod training;
mod traps;
mod warnings;
