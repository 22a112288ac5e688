//! `CREATE TRAINING SET name ID (c) TIME (c) LABEL (c) [WITH (mode = …)] AS query`.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateTrainingSet, Ident, OptionEntry, Place, Stmt, normal_name};
use crate::options;

const ORDER: &str = "write CREATE TRAINING SET name ID (column) TIME (column) LABEL (column) [WITH (mode = 'as_served')] AS SELECT …";

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["TRAINING", "SET"]);
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the training set")?;
    let id = role(cursor, "ID")?;
    let time = role(cursor, "TIME")?;
    let label = role(cursor, "LABEL")?;
    one_role_each(cursor, [&id, &time, &label])?;
    let options = if cursor.word(0) == "WITH" { set_options(cursor)? } else { Vec::new() };
    cursor.clause(&["AS"], ORDER)?;
    let query = cursor.query()?;
    Ok(Stmt::CreateTrainingSet(CreateTrainingSet { name, if_not_exists, id, time, label, options, query }))
}

fn role(cursor: &mut Cursor, role: &str) -> Result<Ident> {
    cursor.clause(&[role], ORDER)?;
    cursor.bracketed_name(role)
}

fn one_role_each(cursor: &Cursor, columns: [&Ident; 3]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|earlier| normal_name(earlier) == normal_name(column)) {
            let error = cursor.error_at(Place(column.span), format!("column {column} has two roles"));
            return Err(error.help("ID names a row, TIME is when it was asked, LABEL is what was learnt later: three columns"));
        }
    }
    Ok(())
}

fn set_options(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    let found = options::list(cursor)?;
    if let Some(option) = found.iter().find(|option| option.name == "incomplete") {
        return Err(cursor.error_at(option.place, "option incomplete is not supported yet").help("leave it out: rows keep their values"));
    }
    options::require_known(cursor, &found, &["mode"])?;
    for option in &found {
        options::require_value(cursor, option, &["as_served", "event_time"], &[])?;
    }
    Ok(found)
}
