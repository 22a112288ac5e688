//! Rows to Avro bytes. In: columns and the schema they are written with. Out: one datum a row. The schema is made from the columns, or given.

use arrow::array::*;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use freshet_core::{Error, Result};
use serde_json::{Value as Json, json};

use super::schema::{Logical, Type, TypeId, Types};

/// The schema of a record with these columns. Errors: a column whose name or type Avro does not have.
pub fn schema_of(schema: &Schema, name: &str) -> std::result::Result<Json, String> {
    let fields = schema.fields().iter().map(|field| {
        check_name(field.name())?;
        let kind = type_of(field)?;
        Ok(if field.is_nullable() {
            json!({"name": field.name(), "type": ["null", kind], "default": null})
        } else {
            json!({"name": field.name(), "type": kind})
        })
    });
    let fields = fields.collect::<std::result::Result<Vec<_>, String>>()?;
    let plain: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let name = if plain.starts_with(|first: char| first.is_ascii_digit()) { format!("_{plain}") } else { plain };
    Ok(json!({"type": "record", "name": name, "namespace": "freshet", "fields": fields}))
}

fn check_name(name: &str) -> std::result::Result<(), String> {
    let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if plain && !name.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("column \"{name}\" cannot be an Avro field: only letters a to z, digits and _ can; rename it in the view"))
}

fn type_of(field: &Field) -> std::result::Result<Json, String> {
    Ok(match field.data_type() {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => json!("int"),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Dictionary(_, values) => return type_of(&Field::new(field.name(), values.as_ref().clone(), true)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("bytes"),
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Timestamp(unit, _) => {
            let logical = match unit {
                TimeUnit::Second | TimeUnit::Millisecond => "timestamp-millis",
                TimeUnit::Microsecond => "timestamp-micros",
                TimeUnit::Nanosecond => "timestamp-nanos",
            };
            json!({"type": "long", "logicalType": logical})
        }
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        other => return Err(format!("column {} has type {other}, which ENCODE AVRO does not write; cast it to VARCHAR", field.name())),
    })
}

/// How one field is written.
#[derive(Debug, Clone)]
struct FieldPlan {
    name: String,
    /// None: the schema has it, the columns do not; NULL is written.
    column: Option<usize>,
    kind: Kind,
    /// The numbers of the branches for NULL and for a value, in a union.
    branches: Option<(Option<i64>, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Long(DataType),
    Float,
    Double,
    Text,
    Bytes,
    Decimal(DataType, Option<usize>),
    Enum(Vec<String>),
}

impl Kind {
    /// How a column of this type is written as this Avro type; None: it cannot be.
    fn of(found: &Type, data_type: &DataType) -> Option<Kind> {
        let data_type = if let DataType::Dictionary(_, values) = data_type { values.as_ref() } else { data_type };
        let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let small = matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16);
        match found {
            Type::Boolean => (*data_type == DataType::Boolean).then_some(Kind::Boolean),
            Type::Int(Logical::Date) => (*data_type == DataType::Date32).then_some(Kind::Long(DataType::Date32)),
            Type::Int(_) => small.then_some(Kind::Long(DataType::Int64)),
            Type::Long(Logical::Instant(unit)) => match data_type {
                // A coarser unit would cut digits off.
                DataType::Timestamp(own, _) if own <= unit => Some(Kind::Long(DataType::Timestamp(*unit, None))),
                _ => None,
            },
            Type::Long(_) => data_type.is_integer().then_some(Kind::Long(DataType::Int64)),
            Type::Float => (*data_type == DataType::Float32).then_some(Kind::Float),
            Type::Double => (small || matches!(data_type, DataType::Float32 | DataType::Float64)).then_some(Kind::Double),
            Type::String => text.then_some(Kind::Text),
            Type::Enum(symbols) => text.then(|| Kind::Enum(symbols.clone())),
            Type::Bytes(Logical::Decimal { precision, scale }) => decimal(data_type, *precision, *scale, None),
            Type::Fixed(size, Logical::Decimal { precision, scale }) if *size <= 16 => decimal(data_type, *precision, *scale, Some(*size)),
            Type::Bytes(_) => data_type.is_binary().then_some(Kind::Bytes),
            _ => None,
        }
    }
}

fn decimal(data_type: &DataType, precision: u8, scale: i8, size: Option<usize>) -> Option<Kind> {
    match data_type {
        DataType::Decimal128(own, own_scale) if *own <= precision && *own_scale <= scale => {
            Some(Kind::Decimal(DataType::Decimal128(precision, scale), size))
        }
        _ => None,
    }
}

/// A column in the form in which it is written.
enum Column {
    Null,
    Boolean(BooleanArray),
    Long(Int64Array),
    Float(Float32Array),
    Double(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Decimal(Decimal128Array, Option<usize>),
    Enum(StringArray, Vec<String>),
}

/// Writes rows of one batch after another.
pub struct Writer {
    fields: Vec<FieldPlan>,
    columns: Vec<Column>,
}

impl Writer {
    /// Errors: a column that the schema has no place for, or a field that nothing can fill.
    pub fn new(types: &Types, record: TypeId, schema: &Schema) -> std::result::Result<Writer, String> {
        let found = types.record(record).ok_or("the Avro schema is no record")?;
        for field in schema.fields() {
            if !found.iter().any(|(name, _)| name == field.name()) {
                return Err(format!("the Avro schema has no field for column {}; add it there, or leave the column out of the view", field.name()));
            }
        }
        let fields = found.iter().map(|(name, id)| field_plan(types, name, *id, schema)).collect::<std::result::Result<_, _>>()?;
        Ok(Writer { fields, columns: Vec::new() })
    }

    /// The rows that `write` speaks of from now on. Errors: Data where a value does not fit.
    pub fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.columns = self.fields.iter().map(|field| column_of(field, rows)).collect::<Result<_>>()?;
        Ok(())
    }

    /// One row. Errors: Data, naming the column.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        for (field, column) in self.fields.iter().zip(&self.columns) {
            if column.is_null(row) {
                match field.branches {
                    Some((Some(null), _)) => write_long(null, out),
                    _ if field.kind == Kind::Null => {}
                    _ => return Err(Error::data(format!("column {} is NULL, which its Avro type does not allow", field.name))),
                }
                continue;
            }
            if let Some((_, value)) = field.branches {
                write_long(value, out);
            }
            column.write(row, out).map_err(|reason| Error::data(format!("column {}: {reason}", field.name)))?;
        }
        Ok(())
    }
}

