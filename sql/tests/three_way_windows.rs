//! Windows of event time in every spelling: engine = interpreter = DataFusion at every epoch (C1), on append-only and on changing input.

use std::collections::BTreeMap;

use freshet_core::Value;
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::compile;
use freshet_testkit::generate::Shape;
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::given::script;
use crate::three_way::{Batch, Question, SHAPE, asked, check, check_over, silent};

const QUESTIONS: [Question; 21] = [
    asked(
        "tumble_flink",
        "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, window_time, count(*) AS n, sum(x) AS s
         FROM TABLE(TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '10' SECONDS)) GROUP BY window_start, window_end, window_time",
    ),
    asked(
        "tumble_named_arguments",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, w.window_end FROM TABLE(TUMBLE(DATA => TABLE changing, TIMECOL => DESCRIPTOR(at), SIZE => INTERVAL '10' SECOND)) AS w
         WHERE flag",
    ),
    asked("tumble_all_columns", "CREATE MATERIALIZED VIEW v AS SELECT * FROM TABLE(TUMBLE(TABLE changing, DESCRIPTOR(at), INTERVAL '1' MINUTE))"),
    asked(
        "tumble_risingwave_with_an_offset",
        "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, count(*) AS n FROM TUMBLE(changing, at, INTERVAL '10 seconds', INTERVAL '3 seconds') GROUP BY k, window_start",
    ),
    asked(
        "hop_that_does_not_divide",
        "CREATE MATERIALIZED VIEW v AS SELECT h, window_start, window_end, sum(y) AS s FROM HOP(changing, at, INTERVAL '4 seconds', INTERVAL '10 seconds')
         GROUP BY h, window_start, window_end",
    ),
    asked("hop_with_gaps", "CREATE MATERIALIZED VIEW v AS SELECT id, window_start FROM HOP(plain, ts, INTERVAL '15 seconds', INTERVAL '5 seconds', INTERVAL '1 second')"),
    asked(
        "cumulate",
        "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n
         FROM TABLE(CUMULATE(TABLE changing, DESCRIPTOR(at), INTERVAL '10' SECONDS, INTERVAL '60' SECONDS)) GROUP BY window_start, window_end",
    ),
    asked(
        "windows_over_a_subquery_with_null_times",
        "CREATE MATERIALIZED VIEW v AS WITH flagged AS (SELECT k, CASE WHEN flag THEN at END AS t FROM changing)
         SELECT k, window_start, count(*) AS n FROM TUMBLE(flagged, t, INTERVAL '20 seconds') GROUP BY k, window_start",
    ),
    asked(
        "windows_over_a_derived_table",
        "CREATE MATERIALIZED VIEW v AS SELECT k, window_end, count(*) AS n FROM HOP((SELECT k, at FROM changing WHERE y > 0), at, INTERVAL '5 seconds', INTERVAL '20 seconds')
         GROUP BY k, window_end",
    ),
    asked(
        "session_of_a_key",
        "CREATE MATERIALIZED VIEW v AS SELECT k, h, window_start, window_end FROM TABLE(SESSION(TABLE changing PARTITION BY k, DESCRIPTOR(at), INTERVAL '3' SECONDS))",
    ),
    asked("session_of_all", "CREATE MATERIALIZED VIEW v AS SELECT id, window_start, window_end FROM SESSION(plain, ts, INTERVAL '2 seconds')"),
    asked(
        "session_fused",
        "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, window_time, count(*) AS n, sum(y) AS s, max(h) AS hi
         FROM TABLE(SESSION(TABLE changing PARTITION BY k, DESCRIPTOR(at), INTERVAL '3' SECONDS)) GROUP BY k, window_start, window_end, window_time",
    ),
    asked(
        "session_group",
        "CREATE MATERIALIZED VIEW v AS SELECT h, k, SESSION_START(at, INTERVAL '4' SECOND) AS s, SESSION_END(at, INTERVAL '4' SECOND) AS e, count(*) AS n, avg(y) AS a
         FROM changing WHERE flag GROUP BY h, k, SESSION(at, INTERVAL '4' SECOND)",
    ),
    asked(
        "tumble_legacy",
        "CREATE MATERIALIZED VIEW v AS SELECT TUMBLE_START(ts, INTERVAL '10' SECOND) AS s, TUMBLE_END(ts, INTERVAL '10' SECOND) AS e, TUMBLE_ROWTIME(ts, INTERVAL '10' SECOND) AS r,
         k, count(*) AS n FROM plain GROUP BY k, TUMBLE(ts, INTERVAL '10' SECOND) HAVING count(*) > 1",
    ),
    asked(
        "hop_arroyo",
        "CREATE MATERIALIZED VIEW v AS SELECT window.start AS s, window.end AS e, k, n FROM
         (SELECT hop(INTERVAL '5 seconds', INTERVAL '15 seconds') AS window, k, count(*) AS n FROM changing GROUP BY window, k) AS counted WHERE n > 1",
    ),
    asked(
        "tumble_arroyo_by_ordinal",
        "CREATE MATERIALIZED VIEW v AS SELECT k, tumble(INTERVAL '10 seconds')['end'] AS e, min(x) AS lo FROM plain GROUP BY 1, tumble(INTERVAL '10 seconds')",
    ),
    asked(
        "window_join",
        "CREATE MATERIALIZED VIEW v AS SELECT a.k, a.window_start, a.n, b.m FROM
         (SELECT k, window_start, window_end, count(*) AS n FROM TUMBLE(plain, ts, INTERVAL '20 seconds') GROUP BY k, window_start, window_end) a JOIN
         (SELECT k, CAST(window_start AS TIMESTAMP(3)) AS window_start, count(*) AS m FROM TUMBLE(changing, at, INTERVAL '20 seconds') GROUP BY k, window_start) b
         ON a.k = b.k AND a.window_start = b.window_start",
    ),
    asked(
        "window_over_a_window",
        "CREATE MATERIALIZED VIEW v AS SELECT window_start, max(n) AS most FROM TUMBLE(
         (SELECT k, window_end - INTERVAL '1 millisecond' AS t, count(*) AS n FROM HOP(changing, at, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY k, window_end),
         t, INTERVAL '30 seconds') GROUP BY window_start",
    ),
    asked(
        "window_over_a_window_of_hidden_time",
        "CREATE MATERIALIZED VIEW v AS SELECT tumble(INTERVAL '30 seconds')['start'] AS s, max(n) AS most FROM
         (SELECT k, count(*) AS n FROM changing GROUP BY k, tumble(INTERVAL '10 seconds')) AS counted GROUP BY tumble(INTERVAL '30 seconds')",
    ),
    asked(
        "hottest_items_of_a_window",
        "CREATE VIEW counts AS SELECT k, window_start, window_end, count(*) AS n FROM HOP(changing, at, INTERVAL '10 seconds', INTERVAL '30 seconds')
           WHERE k IS NOT NULL GROUP BY k, window_start, window_end;
         CREATE MATERIALIZED VIEW v AS SELECT c.k, c.window_start, c.n FROM counts c JOIN (SELECT window_start, max(n) AS most FROM counts GROUP BY window_start) m
         ON c.window_start = m.window_start AND c.n >= m.most",
    ),
    asked(
        "distinct_in_a_session",
        "CREATE MATERIALIZED VIEW v AS SELECT window_start, count(DISTINCT k) AS ks, bool_or(flag) AS some FROM SESSION(changing, at, INTERVAL '2 seconds')
         GROUP BY window_start, window_end",
    ),
];

