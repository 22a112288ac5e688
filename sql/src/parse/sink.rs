//! `CREATE SINK name FROM view [KEY (…)] WITH (…) FORMAT … ENCODE …`.

use super::Result;
use super::cursor::{CLAUSE_WORDS, Cursor};
use crate::ast::{CreateSink, Ident, OptionEntry, Stmt};
use crate::options;

const PRIMARY_KEY: &str = "primary_key";

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("SINK")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the sink")?;
    if cursor.word(0) == "AS" {
        let error = cursor.error_here("a sink with a query of its own is not supported yet");
        return Err(error.help(format!("CREATE MATERIALIZED VIEW … AS the query, then CREATE SINK {name} FROM it")));
    }
    if cursor.word(0) == "INTO" {
        return Err(cursor
            .error_here("CREATE SINK … INTO is not supported")
            .help(format!("write CREATE SINK {name} FROM view WITH (connector = …)")));
    }
    cursor.expect("FROM")?;
    let from = cursor.single_name("the name of a view")?;
    let mut key = if cursor.eat(&["KEY"]) || cursor.eat(&["PRIMARY", "KEY"]) { cursor.names("column")? } else { Vec::new() };
    if cursor.word(0) != "WITH" {
        return Err(cursor.error_expected("WITH").help("say where it writes: WITH (connector = 'file', path = …)"));
    }
    let mut options = options::list(cursor)?;
    options::require_connector(cursor, &options, &name, "sink")?;
    if let Some(index) = options.iter().position(|option| option.name == PRIMARY_KEY) {
        let option = options.remove(index);
        if !key.is_empty() {
            let error = cursor.error_at(option.place, "the key stands twice: as a clause and as an option");
            return Err(error.help("leave out one of them"));
        }
        key = columns_of(cursor, &option)?;
    }
    let encoding = options::encoding(cursor)?;
    Ok(Stmt::CreateSink(CreateSink { name, if_not_exists, from, key, options, encoding }))
}

/// `primary_key = 'a, b'`: names as they stand in SQL, quoted or not.
fn columns_of(cursor: &Cursor, option: &OptionEntry) -> Result<Vec<Ident>> {
    let text = option.value.text();
    let column = |name: &str| {
        let bare = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let plain =
            name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') && !name.starts_with(|first: char| first.is_ascii_digit());
        let quoted = bare.is_some() || !plain || CLAUSE_WORDS.contains(&name.to_ascii_uppercase().as_str());
        let value = bare.map_or(name.to_string(), |bare| bare.replace("\"\"", "\""));
        Ident { value, quote_style: quoted.then_some('"'), span: option.value_place.0 }
    };
    let key: Vec<Ident> = text.split(',').map(|name| column(name.trim())).collect();
    if key.iter().any(|name| name.value.is_empty()) {
        let error = cursor.error_at(option.value_place, format!("{PRIMARY_KEY} is a list of columns, {} is none", option.value));
        return Err(error.help(format!("for example {PRIMARY_KEY} = 'region, id'")));
    }
    cursor.unique(key.iter(), "column")?;
    Ok(key)
}
