//! Text to statements. In: a script and its variables, or one query. Out: the AST, or the first error with line and column.
//!
//! sqlparser parses every query and type; the statements around them are ours, one file per family under parse/.

pub(crate) mod cursor;
mod drop;
mod explain;
mod feature;
mod function;
mod metadata;
mod model;
mod monitor;
mod refused;
mod retraining;
mod secret;
mod set;
mod sink;
mod source;
mod spelling;
mod subscribe;
mod training;
mod view;
mod write;

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::ast::{Place, Query, Statement, Stmt, Subscribe};
use crate::error::{SqlError, nearest};
use crate::tokens;
use cursor::Cursor;

type Result<T> = std::result::Result<T, SqlError>;

/// Named in errors of queries that stand in no file.
const QUERY: &str = "query";

/// What a statement may begin with.
const FIRST_WORDS: [&str; 11] = ["SET", "CREATE", "INSERT", "UPDATE", "DELETE", "DROP", "FLUSH", "EXPLAIN", "SELECT", "WITH", "VALUES"];

/// What may follow CREATE.
const CREATED: [&str; 12] = [
    "SOURCE",
    "TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "FEATURE VIEW",
    "FEATURE SERVICE",
    "MODEL",
    "TRAINING SET",
    "DRIFT MONITOR",
    "RETRAINING JOB",
    "SINK",
    "SECRET",
];

/// All statements of a script in order. `name` is the path shown in errors.
pub fn parse_script(name: &str, text: &str, variables: &BTreeMap<String, String>) -> Result<Vec<Statement>> {
    let tokens = tokens::tokenize(name, text, Some(variables))?;
    let mut statements = Vec::new();
    for tokens in tokens::split(name, tokens)? {
        if let Some(found) = tokens.iter().find(|found| matches!(found.token, Token::Placeholder(_))) {
            let error = SqlError::new(name, found.span.start, "a parameter in a script");
            return Err(error.help("parameters belong to prepared queries; a script has variables: '${NAME}'"));
        }
        let span = span_of(&tokens);
        let mut cursor = Cursor::new(name, tokens::rewrite(tokens), span.end);
        let body = statement(&mut cursor, text)?;
        cursor.expect_end()?;
        statements.push(Statement { body, place: Place(span), text: tokens::slice(text, span) });
    }
    Ok(statements)
}

/// One query with its parameters numbered `$1`, `$2`, … whether it writes them so or as `?`. Errors name the file `query`.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let tokens = tokens::tokenize(QUERY, text, None)?;
    let mut statements = tokens::split(QUERY, tokens)?.into_iter();
    let Some(mut tokens) = statements.next() else {
        return Err(SqlError::new(QUERY, Location::new(1, 1), "there is no query").help("write a SELECT"));
    };
    if let Some(second) = statements.next() {
        let error = SqlError::new(QUERY, second[0].span.start, "a second statement");
        return Err(error.help("send one query at a time"));
    }
    tokens::number_placeholders(QUERY, &mut tokens)?;
    let end = span_of(&tokens).end;
    let mut cursor = Cursor::new(QUERY, tokens::rewrite(tokens), end);
    if !cursor.starts_query() {
        let error = cursor.error_here(format!("{} is no query", cursor.found()));
        return Err(error.help("only SELECT, WITH and VALUES can be sent here; other statements belong into the pipeline's script"));
    }
    let query = cursor.query()?;
    cursor.expect_end()?;
    Ok(query)
}

/// One INSERT, UPDATE, DELETE, FLUSH or DROP with its parameters numbered; None if the text begins otherwise. Errors name the file `query`.
pub fn parse_write(text: &str) -> Result<Option<Stmt>> {
    // What is no statement at all is told by whoever reads it as a query.
    let Ok(tokens) = tokens::tokenize(QUERY, text, None) else { return Ok(None) };
    let mut statements = tokens::split(QUERY, tokens)?.into_iter();
    let writes = |tokens: &Vec<TokenWithSpan>| matches!(tokens::word(&tokens[0]).as_str(), "INSERT" | "UPDATE" | "DELETE" | "FLUSH" | "DROP");
    let Some(mut tokens) = statements.next().filter(writes) else { return Ok(None) };
    if let Some(second) = statements.next() {
        return Err(SqlError::new(QUERY, second[0].span.start, "a second statement").help("send one statement at a time"));
    }
    tokens::number_placeholders(QUERY, &mut tokens)?;
    let end = span_of(&tokens).end;
    let mut cursor = Cursor::new(QUERY, tokens::rewrite(tokens), end);
    let written = statement(&mut cursor, text)?;
    cursor.expect_end()?;
    Ok(Some(written))
}

/// One SUBSCRIBE; None if the text begins otherwise. Errors name the file `query`.
pub fn parse_subscribe(text: &str) -> Result<Option<Subscribe>> {
    // What is no statement at all is told by whoever reads it as a query.
    let Ok(tokens) = tokens::tokenize(QUERY, text, None) else { return Ok(None) };
    let mut statements = tokens::split(QUERY, tokens)?.into_iter();
    let Some(tokens) = statements.next().filter(|tokens| tokens::word(&tokens[0]) == "SUBSCRIBE") else { return Ok(None) };
    if let Some(second) = statements.next() {
        return Err(SqlError::new(QUERY, second[0].span.start, "a second statement").help("send one SUBSCRIBE at a time"));
    }
    let end = span_of(&tokens).end;
    let mut cursor = Cursor::new(QUERY, tokens::rewrite(tokens), end);
    subscribe::parse(&mut cursor).map(Some)
}

