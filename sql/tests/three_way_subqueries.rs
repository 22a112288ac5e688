//! Three answers to questions with subqueries that depend on the row around them in ways that DataFusion's rules do not know. What takes them
//! apart is shared by all three, so each is also compared with a query that says the same without a subquery.

use freshet_testkit::generate::Shape;

use crate::given::script;
use crate::three_way::{Batch, Question, SHAPE, SOURCES, agrees_over, connectors, interpreter};

/// A query, and the same by joins, windows and groups alone.
const QUESTIONS: &[(&str, &str, &str)] = &[
    (
        "lateral_first",
        "SELECT p.id, t.h, t.y FROM plain p CROSS JOIN LATERAL (SELECT c.h, c.y FROM changing c WHERE c.k = p.k ORDER BY c.h DESC, c.y LIMIT 2) t",
        "SELECT p.id, t.h, t.y FROM plain p JOIN (SELECT k, h, y, row_number() OVER (PARTITION BY k ORDER BY h DESC, y) AS n FROM changing) t
         ON t.k = p.k AND t.n <= 2",
    ),
    (
        "lateral_first_left",
        "SELECT p.id, t.h FROM plain p LEFT JOIN LATERAL (SELECT c.h FROM changing c WHERE c.k = p.k AND c.flag ORDER BY c.h LIMIT 1) t ON true",
        "SELECT p.id, t.h FROM plain p LEFT JOIN (SELECT k, min(h) AS h FROM changing WHERE flag GROUP BY k) t ON t.k = p.k",
    ),
    (
        "lateral_first_less",
        "SELECT c.h, t.id FROM changing c CROSS JOIN LATERAL (SELECT p.id FROM plain p WHERE p.x < c.y ORDER BY p.x DESC, p.id LIMIT 2) t",
        "SELECT c.h, t.id FROM changing c JOIN (SELECT y, id, row_number() OVER (PARTITION BY y ORDER BY x DESC, id) AS n FROM plain p JOIN
         (SELECT DISTINCT y FROM changing) d ON p.x < d.y) t ON t.y = c.y AND t.n <= 2",
    ),
    (
        "lateral_groups",
        "SELECT c.h, t.k, t.n FROM changing c LEFT JOIN LATERAL (SELECT p.k, count(*) AS n FROM plain p WHERE p.g <= c.h GROUP BY p.k) t ON t.n > 1",
        "SELECT c.h, t.k, t.n FROM changing c LEFT JOIN (SELECT h, p.k, count(*) AS n FROM plain p JOIN (SELECT DISTINCT h FROM changing) d
         ON p.g <= d.h GROUP BY h, p.k) t ON t.h = c.h AND t.n > 1",
    ),
    (
        "lateral_distinct",
        "SELECT p.id, t.h FROM plain p, LATERAL (SELECT DISTINCT c.h FROM changing c WHERE c.k = p.k ORDER BY c.h DESC LIMIT 2) t",
        "SELECT p.id, t.h FROM plain p JOIN (SELECT k, h, row_number() OVER (PARTITION BY k ORDER BY h DESC) AS n FROM
         (SELECT DISTINCT k, h FROM changing)) t ON t.k = p.k AND t.n <= 2",
    ),
    (
        "lateral_window",
        "SELECT p.id, t.h, t.n FROM plain p, LATERAL (SELECT c.h, rank() OVER (ORDER BY c.h) AS n FROM changing c WHERE c.k = p.k) t WHERE t.n <= 3",
        "SELECT p.id, t.h, t.n FROM plain p JOIN (SELECT k, h, rank() OVER (PARTITION BY k ORDER BY h) AS n FROM changing) t
         ON t.k = p.k AND t.n <= 3",
    ),
    (
        "lateral_union",
        "SELECT p.id, t.h FROM plain p, LATERAL (SELECT c.h FROM changing c WHERE c.k = p.k UNION ALL SELECT p.g) t",
        "SELECT p.id, c.h FROM plain p JOIN changing c ON c.k = p.k UNION ALL SELECT id, g FROM plain",
    ),
    (
        "lateral_values",
        "SELECT p.id, v.name, v.x FROM plain p, LATERAL (VALUES ('g', CAST(p.g AS DOUBLE)), ('x', p.x)) AS v (name, x)",
        "SELECT id, 'g' AS name, CAST(g AS DOUBLE) AS x FROM plain UNION ALL SELECT id, 'x', x FROM plain",
    ),
    (
        "value_max_less",
        "SELECT p.id, (SELECT max(c.h) FROM changing c WHERE c.y < p.x) AS m FROM plain p",
        "SELECT p.id, t.m FROM plain p LEFT JOIN (SELECT x, max(c.h) AS m FROM changing c JOIN (SELECT DISTINCT x FROM plain) d ON c.y < d.x GROUP BY x) t
         ON t.x = p.x",
    ),
    (
        "value_count_less",
        "SELECT p.id, (SELECT count(*) FROM changing c WHERE c.y < p.x AND c.k <> p.k) AS n FROM plain p",
        "SELECT p.id, coalesce(t.n, 0) AS n FROM plain p LEFT JOIN (SELECT d.x, d.k, count(*) AS n FROM changing c JOIN (SELECT DISTINCT x, k FROM plain) d
         ON c.y < d.x AND c.k <> d.k GROUP BY d.x, d.k) t ON t.x = p.x AND t.k = p.k",
    ),
    (
        "value_count_compared",
        "SELECT c.k, c.h FROM changing c WHERE (SELECT count(*) FROM changing o WHERE o.k = c.k AND o.h > c.h) < 2",
        "SELECT c.k, c.h FROM changing c LEFT JOIN (SELECT d.k, d.h, count(*) AS n FROM changing o JOIN (SELECT DISTINCT k, h FROM changing) d
         ON o.k = d.k AND o.h > d.h GROUP BY d.k, d.h) t ON t.k = c.k AND t.h = c.h WHERE coalesce(t.n, 0) < 2",
    ),
    (
        "value_first",
        "SELECT p.id, (SELECT c.h FROM changing c WHERE c.k = p.k ORDER BY c.h DESC NULLS LAST LIMIT 1) AS h FROM plain p",
        "SELECT p.id, t.h FROM plain p LEFT JOIN (SELECT k, max(h) AS h FROM changing GROUP BY k) t ON t.k = p.k",
    ),
    (
        "value_in_group",
        "SELECT c.k, sum((SELECT count(*) FROM plain p WHERE p.g < c.h)) AS n FROM changing c GROUP BY c.k",
        "SELECT c.k, sum(coalesce(t.n, 0)) AS n FROM changing c LEFT JOIN (SELECT d.h, count(*) AS n FROM plain p JOIN (SELECT DISTINCT h FROM changing) d
         ON p.g < d.h GROUP BY d.h) t ON t.h = c.h GROUP BY c.k",
    ),
    (
        "in_first",
        "SELECT p.id FROM plain p WHERE p.g IN (SELECT c.h FROM changing c WHERE c.k = p.k ORDER BY c.h DESC NULLS LAST LIMIT 2)",
        "SELECT p.id FROM plain p LEFT SEMI JOIN (SELECT k, h, row_number() OVER (PARTITION BY k ORDER BY h DESC NULLS LAST) AS n FROM changing) t
         ON t.k = p.k AND t.h = p.g AND t.n <= 2",
    ),
    (
        "in_first_of_all",
        "SELECT h, y FROM changing WHERE h IN (SELECT g FROM plain ORDER BY x DESC NULLS LAST, id LIMIT 5)",
        "SELECT h, y FROM changing LEFT SEMI JOIN (SELECT g, row_number() OVER (ORDER BY x DESC NULLS LAST, id) AS n FROM plain) t ON t.g = h AND t.n <= 5",
    ),
    (
        "not_in_first",
        "SELECT p.id FROM plain p WHERE p.g IS NOT NULL AND p.g NOT IN (SELECT c.h FROM changing c WHERE c.y < p.x AND c.h IS NOT NULL ORDER BY c.h LIMIT 2)",
        "SELECT p.id FROM plain p LEFT ANTI JOIN (SELECT d.x, h, row_number() OVER (PARTITION BY d.x ORDER BY h) AS n FROM changing c JOIN
         (SELECT DISTINCT x FROM plain) d ON c.y < d.x AND c.h IS NOT NULL) t ON t.x = p.x AND t.h = p.g AND t.n <= 2 WHERE p.g IS NOT NULL",
    ),
    (
        "exists_having",
        "SELECT p.id FROM plain p WHERE EXISTS (SELECT count(*) FROM changing c WHERE c.h > p.g HAVING count(*) > 3)",
        "SELECT p.id FROM plain p JOIN (SELECT d.g, count(*) AS n FROM changing c JOIN (SELECT DISTINCT g FROM plain) d ON c.h > d.g GROUP BY d.g) t
         ON t.g = p.g AND t.n > 3",
    ),
    (
        "nested",
        "SELECT p.id FROM plain p WHERE EXISTS (SELECT 1 FROM changing c WHERE c.k = p.k AND EXISTS (SELECT 1 FROM changing o WHERE o.h > c.h AND o.y < p.x))",
        "SELECT p.id FROM plain p LEFT SEMI JOIN (SELECT DISTINCT c.k, o.y FROM changing c JOIN changing o ON o.h > c.h) t ON t.k = p.k AND t.y < p.x",
    ),
];

