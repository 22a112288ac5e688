//! WITH RECURSIVE by differential dataflow: the rows of the inputs go in as collections, a loop runs the body until no round brings anything
//! new, and what changed at each epoch comes out as changes.
//!
//! | file | what it does |
//! |---|---|
//! | `inputs.rs` | keeps the rows of an input, so that the loop can be filled again after a restore |
//! | `rounds.rs` | one round: the operators of the body over collections |
//! | `build.rs` | the loop, and the way in and out of it |
//! | `outputs.rs` | consolidates what comes out, per epoch |
//!
//! Differential keeps its arrangements to itself: a checkpoint holds the rows of the inputs, and a restored generation computes the loop anew.

mod build;
mod inputs;
mod outputs;
mod rounds;

pub use build::recursion;
pub use inputs::RecursionInput;
pub use outputs::RecursionOutput;
