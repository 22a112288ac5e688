//! Texts that depend on the row: 'alarms/{line}/{machine}'. In: columns in braces. Out: the text of one row. `{{` and `}}` are braces.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use freshet_core::{OptionError, Result};

use crate::encode::Cells;
use crate::options::{nearest, wrong};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(usize),
}

impl Template {
    /// Errors: a brace without its pair, or a column that the view does not have, pointing at this option.
    pub fn parse(option: &str, text: &str, schema: &Schema) -> Result<Template, OptionError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{");
            let Some(end) = end else {
                return Err(wrong(
                    option,
                    format!("a '{brace}' stands alone in '{text}'; columns are written {{name}}, a brace itself {brace}{brace}"),
                ));
            };
            let name = rest[..end].trim();
            let Ok(column) = schema.index_of(name) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let hint = match nearest(name, &names) {
                    Some(nearest) => format!("did you mean {{{nearest}}}?"),
                    None => format!("its columns are {}", names.join(", ")),
                };
                return Err(wrong(option, format!("{option} names the column '{name}', which the view does not have; {hint}")));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Column(column));
            rest = &rest[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// These columns with colons between them, behind a name.
    pub fn of_columns(name: &str, columns: &[usize]) -> Template {
        let mut parts = vec![Part::Text(name.to_string())];
        for column in columns {
            parts.push(Part::Text(":".into()));
            parts.push(Part::Column(*column));
        }
        Template { parts }
    }

    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Column(column) => Some(*column),
        })
    }

    /// Characters that stand between two columns, and the one that marks escapes; none if there is one column. Errors: two columns touch.
    pub fn separators(&self) -> Result<String, ()> {
        let (mut found, mut between, mut columns) = (String::new(), String::new(), 0);
        for part in &self.parts {
            match part {
                Part::Text(text) => between = text.clone(),
                Part::Column(_) => {
                    if columns > 0 {
                        if between.is_empty() {
                            return Err(());
                        }
                        found.push_str(&between);
                    }
                    between.clear();
                    columns += 1;
                }
            }
        }
        if !found.is_empty() {
            found.push('%');
        }
        Ok(found)
    }

    /// Everything but the columns, for checks that no row can spoil.
    pub fn plain(&self) -> String {
        self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None }).collect()
    }

    /// Ready for the rows of a batch.
    pub fn begin(&self, rows: &RecordBatch) -> Result<Filler<'_>> {
        let cells = self.columns().map(|column| Ok((column, Cells::of(rows.column(column))?))).collect::<Result<_>>()?;
        Ok(Filler { template: self, cells, schema: rows.schema() })
    }
}

/// A template over one batch.
pub struct Filler<'a> {
    template: &'a Template,
    cells: Vec<(usize, Cells)>,
    schema: arrow::datatypes::SchemaRef,
}

impl Filler<'_> {
    /// The text of one row. Errors: the column that is NULL there.
    pub fn fill(&self, row: usize) -> Result<String, String> {
        self.fill_escaped(row, "")
    }

    /// The same, with these characters of the columns as %XX, so that what separates columns never stands inside one.
    pub fn fill_escaped(&self, row: usize, escaped: &str) -> Result<String, String> {
        let mut out = Vec::new();
        for part in &self.template.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Column(column) => {
                    let (_, cells) = self.cells.iter().find(|(index, _)| index == column).expect("begin has them all");
                    if cells.is_null(row) {
                        return Err(self.schema.field(*column).name().clone());
                    }
                    let begin = out.len();
                    cells.write(row, &mut out);
                    if !escaped.is_empty() {
                        escape(&mut out, begin, escaped);
                    }
                }
            }
        }
        Ok(String::from_utf8(out).expect("cells are text"))
    }
}

fn escape(out: &mut Vec<u8>, begin: usize, escaped: &str) {
    let cell = String::from_utf8(out.split_off(begin)).expect("cells are text");
    for c in cell.chars() {
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            if escaped.contains(c) { out.extend_from_slice(format!("%{byte:02X}").as_bytes()) } else { out.push(byte) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn rows() -> RecordBatch {
        let line: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let machine: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        RecordBatch::try_from_iter([("line", line), ("machine", machine)]).unwrap()
    }

    #[test]
    fn columns_stand_in_braces() {
        let fill = |text: &str, row: usize| Template::parse("topic", text, &rows().schema()).unwrap().begin(&rows()).unwrap().fill(row);
        assert_eq!(fill("alarms/{line}/{ machine }", 0).unwrap(), "alarms/a/7");
        assert_eq!(fill("{machine}{machine}", 1).unwrap(), "88");
        assert_eq!(fill("{{x}}:{{{machine}}}", 1).unwrap(), "{x}:{8}");
        assert_eq!(fill("plain", 1).unwrap(), "plain");
        assert_eq!(fill("a/{line}", 1).unwrap_err(), "line");
    }

    #[test]
    fn separators_never_stand_inside_a_column() {
        let pair: ArrayRef = Arc::new(StringArray::from(vec!["a:b", "a"]));
        let other: ArrayRef = Arc::new(StringArray::from(vec!["c%", "b:c%"]));
        let rows = RecordBatch::try_from_iter([("l", pair), ("r", other)]).unwrap();
        let template = Template::parse("key", "k:{l}:{r}", &rows.schema()).unwrap();
        assert_eq!(template.separators().unwrap(), ":%");
        let filler = template.begin(&rows).unwrap();
        assert_eq!([filler.fill_escaped(0, ":%").unwrap(), filler.fill_escaped(1, ":%").unwrap()], ["k:a%3Ab:c%25", "k:a:b%3Ac%25"]);
        assert!(Template::parse("key", "{l}{r}", &rows.schema()).unwrap().separators().is_err());
        assert_eq!(Template::parse("key", "a:{l}:b", &rows.schema()).unwrap().separators().unwrap(), "");
    }

    #[test]
    fn mistakes_name_the_option_and_the_way_out() {
        let refuse = |text: &str| Template::parse("topic", text, &rows().schema()).unwrap_err();
        assert_eq!(refuse("a/{lines}").message, "topic names the column 'lines', which the view does not have; did you mean {line}?");
        assert!(refuse("a/{zzzzzzzz}").message.ends_with("its columns are line, machine"));
        for bad in ["a/{line", "a/}x", "{"] {
            let error = refuse(bad);
            assert_eq!(error.option.as_deref(), Some("topic"));
            assert!(error.message.contains("stands alone"), "{}", error.message);
        }
    }
}
