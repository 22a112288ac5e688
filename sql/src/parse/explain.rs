//! `EXPLAIN [(AST | PLAN | DATAFLOW | STATE)] statement-or-name`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{Explain, ExplainKind, ExplainSubject, Statement, Stmt};
use crate::error::{SqlError, nearest};
use crate::tokens;

const KINDS: [&str; 4] = ["AST", "PLAN", "DATAFLOW", "STATE"];

pub fn parse(cursor: &mut Cursor, text: &str) -> Result<Stmt> {
    cursor.expect("EXPLAIN")?;
    let what = kind(cursor)?;
    let subject = match cursor.word(0).as_str() {
        "EXPLAIN" => return Err(cursor.error_here("EXPLAIN of EXPLAIN").help("write the inner one alone")),
        "CREATE" | "SET" => statement(cursor, text)?,
        _ if cursor.starts_query() => statement(cursor, text)?,
        _ if !matches!(cursor.token(), Token::Word(_)) => {
            return Err(cursor.error_expected("a statement or the name of a view").help("for example EXPLAIN (PLAN) SELECT …"));
        }
        _ => ExplainSubject::Name(cursor.single_name("a statement or the name of a view")?),
    };
    Ok(Stmt::Explain(Explain { what, subject }))
}

fn statement(cursor: &mut Cursor, text: &str) -> Result<ExplainSubject> {
    let start = cursor.place();
    let body = super::statement(cursor, text)?;
    let place = cursor.place_since(start);
    Ok(ExplainSubject::Statement(Box::new(Statement { body, place, text: tokens::slice(text, place.0) })))
}

fn kind(cursor: &mut Cursor) -> Result<ExplainKind> {
    if cursor.word(0) == "ANALYZE" {
        return Err(cursor.error_here("EXPLAIN ANALYZE is not supported yet").help("write EXPLAIN (PLAN) or EXPLAIN (DATAFLOW)"));
    }
    // A bracket may also open a query.
    let opens_query = *cursor.token() == Token::LParen && matches!(cursor.word(1).as_str(), "SELECT" | "WITH" | "VALUES" | "");
    if *cursor.token() != Token::LParen || opens_query {
        if KINDS.contains(&cursor.word(0).as_str()) && !matches!(cursor.found_nth(1).as_str(), "the end of the statement") {
            let word = cursor.word(0);
            return Err(cursor.error_here(format!("{word} stands without brackets")).help(format!("write EXPLAIN ({word}) …")));
        }
        return Ok(ExplainKind::default());
    }
    cursor.expect_token(&Token::LParen)?;
    let kind = match cursor.word(0).as_str() {
        "AST" => ExplainKind::Ast,
        "PLAN" => ExplainKind::Plan,
        "DATAFLOW" => ExplainKind::Dataflow,
        "STATE" => ExplainKind::State,
        other => return Err(unknown_kind(cursor, other)),
    };
    cursor.next_token();
    if *cursor.token() == Token::Comma {
        return Err(cursor.error_here(format!("one of {} at a time", KINDS.join(", "))));
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(kind)
}

fn unknown_kind(cursor: &Cursor, word: &str) -> SqlError {
    let error = cursor.error_here(format!("EXPLAIN ({}) is unknown", cursor.found()));
    match nearest(word, KINDS) {
        Some(known) => error.help(format!("did you mean {known}?")),
        None => error.help(format!("it shows one of {}", KINDS.join(", "))),
    }
}
