//! What CREATE warns of: state that grows with time (T12).

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
