//! What a drift monitor measures, without dataflow: the rows of its window, counted as a reference counts them, and how far the counts lie apart.

mod statistics;
mod window;

pub use statistics::{ks, psi};
pub use window::DriftWindow;

#[cfg(test)]
mod statistics_tests;
