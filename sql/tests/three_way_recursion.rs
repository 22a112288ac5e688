//! WITH RECURSIVE: three answers to one question, over graphs whose edges come and go.

use freshet_testkit::generate::Shape;

use crate::three_way::{Question, SHAPE, asked, check_over, silent};

const EDGES: &str = "
SET clock = 'event';
CREATE SOURCE edges (a BIGINT, b BIGINT, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SOURCE starts (a BIGINT, k VARCHAR, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
";

const QUESTIONS: [Question; 8] = [
    asked(
        "closure",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE reach(a, b) AS (
           SELECT a, b FROM edges UNION SELECT r.a, e.b FROM reach r JOIN edges e ON r.b = e.a) SELECT * FROM reach",
    ),
    asked(
        "closure_of_starts",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE reach AS (
           SELECT k, a FROM starts WHERE k <> 'k1' UNION SELECT r.k, e.b FROM edges e, reach r WHERE e.a = r.a AND e.b <> e.a) SELECT k, count(*) AS n FROM reach GROUP BY k",
    ),
    asked(
        "paths",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE path(a, b, d) AS (
           SELECT DISTINCT a, b, 1 FROM edges WHERE a < 3
           UNION ALL SELECT p.a, e.b, d + 1 FROM path p JOIN (SELECT DISTINCT a, b FROM edges) e ON p.b = e.a WHERE d < 4) SELECT a, b, d FROM path",
    ),
    asked(
        "counter",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE n(x) AS (SELECT a FROM edges UNION ALL SELECT x + 1 FROM n WHERE x < 20) SELECT x, count(*) AS n FROM n GROUP BY x",
    ),
    asked(
        "over_an_aggregate",
        "CREATE MATERIALIZED VIEW degrees AS SELECT a, max(b) AS b FROM edges GROUP BY a;
         CREATE MATERIALIZED VIEW v AS WITH RECURSIVE up(a, b) AS (SELECT a, b FROM degrees UNION SELECT up.a, d.b FROM up JOIN degrees d ON up.b = d.a)
         SELECT up.a, up.b, s.k FROM up JOIN starts s ON s.a = up.b",
    ),
    asked(
        "computed_key",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE more(x) AS (SELECT a FROM starts UNION SELECT e.b FROM more m JOIN edges e ON e.a = m.x + 1 AND e.b > m.x) SELECT x FROM more",
    ),
    // Rows that fail are outside of what DataFusion can answer.
    silent(
        "failing",
        "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE f(x) AS (SELECT a FROM edges UNION SELECT 10 / (x - 2) FROM f WHERE x BETWEEN -20 AND 20) SELECT x FROM f",
    ),
    // As PostgreSQL: WITH RECURSIVE may hold queries that do not recur.
    asked("plain", "CREATE MATERIALIZED VIEW v AS WITH RECURSIVE few AS (SELECT a FROM edges WHERE a < 2) SELECT a FROM few"),
];

#[test]
fn c1_a_recursion_agrees_at_every_epoch() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        for seed in 0..3 {
            let shape = Shape { rows: 40, keys: 5, special_floats: 0.0, ..SHAPE };
            check_over(EDGES, question, 30_000 + number as u64 * 100 + seed, &shape);
        }
    }
}
