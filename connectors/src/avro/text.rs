//! Nested Avro values as JSON, for columns of type VARCHAR. A union's value stands alone; bytes are base64, instants RFC 3339, as in our JSON sinks.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::read::{DEPTH_MAX, Input, boolean, counted, double, float, of_bytes, symbol};
use super::schema::{Logical, Type, TypeId, Types};
use crate::decode::Cell;
use crate::encode::{write_date, write_float, write_instant, write_int, write_string};

/// Appends the next value of this type.
pub fn write(types: &Types, id: TypeId, input: &mut Input, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("values nest more than {DEPTH_MAX} deep"));
    }
    match types.get(id) {
        Type::Null | Type::Unfinished => out.extend_from_slice(b"null"),
        Type::Boolean => out.extend_from_slice(if boolean(input)? { b"true" } else { b"false" }),
        Type::Int(Logical::Date) => {
            out.push(b'"');
            write_date(input.long()?.clamp(i64::from(i32::MIN), i64::from(i32::MAX)), out);
            out.push(b'"');
        }
        Type::Long(Logical::Instant(unit)) => {
            out.push(b'"');
            write_instant(input.long()?, *unit, out);
            out.push(b'"');
        }
        Type::Int(_) | Type::Long(_) => write_int(input.long()?, out),
        Type::Float => write_number(f64::from(float(input)?), out),
        Type::Double => write_number(double(input)?, out),
        Type::String => write_string(input.string()?, out),
        Type::Bytes(logical) => write_bytes(counted(input)?, *logical, out)?,
        Type::Fixed(size, logical) => write_bytes(input.take(*size)?, *logical, out)?,
        Type::Enum(symbols) => write_string(symbol(symbols, input)?, out),
        Type::Union(branches) => {
            let branch = branches[input.branch(branches.len())?];
            write(types, branch, input, depth + 1, out)?;
        }
        Type::Record(_, fields) => {
            out.push(b'{');
            for (index, (name, id)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write(types, *id, input, depth + 1, out)?;
            }
            out.push(b'}');
        }
        Type::Array(item) => {
            out.push(b'[');
            elements(input, out, |input, out| write(types, *item, input, depth + 1, out))?;
            out.push(b']');
        }
        Type::Map(value) => {
            out.push(b'{');
            elements(input, out, |input, out| {
                write_string(input.string()?, out);
                out.push(b':');
                write(types, *value, input, depth + 1, out)
            })?;
            out.push(b'}');
        }
    }
    Ok(())
}

fn elements(input: &mut Input, out: &mut Vec<u8>, mut element: impl FnMut(&mut Input, &mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
    let mut first = true;
    while let count @ 1.. = input.block()? {
        for _ in 0..count {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            element(input, out)?;
        }
    }
    Ok(())
}

fn write_number(value: f64, out: &mut Vec<u8>) {
    let quoted = !value.is_finite();
    if quoted {
        out.push(b'"');
    }
    write_float(value, value, out);
    if quoted {
        out.push(b'"');
    }
}

fn write_bytes(bytes: &[u8], logical: Logical, out: &mut Vec<u8>) -> Result<(), String> {
    match of_bytes(bytes, logical)? {
        Cell::Text(text) => write_string(&text, out),
        Cell::Decimal(digits, scale) => write_string(&decimal_text(digits, scale), out),
        _ => write_string(&BASE64_STANDARD.encode(bytes), out),
    }
    Ok(())
}

fn decimal_text(digits: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or_default();
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}
