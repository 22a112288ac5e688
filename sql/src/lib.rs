//! SQL text to an index-based plan. In: scripts. Out: `freshet_core::Plan` without DataFusion types, or errors with line and column.

pub mod ast;
pub mod batch;
mod bind;
mod check;
mod compile;
mod context;
mod define;
mod dialect;
mod error;
mod execute;
mod explain;
mod expr;
mod fold;
mod lower;
mod model;
mod monitor;
mod now;
mod optimise;
mod options;
pub mod parse;
mod part;
mod pipeline;
mod predict;
mod prediction;
mod print;
pub mod query;
mod refusal;
mod relation;
mod retraining;
mod tokens;
mod variables;
mod windows;

pub use compile::{Program, Script, Settings, compile};
pub use error::SqlError;
pub use explain::{ExplainOutput, explain_plan};
