//! Conditions beyond expressions: subqueries, and time against now(). In: the columns in scope. Out: trees that stand after WHERE.

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::relations::{Source, TABLES};
use crate::queries::tree::{Kind, Node, Type};

impl Generator {
    /// now() against the time of a table: one edge or both.
    pub(crate) fn temporal(&mut self, source: &Source) -> Vec<Node> {
        let time = self.one(&source.times);
        let comparison = self.one(&[">", ">="]);
        let lower = Node::filled("temporal", Kind::Other, &format!("{time} {comparison} now() - INTERVAL '20 seconds'"), Vec::new());
        let shifted = Node::filled("temporal", Kind::Other, &format!("{time} + INTERVAL '9 seconds' {comparison} now()"), Vec::new());
        let upper = Node::filled("temporal", Kind::Other, &format!("{time} <= now() - INTERVAL '3 seconds'"), Vec::new());
        match self.random.random_range(0..4) {
            0 => vec![lower],
            1 => vec![upper],
            2 => vec![shifted],
            _ => vec![lower, upper],
        }
    }

    /// Some stand alone, some under OR or NOT.
    pub(crate) fn subqueries(&mut self, source: &Source, scope: u32) -> Vec<Node> {
        let mut found = Vec::new();
        for kind in ["exists", "in_subquery", "scalar_subquery"] {
            if !self.uses(kind, 0.9) {
                continue;
            }
            let Some(subquery) = self.subquery(kind, source, scope) else { continue };
            found.push(match self.random.random_range(0..4) {
                0 => {
                    let other = self.expression(&source.columns, Type::Bool, 1, scope);
                    Node::filled("subquery_under_or", Kind::Other, "({} OR {})", vec![other, subquery])
                }
                1 => Node::filled("subquery_under_not", Kind::Other, "NOT ({})", vec![subquery]),
                _ => subquery,
            });
        }
        found
    }

    /// A subquery that is a truth value.
    pub(crate) fn subquery(&mut self, kind: &str, source: &Source, scope: u32) -> Option<Node> {
        let (table, declared) = self.one(&TABLES);
        let name = self.name();
        let inner: Vec<Column> = declared.iter().map(|(column, of)| Column { sql: format!("{name}.{column}"), of: *of }).collect();
        let below = self.scope();
        let more = self.expression(&inner, Type::Bool, 1, below);
        match kind {
            "exists" => {
                let key = self.column(&source.columns, Type::Text, scope)?;
                let (rule, not) = self.one(&[("exists", ""), ("not_exists", "NOT ")]);
                let template = format!("{not}EXISTS (SELECT 1 FROM {table} AS {name} WHERE {name}.k = {{}} AND {{}})");
                Some(Node::filled(rule, Kind::Other, &template, vec![key, more]))
            }
            "in_subquery" => {
                let of = self.one(&[Type::Int, Type::Text]);
                let (rule, not) = self.one(&[("in_subquery", ""), ("not_in_subquery", "NOT ")]);
                let column = self.column(&inner, of, below)?;
                let value = self.expression(&source.columns, of, 1, scope);
                let template = format!("{{}} {not}IN (SELECT {{}} FROM {table} AS {name} WHERE {{}})");
                Some(Node::filled(rule, Kind::Other, &template, vec![value, column, more]))
            }
            _ => {
                let value = self.expression(&source.columns, Type::Int, 1, scope);
                let column = self.column(&inner, Type::Int, below).unwrap_or_else(|| self.literal(Type::Int, below));
                if let Some(key) = self.column(&source.columns, Type::Text, scope).filter(|_| self.random.random_bool(0.4)) {
                    let template = format!("{{}} >= (SELECT min({{}}) FROM {table} AS {name} WHERE {name}.k = {{}})");
                    return Some(Node::filled("correlated_scalar", Kind::Other, &template, vec![value, column, key]));
                }
                let template = format!("{{}} <= (SELECT max({{}}) FROM {table} AS {name} WHERE {{}})");
                Some(Node::filled("scalar_subquery", Kind::Other, &template, vec![value, column, more]))
            }
        }
    }
}