#[test]
fn c1_windows_agree_at_every_epoch() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        for seed in 0..3 {
            check(question, 30_000 + number as u64 * 100 + seed, &Shape { special_floats: 0.0, ..SHAPE });
        }
    }
}

/// Sessions that are merged and split all the time: many rows of few times, half of them retracted again.
#[test]
fn c1_sessions_agree_when_most_rows_are_late_or_taken_back() {
    for question in QUESTIONS.iter().filter(|question| question.name.contains("session")) {
        for seed in 0..4 {
            let shape = Shape { special_floats: 0.0, retractions: 0.4, late: 0.6, late_ms: 20_000, keys: 2, step_ms: 500, ..SHAPE };
            check(question, 40_000 + seed, &shape);
        }
    }
}

#[test]
fn c4_windows_agree_on_wild_values() {
    for (number, question) in QUESTIONS.iter().enumerate() {
        let question = Question { batch: Batch::Silent, ..*question };
        check(&question, 45_000 + number as u64, &Shape { special_floats: 0.15, large_integers: 0.15, nulls: 0.2, ..SHAPE });
    }
}

/// PROCTIME() is a fact about each row: no batch query knows it.
#[test]
fn c1b_windows_of_processing_time_are_those_of_arrival() {
    let questions = [
        silent("proctime", "CREATE MATERIALIZED VIEW v AS SELECT h, PROCTIME() AS p FROM changing WHERE flag"),
        silent(
            "proctime_windows",
            "CREATE VIEW timed AS SELECT *, PROCTIME() AS p_time FROM plain;
             CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, window_start, window_end FROM TABLE(TUMBLE(TABLE timed, DESCRIPTOR(p_time), INTERVAL '10' SECOND))
             GROUP BY k, window_start, window_end",
        ),
        silent(
            "proctime_of_changing_rows",
            "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, window_start FROM TUMBLE((SELECT k, PROCTIME() AS p FROM changing), p, INTERVAL '5 seconds')
             GROUP BY k, window_start",
        ),
    ];
    for (number, question) in questions.iter().enumerate() {
        for seed in 0..3 {
            check(question, 47_000 + number as u64 * 100 + seed, &Shape { special_floats: 0.0, ..SHAPE });
        }
    }
}

