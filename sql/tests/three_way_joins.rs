//! Three answers to questions with joins, set operations and subqueries. The form is that of `three_way.rs`.

use freshet_testkit::generate::Shape;

use crate::three_way::{Batch, Question, SHAPE, SOURCES, agrees_over, asked, silent};

const QUESTIONS: &[Question] = &[
    asked("left", "CREATE MATERIALIZED VIEW v AS SELECT p.id, p.k, c.y, c.flag FROM plain p LEFT JOIN changing c ON p.k = c.k"),
    asked("left_residual", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.k, c.y FROM plain p LEFT JOIN changing c ON p.k = c.k AND p.x > c.y"),
    asked("left_one_sided", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.y FROM plain p LEFT JOIN changing c ON p.k = c.k AND p.g > 1 AND c.flag"),
    asked("left_computed", "CREATE MATERIALIZED VIEW v AS SELECT c.h, p.id FROM changing c LEFT JOIN plain p ON p.g + 1 = c.h AND p.x < c.y"),
    asked("left_no_key", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p LEFT JOIN changing c ON p.x < c.y"),
    asked(
        "left_where_null",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p LEFT JOIN changing c ON p.k = c.k AND p.g = c.h WHERE c.k IS NULL",
    ),
    asked("right", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.k, c.y FROM plain p RIGHT JOIN changing c ON p.k = c.k AND p.g = c.h"),
    asked(
        "full",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, p.k AS pk, c.k AS ck, c.y FROM plain p FULL JOIN changing c ON p.k = c.k AND p.g = c.h",
    ),
    asked("full_residual", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h, c.y FROM plain p FULL OUTER JOIN changing c ON p.k = c.k AND p.x > c.y"),
    asked("full_using", "CREATE MATERIALIZED VIEW v AS SELECT k, p.id, c.y FROM plain p FULL JOIN changing c USING (k)"),
    asked(
        "full_using_all",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM changing c FULL JOIN (SELECT k, count(*) AS n FROM plain GROUP BY k) p USING (k)",
    ),
    asked("right_using", "CREATE MATERIALIZED VIEW v AS SELECT k, c.h, p.id FROM changing c RIGHT JOIN plain p USING (k) WHERE k IS NOT NULL"),
    asked(
        "full_using_twice",
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM plain p FULL JOIN changing c USING (k) LEFT JOIN plain q USING (k) GROUP BY k",
    ),
    asked(
        "greatest_of_itself",
        "CREATE MATERIALIZED VIEW v AS SELECT h, y FROM changing WHERE y >= ALL (SELECT y FROM changing WHERE y IS NOT NULL)",
    ),
    asked("some_of_itself", "CREATE MATERIALIZED VIEW v AS SELECT h, h < ANY (SELECT h FROM changing WHERE flag) AS less FROM changing"),
    asked(
        "full_itself",
        "CREATE MATERIALIZED VIEW v AS SELECT a.h AS ah, b.h AS bh FROM changing a FULL JOIN changing b ON a.k = b.k AND a.h = b.h + 1",
    ),
    asked("full_no_key", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p FULL JOIN changing c ON p.x < c.y AND p.g = 1"),
    asked("cross", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p, changing c WHERE p.g > 2"),
    asked("theta", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p JOIN changing c ON p.ts > c.at AND p.x > c.y"),
    asked("not_distinct", "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.y FROM plain p LEFT JOIN changing c ON p.k IS NOT DISTINCT FROM c.k"),
    asked("semi", "CREATE MATERIALIZED VIEW v AS SELECT c.* FROM changing c LEFT SEMI JOIN plain p ON p.k = c.k AND p.x > c.y"),
    asked("anti", "CREATE MATERIALIZED VIEW v AS SELECT c.* FROM changing c LEFT ANTI JOIN plain p ON p.k = c.k AND p.g = c.h"),
    asked(
        "of_three",
        "CREATE MATERIALIZED VIEW v AS SELECT a.id, b.y, c.id AS other FROM plain a LEFT JOIN changing b ON a.k = b.k FULL JOIN plain c ON b.h = c.g",
    ),
    asked(
        "left_of_aggregate",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, n, s FROM plain p LEFT JOIN (SELECT k, count(*) AS n, sum(y) AS s FROM changing GROUP BY k) c ON p.k = c.k",
    ),
    asked(
        "aggregate_of_left",
        "CREATE MATERIALIZED VIEW v AS SELECT p.k, count(c.h) AS n, count(*) AS every FROM plain p LEFT JOIN changing c ON p.k = c.k AND c.flag GROUP BY p.k",
    ),
    asked(
        "exists",
        "CREATE MATERIALIZED VIEW v AS SELECT c.h, c.y FROM changing c WHERE EXISTS (SELECT 1 FROM plain p WHERE p.k = c.k AND p.x > c.y)",
    ),
    asked(
        "not_exists",
        "CREATE MATERIALIZED VIEW v AS SELECT c.h, c.y FROM changing c WHERE NOT EXISTS (SELECT 1 FROM plain p WHERE p.k = c.k AND p.g = c.h)",
    ),
    asked("exists_less", "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE EXISTS (SELECT 1 FROM changing c WHERE c.y < p.x)"),
    asked("not_exists_less", "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE NOT EXISTS (SELECT 1 FROM changing c WHERE c.y < p.x)"),
    asked("exists_uncorrelated", "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE EXISTS (SELECT 1 FROM changing c WHERE c.h = 3)"),
    asked("in", "CREATE MATERIALIZED VIEW v AS SELECT h, y FROM changing WHERE k IN (SELECT k FROM plain WHERE x > 0)"),
    asked("in_expression", "CREATE MATERIALIZED VIEW v AS SELECT h, y FROM changing WHERE h + 1 IN (SELECT g + 1 FROM plain)"),
    asked("not_in", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g NOT IN (SELECT h FROM changing WHERE flag)"),
    asked("not_in_few_nulls", "CREATE MATERIALIZED VIEW v AS SELECT h, y FROM changing WHERE h NOT IN (SELECT g FROM plain WHERE x > 8)"),
    asked(
        "not_in_no_nulls",
        "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g NOT IN (SELECT h FROM changing WHERE h IS NOT NULL AND h > 1)",
    ),
    // DataFusion compares all keys at once.
    asked(
        "not_in_correlated",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g NOT IN (SELECT c.h FROM changing c WHERE c.k = p.k)",
    ),
    asked(
        "not_in_correlated_less",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g NOT IN (SELECT c.h FROM changing c WHERE c.y < p.x)",
    ),
    asked("in_under_or", "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g = 1 OR p.k IN (SELECT k FROM changing WHERE flag)"),
    asked(
        "not_in_under_or",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g = 1 OR p.g NOT IN (SELECT h FROM changing WHERE flag)",
    ),
    asked(
        "not_of_in_under_or",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE NOT (p.g IN (SELECT h FROM changing WHERE y > 3) AND p.x > 0)",
    ),
    asked(
        "exists_under_or",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g = 1 OR EXISTS (SELECT 1 FROM changing c WHERE c.k = p.k AND c.y > p.x)",
    ),
    silent("in_as_value", "CREATE MATERIALIZED VIEW v AS SELECT id, g IN (SELECT h FROM changing WHERE y > 3) AS known FROM plain"),
    silent(
        "in_is_null",
        "CREATE MATERIALIZED VIEW v AS SELECT id, (g IN (SELECT h FROM changing WHERE y > 3)) IS NULL AS unknown,
         coalesce(g NOT IN (SELECT h FROM changing), g > 1) AS surely FROM plain",
    ),
    silent(
        "in_as_value_correlated",
        "CREATE MATERIALIZED VIEW v AS SELECT id, g IN (SELECT h FROM changing c WHERE c.y > p.x) AS known FROM plain p",
    ),
    silent(
        "exists_as_value",
        "CREATE MATERIALIZED VIEW v AS SELECT id, EXISTS (SELECT 1 FROM changing c WHERE c.k = p.k AND c.flag) AS known FROM plain p",
    ),
    asked("greater_all", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE x > ALL (SELECT y FROM changing WHERE flag)"),
    asked("greater_any", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE x > ANY (SELECT y FROM changing WHERE flag)"),
    asked("equal_any", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g = ANY (SELECT h FROM changing)"),
    asked("unequal_all", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g <> ALL (SELECT h FROM changing WHERE h > 2)"),
    asked("scalar_correlated", "CREATE MATERIALIZED VIEW v AS SELECT p.id, (SELECT sum(c.h) FROM changing c WHERE c.k = p.k) AS s FROM plain p"),
    asked(
        "scalar_count",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, (SELECT count(*) FROM changing c WHERE c.k = p.k AND c.flag) AS n FROM plain p",
    ),
    asked("scalar_in_where", "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.x > (SELECT avg(c.y) FROM changing c WHERE c.k = p.k)"),
    asked("scalar_in_aggregate", "CREATE MATERIALIZED VIEW v AS SELECT k, sum(g - (SELECT max(h) FROM changing)) AS s FROM plain GROUP BY k"),
    asked("scalar_of_values", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE g > (SELECT n FROM (VALUES (2)) AS t (n))"),
    asked(
        "in_scalar_aggregate",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id FROM plain p WHERE p.g NOT IN (SELECT max(c.h) FROM changing c WHERE c.k = p.k)",
    ),
    asked(
        "lateral_aggregate",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, t.n, t.s FROM plain p CROSS JOIN LATERAL (SELECT count(*) AS n, sum(c.h) AS s FROM changing c WHERE c.k = p.k) t",
    ),
    asked(
        "lateral",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, t.y FROM plain p, LATERAL (SELECT c.y FROM changing c WHERE c.k = p.k AND c.flag) t",
    ),
    asked(
        "left_lateral",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, t.y FROM plain p LEFT JOIN LATERAL (SELECT c.y FROM changing c WHERE c.k = p.k AND c.flag) t ON true",
    ),
    asked("intersect", "CREATE MATERIALIZED VIEW v AS SELECT k, g FROM plain INTERSECT SELECT k, h FROM changing"),
    asked("intersect_all", "CREATE MATERIALIZED VIEW v AS SELECT k FROM plain INTERSECT ALL SELECT k FROM changing"),
    asked("except", "CREATE MATERIALIZED VIEW v AS SELECT k, h FROM changing EXCEPT SELECT k, g FROM plain"),
    asked("except_all", "CREATE MATERIALIZED VIEW v AS SELECT k FROM changing EXCEPT ALL SELECT k FROM plain"),
    asked(
        "sets_of_sets",
        "CREATE MATERIALIZED VIEW v AS (SELECT g FROM plain UNION ALL SELECT h FROM changing) EXCEPT ALL (SELECT h FROM changing INTERSECT ALL SELECT g FROM plain)",
    ),
    asked("sets_of_two_types", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain EXCEPT SELECT h FROM changing"),
    asked("in_set", "CREATE MATERIALIZED VIEW v AS SELECT id FROM plain WHERE k IN (SELECT k FROM changing EXCEPT SELECT k FROM plain WHERE g = 1)"),
    asked(
        "values",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, t.name FROM plain p JOIN (VALUES (1, 'one'), (2, 'two'), (2, 'zwei')) AS t (n, name) ON p.g = t.n",
    ),
    asked(
        "values_left",
        "CREATE MATERIALIZED VIEW v AS SELECT t.name, c.y FROM (VALUES (1, 'one'), (9, 'nine')) AS t (n, name) LEFT JOIN changing c ON c.h = t.n",
    ),
    asked("constant", "CREATE MATERIALIZED VIEW v AS SELECT 1 AS one, 'a' AS a UNION ALL SELECT g, k FROM plain"),
    asked("unnest", "CREATE MATERIALIZED VIEW v AS SELECT k, unnest(make_array(h, h + 1, NULL)) AS n FROM changing"),
    asked("unnest_two", "CREATE MATERIALIZED VIEW v AS SELECT k, unnest(make_array(h, 1)) AS n, unnest(string_to_array(k, '1')) AS t FROM changing"),
    asked(
        "aggregate_of_unnest",
        "CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS c FROM (SELECT unnest(make_array(h, h + 1)) AS n FROM changing) t GROUP BY n",
    ),
];

#[test]
fn c1_joins_sets_and_subqueries_agree_at_every_epoch() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        let shape = Shape { special_floats: 0.0, rows: 40, ..SHAPE };
        let seeds = (0..3).map(|seed| 30_000 + number as u64 * 100 + seed);
        let answered = seeds.filter(|seed| agrees_over(SOURCES, question, *seed, &shape)).count();
        assert!(answered > 0, "{}: the question has no answer", question.name);
    }
}

/// Where nobody but the interpreter knows.
#[test]
fn c4_joins_sets_and_subqueries_agree_on_wild_values() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        let question = Question { batch: Batch::Silent, ..*question };
        let shape = Shape { special_floats: 0.15, large_integers: 0.15, nulls: 0.3, rows: 30, ..SHAPE };
        agrees_over(SOURCES, &question, 50_000 + number as u64, &shape);
    }
}
