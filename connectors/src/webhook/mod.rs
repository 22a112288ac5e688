//! `connector = 'webhook'`: a view's changes as HTTP requests.

mod body;
mod client;
mod settings;
mod sink;

pub use settings::check_sink;
pub use sink::WebhookSink;
