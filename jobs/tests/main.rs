//! The binary from outside: real processes, real clients, free ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clients;
mod commands;
mod dead_letters;
mod http;
mod push;
mod retraining;
mod running;
mod serve;
mod serve_crashes;
mod serving;
mod signals;
