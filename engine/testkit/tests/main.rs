//! The tables and rules of the semantics, answered by the model; the laws of the interpreter; the sources and sinks in memory.
#![allow(clippy::unwrap_used)]

mod input;
mod interpreter;
mod plans;
mod rules;
mod tables;
mod written;
