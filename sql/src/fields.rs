//! `SELECT person.name FROM events`, where `person` is a column: the field's name is the column's, as in PostgreSQL and Flink. In: a query as
//! written. Out: the same with these names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, SelectItem, TableFactor, TableWithJoins, VisitMut, VisitorMut};

use crate::ast::normal_name;

/// Names the fields of rows that a SELECT gives no name.
pub(crate) fn name_fields(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Fields);
}

struct Fields;

impl VisitorMut for Fields {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut tables = Vec::new();
        if !select.from.iter().all(|from| name_tables(from, &mut tables)) {
            return ControlFlow::Continue(());
        }
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) = item else { continue };
            let [first, .., last] = &parts[..] else { continue };
            // A column of a table keeps the table's name beside its own.
            if parts.len() > 2 || !tables.contains(&normal_name(first)) {
                let alias = last.clone();
                *item = SelectItem::ExprWithAlias { expr: Expr::CompoundIdentifier(parts.clone()), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

/// What the tables of FROM are called. False: one of them is something else.
fn name_tables(from: &TableWithJoins, names: &mut Vec<String>) -> bool {
    name_table(&from.relation, names) && from.joins.iter().all(|join| name_table(&join.relation, names))
}

fn name_table(table: &TableFactor, names: &mut Vec<String>) -> bool {
    let alias = match table {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias,
        _ => return false,
    };
    match (alias, table) {
        (Some(alias), _) => names.push(normal_name(&alias.name)),
        (None, TableFactor::Table { name, .. }) => names.extend(name.0.last().and_then(|part| part.as_ident()).map(normal_name)),
        (None, TableFactor::NestedJoin { table_with_joins, .. }) => return name_tables(table_with_joins, names),
        (None, _) => {}
    }
    true
}
