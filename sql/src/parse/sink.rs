//! `CREATE SINK name FROM view WITH (…) FORMAT … ENCODE …`.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateSink, Stmt};
use crate::options;

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
    if cursor.word(0) != "WITH" {
        return Err(cursor.error_expected("WITH").help("say where it writes: WITH (connector = 'file', path = …)"));
    }
    let options = options::list(cursor)?;
    options::require_connector(cursor, &options, &name, "sink")?;
    let encoding = options::encoding(cursor)?;
    Ok(Stmt::CreateSink(CreateSink { name, if_not_exists, from, options, encoding }))
}
