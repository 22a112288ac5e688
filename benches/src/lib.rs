//! What all benches share: how to measure so that a number can be trusted. In: closures to time. Out: median, minimum and maximum over interleaved runs.
//!
//! A suite is a binary in `src/bin`; `./dev bench` lists them.
#![forbid(unsafe_code)]

mod broker;
mod flights;
mod latency;
mod measure;
mod nexmark;
mod payments;
mod role;

pub use broker::Broker;
pub use flights::{data_folder, first_model, plan, predictions, replay, whole_loop};
pub use latency::{Latencies, lateness, wait_until};
pub use measure::{Clock, Measurement, Series, Spread, Variant, interleaved, process_clock};
pub use nexmark::{Counted, Events, NexmarkConnectors, nexmark_batches, nexmark_json, nexmark_query, nexmark_source};
pub use payments::{
    PAYMENT_AVRO, PAYMENT_COLUMNS, PAYMENT_PROTO, Payment, parse_avro_by_hand, parse_with_serde_json, parse_with_sonic, payment_avro, payment_json,
    payment_proto,
};
pub use role::{Role, resident_bytes};
