//! Avro bytes to cells. In: a datum and the schema it was written with. Out: a cell per column that the schema has; nothing is trusted.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Schema};

use super::schema::{Logical, Type, TypeId, Types};
use super::text;
use crate::decode::{Cell, ColumnBuilder, Fault, Rows, integer_range};

/// How deep values may nest.
pub const DEPTH_MAX: usize = 64;
/// Elements beyond one per byte: values without bytes, such as an array of nulls, must not cost time without end.
const ELEMENTS_FREE: usize = 1 << 16;

/// Bytes that have not been read.
#[derive(Clone)]
pub struct Input<'a> {
    bytes: &'a [u8],
    length: usize,
    elements_left: usize,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, length: bytes.len(), elements_left: bytes.len() + ELEMENTS_FREE }
    }

    /// Errors: bytes are left over.
    pub fn end(&self) -> Result<(), String> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left at its end; it was written with another schema")),
        }
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| format!("it ends after {} bytes, in the middle of a value; it was cut off or written with another schema", self.length))?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub fn long(&mut self) -> Result<i64, String> {
        // Lengths, branches and small numbers have one byte.
        if let [byte @ ..0x80, rest @ ..] = self.bytes {
            self.bytes = rest;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        self.long_of_many()
    }

    fn long_of_many(&mut self) -> Result<i64, String> {
        let mut value = 0_u64;
        for (index, byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or_default();
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[index + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        if self.bytes.len() >= 10 {
            Err("a number has more than ten bytes; it was written with another schema".into())
        } else {
            self.take(11).map(|_| 0)
        }
    }

    fn length(&mut self) -> Result<usize, String> {
        let length = self.long()?;
        usize::try_from(length).map_err(|_| format!("a length is {length}; it was written with another schema"))
    }

    fn counted(&mut self) -> Result<&'a [u8], String> {
        let length = self.length()?;
        self.take(length)
    }

    pub fn string(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.counted()?).map_err(|error| format!("a text is not UTF-8 at its byte {}", error.valid_up_to() + 1))
    }

    /// How many elements the next block has; 0 ends an array or map.
    pub fn block(&mut self) -> Result<usize, String> {
        let count = self.long()?;
        if count < 0 {
            // The block's size in bytes follows, for readers that skip.
            self.long()?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        self.elements_left = self.elements_left.checked_sub(count).ok_or_else(|| format!("an array of {count} elements does not fit its bytes"))?;
        Ok(count)
    }

    pub fn branch(&mut self, count: usize) -> Result<usize, String> {
        let branch = self.long()?;
        usize::try_from(branch)
            .ok()
            .filter(|branch| *branch < count)
            .ok_or_else(|| format!("branch {branch} of a union of {count}; it was written with another schema"))
    }
}

/// Which column a field goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    column: usize,
    /// What is nested becomes JSON here.
    text: bool,
    /// Texts are bytes here, not base64.
    bytes: bool,
    direct: Option<Direct>,
}

/// A value that goes into its column as it is, without a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direct {
    /// The branch of a union of two that is null.
    null: Option<usize>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of this range.
    Integer(i64, i64),
    Single,
    Double,
    Bool,
    Text,
}

impl Direct {
    fn of(types: &Types, id: TypeId, data_type: &DataType) -> Option<Direct> {
        if let Type::Union(branches) = types.get(id) {
            let [first, second] = branches[..] else { return None };
            let (null, value) = match (types.get(first), types.get(second)) {
                (Type::Null, _) => (0, second),
                (_, Type::Null) => (1, first),
                _ => return None,
            };
            let direct = Direct::of(types, value, data_type).filter(|direct| direct.null.is_none())?;
            return Some(Direct { null: Some(null), ..direct });
        }
        let form = match (types.get(id), data_type) {
            (Type::Long(Logical::Instant(from)), DataType::Timestamp(to, _)) if from != to => return None,
            (Type::Long(Logical::Instant(_)), other) if !matches!(other, DataType::Timestamp(_, _) | DataType::Int64) => return None,
            (Type::Int(Logical::Date), other) if !matches!(other, DataType::Date32) => return None,
            (Type::Int(_) | Type::Long(_), _) => {
                let (least, greatest) = integer_range(data_type)?;
                Form::Integer(least, greatest)
            }
            (Type::Float, DataType::Float32 | DataType::Float64) => Form::Single,
            (Type::Double, DataType::Float64) => Form::Double,
            (Type::Boolean, DataType::Boolean) => Form::Bool,
            (Type::String, DataType::Utf8) => Form::Text,
            _ => return None,
        };
        Some(Direct { null: None, form })
    }

