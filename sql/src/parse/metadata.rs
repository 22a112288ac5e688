//! Columns that the record's surroundings fill: `INCLUDE timestamp AS ts` (RisingWave) and `ts TIMESTAMP(3) METADATA FROM 'timestamp'` (Flink,
//! Arroyo). In: tokens. Out: a column and the name of what fills it; which names there are, the connector says.

use datafusion::sql::sqlparser::ast::TimezoneInfo;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{Column, DataType, Ident, Included, Place, Text, normal_name};
use crate::error::{SqlError, nearest};

/// Names that have a type of their own; of any other, INCLUDE says the type.
const NAMES: [&str; 13] =
    ["key", "timestamp", "offset", "partition", "topic", "header", "headers", "qos", "retain", "level", "file", "modified", "row"];

const EXAMPLE: &str = "for example INCLUDE timestamp AS ts, INCLUDE offset";

/// `INCLUDE name [TYPE] [AS column]`, as many as there are, with commas or without.
pub fn includes(cursor: &mut Cursor, columns: &mut Vec<Column>, metadata: &mut Vec<Included>) -> Result<()> {
    while cursor.eat(&["INCLUDE"]) {
        let (column, name) = include(cursor)?;
        metadata.push(Included { column: columns.len(), name });
        columns.push(column);
        if cursor.eat_token(&Token::Comma) && cursor.word(0) != "INCLUDE" {
            return Err(cursor.error_expected("INCLUDE after the comma").help(EXAMPLE));
        }
    }
    Ok(())
}

fn include(cursor: &mut Cursor) -> Result<(Column, Text)> {
    let start = cursor.place();
    let name = included_name(cursor)?;
    let place = cursor.place_since(start);
    let name = Text { value: known_spelling(cursor, &name, place)?, place };
    let default = Ident::with_span(start.0, name.value.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_").to_lowercase());
    let ends = matches!(cursor.token(), Token::Comma | Token::EOF) || matches!(cursor.word(0).as_str(), "AS" | "INCLUDE" | "WITH");
    let (data_type, data_type_place) = match (ends, default_type(&name.value)) {
        (false, _) => cursor.data_type(&default)?,
        (true, Some(data_type)) => (data_type, place),
        (true, None) => return Err(unknown(cursor, &name.value, place)),
    };
    let column = if cursor.eat(&["AS"]) { cursor.name("a column")? } else { default };
    Ok((Column { name: column, data_type, data_type_place, not_null: false }, name))
}

/// `key`, `header 'trace'`, `level 2`, `'level.2'`.
fn included_name(cursor: &mut Cursor) -> Result<String> {
    let name = match cursor.token().clone() {
        Token::Word(word) if !matches!(cursor.word(0).as_str(), "AS" | "INCLUDE" | "WITH") => word.value,
        Token::SingleQuotedString(text) => text,
        _ => return Err(cursor.error_expected("what to include").help(EXAMPLE)),
    };
    let quoted = !matches!(cursor.token(), Token::Word(_));
    cursor.next_token();
    match name.to_lowercase().as_str() {
        // Alone it means all of them, as in RisingWave.
        "header" if !quoted && matches!(cursor.token(), Token::SingleQuotedString(_)) => {
            Ok(format!("header.{}", cursor.text("the name of a header", "INCLUDE header 'trace' AS trace")?.value))
        }
        "header" if !quoted && matches!(cursor.token(), Token::Number(..)) => {
            Err(cursor.error_expected("the name of a header in single quotes").help("for example INCLUDE header 'trace' AS trace"))
        }
        "header" => Ok("headers".into()),
        "level" if !quoted => Ok(format!("level.{}", cursor.count("the number of a level of the topic")?)),
        _ => Ok(name),
    }
}

/// `METADATA [FROM 'name'] [VIRTUAL]`, if it is next. VIRTUAL says what is so anyhow: the column is never written back.
pub fn suffix(cursor: &mut Cursor, column: &Ident) -> Result<Option<Text>> {
    let place = cursor.place();
    if !cursor.eat(&["METADATA"]) {
        return Ok(None);
    }
    let written = if cursor.eat(&["FROM"]) {
        cursor.text("the name of the metadata", "METADATA FROM 'timestamp'")?
    } else {
        Text { value: normal_name(column), place }
    };
    cursor.eat(&["VIRTUAL"]);
    Ok(Some(Text { value: known_spelling(cursor, &written.value, written.place)?, place: written.place }))
}

/// Lower case but for the own name of a header or user property, and one word for what peers call differently. Errors: a header or level without
/// its name.
fn known_spelling(cursor: &Cursor, name: &str, place: Place) -> Result<String> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let wrong = |what: &str, example: &str| Err(cursor.error_at(place, format!("{name} names no {what}")).help(format!("for example {example}")));
    match (first.to_lowercase().as_str(), rest) {
        ("header", None | Some("")) => wrong("header", "'header.trace'"),
        (first @ ("header" | "user"), Some(own)) => Ok(format!("{first}.{own}")),
        ("level", level) => match level.and_then(|level| level.parse::<u32>().ok()).filter(|level| *level > 0) {
            Some(level) => Ok(format!("level.{level}")),
            None => wrong("level of a topic", "'level.1', its first one"),
        },
        ("offset_id", None) => Ok("offset".into()),
        _ => Ok(name.to_lowercase()),
    }
}

fn default_type(name: &str) -> Option<DataType> {
    match name.split('.').next().unwrap_or(name) {
        "key" | "topic" | "header" | "headers" | "level" | "user" | "content_type" | "response_topic" | "file" => Some(DataType::Varchar(None)),
        "timestamp" | "received" | "modified" => Some(DataType::Timestamp(Some(3), TimezoneInfo::None)),
        "offset" | "row" => Some(DataType::BigInt(None)),
        "partition" | "qos" => Some(DataType::Int(None)),
        "retain" => Some(DataType::Boolean),
        _ => None,
    }
}

fn unknown(cursor: &Cursor, name: &str, place: Place) -> SqlError {
    let error = cursor.error_at(place, format!("the metadata {name} is unknown"));
    match nearest(name, NAMES) {
        Some(close) => error.help(format!("did you mean {close}?")),
        None => error.help(format!("INCLUDE takes {}, or another name with its type: INCLUDE {name} VARCHAR", NAMES.join(", "))),
    }
}
