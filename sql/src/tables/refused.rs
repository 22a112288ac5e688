//! What statements that write get wrong, and where. In: a statement, its table, the rows it would change. Out: nothing, or a refusal at its part.

use std::collections::BTreeSet;

use arrow::array::{Array, RecordBatch};
use datafusion::sql::sqlparser::ast::{
    ConflictTarget, Expr as SqlExpr, Insert, OnConflictAction, SetExpr, Spanned, Statement, Value, ValueWithSpan, Values, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::Stored;
use super::change::{core_error, nullable, plan};
use super::content::keys_of;
use crate::ast::{Write, normal_name};
use crate::context::Catalog;
use crate::execute::execute;
use crate::refusal::{Refusal, Result};

/// At the table, unless a place is known.
pub(super) fn placed(refusal: Refusal, write: &Write) -> Refusal {
    if refusal.place.is_some() { refusal } else { refusal.at(write.table.span) }
}

/// A row of VALUES has a value for each column that is inserted.
pub(super) fn check_width(write: &Write, table: &Stored) -> Result<()> {
    let Some((values, named)) = values_of(write) else { return Ok(()) };
    let all: Vec<&str> = table.carried.fields().iter().map(|field| field.name().as_str()).collect();
    let expected = if named.is_empty() { all.len() } else { named.len() };
    let Some(row) = values.rows.iter().find(|row| row.content.len() != expected) else { return Ok(()) };
    let given = row.content.len();
    // The first value too many, or the last one before what is missing.
    let place = row.content.get(expected).or(row.content.last()).map_or(write.table.span, Spanned::span);
    let columns = if named.is_empty() { all.join(", ") } else { named.join(", ") };
    Err(Refusal::new(format!("INSERT INTO {} gives {given} values for {expected} columns", write.table))
        .help(format!("columns are {columns}"))
        .at(place))
}

/// ON CONFLICT speaks of the PRIMARY KEY.
pub(super) fn check_conflict(write: &Write, table: &Stored) -> Result<()> {
    let Some(conflict) = write.conflict() else { return Ok(()) };
    let key: Vec<&str> = table.def.key.iter().map(|column| table.def.schema.field(*column).name().as_str()).collect();
    let updates = matches!(conflict.action, OnConflictAction::DoUpdate(_));
    match &conflict.conflict_target {
        _ if updates && key.is_empty() => {
            return Err(Refusal::new(format!("{} has no PRIMARY KEY that rows could be in conflict about", write.table))
                .help("declare it: CREATE TABLE … (…, PRIMARY KEY (column))")
                .at(write.table.span));
        }
        Some(ConflictTarget::Columns(columns)) => {
            let named: BTreeSet<String> = columns.iter().map(normal_name).collect();
            if named != key.iter().map(|name| name.to_string()).collect() {
                let place = columns.first().map_or(write.table.span, |column| column.span);
                let refusal = Refusal::new("ON CONFLICT names other columns than the PRIMARY KEY").at(place);
                return Err(match key.is_empty() {
                    true => refusal.help(format!("{} has none; declare PRIMARY KEY (column)", write.table)),
                    false => refusal.help(format!("write ON CONFLICT ({})", key.join(", "))),
                });
            }
        }
        Some(ConflictTarget::OnConstraint(name)) => {
            return Err(Refusal::new("constraints have no names here")
                .help("write ON CONFLICT, or name the columns of the PRIMARY KEY")
                .at(name.span()));
        }
        None => {}
    }
    let OnConflictAction::DoUpdate(update) = &conflict.action else { return Ok(()) };
    let exprs = update.assignments.iter().map(|assignment| &assignment.value).chain(&update.selection);
    for expr in exprs {
        let mut wrong = None;
        let _ = visit_expressions(expr, |part| {
            match part {
                SqlExpr::Value(ValueWithSpan { value: Value::Placeholder(_), span }) => {
                    wrong = Some(("a parameter", "insert it as a value, and write excluded.column", *span));
                }
                SqlExpr::Subquery(_) | SqlExpr::InSubquery { .. } | SqlExpr::Exists { .. } => {
                    wrong = Some(("a subquery", "read it before, or UPDATE … FROM afterwards", part.span()));
                }
                _ => {}
            }
            std::ops::ControlFlow::<()>::Continue(())
        });
        if let Some((what, help, span)) = wrong {
            return Err(Refusal::new(format!("{what} cannot stand in ON CONFLICT DO UPDATE")).help(help).at(span));
        }
    }
    Ok(())
}

/// An UPDATE may not give a row the key of another.
///
/// `removed` are numbers of rows of `now`.
pub(super) fn refuse_taken_keys(write: &Write, table: &Stored, (removed, added): (&[u32], &RecordBatch), now: &RecordBatch) -> Result<()> {
    if table.def.key.is_empty() {
        return Ok(());
    }
    let gone: BTreeSet<usize> = removed.iter().map(|row| *row as usize).collect();
    let before = keys_of(now, &table.def.key).map_err(core_error)?;
    let mut known: BTreeSet<Vec<u8>> = before.into_iter().enumerate().filter(|(row, _)| !gone.contains(row)).map(|(_, key)| key).collect();
    let new = keys_of(added, &table.def.key).map_err(core_error)?;
    match new.into_iter().position(|key| !known.insert(key)) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(format!("two rows of {} would have the same PRIMARY KEY", write.table))
            .help("DELETE the other row first")
            .at(write.table.span)),
    }
}