fn field_plan(types: &Types, name: &str, id: TypeId, schema: &Schema) -> std::result::Result<FieldPlan, String> {
    let branches: Vec<TypeId> = if let Type::Union(branches) = types.get(id) { branches.clone() } else { vec![id] };
    let null = branches.iter().position(|branch| *types.get(*branch) == Type::Null).map(|index| index as i64);
    let union = matches!(types.get(id), Type::Union(_));
    let Ok(column) = schema.index_of(name) else {
        return match null {
            Some(branch) => Ok(FieldPlan { name: name.into(), column: None, kind: Kind::Null, branches: union.then_some((Some(branch), 0)) }),
            None => Err(format!("field {name} of the Avro schema has no column and cannot be null")),
        };
    };
    let data_type = schema.field(column).data_type();
    let fitting = branches.iter().enumerate().find_map(|(index, branch)| Some((index as i64, Kind::of(types.get(*branch), data_type)?)));
    let Some((branch, kind)) = fitting else {
        return Err(format!("column {name} has type {data_type}, which field {name} of the Avro schema cannot hold"));
    };
    Ok(FieldPlan { name: name.into(), column: Some(column), kind, branches: union.then_some((null, branch)) })
}

fn column_of(field: &FieldPlan, rows: &RecordBatch) -> Result<Column> {
    let Some(index) = field.column else { return Ok(Column::Null) };
    let column = rows.column(index);
    // A value that does not fit must not become NULL.
    let checked = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |to: &DataType| {
        cast_with_options(column, to, &checked).map_err(|error| Error::data(format!("column {} does not fit its Avro type: {error}", field.name)))
    };
    Ok(match &field.kind {
        Kind::Null => Column::Null,
        Kind::Boolean => Column::Boolean(cast(&DataType::Boolean)?.as_boolean().clone()),
        Kind::Long(DataType::Timestamp(unit, _)) => {
            // A zone says how to show an instant, which is UTC already.
            let own = cast(&DataType::Int64)?;
            let from = if let DataType::Timestamp(from, _) = column.data_type() { *from } else { *unit };
            let instants = cast_with_options(&in_unit(&own, from), &DataType::Timestamp(*unit, None), &checked);
            let instants = instants.map_err(|error| Error::data(format!("column {}: {error}", field.name)))?;
            Column::Long(cast_with_options(&instants, &DataType::Int64, &checked)?.as_primitive().clone())
        }
        Kind::Long(to) => {
            let values = cast(to)?;
            Column::Long(cast_with_options(&values, &DataType::Int64, &checked)?.as_primitive().clone())
        }
        Kind::Float => Column::Float(cast(&DataType::Float32)?.as_primitive().clone()),
        Kind::Double => Column::Double(cast(&DataType::Float64)?.as_primitive().clone()),
        Kind::Text => Column::Text(cast(&DataType::Utf8)?.as_string().clone()),
        Kind::Bytes => Column::Bytes(cast(&DataType::Binary)?.as_binary().clone()),
        Kind::Decimal(to, size) => Column::Decimal(cast(to)?.as_primitive().clone(), *size),
        Kind::Enum(symbols) => Column::Enum(cast(&DataType::Utf8)?.as_string().clone(), symbols.clone()),
    })
}

