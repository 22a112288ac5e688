#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod encodings;
mod errors;
mod setup;
mod sinks;
mod sources;
