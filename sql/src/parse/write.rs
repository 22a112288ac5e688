//! `INSERT INTO`, `UPDATE`, `DELETE FROM`, `FLUSH`. sqlparser reads them; what no table here can do is refused with its place.

use datafusion::sql::sqlparser::ast::{FromTable, Insert, ObjectName, ObjectNamePart, OnInsert, Spanned, Statement, TableFactor, TableObject};

use super::Result;
use super::cursor::Cursor;
use crate::ast::{Ident, Place, Stmt, Write};
use crate::error::SqlError;

pub fn parse_flush(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("FLUSH")?;
    Ok(Stmt::Flush)
}

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    let start = cursor.place();
    let statement = cursor.statement()?;
    let refused = |what: &str, help: &str| Err(cursor.error_at(start, format!("{what} is not supported")).help(help));
    let table = match &statement {
        Statement::Insert(insert) => {
            check_insert(cursor, start, insert)?;
            match &insert.table {
                TableObject::TableName(name) => name.clone(),
                _ => return refused("INSERT into anything but a table", "write INSERT INTO name"),
            }
        }
        Statement::Update(update) => {
            if !update.table.joins.is_empty() {
                return refused("UPDATE of a join", "write UPDATE name SET c = … FROM other WHERE …");
            }
            if !update.order_by.is_empty() || update.limit.is_some() {
                return refused("ORDER BY or LIMIT of an UPDATE", "write WHERE key IN (SELECT … LIMIT …)");
            }
            match &update.table.relation {
                TableFactor::Table { name, .. } => name.clone(),
                _ => return refused("UPDATE of anything but a table", "write UPDATE name SET c = …"),
            }
        }
        Statement::Delete(delete) => {
            if !delete.order_by.is_empty() || delete.limit.is_some() || !delete.tables.is_empty() {
                return refused("ORDER BY or LIMIT of a DELETE", "write WHERE key IN (SELECT … LIMIT …)");
            }
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            match &from[..] {
                [one] if one.joins.is_empty() => match &one.relation {
                    TableFactor::Table { name, .. } => name.clone(),
                    _ => return refused("DELETE from anything but a table", "write DELETE FROM name"),
                },
                _ => return refused("DELETE from several tables", "write one DELETE for each"),
            }
        }
        _ => return Err(cursor.error_at(start, "this statement is not understood").help("write INSERT INTO, UPDATE or DELETE FROM")),
    };
    Ok(Stmt::Write(Box::new(Write { table: single(cursor, &table)?, statement })))
}

fn check_insert(cursor: &Cursor, start: Place, insert: &Insert) -> Result<()> {
    let refused = |what: &str, help: &str| Err::<(), SqlError>(cursor.error_at(start, format!("{what} is not supported")).help(help));
    if insert.overwrite {
        return refused("INSERT OVERWRITE", "DELETE FROM the table first");
    }
    if insert.source.is_none() {
        return refused("DEFAULT VALUES", "name a column: INSERT INTO t (c) VALUES (NULL)");
    }
    match &insert.on {
        None | Some(OnInsert::OnConflict(_)) => Ok(()),
        Some(_) => refused("ON DUPLICATE KEY", "write ON CONFLICT DO UPDATE SET c = excluded.c"),
    }
}

fn single(cursor: &Cursor, name: &ObjectName) -> Result<Ident> {
    match &name.0[..] {
        [ObjectNamePart::Identifier(name)] => Ok(name.clone()),
        _ => Err(cursor.error_at(Place(name.span()), "the name of a table has one part").help("a pipeline has no schemas")),
    }
}
