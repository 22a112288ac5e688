//! ENCODE JSON: one object a line, columns in the order of the schema. FORMAT PLAIN writes rows, FORMAT DEBEZIUM changes with their epoch.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use freshet_core::{Batch, Epoch, Result};

use super::TextEncoder;
use super::columns::{Cells, write_int};

/// Rows as objects, one at a time.
pub struct JsonObject {
    members: Vec<Vec<u8>>,
}

impl JsonObject {
    pub fn new(schema: &Schema) -> JsonObject {
        JsonObject { members: members(schema) }
    }

    /// `columns` are those of the schema.
    pub fn write(&self, columns: &[Cells], row: usize, out: &mut Vec<u8>) {
        write_object(&self.members, columns, row, out);
    }

    /// The object inside a change, as FORMAT DEBEZIUM has it.
    pub fn write_change(&self, columns: &[Cells], row: usize, inserted: bool, epoch: Epoch, out: &mut Vec<u8>) {
        let (begin, side): (&[u8], &[u8]) =
            if inserted { (b"{\"op\":\"c\",\"epoch\":", b",\"after\":") } else { (b"{\"op\":\"d\",\"epoch\":", b",\"before\":") };
        out.extend_from_slice(begin);
        out.extend_from_slice(itoa::Buffer::new().format(epoch.0).as_bytes());
        out.extend_from_slice(side);
        self.write(columns, row, out);
        out.push(b'}');
    }
}

/// FORMAT PLAIN. The caller has checked that nothing is retracted.
pub struct JsonRows {
    object: JsonObject,
}

impl JsonRows {
    pub fn new(schema: &Schema) -> JsonRows {
        JsonRows { object: JsonObject::new(schema) }
    }
}

impl TextEncoder for JsonRows {
    fn encode(&mut self, changes: &Batch, out: &mut Vec<u8>) -> Result<()> {
        let columns = Cells::of_all(changes.rows())?;
        for row in 0..changes.len() {
            for _ in 0..changes.diff(row) {
                self.object.write(&columns, row, out);
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

/// FORMAT DEBEZIUM: {"op":"c","epoch":…,"after":{…}} and {"op":"d","epoch":…,"before":{…}}; a row inserted twice is two lines.
pub struct DebeziumRows {
    object: JsonObject,
}

impl DebeziumRows {
    pub fn new(schema: &Schema) -> DebeziumRows {
        DebeziumRows { object: JsonObject::new(schema) }
    }
}

impl TextEncoder for DebeziumRows {
    fn encode(&mut self, changes: &Batch, out: &mut Vec<u8>) -> Result<()> {
        let columns = Cells::of_all(changes.rows())?;
        for row in 0..changes.len() {
            let diff = changes.diff(row);
            for _ in 0..diff.unsigned_abs() {
                self.object.write_change(&columns, row, diff > 0, changes.epoch(row), out);
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

/// Rows of a file as text, for dead letters.
pub struct RowText {
    members: Vec<Vec<u8>>,
    columns: Vec<Cells>,
    out: Vec<u8>,
}

impl RowText {
    /// Columns without a text form are left out.
    pub fn new(batch: &RecordBatch) -> Result<RowText> {
        let shown: Vec<usize> = (0..batch.num_columns()).filter(|index| Cells::of(batch.column(*index)).is_ok()).collect();
        let batch = batch.project(&shown)?;
        Ok(RowText { members: members(&batch.schema()), columns: Cells::of_all(&batch)?, out: Vec::new() })
    }

    pub fn row(&mut self, row: usize) -> &[u8] {
        self.out.clear();
        write_object(&self.members, &self.columns, row, &mut self.out);
        &self.out
    }
}

/// `"name":` of each column, with the comma or brace before it.
fn members(schema: &Schema) -> Vec<Vec<u8>> {
    let mut members: Vec<Vec<u8>> = Vec::new();
    for field in schema.fields() {
        let mut member = vec![if members.is_empty() { b'{' } else { b',' }];
        write_string(field.name(), &mut member);
        member.push(b':');
        members.push(member);
    }
    members
}

fn write_object(members: &[Vec<u8>], columns: &[Cells], row: usize, out: &mut Vec<u8>) {
    if members.is_empty() {
        out.push(b'{');
    }
    for (member, cells) in members.iter().zip(columns) {
        out.extend_from_slice(member);
        write_value(cells, row, out);
    }
    out.push(b'}');
}

fn write_value(cells: &Cells, row: usize, out: &mut Vec<u8>) {
    if cells.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    let quoted = match cells {
        Cells::Text(values) => return write_string(values.value(row), out),
        Cells::Int(values) => return write_int(values.value(row), out),
        Cells::Float32(values) => !values.value(row).is_finite(),
        Cells::Float64(values) => !values.value(row).is_finite(),
        Cells::Date(_) | Cells::Timestamp { .. } | Cells::Bytes(_) => true,
        Cells::Null | Cells::Bool(_) | Cells::UInt(_) => false,
    };
    if quoted {
        out.push(b'"');
    }
    cells.write(row, out);
    if quoted {
        out.push(b'"');
    }
}

/// A JSON string; only what must be escaped is.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_serde_reads_them() {
        let text = "plain \"quoted\" \\ \n\r\t \u{1} é 🦀";
        let mut out = Vec::new();
        write_string(text, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
