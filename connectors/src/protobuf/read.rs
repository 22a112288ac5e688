//! Protobuf bytes to cells by field number. In: one message. Out: a cell per column whose field it has; absent fields are NULL where presence
//! is known (optional, oneof, messages), else their default.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::text;
use super::wire::{COUNTED, FIXED32, FIXED64, VARINT, counted, fixed32, fixed64, skip, tag, unzigzag, varint};
use crate::decode::{Cell, Fault, Rows};

/// Field numbers below this are found by index.
const DENSE_MAX: usize = 256;

/// How one value reads.
enum Form {
    Int32,
    Int64,
    UInt,
    Signed,
    Fixed32,
    SFixed32,
    Fixed64,
    SFixed64,
    Bool,
    Float,
    Double,
    Text,
    Bytes,
    /// By name where the column is text; by number else.
    Enum {
        names: HashMap<i32, String>,
        text: bool,
    },
    /// google.protobuf.Timestamp.
    Instant {
        unit: Option<TimeUnit>,
    },
    /// A message around one value, such as google.protobuf.Int64Value.
    Wrapped(Box<Form>),
}

struct Field {
    name: String,
    number: u32,
    column: usize,
    form: Form,
    /// What stands for the field where it is absent.
    absent: Option<Value>,
    /// Columns of the other fields of its oneof.
    others: Vec<usize>,
}

/// Reads messages of one kind into these columns.
pub struct Reader {
    message: MessageDescriptor,
    fields: Vec<Field>,
    /// Field number to its place in `fields`, for small numbers.
    dense: Vec<Option<u16>>,
    /// Lists, maps and messages, read as a whole and written as JSON.
    nested: Vec<(usize, FieldDescriptor)>,
}

impl Reader {
    /// Fields to columns by name. Errors: a column that the field of its name cannot fill, or no field at all.
    pub fn new(message: &MessageDescriptor, schema: &Schema, columns: &[usize]) -> Result<Reader, String> {
        let column_of = |field: &FieldDescriptor| columns.iter().copied().find(|column| schema.field(*column).name() == field.name());
        let (mut fields, mut nested) = (Vec::new(), Vec::new());
        for found in message.fields() {
            let Some(column) = column_of(&found) else { continue };
            let data_type = schema.field(column).data_type();
            let form = if found.is_list() || found.is_map() { None } else { form_of(&found.kind(), data_type) };
            let Some(form) = form else {
                if *data_type != DataType::Utf8 {
                    return Err(format!("field {} is a list, a map or a message, which becomes JSON: declare the column VARCHAR", found.name()));
                }
                nested.push((column, found));
                continue;
            };
            let others =
                found.containing_oneof().map(|oneof| oneof.fields().filter(|other| *other != found).filter_map(|other| column_of(&other)).collect());
            let absent = (!found.supports_presence()).then(|| found.default_value());
            fields.push(Field { name: found.name().into(), number: found.number(), column, form, absent, others: others.unwrap_or_default() });
        }
        if fields.is_empty() && nested.is_empty() && !columns.is_empty() {
            let names: Vec<String> = message.fields().map(|field| field.name().to_string()).collect();
            return Err(format!("message {} has none of the columns; it has {}", message.full_name(), names.join(", ")));
        }
        let mut dense = vec![None; fields.iter().map(|field| field.number as usize + 1).filter(|size| *size <= DENSE_MAX).max().unwrap_or(0)];
        for (place, field) in fields.iter().enumerate() {
            if let Some(slot) = dense.get_mut(field.number as usize) {
                *slot = Some(place as u16);
            }
        }
        Ok(Reader { message: message.clone(), fields, dense, nested })
    }

    /// Sets the cells of one row.
    pub fn fill(&self, payload: &[u8], rows: &mut Rows) -> Result<(), Fault> {
        let mut input = payload;
        while !input.is_empty() {
            let (number, wire) = tag(&mut input).map_err(Fault::of_record)?;
            let Some(field) = self.field(number) else {
                skip(wire, &mut input).map_err(Fault::of_record)?;
                continue;
            };
            if wire != field.form.wire() {
                let reason = format!("field {number} has wire type {wire} instead of {}; it was written with another schema", field.form.wire());
                return Err(Fault::new(&field.name, reason));
            }
            let cell = field.form.read(&mut input).map_err(|reason| Fault::new(&field.name, reason))?;
            rows.set(field.column, &cell)?;
            for other in &field.others {
                rows.set(*other, &Cell::Null)?;
            }
        }
        for field in &self.fields {
            if let Some(absent) = &field.absent
                && !rows.has(field.column)
            {
                rows.set(field.column, &field.form.default_cell(absent))?;
            }
        }
        self.fill_nested(payload, rows)
    }

