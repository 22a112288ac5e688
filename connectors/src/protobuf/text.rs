//! Lists, maps and messages as JSON, for columns of type VARCHAR: fields by name in the order of their numbers, maps by key, 64-bit numbers as
//! numbers, bytes as base64, timestamps as RFC 3339.

use arrow::datatypes::TimeUnit;
use base64::prelude::{BASE64_STANDARD, Engine};
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value};

use super::read::is_wrapper;
use crate::encode::{write_float, write_instant, write_int, write_string};

/// `kind` is the field's; of a map, the kind of its entries.
pub fn write(value: &Value, kind: &Kind, out: &mut Vec<u8>) {
    match value {
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::I32(value) => write_int(i64::from(*value), out),
        Value::I64(value) => write_int(*value, out),
        Value::U32(value) => write_int(i64::from(*value), out),
        Value::U64(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Value::F32(value) => write_number(*value, f64::from(*value), out),
        Value::F64(value) => write_number(*value, *value, out),
        Value::String(text) => write_string(text, out),
        Value::Bytes(bytes) => write_string(&BASE64_STANDARD.encode(bytes), out),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|found| found.get_value(*number)) {
            Some(symbol) => write_string(symbol.name(), out),
            None => write_int(i64::from(*number), out),
        },
        Value::Message(message) => write_message(message, out),
        Value::List(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(value, kind, out);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let value_kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(right.0));
            out.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(&key_text(key), out);
                out.push(b':');
                write(value, value_kind.as_ref().unwrap_or(kind), out);
            }
            out.push(b'}');
        }
    }
}

fn write_message(message: &DynamicMessage, out: &mut Vec<u8>) {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Timestamp" {
        let part = |number| match message.get_field_by_number(number).as_deref() {
            Some(Value::I64(value)) => *value,
            Some(Value::I32(value)) => i64::from(*value),
            _ => 0,
        };
        out.push(b'"');
        write_timestamp(part(1), part(2), out);
        return out.push(b'"');
    }
    if is_wrapper(&descriptor)
        && let Some(field) = descriptor.get_field(1)
    {
        return write(&message.get_field(&field), &field.kind(), out);
    }
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(|(field, _)| field.number());
    out.push(b'{');
    for (index, (field, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(field.name(), out);
        out.push(b':');
        write(value, &field.kind(), out);
    }
    out.push(b'}');
}

/// RFC 3339 with nanoseconds. A year beyond i64 nanoseconds is told in whole seconds.
pub fn write_timestamp(seconds: i64, nanos: i64, out: &mut Vec<u8>) {
    match seconds.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos)) {
        Some(value) => write_instant(value, TimeUnit::Nanosecond, out),
        None => write_instant(seconds.clamp(-62_135_596_800, 253_402_300_799), TimeUnit::Second, out),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

fn write_number<F: ryu::Float>(value: F, wide: f64, out: &mut Vec<u8>) {
    let quoted = !wide.is_finite();
    if quoted {
        out.push(b'"');
    }
    write_float(value, wide, out);
    if quoted {
        out.push(b'"');
    }
}