fn in_unit(values: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    let values: &Int64Array = values.as_primitive();
    match unit {
        TimeUnit::Second => std::sync::Arc::new(values.reinterpret_cast::<TimestampSecondType>()),
        TimeUnit::Millisecond => std::sync::Arc::new(values.reinterpret_cast::<TimestampMillisecondType>()),
        TimeUnit::Microsecond => std::sync::Arc::new(values.reinterpret_cast::<TimestampMicrosecondType>()),
        TimeUnit::Nanosecond => std::sync::Arc::new(values.reinterpret_cast::<TimestampNanosecondType>()),
    }
}

impl Column {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Null => true,
            Column::Boolean(values) => values.is_null(row),
            Column::Long(values) => values.is_null(row),
            Column::Float(values) => values.is_null(row),
            Column::Double(values) => values.is_null(row),
            Column::Text(values) | Column::Enum(values, _) => values.is_null(row),
            Column::Bytes(values) => values.is_null(row),
            Column::Decimal(values, _) => values.is_null(row),
        }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        match self {
            Column::Null => {}
            Column::Boolean(values) => out.push(u8::from(values.value(row))),
            Column::Long(values) => write_long(values.value(row), out),
            Column::Float(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Column::Double(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Column::Text(values) => write_counted(values.value(row).as_bytes(), out),
            Column::Bytes(values) => write_counted(values.value(row), out),
            Column::Decimal(values, size) => {
                let bytes = values.value(row).to_be_bytes();
                match size {
                    None => write_counted(shortest(&bytes), out),
                    Some(size) if shortest(&bytes).len() <= *size => out.extend_from_slice(&bytes[16 - size..]),
                    Some(size) => return Err(format!("the value does not fit {size} bytes")),
                }
            }
            Column::Enum(values, symbols) => {
                let text = values.value(row);
                let index = symbols.iter().position(|symbol| symbol == text);
                let index = index.ok_or_else(|| format!("'{text}' is no symbol of the Avro enum; it has {}", symbols.join(", ")))?;
                write_long(index as i64, out);
            }
        }
        Ok(())
    }
}

/// Two's complement without the bytes that only repeat the sign.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let sign = if bytes[0] & 0x80 != 0 { 0xff } else { 0 };
    let spare = (0..15).take_while(|index| bytes[*index] == sign && (bytes[index + 1] ^ sign) & 0x80 == 0).count();
    &bytes[spare..]
}

pub fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn write_counted(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}
