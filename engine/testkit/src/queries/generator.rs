//! Chance, and what a case may use. In: a seed. Out: a query's tree.
//!
//! Each case uses a few kinds of clauses only (others are switched off for it), so that rare ones meet often and a query that one
//! unsupported clause would spoil does not have them all.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::queries::tree::{Kind, Node, Type};

/// Kinds of clauses that a case has or has not. What stands here twice is there more often.
pub const CLAUSES: [&str; 37] = [
    "inner_join",
    "left_join",
    "right_join",
    "full_join",
    "cross_join",
    "asof_join",
    "lookup_join",
    "unnest",
    "lateral",
    "exists",
    "in_subquery",
    "scalar_subquery",
    "subquery_item",
    "group_by",
    "group_by",
    "grouping_sets",
    "distinct",
    "distinct_on",
    "union",
    "intersect",
    "except",
    "derived",
    "derived",
    "cte",
    "recursion",
    "values",
    "tumble",
    "hop",
    "cumulate",
    "session",
    "top_n",
    "limit",
    "qualify",
    "over",
    "temporal",
    "nested",
    "json",
];

/// A column that can be named.
#[derive(Debug, Clone)]
pub struct Column {
    pub sql: String,
    pub of: Type,
}

/// Makes one query.
pub struct Generator {
    pub(crate) random: StdRng,
    clauses: BTreeSet<&'static str>,
    names: u32,
    /// Values at the ends of types, which DataFusion wraps around.
    pub(crate) wild: bool,
}

impl Generator {
    pub fn new(seed: u64, wild: bool) -> Generator {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed_0000_0000);
        let count = random.random_range(1..=5);
        let clauses = (0..count).map(|_| CLAUSES[random.random_range(0..CLAUSES.len())]).collect();
        Generator { random, clauses, names: 0, wild }
    }

    /// A query that a view can be made of.
    pub fn query(&mut self) -> Node {
        let depth = self.random.random_range(1..=2);
        self.any_query(depth, None).0
    }

    pub(crate) fn has(&self, clause: &str) -> bool {
        self.clauses.contains(clause)
    }

    /// Whether to use a clause here, if the case has it at all.
    pub(crate) fn uses(&mut self, clause: &str, chance: f64) -> bool {
        self.has(clause) && self.random.random_bool(chance)
    }

    /// The type of a column, nested only where the case has such.
    pub(crate) fn any_type(&mut self) -> Type {
        if self.uses("json", 0.3) {
            return Type::Json;
        }
        if self.uses("nested", 0.4) { self.one(&Type::NESTED) } else { self.one(&Type::SCALARS) }
    }

    pub(crate) fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    pub(crate) fn scope(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())].clone()
    }

    pub(crate) fn chance(&mut self, chance: f64) -> bool {
        self.random.random_bool(chance)
    }

    pub(crate) fn column(&mut self, columns: &[Column], of: Type, scope: u32) -> Option<Node> {
        let fitting: Vec<&Column> = columns.iter().filter(|column| column.of == of).collect();
        if fitting.is_empty() {
            return None;
        }
        let column = fitting[self.random.random_range(0..fitting.len())];
        Some(Node::filled("column", Kind::Expr(of, scope), &column.sql, Vec::new()))
    }
}
