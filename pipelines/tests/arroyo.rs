//! Whole files in Arroyo's spelling, from a JSON file to a JSON file: every form of its own smoke tests, over other data.

use std::collections::BTreeMap;
use std::path::Path;

use freshet_connectors::BuiltIn;
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{Script, compile};
use serde_json::{Value, json};

/// Eight trips of three drivers within three hours.
const TRIPS: &str = r#"{"timestamp": "2024-03-01T08:05:00", "driver_id": 1, "event_type": "pickup", "location": "north"}
{"timestamp": "2024-03-01T08:20:00", "driver_id": 1, "event_type": "dropoff", "location": "south"}
{"timestamp": "2024-03-01T08:50:00", "driver_id": 2, "event_type": "pickup", "location": "south"}
{"timestamp": "2024-03-01T09:10:00", "driver_id": 2, "event_type": "dropoff", "location": "east"}
{"timestamp": "2024-03-01T09:15:00", "driver_id": 1, "event_type": "pickup", "location": "south"}
{"timestamp": "2024-03-01T09:40:00", "driver_id": 3, "event_type": "pickup", "location": null}
{"timestamp": "2024-03-01T10:30:00", "driver_id": 3, "event_type": "dropoff", "location": "north"}
{"timestamp": "2024-03-01T10:45:00", "driver_id": 1, "event_type": "dropoff", "location": "north"}
"#;

/// Orders that are changed and taken back.
const ORDERS: &str = r#"{"before": null, "after": {"id": 1, "product_name": "tea", "quantity": 2, "price": 1.5, "status": "new"}, "op": "c"}
{"before": null, "after": {"id": 2, "product_name": "tea", "quantity": 1, "price": 1.5, "status": "new"}, "op": "r"}
{"before": null, "after": {"id": 3, "product_name": "mug", "quantity": 4, "price": 8.0, "status": "new"}, "op": "c"}
{"before": {"id": 2, "product_name": "tea", "quantity": 1, "price": 1.5, "status": "new"}, "after": {"id": 2, "product_name": "tea", "quantity": 9, "price": 1.5, "status": "paid"}, "op": "u"}
{"before": {"id": 3, "product_name": "mug", "quantity": 4, "price": 8.0, "status": "new"}, "after": null, "op": "d"}
"#;

const CARS: &str = "CREATE TABLE cars (timestamp TIMESTAMP, driver_id BIGINT, event_type TEXT, location TEXT)
  WITH (connector = 'single_file', path = '${in}/trips.json', format = 'json', type = 'source', event_time_field = 'timestamp');";
const IMPULSE: &str = "CREATE TABLE impulse_source (timestamp TIMESTAMP, counter bigint unsigned not null, subtask_index bigint unsigned not null)
  WITH (connector = 'single_file', path = '${in}/impulse.json', format = 'json', type = 'source', event_time_field = 'timestamp');";

/// A sink of these columns.
fn into(columns: &str, format: &str) -> String {
    format!("CREATE TABLE out {columns} WITH (connector = 'single_file', path = '${{out}}', format = '{format}', type = 'sink');")
}

/// Twelve ticks a second apart, then three after a minute.
fn impulse() -> String {
    let tick = |counter: u64| {
        let (minute, second) = if counter < 12 { (0, counter) } else { (1, counter) };
        format!("{{\"timestamp\": \"2024-03-01T08:{minute:02}:{second:02}\", \"counter\": {counter}, \"subtask_index\": {}}}\n", counter % 2)
    };
    (0..15).map(tick).collect()
}

/// The rows that the sink holds in the end.
fn written(file: &Path, debezium: bool) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if !debezium {
            *counts.entry(line.to_string()).or_default() += 1;
            continue;
        }
        for (side, diff) in [("before", -1), ("after", 1)] {
            if let Some(row) = line.get(side).filter(|row| !row.is_null()) {
                *counts.entry(row.to_string()).or_default() += diff;
            }
        }
    }
    assert!(counts.values().all(|count| *count >= 0), "{text}");
    counts.into_iter().flat_map(|(row, count)| vec![serde_json::from_str(&row).unwrap(); count as usize]).collect()
}

