//! CREATE TABLE → what the pipeline's script says instead. In: the statement's text. Out: a source of changes, and a view of the table's name.
//!
//! The source has one column more, the instant of the statement that wrote the row: each statement is an epoch of its own.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::tokens::{slice, word};

/// The connector of tables, which only these tests know.
pub(crate) const CONNECTOR: &str = "slt";
/// The instant at which a row was written.
pub(crate) const WRITTEN: &str = "freshet$written";

/// Words that end a column's type or an expression of it.
const CONSTRAINTS: [&str; 10] = ["NOT", "NULL", "PRIMARY", "DEFAULT", "GENERATED", "UNIQUE", "CHECK", "REFERENCES", "COLLATE", "AS"];

/// A table without connector.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    /// As the catalog knows it.
    pub name: String,
    pub if_not_exists: bool,
    pub columns: Vec<DeclaredColumn>,
    /// Names of the PRIMARY KEY's columns.
    pub key: Vec<String>,
    /// Rows are only ever inserted.
    pub append_only: bool,
    /// WATERMARK FOR … and LATENESS, as written.
    elements: Vec<String>,
    /// Of CREATE TABLE … AS query.
    pub query: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DeclaredColumn {
    /// As the catalog knows it.
    pub name: String,
    pub data_type: String,
    pub not_null: bool,
    pub default: Option<String>,
    /// GENERATED ALWAYS AS (…).
    pub computed: Option<String>,
}

/// In double quotes.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Declared {
    /// The name of its source.
    pub fn source(&self) -> String {
        format!("{}$rows", self.name)
    }

    /// The statements that declare it.
    pub fn script(&self) -> String {
        let mut elements: Vec<String> = self.columns.iter().map(|column| format!("{} {}", quoted_name(&column.name), column.data_type)).collect();
        elements.push(format!("{WRITTEN:?} TIMESTAMP(3)"));
        elements.extend(self.elements.iter().cloned());
        elements.push(format!("ARRIVAL FOR {WRITTEN:?}"));
        let columns: Vec<String> = self.columns.iter().map(|column| quoted_name(&column.name)).collect();
        let (source, view) = (quoted_name(&self.source()), quoted_name(&self.name));
        format!(
            "CREATE SOURCE {source} ({}) WITH (connector = '{CONNECTOR}', max_jump = '100000 days') FORMAT {} ENCODE JSON; \
             CREATE MATERIALIZED VIEW {view} AS SELECT {} FROM {source}",
            elements.join(", "),
            if self.append_only { "PLAIN" } else { "DEBEZIUM" },
            columns.join(", ")
        )
    }
}

/// The table that a statement creates; None if it creates something else, or a table that has a connector. Errors: what is not understood.
pub(crate) fn table(text: &str, tokens: &[TokenWithSpan]) -> Result<Option<Declared>, String> {
    let at = |index: usize| tokens.get(index).map_or(String::new(), word);
    let mut next = 1 + usize::from(matches!(at(1).as_str(), "TEMP" | "TEMPORARY" | "UNLOGGED"));
    if at(0) != "CREATE" || at(next) != "TABLE" {
        return Ok(None);
    }
    next += 1;
    let mut declared = Declared::default();
    if at(next) == "IF" {
        declared.if_not_exists = true;
        next += 3;
    }
    declared.name = name_of(tokens.get(next).ok_or("the table has no name")?)?;
    next += 1;
    while tokens.get(next).is_some_and(|token| token.token == Token::Period) {
        declared.name = name_of(tokens.get(next + 1).ok_or("the table has no name")?)?;
        next += 2;
    }
    if at(next) == "AS" {
        declared.query = Some(text_of(text, &tokens[next + 1..]));
        return Ok(Some(declared));
    }
    let Some(close) = closing(tokens, next) else { return Ok(None) };
    let rest: Vec<String> = tokens[close + 1..].iter().map(word).collect();
    match rest.first().map(String::as_str) {
        None => {}
        Some("APPEND") => declared.append_only = true,
        Some("AS") => declared.query = Some(text_of(text, &tokens[close + 2..])),
        // A connector, or something that only the pipeline's own parser knows.
        Some(_) => return Ok(None),
    }
    for element in split(&tokens[next + 1..close]) {
        match (word(&element[0]).as_str(), element.get(1).map_or(String::new(), word).as_str()) {
            ("PRIMARY", "KEY") => declared.key = names(&element[2..])?,
            ("WATERMARK", "FOR") | ("LATENESS", _) => declared.elements.push(text_of(text, element)),
            ("UNIQUE" | "FOREIGN" | "CONSTRAINT" | "CHECK", _) => return Err(format!("{} of a table is not supported", text_of(text, element))),
            _ => {
                let (column, is_key) = column(text, element)?;
                if is_key {
                    declared.key = vec![column.name.clone()];
                }
                declared.columns.push(column);
            }
        }
    }
    Ok(Some(declared))
}