    /// None: it does not fit, and the input must be read again by way of a cell, which says why.
    fn read(self, input: &mut Input, column: &mut ColumnBuilder) -> Option<()> {
        if let Some(null) = self.null
            && input.branch(2).ok()? == null
        {
            column.push_null();
            return Some(());
        }
        match self.form {
            Form::Integer(least, greatest) => {
                let value = input.long().ok().filter(|value| (least..=greatest).contains(value))?;
                column.push_integer(value);
            }
            Form::Single => column.push_double(f64::from(float(input).ok()?)),
            Form::Double => column.push_double(double(input).ok()?),
            Form::Bool => column.push_bool(boolean(input).ok()?),
            Form::Text => column.push_text(input.string().ok()?)?,
        }
        Some(())
    }
}

/// A record whose fields are columns.
#[derive(Debug, Clone)]
pub struct Row {
    fields: Vec<(String, Option<Target>, TypeId)>,
}

/// How data of one schema become rows.
pub struct Plan {
    types: Types,
}

impl Plan {
    pub fn new(types: Types) -> Plan {
        Plan { types }
    }

    pub fn types(&self) -> &Types {
        &self.types
    }

    /// Fields to columns by name. Errors: the type is no record, or has none of the columns.
    pub fn row(&self, id: TypeId, schema: &Schema, columns: &[usize]) -> Result<Row, String> {
        let fields = self.types.record(id).ok_or("its schema is no record")?;
        let target = |name: &String, id: TypeId| {
            let column = columns.iter().copied().find(|column| schema.field(*column).name() == name)?;
            let data_type = schema.field(column).data_type();
            let direct = Direct::of(&self.types, id, data_type);
            Some(Target { column, text: *data_type == DataType::Utf8, bytes: *data_type == DataType::Binary, direct })
        };
        let fields: Vec<_> = fields.iter().map(|(name, id)| (name.clone(), target(name, *id), *id)).collect();
        if !columns.is_empty() && fields.iter().all(|(_, target, _)| target.is_none()) {
            let names: Vec<&str> = fields.iter().map(|(name, _, _)| name.as_str()).collect();
            return Err(format!("its schema has none of the columns; it has {}", names.join(", ")));
        }
        Ok(Row { fields })
    }

    /// Sets the cells of one row.
    pub fn fill(&self, row: &Row, input: &mut Input, rows: &mut Rows) -> Result<(), Fault> {
        for (name, target, id) in &row.fields {
            let Some(target) = target else {
                self.skip(*id, input, 0).map_err(|reason| Fault::new(name, reason))?;
                continue;
            };
            if let Some(direct) = target.direct
                && let Some(column) = rows.next_cell(target.column)
            {
                let mut ahead = input.clone();
                if direct.read(&mut ahead, column).is_some() {
                    *input = ahead;
                    continue;
                }
            }
            let cell = self.cell(*id, *target, input).map_err(|reason| Fault::new(name, reason))?;
            rows.set(target.column, &cell)?;
        }
        Ok(())
    }

    /// Gives the cells of a record to `set`.
    pub fn read<'a>(&self, row: &Row, input: &mut Input<'a>, mut set: impl FnMut(usize, Cell<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
        for (name, target, id) in &row.fields {
            match target {
                None => self.skip(*id, input, 0).map_err(|reason| Fault::new(name, reason))?,
                Some(target) => {
                    let cell = self.cell(*id, *target, input).map_err(|reason| Fault::new(name, reason))?;
                    set(target.column, cell)?;
                }
            }
        }
        Ok(())
    }

