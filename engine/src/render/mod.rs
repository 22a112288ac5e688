//! A plan becomes a dataflow: one match, one arm per node, no logic in the arms.

mod dataflow;
mod names;

pub use dataflow::{Rendered, Shared, render};
pub use names::{describe, error_view, operator_name};