fn ends_as(name: &str, text: &str, expected: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in [("trips.json", TRIPS), ("orders.json", ORDERS), ("impulse.json", &impulse())] {
        std::fs::write(folder.path().join(file), content).unwrap();
    }
    let out = folder.path().join("out.json");
    let variables = [("in", folder.path()), ("out", &out)].map(|(name, path)| (name.to_string(), path.display().to_string()));
    let script = Script { name: format!("{name}.sql"), text: format!("SET clock = 'event';\n{text}") };
    let program = compile(&[script], &variables.into(), &BuiltIn).unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::start(program.plan, EngineConfig { workers: 2, ..EngineConfig::default() }, &BuiltIn).unwrap();
    engine.wait().unwrap();
    let reader = engine.reader();
    engine.shutdown().unwrap();
    let status = reader.status();
    assert!(status.sources.iter().all(|source| source.dead_letters.is_empty()), "{name}: {:?}", status.sources);
    let mut expected: Vec<String> = expected.iter().map(Value::to_string).collect();
    let mut found: Vec<String> = written(&out, text.contains("debezium_json', type = 'sink'")).iter().map(Value::to_string).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn arroyo_rows_pass_from_file_to_file() {
    let out = into("(timestamp TIMESTAMP, driver_id TEXT, location TEXT)", "json");
    ends_as(
        "several inserts, types of the sink",
        &format!(
            "{CARS} {out} INSERT INTO out SELECT timestamp, driver_id, location FROM cars WHERE driver_id = 3 AND event_type == 'pickup';
             INSERT INTO out SELECT timestamp, driver_id, location FROM cars WHERE driver_id = 2 AND event_type = 'dropoff'"
        ),
        &[
            json!({"timestamp": "2024-03-01T09:40:00.000000Z", "driver_id": "3", "location": null}),
            json!({"timestamp": "2024-03-01T09:10:00.000000Z", "driver_id": "2", "location": "east"}),
        ],
    );
    let out = into("(driver_id BIGINT, event_type TEXT,)", "json");
    ends_as(
        "a pipe, and commas at the end",
        &format!(
            "{CARS} CREATE TABLE memory (event_type TEXT, location TEXT, driver_id BIGINT,); {out}
             INSERT INTO memory SELECT event_type, location, driver_id AS other_driver_id FROM cars;
             INSERT INTO out SELECT driver_id AS other_driver_id, event_type FROM memory WHERE location = 'east'"
        ),
        &[json!({"driver_id": 2, "event_type": "dropoff"})],
    );
    let sources = IMPULSE.to_string() + &IMPULSE.replace("impulse_source", "second_source");
    let out = into("(counter bigint, source text)", "json");
    ends_as(
        "two sources of one file",
        &format!(
            "{sources} {out} INSERT INTO out SELECT counter, 'first' as source FROM impulse_source WHERE counter < 1
             UNION ALL SELECT counter, 'second' as source FROM second_source WHERE counter < 1"
        ),
        &[json!({"counter": 0, "source": "first"}), json!({"counter": 0, "source": "second"})],
    );
    let out = into("(user_id TEXT)", "json");
    ends_as(
        "a text beside a number",
        &format!(
            "{} {out} INSERT INTO out SELECT driver_id FROM cars WHERE driver_id != 1 AND event_type = 'pickup'",
            CARS.replace("driver_id BIGINT", "driver_id TEXT").replace("trips.json", "texts.json")
        )
        .replace("texts.json", "trips.json")
        .replace("driver_id TEXT, event", "driver_id BIGINT, event"),
        &[json!({"user_id": "2"}), json!({"user_id": "3"})],
    );
}

#[test]
fn arroyo_a_record_without_structure_is_one_json_column() {
    let out = into("", "json");
    ends_as(
        "unstructured",
        &format!(
            "CREATE TABLE cars (value JSON) WITH (connector = 'single_file', path = '${{in}}/trips.json', format = 'json', type = 'source', 'json.unstructured' = 'true');
             {out} INSERT INTO out SELECT 'test' as a, value->'driver_id' as b, value->>'event_type' as c, value->'not_a_field' as d FROM cars WHERE value->>'location' = 'east'"
        ),
        &[json!({"a": "test", "b": "2", "c": "dropoff", "d": null})],
    );
}

#[test]
fn arroyo_updating_queries_write_changes() {
    let orders = "CREATE TABLE orders (id INT PRIMARY KEY, product_name TEXT, quantity INTEGER, price FLOAT, status TEXT)
        WITH (connector = 'single_file', path = '${in}/orders.json', format = 'debezium_json', type = 'source');";
    let out = into("(id INT PRIMARY KEY, product_name TEXT, quantity INTEGER, price FLOAT, status TEXT)", "debezium_json");
    ends_as(
        "pass through",
        &format!("{orders} {out} INSERT INTO out SELECT * FROM orders"),
        &[
            json!({"id": 1, "product_name": "tea", "quantity": 2, "price": 1.5, "status": "new"}),
            json!({"id": 2, "product_name": "tea", "quantity": 9, "price": 1.5, "status": "paid"}),
        ],
    );
    let out = into("(id TEXT PRIMARY KEY, c INT, q INT)", "debezium_json");
    ends_as(
        "an aggregate of changes",
        &format!(
            "{orders} {out} INSERT INTO out SELECT concat('p_', product_name), count(*), sum(quantity + 5) + 10 FROM orders
             GROUP BY concat('p_', product_name)"
        ),
        &[json!({"id": "p_tea", "c": 2, "q": 31})],
    );
    let out = into("(drivers BIGINT)", "debezium_json");
    ends_as(
        "an aggregate over an updating one",
        &format!("{CARS} {out} insert into out select count(*) from (select driver_id, count(*) from cars group by driver_id having count(*) > 3)"),
        &[json!({"drivers": 1})],
    );
    let out = into("(min BIGINT, max BIGINT, sum BIGINT, count BIGINT, avg DOUBLE)", "debezium_json");
    ends_as(
        "names of functions as columns",
        &format!("{IMPULSE} {out} INSERT INTO out SELECT min(counter), max(counter), sum(counter), count(*), avg(counter) FROM impulse_source"),
        &[json!({"min": 0, "max": 14, "sum": 105, "count": 15, "avg": 7.0})],
    );
    let out = into("(bucket BIGINT PRIMARY KEY, row_count BIGINT, value_count BIGINT, sum BIGINT)", "debezium_json");
    ends_as(
        "a WITH behind INSERT INTO",
        &format!(
            "{IMPULSE} {out} INSERT INTO out
             WITH nullable_values AS (SELECT counter % 3 AS bucket, CASE WHEN counter % 3 = 0 THEN NULL ELSE CAST(counter AS BIGINT) END AS value FROM impulse_source)
             SELECT bucket, COUNT(*), COUNT(value), SUM(value) FROM nullable_values GROUP BY bucket"
        ),
        &[
            json!({"bucket": 0, "row_count": 5, "value_count": 0, "sum": null}),
            json!({"bucket": 1, "row_count": 5, "value_count": 5, "sum": 35}),
            json!({"bucket": 2, "row_count": 5, "value_count": 5, "sum": 40}),
        ],
    );
    let out = into("(left_counter bigint, counter_mod_2 bigint, right_count bigint)", "debezium_json");
    let counted =
        "(select counter % 2 as counter_mod_2, cast(count(*) as bigint UNSIGNED) as right_count from impulse_source where counter < 3 group by 1)";
    ends_as(
        "a full join with what changes",
        &format!(
            "{IMPULSE} {out} INSERT INTO out select counter as left_counter, counter_mod_2, right_count from impulse_source full outer join {counted}
             on counter = right_count where counter < 3"
        ),
        &[
            json!({"left_counter": 0, "counter_mod_2": null, "right_count": null}),
            json!({"left_counter": 1, "counter_mod_2": 1, "right_count": 1}),
            json!({"left_counter": 2, "counter_mod_2": 0, "right_count": 2}),
        ],
    );
    let out = into("", "debezium_json");
    ends_as(
        "every aggregate",
        &format!(
            "{CARS} {out} INSERT INTO out SELECT event_type, round(avg(driver_id), 4) AS avg_driver, bit_and(driver_id) AS bit_and_driver,
             bit_or(driver_id) AS bit_or_driver, bit_xor(driver_id) AS bit_xor_driver, bool_and(driver_id > 0) AS bool_and_driver, bool_or(driver_id > 2) AS bool_or_driver,
             median(driver_id) AS median_driver, round(stddev_pop(driver_id), 4) AS stddev, round(var(driver_id), 4) AS var_driver,
             round(regr_count(driver_id, extract(epoch FROM timestamp)), 4) AS regr_count, round(corr(driver_id, driver_id), 4) AS corr_driver,
             approx_distinct(driver_id) AS distinct_driver FROM cars GROUP BY event_type"
        ),
        &[
            json!({"event_type": "pickup", "avg_driver": 1.75, "bit_and_driver": 0, "bit_or_driver": 3, "bit_xor_driver": 1, "bool_and_driver": true, "bool_or_driver": true,
                "median_driver": 1.5, "stddev": 0.8292, "var_driver": 0.9167, "regr_count": 4, "corr_driver": 1.0, "distinct_driver": 3}),
            json!({"event_type": "dropoff", "avg_driver": 1.75, "bit_and_driver": 0, "bit_or_driver": 3, "bit_xor_driver": 1, "bool_and_driver": true, "bool_or_driver": true,
                "median_driver": 1.5, "stddev": 0.8292, "var_driver": 0.9167, "regr_count": 4, "corr_driver": 1.0, "distinct_driver": 3}),
        ],
    );
}

#[test]
fn arroyo_windows_are_closed_by_the_end_of_a_file() {
    let hour = |hour: u32| format!("2024-03-01T{hour:02}:00:00.000000Z");
    let out = into("(event_type TEXT, hour TIMESTAMP, count BIGINT)", "json");
    ends_as(
        "by ordinal, of a subquery",
        &format!(
            "{CARS} {out} INSERT INTO out SELECT event_type, window.start as hour, count FROM
             (SELECT event_type, TUMBLE(INTERVAL '1' HOUR) as window, COUNT(*) as count FROM cars WHERE event_type = 'pickup' GROUP BY 1,2)"
        ),
        &[json!({"event_type": "pickup", "hour": hour(8), "count": 2}), json!({"event_type": "pickup", "hour": hour(9), "count": 2})],
    );
    let out = into("(timestamp TIMESTAMP, count BIGINT)", "json");
    ends_as(
        "through a view, with a watermark_field",
        &format!(
            "CREATE TABLE cars (timestamp TIMESTAMP, driver_id BIGINT, event_type TEXT, location TEXT, watermark TIMESTAMP GENERATED ALWAYS AS (timestamp - INTERVAL '1 minute') STORED)
             WITH (connector = 'single_file', path = '${{in}}/trips.json', format = 'json', type = 'source', event_time_field = 'timestamp', watermark_field = 'watermark');
             {out} CREATE VIEW group_by_view AS (SELECT window.end as timestamp, count FROM (SELECT TUMBLE(INTERVAL '1' hour) as window, COUNT(*) as count FROM cars GROUP BY 1));
             INSERT INTO out SELECT timestamp, count FROM group_by_view"
        ),
        &[
            json!({"timestamp": hour(9), "count": 3}),
            json!({"timestamp": hour(10), "count": 3}),
            json!({"timestamp": hour(11), "count": 2}),
        ],
    );
    let out = into("(start timestamp, end timestamp, rows bigint)", "json");
    let session = |second: &str, rows: u32, start: &str| json!({"start": start, "end": second, "rows": rows});
    ends_as(
        "a session of all rows",
        &format!(
            "{} {out} INSERT INTO out SELECT window.start, window.end, rows FROM
             (SELECT SESSION(INTERVAL '20 seconds') AS window, COUNT(*) AS rows FROM impulse_source GROUP BY window)",
            IMPULSE.replace(")\n  WITH", ", WATERMARK FOR timestamp)\n  WITH").replace(", event_time_field = 'timestamp'", "")
        ),
        &[
            session("2024-03-01T08:00:31.000000Z", 12, "2024-03-01T08:00:00.000000Z"),
            session("2024-03-01T08:01:34.000000Z", 3, "2024-03-01T08:01:12.000000Z"),
        ],
    );
    let out = into("(user_id bigint, rows bigint)", "json");
    ends_as(
        "a session by an alias of an expression",
        &format!(
            "{IMPULSE} {out} INSERT INTO out SELECT user_id, rows FROM (SELECT SESSION(interval '20 seconds') as window,
             CASE WHEN counter % 5 = 0 THEN 0 ELSE 1 END as user_id, count(*) as rows FROM impulse_source GROUP BY window, user_id)"
        ),
        &[json!({"user_id": 0, "rows": 3}), json!({"user_id": 1, "rows": 9}), json!({"user_id": 1, "rows": 3})],
    );
}

