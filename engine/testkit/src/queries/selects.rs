//! Queries. In: depth and, for parts of set operations, the types of the columns. Out: a tree whose columns are c0, c1, ….

use rand::Rng;

use crate::queries::generator::Generator;
use crate::queries::relations::{JOINS, Source};
use crate::queries::tree::{Kind, List, Node, Part, Type};

const SET_OPERATIONS: [(&str, &str, &str); 6] = [
    ("union", "union_all", "({}) UNION ALL ({})"),
    ("union", "union_distinct", "({}) UNION ({})"),
    ("intersect", "intersect", "({}) INTERSECT ({})"),
    ("intersect", "intersect_all", "({}) INTERSECT ALL ({})"),
    ("except", "except", "({}) EXCEPT ({})"),
    ("except", "except_all", "({}) EXCEPT ALL ({})"),
];

impl Generator {
    pub(crate) fn any_query(&mut self, depth: usize, wanted: Option<Vec<Type>>) -> (Node, Vec<Type>) {
        let open = wanted.is_none();
        let types = wanted.unwrap_or_else(|| (0..self.random.random_range(1..=4)).map(|_| self.any_type()).collect());
        if depth == 0 {
            return (self.select(0, &types), types);
        }
        let possible: Vec<_> = SET_OPERATIONS.iter().filter(|operation| self.has(operation.0)).copied().collect();
        if !possible.is_empty() && self.chance(0.7) {
            let (_, rule, template) = self.one(&possible);
            let (left, right) = (self.any_query(depth - 1, Some(types.clone())).0, self.any_query(depth - 1, Some(types.clone())).0);
            return (Node::filled(rule, Kind::Query(types.clone()), template, vec![left, right]), types);
        }
        if self.uses("top_n", 0.7) {
            return (self.top_n(depth, &types), types);
        }
        if self.uses("limit", 0.7) {
            return (self.limit(depth, &types), types);
        }
        if open && self.uses("over", 0.8) {
            return self.over(depth, types);
        }
        if self.uses("cte", 0.7) {
            let below = self.any_query(depth - 1, Some(types.clone())).0;
            let name = self.name();
            let template = format!("WITH {name} AS ({{}}) SELECT a.* FROM {name} AS a JOIN {name} AS b ON a.c0 = b.c0");
            return (Node::filled("cte", Kind::Query(types.clone()), &template, vec![below]), types);
        }
        (self.select(depth, &types), types)
    }

    fn select(&mut self, depth: usize, types: &[Type]) -> Node {
        let scope = self.scope();
        let (first, mut source) = self.relation(depth);
        let mut joins = Vec::new();
        for join in JOINS {
            if joins.len() < 2 && self.uses(join.0, 0.8) {
                joins.extend(self.join(join, depth.saturating_sub(1), &mut source, scope));
            }
        }
        let mut conditions = Vec::new();
        for _ in 0..self.random.random_range(0..=2) {
            conditions.push(self.expression(&source.columns, Type::Bool, 2, scope));
        }
        conditions.extend(self.subqueries(&source, scope));
        if self.uses("temporal", 0.9) && !source.times.is_empty() {
            conditions.extend(self.temporal(&source));
        }
        let group = self.uses("group_by", 0.8) || self.uses("grouping_sets", 0.8);
        let (items, mut tail) = if group { self.grouped(&source, types, scope) } else { (self.items(&source, types, scope), Vec::new()) };
        let (mut rule, mut quantifier) = ("select", String::new());
        if !group && self.uses("qualify", 0.8) {
            tail.extend(self.qualify(&source.columns, scope).map(Part::Node));
        } else if !group
            && self.uses("distinct_on", 0.8)
            && let Some((on, order)) = self.distinct_on(&source.columns, scope)
        {
            (rule, quantifier) = ("distinct_on", on);
            tail.push(Part::Text(order));
        } else if self.uses("distinct", 0.7) {
            (rule, quantifier) = ("distinct", "DISTINCT ".into());
        }
        let mut parts = vec![
            Part::Text(format!("SELECT {quantifier}")),
            Part::List(List { open: "", separator: ", ", min: items.len(), items }),
            Part::Text(" FROM ".into()),
            Part::Node(first),
            Part::List(List { open: "", separator: "", items: joins, min: 0 }),
            Part::List(List { open: " WHERE ", separator: " AND ", items: conditions, min: 0 }),
        ];
        parts.extend(tail);
        Node::new(rule, Kind::Query(types.to_vec()), parts)
    }

