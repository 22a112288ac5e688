//! The wire format: tags, varints, lengths. In: bytes that nothing is known of. Out: values, or why they are none.

/// How deep groups may nest; they are old and rare.
const GROUP_DEPTH_MAX: usize = 32;
/// Message indexes before a record: a path into nested messages.
const INDEXES_MAX: i64 = 64;

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const COUNTED: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
pub const FIXED32: u8 = 5;

const CUT_OFF: &str = "it ends in the middle of a field; it was cut off or is no such message";

pub fn varint(input: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() < 10 { CUT_OFF.into() } else { "a number has more than ten bytes; it is no such message".into() })
}

pub fn take<'a>(count: usize, input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (taken, rest) = input.split_at_checked(count).ok_or(CUT_OFF)?;
    *input = rest;
    Ok(taken)
}

pub fn counted<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = varint(input)?;
    take(usize::try_from(length).map_err(|_| CUT_OFF)?, input)
}

pub fn fixed32(input: &mut &[u8]) -> Result<u32, String> {
    Ok(u32::from_le_bytes(take(4, input)?.try_into().expect("take gives what was asked for")))
}

pub fn fixed64(input: &mut &[u8]) -> Result<u64, String> {
    Ok(u64::from_le_bytes(take(8, input)?.try_into().expect("take gives what was asked for")))
}

/// A field's number and wire type.
pub fn tag(input: &mut &[u8]) -> Result<(u32, u8), String> {
    let tag = varint(input)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
    Ok((number.ok_or("a field has no number; it is no such message")?, (tag & 7) as u8))
}

pub fn skip(wire: u8, input: &mut &[u8]) -> Result<(), String> {
    skip_within(wire, input, 0)
}

fn skip_within(wire: u8, input: &mut &[u8], depth: usize) -> Result<(), String> {
    match wire {
        VARINT => drop(varint(input)?),
        FIXED64 => drop(take(8, input)?),
        COUNTED => drop(counted(input)?),
        FIXED32 => drop(take(4, input)?),
        GROUP if depth < GROUP_DEPTH_MAX => loop {
            match tag(input)? {
                (_, GROUP_END) => break,
                (_, wire) => skip_within(wire, input, depth + 1)?,
            }
        },
        other => return Err(format!("a field has wire type {other}; it is no such message")),
    }
    Ok(())
}

/// The path to a message in its file, as it stands behind a schema id: signed varints, a lone 0 for the first message.
pub fn read_indexes(input: &mut &[u8]) -> Result<Vec<usize>, String> {
    let signed = |input: &mut &[u8]| varint(input).map(unzigzag);
    let count = signed(input)?;
    if count == 0 {
        return Ok(vec![0]);
    }
    if !(1..=INDEXES_MAX).contains(&count) {
        return Err(format!("{count} message indexes behind the schema id; it was written otherwise"));
    }
    (0..count).map(|_| signed(input).and_then(|index| usize::try_from(index).map_err(|_| "a message index is negative".to_string()))).collect()
}

pub fn write_indexes(indexes: &[usize], out: &mut Vec<u8>) {
    if indexes == [0] {
        out.push(0);
        return;
    }
    write_varint(zigzag(indexes.len() as i64), out);
    for index in indexes {
        write_varint(zigzag(*index as i64), out);
    }
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_tag(number: u32, wire: u8, out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3 | u64::from(wire), out);
}

pub fn write_counted(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
