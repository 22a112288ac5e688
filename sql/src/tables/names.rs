//! Which names a query reads, and what the INSERTs of a script make of its tables. In: statements. Out: names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, Query, Visit, Visitor};

use crate::ast::{Role, Statement, Stmt, normal_name};

/// The sources, tables, views and services a query reads; names of its own WITH are none.
pub(crate) fn relations_in(query: &Query) -> BTreeSet<String> {
    let mut names = Names::default();
    let _ = query.visit(&mut names);
    names.read.difference(&names.own).cloned().collect()
}

#[derive(Default)]
struct Names {
    read: BTreeSet<String>,
    own: BTreeSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.own.extend(tables.map(|table| normal_name(&table.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        // FEATURES(service) is the table `service` of the schema `features`.
        if let Some(ObjectNamePart::Identifier(name)) = relation.0.last() {
            self.read.insert(normal_name(name));
        }
        ControlFlow::Continue(())
    }
}

/// What the whole script says of its tables, before any statement is applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// What INSERT INTO names.
    pub written: BTreeSet<String>,
    /// Tables without connector that a SELECT over streams is inserted into.
    pub pipes: BTreeSet<String>,
}

impl Survey {
    pub fn of<'a>(statements: impl Iterator<Item = &'a Statement> + Clone) -> Survey {
        let mut stored: BTreeSet<String> = BTreeSet::new();
        let mut inserted: Vec<(String, BTreeSet<String>)> = Vec::new();
        for statement in statements {
            match &statement.body {
                Stmt::CreateSource(create) if create.role == Role::Stored => {
                    stored.insert(normal_name(&create.name));
                    inserted.extend(create.query.iter().map(|query| (normal_name(&create.name), relations_in(query))));
                }
                Stmt::Write(write) => {
                    inserted.extend(write.inserted().map(|(query, _)| (normal_name(&write.table), relations_in(query))));
                }
                _ => {}
            }
        }
        let written = inserted.iter().map(|(table, _)| table.clone()).collect();
        let mut pipes = BTreeSet::new();
        // A table over pipes is a pipe.
        loop {
            let streams = |names: &BTreeSet<String>| names.iter().any(|name| !stored.contains(name) || pipes.contains(name));
            let more: Vec<String> = inserted
                .iter()
                .filter(|(table, names)| stored.contains(table) && !pipes.contains(table) && streams(names))
                .map(|(table, _)| table.clone())
                .collect();
            if more.is_empty() {
                return Survey { written, pipes };
            }
            pipes.extend(more);
        }
    }
}
