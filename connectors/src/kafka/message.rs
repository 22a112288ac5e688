//! What surrounds a Kafka record. In: a message of librdkafka. Out: metadata columns: key, timestamp, offset, partition, topic, headers.

use arrow::datatypes::{DataType, TimeUnit};
use freshet_core::{OptionError, SourceDef};
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::decode::{Cell, Metadata, sql_name};

/// The names that a declaration may use, for errors.
const NAMES: &str = "key, timestamp, offset, partition, topic, headers and header.NAME";

/// One message and the topic it is of.
pub struct Surroundings<'m, 'c> {
    pub message: &'m BorrowedMessage<'c>,
    pub topic: &'m str,
}

impl Metadata for Surroundings<'_, '_> {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        Some(match name {
            "offset" => Cell::Int(self.message.offset()),
            "partition" => Cell::Int(i64::from(self.message.partition())),
            "timestamp" => match self.message.timestamp() {
                Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => Cell::Instant(millis, TimeUnit::Millisecond),
                Timestamp::NotAvailable => Cell::Null,
            },
            "topic" => Cell::Text(self.topic.into()),
            "key" => self.message.key().map_or(Cell::Null, bytes),
            "headers" => Cell::Text(self.headers().into()),
            _ => {
                let wanted = name.strip_prefix("header.")?;
                self.header(wanted).map_or(Cell::Null, bytes)
            }
        })
    }
}

impl Surroundings<'_, '_> {
    /// The last header of this name counts, as Kafka has it.
    fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = self.message.headers()?;
        (0..headers.count()).rev().map(|index| headers.get(index)).find(|header| header.key == name)?.value
    }

    /// All headers in their order: `[{"key":"trace","value":"7"}]`. A value that is no text is written as `\x` and hexadecimal digits.
    fn headers(&self) -> String {
        let mut out = String::from("[");
        if let Some(headers) = self.message.headers() {
            for index in 0..headers.count() {
                let header = headers.get(index);
                let value = match header.value.map(std::str::from_utf8) {
                    None => "null".to_string(),
                    Some(Ok(text)) => quoted(text),
                    Some(Err(_)) => quoted(&hexadecimal(header.value.unwrap_or_default())),
                };
                let comma = if index == 0 { "" } else { "," };
                out.push_str(&format!("{comma}{{\"key\":{},\"value\":{value}}}", quoted(header.key)));
            }
        }
        out.push(']');
        out
    }
}

fn bytes(bytes: &[u8]) -> Cell<'_> {
    Cell::Bytes(bytes.into())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}"))
}

/// Errors: a metadata column that Kafka does not have, or of a type that cannot hold it.
pub fn check_metadata(def: &SourceDef) -> Result<(), OptionError> {
    for column in &def.metadata {
        let field = def.schema.field(column.column);
        let data_type = field.data_type();
        let is_text = matches!(data_type, DataType::Utf8 | DataType::Binary);
        let (fits, wanted) = match column.name.as_str() {
            "key" => (is_text, "VARCHAR or BYTEA"),
            "topic" | "headers" => (*data_type == DataType::Utf8, "VARCHAR"),
            "offset" => (*data_type == DataType::Int64, "BIGINT"),
            "partition" => (matches!(data_type, DataType::Int32 | DataType::Int64), "INT"),
            "timestamp" => (matches!(data_type, DataType::Timestamp(_, _)), "TIMESTAMP(3)"),
            name if name.starts_with("header.") => (is_text, "VARCHAR or BYTEA"),
            name => return Err(OptionError::metadata(name, format!("a Kafka record has no metadata {name}; it has {NAMES}"))),
        };
        if !fits {
            let (name, found) = (&column.name, sql_name(data_type));
            return Err(OptionError::metadata(name, format!("{name} is {wanted}, but column {} is {found}; declare it {wanted}", field.name())));
        }
    }
    Ok(())
}
