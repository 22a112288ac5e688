//! Lists, structs, maps and JSON: how they are made, and what looks into them. In: a type. Out: rules of the grammar.

use crate::queries::expressions::Rule;
use crate::queries::tree::Type;

use Type::{Bool, Double, Int, Json, List, Map, Struct, Text, Time};

const LISTS: [Rule; 5] = [
    ("make_array", "make_array(CAST({} AS BIGINT), CAST({} AS BIGINT))", &[Int, Int]),
    ("array_append", "array_append({}, CAST({} AS BIGINT))", &[List, Int]),
    ("array_concat", "array_concat({}, {})", &[List, List]),
    ("array_sort", "array_sort({})", &[List]),
    ("case", "CASE WHEN {} THEN {} END", &[Bool, List]),
];
const STRUCTS: [Rule; 2] = [
    ("named_struct", "named_struct('a', CAST({} AS BIGINT), 'b', {})", &[Int, Text]),
    ("case", "CASE WHEN {} THEN {} ELSE {} END", &[Bool, Struct, Struct]),
];
const MAPS: [Rule; 1] = [("map", "map(make_array('p', 'q'), make_array(CAST({} AS BIGINT), CAST({} AS BIGINT)))", &[Int, Int])];
const JSONS: [Rule; 4] = [
    (
        "json_document",
        "('{\"a\": ' || coalesce(CAST({} AS VARCHAR), 'null') || ', \"b\": [' || coalesce(CAST({} AS VARCHAR), '7') || ', \"x\"]}')",
        &[Int, Int],
    ),
    ("json_get", "({} -> 'b')", &[Json]),
    ("json_path", "({} #> '{b,0}')", &[Json]),
    ("case", "CASE WHEN {} THEN {} END", &[Bool, Json]),
];

pub(crate) fn rules(of: Type) -> &'static [Rule] {
    match of {
        List => &LISTS,
        Struct => &STRUCTS,
        Map => &MAPS,
        Json => &JSONS,
        Int | Double | Text | Bool | Time => &[],
    }
}

pub(crate) fn literals(of: Type) -> &'static [&'static str] {
    match of {
        List => {
            &["make_array(CAST(1 AS BIGINT), CAST(NULL AS BIGINT), CAST(3 AS BIGINT))", "make_array(CAST(0 AS BIGINT))", "CAST(NULL AS BIGINT[])"]
        }
        Struct => &["named_struct('a', CAST(1 AS BIGINT), 'b', 'k1')", "named_struct('a', CAST(NULL AS BIGINT), 'b', '')"],
        Map => &["map(make_array('p', 'q'), make_array(CAST(1 AS BIGINT), CAST(NULL AS BIGINT)))"],
        Json => &["'{\"a\": 1, \"b\": {\"c\": [2, \"x\"]}}'", "'[1, null]'", "'null'", "CAST(NULL AS VARCHAR)", "'{\"b\": [1.50]}'"],
        Int | Double | Text | Bool | Time => &[],
    }
}

/// A scalar of a list, a struct or a map.
pub(crate) fn looks_into_nested(of: Type) -> &'static [Rule] {
    match of {
        Int => &[
            ("list_element", "({})[1]", &[List]),
            ("list_element", "({})[-1]", &[List]),
            ("cardinality", "CAST(cardinality({}) AS BIGINT)", &[List]),
            ("struct_field", "get_field({}, 'a')", &[Struct]),
            ("map_element", "({})['p']", &[Map]),
        ],
        Text => &[("struct_field", "get_field({}, 'b')", &[Struct]), ("array_to_string", "array_to_string({}, ',')", &[List])],
        Bool => &[
            ("array_has", "array_has({}, CAST({} AS BIGINT))", &[List, Int]),
            ("nested_equal", "({} = {})", &[List, List]),
            ("nested_equal", "({} = {})", &[Struct, Struct]),
            ("nested_is_null", "({} IS NULL)", &[List]),
        ],
        Double | Time | List | Struct | Map | Json => &[],
    }
}

/// A scalar of a JSON document.
pub(crate) fn looks_into_json(of: Type) -> &'static [Rule] {
    match of {
        Int => &[("json_length", "CAST(character_length({} ->> 'a') AS BIGINT)", &[Json])],
        Text => &[
            ("json_text", "({} ->> 'a')", &[Json]),
            ("json_text_path", "({} #>> '{b,0}')", &[Json]),
            ("json_value", "json_value({}, '$.b[0]')", &[Json]),
            ("json_query", "json_query({}, '$.b')", &[Json]),
        ],
        Bool => &[("json_exists", "json_exists({}, '$.b')", &[Json]), ("json_is_null", "(({} -> 'a') IS NULL)", &[Json])],
        Double | Time | List | Struct | Map | Json => &[],
    }
}

/// A nested value made of aggregates.
pub(crate) fn of_aggregates(of: Type) -> Option<Rule> {
    match of {
        List | Struct | Map => Some(rules(of)[0]),
        Json => Some(JSONS[0]),
        Int | Double | Text | Bool | Time => None,
    }
}
