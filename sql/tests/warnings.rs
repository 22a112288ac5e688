//! What CREATE warns of: state that grows with time (T12), and training sets that may not be what was served (T5).

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
fn t12_lateness_and_sources_without_time_are_not_warned_of() {
    assert!(warnings("CREATE MATERIALIZED VIEW v AS SELECT a.id, p.title FROM views a JOIN pages p ON CAST(a.id AS VARCHAR) = p.page").is_empty());
}

#[test]
fn t12_bounded_input_is_not_warned_of() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT v.id, c.page FROM views v JOIN clicks c ON v.id = c.id;\nSET clock = 'event'";
    assert!(warnings(text).is_empty());
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
