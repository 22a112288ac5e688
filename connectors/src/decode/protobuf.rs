//! ENCODE PROTOBUF: messages of one kind, or with the id of their schema and the place of their message in front. In: bytes. Out: rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use freshet_core::{Error, Result, SourceDef};

use super::record::{Refusal, RowDecoder, Wait};
use super::{Fault, Rows};
use crate::protobuf::{MESSAGE, Reader, compile, message_at, message_named, pool_of, read_indexes};
use crate::registry::{Known, Registry, RegistryOptions, SchemaKind, unframe};

/// Where descriptors come from.
enum Schemas {
    One(Reader),
    /// One reader for each schema and message in it.
    Registry {
        registry: Registry,
        readers: HashMap<(u32, Vec<usize>), Arc<Reader>>,
    },
}

pub struct ProtobufDecoder {
    schemas: Schemas,
    schema: SchemaRef,
    columns: Vec<usize>,
    /// The message that counts, whatever a record's own indexes say.
    message: Option<String>,
}

impl ProtobufDecoder {
    /// Reads these columns. Errors: Invalid, naming the schema file or what is wrong in it.
    pub fn open(def: &SourceDef, columns: &[usize]) -> Result<ProtobufDecoder> {
        let invalid = |message: String| Error::invalid(format!("source {}: {message}", def.name));
        let message = def.options.get(MESSAGE).cloned();
        let schemas = match RegistryOptions::parse(&def.options).map_err(|error| invalid(error.message))? {
            Some(options) => Schemas::Registry { registry: Registry::start(options)?, readers: HashMap::new() },
            None => {
                let name = message.as_deref().ok_or_else(|| invalid("ENCODE PROTOBUF needs message = 'package.Type'".into()))?;
                let reader = pool_of(&def.options)
                    .and_then(|source| message_named(&source, name))
                    .and_then(|message| Reader::new(&message, &def.schema, columns));
                Schemas::One(reader.map_err(invalid)?)
            }
        };
        Ok(ProtobufDecoder { schemas, schema: def.schema.clone(), columns: columns.to_vec(), message })
    }
}

impl RowDecoder for ProtobufDecoder {
    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        let ProtobufDecoder { schemas, schema, columns, message } = self;
        match schemas {
            Schemas::One(reader) => Ok(reader.fill(payload, rows)?),
            Schemas::Registry { registry, readers } => {
                let (id, mut rest) = unframe(payload).map_err(Fault::of_record)?;
                let indexes = read_indexes(&mut rest).map_err(Fault::of_record)?;
                let key = (id, indexes);
                if let Some(reader) = readers.get(&key) {
                    return Ok(reader.fill(rest, rows)?);
                }
                let registered = match registry.schema(id) {
                    Known::Schema(registered) => registered,
                    Known::Never(reason) => return Err(Fault::of_record(reason).into()),
                    Known::NotYet(reason) => return Err(Refusal::Wait(Wait { reason })),
                };
                let fault = |reason: String| Fault::of_record(format!("schema {id}: {reason}"));
                if registered.kind != SchemaKind::Protobuf {
                    return Err(fault(format!("it is a schema of kind {}, not PROTOBUF", registered.kind.name())).into());
                }
                let source = compile(&registered.text, &registered.references).map_err(fault)?;
                let found = match message {
                    Some(name) => message_named(&source, name),
                    None => message_at(&source, &key.1),
                };
                let reader = found.and_then(|message| Reader::new(&message, schema, columns)).map_err(fault)?;
                let reader = Arc::new(reader);
                readers.insert(key, reader.clone());
                Ok(reader.fill(rest, rows)?)
            }
        }
    }
}
