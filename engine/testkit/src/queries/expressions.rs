//! Expressions by type. In: the columns in scope. Out: a tree that has the type.

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::tree::{Kind, Node, Type};

use Type::{Bool, Double, Int, Text, Time};

/// A rule: its name, its template, the types of its parts.
type Rule = (&'static str, &'static str, &'static [Type]);

const INTS: [Rule; 12] = [
    ("add", "({} + {})", &[Int, Int]),
    ("subtract", "({} - {})", &[Int, Int]),
    ("multiply", "({} * {})", &[Int, Int]),
    ("divide", "({} / {})", &[Int, Int]),
    ("modulo", "({} % 3)", &[Int]),
    ("abs", "abs({})", &[Int]),
    ("length", "CAST(character_length({}) AS BIGINT)", &[Text]),
    ("coalesce", "coalesce({}, {})", &[Int, Int]),
    ("nullif", "nullif({}, {})", &[Int, Int]),
    ("case", "CASE WHEN {} THEN {} ELSE {} END", &[Bool, Int, Int]),
    ("guard", "CASE WHEN {} <> 0 THEN 12 / {} END", &[Int, Int]),
    ("cast_bool", "CAST({} AS INT)", &[Bool]),
];

const DOUBLES: [Rule; 9] = [
    ("add", "({} + {})", &[Double, Double]),
    ("subtract", "({} - {})", &[Double, Double]),
    ("multiply", "({} * {})", &[Double, Double]),
    ("halve", "({} / 2)", &[Double]),
    ("abs", "abs({})", &[Double]),
    ("round", "round({})", &[Double]),
    ("coalesce", "coalesce({}, {})", &[Double, Double]),
    ("cast_int", "CAST({} AS DOUBLE)", &[Int]),
    ("case", "CASE WHEN {} THEN {} END", &[Bool, Double]),
];

const TEXTS: [Rule; 8] = [
    ("upper", "upper({})", &[Text]),
    ("lower", "lower({})", &[Text]),
    ("concat", "({} || {})", &[Text, Text]),
    ("substr", "substr({}, 1, 2)", &[Text]),
    ("replace", "replace({}, 'k', 'j')", &[Text]),
    ("coalesce", "coalesce({}, {})", &[Text, Text]),
    ("cast_text", "CAST({} AS VARCHAR)", &[Int]),
    ("case", "CASE WHEN {} THEN {} ELSE {} END", &[Bool, Text, Text]),
];

const TIMES: [Rule; 4] = [
    ("date_trunc", "date_trunc('minute', {})", &[Time]),
    ("plus_interval", "({} + INTERVAL '1 second')", &[Time]),
    ("minus_interval", "({} - INTERVAL '1 minute')", &[Time]),
    ("coalesce", "coalesce({}, {})", &[Time, Time]),
];

const BOOLS: [Rule; 19] = [
    ("equal", "({} = {})", &[Int, Int]),
    ("equal", "({} = {})", &[Text, Text]),
    ("not_equal", "({} <> {})", &[Text, Text]),
    ("less", "({} < {})", &[Int, Int]),
    ("less", "({} < {})", &[Double, Double]),
    ("less", "({} < {})", &[Time, Time]),
    ("at_least", "({} >= {})", &[Int, Int]),
    ("at_least", "({} >= {})", &[Double, Double]),
    ("and", "({} AND {})", &[Bool, Bool]),
    ("or", "({} OR {})", &[Bool, Bool]),
    ("not", "(NOT {})", &[Bool]),
    ("is_null", "({} IS NULL)", &[Text]),
    ("is_null", "({} IS NULL)", &[Double]),
    ("is_not_null", "({} IS NOT NULL)", &[Int]),
    ("in_list", "({} IN (0, 1, 3))", &[Int]),
    ("in_list", "({} NOT IN ('k1', 'k2'))", &[Text]),
    ("between", "({} BETWEEN 0 AND 2)", &[Int]),
    ("like", "({} LIKE 'k%')", &[Text]),
    ("is_distinct", "({} IS DISTINCT FROM {})", &[Int, Int]),
];

/// Aggregates of each type: a rule whose parts are over the input's columns.
const INT_AGGREGATES: [Rule; 9] = [
    ("count_star", "count(*)", &[]),
    ("count", "count({})", &[Text]),
    ("count", "count({})", &[Double]),
    ("count_distinct", "count(DISTINCT {})", &[Text]),
    ("count_distinct", "count(DISTINCT {})", &[Int]),
    ("sum_int", "sum({})", &[Int]),
    ("sum_distinct", "sum(DISTINCT {})", &[Int]),
    ("min", "min({})", &[Int]),
    ("max", "max({})", &[Int]),
];
const DOUBLE_AGGREGATES: [Rule; 9] = [
    ("sum_double", "sum({})", &[Double]),
    ("avg", "avg({})", &[Double]),
    ("avg", "avg({})", &[Int]),
    ("min", "min({})", &[Double]),
    ("max", "max({})", &[Double]),
    ("var_pop", "var_pop({})", &[Double]),
    ("stddev_samp", "stddev_samp({})", &[Double]),
    ("median", "median({})", &[Double]),
    ("covar_pop", "covar_pop({}, {})", &[Double, Double]),
];
const TEXT_AGGREGATES: [Rule; 2] = [("min", "min({})", &[Text]), ("max", "max({})", &[Text])];
const BOOL_AGGREGATES: [Rule; 2] = [("bool_and", "bool_and({})", &[Bool]), ("bool_or", "bool_or({})", &[Bool])];
const TIME_AGGREGATES: [Rule; 2] = [("min", "min({})", &[Time]), ("max", "max({})", &[Time])];

fn rules(of: Type) -> &'static [Rule] {
    match of {
        Int => &INTS,
        Double => &DOUBLES,
        Text => &TEXTS,
        Bool => &BOOLS,
        Time => &TIMES,
    }
}

