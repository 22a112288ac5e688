//! What stands after FROM: tables, windows over them, derived tables, recursions, joins. In: depth. Out: a tree and the columns in scope.

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::tree::{Kind, List, Node, Part, Type};

/// The tables of every case with their columns; the last one is the event time.
pub(crate) const TABLES: [(&str, &[(&str, Type)]); 3] = [
    ("plain", &[("id", Type::Int), ("k", Type::Text), ("g", Type::Int), ("x", Type::Double), ("ts", Type::Time)]),
    ("changing", &[("k", Type::Text), ("h", Type::Int), ("n", Type::Int), ("y", Type::Double), ("flag", Type::Bool), ("at", Type::Time)]),
    ("keyed", &[("k", Type::Text), ("r", Type::Int), ("z", Type::Double), ("w", Type::Time)]),
];

pub(crate) const JOINS: [(&str, &str); 9] = [
    ("inner_join", " JOIN {}"),
    ("left_join", " LEFT JOIN {}"),
    ("right_join", " RIGHT JOIN {}"),
    ("full_join", " FULL JOIN {}"),
    ("cross_join", " CROSS JOIN {}"),
    ("asof_join", ""),
    ("lookup_join", ""),
    ("unnest", ""),
    ("lateral", ""),
];

const WINDOWS: [(&str, &str, &str); 4] = [
    ("tumble", "TUMBLE", "INTERVAL '10 seconds'"),
    ("hop", "HOP", "INTERVAL '5 seconds', INTERVAL '15 seconds'"),
    ("cumulate", "CUMULATE", "INTERVAL '5 seconds', INTERVAL '15 seconds'"),
    ("session", "SESSION", "INTERVAL '3 seconds'"),
];

/// What a SELECT reads.
#[derive(Default)]
pub(crate) struct Source {
    pub columns: Vec<Column>,
    /// Time columns of base tables, which may be compared with now().
    pub times: Vec<String>,
    /// Start and end of windows.
    pub windows: Vec<String>,
}

fn columns_of(name: &str, declared: &[(&str, Type)]) -> Vec<Column> {
    declared.iter().map(|(column, of)| Column { sql: format!("{name}.{column}"), of: *of }).collect()
}

impl Generator {
    pub(crate) fn relation(&mut self, depth: usize) -> (Node, Source) {
        let window = WINDOWS.iter().copied().find(|window| self.uses(window.0, 0.8));
        let name = self.name();
        if depth > 0 && self.uses("derived", 0.7) {
            let (below, types) = self.any_query(depth - 1, None);
            let columns = |name: &str| types.iter().enumerate().map(|(index, of)| Column { sql: format!("{name}.c{index}"), of: *of }).collect();
            let time = types.iter().position(|of| *of == Type::Time).map(|index| format!("c{index}"));
            if let (Some(window), Some(time)) = (window, time) {
                return self.windowed(window, ("({})", vec![below], &time), columns(&name), name);
            }
            return (
                Node::filled("derived", Kind::Other, &format!("({{}}) AS {name}"), vec![below]),
                Source { columns: columns(&name), ..Source::default() },
            );
        }
        if window.is_none() && self.uses("recursion", 0.7) {
            return self.recursion();
        }
        if window.is_none() && self.uses("values", 0.5) {
            let template = format!("(VALUES (1, 'k1'), (2, NULL), (2, 'k2'), (NULL, '')) AS {name}(a, b)");
            let columns = columns_of(&name, &[("a", Type::Int), ("b", Type::Text)]);
            return (Node::filled("values", Kind::Other, &template, Vec::new()), Source { columns, ..Source::default() });
        }
        let (table, declared) = self.one(&TABLES);
        let time = declared[declared.len() - 1].0;
        let columns = columns_of(&name, declared);
        match window {
            Some(window) => self.windowed(window, (table, Vec::new(), time), columns, name),
            None => {
                let times = vec![format!("{name}.{time}")];
                (Node::filled("table", Kind::Other, &format!("{table} AS {name}"), Vec::new()), Source { columns, times, windows: Vec::new() })
            }
        }
    }

