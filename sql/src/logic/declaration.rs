//! CREATE TABLE → what the pipeline's script says instead. In: the statement's text. Out: the table as the product reads it, a source of changes, and
//! a view of the table's name.
//!
//! The source has one column more, the instant of the statement that wrote the row: each statement is an epoch of its own.

use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use freshet_core::{Encode, Format};

use crate::ast::{Column, CreateSource, DataType, Encoding, Ident, OptionEntry, OptionValue, Place, Role, Stmt, normal_name};
use crate::parse::parse_script;
use crate::tokens::{slice, word};

/// The connector of tables, which only these tests know.
pub(crate) const CONNECTOR: &str = "slt";
/// The instant at which a row was written.
pub(crate) const WRITTEN: &str = "freshet$written";

/// A table without connector.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub create: CreateSource,
    /// Rows are only ever inserted.
    pub append_only: bool,
}

/// In double quotes.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Declared {
    /// As the catalog knows it.
    pub fn name(&self) -> String {
        normal_name(&self.create.name)
    }

    /// The name of its source.
    pub fn source(&self) -> String {
        format!("{}$rows", self.name())
    }

    /// The statements that declare it; `types` are those of its columns.
    pub fn script(&self, types: &[String]) -> String {
        let place = Place(self.create.name.span);
        let column = |(column, data_type): (&Column, &String)| Column { data_type: custom(data_type), not_null: false, ..column.clone() };
        let written = Column { name: Ident::with_quote('"', WRITTEN), data_type: custom("TIMESTAMP(3)"), data_type_place: place, not_null: false };
        let option = |name: &str, value: &str| OptionEntry { name: name.into(), value: OptionValue::Text(value.into()), place, value_place: place };
        let format = if self.append_only { Format::Plain } else { Format::Debezium };
        let source = CreateSource {
            name: Ident::with_quote('"', self.source()),
            role: Role::Source,
            if_not_exists: false,
            columns: self.create.columns.iter().zip(types).map(column).chain([written.clone()]).collect(),
            primary_key: Vec::new(),
            computed: Vec::new(),
            defaults: Vec::new(),
            arrival: Some(written.name),
            options: vec![option("connector", CONNECTOR), option("max_jump", "100000 days")],
            encoding: Some(Encoding { format, encode: Encode::Json, options: Vec::new(), place }),
            query: None,
            ..self.create.clone()
        };
        let columns: Vec<String> = self.create.columns.iter().map(|column| quoted_name(&normal_name(&column.name))).collect();
        let (from, view) = (quoted_name(&self.source()), quoted_name(&self.name()));
        let source = Stmt::CreateSource(source).to_string().replace('\n', " ");
        format!("{source}; CREATE MATERIALIZED VIEW {view} AS SELECT {} FROM {from}", columns.join(", "))
    }
}

/// A type as it was written.
fn custom(text: &str) -> DataType {
    DataType::Custom(vec![Ident::new(text)].into(), Vec::new())
}

/// The table that a statement creates; None if it creates something else, or a table that has a connector. Errors: what is not understood.
pub(crate) fn table(text: &str, tokens: &[TokenWithSpan]) -> Result<Option<Declared>, String> {
    let at = |index: usize| tokens.get(index).map_or(String::new(), word);
    let mut next = 1 + usize::from(matches!(at(1).as_str(), "TEMP" | "TEMPORARY" | "UNLOGGED"));
    if at(0) != "CREATE" || at(next) != "TABLE" {
        return Ok(None);
    }
    next += 1;
    let clause = if at(next) == "IF" { "IF NOT EXISTS " } else { "" };
    next += if clause.is_empty() { 0 } else { 3 };
    // A schema's name stands before the table's.
    while tokens.get(next + 1).is_some_and(|token| token.token == Token::Period) {
        next += 2;
    }
    let append_only = tokens.len() > 2 && at(tokens.len() - 2) == "APPEND" && at(tokens.len() - 1) == "ONLY";
    let last = tokens.len() - if append_only { 2 } else { 0 };
    let Some((from, until)) = tokens.get(next).zip(tokens[..last].last()) else { return Err("the table has no name".into()) };
    let text = format!("CREATE TABLE {clause}{}", slice(text, Span::new(from.span.start, until.span.end)));
    let parsed = parse_script("statement", &text, &Default::default()).map_err(|error| error.to_string())?;
    match parsed.into_iter().next().map(|statement| statement.body) {
        Some(Stmt::CreateSource(create)) if create.role == Role::Stored => Ok(Some(Declared { create, append_only })),
        _ => Ok(None),
    }
}

pub(crate) fn name_of(token: &TokenWithSpan) -> Result<String, String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() => Ok(word.value.clone()),
        Token::Word(word) => Ok(word.value.to_lowercase()),
        other => Err(format!("{other} is no name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_source_of_changes_and_a_view() {
        let text = "CREATE TEMP TABLE IF NOT EXISTS public.Orders (id INT PRIMARY KEY, \"Name\" VARCHAR(10) NOT NULL DEFAULT 'a, b',
            twice INT GENERATED ALWAYS AS (id * 2) STORED, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second') APPEND ONLY";
        let found = table(text, &crate::tokens::tokenize("a", text, None).unwrap()).unwrap().unwrap();
        assert_eq!((found.name().as_str(), found.create.primary_key.len(), found.create.if_not_exists, found.append_only), ("orders", 1, true, true));
        let script = found.script(&["INT", "VARCHAR", "INT", "TIMESTAMP"].map(str::to_string));
        assert!(script.starts_with("CREATE SOURCE \"orders$rows\" ("), "{script}");
        assert!(script.contains("ARRIVAL FOR \"freshet$written\"") && script.contains("FORMAT PLAIN ENCODE JSON"), "{script}");
        let source = "CREATE TABLE t (a INT) WITH (connector = 'file', path = 'x', format = 'json')";
        assert!(table(source, &crate::tokens::tokenize("a", source, None).unwrap()).unwrap().is_none());
    }
}