pub(super) fn refuse_nulls(write: &Write, table: &Stored, added: &RecordBatch) -> Result<()> {
    for (index, field) in table.carried.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()) {
        let column = added.column(index);
        let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) else { continue };
        let place = value_place(write, table, row, index).unwrap_or(write.table.span);
        let rule =
            if table.def.key.iter().any(|key| table.def.schema.field(*key).name() == field.name()) { "is in the PRIMARY KEY" } else { "is NOT NULL" };
        return Err(Refusal::new(format!("column {} of {} {rule}, and a row has NULL", field.name(), write.table)).at(place));
    }
    Ok(())
}

/// Where the value of a carried column stands in VALUES.
fn value_place(write: &Write, table: &Stored, row: usize, column: usize) -> Option<Span> {
    let (values, named) = values_of(write)?;
    let name = table.carried.field(column).name();
    let cell = if named.is_empty() { column } else { named.iter().position(|known| known == name)? };
    let row = values.rows.get(row)?;
    row.content.get(cell).map(Spanned::span)
}

fn values_of(write: &Write) -> Option<(&Values, Vec<String>)> {
    let (query, columns) = write.inserted()?;
    let SetExpr::Values(values) = query.body.as_ref() else { return None };
    Some((values, columns.iter().filter_map(|name| name.0.last()?.as_ident().map(normal_name)).collect()))
}

/// At the value of VALUES that is to blame, if it is one: the statement is tried again with that value alone.
pub(super) fn failed(write: &Write, table: &Stored, message: String) -> Refusal {
    let refusal = Refusal::new(message);
    let Some((values, _)) = values_of(write) else { return refusal.at(write.table.span) };
    for (row, cells) in values.rows.iter().enumerate() {
        for cell in 0..cells.content.len() {
            let mut alone = write.clone();
            let Statement::Insert(Insert { source: Some(query), .. }) = &mut alone.statement else { continue };
            let SetExpr::Values(values) = query.body.as_mut() else { continue };
            let mut content = values.rows.swap_remove(row);
            let null = |span: Span| SqlExpr::Value(ValueWithSpan { value: Value::Null, span });
            content.content.iter_mut().enumerate().filter(|(index, _)| *index != cell).for_each(|(_, value)| *value = null(value.span()));
            values.rows = vec![content];
            let nothing = RecordBatch::new_empty(nullable(&table.def.schema));
            let tried = plan(&alone, table, &nothing, &Catalog::default()).map(|planned| execute(planned.plan));
            if !matches!(tried, Ok(Ok(_))) {
                return refusal.at(cells.content[cell].span());
            }
        }
    }
    refusal.at(write.table.span)
}
