//! Expressions by type. In: the columns in scope. Out: a tree that has the type.

use rand::Rng;

use crate::queries::generator::{Column, Generator};
use crate::queries::nested;
use crate::queries::tree::{Kind, Node, Part, Type};

use Type::{Bool, Double, Int, Json, List, Map, Struct, Text, Time};

/// A rule: its name, its template, the types of its parts.
pub(crate) type Rule = (&'static str, &'static str, &'static [Type]);

const INTS: [Rule; 16] = [
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
    ("greatest", "greatest({}, {})", &[Int, Int]),
    ("least", "least({}, {})", &[Int, Int]),
    ("date_part", "CAST(date_part('second', {}) AS BIGINT)", &[Time]),
    ("strpos", "CAST(strpos({}, '1') AS BIGINT)", &[Text]),
];

const DOUBLES: [Rule; 11] = [
    ("add", "({} + {})", &[Double, Double]),
    ("subtract", "({} - {})", &[Double, Double]),
    ("multiply", "({} * {})", &[Double, Double]),
    ("halve", "({} / 2)", &[Double]),
    ("abs", "abs({})", &[Double]),
    ("round", "round({})", &[Double]),
    ("coalesce", "coalesce({}, {})", &[Double, Double]),
    ("cast_int", "CAST({} AS DOUBLE)", &[Int]),
    ("case", "CASE WHEN {} THEN {} END", &[Bool, Double]),
    ("floor", "floor({})", &[Double]),
    ("nullif", "nullif({}, {})", &[Double, Double]),
];

const TEXTS: [Rule; 13] = [
    ("upper", "upper({})", &[Text]),
    ("lower", "lower({})", &[Text]),
    ("concat", "({} || {})", &[Text, Text]),
    ("substr", "substr({}, 1, 2)", &[Text]),
    ("replace", "replace({}, 'k', 'j')", &[Text]),
    ("coalesce", "coalesce({}, {})", &[Text, Text]),
    ("cast_text", "CAST({} AS VARCHAR)", &[Int]),
    ("case", "CASE WHEN {} THEN {} ELSE {} END", &[Bool, Text, Text]),
    ("reverse", "reverse({})", &[Text]),
    ("left", "left({}, 1)", &[Text]),
    ("trim", "trim({})", &[Text]),
    ("split_part", "split_part({}, '1', 1)", &[Text]),
    ("regexp_replace", "regexp_replace({}, '[0-9]', '#')", &[Text]),
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
const INT_AGGREGATES: [Rule; 13] = [
    ("count_star", "count(*)", &[]),
    ("count", "count({})", &[Text]),
    ("count", "count({})", &[Double]),
    ("count_distinct", "count(DISTINCT {})", &[Text]),
    ("count_distinct", "count(DISTINCT {})", &[Int]),
    ("sum_int", "sum({})", &[Int]),
    ("sum_distinct", "sum(DISTINCT {})", &[Int]),
    ("min", "min({})", &[Int]),
    ("max", "max({})", &[Int]),
    ("bit_and", "bit_and({})", &[Int]),
    ("bit_or", "bit_or({})", &[Int]),
    ("bit_xor", "bit_xor({})", &[Int]),
    ("approx_distinct", "CAST(approx_distinct({}) AS BIGINT)", &[Text]),
];
const DOUBLE_AGGREGATES: [Rule; 13] = [
    ("sum_double", "sum({})", &[Double]),
    ("avg", "avg({})", &[Double]),
    ("avg", "avg({})", &[Int]),
    ("min", "min({})", &[Double]),
    ("max", "max({})", &[Double]),
    ("var_pop", "var_pop({})", &[Double]),
    ("stddev_samp", "stddev_samp({})", &[Double]),
    ("median", "median({})", &[Double]),
    ("covar_pop", "covar_pop({}, {})", &[Double, Double]),
    ("covar_samp", "covar_samp({}, {})", &[Double, Int]),
    ("regr_count", "CAST(regr_count({}, {}) AS DOUBLE)", &[Double, Double]),
    ("regr_avgx", "regr_avgx({}, {})", &[Double, Double]),
    ("percentile_cont", "percentile_cont({}, 0.25)", &[Double]),
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
        List | Struct | Map | Json => nested::rules(of),
    }
}

fn aggregates(of: Type) -> &'static [Rule] {
    match of {
        Int => &INT_AGGREGATES,
        Double => &DOUBLE_AGGREGATES,
        Text => &TEXT_AGGREGATES,
        Bool => &BOOL_AGGREGATES,
        Time => &TIME_AGGREGATES,
        List | Struct | Map | Json => &[],
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
        let into = self.looks_into(of);
        let (rule, template, parts) = self.one(into.unwrap_or(rules(of)));
        let nodes = parts.iter().map(|part| self.expression(columns, *part, depth - 1, scope)).collect();
        Node::filled(rule, Kind::Expr(of, scope), template, nodes)
    }

    /// Rules that make a scalar of a nested value, where the case has such.
    fn looks_into(&mut self, of: Type) -> Option<&'static [Rule]> {
        let nested = self.uses("nested", 0.4).then(|| nested::looks_into_nested(of));
        let json = self.uses("json", 0.4).then(|| nested::looks_into_json(of));
        nested.or(json).filter(|rules| !rules.is_empty())
    }

    pub(crate) fn literal(&mut self, of: Type, scope: u32) -> Node {
        let text = match of {
            Int if self.wild && self.chance(0.2) => self.one(&["9223372036854775807", "(-9223372036854775807)", "2147483647"]).to_string(),
            Int => self.random.random_range(-1..=4).to_string(),
            Double => self.one(&["CAST(0.5 AS DOUBLE)", "CAST(-1.25 AS DOUBLE)", "CAST(0 AS DOUBLE)", "CAST(NULL AS DOUBLE)"]).to_string(),
            Text => self.one(&["'k1'", "'k2'", "''", "'ü'", "CAST(NULL AS VARCHAR)"]).to_string(),
            Bool => self.one(&["TRUE", "FALSE", "CAST(NULL AS BOOLEAN)"]).to_string(),
            Time => self.one(&["TIMESTAMP '2025-01-01 00:00:10'", "TIMESTAMP '2025-01-01 00:01:00'"]).to_string(),
            List | Struct | Map | Json => self.one(nested::literals(of)).to_string(),
        };
        Node::filled("literal", Kind::Expr(of, scope), &text, Vec::new())
    }

    /// An aggregate over the input's columns. Its scope is its own: no column may take its place.
    pub(crate) fn aggregate(&mut self, columns: &[Column], of: Type, scope: u32) -> Node {
        let inner = self.scope();
        let ordered = matches!(of, Int | Double | Time) && self.chance(0.15) || of == Text && self.chance(0.4) || of == List && self.chance(0.6);
        let call = if ordered {
            self.ordered_aggregate(columns, of, (scope, inner))
        } else if let Some((rule, template, parts)) = nested::of_aggregates(of) {
            let nodes = parts.iter().map(|part| self.aggregate(columns, *part, scope)).collect();
            return Node::filled(rule, Kind::Expr(of, scope), template, nodes);
        } else {
            let (rule, template, parts) = self.one(aggregates(of));
            let nodes = parts.iter().map(|part| self.expression(columns, *part, 1, inner)).collect();
            Node::filled(rule, Kind::Expr(of, scope), template, nodes)
        };
        // FILTER stands behind the call itself.
        if !call.sql().starts_with("CAST(") && self.chance(0.2) {
            let condition = self.expression(columns, Bool, 1, inner);
            return Node::filled("filter", Kind::Expr(of, scope), "{} FILTER (WHERE {})", vec![call, condition]);
        }
        call
    }

    /// An aggregate that follows an order, which is that of the values it takes: which of several other rows came first is nobody's rule.
    fn ordered_aggregate(&mut self, columns: &[Column], of: Type, (scope, inner): (u32, u32)) -> Node {
        let value = self.expression(columns, if of == List { Int } else { of }, 1, inner).sql();
        let direction = self.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let (rule, text) = match of {
            List if self.chance(0.3) => {
                ("array_agg_distinct", format!("array_agg(DISTINCT CAST({value} AS BIGINT) ORDER BY CAST({value} AS BIGINT){direction})"))
            }
            List => ("array_agg", format!("array_agg(CAST({value} AS BIGINT) ORDER BY CAST({value} AS BIGINT){direction})")),
            Text if self.chance(0.6) => ("string_agg", format!("string_agg({value}, ',' ORDER BY {value}{direction})")),
            _ if self.chance(0.5) => ("first_value", format!("first_value({value} ORDER BY {value}{direction})")),
            _ => ("last_value", format!("last_value({value} ORDER BY {value}{direction})")),
        };
        Node::new(rule, Kind::Expr(of, scope), vec![Part::Text(text)])
    }
}