#[test]
fn subqueries_that_depend_on_their_row_agree_at_every_epoch() {
    for (number, (name, query, plainly)) in QUESTIONS.iter().enumerate() {
        for seed in 0..2 {
            let seed = 60_000 + number as u64 * 100 + seed;
            let shape = Shape { special_floats: 0.0, nulls: [0.0, 0.15][seed as usize % 2], rows: 40, ..SHAPE };
            let text: &'static str = Box::leak(format!("CREATE MATERIALIZED VIEW v AS {query}").into_boxed_str());
            assert!(agrees_over(SOURCES, &Question { name, text, batch: Batch::Asked }, seed, &shape), "{name}, seed {seed}: no answer");
            same_content(name, (query, plainly), seed, &shape);
        }
    }
}

/// By the interpreter, which knows neither query.
fn same_content(name: &str, (query, plainly): (&str, &str), seed: u64, shape: &Shape) {
    let text = format!("{SOURCES} CREATE MATERIALIZED VIEW v AS {query}; CREATE MATERIALIZED VIEW w AS {plainly};");
    let compiled = freshet_sql::compile(&[script("same.sql", &text)], &Default::default(), &freshet_testkit::MemoryConnectors::new(0));
    let program = compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
    let input = connectors(&program.plan, seed, shape);
    let interpreter = interpreter(&program.plan, &input);
    let node = |view: &str| program.plan.view(view).unwrap().node;
    for epoch in interpreter.relevant_epochs(node("v")) {
        assert_eq!(interpreter.content(node("v"), epoch), interpreter.content(node("w"), epoch), "{name}, seed {seed}, at {epoch}");
    }
}
