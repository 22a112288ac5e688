//! `connector = 'redis'`: the rows of a view under keys, for readers that want them without asking us.

mod client;
mod settings;
mod sink;

pub use settings::check_sink;
pub use sink::RedisSink;
