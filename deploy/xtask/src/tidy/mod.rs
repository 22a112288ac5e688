//! Checks what STYLE asks of every file and what the design asks of every import, so that review need not.
//!
//! | rule | file |
//! |---|---|
//! | who may import whom, and one arrow | `imports.rs` |
//! | headers, lengths, names, machine paths | `files.rs` |
//! | length of functions | `functions.rs` |
//! | threads and locks only in the bridge | `threads.rs` |
//! | ARCHITECTURE.md names every crate and folder | `map.rs` |

mod check;
mod code;
mod files;
mod functions;
mod imports;
mod map;
mod report;
mod threads;

pub use check::{check, run};
pub use report::Report;