    /// A value that is no column: a member of an envelope.
    pub fn text<'a>(&self, id: TypeId, input: &mut Input<'a>) -> Result<Cell<'a>, String> {
        self.cell(id, Target { column: 0, text: true, bytes: false, direct: None }, input)
    }

    fn cell<'a>(&self, id: TypeId, target: Target, input: &mut Input<'a>) -> Result<Cell<'a>, String> {
        Ok(match self.types.get(id) {
            Type::Null => Cell::Null,
            Type::Boolean => Cell::Bool(boolean(input)?),
            Type::Int(Logical::Date) => {
                let day = input.long()?;
                Cell::Day(i32::try_from(day).map_err(|_| format!("day {day} is out of range"))?)
            }
            Type::Int(_) => Cell::Int(input.long()?),
            Type::Long(Logical::Instant(unit)) => Cell::Instant(input.long()?, *unit),
            Type::Long(_) => Cell::Int(input.long()?),
            Type::Float => Cell::Float(f64::from(float(input)?)),
            Type::Double => Cell::Float(double(input)?),
            Type::String if target.bytes => Cell::Bytes(Cow::Borrowed(input.counted()?)),
            Type::String => Cell::Text(Cow::Borrowed(input.string()?)),
            Type::Bytes(logical) => of_bytes(input.counted()?, *logical)?,
            Type::Fixed(size, logical) => of_bytes(input.take(*size)?, *logical)?,
            Type::Enum(symbols) => Cell::Text(Cow::Owned(symbol(symbols, input)?.to_string())),
            Type::Union(branches) => {
                let branch = branches[input.branch(branches.len())?];
                // A union cannot hold a union: this is one level.
                self.cell(branch, target, input)?
            }
            Type::Array(_) | Type::Map(_) | Type::Record(..) | Type::Unfinished if target.text => {
                let mut out = Vec::new();
                text::write(&self.types, id, input, 0, &mut out)?;
                Cell::Text(Cow::Owned(String::from_utf8(out).map_err(|_| "its JSON is not UTF-8")?))
            }
            Type::Array(_) => self.nested(id, "array", input)?,
            Type::Map(_) | Type::Record(..) | Type::Unfinished => self.nested(id, "object", input)?,
        })
    }

    fn nested<'a>(&self, id: TypeId, name: &'static str, input: &mut Input<'a>) -> Result<Cell<'a>, String> {
        self.skip(id, input, 0)?;
        Ok(Cell::Nested(name))
    }

    /// Leaves a value out.
    pub fn skip(&self, id: TypeId, input: &mut Input, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("values nest more than {DEPTH_MAX} deep"));
        }
        match self.types.get(id) {
            Type::Null | Type::Unfinished => {}
            Type::Boolean => drop(input.take(1)?),
            Type::Int(_) | Type::Long(_) | Type::Enum(_) => drop(input.long()?),
            Type::Float => drop(input.take(4)?),
            Type::Double => drop(input.take(8)?),
            Type::String | Type::Bytes(_) => drop(input.counted()?),
            Type::Fixed(size, _) => drop(input.take(*size)?),
            Type::Union(branches) => {
                let branch = branches[input.branch(branches.len())?];
                self.skip(branch, input, depth + 1)?;
            }
            Type::Record(_, fields) => fields.iter().try_for_each(|(_, id)| self.skip(*id, input, depth + 1))?,
            Type::Array(item) => {
                while let count @ 1.. = input.block()? {
                    (0..count).try_for_each(|_| self.skip(*item, input, depth + 1))?;
                }
            }
            Type::Map(value) => {
                while let count @ 1.. = input.block()? {
                    for _ in 0..count {
                        input.counted()?;
                        self.skip(*value, input, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

pub fn boolean(input: &mut Input) -> Result<bool, String> {
    match input.take(1)?[0] {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("a boolean is {other}; it was written with another schema")),
    }
}

pub fn float(input: &mut Input) -> Result<f32, String> {
    Ok(f32::from_le_bytes(input.take(4)?.try_into().expect("take gives what was asked for")))
}

pub fn double(input: &mut Input) -> Result<f64, String> {
    Ok(f64::from_le_bytes(input.take(8)?.try_into().expect("take gives what was asked for")))
}

pub fn symbol<'t>(symbols: &'t [String], input: &mut Input) -> Result<&'t str, String> {
    let index = input.long()?;
    let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
    symbol.map(String::as_str).ok_or_else(|| format!("symbol {index} of an enum of {}; it was written with another schema", symbols.len()))
}

pub fn counted<'a>(input: &mut Input<'a>) -> Result<&'a [u8], String> {
    input.counted()
}

pub fn of_bytes(bytes: &[u8], logical: Logical) -> Result<Cell<'_>, String> {
    match logical {
        Logical::Decimal { scale, .. } => {
            if bytes.len() > 16 {
                return Err(format!("a decimal of {} bytes is out of range", bytes.len()));
            }
            // Two's complement, the greatest byte first.
            let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
            let mut whole = [sign; 16];
            whole[16 - bytes.len()..].copy_from_slice(bytes);
            Ok(Cell::Decimal(i128::from_be_bytes(whole), scale))
        }
        Logical::Uuid if bytes.len() == 16 => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            Ok(Cell::Text(Cow::Owned(parts.join("-"))))
        }
        _ => Ok(Cell::Bytes(Cow::Borrowed(bytes))),
    }
}
