//! What all benches share: how to measure so that a number can be trusted. In: closures to time. Out: median, minimum and maximum over interleaved runs.
//!
//! A suite is a binary in `src/bin`; `./dev bench` lists them.
#![forbid(unsafe_code)]

mod broker;
mod flights;
mod latency;
mod measure;

pub use broker::Broker;
pub use flights::{data_folder, first_model, plan, predictions, replay, whole_loop};
pub use latency::{Latencies, lateness, wait_until};
pub use measure::{Clock, Measurement, Series, Spread, Variant, interleaved, process_clock};
