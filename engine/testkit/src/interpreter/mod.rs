//! The naive interpreter of a plan: what any node must contain at any epoch, computed from all input from scratch (C1, C1b).
//!
//! | file | what it answers |
//! |---|---|
//! | `input.rs` | which epoch each record enters at |
//! | `content.rs` | the rows of a node at an epoch |
//! | `upsert.rs` | the rows of a source whose records replace each other by key |
//! | `feature.rs` | what a feature view answers at (q, s) |
//! | `predict.rs` | what a PREDICT gives each row |
//! | `drift.rs` | what a drift monitor says at each instant |
//! | `history.rs` | when each row of a node entered and left |
//! | `instants.rs` | the epochs at which a node may change |
//! | `evaluate.rs` | expressions on one row |

mod content;
mod drift;
mod evaluate;
mod feature;
mod history;
mod input;
mod instants;
mod predict;
mod upsert;

pub use content::{Content, NodeError};
pub use evaluate::event_time_of;
pub use feature::{KeyAnswer, worst};
pub use history::Interpreter;
pub use input::{Assigned, InputRow, assign_epochs};
