//! Queries. In: depth and, for parts of set operations, the types of the columns. Out: a tree whose columns are c0, c1, ….

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::tree::{Kind, List, Node, Part, Type};

/// The tables of every case with their columns; the last one is the event time.
const TABLES: [(&str, &[(&str, Type)]); 3] = [
    ("plain", &[("id", Type::Int), ("k", Type::Text), ("g", Type::Int), ("x", Type::Double), ("ts", Type::Time)]),
    ("changing", &[("k", Type::Text), ("h", Type::Int), ("n", Type::Int), ("y", Type::Double), ("flag", Type::Bool), ("at", Type::Time)]),
    ("keyed", &[("k", Type::Text), ("r", Type::Int), ("z", Type::Double), ("w", Type::Time)]),
];

const SET_OPERATIONS: [(&str, &str, &str); 6] = [
    ("union", "union_all", "({}) UNION ALL ({})"),
    ("union", "union_distinct", "({}) UNION ({})"),
    ("intersect", "intersect", "({}) INTERSECT ({})"),
    ("intersect", "intersect_all", "({}) INTERSECT ALL ({})"),
    ("except", "except", "({}) EXCEPT ({})"),
    ("except", "except_all", "({}) EXCEPT ALL ({})"),
];

const JOINS: [(&str, &str); 5] = [
    ("inner_join", " JOIN {}"),
    ("left_join", " LEFT JOIN {}"),
    ("right_join", " RIGHT JOIN {}"),
    ("full_join", " FULL JOIN {}"),
    ("cross_join", " CROSS JOIN {}"),
];

/// What a SELECT reads.
struct Source {
    columns: Vec<Column>,
    /// Time columns of base tables, which may be compared with now().
    times: Vec<String>,
}