    fn field(&self, number: u32) -> Option<&Field> {
        match self.dense.get(number as usize) {
            Some(place) => place.map(|place| &self.fields[usize::from(place)]),
            None => self.fields.iter().find(|field| field.number == number),
        }
    }

    fn fill_nested(&self, payload: &[u8], rows: &mut Rows) -> Result<(), Fault> {
        if self.nested.is_empty() {
            return Ok(());
        }
        let message = DynamicMessage::decode(self.message.clone(), payload).map_err(|error| Fault::of_record(error.to_string()))?;
        for (column, field) in &self.nested {
            if field.supports_presence() && !message.has_field(field) {
                continue;
            }
            let mut out = Vec::new();
            text::write(&message.get_field(field), &field.kind(), &mut out);
            let json = String::from_utf8(out).map_err(|_| Fault::new(field.name(), "its JSON is not UTF-8"))?;
            rows.set(*column, &Cell::Text(Cow::Owned(json)))?;
        }
        Ok(())
    }
}

/// None: it is nested.
fn form_of(kind: &Kind, data_type: &DataType) -> Option<Form> {
    Some(match kind {
        Kind::Int32 => Form::Int32,
        Kind::Int64 => Form::Int64,
        Kind::Uint32 | Kind::Uint64 => Form::UInt,
        Kind::Sint32 | Kind::Sint64 => Form::Signed,
        Kind::Fixed32 => Form::Fixed32,
        Kind::Sfixed32 => Form::SFixed32,
        Kind::Fixed64 => Form::Fixed64,
        Kind::Sfixed64 => Form::SFixed64,
        Kind::Bool => Form::Bool,
        Kind::Float => Form::Float,
        Kind::Double => Form::Double,
        Kind::String => Form::Text,
        Kind::Bytes => Form::Bytes,
        Kind::Enum(found) => {
            let names = found.values().map(|value| (value.number(), value.name().to_string())).collect();
            Form::Enum { names, text: *data_type == DataType::Utf8 }
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => match data_type {
            DataType::Timestamp(unit, _) => Form::Instant { unit: Some(*unit) },
            _ => Form::Instant { unit: None },
        },
        Kind::Message(message) if is_wrapper(message) => Form::Wrapped(Box::new(form_of(&message.get_field(1)?.kind(), data_type)?)),
        Kind::Message(_) => return None,
    })
}

pub fn is_wrapper(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf" && message.name().ends_with("Value") && message.fields().len() == 1 && message.name() != "ListValue"
}

impl Form {
    fn wire(&self) -> u8 {
        match self {
            Form::Int32 | Form::Int64 | Form::UInt | Form::Signed | Form::Bool | Form::Enum { .. } => VARINT,
            Form::Fixed64 | Form::SFixed64 | Form::Double => FIXED64,
            Form::Fixed32 | Form::SFixed32 | Form::Float => FIXED32,
            Form::Text | Form::Bytes | Form::Instant { .. } | Form::Wrapped(_) => COUNTED,
        }
    }

    fn read<'a>(&'a self, input: &mut &'a [u8]) -> Result<Cell<'a>, String> {
        Ok(match self {
            Form::Int32 => Cell::Int(i64::from(varint(input)? as i32)),
            Form::Int64 => Cell::Int(varint(input)? as i64),
            Form::UInt => unsigned(varint(input)?),
            Form::Signed => Cell::Int(unzigzag(varint(input)?)),
            Form::Fixed32 => Cell::Int(i64::from(fixed32(input)?)),
            Form::SFixed32 => Cell::Int(i64::from(fixed32(input)? as i32)),
            Form::Fixed64 => unsigned(fixed64(input)?),
            Form::SFixed64 => Cell::Int(fixed64(input)? as i64),
            Form::Bool => Cell::Bool(varint(input)? != 0),
            Form::Float => Cell::Float(f64::from(f32::from_bits(fixed32(input)?))),
            Form::Double => Cell::Float(f64::from_bits(fixed64(input)?)),
            Form::Text => {
                let text = std::str::from_utf8(counted(input)?);
                Cell::Text(Cow::Borrowed(text.map_err(|error| format!("a text is not UTF-8 at its byte {}", error.valid_up_to() + 1))?))
            }
            Form::Bytes => Cell::Bytes(Cow::Borrowed(counted(input)?)),
            Form::Enum { names, text } => symbol(varint(input)? as i32, names, *text),
            Form::Instant { unit } => instant(counted(input)?, *unit)?,
            Form::Wrapped(inner) => {
                let mut message = counted(input)?;
                let mut found = None;
                while !message.is_empty() {
                    match tag(&mut message)? {
                        (1, wire) if wire == inner.wire() => found = Some(inner.read(&mut message)?),
                        (_, wire) => skip(wire, &mut message)?,
                    }
                }
                found.unwrap_or_else(|| inner.zero())
            }
        })
    }

    /// What an empty wrapper holds.
    fn zero(&self) -> Cell<'_> {
        match self {
            Form::Bool => Cell::Bool(false),
            Form::Float | Form::Double => Cell::Float(0.0),
            Form::Text => Cell::Text(Cow::Borrowed("")),
            Form::Bytes => Cell::Bytes(Cow::Borrowed(&[])),
            _ => Cell::Int(0),
        }
    }

    fn default_cell<'a>(&'a self, value: &'a Value) -> Cell<'a> {
        match (self, value) {
            (Form::Enum { names, text }, Value::EnumNumber(number)) => symbol(*number, names, *text),
            _ => match value {
                Value::Bool(value) => Cell::Bool(*value),
                Value::I32(value) => Cell::Int(i64::from(*value)),
                Value::I64(value) => Cell::Int(*value),
                Value::U32(value) => Cell::Int(i64::from(*value)),
                Value::U64(value) => unsigned(*value),
                Value::F32(value) => Cell::Float(f64::from(*value)),
                Value::F64(value) => Cell::Float(*value),
                Value::String(value) => Cell::Text(Cow::Borrowed(value)),
                Value::Bytes(value) => Cell::Bytes(Cow::Borrowed(value)),
                _ => Cell::Null,
            },
        }
    }
}

