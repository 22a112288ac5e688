//! The machine's clock, read in one place: epochs of wall-clock pipelines and request times follow it, no result does.

use std::time::{SystemTime, UNIX_EPOCH};

use freshet_core::Epoch;

/// Milliseconds since 1970; 0 if the clock stands before that.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn machine_now() -> Epoch {
    Epoch(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
