//! Schema registries: what the id before a record's bytes means, and an id for the schema that a sink writes.

mod client;
mod fetch;
mod options;

pub use client::{RegistryClient, Subject};
pub use fetch::{Known, Registry};
pub use options::{REGISTRY_OPTIONS, RegistryOptions};

use std::sync::Arc;

/// A schema as the registry has it.
#[derive(Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    pub kind: SchemaKind,
    pub text: String,
    /// What it imports: the name it uses, and that schema.
    pub references: Vec<(String, Arc<RegisteredSchema>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    Avro,
    Protobuf,
    Json,
}

impl SchemaKind {
    /// As the REST API spells it.
    pub fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Protobuf => "PROTOBUF",
            SchemaKind::Json => "JSON",
        }
    }
}

/// The id and the bytes behind it: 0, four bytes of id, the rest. Errors: the bytes are framed otherwise.
pub fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    match bytes {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        [0, ..] => Err(format!("{} bytes are too few for a schema id", bytes.len())),
        [] => Err("it is empty, where a 0 and a schema id were expected".into()),
        [first, ..] => Err(format!("it begins with byte {first}, not with 0 and a schema id; was it written without a registry?")),
    }
}

/// What `unframe` takes off.
pub fn frame(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}
