//! Rows to Protobuf bytes, fields in the order of their numbers. In: columns and a message. Out: one message a row. NULL is an absent field;
//! a field without presence leaves its zero out, as proto3 asks.

use arrow::array::*;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use freshet_core::{Error, Result};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::message::indexes_of;
use super::read::is_wrapper;
use super::wire::{COUNTED, FIXED32, FIXED64, VARINT, write_counted, write_tag, write_varint, zigzag};
use crate::encode::Cells;

/// How one field is written.
struct Field {
    name: String,
    number: u32,
    column: usize,
    kind: Kind,
    /// The field itself is a wrapper, and `kind` what is in it.
    wrapped: bool,
    /// Zero is written too.
    presence: bool,
}

/// A column in the form in which it is written.
enum Column {
    Bool(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float(Float32Array),
    Double(Float64Array),
    Text(Cells),
    Bytes(BinaryArray),
    Instant(Int64Array, TimeUnit),
}

/// Writes rows of one batch after another.
pub struct Writer {
    fields: Vec<Field>,
    columns: Vec<Column>,
    indexes: Vec<usize>,
    value: Vec<u8>,
}

impl Writer {
    /// Errors: a column that the message has no fitting field for.
    pub fn new(message: &MessageDescriptor, schema: &Schema) -> std::result::Result<Writer, String> {
        let mut fields = Vec::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            let Some(found) = message.get_field_by_name(name) else {
                let message = message.full_name();
                return Err(format!("message {message} has no field for column {name}; add it there, or leave the column out of the view"));
            };
            fields.push(field_of(&found, column, field.data_type())?);
        }
        if let Some(required) = message.fields().find(|found| found.is_required() && schema.index_of(found.name()).is_err()) {
            return Err(format!("field {} of message {} is required, but there is no such column", required.name(), message.full_name()));
        }
        fields.sort_by_key(|field| field.number);
        Ok(Writer { fields, columns: Vec::new(), indexes: indexes_of(message), value: Vec::new() })
    }

    /// The path to the message in its file.
    pub fn indexes(&self) -> &[usize] {
        &self.indexes
    }

    /// The rows that `write` speaks of from now on. Errors: Data where a value does not fit.
    pub fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.columns = self.fields.iter().map(|field| column_of(field, rows.column(field.column))).collect::<Result<_>>()?;
        Ok(())
    }

    /// One row. Errors: Data, naming the column.
    pub fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let Writer { fields, columns, value, .. } = self;
        for (field, column) in fields.iter().zip(columns) {
            if column.is_null(row) {
                continue;
            }
            value.clear();
            let told = column.write(&field.kind, row, value).map_err(|reason| Error::data(format!("column {}: {reason}", field.name)))?;
            if field.wrapped {
                let mut inner = Vec::new();
                if told {
                    write_tag(1, wire_of(&field.kind), &mut inner);
                    inner.extend_from_slice(value);
                }
                write_tag(field.number, COUNTED, out);
                write_counted(&inner, out);
            } else if told || field.presence {
                write_tag(field.number, wire_of(&field.kind), out);
                out.extend_from_slice(value);
            }
        }
        Ok(())
    }
}

fn field_of(found: &FieldDescriptor, column: usize, data_type: &DataType) -> std::result::Result<Field, String> {
    let misfit = || {
        let name = found.name();
        Err(format!("column {name} has type {data_type}, which field {name} of message {} cannot hold", found.parent_message().full_name()))
    };
    if found.is_list() || found.is_map() {
        return misfit();
    }
    let (kind, wrapped) = match found.kind() {
        Kind::Message(message) if is_wrapper(&message) => (message.get_field(1).map(|field| field.kind()).unwrap_or(Kind::Bool), true),
        kind => (kind, false),
    };
    if !is_possible(&kind, data_type) {
        return misfit();
    }
    Ok(Field { name: found.name().into(), number: found.number(), column, kind, wrapped, presence: found.supports_presence() })
}

fn is_possible(kind: &Kind, data_type: &DataType) -> bool {
    let data_type = if let DataType::Dictionary(_, values) = data_type { values.as_ref() } else { data_type };
    let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match kind {
        Kind::Bool => *data_type == DataType::Boolean,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
            matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => data_type.is_integer(),
        Kind::Float => *data_type == DataType::Float32,
        Kind::Double => {
            matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Int8 | DataType::Int16 | DataType::Int32)
        }
        // Dates and decimals have no type of their own there: they are texts.
        Kind::String => text || matches!(data_type, DataType::Date32 | DataType::Timestamp(_, _) | DataType::Decimal128(_, _)),
        Kind::Bytes => data_type.is_binary(),
        Kind::Enum(_) => text || data_type.is_integer(),
        Kind::Message(message) => message.full_name() == "google.protobuf.Timestamp" && matches!(data_type, DataType::Timestamp(_, _)),
    }
}

fn wire_of(kind: &Kind) -> u8 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FIXED32,
        Kind::String | Kind::Bytes | Kind::Message(_) => COUNTED,
        _ => VARINT,
    }
}

