//! The servers over a reader that moves, through the Rust clients of Flight and a plain socket.
mod flight;
mod http;
mod moving;
