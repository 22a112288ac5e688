//! Rows in order: tops, LIMIT, QUALIFY, DISTINCT ON, OVER. In: a query below. Out: a query of its rows.

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::tree::{Kind, Node, Type};

/// A function over rows in order: its rule, text, the type it takes, its own, and whether it has a frame.
type Over = (&'static str, &'static str, Option<Type>, Type, bool);

const OVERS: [Over; 21] = [
    ("over_count", "count(*)", None, Type::Int, true),
    ("over_count", "count({})", Some(Type::Text), Type::Int, true),
    ("over_sum", "sum({})", Some(Type::Int), Type::Int, true),
    ("over_sum", "sum({})", Some(Type::Double), Type::Double, true),
    ("over_avg", "avg({})", Some(Type::Int), Type::Double, true),
    ("over_min", "min({})", Some(Type::Int), Type::Int, true),
    ("over_min", "min({})", Some(Type::Time), Type::Time, true),
    ("over_max", "max({})", Some(Type::Text), Type::Text, true),
    ("over_max", "max({})", Some(Type::Double), Type::Double, true),
    ("over_row_number", "row_number()", None, Type::Int, false),
    ("over_rank", "rank()", None, Type::Int, false),
    ("over_dense_rank", "dense_rank()", None, Type::Int, false),
    ("over_percent_rank", "percent_rank()", None, Type::Double, false),
    ("over_cume_dist", "cume_dist()", None, Type::Double, false),
    ("over_lag", "lag({})", Some(Type::Int), Type::Int, false),
    ("over_lag", "lag({}, 2)", Some(Type::Text), Type::Text, false),
    ("over_lead", "lead({})", Some(Type::Time), Type::Time, false),
    ("over_lead", "lead({}, 1)", Some(Type::Double), Type::Double, false),
    ("over_first_value", "first_value({})", Some(Type::Int), Type::Int, true),
    ("over_last_value", "last_value({})", Some(Type::Text), Type::Text, true),
    ("over_nth_value", "nth_value({}, 2)", Some(Type::Int), Type::Int, true),
];

