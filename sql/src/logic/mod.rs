//! sqllogictest files: statements and queries with their answers, run on real pipelines in several ways that must agree.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | text → records: `statement`, `query`, `include`, `onlyif`, `skipif`, `halt` |
//! | `session.rs` | records → segments: a script, the rows written to its tables, and the queries asked on the way |
//! | `declaration.rs` | CREATE TABLE → a source of changes and the view that reads it |
//! | `table.rs` | INSERT, UPDATE, DELETE → changes, one epoch a statement |
//! | `feed.rs` | these changes as a source of the pipeline |
//! | `run.rs` | a segment → pipelines, in every way, and each answer checked |
//! | `answer.rs` | rows as text, and what counts as equal |
//!
//! The engine is the caller's: [`Engines`] starts it.
mod answer;
mod declaration;
mod feed;
mod record;
mod run;
mod session;
mod table;

pub use answer::difference;
pub use record::{Failure, TestFile, read};
pub use run::{Engines, Pipeline, Way};
pub use session::{Counts, Session, run_file};