#[test]
#[ignore = "has not passed yet: a rank of each window and a join of windows cannot be written by FORMAT PLAIN"]
fn arroyo_windows_below_ranks_and_joins() {
    let hour = |hour: u32| format!("2024-03-01T{hour:02}:00:00.000000Z");
    let out = into("(start TIMESTAMP, driver_id BIGINT, count BIGINT, row_number BIGINT)", "json");
    ends_as(
        "the first of each window",
        &format!(
            "{CARS} {out} INSERT INTO out SELECT window.start, driver_id, count, row_number FROM (
             SELECT *, ROW_NUMBER() OVER (PARTITION BY window ORDER BY count DESC, driver_id desc) as row_number FROM (
             SELECT driver_id, hop(INTERVAL '1' hour, INTERVAL '1' hour ) as window, count(*) as count FROM cars GROUP BY 1,2)) where row_number = 1"
        ),
        &[
            json!({"start": hour(8), "driver_id": 1, "count": 2, "row_number": 1}),
            json!({"start": hour(9), "driver_id": 3, "count": 1, "row_number": 1}),
            json!({"start": hour(10), "driver_id": 3, "count": 1, "row_number": 1}),
        ],
    );
    let out = into("(start timestamp, counter bigint)", "json");
    ends_as(
        "a join of windows",
        &format!(
            "{IMPULSE} {out} INSERT INTO out SELECT window.start, a.counter as counter
             FROM (SELECT TUMBLE(interval '1 second'), counter, count(*) FROM impulse_source GROUP BY 1,2) a
             JOIN (SELECT TUMBLE(interval '1 second') as window, counter , count(*) FROM impulse_source GROUP BY 1,2) b
             ON a.counter = b.counter WHERE a.counter = 3"
        ),
        &[json!({"start": "2024-03-01T08:00:03.000000Z", "counter": 3})],
    );
    let out = into("(hour TIMESTAMP, dropoffs BIGINT, pickups BIGINT)", "json");
    let of = |event: &str| {
        format!(
            "(SELECT TUMBLE(INTERVAL '1' hour) as window, COUNT(distinct driver_id) as {event}_drivers FROM cars where event_type = '{event}' GROUP BY 1) {event}s"
        )
    };
    ends_as(
        "a full join of windows",
        &format!(
            "{CARS} {} INSERT INTO out SELECT window.start as hour, dropoff_drivers, pickup_drivers FROM (
             SELECT dropoffs.window as window, dropoff_drivers, pickup_drivers FROM {} FULL OUTER JOIN {} ON dropoffs.window.start = pickups.window.start)",
            out.replace("format = 'json'", "format = 'debezium_json'"),
            of("dropoff"),
            of("pickup")
        ),
        &[
            json!({"hour": hour(8), "dropoffs": 1, "pickups": 2}),
            json!({"hour": hour(9), "dropoffs": 1, "pickups": 2}),
            json!({"hour": hour(10), "dropoffs": 2, "pickups": null}),
        ],
    );
    let out = into("(auction BIGINT, count INT)", "debezium_json");
    let counts = "(SELECT subtask_index AS auction, count(*) AS num, hop(interval '20 seconds', interval '20 seconds') as window FROM impulse_source GROUP BY auction, window)";
    ends_as(
        "the best of each window",
        &format!(
            "{IMPULSE} {out} INSERT INTO out SELECT AuctionBids.auction, AuctionBids.num FROM {counts} AS AuctionBids
             JOIN (SELECT max(CountBids.num) AS maxn, CountBids.window FROM {counts} AS CountBids GROUP BY CountBids.window) AS MaxBids
             ON AuctionBids.window = MaxBids.window AND AuctionBids.num >= MaxBids.maxn"
        ),
        &[json!({"auction": 0, "count": 6}), json!({"auction": 1, "count": 6}), json!({"auction": 0, "count": 2})],
    );
    let out = into("(counter bigint unsigned not null,)", "json");
    ends_as(
        "what a window gathers, one by one",
        &format!(
            "{IMPULSE} {out} CREATE VIEW unnest_view AS SELECT unnest(counters) as counter FROM (
             SELECT array_agg(counter) as counters, tumble(interval '1 day') FROM impulse_source WHERE counter > 12 GROUP BY tumble(interval '1 day'));
             INSERT INTO out SELECT counter FROM unnest_view"
        ).replace("format = 'json', type = 'sink'", "format = 'debezium_json', type = 'sink'"),
        &[json!({"counter": 13}), json!({"counter": 14})],
    );
    let out = into("", "debezium_json");
    ends_as(
        "a window over windows",
        &format!(
            "{CARS} {out} INSERT INTO out SELECT window.start as start, window.end as end, drivers FROM (
             SELECT tumble(interval '1 hour') as window, count(distinct driver_id) as drivers FROM (
             SELECT driver_id, count(*) as pickups FROM cars where event_type = 'pickup' GROUP BY 1,tumble(interval '1 hour')) WHERE pickups > 0 GROUP BY 1)"
        ),
        &[json!({"start": hour(8), "end": hour(9), "drivers": 2}), json!({"start": hour(9), "end": hour(10), "drivers": 2})],
    );
}
