//! Protobuf without generated code: descriptors from .proto texts, bytes to cells by field number and back.

mod message;
mod read;
mod text;
mod wire;
mod write;

pub use message::{MESSAGE, compile, message_at, message_named, pool_of};
pub use read::Reader;
pub use wire::{read_indexes, write_indexes};
pub use write::Writer;
