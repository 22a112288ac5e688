//! The integration tests of freshet-sql, in one binary.

mod adhoc;
mod given;
mod golden;
mod lookups;
mod parse;
mod three_way;
mod traps;
