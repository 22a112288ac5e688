//! Tables, pipes and sinks of a script: what its statements leave behind, and the Flink and Arroyo spelling of all of it.

use std::collections::BTreeMap;

use freshet_core::{Epoch, Format, Op, Value, display};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::ast::{CreateSource, OptionEntry, Role, Stmt};
use freshet_sql::parse::parse_script;
use freshet_sql::{Program, compile};
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::given::script;

const START_MS: i128 = 1_735_689_600_000;

fn program(text: &str, connectors: &MemoryConnectors) -> Program {
    compile(&[script("t.sql", text)], &BTreeMap::new(), connectors).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    compile(&[script("t.sql", text)], &BTreeMap::new(), &MemoryConnectors::new(0)).map(|_| ()).unwrap_err().to_string()
}

/// The rows of a view, each as psql prints it, in order.
fn rows(engine: &Engine, view: &str) -> Vec<String> {
    let snapshot = engine.reader().snapshot(&[view], None).unwrap();
    let mut found = Vec::new();
    for batch in &snapshot.views[0] {
        let columns: Vec<_> = batch.columns().iter().map(|column| display::texts(column).unwrap()).collect();
        let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "NULL".into());
        found.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(&column[row])).collect::<Vec<_>>().join("|")));
    }
    found.sort();
    found
}

fn run(program: &Program, connectors: &MemoryConnectors, config: EngineConfig) -> Engine {
    let engine = Engine::start(program.plan.clone(), config, connectors).unwrap();
    engine.wait().unwrap();
    engine
}

fn ends_as(text: &str, view: &str, expected: &[&str]) {
    for workers in [1, 2] {
        let connectors = MemoryConnectors::new(workers as u64);
        let engine = run(&program(text, &connectors), &connectors, EngineConfig { workers, ..EngineConfig::default() });
        assert_eq!(rows(&engine, view), expected, "{workers} workers");
        engine.shutdown().unwrap();
    }
}

