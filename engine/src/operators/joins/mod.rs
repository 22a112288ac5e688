//! Joins of two changing inputs, of every kind.
//!
//! | file | what it is |
//! |---|---|
//! | `shape.rs` | what a join joins by, and the columns of its output |
//! | `given.rs` | the rows of a step, encoded once, in the order they are taken in |
//! | `parts.rs` | output rows, gathered from the step's columns and from what is kept |
//! | `forget.rs` | single rows that no change of the other side reaches any more |
//! | `join.rs` | partners told by the key alone |
//! | `residual.rs` | outer, semi, anti and mark joins whose partners must pass a condition too |
//! | `not_in.rs` | NOT IN and IN, which NULLs make unknown |

mod forget;
mod given;
mod join;
mod not_in;
mod parts;
mod residual;
mod shape;

pub use join::Join;
pub use not_in::NotIn;
pub use residual::ResidualJoin;
pub use shape::Shape;