/// The bare words of a text that begins with SHOW or DESCRIBE, in upper case, and where the second stands.
pub(crate) fn show_words(text: &str) -> Option<(Vec<String>, Location)> {
    let tokens = tokens::split(QUERY, tokens::tokenize(QUERY, text, None).ok()?).ok()?.into_iter().next()?;
    let words: Vec<String> = tokens.iter().map(tokens::word).collect();
    let place = tokens.get(1).unwrap_or(&tokens[0]).span.start;
    matches!(words[0].as_str(), "SHOW" | "DESCRIBE" | "DESC").then_some((words, place))
}

fn span_of(tokens: &[TokenWithSpan]) -> Span {
    let (first, last) = (tokens.first().expect("statements are not empty"), tokens.last().expect("statements are not empty"));
    Span::new(first.span.start, last.span.end)
}

fn statement(cursor: &mut Cursor, text: &str) -> Result<Stmt> {
    if cursor.starts_query() {
        return Ok(Stmt::Select(cursor.query()?));
    }
    let first = cursor.word(0);
    match first.as_str() {
        "SET" => set::parse(cursor),
        "CREATE" => create(cursor),
        "INSERT" | "UPDATE" | "DELETE" => write::parse(cursor),
        "DROP" => drop::parse(cursor),
        "FLUSH" => write::parse_flush(cursor),
        "EXPLAIN" => explain::parse(cursor, text),
        _ => Err(refused::statement(cursor).unwrap_or_else(|| {
            let error = cursor.error_here(format!("{} starts no statement", cursor.found()));
            match nearest(&first, FIRST_WORDS) {
                Some(known) => error.help(format!("did you mean {known}?")),
                None => error.help("statements start with SET, CREATE, INSERT, UPDATE, DELETE, DROP, EXPLAIN, SELECT, WITH or VALUES"),
            }
        })),
    }
}

fn create(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("CREATE")?;
    let replace_place = cursor.place();
    let or_replace = cursor.eat(&["OR", "REPLACE"]);
    if or_replace && cursor.word(0) != "VIEW" {
        let error = SqlError::new(cursor.file(), replace_place.start(), format!("OR REPLACE is not supported for CREATE {}", cursor.word(0)));
        return Err(error.help("only CREATE VIEW takes it; leave it out"));
    }
    match (cursor.word(0).as_str(), cursor.word(1).as_str()) {
        ("SOURCE", _) => source::parse(cursor),
        ("TABLE", _) => source::parse_table(cursor),
        ("SECRET", _) => secret::parse(cursor),
        ("FUNCTION", _) | ("TEMPORARY", "FUNCTION" | "SYSTEM") => function::parse(cursor),
        ("VIEW", _) => view::parse(cursor, or_replace),
        ("MATERIALIZED", "VIEW") => view::parse_materialized(cursor),
        ("FEATURE", "VIEW") => feature::parse_view(cursor),
        ("FEATURE", "SERVICE") => feature::parse_service(cursor),
        ("SINK", _) => sink::parse(cursor),
        ("MODEL", _) => model::parse(cursor),
        ("TRAINING", "SET") => training::parse(cursor),
        ("DRIFT", "MONITOR") => monitor::parse(cursor),
        ("RETRAINING", "JOB") => retraining::parse(cursor),
        _ => Err(refused::created(cursor).unwrap_or_else(|| unknown_created(cursor))),
    }
}

fn unknown_created(cursor: &Cursor) -> SqlError {
    let second = match cursor.word(0).as_str() {
        "MATERIALIZED" => Some("VIEW"),
        "FEATURE" => Some("VIEW or SERVICE"),
        "TRAINING" => Some("SET"),
        "DRIFT" => Some("MONITOR"),
        "RETRAINING" => Some("JOB"),
        _ => None,
    };
    if let Some(wanted) = second {
        let error = cursor.error_nth(1, format!("expected {wanted} after {}, found {}", cursor.word(0), cursor.found_nth(1)));
        return match nearest(&cursor.word(1), wanted.split(" or ")) {
            Some(known) => error.help(format!("did you mean {known}?")),
            None => error,
        };
    }
    if cursor.at_end() {
        return cursor.error_expected(&format!("one of {}", CREATED.join(", ")));
    }
    let error = cursor.error_here(format!("CREATE {} is unknown", cursor.found()));
    let written = format!("{} {}", cursor.word(0), cursor.word(1));
    let (two_words, one_word): (Vec<&str>, Vec<&str>) = CREATED.into_iter().partition(|known| known.contains(' '));
    let holds = |known: &&str| known.split(' ').any(|word| word == cursor.word(0));
    let named = nearest(&written, two_words.iter().copied()).or_else(|| nearest(&cursor.word(0), one_word));
    match named.or_else(|| two_words.into_iter().find(holds)) {
        Some(known) => error.help(format!("did you mean CREATE {known}?")),
        None => error.help(format!("CREATE takes {}", CREATED.join(", "))),
    }
}
