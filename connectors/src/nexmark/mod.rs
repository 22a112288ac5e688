//! The auction site of the Nexmark benchmark as a source: people, auctions and bids, made up as they are read.
//!
//! | file | what it does |
//! |---|---|
//! | `event.rs` | the event of a number: proportions, hot keys, prices and times as the benchmark publishes them |
//! | `random.rs` | numbers and texts from a seed |
//! | `columns.rs` | events → the columns that a source declares |
//! | `options.rs` | WITH options, in the spellings of Flink and RisingWave too |
//! | `source.rs` | partitions, offsets and pace |

mod columns;
mod event;
mod options;
mod random;
mod source;

pub use columns::Columns;
pub use event::{Auction, Bid, Event, Generator, Person, Shape};
pub use options::Settings;
pub use source::{NexmarkSource, check_source};