/// What comes once comes when the watermark says so, whatever the steps: the interpreter has the definition, and no batch query an idea of it.
#[test]
fn t12_windows_are_emitted_once_when_they_close() {
    let questions = [
        silent(
            "close_tumble",
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_end, count(*) AS n, sum(x) AS s FROM TUMBLE(plain, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end
             EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_hop_of_changing_rows_without_the_end",
            "CREATE MATERIALIZED VIEW v AS SELECT window_start, sum(y) AS s FROM HOP(changing, at, INTERVAL '5 seconds', INTERVAL '15 seconds')
             WHERE flag GROUP BY window_start, window_end HAVING count(*) > 1 EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_rows_of_windows",
            "CREATE MATERIALIZED VIEW v AS SELECT k, h, window_end FROM TUMBLE(changing, at, INTERVAL '20 seconds') EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_window_join",
            "CREATE MATERIALIZED VIEW v AS SELECT a.k, a.n, b.m, a.window_end FROM
             (SELECT k, window_end, count(*) AS n FROM TUMBLE(plain, ts, INTERVAL '1 minute') GROUP BY k, window_end) a JOIN
             (SELECT k, CAST(window_end AS TIMESTAMP(3)) AS window_end, count(*) AS m FROM TUMBLE(changing, at, INTERVAL '1 minute') GROUP BY k, window_end) b
             ON a.k = b.k AND a.window_end = b.window_end EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_sessions",
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE changing PARTITION BY k, DESCRIPTOR(at), INTERVAL '2' SECONDS))
             GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_distinct_on",
            "CREATE MATERIALIZED VIEW v AS SELECT DISTINCT ON (window_end, flag) h, window_end FROM TUMBLE(changing, at, INTERVAL '10 seconds')
             ORDER BY window_end, flag, h EMIT ON WINDOW CLOSE",
        ),
        silent(
            "close_outer_window",
            "CREATE MATERIALIZED VIEW v AS SELECT tumble(INTERVAL '30 seconds')['end'] AS e, max(n) AS most FROM
             (SELECT k, count(*) AS n FROM changing GROUP BY k, tumble(INTERVAL '10 seconds')) AS counted GROUP BY tumble(INTERVAL '30 seconds') EMIT ON WINDOW CLOSE",
        ),
    ];
    for (number, question) in questions.iter().enumerate() {
        for seed in 0..4 {
            let shape = Shape { special_floats: 0.0, partitions: 1 + seed as u32 % 3, late_ms: 15_000, ..SHAPE };
            check_over(DELAYED, question, 50_000 + number as u64 * 100 + seed, &shape);
        }
    }
}