const ACCOUNTS: &str = "
SET clock = 'event';
CREATE TABLE accounts (id INT PRIMARY KEY, owner VARCHAR NOT NULL DEFAULT 'nobody', balance BIGINT DEFAULT 0, \"timestamp\" TIMESTAMP);
CREATE MATERIALIZED VIEW totals AS SELECT owner, count(*) AS n, sum(balance) AS total FROM accounts GROUP BY owner;
INSERT INTO accounts (id, owner, balance) VALUES (1, 'ann', 10), (2, 'bob', 20), (3, 'ann', 5);
";

#[test]
fn t13_statements_of_a_script_are_done_one_after_the_other() {
    let text = format!(
        "{ACCOUNTS}
         INSERT INTO accounts (id) VALUES (4);
         INSERT INTO accounts VALUES (2, 'eve', 7, NULL);
         UPDATE accounts SET balance = balance * 2 WHERE owner = 'ann';
         DELETE FROM accounts WHERE id = (SELECT max(id) FROM accounts WHERE owner = 'ann')"
    );
    ends_as(&text, "accounts", &["1|ann|20|NULL", "2|eve|7|NULL", "4|nobody|0|NULL"]);
    ends_as(&text, "totals", &["ann|1|20", "eve|1|7", "nobody|1|0"]);
}

#[test]
fn a_key_that_is_there_is_left_alone_on_conflict_do_nothing() {
    let text = format!("{ACCOUNTS} INSERT INTO accounts (id, owner) VALUES (1, 'eve'), (9, 'eve'), (9, 'joe') ON CONFLICT DO NOTHING");
    ends_as(&text, "accounts", &["1|ann|10|NULL", "2|bob|20|NULL", "3|ann|5|NULL", "9|eve|0|NULL"]);
}

#[test]
fn rows_of_another_table_change_those_of_a_table() {
    let text = format!(
        "{ACCOUNTS} CREATE TABLE moves (account INT, amount BIGINT); INSERT INTO moves VALUES (1, 5), (3, -5), (8, 1), (3, -5);
        INSERT INTO accounts (id, owner, balance) VALUES (1, 'eve', 100), (4, 'eve', 1) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance;
        UPDATE accounts a SET balance = a.balance + m.amount FROM moves m WHERE m.account = a.id;
        DELETE FROM accounts USING moves WHERE accounts.balance = 0 AND account = id"
    );
    ends_as(&text, "accounts", &["1|ann|115|NULL", "2|bob|20|NULL", "4|eve|1|NULL"]);
    ends_as(&text, "totals", &["ann|1|115", "bob|1|20", "eve|1|1"]);
}

#[test]
fn equal_rows_without_a_key_are_counted_apart() {
    let text = "SET clock = 'event'; CREATE TABLE t (a INT, b VARCHAR); INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL); INSERT INTO t SELECT a + 1, b FROM t;
        UPDATE t SET b = 'y' WHERE a = 3; CREATE MATERIALIZED VIEW v AS SELECT a, b, count(*) AS n FROM t GROUP BY a, b";
    ends_as(text, "v", &["1|x|2", "2|NULL|1", "2|x|2", "3|y|1"]);
}

#[test]
fn a_table_as_a_query_over_tables_is_a_copy() {
    let text = format!("{ACCOUNTS} CREATE TABLE rich AS SELECT owner, balance FROM accounts WHERE balance > 5; DELETE FROM accounts; FLUSH");
    ends_as(&text, "rich", &["ann|10", "bob|20"]);
    ends_as(&text, "totals", &[]);
}

#[test]
fn computed_columns_of_a_table_are_computed_for_each_row() {
    let text = "SET clock = 'event'; CREATE TABLE t (a INT, b INT, total INT GENERATED ALWAYS AS (a + b) STORED, twice AS a * 2);
        INSERT INTO t VALUES (1, 2), (3, 4); UPDATE t SET b = 10 WHERE total = 7; INSERT INTO t (b, a) VALUES (0, 5)";
    ends_as(text, "t", &["1|2|3|2", "3|10|13|6", "5|0|5|10"]);
}

#[test]
fn statements_that_cannot_be_done_say_where() {
    let error = |statement: &str| refused(&format!("{}\n{statement}", ACCOUNTS.trim()));
    for (statement, wanted) in [
        ("INSERT INTO accounts VALUES (1, NULL, 1, NULL)", "t.sql:5:33: column owner of accounts is NOT NULL, and a row has NULL"),
        ("INSERT INTO accounts (id) VALUES (NULL)", "t.sql:5:35: column id of accounts is in the PRIMARY KEY, and a row has NULL"),
        ("INSERT INTO accounts (id, balance) VALUES (1, 2), (3, 'x')", "t.sql:5:55: "),
        (
            "INSERT INTO accounts VALUES (1, 'a')",
            "t.sql:5:33: INSERT INTO accounts gives 2 values for 4 columns\n  help: columns are id, owner, balance, timestamp",
        ),
        ("INSERT INTO accounts (id, owner) VALUES (1, 'a'), (2, 'b', 3)", "t.sql:5:60: INSERT INTO accounts gives 3 values for 2 columns"),
        ("UPDATE accounts SET id = 1 WHERE id = 2", "t.sql:5:8: two rows of accounts would have the same PRIMARY KEY"),
        ("INSERT INTO acounts VALUES (1)", "t.sql:5:13: there is no table named acounts\n  help: did you mean accounts?"),
        ("DELETE FROM totals", "t.sql:5:13: totals is not a table: DELETE cannot change it"),
        ("INSERT INTO accounts (id) VALUES (1) RETURNING id", "t.sql:5:13: RETURNING tells a client, and a script has none"),
        ("UPDATE accounts SET balance = n FROM totals", "t.sql:5:8: what totals holds is known when the pipeline runs"),
        ("UPDATE accounts SET balanc = 1", "t.sql:5:21: accounts has no column balanc\n  help: did you mean balance?"),
        ("UPDATE accounts SET balance = bal", "t.sql:5:31: "),
        ("UPDATE accounts SET balance = 'x'", "t.sql:5:8: "),
        ("INSERT INTO accounts (id) VALUES (1) ON CONFLICT (owner) DO NOTHING", "t.sql:5:51: ON CONFLICT names other columns than the PRIMARY KEY"),
        ("INSERT INTO accounts (id) VALUES (1) ON CONFLICT DO UPDATE SET balance = (SELECT 1)", "t.sql:5:75: a subquery cannot stand in ON CONFLICT"),
        ("DELETE FROM accounts LIMIT 1", "t.sql:5:1: ORDER BY or LIMIT of a DELETE is not supported"),
    ] {
        let found = error(statement);
        assert!(found.starts_with(wanted), "{statement}\n{found}");
    }
}

const CARS: &str = "
SET clock = 'event';
CREATE TABLE cars (\"timestamp\" TIMESTAMP, driver_id BIGINT UNSIGNED, event_type TEXT, location TEXT)
  WITH (connector = 'memory', format = 'json', type = 'source', event_time_field = timestamp);
";

fn car(id: i64, driver: i64, event: &str) -> RawRecord {
    let text = |value: &str| Value::Text(value.into());
    let ts = Value::Int((START_MS + i128::from(id) * 1_000) * 1_000);
    RawRecord::insert(id as u64, vec![ts, Value::Int(driver.into()), text(event), text("somewhere")])
}

fn cars() -> MemoryConnectors {
    MemoryConnectors::new(7).with_source("cars", vec![car(0, 1, "pickup"), car(1, 2, "pickup"), car(2, 1, "dropoff"), car(3, 300, "dropoff")])
}

/// What a sink was given, as (row, diff).
fn written(connectors: &MemoryConnectors, sink: &str) -> Vec<(Vec<Value>, i64)> {
    let mut changes: Vec<_> = connectors.sink(sink).into_iter().map(|change| (change.row, change.diff)).collect();
    changes.sort();
    changes
}

#[test]
fn arroyo_a_pipe_and_several_inserts_into_one_sink_of_other_types() {
    let text = format!(
        "{CARS}
        CREATE TABLE pickups (driver_id BIGINT, kind TEXT);
        CREATE TABLE out (driver INT, what VARCHAR, extra DOUBLE) WITH (connector = 'memory', format = 'json', type = 'sink');
        INSERT INTO pickups SELECT driver_id, event_type FROM cars WHERE event_type == 'pickup';
        INSERT INTO pickups VALUES (77, 'constant');
        INSERT INTO out (what, driver) SELECT kind, driver_id FROM pickups;
        INSERT INTO out SELECT driver_id, location, '1.5' FROM cars WHERE event_type = 'dropoff';"
    );
    let connectors = cars();
    let program = program(&text, &connectors);
    let engine = run(&program, &connectors, EngineConfig { workers: 2, cut: StepCut::Epochs(1), ..EngineConfig::default() });
    engine.shutdown().unwrap();
    let row = |driver: i128, what: &str, extra: Value| (vec![Value::Int(driver), Value::Text(what.into()), extra], 1);
    let mut expected = vec![
        row(1, "pickup", Value::Null),
        row(2, "pickup", Value::Null),
        row(77, "constant", Value::Null),
        row(1, "somewhere", Value::Float(1.5)),
        row(300, "somewhere", Value::Float(1.5)),
    ];
    expected.sort();
    assert_eq!(written(&connectors, "out"), expected);
    assert_eq!(program.plan.sinks.len(), 1);
}

#[test]
fn arroyo_a_sink_without_columns_has_those_of_what_is_inserted() {
    let text = format!(
        "{CARS}
        CREATE TABLE out WITH (connector = 'memory', format = 'debezium_json', type = 'sink');
        INSERT INTO out SELECT event_type AS kind, count(*) AS \"count\" FROM cars GROUP BY 1"
    );
    let connectors = cars();
    let program = program(&text, &connectors);
    assert_eq!(program.plan.sinks[0].schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["kind", "count"]);
    let engine = run(&program, &connectors, EngineConfig::default());
    engine.shutdown().unwrap();
    let total: i64 = written(&connectors, "out").into_iter().map(|(_, diff)| diff).sum();
    assert_eq!(total, 2);
}

#[test]
fn flink_a_table_without_type_is_a_sink_if_something_is_inserted_into_it() {
    let text = format!(
        "{CARS}
        CREATE TABLE `out` (`driver` BIGINT, `rows` BIGINT, PRIMARY KEY (`driver`) NOT ENFORCED) WITH ('connector' = 'memory', 'format' = 'upsert-json');
        INSERT INTO `out` SELECT driver_id, count(*) FROM cars GROUP BY driver_id"
    );
    let program = program(&text, &cars());
    let sink = &program.plan.sinks[0];
    assert_eq!((sink.name.as_str(), sink.format, &sink.key[..]), ("out", Format::Upsert, &[0][..]));
    assert_eq!(program.plan.sources.len(), 1);
}

#[test]
fn c3_a_computed_event_time_gives_the_epoch_and_a_record_without_one_is_a_dead_letter() {
    let text = "SET clock = 'event';
        CREATE TABLE s (id BIGINT, said VARCHAR, ts AS CAST(said AS TIMESTAMP), WATERMARK FOR ts AS (ts - INTERVAL '5' SECOND), double BIGINT GENERATED ALWAYS AS (id * 2) STORED)
          WITH (connector = 'memory', format = 'json');
        CREATE MATERIALIZED VIEW v AS SELECT * FROM s";
    let record = |offset: u64, said: &str| RawRecord::insert(offset, vec![Value::Int(offset.into()), Value::Text(said.into())]);
    let connectors =
        MemoryConnectors::new(3).with_source("s", vec![record(0, "2025-01-01 00:00:00"), record(1, "soon"), record(2, "2025-01-01 00:00:07.5")]);
    let program = program(text, &connectors);
    assert_eq!(program.plan.sources[0].watermark_delay_ms, 5_000);
    let engine = run(&program, &connectors, EngineConfig { cut: StepCut::Epochs(1), ..EngineConfig::default() });
    assert_eq!(rows(&engine, "v"), ["0|2025-01-01 00:00:00|2025-01-01 00:00:00|0", "2|2025-01-01 00:00:07.5|2025-01-01 00:00:07.5|4"]);
    let first = engine.reader().snapshot(&["v"], Some(Epoch(START_MS as u64))).unwrap();
    assert_eq!(first.views[0].iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    let letters = engine.reader().snapshot(&["dead_letters(s)"], None).unwrap();
    let letter = &letters.views[0][0];
    assert_eq!(display::text(letter.column_by_name("field").unwrap(), 0).unwrap().as_deref(), Some("ts"));
    engine.shutdown().unwrap();
}

fn options(text: &str) -> (CreateSource, BTreeMap<String, String>) {
    let statements = parse_script("t.sql", text, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
    let Stmt::CreateSource(create) = statements.into_iter().next().unwrap().body else { panic!("{text}") };
    let pair = |option: &OptionEntry| (option.name.clone(), option.value.text());
    let options = create.options.iter().map(pair).collect();
    (create, options)
}

#[test]
fn flink_options_of_kafka_are_read_in_our_words() {
    let (create, found) = options(
        "CREATE TABLE orders (id BIGINT COMMENT 'its number', price DECIMAL(10, 2), ts TIMESTAMP(3), proc AS id + 1, p INT METADATA FROM 'partition' VIRTUAL,
         WATERMARK FOR ts AS ts - INTERVAL '5' SECOND, PRIMARY KEY (id) NOT ENFORCED) WITH (
         'connector' = 'upsert-kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'a:9092', 'properties.group.id' = 'g',
         'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '5', 'format' = 'json', 'json.ignore-parse-errors' = 'true',
         'json.fail-on-missing-field' = 'false')",
    );
    let wanted = [
        ("bad_data", "drop"),
        ("connector", "kafka"),
        ("properties.bootstrap.servers", "a:9092"),
        ("properties.group.id", "g"),
        ("scan.startup.mode", "timestamp"),
        ("scan.startup.timestamp.millis", "5"),
        ("topic", "orders"),
    ];
    assert_eq!(found, wanted.map(|(name, value)| (name.to_string(), value.to_string())).into());
    assert_eq!((create.role, create.encoding.unwrap().format), (Role::Either, Format::Upsert));
    assert_eq!((create.computed.len(), create.metadata.len()), (1, 1));
}

#[test]
fn arroyo_options_of_files_and_times_are_read_in_our_words() {
    let (create, found) = options(
        "CREATE TABLE impulse_source (timestamp TIMESTAMP, counter BIGINT UNSIGNED NOT NULL, wm TIMESTAMP GENERATED ALWAYS AS (timestamp - INTERVAL '1 minute') STORED)
         WITH (connector = 'single_file', path = '/x.json', format = 'json', type = 'source', event_time_field = 'timestamp', watermark_field = 'wm', wait_for_control = 'false')",
    );
    assert_eq!(found, [("connector", "file"), ("path", "/x.json")].map(|(name, value)| (name.to_string(), value.to_string())).into());
    assert_eq!(create.watermark.unwrap().delay.unwrap().ms(), 60_000);
    assert_eq!(create.role, Role::Source);
}

#[test]
fn a_dropped_declaration_is_as_if_it_had_never_been() {
    let text = format!(
        "{ACCOUNTS} CREATE VIEW big AS SELECT * FROM totals WHERE total > 10; DROP VIEW big; DROP MATERIALIZED VIEW totals; DROP TABLE IF EXISTS none"
    );
    let left = program(&text, &MemoryConnectors::new(0));
    assert_eq!(left.plan.views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["accounts"]);
    assert!(!left.plan.nodes.iter().any(|node| matches!(node.op, Op::Aggregate { .. })));
    ends_as(&text, "accounts", &["1|ann|10|NULL", "2|bob|20|NULL", "3|ann|5|NULL"]);
    let all = program(&format!("{ACCOUNTS} DROP TABLE accounts CASCADE; CREATE TABLE accounts (x INT)"), &MemoryConnectors::new(0));
    assert_eq!(all.plan.views.len(), 1);
    assert_eq!(all.plan.sources[0].rows.len(), 0);
}

#[test]
fn what_others_need_is_dropped_only_with_them() {
    let error = |statement: &str| refused(&format!("{}\n{statement}", ACCOUNTS.trim()));
    for (statement, wanted) in [
        (
            "DROP TABLE accounts",
            "t.sql:5:12: accounts cannot be dropped, since others need it: materialized view totals\n  help: DROP TABLE accounts CASCADE drops them, too",
        ),
        ("DROP VIEW totals", "t.sql:5:11: totals is a materialized view\n  help: DROP MATERIALIZED VIEW totals"),
        ("DROP TABLE acounts", "t.sql:5:12: there is no table named acounts\n  help: did you mean accounts?"),
        ("DROP TABEL accounts", "t.sql:5:6: DROP TABEL is unknown\n  help: did you mean DROP TABLE?"),
    ] {
        let found = error(statement);
        assert!(found.starts_with(wanted), "{statement}\n{found}");
    }
}
