//! The engine against the interpreter: every operator, every epoch, any cut, any number of workers, any restart.
#![allow(clippy::unwrap_used)]

mod control;
mod drift;
mod hindsight;
mod joins;
mod offload;
mod oracle;
mod partitions;
#[path = "../testkit/tests/plans.rs"]
#[allow(dead_code)]
mod plans;
mod predict;
mod reads;
mod restart;
mod running;
mod streams;
mod subscriptions;
mod upsert;
mod wall;
