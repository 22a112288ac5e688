//! `connector = 'webhook'`: a view's changes as HTTP requests.

mod body;
mod client;
mod identity;
mod settings;
mod sink;

pub use identity::sink_of;
pub use settings::check_sink;
pub use sink::WebhookSink;