fn column_of(field: &Field, column: &ArrayRef) -> Result<Column> {
    // A value that does not fit must not become NULL.
    let checked = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |to: &DataType| {
        cast_with_options(column, to, &checked).map_err(|error| Error::data(format!("column {} does not fit its field: {error}", field.name)))
    };
    Ok(match &field.kind {
        Kind::Bool => Column::Bool(cast(&DataType::Boolean)?.as_boolean().clone()),
        Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64 => Column::UInt(cast(&DataType::UInt64)?.as_primitive().clone()),
        Kind::Float => Column::Float(cast(&DataType::Float32)?.as_primitive().clone()),
        Kind::Double => Column::Double(cast(&DataType::Float64)?.as_primitive().clone()),
        Kind::Bytes => Column::Bytes(cast(&DataType::Binary)?.as_binary().clone()),
        Kind::String => Column::Text(Cells::of(column)?),
        Kind::Enum(_) if !column.data_type().is_integer() => Column::Text(Cells::of(column)?),
        Kind::Message(_) => {
            let unit = if let DataType::Timestamp(unit, _) = column.data_type() { *unit } else { TimeUnit::Second };
            Column::Instant(cast(&DataType::Int64)?.as_primitive().clone(), unit)
        }
        _ => Column::Int(cast(&DataType::Int64)?.as_primitive().clone()),
    })
}

impl Column {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Bool(values) => values.is_null(row),
            Column::Int(values) | Column::Instant(values, _) => values.is_null(row),
            Column::UInt(values) => values.is_null(row),
            Column::Float(values) => values.is_null(row),
            Column::Double(values) => values.is_null(row),
            Column::Text(values) => values.is_null(row),
            Column::Bytes(values) => values.is_null(row),
        }
    }

    /// The value behind its tag. Whether it is another than zero.
    fn write(&self, kind: &Kind, row: usize, out: &mut Vec<u8>) -> std::result::Result<bool, String> {
        let told = match self {
            Column::Bool(values) => {
                out.push(u8::from(values.value(row)));
                values.value(row)
            }
            Column::Int(values) => return write_int(values.value(row), kind, out),
            Column::UInt(values) => return write_unsigned(values.value(row), kind, out),
            Column::Float(values) => {
                out.extend_from_slice(&values.value(row).to_le_bytes());
                values.value(row).to_bits() != 0
            }
            Column::Double(values) => {
                out.extend_from_slice(&values.value(row).to_le_bytes());
                values.value(row).to_bits() != 0
            }
            Column::Bytes(values) => {
                write_counted(values.value(row), out);
                !values.value(row).is_empty()
            }
            Column::Text(values) => {
                let mut text = Vec::new();
                values.write(row, &mut text);
                if let Kind::Enum(found) = kind {
                    let name = String::from_utf8_lossy(&text);
                    let number = found.get_value_by_name(&name).map(|value| value.number());
                    // A number without a name came from a newer schema.
                    let number = number.or_else(|| name.parse().ok()).ok_or_else(|| format!("enum {} has no '{name}'", found.full_name()))?;
                    return write_int(i64::from(number), kind, out);
                }
                write_counted(&text, out);
                !text.is_empty()
            }
            Column::Instant(values, unit) => {
                let per_second = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                let value = values.value(row);
                let (seconds, nanos) = (value.div_euclid(per_second), value.rem_euclid(per_second) * (1_000_000_000 / per_second));
                let mut message = Vec::new();
                for (number, part) in [(1, seconds), (2, nanos)] {
                    if part != 0 {
                        write_tag(number, VARINT, &mut message);
                        write_varint(part as u64, &mut message);
                    }
                }
                write_counted(&message, out);
                true
            }
        };
        Ok(told)
    }
}

fn write_int(value: i64, kind: &Kind, out: &mut Vec<u8>) -> std::result::Result<bool, String> {
    let narrow = || i32::try_from(value).map_err(|_| format!("{value} does not fit 32 bits"));
    match kind {
        Kind::Int32 | Kind::Enum(_) => write_varint(i64::from(narrow()?) as u64, out),
        Kind::Sint32 => write_varint(zigzag(i64::from(narrow()?)), out),
        Kind::Sint64 => write_varint(zigzag(value), out),
        Kind::Sfixed32 => out.extend_from_slice(&narrow()?.to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&value.to_le_bytes()),
        _ => write_varint(value as u64, out),
    }
    Ok(value != 0)
}

fn write_unsigned(value: u64, kind: &Kind, out: &mut Vec<u8>) -> std::result::Result<bool, String> {
    let narrow = || u32::try_from(value).map_err(|_| format!("{value} does not fit 32 bits"));
    match kind {
        Kind::Uint32 => write_varint(u64::from(narrow()?), out),
        Kind::Fixed32 => out.extend_from_slice(&narrow()?.to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&value.to_le_bytes()),
        _ => write_varint(value, out),
    }
    Ok(value != 0)
}