    fn windowed(
        &mut self,
        (rule, function, sizes): (&'static str, &str, &str),
        (input, below, time): (&str, Vec<Node>, &str),
        mut columns: Vec<Column>,
        name: String,
    ) -> (Node, Source) {
        let keyed = rule == "session" && below.is_empty() && self.chance(0.5);
        let template = match keyed {
            true => format!("TABLE(SESSION(TABLE {input} PARTITION BY k, DESCRIPTOR({time}), {sizes})) AS {name}"),
            false => format!("{function}({input}, {time}, {sizes}) AS {name}"),
        };
        let windows = vec![format!("{name}.window_start"), format!("{name}.window_end")];
        columns.extend(windows.iter().map(|column| Column { sql: column.clone(), of: Type::Time }));
        (Node::filled(rule, Kind::Other, &template, below), Source { columns, windows, ..Source::default() })
    }

    /// Pairs along which one gets from one number to another; rows that differ are so few that there is an end.
    fn recursion(&mut self) -> (Node, Source) {
        let (name, found, base, next) = (self.name(), self.name(), self.name(), self.name());
        let (table, from, to, declared) =
            self.one(&[("plain", "g", "id", TABLES[0].1), ("changing", "h", "n", TABLES[1].1), ("changing", "n", "h", TABLES[1].1)]);
        let mut condition = |of: &str| {
            let scope = self.scope();
            self.expression(&columns_of(of, declared), Type::Bool, 1, scope)
        };
        let conditions = vec![condition(&base), condition(&next)];
        let number = |of: &str, column: &str| format!("CAST({of}.{column} AS BIGINT)");
        let (first, start, second) = (number(&base, from), number(&base, to), number(&next, to));
        // Each row once to begin with: what counts its rows multiplies them in every round.
        let (rule, all, depth, deeper, limit) = match self.chance(0.3) {
            true => ("recursion_all", " ALL", ", CAST(1 AS BIGINT)", format!(", {found}.d + 1"), format!(" AND {found}.d < 2")),
            false => ("recursion", "", "", String::new(), String::new()),
        };
        let names = if all.is_empty() { "a, b" } else { "a, b, d" };
        let template = format!(
            "(WITH RECURSIVE {found}({names}) AS (SELECT DISTINCT {first}, {start}{depth} FROM {table} AS {base} WHERE {{}} UNION{all} \
             SELECT {found}.a, {second}{deeper} FROM {found} JOIN {table} AS {next} ON {found}.b = {next}.{from}{limit} AND {{}}) SELECT * FROM {found}) AS {name}"
        );
        let columns = columns_of(&name, &[("a", Type::Int), ("b", Type::Int)]);
        (Node::filled(rule, Kind::Other, &template, conditions), Source { columns, ..Source::default() })
    }

    /// One more relation beside those in `source`.
    pub(crate) fn join(&mut self, (rule, template): (&'static str, &str), depth: usize, source: &mut Source, scope: u32) -> Option<Node> {
        match rule {
            "asof_join" => self.asof_join(depth, source, scope),
            "lookup_join" => self.lookup_join(source, scope),
            "unnest" => Some(self.unnest(source, scope)),
            "lateral" => self.lateral(source, scope),
            _ => {
                let (right, joined) = self.relation(depth);
                let node = self.condition_join((rule, template), right, (source, &joined), scope);
                source.columns.extend(joined.columns);
                source.times.extend(joined.times);
                source.windows.extend(joined.windows);
                Some(node)
            }
        }
    }

    fn condition_join(&mut self, (rule, template): (&'static str, &str), right: Node, (left, joined): (&Source, &Source), scope: u32) -> Node {
        let (before, after) = template.split_once("{}").unwrap_or((template, ""));
        let mut parts = vec![Part::Text(before.into()), Part::Node(right), Part::Text(after.into())];
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

    fn asof_join(&mut self, depth: usize, source: &mut Source, scope: u32) -> Option<Node> {
        let (right, joined) = self.relation(depth);
        let of = if self.chance(0.8) { Type::Time } else { Type::Int };
        let times = (self.column(&source.columns, of, scope)?, self.column(&joined.columns, of, scope)?);
        let keys = (self.column(&source.columns, Type::Text, scope)?, self.column(&joined.columns, Type::Text, scope)?);
        let (rule, join) = self.one(&[("asof_join", "ASOF JOIN"), ("left_asof_join", "LEFT ASOF JOIN")]);
        let comparison = self.one(&[">=", ">", "<=", "<"]);
        let template = format!(" {join} {{}} MATCH_CONDITION ({{}} {comparison} {{}}) ON {{}} = {{}}");
        source.columns.extend(joined.columns);
        Some(Node::filled(rule, Kind::Other, &template, vec![right, times.0, times.1, keys.0, keys.1]))
    }

    fn lookup_join(&mut self, source: &mut Source, scope: u32) -> Option<Node> {
        let (table, declared) = self.one(&TABLES);
        let name = self.name();
        let key = self.column(&source.columns, Type::Text, scope)?;
        let join = self.one(&["JOIN", "LEFT JOIN"]);
        let template = format!(" {join} {table} FOR SYSTEM_TIME AS OF now() AS {name} ON {name}.k = {{}}");
        source.columns.extend(columns_of(&name, declared));
        Some(Node::filled("lookup_join", Kind::Other, &template, vec![key]))
    }

    fn unnest(&mut self, source: &mut Source, scope: u32) -> Node {
        let name = self.name();
        let elements = if self.has("nested") { vec![self.expression(&source.columns, Type::List, 1, scope)] } else { Vec::new() };
        let (template, elements) = match elements.is_empty() {
            false => ("{}", elements),
            true => (
                "make_array({}, {})",
                vec![self.expression(&source.columns, Type::Int, 1, scope), self.expression(&source.columns, Type::Int, 1, scope)],
            ),
        };
        source.columns.extend(columns_of(&name, &[("x", Type::Int)]));
        Node::filled("unnest", Kind::Other, &format!(" CROSS JOIN UNNEST({template}) AS {name}(x)"), elements)
    }

    fn lateral(&mut self, source: &mut Source, scope: u32) -> Option<Node> {
        let (name, inner) = (self.name(), self.name());
        let key = self.column(&source.columns, Type::Text, scope)?;
        let (table, declared) = self.one(&TABLES);
        let (number, time) = (declared[1..].iter().find(|column| column.1 == Type::Int)?.0, declared[declared.len() - 1].0);
        let limit = self.random.random_range(1..=2);
        let (join, after) = self.one(&[("CROSS JOIN", ""), ("LEFT JOIN", " ON TRUE")]);
        let (rule, body) = match self.chance(0.6) {
            true => (
                "lateral_limit",
                format!(
                    "SELECT {inner}.{number} AS a, {inner}.{time} AS b FROM {table} AS {inner} WHERE {inner}.k = {{}} ORDER BY {inner}.{time} DESC, {inner}.{number} LIMIT {limit}"
                ),
            ),
            false => {
                ("lateral", format!("SELECT max({inner}.{number}) AS a, max({inner}.{time}) AS b FROM {table} AS {inner} WHERE {inner}.k = {{}}"))
            }
        };
        source.columns.extend(columns_of(&name, &[("a", Type::Int), ("b", Type::Time)]));
        Some(Node::filled(rule, Kind::Other, &format!(" {join} LATERAL ({body}) AS {name}{after}"), vec![key]))
    }
}
