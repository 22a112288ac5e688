//! The servers over a reader that moves, through the Rust clients of Flight and a plain socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod flight;
mod http;
mod moving;
mod positions;
mod push;
