//! The integration tests of freshet-sql, in one binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adhoc;
mod consistency;
mod error_rows;
mod given;
mod golden;
mod lookups;
mod loops;
mod parse;
mod predict;
mod random_case;
mod random_queries;
mod slt_files;
mod streams;
mod tables;
mod three_way;
mod three_way_aggregates;
mod three_way_joins;
mod three_way_ranks;
mod three_way_recursion;
mod three_way_subqueries;
mod three_way_windows;
mod training;
mod traps;
mod traps_windows;
mod warnings;