fn column(text: &str, tokens: &[TokenWithSpan]) -> Result<(DeclaredColumn, bool), String> {
    let mut column = DeclaredColumn { name: name_of(&tokens[0])?, ..DeclaredColumn::default() };
    let mut is_key = false;
    let mut at = 1;
    let end = until_constraint(tokens, at);
    column.data_type = text_of(text, &tokens[at..end]);
    at = end;
    while let Some(token) = tokens.get(at) {
        let follows = |distance: usize| tokens.get(at + distance).map_or(String::new(), word);
        match word(token).as_str() {
            "NOT" if follows(1) == "NULL" => {
                column.not_null = true;
                at += 2;
            }
            "NOT" if follows(1) == "ENFORCED" => at += 2,
            "NULL" | "UNIQUE" => at += 1,
            "PRIMARY" => {
                is_key = true;
                at += 2;
            }
            "DEFAULT" => {
                let end = until_constraint(tokens, at + 2);
                column.default = Some(text_of(text, &tokens[at + 1..end]));
                at = end;
            }
            "GENERATED" | "AS" => {
                let open = tokens[at..].iter().position(|token| token.token == Token::LParen).ok_or("AS needs an expression in brackets")? + at;
                let close = closing(tokens, open).ok_or("a bracket is not closed")?;
                column.computed = Some(text_of(text, &tokens[open + 1..close]));
                at = close + 1 + usize::from(matches!(tokens.get(close + 1).map_or(String::new(), word).as_str(), "STORED" | "VIRTUAL"));
            }
            other => return Err(format!("{other} of column {} is not supported", column.name)),
        }
    }
    if column.data_type.is_empty() {
        return Err(format!("column {} has no type", column.name));
    }
    Ok((column, is_key))
}

/// Where the next constraint begins, outside of all brackets.
fn until_constraint(tokens: &[TokenWithSpan], from: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        depth += depth_of(&token.token);
        if depth == 0 && CONSTRAINTS.contains(&word(token).as_str()) {
            return index;
        }
    }
    tokens.len()
}

fn depth_of(token: &Token) -> i32 {
    match token {
        Token::LParen | Token::Lt | Token::LBracket => 1,
        Token::RParen | Token::Gt | Token::RBracket => -1,
        Token::ShiftRight => -2,
        _ => 0,
    }
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    if tokens.get(open)?.token != Token::LParen {
        return None;
    }
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        depth += i32::from(token.token == Token::LParen) - i32::from(token.token == Token::RParen);
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// Cut at the commas outside of all brackets.
fn split(tokens: &[TokenWithSpan]) -> Vec<&[TokenWithSpan]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (index, token) in tokens.iter().enumerate() {
        depth += depth_of(&token.token);
        if depth == 0 && token.token == Token::Comma {
            parts.push(&tokens[start..index]);
            start = index + 1;
        }
    }
    parts.push(&tokens[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

fn names(tokens: &[TokenWithSpan]) -> Result<Vec<String>, String> {
    let close = closing(tokens, 0).ok_or("PRIMARY KEY names its columns in brackets")?;
    split(&tokens[1..close]).into_iter().map(|part| name_of(&part[0])).collect()
}

pub(crate) fn name_of(token: &TokenWithSpan) -> Result<String, String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() => Ok(word.value.clone()),
        Token::Word(word) => Ok(word.value.to_lowercase()),
        other => Err(format!("{other} is no name")),
    }
}

/// What stands between the first and the last token.
fn text_of(text: &str, tokens: &[TokenWithSpan]) -> String {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => slice(text, datafusion::sql::sqlparser::tokenizer::Span::new(first.span.start, last.span.end)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_source_of_changes_and_a_view() {
        let text = "CREATE TABLE IF NOT EXISTS Orders (id INT PRIMARY KEY, \"Name\" VARCHAR(10) NOT NULL DEFAULT 'a, b', p NUMERIC(10, 2),
            tags STRUCT<a INT, b INT[]>, twice INT GENERATED ALWAYS AS (id * 2) STORED, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second')";
        let found = table(text, &crate::tokens::tokenize("a", text, None).unwrap()).unwrap().unwrap();
        assert_eq!((found.name.as_str(), &found.key, found.if_not_exists), ("orders", &vec!["id".to_string()], true));
        let types: Vec<&str> = found.columns.iter().map(|column| column.data_type.as_str()).collect();
        assert_eq!(types, ["INT", "VARCHAR(10)", "NUMERIC(10, 2)", "STRUCT<a INT, b INT[]>", "INT", "TIMESTAMP"]);
        assert_eq!(found.columns[1].default.as_deref(), Some("'a, b'"));
        assert!(found.columns[1].not_null && found.columns[1].name == "Name");
        assert_eq!(found.columns[4].computed.as_deref(), Some("id * 2"));
        assert!(found.script().contains("WATERMARK FOR ts AS ts - INTERVAL '1 second', ARRIVAL FOR \"freshet$written\")"), "{}", found.script());
        let source = "CREATE TABLE t (a INT) WITH (connector = 'file')";
        assert!(table(source, &crate::tokens::tokenize("a", source, None).unwrap()).unwrap().is_none());
    }
}
