//! ENCODE CSV (RFC 4180, lines end in \n). NULL is the `null` option without quotes; a text that equals it is quoted.

use arrow::datatypes::Schema;
use freshet_core::{Batch, Result};

use super::TextEncoder;
use super::columns::Cells;
use crate::options::Csv;

pub struct CsvRows {
    names: Vec<String>,
    options: Csv,
    field: Vec<u8>,
}

impl CsvRows {
    pub fn new(schema: &Schema, options: Csv) -> CsvRows {
        CsvRows { names: schema.fields().iter().map(|field| field.name().clone()).collect(), options, field: Vec::new() }
    }

    /// One row without its line end.
    pub fn write_record(&mut self, columns: &[Cells], row: usize, out: &mut Vec<u8>) {
        for (index, cells) in columns.iter().enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            if cells.is_null(row) {
                out.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            self.field.clear();
            cells.write(row, &mut self.field);
            write_field(&self.field, &self.options, out);
        }
    }
}

impl TextEncoder for CsvRows {
    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.options.header {
            for (index, name) in self.names.iter().enumerate() {
                if index > 0 {
                    out.push(self.options.delimiter);
                }
                write_field(name.as_bytes(), &self.options, &mut out);
            }
            out.push(b'\n');
        }
        out
    }

    fn encode(&mut self, changes: &Batch, out: &mut Vec<u8>) -> Result<()> {
        let columns = Cells::of_all(changes.rows())?;
        for row in 0..changes.len() {
            for _ in 0..changes.diff(row) {
                self.write_record(&columns, row, out);
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

fn write_field(text: &[u8], options: &Csv, out: &mut Vec<u8>) {
    let special = |byte: &u8| *byte == options.delimiter || matches!(byte, b'"' | b'\n' | b'\r');
    // White space at the ends is quoted too, because some readers trim it.
    let edges = text.first().is_some_and(u8::is_ascii_whitespace) || text.last().is_some_and(u8::is_ascii_whitespace);
    if !edges && text != options.null.as_bytes() && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
