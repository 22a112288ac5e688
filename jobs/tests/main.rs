//! The binary from outside: real processes, real clients, free ports.
mod clients;
mod commands;
mod http;
mod running;
mod signals;