const DELAYED: &str = "
SET clock = 'event';
CREATE SOURCE plain (id BIGINT, k VARCHAR, g INT, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE changing (k VARCHAR, h INT, y DOUBLE, flag BOOLEAN, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds', LATENESS INTERVAL '20 seconds')
  WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
";

#[test]
fn emit_every_changes_a_view_at_multiples_only() {
    let question = silent(
        "every",
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, sum(y) AS s FROM changing GROUP BY k EMIT EVERY INTERVAL '7 seconds'",
    );
    for seed in 0..3 {
        check(&question, 55_000 + seed, &Shape { special_floats: 0.0, ..SHAPE });
    }
}

/// The conditions on times let joins, and gaps let sessions, forget rows while others still come, go and come late.
#[test]
fn t12_joins_and_sessions_equal_the_oracles_while_they_forget() {
    let questions = [
        asked(
            "interval",
            "CREATE MATERIALIZED VIEW v AS SELECT p.id, p.x, c.y, c.at FROM plain p JOIN changing c ON p.k = c.k AND c.at BETWEEN p.ts - INTERVAL '3 seconds' AND p.ts",
        ),
        asked(
            "interval_without_keys",
            "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h FROM plain p, changing c WHERE c.at > p.ts AND c.at < p.ts + INTERVAL '2 seconds' AND c.y > 0",
        ),
        asked(
            "highest_of_a_window",
            "CREATE MATERIALIZED VIEW v AS SELECT c.k, c.h, c.at FROM changing c JOIN
             (SELECT max(h) AS most, window_end FROM TUMBLE(changing, at, INTERVAL '10 seconds') GROUP BY window_start, window_end) m ON c.h = m.most
             WHERE c.at BETWEEN m.window_end - INTERVAL '10 seconds' AND m.window_end",
        ),
        asked(
            "sessions",
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, count(*) AS n, sum(y) AS s
             FROM TABLE(SESSION(TABLE changing PARTITION BY k, DESCRIPTOR(at), INTERVAL '2' SECONDS)) GROUP BY k, window_start, window_end",
        ),
        asked("sessions_of_all", "CREATE MATERIALIZED VIEW v AS SELECT id, window_start, window_end FROM SESSION(plain, ts, INTERVAL '1 second')"),
        asked(
            "interval_left",
            "CREATE MATERIALIZED VIEW v AS SELECT p.id, p.x, c.y, c.at FROM plain p LEFT JOIN changing c ON p.k = c.k AND c.at BETWEEN p.ts - INTERVAL '1 second' AND p.ts",
        ),
        asked(
            "interval_full",
            "CREATE MATERIALIZED VIEW v AS SELECT p.id, c.h, c.at FROM plain p FULL JOIN changing c ON p.g = c.h AND c.at > p.ts - INTERVAL '2 seconds' AND c.at < p.ts",
        ),
        asked(
            "interval_anti",
            "CREATE MATERIALIZED VIEW v AS SELECT c.k, c.at FROM changing c WHERE NOT EXISTS
             (SELECT 1 FROM plain p WHERE p.k = c.k AND p.ts BETWEEN c.at AND c.at + INTERVAL '3 seconds')",
        ),
        silent(
            "interval_mark",
            "CREATE MATERIALIZED VIEW v AS SELECT c.k, c.at, EXISTS
             (SELECT 1 FROM plain p WHERE p.k = c.k AND p.ts BETWEEN c.at AND c.at + INTERVAL '3 seconds') AS followed FROM changing c",
        ),
        asked(
            "highest_two_of_a_window",
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_end, n FROM (SELECT k, window_end, n, row_number() OVER (PARTITION BY window_end ORDER BY n DESC) AS r FROM
             (SELECT k, window_end, count(*) AS n FROM TUMBLE(changing, at, INTERVAL '5 seconds') GROUP BY k, window_start, window_end) AS counted) AS ranked WHERE r <= 2",
        ),
        asked(
            "share_of_a_window",
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_end, n, sum(n) OVER (PARTITION BY window_end ORDER BY k) AS whole FROM
             (SELECT k, window_end, count(*) AS n FROM TUMBLE(changing, at, INTERVAL '5 seconds') GROUP BY k, window_start, window_end) AS counted",
        ),
        asked(
            "times_of_one_that_are_none_of_the_other",
            "CREATE MATERIALIZED VIEW v AS SELECT k, date_trunc('second', window_end) AS e, window_end FROM TUMBLE(changing, at, INTERVAL '5 seconds')
             EXCEPT ALL SELECT k, date_trunc('second', window_end), window_end FROM TUMBLE(plain, ts, INTERVAL '5 seconds')",
        ),
        asked(
            "grouped_by_a_time_of_the_join",
            "CREATE MATERIALIZED VIEW v AS SELECT c.at, count(*) AS n, max(p.x) AS most FROM plain p JOIN changing c
             ON c.at BETWEEN p.ts AND p.ts + INTERVAL '4 seconds' GROUP BY c.at",
        ),
    ];
    for (number, question) in questions.iter().enumerate() {
        for seed in 0..4 {
            let shape = Shape { special_floats: 0.0, partitions: 1 + seed as u32 % 3, late_ms: 6_000, ..SHAPE };
            check_over(BOTH_LATE, question, 60_000 + number as u64 * 100 + seed, &shape);
        }
    }
}

const BOTH_LATE: &str = "
SET clock = 'event';
CREATE SOURCE plain (id BIGINT, k VARCHAR, g INT, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2 seconds', LATENESS INTERVAL '4 seconds')
  WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE changing (k VARCHAR, h INT, y DOUBLE, flag BOOLEAN, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '2 seconds', LATENESS INTERVAL '4 seconds')
  WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
";

const NEVER_LATE: &str = "
SET clock = 'event';
CREATE SOURCE bids (k VARCHAR, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts, LATENESS INTERVAL '5 seconds') WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE persons (k VARCHAR, city VARCHAR, at TIMESTAMP(3), WATERMARK FOR at, LATENESS INTERVAL '5 seconds') WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
";

/// Rows of all operators of this view when so many rows of each source have gone through, ten a second, of 50 keys.
fn state_after(view: &str, rows: u64) -> u64 {
    let program = compile(&[script("flat.sql", &format!("{NEVER_LATE}{view}"))], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap();
    let mut connectors = MemoryConnectors::new(1);
    for def in &program.plan.sources {
        let row = |index: u64| {
            let second = if def.name == "bids" { Value::Int(i128::from(index * 7_919 % 1_000)) } else { Value::Text("here".into()) };
            RawRecord::insert(
                index,
                vec![Value::Text(format!("key {}", index * 31 % 50)), second, Value::Int(1_735_689_600_000 + i128::from(index) * 100)],
            )
        };
        connectors = connectors.with_source(&def.name, (0..rows).map(row).collect());
    }
    let folder = tempfile::tempdir().unwrap();
    let config = EngineConfig { workers: 1, data_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
    let engine = Engine::start(program.plan.clone(), config, &connectors).unwrap();
    engine.wait().unwrap();
    // The last checkpoint has each operator say what it holds.
    let held = engine.reader().status().operators.iter().filter(|operator| operator.name.starts_with('n')).map(|operator| operator.rows).sum();
    engine.shutdown().unwrap();
    held
}

#[test]
fn t12_state_of_windows_is_freed_when_no_row_can_reach_it() {
    let views = [
        "CREATE VIEW counts AS SELECT k, window_start, window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '10 seconds')
           GROUP BY k, window_start, window_end;
         CREATE MATERIALIZED VIEW v AS SELECT c.k, c.n, c.window_end FROM counts c JOIN (SELECT window_start, window_end, max(n) AS most FROM counts
           GROUP BY window_start, window_end) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.n >= m.most",
        "CREATE MATERIALIZED VIEW v AS SELECT p.k, p.window_start FROM
         (SELECT k, window_start, window_end FROM TUMBLE(persons, at, INTERVAL '10 seconds') GROUP BY k, window_start, window_end) p JOIN
         (SELECT k, window_start, window_end FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end) b
         ON p.k = b.k AND p.window_start = b.window_start AND p.window_end = b.window_end",
        "CREATE MATERIALIZED VIEW v AS SELECT k, window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '1 second') GROUP BY k, window_start, window_end
         EMIT ON WINDOW CLOSE",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM (SELECT k, price, window_end, row_number() OVER (PARTITION BY window_end ORDER BY price DESC) AS place
         FROM TUMBLE(bids, ts, INTERVAL '10 seconds')) AS ranked WHERE place <= 3",
        "CREATE MATERIALIZED VIEW v AS SELECT k, price, window_end, sum(price) OVER (PARTITION BY window_end ORDER BY ts) AS so_far
         FROM TUMBLE(bids, ts, INTERVAL '10 seconds')",
        "CREATE MATERIALIZED VIEW v AS SELECT p.k, b.price FROM persons p LEFT JOIN bids b ON p.k = b.k AND b.ts BETWEEN p.at AND p.at + INTERVAL '3 seconds'",
        "CREATE MATERIALIZED VIEW v AS SELECT k, ts FROM bids INTERSECT SELECT k, at FROM persons",
        "CREATE MATERIALIZED VIEW v AS SELECT p.k, b.price FROM persons p JOIN bids b ON p.k = b.k AND b.ts BETWEEN p.at - INTERVAL '3 seconds' AND p.at",
        "CREATE MATERIALIZED VIEW v AS SELECT b.k, b.price, b.ts FROM bids b JOIN
         (SELECT max(price) AS most, window_end FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end) m ON b.price = m.most
         WHERE b.ts BETWEEN m.window_end - INTERVAL '10 seconds' AND m.window_end",
    ];
    for view in views {
        let (half, whole) = (state_after(view, 12_000), state_after(view, 24_000));
        assert!(whole <= half + half / 5 + 4_096, "{half} rows of state after 12,000 rows, {whole} after 24,000: {view}");
        assert!(whole < 20_000, "{whole} rows of state: {view}");
    }
}

#[test]
fn t12_rows_behind_an_emitted_window_are_in_late_of_the_view_and_nowhere_else() {
    let text = format!(
        "{NEVER_LATE}CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end
         EMIT ON WINDOW CLOSE;
         CREATE MATERIALIZED VIEW at_once AS SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end"
    );
    let text = text.replace("LATENESS INTERVAL '5 seconds'", "LATENESS INTERVAL '1 hour'");
    let program = compile(&[script("late.sql", &text)], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap();
    // The row of second 4 comes after the epoch that closed the window of seconds 0 to 10; that of second 8 comes in that epoch.
    let seconds = [1, 12, 8, 13, 4];
    let row = |(index, second): (usize, i128)| {
        RawRecord::insert(index as u64, vec![Value::Text("k".into()), Value::Int(1), Value::Int(1_735_689_600_000 + second * 1_000)])
    };
    let connectors =
        MemoryConnectors::new(1).with_source("bids", seconds.into_iter().enumerate().map(row).collect()).with_source("persons", Vec::new());
    let engine = Engine::start(program.plan.clone(), EngineConfig::default(), &connectors).unwrap();
    engine.wait().unwrap();
    let snapshot = engine.reader().snapshot(&["v", "at_once", "late(v)"], None).unwrap();
    let counts = |index: usize| {
        let rows = snapshot.views[index].iter().flat_map(|batch| Value::rows_of(batch).unwrap());
        rows.map(|row: Vec<Value>| row[1].clone()).collect::<std::collections::BTreeSet<Value>>()
    };
    assert_eq!(counts(0), [2, 2].map(Value::Int).into());
    assert_eq!(counts(1), [3, 2].map(Value::Int).into());
    let late: Vec<Vec<Value>> = snapshot.views[2].iter().flat_map(|batch| Value::rows_of(batch).unwrap()).collect();
    assert_eq!(late.len(), 1);
    assert_eq!((&late[0][3], &late[0][5]), (&Value::Text("bids".into()), &Value::Int(4)), "source and offset of the row");
    engine.shutdown().unwrap();
}
