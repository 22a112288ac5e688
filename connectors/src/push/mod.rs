//! Rows that clients push: `connector = 'push'`. In: batches of many clients at once. Out: one partition, offsets counted from 0.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a script may say of such a source |
//! | `pushes.rs` | all push sources of a pipeline: the `Ingress` that servers hand rows to |
//! | `intake.rs` | one push in bytes or columns becomes rows, whole or not at all |
//! | `columns.rs` | columns of a client become columns of the declared types |
//! | `queue.rs` | what was taken and not read yet, bounded by bytes; gives positions |
//! | `journal.rs` | which positions were given, and under which name of the client, over restarts |
//! | `source.rs` | the engine's side of a queue |
//! | `wiring.rs` | the connectors of a pipeline that can be pushed to |

mod columns;
mod intake;
mod journal;
mod options;
mod pushes;
mod queue;
mod source;
mod wiring;

pub use options::check as check_source;
pub use pushes::Pushes;
pub use wiring::{PipelineConnectors, no_server};

#[cfg(test)]
mod tests;
