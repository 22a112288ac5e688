//! Finds the message that a record holds. In: a .proto text, a descriptor set, or a registered schema with what it imports. Out: its descriptor.

use std::collections::BTreeMap;
use std::path::Path;

use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::registry::RegisteredSchema;
use crate::schema_text::{SCHEMA, SCHEMA_FILE};

pub const MESSAGE: &str = "message";
/// What the text of `schema`, or of a registered schema, is called where others import it.
const ROOT: &str = "schema.proto";

/// Where descriptors come from.
pub struct Source {
    pub pool: DescriptorPool,
    /// The file that was named; None: a descriptor set.
    pub file: Option<FileDescriptor>,
    /// The file's text, for a registry.
    pub text: Option<String>,
}

/// Reads `schema` or `schema.file`. Errors: a file that cannot be read or compiled, with the place in it.
pub fn pool_of(options: &BTreeMap<String, String>) -> Result<Source, String> {
    if let Some(text) = options.get(SCHEMA) {
        return compile(text, &[]);
    }
    let path = options.get(SCHEMA_FILE).ok_or("there is no schema")?;
    let unreadable =
        |error: std::io::Error| format!("cannot read schema.file '{path}': {error}; relative paths start at the folder the command runs in");
    let bytes = std::fs::read(path).map_err(unreadable)?;
    if !path.ends_with(".proto") {
        let pool = DescriptorPool::decode(bytes.as_slice());
        let pool = pool.map_err(|error| format!("schema.file '{path}' is no descriptor set: {error}; a text must be called .proto"))?;
        return Ok(Source { pool, file: None, text: None });
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("schema.file '{path}' is not UTF-8"))?;
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut compiler = protox::Compiler::new([folder]).map_err(|error| error.to_string())?;
    compiler.include_imports(true);
    compiler.open_file(path).map_err(|error| format!("schema.file '{path}': {}", chain(&error)))?;
    let pool = compiler.descriptor_pool();
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let file = pool.get_file_by_name(name);
    Ok(Source { pool, file, text: Some(text) })
}

/// A registered schema and what it imports.
pub fn compile(text: &str, references: &[(String, std::sync::Arc<RegisteredSchema>)]) -> Result<Source, String> {
    let mut texts = BTreeMap::from([(ROOT.to_string(), text.to_string())]);
    collect(references, &mut texts);
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(ROOT).map_err(|error| format!("the Protobuf schema cannot be compiled: {}", chain(&error)))?;
    let pool = compiler.descriptor_pool();
    let file = pool.get_file_by_name(ROOT);
    Ok(Source { pool, file, text: Some(text.to_string()) })
}

fn collect(references: &[(String, std::sync::Arc<RegisteredSchema>)], texts: &mut BTreeMap<String, String>) {
    for (name, schema) in references {
        texts.insert(name.clone(), schema.text.clone());
        collect(&schema.references, texts);
    }
}

struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        path.to_str().filter(|path| self.0.contains_key(*path)).map(str::to_string)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

/// Errors: there is no message of this name; those there are.
pub fn message_named(source: &Source, name: &str) -> Result<MessageDescriptor, String> {
    let package = source.file.as_ref().map(|file| file.package_name().to_string()).unwrap_or_default();
    let found = source.pool.get_message_by_name(name).or_else(|| source.pool.get_message_by_name(&format!("{package}.{name}")));
    found.ok_or_else(|| {
        let known: Vec<String> = source
            .pool
            .all_messages()
            .filter(|message| !message.is_map_entry() && !message.full_name().starts_with("google.protobuf."))
            .map(|message| message.full_name().to_string())
            .collect();
        format!("the Protobuf schema has no message {name}; it has {}", known.join(", "))
    })
}

/// The message at this path of indexes, as the wire format of registries has it.
pub fn message_at(source: &Source, indexes: &[usize]) -> Result<MessageDescriptor, String> {
    let missing = || format!("the Protobuf schema has no message at {indexes:?}");
    let file = source.file.as_ref().ok_or_else(missing)?;
    let (first, rest) = indexes.split_first().ok_or_else(missing)?;
    let mut message = file.messages().nth(*first).ok_or_else(missing)?;
    for index in rest {
        let child = message.child_messages().filter(|child| !child.is_map_entry()).nth(*index);
        message = child.ok_or_else(missing)?;
    }
    Ok(message)
}

/// The path that `message_at` follows.
pub fn indexes_of(message: &MessageDescriptor) -> Vec<usize> {
    let mut indexes = Vec::new();
    let mut message = message.clone();
    while let Some(parent) = message.parent_message() {
        let place = parent.child_messages().filter(|child| !child.is_map_entry()).position(|child| child == message);
        indexes.push(place.expect("a message is a child of its parent"));
        message = parent;
    }
    let place = message.parent_file().messages().position(|other| other == message);
    indexes.push(place.expect("a message is in its file"));
    indexes.reverse();
    indexes
}

/// The whole message of an error, which stands in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
