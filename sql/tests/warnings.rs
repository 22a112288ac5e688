//! What CREATE warns of: state that grows with time (T12), joins of all pairs, and training sets that may not be what was served (T5).

use crate::given::compiled;

const SOURCES: &str = "
SET clock = 'wall';
CREATE SOURCE clicks (id BIGINT, page VARCHAR, at TIMESTAMP, WATERMARK FOR at) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE views (id BIGINT, at TIMESTAMP, WATERMARK FOR at, LATENESS INTERVAL '1 hour') WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE pages (page VARCHAR, title VARCHAR) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
";

fn warnings(text: &str) -> Vec<String> {
    let program = compiled(&format!("{SOURCES}{text}")).unwrap_or_else(|error| panic!("{text}\n{error}"));
    program.warnings.iter().map(|warning| warning.to_string().lines().next().unwrap().replace("test.sql:", "")).collect()
}

#[test]
fn t12_a_join_without_lateness_is_warned_of_once_and_by_its_source() {
    let join = "CREATE MATERIALIZED VIEW v AS SELECT v.id, c.page FROM views v JOIN clicks c ON v.id = c.id;\n\
                CREATE MATERIALIZED VIEW above AS SELECT page, count(*) AS n FROM v GROUP BY page";
    assert_eq!(warnings(join), ["6:26: the state of view v grows for as long as it runs: source clicks declares no LATENESS"]);
}

#[test]
fn t12_an_aggregate_by_time_grows_and_one_by_key_does_not() {
    let by = |key: &str| warnings(&format!("CREATE MATERIALIZED VIEW v AS SELECT {key} AS k, count(*) AS n FROM clicks GROUP BY {key}"));
    assert_eq!(by("date_trunc('hour', at)").len(), 1);
    assert!(by("page").is_empty());
}

#[test]
fn t12_what_lateness_does_not_free_is_warned_of_with_the_way_out() {
    let join = "CREATE MATERIALIZED VIEW v AS SELECT a.id, p.title FROM views a JOIN pages p ON CAST(a.id AS VARCHAR) = p.page";
    let found = warnings(join);
    assert!(found[0].contains("grows for as long as it runs: one entry per row of both sides") && found[0].contains("never freed"), "{found:?}");
    let recent = "CREATE MATERIALIZED VIEW v AS SELECT a.id, p.title FROM views a JOIN (SELECT page, max(title) AS title FROM pages GROUP BY page) p
                  ON CAST(a.id AS VARCHAR) = p.page WHERE a.at > now() - INTERVAL '1 day'";
    assert_eq!(warnings(recent), [""; 0]);
    let windows = "CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n FROM TUMBLE(views, at, INTERVAL '1 hour') GROUP BY window_end";
    assert_eq!(warnings(windows), [""; 0]);
    for kind in ["", "LEFT", "FULL"] {
        let interval = format!(
            "CREATE MATERIALIZED VIEW v AS SELECT a.at AS x, b.at AS y FROM views a {kind} JOIN views b ON a.id = b.id
                        AND b.at BETWEEN a.at - INTERVAL '1 hour' AND a.at"
        );
        assert_eq!(warnings(&interval), [""; 0], "{kind}");
    }
    let top = "CREATE MATERIALIZED VIEW v AS SELECT id, window_end, rank() OVER (PARTITION BY window_end ORDER BY id) AS r FROM TUMBLE(views, at, INTERVAL '1 hour')";
    assert_eq!(warnings(top), [""; 0]);
}

#[test]
fn a_join_without_an_equality_is_warned_of_unless_a_side_is_one_row() {
    let pairs = |text: &str| warnings(text).into_iter().filter(|warning| warning.contains("without an equality")).count();
    assert_eq!(pairs("CREATE MATERIALIZED VIEW v AS SELECT a.id FROM views a JOIN pages p ON a.id > length(p.page)"), 1);
    assert_eq!(pairs("CREATE MATERIALIZED VIEW v AS SELECT a.id FROM views a WHERE NOT EXISTS (SELECT 1 FROM clicks c WHERE c.id < a.id)"), 1);
    assert_eq!(pairs("CREATE MATERIALIZED VIEW v AS SELECT a.id FROM views a WHERE a.id > (SELECT avg(id) FROM views)"), 0);
    assert_eq!(pairs("CREATE MATERIALIZED VIEW v AS SELECT a.id FROM views a WHERE EXISTS (SELECT 1 FROM pages)"), 0);
}

