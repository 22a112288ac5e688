//! The seam to SQL: this crate moves statements and answers, and never sees the planner behind them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_core::{Epoch, ReadPoint, Result, SubscribeRequest};

/// What a statement will answer and what it takes, before it runs.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub schema: SchemaRef,
    /// One field per `?` or `$n`, in order.
    pub parameters: SchemaRef,
}

/// The rows of a statement, all read at one point.
#[derive(Debug, Clone)]
pub struct QueryAnswer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    pub point: ReadPoint,
    /// How many rows a statement that writes has changed.
    pub changed: Option<u64>,
}

/// Plans and runs statements. Its methods block; callers put them on a thread that may.
pub trait Queries: Send + Sync {
    /// Errors: Invalid with the place in the text; anything but a query or a statement that writes is refused here.
    fn prepare(&self, sql: &str) -> Result<Prepared>;

    /// Runs the statement once per parameter row and appends the answers; without parameters once. All of it is read at one
    /// epoch: `at`, or the last complete one; the answer's point is the instant after it. Errors: Invalid (also an epoch that is no longer kept), Data (a failing expression).
    fn run(&self, sql: &str, parameters: Option<&RecordBatch>, at: Option<Epoch>) -> Result<QueryAnswer>;

    /// Whether the statement writes: INSERT, UPDATE, DELETE, FLUSH. `run` does so once, is told no epoch, and answers with one row, how many rows
    /// it has changed, or with those of RETURNING; they are visible then.
    fn writes(&self, _sql: &str) -> Result<bool> {
        Ok(false)
    }

    /// What a SUBSCRIBE asks for, and whether it wants to hear of progress; None if the text is something else. Errors: Invalid with the place
    /// in the text.
    fn subscription(&self, _sql: &str) -> Result<Option<(SubscribeRequest, bool)>> {
        Ok(None)
    }
}
