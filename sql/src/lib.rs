//! SQL text to an index-based plan. In: scripts. Out: `freshet_core::Plan` without DataFusion types, or errors with line and column.

pub mod ast;
mod error;
mod print;

pub use error::SqlError;