    fn items(&mut self, source: &Source, types: &[Type], scope: u32) -> Vec<Node> {
        let item = |(index, of): (usize, &Type)| {
            let subquery = if *of == Type::Bool && self.uses("subquery_item", 0.8) {
                let kind = self.one(&["exists", "in_subquery", "scalar_subquery"]);
                self.subquery(kind, source, scope).map(|subquery| Node::filled("subquery_item", Kind::Other, "({})", vec![subquery]))
            } else {
                None
            };
            let expression = subquery.unwrap_or_else(|| self.expression(&source.columns, *of, 2, scope));
            Node::filled("", Kind::Other, &format!("{{}} AS c{index}"), vec![expression])
        };
        types.iter().enumerate().map(item).collect()
    }

    /// The items and what follows WHERE.
    fn grouped(&mut self, source: &Source, types: &[Type], scope: u32) -> (Vec<Node>, Vec<Part>) {
        let inner = self.scope();
        let mut keys: Vec<(Type, Node)> = Vec::new();
        // With both its bounds a window is whole.
        if !source.windows.is_empty() && self.chance(0.6) {
            let bound = |column: &String| (Type::Time, Node::filled("window_bound", Kind::Other, column, Vec::new()));
            keys.extend(source.windows[..2].iter().map(bound));
        }
        for _ in 0..self.random.random_range(0..=2) {
            let of = if self.uses("nested", 0.3) {
                self.one(&[Type::List, Type::Struct])
            } else {
                self.one(&[Type::Text, Type::Int, Type::Bool, Type::Time])
            };
            let depth = usize::from(self.chance(0.3));
            // A constant in GROUP BY would be the number of a column.
            let column = self.column(&source.columns, of, inner);
            if column.is_some() || Type::NESTED.contains(&of) {
                let key = column.filter(|_| depth == 0).unwrap_or_else(|| self.expression(&source.columns, of, 1, inner));
                if !key.rules().contains("literal") && !keys.iter().any(|(_, known)| known.sql() == key.sql()) {
                    keys.push((of, key));
                }
            }
        }
        let mut items = Vec::new();
        for (index, of) in types.iter().enumerate() {
            let fitting: Vec<Node> = keys.iter().filter(|(key, _)| key == of).map(|(_, node)| node.clone()).collect();
            let value = if fitting.is_empty() || self.chance(0.4) { self.aggregate(&source.columns, *of, scope) } else { self.one(&fitting) };
            items.push(Node::filled("group_by", Kind::Other, &format!("{{}} AS c{index}"), vec![value]));
        }
        let keys: Vec<Node> = keys.into_iter().map(|(_, key)| key).collect();
        let mut tail = Vec::new();
        if keys.len() > 1 && self.has("grouping_sets") {
            let (rule, open, close) = self.one(&[
                ("rollup", " GROUP BY ROLLUP (", ")"),
                ("cube", " GROUP BY CUBE (", ")"),
                ("grouping_sets", " GROUP BY GROUPING SETS ((", "), ())"),
            ]);
            let separator = if rule == "grouping_sets" { "), (" } else { ", " };
            let parts = vec![Part::List(List { open, separator, min: keys.len(), items: keys }), Part::Text(close.into())];
            tail.push(Part::Node(Node::new(rule, Kind::Other, parts)));
        } else {
            tail.push(Part::List(List { open: " GROUP BY ", separator: ", ", items: keys, min: 0 }));
        }
        if self.chance(0.25) {
            let count = self.random.random_range(0..=2);
            let having = Node::filled("having", Kind::Other, &format!("count(*) > {count}"), Vec::new());
            tail.push(Part::List(List { open: " HAVING ", separator: " AND ", items: vec![having], min: 0 }));
        }
        (items, tail)
    }
}
