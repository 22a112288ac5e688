//! What sources and sinks of streams come to: metadata, limits, keys, secrets.

use freshet_core::{BadData, Format, LetterLimits, MetadataColumn, SourceDef, TimeLimits, fingerprint};
use freshet_sql::{ExplainOutput, explain_plan};

use crate::given::{PASSWORD, program};

fn source(text: &str) -> SourceDef {
    let program = program(text);
    program.plan.sources.iter().find(|source| source.name == "s").unwrap().clone()
}

const WITH: &str = "WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON";

#[test]
fn both_spellings_of_metadata_are_one_source() {
    let included =
        source(&format!("CREATE SOURCE s (a INT, ARRIVAL FOR ts) INCLUDE timestamp AS ts, INCLUDE header 'Trace' AS h INCLUDE level 2 AS l {WITH}"));
    let flink = source(&format!(
        "CREATE TABLE s (a INT, ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL, h VARCHAR METADATA FROM 'header.Trace', l VARCHAR METADATA FROM 'LEVEL.2',
         ARRIVAL FOR ts) {WITH}"
    ));
    let filled = |column, name: &str| MetadataColumn { column, name: name.into() };
    assert_eq!(included.metadata, [filled(1, "timestamp"), filled(2, "header.Trace"), filled(3, "level.2")]);
    assert_eq!((&included.schema, included.arrival), (&flink.schema, Some(1)));
    assert_eq!(included.metadata, flink.metadata);
}

#[test]
fn limits_are_typed_and_no_connector_sees_them() {
    let def = source(
        "CREATE SOURCE s (a INT) WITH (connector = 'memory', idle_timeout = '2 minutes', max_jump = INTERVAL '1 day', max_skew = '5 s', bad_data = 'drop',
         topic = 't') FORMAT PLAIN ENCODE JSON (schema.registry = 'http://127.0.0.1:8081')",
    );
    assert_eq!(def.limits, TimeLimits { max_jump_ms: 86_400_000, max_skew_ms: 5_000, idle_ms: Some(120_000) });
    assert_eq!((def.bad_data, def.options.keys().map(String::as_str).collect::<Vec<_>>()), (BadData::Drop, vec!["schema.registry", "topic"]));
    assert_eq!(source("CREATE SOURCE s (a INT) WITH (connector = 'memory', idle_timeout = none) FORMAT PLAIN ENCODE JSON").limits.idle_ms, None);
}

#[test]
fn how_many_dead_letters_are_kept_is_typed_and_no_connector_sees_it() {
    let usual = source("CREATE SOURCE s (a INT) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON");
    assert_eq!(usual.letters, LetterLimits { bytes_max: 64 << 20, age_ms: None });
    let def = source(
        "CREATE SOURCE s (a INT) WITH (connector = 'memory', max_dead_letter_bytes = '1048576', max_dead_letter_age = '30 days') FORMAT PLAIN ENCODE JSON",
    );
    assert_eq!(def.letters, LetterLimits { bytes_max: 1 << 20, age_ms: Some(30 * 86_400_000) });
    assert!(def.options.is_empty(), "{:?}", def.options);
}

#[test]
fn a_deletion_by_key_needs_no_time_although_rows_do() {
    let text = |format| {
        format!(
            "CREATE SOURCE s (id INT NOT NULL, at TIMESTAMP NOT NULL, x INT NOT NULL, PRIMARY KEY (id) NOT ENFORCED, WATERMARK FOR at)
             WITH (connector = 'memory') FORMAT {format} ENCODE JSON"
        )
    };
    let nullable = |def: &SourceDef| def.schema.fields().iter().map(|field| field.is_nullable()).collect::<Vec<_>>();
    let upserted = source(&text("UPSERT"));
    assert_eq!((upserted.format, upserted.key.as_slice(), nullable(&upserted)), (Format::Upsert, &[0][..], vec![false, true, false]));
    assert_eq!(nullable(&source(&text("PLAIN"))), [false, false, false]);
}

#[test]
fn keys_of_upsert_sinks_are_those_of_the_view_unless_the_script_says_others() {
    let keys = |text: &str| {
        let program = program(&format!("{text} FORMAT UPSERT ENCODE JSON"));
        program.plan.sinks[0].key.clone()
    };
    let view = |query: &str| format!("CREATE MATERIALIZED VIEW v AS {query}; CREATE SINK k FROM v WITH (connector = 'memory')");
    assert_eq!(keys(&view("SELECT shop, customer, count(*) AS n FROM orders GROUP BY shop, customer")), [0, 1]);
    assert_eq!(keys(&view("SELECT count(*) AS n, shop, sum(items) AS i FROM orders GROUP BY shop HAVING count(*) > 2")), [1]);
    assert_eq!(keys(&view("SELECT DISTINCT shop, customer FROM orders")), [0, 1]);
    assert_eq!(keys("CREATE SINK k FROM customer_load WITH (connector = 'memory')"), [0]);
    assert_eq!(keys("CREATE SINK k FROM shop_totals KEY (total, shop) WITH (connector = 'memory')"), [2, 0]);
    assert_eq!(keys("CREATE SINK k FROM shop_totals WITH (connector = 'memory', primary_key = 'ORDERS, \"shop\"')"), [1, 0]);
}

#[test]
fn a_secret_reaches_its_options_and_nothing_that_is_shown() {
    let text = |password: &str| {
        format!(
            "CREATE SECRET p FROM ENV 'PASSWORD';
             CREATE SOURCE s (a INT) WITH (connector = 'memory', password = {password}) FORMAT PLAIN ENCODE JSON (token = {password});
             CREATE SINK k FROM shop_totals WITH (connector = 'memory', password = {password}) FORMAT DEBEZIUM ENCODE JSON;
             EXPLAIN (AST) s; EXPLAIN (PLAN) s; EXPLAIN (AST) k; EXPLAIN (AST) p"
        )
    };
    let hidden = program(&text("SECRET p"));
    let source = hidden.plan.sources.iter().find(|source| source.name == "s").unwrap();
    assert_eq!((source.options["password"].as_str(), source.options["token"].as_str()), (PASSWORD, PASSWORD));
    assert_eq!(hidden.plan.sinks[0].options["password"], PASSWORD);
    let shown: Vec<String> = hidden.explains.iter().map(|ExplainOutput { text, .. }| text.clone()).collect();
    assert!(shown[0].contains("password = SECRET p") && shown[3].contains("FROM ENV 'PASSWORD'"), "{shown:?}");
    let whole = [shown.concat(), explain_plan(freshet_sql::ast::ExplainKind::Plan, &hidden.plan), format!("{:?}", hidden.statements)].concat();
    assert!(!whole.contains(PASSWORD), "{whole}");
    assert_eq!(fingerprint(&hidden.plan), fingerprint(&program(&text("'other'")).plan), "another value is the same plan");
}