#[test]
fn t12_bounded_input_is_not_warned_of() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT v.id, c.page FROM views v JOIN clicks c ON v.id = c.id;\nSET clock = 'event'";
    assert!(warnings(text).is_empty());
}

#[test]
fn an_order_without_a_limit_is_accepted_and_said_to_be_none() {
    let found = warnings("CREATE MATERIALIZED VIEW v AS SELECT page, id FROM clicks ORDER BY id");
    assert_eq!(found, ["6:68: the rows of v are kept in no order"]);
    assert!(warnings("CREATE MATERIALIZED VIEW v AS SELECT page, id FROM clicks ORDER BY id LIMIT 3").is_empty());
}

#[test]
fn t12_rows_in_order_grow_unless_only_the_top_is_kept() {
    let grow = |text: &str| warnings(&format!("CREATE MATERIALIZED VIEW v AS {text}")).len();
    assert_eq!(grow("SELECT id, lag(page) OVER (ORDER BY at) AS p FROM clicks"), 1);
    assert_eq!(grow("SELECT id, page FROM clicks QUALIFY row_number() OVER (PARTITION BY page ORDER BY at DESC) = 1"), 0);
    assert_eq!(grow("SELECT c.id, v.at FROM clicks c ASOF JOIN views v MATCH_CONDITION (c.at >= v.at) USING (id)"), 1);
}

/// The warnings of a training set over orders (WATERMARK FOR ts) and a log of predictions (WATERMARK FOR told).
fn of_set(mode: &str, from: &str, time: &str) -> Vec<String> {
    let text = format!(
        "CREATE FEATURE SERVICE one AS (customer_load);
CREATE SOURCE log (id BIGINT, customer VARCHAR, scored_at TIMESTAMP(3), told TIMESTAMP(3), WATERMARK FOR told)
WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE arriving (id BIGINT, customer VARCHAR, at TIMESTAMP(3), came TIMESTAMP(3), WATERMARK FOR at, ARRIVAL FOR came)
WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE TRAINING SET t ID (id) TIME (at) LABEL (good) WITH (mode = '{mode}') AS
SELECT l.id, l.at, f.*, l.id > 5 AS good FROM {from} AS l
LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF {time} AS f ON f.customer = l.customer"
    );
    let program = compiled(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    program.warnings.iter().map(|warning| warning.to_string().replace("test.sql:", "")).collect()
}

#[test]
fn t5_as_of_the_time_of_an_event_is_warned_of_at_its_place() {
    let orders = "(SELECT id, customer, ts AS at FROM orders)";
    let message = "8:47: AS OF l.at is what was served only for rows whose epoch equals at: event clock, and rows in order";
    let help = "FOR SYSTEM_TIME AS OF arrival(l); freshet training-set export counts the other rows";
    assert_eq!(of_set("as_served", orders, "l.at"), [format!("{message}\n  help: {help}")]);
    // Declared arrivals are a row's epoch only if they come in order, and nobody knows what a computed time is.
    assert_eq!(of_set("as_served", "arriving", "l.came").len(), 1);
    assert_eq!(of_set("as_served", "(SELECT id, customer, scored_at - INTERVAL '1 hour' AS at FROM log)", "l.at").len(), 1);
    assert_eq!(of_set("as_served", "(SELECT customer, max(id) AS id, max(ts) AS at FROM orders GROUP BY customer)", "l.at").len(), 1);
}

#[test]
fn t5_arrival_logged_times_and_declared_hindsight_are_not_warned_of() {
    let orders = "(SELECT id, customer, ts AS at FROM orders)";
    assert_eq!(of_set("as_served", orders, "arrival(l)"), [""; 0]);
    assert_eq!(of_set("event_time", orders, "l.at"), [""; 0]);
    let logged = "(SELECT l.id, l.customer, l.scored_at AS at FROM log l JOIN orders o ON l.id = o.id WHERE o.amount > 1)";
    assert_eq!(of_set("as_served", logged, "l.at"), [""; 0]);
}