fn aggregates(of: Type) -> &'static [Rule] {
    match of {
        Int => &INT_AGGREGATES,
        Double => &DOUBLE_AGGREGATES,
        Text => &TEXT_AGGREGATES,
        Bool => &BOOL_AGGREGATES,
        Time => &TIME_AGGREGATES,
    }
}

impl Generator {
    /// An expression over the columns, of at most so many levels.
    pub(crate) fn expression(&mut self, columns: &[Column], of: Type, depth: usize, scope: u32) -> Node {
        let leaf = depth == 0 || self.chance(0.35);
        if leaf {
            let column = if self.chance(0.85) { self.column(columns, of, scope) } else { None };
            return column.unwrap_or_else(|| self.literal(of, scope));
        }
        let (rule, template, parts) = self.one(rules(of));
        let nodes = parts.iter().map(|part| self.expression(columns, *part, depth - 1, scope)).collect();
        Node::filled(rule, Kind::Expr(of, scope), template, nodes)
    }

    pub(crate) fn literal(&mut self, of: Type, scope: u32) -> Node {
        let text = match of {
            Int if self.wild && self.chance(0.2) => self.one(&["9223372036854775807", "(-9223372036854775807)", "2147483647"]).to_string(),
            Int => self.random.random_range(-1..=4).to_string(),
            Double => self.one(&["CAST(0.5 AS DOUBLE)", "CAST(-1.25 AS DOUBLE)", "CAST(0 AS DOUBLE)", "CAST(NULL AS DOUBLE)"]).to_string(),
            Text => self.one(&["'k1'", "'k2'", "''", "'ü'", "CAST(NULL AS VARCHAR)"]).to_string(),
            Bool => self.one(&["TRUE", "FALSE", "CAST(NULL AS BOOLEAN)"]).to_string(),
            Time => self.one(&["TIMESTAMP '2025-01-01 00:00:10'", "TIMESTAMP '2025-01-01 00:01:00'"]).to_string(),
        };
        Node::filled("literal", Kind::Expr(of, scope), &text, Vec::new())
    }

    /// An aggregate over the input's columns. Its scope is its own: no column may take its place.
    pub(crate) fn aggregate(&mut self, columns: &[Column], of: Type, scope: u32) -> Node {
        let (rule, template, parts) = self.one(aggregates(of));
        let inner = self.scope();
        let nodes = parts.iter().map(|part| self.expression(columns, *part, 1, inner)).collect();
        let call = Node::filled(rule, Kind::Expr(of, scope), template, nodes);
        if self.chance(0.2) {
            let condition = self.expression(columns, Bool, 1, inner);
            return Node::filled("filter", Kind::Expr(of, scope), "{} FILTER (WHERE {})", vec![call, condition]);
        }
        call
    }
}
