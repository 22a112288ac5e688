mod errors;
mod setup;
mod sinks;
mod sources;
