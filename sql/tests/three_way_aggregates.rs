//! Aggregates, grouping sets and nested columns, asked of engine, interpreter and DataFusion at every epoch.
//!
//! Silent where DataFusion answers by another rule: its sketches (T24 has its own) and arrival order.

use crate::three_way::{Batch, Question, SHAPE, asked, check, silent};
use freshet_testkit::generate::Shape;

const QUESTIONS: [Question; 25] = [
    asked(
        "decimals",
        "CREATE MATERIALIZED VIEW v AS SELECT k, sum(CAST(h AS DECIMAL(12, 3))) AS s, avg(CAST(h AS DECIMAL(12, 3))) AS a, min(CAST(h AS DECIMAL(12, 3))) AS lo,
         median(CAST(h AS DECIMAL(12, 3))) AS m, sum(DISTINCT CAST(h AS DECIMAL(12, 3))) AS d FROM changing GROUP BY k",
    ),
    asked(
        "unsigned",
        "CREATE MATERIALIZED VIEW v AS SELECT k, sum(arrow_cast(abs(h), 'UInt32')) AS s, avg(arrow_cast(abs(h), 'UInt32')) AS a, max(arrow_cast(abs(h), 'UInt8')) AS hi,
         bit_or(arrow_cast(abs(h), 'UInt16')) AS b FROM changing GROUP BY k",
    ),
    asked(
        "bits",
        "CREATE MATERIALIZED VIEW v AS SELECT k, bit_and(h) AS a, bit_or(h) AS o, bit_xor(h) AS x, bit_and(h) FILTER (WHERE flag) AS f
         FROM changing GROUP BY k",
    ),
    asked(
        "pairs",
        "CREATE MATERIALIZED VIEW v AS SELECT k, corr(y, h) AS c, covar_samp(y, h) AS cs, covar_pop(y, h) AS cp, regr_slope(y, h) AS s, regr_intercept(y, h) AS i,
         regr_count(y, h) AS n, regr_r2(y, h) AS r, regr_avgx(y, h) AS ax, regr_avgy(y, h) AS ay, regr_sxx(y, h) AS xx, regr_syy(y, h) AS yy, regr_sxy(y, h) AS xy
         FROM changing GROUP BY k",
    ),
    // DataFusion takes bit_xor of all values for that of distinct ones.
    silent("bits_distinct", "CREATE MATERIALIZED VIEW v AS SELECT k, bit_xor(DISTINCT h) AS d, bit_or(DISTINCT h) AS o FROM changing GROUP BY k"),
    asked("pairs_global", "CREATE MATERIALIZED VIEW v AS SELECT corr(y, h) AS c, regr_count(h, y) FILTER (WHERE flag) AS n FROM changing"),
    asked(
        "percentiles",
        "CREATE MATERIALIZED VIEW v AS SELECT k, median(y) AS m, median(h) AS mh, percentile_cont(y, 0.25) AS q,
         percentile_cont(0.75) WITHIN GROUP (ORDER BY y DESC) AS w, median(DISTINCT h) AS d, percentile_cont(y, 0.5) FILTER (WHERE flag) AS f FROM changing GROUP BY k",
    ),
    // DataFusion interpolates in steps of a millionth.
    silent(
        "percentiles_between",
        "CREATE MATERIALIZED VIEW v AS SELECT k, quantile_cont(y, 0.9) AS p, percentile_cont(0.1) WITHIN GROUP (ORDER BY h DESC) AS w FROM changing GROUP BY k",
    ),
    silent(
        "sketches",
        "CREATE MATERIALIZED VIEW v AS SELECT k, approx_distinct(h) AS d, approx_distinct(flag) AS f, approx_percentile_cont(y, 0.5) AS p, approx_median(h) AS m,
         approx_percentile_cont_with_weight(y, abs(h), 0.9) AS w, approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY y) AS q FROM changing GROUP BY k",
    ),
    asked("approx_distinct_few", "CREATE MATERIALIZED VIEW v AS SELECT flag, approx_distinct(k) AS ks, approx_distinct(h) AS hs FROM changing GROUP BY flag"),
    asked(
        "first_last",
        "CREATE MATERIALIZED VIEW v AS SELECT k, first_value(h ORDER BY h) AS lo, last_value(h ORDER BY h) AS hi, first_value(y ORDER BY y DESC NULLS LAST) AS top,
         last_value(y ORDER BY y NULLS FIRST) AS also, nth_value(h, 2 ORDER BY h) AS second, any_value(k) AS any FROM changing GROUP BY k",
    ),
    asked(
        "arrays",
        "CREATE MATERIALIZED VIEW v AS SELECT k, array_agg(h ORDER BY h) AS hs, array_agg(h ORDER BY h DESC) AS back, array_agg(DISTINCT h ORDER BY h) AS once,
         array_agg(h ORDER BY h) FILTER (WHERE flag) AS flagged FROM changing GROUP BY k",
    ),
    asked(
        "strings",
        "CREATE MATERIALIZED VIEW v AS SELECT h, string_agg(k, ',' ORDER BY k) AS ks, string_agg(DISTINCT k, '-' ORDER BY k) AS once FROM changing GROUP BY h",
    ),
    silent(
        "arrivals",
        "CREATE MATERIALIZED VIEW v AS SELECT k, first_value(h) AS f, last_value(h) AS l, nth_value(h, 2) AS second, nth_value(h, -2) AS before, array_agg(h) AS hs,
         string_agg(CAST(h AS VARCHAR), ',') AS s, first_value(h) IGNORE NULLS AS known FROM changing GROUP BY k",
    ),
    silent("arrivals_plain", "CREATE MATERIALIZED VIEW v AS SELECT g, array_agg(id) AS ids, last_value(x) FILTER (WHERE x > 0) AS x FROM plain GROUP BY g"),
    asked("count_of_columns", "CREATE MATERIALIZED VIEW v AS SELECT k, count(DISTINCT h, flag) AS d, count(h, y) AS n FROM changing GROUP BY k"),
    asked(
        "distinct_moments",
        "CREATE MATERIALIZED VIEW v AS SELECT k, avg(DISTINCT h) AS a, sum(DISTINCT y) AS s, count(DISTINCT y) FILTER (WHERE flag) AS c FROM changing GROUP BY k",
    ),
    asked(
        "rollup",
        "CREATE MATERIALIZED VIEW v AS SELECT k, flag, count(*) AS n, sum(h) AS s, grouping(k) AS gk, grouping(k, flag) AS both FROM changing GROUP BY ROLLUP (k, flag)",
    ),
    asked("cube", "CREATE MATERIALIZED VIEW v AS SELECT k, flag, avg(h) AS a, grouping(flag) AS g FROM changing GROUP BY CUBE (k, flag)"),
    asked(
        "grouping_sets",
        "CREATE MATERIALIZED VIEW v AS SELECT k, flag, h, count(*) AS n FROM changing GROUP BY GROUPING SETS ((k, flag), (h), (k), (k))",
    ),
    asked("rollup_having", "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM changing GROUP BY ROLLUP (k) HAVING count(*) > 3"),
    asked(
        "nested_columns",
        "CREATE MATERIALIZED VIEW v AS SELECT id, make_array(g, 1, NULL) AS list, named_struct('k', k, 'x', x) AS pair, map(make_array('g'), make_array(g)) AS m,
         arrow_cast(ts, 'Time64(Nanosecond)') AS t, INTERVAL '1 day 2 hours' AS i FROM plain",
    ),
    asked(
        "nested_keys",
        "CREATE MATERIALIZED VIEW v AS SELECT make_array(h, 2) AS l, named_struct('k', k) AS s, count(*) AS n FROM changing GROUP BY 1, 2",
    ),
    // Infinity less infinity is another NaN than the one that is read.
    asked("computed_nan", "CREATE MATERIALIZED VIEW v AS SELECT y - y AS zero, count(*) AS n, count(DISTINCT y - y) AS d FROM changing GROUP BY 1"),
    asked("nested_aggregates", "CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS groups, array_agg(k ORDER BY k) AS ks FROM (SELECT k, count(*) AS n FROM changing GROUP BY k) t GROUP BY n"),
];

#[test]
fn c1_aggregates_agree_at_every_epoch() {
    check_all(0..3, &Shape { special_floats: 0.0, ..SHAPE }, |question| Question { ..*question });
}

/// NaN, infinities and integers at the ends of their types: DataFusion neither sums exactly nor keeps the other rows of a batch.
#[test]
fn c4_aggregates_agree_on_wild_values() {
    let shape = Shape { special_floats: 0.15, large_integers: 0.15, nulls: 0.2, ..SHAPE };
    check_all(50..52, &shape, |question| Question { batch: Batch::Silent, ..*question });
}

/// All questions are asked before the test fails.
fn check_all(seeds: std::ops::Range<u64>, shape: &Shape, asked: impl Fn(&Question) -> Question) {
    let mut failed = Vec::new();
    for (number, question) in QUESTIONS.iter().enumerate() {
        for seed in seeds.clone() {
            let question = asked(question);
            let seed = 40_000 + number as u64 * 100 + seed;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&question, seed, shape)));
            failed.extend(outcome.is_err().then(|| format!("{} {seed}", question.name)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join(", "));
}
