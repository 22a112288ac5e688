//! FORMAT PLAIN ENCODE CSV (RFC 4180). In: one record, which may span lines inside quotes. Out: a row; columns by header name, else by order.

use std::borrow::Cow;

use arrow::datatypes::SchemaRef;

use super::record::{Refusal, RowDecoder};
use super::{Cell, Fault, Rows};
use crate::options::Csv;

pub struct CsvDecoder {
    options: Csv,
    schema: SchemaRef,
    columns: Vec<usize>,
    /// For each field of a record the column it goes to.
    targets: Vec<Option<usize>>,
}

impl CsvDecoder {
    /// Reads these columns of the schema; without a header, in this order.
    pub fn new(schema: SchemaRef, columns: &[usize], options: Csv) -> CsvDecoder {
        let targets = columns.iter().copied().map(Some).collect();
        CsvDecoder { options, schema, columns: columns.to_vec(), targets }
    }
}

impl RowDecoder for CsvDecoder {
    fn begin(&mut self, header: Option<&[u8]>) -> Result<(), String> {
        let Some(header) = header else { return Ok(()) };
        let text = std::str::from_utf8(header).map_err(|_| "its header is not UTF-8".to_string())?;
        let fields = split(text, self.options.delimiter).map_err(|reason| format!("its header cannot be read: {reason}"))?;
        let names: Vec<&str> = fields.iter().map(|field| field.text.trim()).collect();
        for field in self.columns.iter().map(|column| self.schema.field(*column)) {
            if !names.contains(&field.name().as_str()) {
                let found = names.join(", ");
                return Err(format!(
                    "it has no column {}; found {found}. Rename the column, or set header = 'false' if the first line is data",
                    field.name()
                ));
            }
        }
        let column = |name: &&str| self.columns.iter().copied().find(|column| self.schema.field(*column).name() == name);
        self.targets = names.iter().map(column).collect();
        Ok(())
    }

    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        let text = std::str::from_utf8(payload).map_err(|error| Fault::of_record(format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
        let fields = split(without_line_end(text), self.options.delimiter).map_err(Fault::of_record)?;
        if fields.len() != self.targets.len() {
            return Err(Fault::of_record(format!("expected {} fields, found {}", self.targets.len(), fields.len())).into());
        }
        for (field, target) in fields.into_iter().zip(&self.targets) {
            if let Some(column) = target
                && (field.quoted || field.text != self.options.null)
            {
                rows.set(*column, &Cell::Raw(field.text))?;
            }
        }
        Ok(())
    }
}

/// A message may bring the end of its line along.
fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

struct Field<'a> {
    text: Cow<'a, str>,
    quoted: bool,
}

/// The fields of a record. Errors: quotes that do not close or stand in the middle of a field.
fn split(record: &str, delimiter: u8) -> Result<Vec<Field<'_>>, String> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, tail) = if let Some(quoted) = rest.strip_prefix('"') { unquote(quoted)? } else { plain(rest, delimiter) };
        fields.push(field);
        match tail.as_bytes().first() {
            None => return Ok(fields),
            Some(byte) if *byte == delimiter => rest = &tail[1..],
            Some(_) => return Err(format!("field {} goes on after its closing quote", fields.len())),
        }
    }
}

fn plain(text: &str, delimiter: u8) -> (Field<'_>, &str) {
    let end = memchr::memchr(delimiter, text.as_bytes()).unwrap_or(text.len());
    (Field { text: Cow::Borrowed(&text[..end]), quoted: false }, &text[end..])
}

fn unquote(text: &str) -> Result<(Field<'_>, &str), String> {
    let mut from = 0;
    loop {
        let quote = from + memchr::memchr(b'"', &text.as_bytes()[from..]).ok_or("a quote is not closed")?;
        if text.as_bytes().get(quote + 1) != Some(&b'"') {
            let inner = &text[..quote];
            let inner = if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
            return Ok((Field { text: inner, quoted: true }, &text[quote + 1..]));
        }
        from = quote + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(record: &str) -> Vec<String> {
        split(record, b',').unwrap().into_iter().map(|field| field.text.into_owned()).collect()
    }

    #[test]
    fn quotes_protect_delimiters_quotes_and_line_ends() {
        assert_eq!(texts("a,\"b,\"\"c\"\"\nd\",,\"\""), ["a", "b,\"c\"\nd", "", ""]);
        assert_eq!(texts(""), [""]);
        assert_eq!(texts("a,"), ["a", ""]);
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_its_last_field() {
        assert_eq!(["a,\"b\"\r\n", "a,\"b\"\n", "a,\"b\""].map(without_line_end), ["a,\"b\""; 3]);
        assert_eq!(without_line_end("a\n\n"), "a\n");
    }

    #[test]
    fn broken_quotes_are_refused() {
        assert_eq!(split("\"a", b',').err().unwrap(), "a quote is not closed");
        assert_eq!(split("\"a\"b,c", b',').err().unwrap(), "field 1 goes on after its closing quote");
    }
}
