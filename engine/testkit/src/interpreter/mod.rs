//! The naive interpreter of a plan: what any node must contain at any epoch, computed from all input from scratch (C1, C1b).
//!
//! | file | what it answers |
//! |---|---|
//! | `input.rs` | which epoch each record enters at |
//! | `content.rs` | the rows of a node at an epoch |
//! | `joins.rs` | joins and set operations |
//! | `unnest.rs` | lists into rows, subqueries that stand for a value |
//! | `upsert.rs` | the rows of a source whose records replace each other by key |
//! | `feature.rs` | what a feature view answers at (q, s) |
//! | `recursive.rs` | the fixed point of a recursion |
//! | `predict.rs` | what a PREDICT gives each row |
//! | `ranks.rs` | tops and OVER: rows in order |
//! | `nearest.rs` | joins in time: the nearest right row, and the right side as it was |
//! | `drift.rs` | what a drift monitor says at each instant |
//! | `emit.rs` | when windows close, and what comes out then |
//! | `windows.rs` | which windows and sessions hold a row, and when it came |
//! | `history.rs` | when each row of a node entered and left |
//! | `instants.rs` | the epochs at which a node may change |
//! | `evaluate.rs` | expressions on one row |

mod content;
mod drift;
mod emit;
mod evaluate;
mod feature;
mod history;
mod input;
mod instants;
mod joins;
mod nearest;
mod predict;
mod ranks;
mod recursive;
mod unnest;
mod upsert;
mod windows;

pub use content::{Content, NodeError};
pub use evaluate::event_time_of;
pub use feature::{KeyAnswer, worst};
pub use history::Interpreter;
pub use input::{Assigned, InputRow, assign_epochs};