impl Generator {
    pub(crate) fn any_query(&mut self, depth: usize, wanted: Option<Vec<Type>>) -> (Node, Vec<Type>) {
        let open = wanted.is_none();
        let types = wanted.unwrap_or_else(|| (0..self.random.random_range(1..=4)).map(|_| self.one(&Type::ALL)).collect());
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
            let below = self.any_query(depth - 1, Some(types.clone())).0;
            let limit = self.random.random_range(1..=4);
            let offset = self.one(&["", "", " OFFSET 1"]);
            let template = format!("SELECT * FROM ({{}}) AS {} ORDER BY {} LIMIT {limit}{offset}", self.name(), self.total_order(types.len()));
            return (Node::filled("limit", Kind::Query(types.clone()), &template, vec![below]), types);
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

    /// By all columns, so that no two different rows are equal.
    fn total_order(&mut self, columns: usize) -> String {
        let direction = |generator: &mut Generator| generator.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        (0..columns).map(|column| format!("c{column}{}", direction(self))).collect::<Vec<_>>().join(", ")
    }

    fn top_n(&mut self, depth: usize, types: &[Type]) -> Node {
        let below = self.any_query(depth - 1, Some(types.to_vec())).0;
        let (rule, function) = self.one(&[("row_number", "row_number()"), ("rank", "rank()"), ("dense_rank", "dense_rank()")]);
        let partition = if self.chance(0.7) { "PARTITION BY c0 " } else { "" };
        let order = self.total_order(types.len());
        let columns = (0..types.len()).map(|column| format!("c{column}")).collect::<Vec<_>>().join(", ");
        let (inner, outer) = (self.name(), self.name());
        let limit = self.random.random_range(1..=3);
        let template = format!(
            "SELECT {columns} FROM (SELECT *, {function} OVER ({partition}ORDER BY {order}) AS place FROM ({{}}) AS {inner}) AS {outer} WHERE place <= {limit}"
        );
        Node::filled(rule, Kind::Query(types.to_vec()), &template, vec![below])
    }

    fn over(&mut self, depth: usize, mut types: Vec<Type>) -> (Node, Vec<Type>) {
        let below = self.any_query(depth - 1, Some(types.clone())).0;
        let functions = [
            ("over_count", "count(*)", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"),
            ("over_running", "count(*)", " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"),
            ("over_row_number", "row_number()", ""),
            ("over_rank", "rank()", ""),
        ];
        let (rule, function, frame) = self.one(&functions);
        let order = self.total_order(types.len());
        let columns = (0..types.len()).map(|column| format!("c{column}")).collect::<Vec<_>>().join(", ");
        let template =
            format!("SELECT {columns}, {function} OVER (PARTITION BY c0 ORDER BY {order}{frame}) AS c{} FROM ({{}}) AS {}", types.len(), self.name());
        types.push(Type::Int);
        (Node::filled(rule, Kind::Query(types.clone()), &template, vec![below]), types)
    }

    fn relation(&mut self, depth: usize) -> (Node, Source) {
        let name = self.name();
        if depth > 0 && self.uses("derived", 0.7) {
            let (below, types) = self.any_query(depth - 1, None);
            let columns = types.iter().enumerate().map(|(index, of)| Column { sql: format!("{name}.c{index}"), of: *of }).collect();
            return (Node::filled("derived", Kind::Other, &format!("({{}}) AS {name}"), vec![below]), Source { columns, times: Vec::new() });
        }
        let (table, declared) = self.one(&TABLES);
        let mut columns: Vec<Column> = declared.iter().map(|(column, of)| Column { sql: format!("{name}.{column}"), of: *of }).collect();
        let time = declared[declared.len() - 1].0;
        let window = |size: &str| (format!("{table}, {time}, {size}"), ["window_start", "window_end"]);
        let windowed = if self.uses("tumble", 0.8) {
            Some(("tumble", "TUMBLE", window("INTERVAL '10 seconds'")))
        } else if self.uses("hop", 0.8) {
            Some(("hop", "HOP", window("INTERVAL '5 seconds', INTERVAL '15 seconds'")))
        } else {
            None
        };
        let Some((rule, function, (arguments, added))) = windowed else {
            let times = vec![format!("{name}.{time}")];
            return (Node::filled("table", Kind::Other, &format!("{table} AS {name}"), Vec::new()), Source { columns, times });
        };
        columns.extend(added.iter().map(|column| Column { sql: format!("{name}.{column}"), of: Type::Time }));
        (Node::filled(rule, Kind::Other, &format!("{function}({arguments}) AS {name}"), Vec::new()), Source { columns, times: Vec::new() })
    }

    fn select(&mut self, depth: usize, types: &[Type]) -> Node {
        let scope = self.scope();
        let (first, mut source) = self.relation(depth);
        let mut joins = Vec::new();
        for (rule, template) in JOINS {
            if joins.len() < 2 && self.uses(rule, 0.8) {
                let (right, joined) = self.relation(depth.saturating_sub(1));
                joins.push(self.join(rule, template, (right, &source, &joined), scope));
                source.columns.extend(joined.columns);
                source.times.extend(joined.times);
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
        let (items, tail) = if group { self.grouped(&source, types, scope) } else { (self.items(&source, types, scope), Vec::new()) };
        let distinct = self.uses("distinct", 0.7);
        let mut parts = vec![
            Part::List(List { open: if distinct { "SELECT DISTINCT " } else { "SELECT " }, separator: ", ", min: items.len(), items }),
            Part::Text(" FROM ".into()),
            Part::Node(first),
            Part::List(List { open: "", separator: "", items: joins, min: 0 }),
            Part::List(List { open: " WHERE ", separator: " AND ", items: conditions, min: 0 }),
        ];
        parts.extend(tail);
        Node::new(if distinct { "distinct" } else { "select" }, Kind::Query(types.to_vec()), parts)
    }

    fn items(&mut self, source: &Source, types: &[Type], scope: u32) -> Vec<Node> {
        let item = |(index, of): (usize, &Type)| {
            let expression = self.expression(&source.columns, *of, 2, scope);
            Node::filled("", Kind::Other, &format!("{{}} AS c{index}"), vec![expression])
        };
        types.iter().enumerate().map(item).collect()
    }

    fn join(&mut self, rule: &'static str, template: &str, (right, left, joined): (Node, &Source, &Source), scope: u32) -> Node {
        let mut parts = match template.split_once("{}") {
            Some((before, after)) => vec![Part::Text(before.into()), Part::Node(right), Part::Text(after.into())],
            None => vec![Part::Text(template.into())],
        };
        if rule != "cross_join" {
            let mut conditions = Vec::new();
            let of = self.one(&[Type::Text, Type::Int]);
            if let (Some(a), Some(b)) = (self.column(&left.columns, of, scope), self.column(&joined.columns, of, scope)) {
                let (rule, template) = if self.chance(0.1) { ("nulls_equal", "{} IS NOT DISTINCT FROM {}") } else { ("equi_join", "{} = {}") };
                conditions.push(Node::filled(rule, Kind::Other, template, vec![a, b]));
            }
            if conditions.is_empty() || self.chance(0.3) {
                let both: Vec<Column> = left.columns.iter().chain(&joined.columns).cloned().collect();
                let residual = self.expression(&both, Type::Bool, 1, scope);
                conditions.push(Node::filled("residual", Kind::Other, "{}", vec![residual]));
            }
            parts.push(Part::List(List { open: " ON ", separator: " AND ", items: conditions, min: 1 }));
        }
        Node::new(rule, Kind::Other, parts)
    }

    /// now() against the time of a table: one edge or both.
    fn temporal(&mut self, source: &Source) -> Vec<Node> {
        let time = self.one(&source.times);
        let comparison = self.one(&[">", ">="]);
        let lower = Node::filled("temporal", Kind::Other, &format!("{time} {comparison} now() - INTERVAL '20 seconds'"), Vec::new());
        let upper = Node::filled("temporal", Kind::Other, &format!("{time} <= now() - INTERVAL '3 seconds'"), Vec::new());
        match self.random.random_range(0..3) {
            0 => vec![lower],
            1 => vec![upper],
            _ => vec![lower, upper],
        }
    }

    fn subqueries(&mut self, source: &Source, scope: u32) -> Vec<Node> {
        let mut found = Vec::new();
        let (table, declared) = self.one(&TABLES);
        let name = self.name();
        let inner: Vec<Column> = declared.iter().map(|(column, of)| Column { sql: format!("{name}.{column}"), of: *of }).collect();
        let below = self.scope();
        let condition = |generator: &mut Generator| generator.expression(&inner, Type::Bool, 1, below);
        if self.uses("exists", 0.9)
            && let Some(key) = self.column(&source.columns, Type::Text, scope)
        {
            let (rule, not) = self.one(&[("exists", ""), ("not_exists", "NOT ")]);
            let template = format!("{not}EXISTS (SELECT 1 FROM {table} AS {name} WHERE {name}.k = {{}} AND {{}})");
            let more = condition(self);
            found.push(Node::filled(rule, Kind::Other, &template, vec![key, more]));
        }
        if self.uses("in_subquery", 0.9) {
            let of = self.one(&[Type::Int, Type::Text]);
            let (rule, not) = self.one(&[("in_subquery", ""), ("not_in_subquery", "NOT ")]);
            if let Some(column) = self.column(&inner, of, below) {
                let value = self.expression(&source.columns, of, 1, scope);
                let template = format!("{{}} {not}IN (SELECT {{}} FROM {table} AS {name} WHERE {{}})");
                let more = condition(self);
                found.push(Node::filled(rule, Kind::Other, &template, vec![value, column, more]));
            }
        }
        if self.uses("scalar_subquery", 0.9) {
            let value = self.expression(&source.columns, Type::Int, 1, scope);
            let column = self.column(&inner, Type::Int, below).unwrap_or_else(|| self.literal(Type::Int, below));
            if let Some(key) = self.column(&source.columns, Type::Text, scope).filter(|_| self.random.random_bool(0.4)) {
                let template = format!("{{}} >= (SELECT min({{}}) FROM {table} AS {name} WHERE {name}.k = {{}})");
                found.push(Node::filled("correlated_scalar", Kind::Other, &template, vec![value, column, key]));
            } else {
                let template = format!("{{}} <= (SELECT max({{}}) FROM {table} AS {name} WHERE {{}})");
                let more = condition(self);
                found.push(Node::filled("scalar_subquery", Kind::Other, &template, vec![value, column, more]));
            }
        }
        found
    }

    /// The items and what follows WHERE.
    fn grouped(&mut self, source: &Source, types: &[Type], scope: u32) -> (Vec<Node>, Vec<Part>) {
        let inner = self.scope();
        let mut keys: Vec<(Type, Node)> = Vec::new();
        for _ in 0..self.random.random_range(0..=2) {
            let of = self.one(&[Type::Text, Type::Int, Type::Bool, Type::Time]);
            let depth = usize::from(self.chance(0.3));
            // A constant in GROUP BY would be the number of a column.
            if let Some(column) = self.column(&source.columns, of, inner) {
                let key = if depth == 0 { column } else { self.expression(&source.columns, of, 1, inner) };
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
            let (rule, template) = self.one(&[
                ("rollup", " GROUP BY ROLLUP ({}, {})"),
                ("cube", " GROUP BY CUBE ({}, {})"),
                ("grouping_sets", " GROUP BY GROUPING SETS (({}), ({}), ())"),
            ]);
            tail.push(Part::Node(Node::filled(rule, Kind::Other, template, keys)));
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
