//! `CREATE [OR REPLACE] VIEW [IF NOT EXISTS]` and `CREATE MATERIALIZED VIEW [IF NOT EXISTS]`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateMaterializedView, CreateView, Emit, Ident, Stmt};
use crate::options;

pub fn parse(cursor: &mut Cursor, or_replace: bool) -> Result<Stmt> {
    cursor.expect("VIEW")?;
    if or_replace && cursor.word(0) == "IF" {
        return Err(cursor.error_here("a view is either replaced or left as it is").help("leave OR REPLACE or IF NOT EXISTS out"));
    }
    let if_not_exists = cursor.if_not_exists();
    let name = name(cursor)?;
    cursor.expect("AS")?;
    Ok(Stmt::CreateView(CreateView { name, or_replace, if_not_exists, query: cursor.query()? }))
}

pub fn parse_materialized(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("MATERIALIZED")?;
    cursor.expect("VIEW")?;
    let if_not_exists = cursor.if_not_exists();
    let name = name(cursor)?;
    cursor.expect("AS")?;
    let query = cursor.query()?;
    Ok(Stmt::CreateMaterializedView(CreateMaterializedView { name, if_not_exists, query, emit: emit(cursor)? }))
}

/// `[EMIT ON CHANGE | EMIT ON WINDOW CLOSE | EMIT EVERY INTERVAL '…']`.
pub fn emit(cursor: &mut Cursor) -> Result<Emit> {
    let place = cursor.place();
    if !cursor.eat(&["EMIT"]) {
        return Ok(Emit::OnChange);
    }
    if cursor.eat(&["ON", "WINDOW", "CLOSE"]) {
        return Ok(Emit::OnWindowClose(cursor.place_since(place)));
    }
    if cursor.eat(&["ON", "CHANGE"]) || cursor.eat(&["ON", "UPDATE"]) {
        return Ok(Emit::OnChange);
    }
    if !cursor.eat(&["EVERY"]) {
        return Err(cursor
            .error_expected("ON WINDOW CLOSE, ON CHANGE or EVERY")
            .help("EMIT ON WINDOW CLOSE shows each window once, when it is whole"));
    }
    let every = options::duration(cursor, "EMIT EVERY")?;
    if every.ms() == 0 {
        return Err(cursor.error_at(every.place, "EMIT EVERY has no length").help("it is at least one millisecond long"));
    }
    Ok(Emit::Every(every))
}

fn name(cursor: &mut Cursor) -> Result<Ident> {
    let name = cursor.single_name("the name of the view")?;
    if *cursor.token() == Token::LParen {
        let error = cursor.error_here("a view's column list is not supported");
        return Err(error.help("name the columns in the query: SELECT expression AS name"));
    }
    if cursor.word(0) == "WITH" {
        return Err(cursor.error_here("WITH options of a view are not supported yet").help("leave them out"));
    }
    if cursor.word(0) == "PRIMARY" {
        return Err(cursor.error_here("PRIMARY KEY of a view is not supported yet").help("leave it out"));
    }
    Ok(name)
}
