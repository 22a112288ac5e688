//! Avro schemas. In: their JSON, and those they refer to. Out: a list of types that name each other by number, so that types may contain themselves.

use std::collections::HashMap;

use arrow::datatypes::TimeUnit;
use serde_json::Value as Json;

/// A type's place in its [`Types`].
pub type TypeId = usize;

/// How deep a schema's text may nest; serde_json itself stops at 128.
const DEPTH_MAX: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Null,
    Boolean,
    Int(Logical),
    Long(Logical),
    Float,
    Double,
    Bytes(Logical),
    String,
    Fixed(usize, Logical),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    /// Name and fields.
    Record(String, Vec<(String, TypeId)>),
    /// A record whose fields are still being read.
    Unfinished,
}

/// What bytes and numbers stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    None,
    Date,
    Instant(TimeUnit),
    Decimal { precision: u8, scale: i8 },
    Uuid,
}

/// The types of one schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Types {
    types: Vec<Type>,
    names: HashMap<String, TypeId>,
    root: TypeId,
}

impl Types {
    /// `references` are schemas that this one uses by name. Errors: what is wrong with the text.
    pub fn parse(text: &str, references: &[&str]) -> Result<Types, String> {
        let mut types = Types { types: Vec::new(), names: HashMap::new(), root: 0 };
        for text in references.iter().chain([&text]) {
            let json: Json = serde_json::from_str(text).map_err(|error| format!("the Avro schema is not JSON: {error}"))?;
            types.root = types.add(&json, "", 0)?;
        }
        Ok(types)
    }

    pub fn root(&self) -> TypeId {
        self.root
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id]
    }

    /// The fields of a record, or of the one record in a union with null.
    pub fn record(&self, id: TypeId) -> Option<&[(String, TypeId)]> {
        match self.get(id) {
            Type::Record(_, fields) => Some(fields),
            Type::Union(branches) => {
                let mut records = branches.iter().filter_map(|branch| self.record(*branch));
                records.next().filter(|_| records.next().is_none())
            }
            _ => None,
        }
    }

    fn push(&mut self, found: Type) -> TypeId {
        self.types.push(found);
        self.types.len() - 1
    }

    fn add(&mut self, json: &Json, namespace: &str, depth: usize) -> Result<TypeId, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the Avro schema nests more than {DEPTH_MAX} deep"));
        }
        match json {
            Json::String(name) => self.named(name, namespace),
            Json::Array(branches) => {
                let branches = branches.iter().map(|branch| self.add(branch, namespace, depth + 1)).collect::<Result<Vec<_>, _>>()?;
                Ok(self.push(Type::Union(branches)))
            }
            Json::Object(members) => self.add_object(members, namespace, depth),
            other => Err(format!("an Avro type is a name, an object or a list, not {other}")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        let primitive = match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int(Logical::None),
            "long" => Type::Long(Logical::None),
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes(Logical::None),
            "string" => Type::String,
            _ => {
                let full = full_name(name, namespace);
                let known = self.names.get(&full).or_else(|| self.names.get(name));
                return known.copied().ok_or_else(|| format!("the Avro schema uses type {name}, which it does not define"));
            }
        };
        Ok(self.push(primitive))
    }

    fn add_object(&mut self, members: &serde_json::Map<String, Json>, namespace: &str, depth: usize) -> Result<TypeId, String> {
        let text = |name: &str| members.get(name).and_then(Json::as_str);
        let required = |name: &str| members.get(name).ok_or_else(|| format!("an Avro type has no {name}"));
        let kind = match members.get("type") {
            Some(Json::String(kind)) => kind.as_str(),
            Some(inner) => return self.add(inner, namespace, depth + 1),
            None => return Err("an Avro type has no member type".into()),
        };
        let logical = logical(text("logicalType"), members);
        let namespace = text("namespace").unwrap_or(namespace);
        let full = text("name").map(|name| full_name(name, namespace)).unwrap_or_default();
        let inner_namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_string();
        let found = match kind {
            "record" | "error" => return self.add_record(full, &inner_namespace, required("fields")?, depth),
            "enum" => {
                let symbols = required("symbols")?.as_array().ok_or("the symbols of an Avro enum are a list")?;
                Type::Enum(symbols.iter().map(|symbol| symbol.as_str().unwrap_or_default().to_string()).collect())
            }
            "fixed" => {
                let size = required("size")?.as_u64().filter(|size| *size <= 1 << 20);
                Type::Fixed(size.ok_or("the size of an Avro fixed is a number up to 1048576")? as usize, logical)
            }
            "array" => Type::Array(self.add(required("items")?, namespace, depth + 1)?),
            "map" => Type::Map(self.add(required("values")?, namespace, depth + 1)?),
            "int" if logical == Logical::Date => Type::Int(logical),
            "long" if matches!(logical, Logical::Instant(_)) => Type::Long(logical),
            "bytes" if matches!(logical, Logical::Decimal { .. }) => Type::Bytes(logical),
            other => return self.named(other, namespace),
        };
        let id = self.push(found);
        if !full.is_empty() {
            self.names.insert(full, id);
        }
        Ok(id)
    }

    fn add_record(&mut self, full: String, namespace: &str, fields: &Json, depth: usize) -> Result<TypeId, String> {
        let id = self.push(Type::Unfinished);
        self.names.insert(full.clone(), id);
        let fields = fields.as_array().ok_or_else(|| format!("the fields of Avro record {full} are a list"))?;
        let mut read = Vec::new();
        for field in fields {
            let name = field.get("name").and_then(Json::as_str).ok_or_else(|| format!("a field of Avro record {full} has no name"))?;
            let kind = field.get("type").ok_or_else(|| format!("field {name} of Avro record {full} has no type"))?;
            read.push((name.to_string(), self.add(kind, namespace, depth + 1)?));
        }
        self.types[id] = Type::Record(full, read);
        Ok(id)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_string() } else { format!("{namespace}.{name}") }
}

/// Unknown logical types are what they are made of, as the specification asks.
fn logical(name: Option<&str>, members: &serde_json::Map<String, Json>) -> Logical {
    match name {
        Some("date") => Logical::Date,
        Some("timestamp-millis" | "local-timestamp-millis") => Logical::Instant(TimeUnit::Millisecond),
        Some("timestamp-micros" | "local-timestamp-micros") => Logical::Instant(TimeUnit::Microsecond),
        Some("timestamp-nanos" | "local-timestamp-nanos") => Logical::Instant(TimeUnit::Nanosecond),
        Some("decimal") => {
            let number = |name: &str| members.get(name).and_then(Json::as_u64);
            let precision = number("precision").and_then(|precision| u8::try_from(precision).ok()).unwrap_or(0);
            let scale = number("scale").map_or(Some(0), |scale| i8::try_from(scale).ok());
            match scale {
                Some(scale) if (1..=38).contains(&precision) && scale as u8 <= precision => Logical::Decimal { precision, scale },
                _ => Logical::None,
            }
        }
        Some("uuid") => Logical::Uuid,
        _ => Logical::None,
    }
}