/// Under an order of all columns. The empty one is RANGE from the start to the current row.
const FRAMES: [(&str, &str); 7] = [
    ("", ""),
    ("frame_rows", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"),
    ("frame_rows", " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING"),
    ("frame_rows_ahead", " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING"),
    ("frame_whole", " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"),
    ("frame_range_running", " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"),
    ("frame_groups", " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING"),
];

fn list(columns: usize) -> String {
    (0..columns).map(|column| format!("c{column}")).collect::<Vec<_>>().join(", ")
}

impl Generator {
    fn direction(&mut self) -> &'static str {
        self.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
    }

    /// By all columns, so that no two different rows are equal.
    pub(crate) fn total_order(&mut self, columns: usize) -> String {
        (0..columns).map(|column| format!("c{column}{}", self.direction())).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn limit(&mut self, depth: usize, types: &[Type]) -> Node {
        let below = self.any_query(depth - 1, Some(types.to_vec())).0;
        let limit = self.random.random_range(1..=4);
        let offset = self.one(&["", "", " OFFSET 1"]);
        // Ties are then decided by the rest of the row.
        let columns = if self.chance(0.3) { 1 } else { types.len() };
        let template = format!("SELECT * FROM ({{}}) AS {} ORDER BY {} LIMIT {limit}{offset}", self.name(), self.total_order(columns));
        Node::filled("limit", Kind::Query(types.to_vec()), &template, vec![below])
    }

    pub(crate) fn top_n(&mut self, depth: usize, types: &[Type]) -> Node {
        let below = self.any_query(depth - 1, Some(types.to_vec())).0;
        let (rule, function) = self.one(&[("row_number", "row_number()"), ("rank", "rank()"), ("dense_rank", "dense_rank()")]);
        let partition = if self.chance(0.7) { "PARTITION BY c0 " } else { "" };
        let order = if self.chance(0.3) { self.total_order(1) } else { self.total_order(types.len()) };
        let columns = list(types.len());
        let (inner, outer) = (self.name(), self.name());
        let limit = self.random.random_range(1..=3);
        let template = format!(
            "SELECT {columns} FROM (SELECT *, {function} OVER ({partition}ORDER BY {order}) AS place FROM ({{}}) AS {inner}) AS {outer} WHERE place <= {limit}"
        );
        Node::filled(rule, Kind::Query(types.to_vec()), &template, vec![below])
    }

    /// The columns of a query, and one more.
    pub(crate) fn over(&mut self, depth: usize, mut types: Vec<Type>) -> (Node, Vec<Type>) {
        let below = self.any_query(depth - 1, Some(types.clone())).0;
        let column = |of: Type, types: &[Type]| types.iter().position(|known| *known == of).map(|index| format!("c{index}"));
        let possible: Vec<Over> = OVERS.iter().filter(|over| over.2.is_none_or(|of| types.contains(&of))).copied().collect();
        let (rule, function, takes, gives, framed) = self.one(&possible);
        let call = function.replace("{}", &takes.and_then(|of| column(of, &types)).unwrap_or_default());
        let ranged = column(Type::Time, &types).map(|time| (time, "INTERVAL '5 seconds'")).or(column(Type::Int, &types).map(|number| (number, "1")));
        let peers = matches!(rule, "over_count" | "over_sum" | "over_min" | "over_max" | "over_avg");
        let (frame_rule, order) = match ranged {
            Some((by, width)) if peers && !self.wild && self.chance(0.35) => {
                let (from, to) = self.one(&[("PRECEDING", "CURRENT ROW".to_string()), ("PRECEDING", format!("{width} FOLLOWING"))]);
                ("frame_range", format!("{by}{} RANGE BETWEEN {width} {from} AND {to}", self.direction()))
            }
            _ => {
                let (frame_rule, frame) = if framed { self.one(&FRAMES) } else { ("", "") };
                // Without a frame of rows peers are one, whatever their order.
                let columns = if peers && !frame.contains("ROWS") && self.chance(0.3) { 1 } else { types.len() };
                (frame_rule, format!("{}{frame}", self.total_order(columns)))
            }
        };
        let partition = if self.chance(0.8) { "PARTITION BY c0 " } else { "" };
        let template =
            format!("SELECT {}, {call} OVER ({partition}ORDER BY {order}) AS c{} FROM ({{}}) AS {}", list(types.len()), types.len(), self.name());
        types.push(gives);
        let node = Node::filled(rule, Kind::Query(types.clone()), &template, vec![Node::filled(frame_rule, Kind::Other, "{}", vec![below])]);
        (node, types)
    }

    /// A condition on the place of a row.
    pub(crate) fn qualify(&mut self, columns: &[Column], scope: u32) -> Option<Node> {
        let (partition, order) = (self.column(columns, Type::Text, scope)?, self.column(columns, Type::Int, scope)?);
        let function = self.one(&["row_number()", "rank()", "dense_rank()"]);
        let (direction, comparison) = (self.direction(), self.one(&["= 1", "<= 2"]));
        let template = format!(" QUALIFY {function} OVER (PARTITION BY {{}} ORDER BY {{}}{direction}) {comparison}");
        Some(Node::filled("qualify", Kind::Other, &template, vec![partition, order]))
    }

    /// What stands after SELECT, and after everything else.
    pub(crate) fn distinct_on(&mut self, columns: &[Column], scope: u32) -> Option<(String, String)> {
        let key = self.column(columns, Type::Text, scope)?.sql();
        let order = self.column(columns, Type::Int, scope)?.sql();
        Some((format!("DISTINCT ON ({key}) "), format!(" ORDER BY {key}, {order}{}", self.direction())))
    }
}