fn unsigned<'a>(value: u64) -> Cell<'a> {
    i64::try_from(value).map_or(Cell::UInt(value), Cell::Int)
}

/// A number without a name comes from a newer schema: it is kept as a number.
fn symbol(number: i32, names: &HashMap<i32, String>, text: bool) -> Cell<'_> {
    match names.get(&number) {
        Some(name) if text => Cell::Text(Cow::Borrowed(name)),
        None if text => Cell::Text(Cow::Owned(number.to_string())),
        _ => Cell::Int(i64::from(number)),
    }
}

fn instant<'a>(mut message: &[u8], unit: Option<TimeUnit>) -> Result<Cell<'a>, String> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    while !message.is_empty() {
        match tag(&mut message)? {
            (1, VARINT) => seconds = varint(&mut message)? as i64,
            (2, VARINT) => nanos = i64::from(varint(&mut message)? as i32),
            (_, wire) => skip(wire, &mut message)?,
        }
    }
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(format!("a timestamp has {nanos} nanoseconds"));
    }
    let Some(unit) = unit else {
        let mut out = Vec::new();
        text::write_timestamp(seconds, nanos, &mut out);
        return Ok(Cell::Text(Cow::Owned(String::from_utf8(out).map_err(|_| "a timestamp is no text")?)));
    };
    let (per_second, digits) = match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, nanos / 1_000_000),
        TimeUnit::Microsecond => (1_000_000, nanos / 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, nanos),
    };
    let value = seconds.checked_mul(per_second).and_then(|whole| whole.checked_add(digits));
    Ok(Cell::Instant(value.ok_or_else(|| format!("{seconds} seconds since 1970 are out of range"))?, unit))
}
