//! Three answers to questions about rows in order: tops, DISTINCT ON, OVER, and joins in time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use freshet_testkit::generate::Shape;

use crate::three_way::{Batch, Question, SHAPE, asked, check, silent};

const QUESTIONS: [Question; 44] = [
    asked(
        "top_1",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, y FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY y DESC) AS n
         FROM changing) WHERE n = 1",
    ),
    asked(
        "top_3",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM (SELECT k, h, row_number() OVER (PARTITION BY k ORDER BY h) AS n FROM
         changing) WHERE n <= 3",
    ),
    asked(
        "top_of_appends",
        "CREATE MATERIALIZED VIEW v AS SELECT id, g, x FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY x DESC NULLS
         LAST, id) AS n FROM plain) WHERE n < 3",
    ),
    asked(
        "top_between",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM (SELECT id, g, row_number() OVER (PARTITION BY g ORDER BY x) AS n FROM
         plain) WHERE n BETWEEN 2 AND 4 AND id > 0",
    ),
    asked(
        "top_rank",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, y FROM (SELECT *, rank() OVER (PARTITION BY k ORDER BY h DESC) AS n FROM
         changing) WHERE n <= 3",
    ),
    asked(
        "top_rank_shown",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM (SELECT k, h, rank() OVER (PARTITION BY flag ORDER BY h) AS n FROM
         changing) WHERE n <= 4 AND n > 1",
    ),
    asked(
        "top_dense",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h FROM (SELECT *, dense_rank() OVER (PARTITION BY k ORDER BY h) AS n FROM
         changing) WHERE n <= 2",
    ),
    asked(
        "top_dense_shown",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, n FROM (SELECT *, dense_rank() OVER (ORDER BY h DESC NULLS LAST) AS n FROM
         changing) WHERE 3 >= n",
    ),
    asked("top_dense_of_appends", "CREATE MATERIALIZED VIEW v AS SELECT id, g FROM plain QUALIFY dense_rank() OVER (PARTITION BY k ORDER BY g) = 2"),
    asked(
        "qualify",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, flag FROM changing WHERE y > -5 QUALIFY row_number() OVER (PARTITION BY k,
         flag ORDER BY at DESC) = 1",
    ),
    asked("order_limit", "CREATE MATERIALIZED VIEW v AS SELECT k, h, y FROM changing ORDER BY y DESC NULLS LAST LIMIT 5"),
    asked("order_limit_hidden", "CREATE MATERIALIZED VIEW v AS SELECT k, y * 2 AS z FROM changing ORDER BY h, k DESC LIMIT 7"),
    asked("order_offset", "CREATE MATERIALIZED VIEW v AS SELECT k, h FROM changing ORDER BY h DESC, at LIMIT 4 OFFSET 3"),
    asked("offset_only", "CREATE MATERIALIZED VIEW v AS SELECT k, h FROM changing ORDER BY h OFFSET 10"),
    asked("limit_of_appends", "CREATE MATERIALIZED VIEW v AS SELECT id, x FROM plain ORDER BY x DESC NULLS FIRST FETCH FIRST 6 ROWS ONLY"),
    asked("limit_only", "CREATE MATERIALIZED VIEW v AS SELECT k, h FROM changing LIMIT 3"),
    asked("limit_of_groups", "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM changing GROUP BY k ORDER BY n DESC, k LIMIT 2"),
    asked("limit_below", "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, max(h) AS m FROM (SELECT h FROM changing ORDER BY y LIMIT 8)"),
    asked("distinct_on", "CREATE MATERIALIZED VIEW v AS SELECT DISTINCT ON (k) k, h, y FROM changing ORDER BY k, h DESC"),
    asked("distinct_on_unordered", "CREATE MATERIALIZED VIEW v AS SELECT DISTINCT ON (k, flag) h, y FROM changing"),
    asked("distinct_on_limit", "CREATE MATERIALIZED VIEW v AS SELECT DISTINCT ON (h) h, k FROM changing ORDER BY h DESC, y LIMIT 3"),
    asked(
        "over_ranks",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, row_number() OVER w AS n, rank() OVER w AS r, dense_rank() OVER w AS d FROM
         changing WINDOW w AS (PARTITION BY k ORDER BY h)",
    ),
    asked(
        "over_shares",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, percent_rank() OVER (PARTITION BY k ORDER BY h) AS p, cume_dist() OVER
         (PARTITION BY k ORDER BY h) AS c FROM changing",
    ),
    // DataFusion's buckets are not as even as PostgreSQL's.
    silent("over_ntile", "CREATE MATERIALIZED VIEW v AS SELECT k, h, ntile(3) OVER (PARTITION BY flag ORDER BY h) AS t FROM changing"),
    asked(
        "over_lag",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, lag(h) OVER w AS a, lag(h, 2, -1) OVER w AS b, lead(y) OVER w AS c, lead(h,
         3) OVER w AS d FROM changing WINDOW w AS (PARTITION BY k ORDER BY at)",
    ),
    asked("over_lag_nulls", "CREATE MATERIALIZED VIEW v AS SELECT id, lag(g) IGNORE NULLS OVER (PARTITION BY k ORDER BY id) AS a FROM plain"),
    // DataFusion finds NULL where two rows with a value follow.
    silent("over_lead_nulls", "CREATE MATERIALIZED VIEW v AS SELECT id, lead(x, 2) IGNORE NULLS OVER (PARTITION BY k ORDER BY id) AS b FROM plain"),
    asked(
        "over_running",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, sum(h) OVER (PARTITION BY k ORDER BY at) AS s, count(*) OVER (PARTITION BY
         k ORDER BY at) AS n, max(y) OVER (PARTITION BY k) AS m FROM changing",
    ),
    asked(
        "over_decimals",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, sum(CAST(h AS DECIMAL(12, 2))) OVER (PARTITION BY k ORDER BY at) AS s, avg(CAST(h AS
         DECIMAL(12, 2))) OVER (PARTITION BY flag ORDER BY h ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS a FROM changing",
    ),
    asked(
        "over_rows",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, sum(h) OVER (PARTITION BY k ORDER BY h ROWS BETWEEN 2 PRECEDING AND CURRENT
         ROW) AS a, avg(h) OVER (PARTITION BY k ORDER BY h ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING) AS b, min(h) OVER (PARTITION BY k
         ORDER BY h ROWS BETWEEN 3 PRECEDING AND 2 PRECEDING) AS c, count(y) OVER (PARTITION BY k ORDER BY h ROWS BETWEEN CURRENT ROW AND
         UNBOUNDED FOLLOWING) AS d FROM changing",
    ),
    asked(
        "over_range",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, at, count(*) OVER (PARTITION BY k ORDER BY at
         RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) AS a, sum(h) OVER (PARTITION BY k ORDER BY at DESC
         RANGE BETWEEN INTERVAL '5 seconds' PRECEDING AND INTERVAL '3 seconds' FOLLOWING) AS b FROM changing",
    ),
    asked(
        "over_range_numbers",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, sum(h) OVER (PARTITION BY flag ORDER BY h RANGE BETWEEN 1 PRECEDING AND 2
         FOLLOWING) AS a, max(k) OVER (PARTITION BY flag ORDER BY h NULLS FIRST RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS b
         FROM changing",
    ),
    asked(
        "over_groups",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, count(*) OVER (PARTITION BY flag ORDER BY h GROUPS BETWEEN 1 PRECEDING AND
         1 FOLLOWING) AS a, sum(h) OVER (PARTITION BY flag ORDER BY h GROUPS BETWEEN 2 PRECEDING AND CURRENT ROW) AS b FROM changing",
    ),
    asked(
        "over_values",
        "CREATE MATERIALIZED VIEW v AS SELECT id, first_value(x) OVER w AS a, last_value(x) OVER w AS b, nth_value(x, 2) OVER w
         AS c, first_value(g) OVER (PARTITION BY k ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS d, nth_value(g, 3) OVER
         (PARTITION BY k ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING) AS e, last_value(x) OVER (PARTITION BY k ORDER BY
         id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS f FROM plain WINDOW w AS (PARTITION BY k ORDER BY id ROWS
         BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
    ),
    // Which of the peers comes first is DataFusion's own choice.
    silent(
        "over_values_of_peers",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, first_value(y) OVER w AS a, last_value(y) IGNORE NULLS OVER w AS b,
         nth_value(y, 2) OVER w AS c FROM changing WINDOW w AS (PARTITION BY flag ORDER BY h)",
    ),
    asked(
        "over_several",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, y - lag(y) OVER (PARTITION BY k ORDER BY at) AS gap, rank() OVER (ORDER BY
         h DESC) AS r, sum(h) FILTER (WHERE flag) OVER (PARTITION BY flag) AS s, row_number() OVER () AS n FROM changing WHERE h IS NOT
         NULL",
    ),
    asked(
        "asof",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, p.ts, c.h, c.at FROM plain p ASOF JOIN changing c MATCH_CONDITION (p.ts >=
         c.at) ON p.k = c.k",
    ),
    asked("asof_left", "CREATE MATERIALIZED VIEW v AS SELECT * FROM changing c LEFT ASOF JOIN plain p MATCH_CONDITION (c.at > p.ts) USING (k)"),
    asked(
        "asof_forward",
        "CREATE MATERIALIZED VIEW v AS SELECT a.h, b.y FROM changing a ASOF LEFT JOIN changing b MATCH_CONDITION (b.at >= a.at)
         ON a.k = b.k AND b.flag",
    ),
    asked(
        "asof_ties",
        "CREATE MATERIALIZED VIEW v AS SELECT a.k, a.h, b.y, b.at FROM changing a LEFT ASOF JOIN changing b MATCH_CONDITION
         (a.h < b.h) ON a.flag = b.flag",
    ),
    asked(
        "asof_no_key",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.k FROM plain p ASOF JOIN (SELECT k, max(h) AS m FROM changing GROUP BY k)
         c MATCH_CONDITION (p.id <= c.m) WHERE p.x > 0",
    ),
    silent(
        "lookup_join",
        "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h, c.y FROM plain p JOIN changing FOR SYSTEM_TIME AS OF now() AS c ON p.k
         = c.k",
    ),
    silent(
        "lookup_join_changing",
        "CREATE MATERIALIZED VIEW last AS SELECT k, count(*) AS n, max(x) AS m FROM plain GROUP BY k; CREATE MATERIALIZED VIEW
         v AS SELECT c.k, c.h, l.n, l.m FROM changing c LEFT JOIN last FOR SYSTEM_TIME AS OF proctime() AS l ON l.k = c.k AND l.n > 1",
    ),
    silent(
        "lookup_join_at",
        "CREATE MATERIALIZED VIEW last AS SELECT k, count(*) AS n, max(x) AS m FROM plain GROUP BY k; CREATE MATERIALIZED VIEW
         v AS SELECT c.*, l.n, l.m FROM changing c LEFT JOIN last AS OF c.at AS l USING (k)",
    ),
];

/// Asks all questions before it says which were answered wrongly.
fn ask(questions: &[Question], answer: impl Fn(usize, &Question)) {
    let wrong = |(number, question): &(usize, &Question)| catch_unwind(AssertUnwindSafe(|| answer(*number, question))).is_err();
    let wrong: Vec<&str> = questions.iter().enumerate().filter(wrong).map(|(_, question)| question.name).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn c1_rows_in_order_agree_at_every_epoch() {
    ask(&QUESTIONS, |number, question| {
        for seed in 0..3 {
            check(question, 40_000 + number as u64 * 100 + seed, &Shape { special_floats: 0.0, ..SHAPE });
        }
    });
}

/// NaN, infinities, sums that overflow, and fewer keys, so that partitions are long.
#[test]
fn c4_rows_in_order_agree_on_wild_values() {
    ask(&QUESTIONS, |number, question| {
        let question = Question { batch: Batch::Silent, ..*question };
        let shape = Shape { rows: 90, keys: 2, special_floats: 0.15, large_integers: 0.15, nulls: 0.2, duplicates: 0.3, retractions: 0.3, ..SHAPE };
        check(&question, 50_000 + number as u64 * 100, &shape);
    });
}
