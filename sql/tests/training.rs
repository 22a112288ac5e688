//! Training sets: what their plans are, which sources may be read in part, and that the rows are the stream's own.

use std::collections::BTreeMap;

use freshet_core::{Epoch, LookupTime, Op, Plan};
use freshet_sql::{Program, skippable_sources};

use crate::given::{program, refused};

const ONE: &str = "CREATE FEATURE SERVICE one AS (customer_load);
CREATE FEATURE SERVICE two REQUEST (items INT) AS (customer_load, shop_last, items AS wanted);";

const SET: &str = "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (good) AS SELECT o.id, o.ts, f.*, (c.score > 0.5) AS good
FROM orders o JOIN customers c USING (customer) LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF arrival(o) AS f USING (customer)";

fn with(text: &str) -> Program {
    program(&format!("{ONE}\n{text}"))
}

fn plan(text: &str, from: u64, until: u64) -> Plan {
    let program = with(text);
    program.training_plan("t", Some(Epoch(from)), Some(Epoch(until))).unwrap()
}

fn refusal(text: &str) -> String {
    refused(&format!("CREATE FEATURE SERVICE one AS (customer_load);\n{text}"))
}

#[test]
fn a_training_set_is_a_plan_of_its_own_with_one_view() {
    let program = with(SET);
    let plan = program.training_plan("t", None, None).unwrap();
    plan.validate().unwrap();
    assert_eq!(plan.views.len(), 1);
    assert_eq!(plan.views[0].name, "t");
    let names: Vec<&str> = plan.views[0].schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "ts", "orders_1h", "orders_24h", "amount_1h", "amount_24h", "good"]);
    assert_eq!(plan.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["customers", "orders"]);
    assert!(plan.sinks.is_empty() && plan.services.is_empty() && plan.models.is_empty() && plan.retraining.is_empty());
    assert!(program.plan.view("t").is_none(), "the pipeline does not keep its rows");
    assert_eq!(program.plan.training_sets[0].schema, plan.views[0].schema);
}

#[test]
fn the_lookup_stands_directly_above_the_rows_that_ask_and_the_range_below_it() {
    let text = freshet_core::explain(&plan(SET, 1_000, 2_000));
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in\n{text}"));
    assert!(place("= Filter") < place("= Lookup") && place("= Lookup") < place("= Join"), "{text}");
    assert!(text.contains("Filter [ts@5 >= 1000, ts@5 < 2000]"), "{text}");
}

#[test]
fn equal_texts_give_equal_training_plans() {
    assert_eq!(freshet_core::explain(&plan(SET, 1_000, 2_000)), freshet_core::explain(&plan(SET, 1_000, 2_000)));
    assert_ne!(freshet_core::explain(&plan(SET, 1_000, 2_000)), freshet_core::explain(&plan(SET, 1_000, 3_000)));
}

#[test]
fn names_and_order_of_columns_are_as_written() {
    let star = "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (vip) AS SELECT o.*, c.vip, f.status, f.wanted FROM orders o JOIN customers c
        ON c.customer = o.customer LEFT JOIN FEATURES(two) AS OF arrival(o) AS f ON f.customer = o.customer AND f.shop = o.shop AND f.items = o.items";
    let plan = with(star).training_plan("t", None, None).unwrap();
    let names: Vec<&str> = plan.views[0].schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "customer", "shop", "amount", "items", "ts", "vip", "status", "wanted"]);
}

/// The features have a column called items too; the join below the place where they are shown means the left side's.
#[test]
fn a_join_written_before_the_lookup_does_not_see_its_columns() {
    let text = "CREATE FEATURE SERVICE clash REQUEST (items INT) AS (customer_load, items);
        CREATE TRAINING SET t ID (id) TIME (ts) LABEL (vip) AS SELECT o.id, o.ts, c.vip, f.items FROM orders o JOIN customers c
        ON items = c.score LEFT JOIN FEATURES(clash) AS OF arrival(o) AS f USING (customer, items)";
    // The left side's customer is not alone: c has one as well, but the lookup is as of o.
    with(text).training_plan("t", None, None).unwrap();
}

#[test]
fn two_lookups_of_two_relations_are_answered_above_each() {
    let text = "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (vip) AS SELECT o.id, o.ts, c.vip, f.orders_1h, g.orders_1h AS other
        FROM orders o JOIN customers c ON o.customer = c.customer
        LEFT JOIN FEATURES(one) AS OF arrival(o) AS f ON f.customer = o.customer
        LEFT JOIN FEATURES(one) AS OF arrival(c) AS g ON g.customer = c.customer
        LEFT JOIN FEATURES(one) AS OF arrival(o) AS h ON h.customer = o.shop";
    let plan = with(text).training_plan("t", None, None).unwrap();
    let lookups: Vec<usize> = (0..plan.nodes.len()).filter(|index| matches!(plan.nodes[*index].op, Op::Lookup { .. })).collect();
    let join = (0..plan.nodes.len()).find(|index| matches!(plan.nodes[*index].op, Op::Join { .. })).unwrap();
    assert!(lookups.len() >= 2 && lookups.iter().all(|lookup| *lookup < join), "{}", freshet_core::explain(&plan));
}

#[test]
fn t4_the_instant_is_a_column_or_the_arrival_in_each_mode() {
    let at = |mode: &str, time: &str| {
        let text = format!(
            "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (vip) WITH (mode = '{mode}') AS SELECT o.id, o.ts, c.vip, f.orders_1h
             FROM orders o JOIN customers c ON o.customer = c.customer LEFT JOIN FEATURES(one) AS OF {time} AS f ON f.customer = o.customer"
        );
        let plan = with(&text).training_plan("t", None, None).unwrap();
        plan.nodes
            .iter()
            .find_map(|node| if let Op::Lookup { at, .. } = &node.op { Some((*at, plan.node(node.inputs[0]).schema.clone())) } else { None })
    };
    assert_eq!(at("event_time", "arrival(o)").unwrap().0, LookupTime::EventTime { column: None });
    assert_eq!(at("as_served", "arrival(o)").unwrap().0, LookupTime::Now);
    let (time, schema) = at("event_time", "o.ts").unwrap();
    let LookupTime::EventTime { column: Some(column) } = time else { panic!("{time:?}") };
    assert_eq!(schema.field(column).name(), "ts");
    let (time, schema) = at("as_served", "o.ts").unwrap();
    let LookupTime::AsServed { column } = time else { panic!("{time:?}") };
    assert_eq!(schema.field(column).name(), "ts");
}

#[test]
fn what_a_training_set_cannot_ask_is_refused_with_the_way_out() {
    let set = |time: &str, on: &str| {
        refusal(&format!(
            "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (vip) AS SELECT o.id, o.ts, c.vip, f.orders_1h
             FROM orders o JOIN customers c ON o.customer = c.customer LEFT JOIN FEATURES(one) AS OF {time} AS f ON f.customer = {on}"
        ))
    };
    for (time, on, expected) in [
        ("now()", "o.customer", "a training set has no now()"),
        ("TIMESTAMP '2025-01-01'", "o.customer", "as_served answers as of the row's arrival"),
        ("o.amount", "o.customer", "a lookup answers at a TIMESTAMP"),
        ("f.event_time", "o.customer", "there is no relation f"),
        ("c.since", "o.customer", "come from c, not from o"),
        ("arrival(x)", "o.customer", "there is no relation x"),
        ("arrival(f)", "o.customer", "there is no relation f"),
        ("arrival(o)", "c.customer", "come from o, not from c"),
        ("arrival(o, c)", "o.customer", "as_served answers as of the row's arrival"),
    ] {
        let found = set(time, on);
        assert!(found.contains(expected) && found.contains("help: "), "{time}: {found}");
        assert!(found.starts_with("3:"), "{time}: {found}");
    }
    let unknown = set("o.shipped", "o.customer");
    assert!(unknown.starts_with("3:") && unknown.contains("shipped"), "{unknown}");
    let selected = refusal("CREATE TRAINING SET t ID (id) TIME (ts) LABEL (items) AS SELECT id, ts, arrival(orders) AS a, items FROM orders");
    assert!(selected.contains("stands nowhere else"), "{selected}");
    let view = refusal("CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o LEFT JOIN FEATURES(one) AS OF arrival(o) AS f USING (customer)");
    assert!(view.contains("AS OF now() only"), "{view}");
    let now =
        refusal("CREATE TRAINING SET t ID (id) TIME (ts) LABEL (items) AS SELECT id, ts, items FROM orders WHERE ts > now() - INTERVAL '1 day'");
    assert!(now.contains("its rows are facts of the past"), "{now}");
}

#[test]
fn an_unknown_set_names_the_nearest() {
    let error = with(SET).training_plan("s", None, None).unwrap_err();
    assert_eq!(error.message, "there is no training set named s");
}

const QUESTIONS: &str =
    "CREATE SOURCE questions (id BIGINT, customer VARCHAR, asked TIMESTAMP(3), other TIMESTAMP(3), good BOOLEAN, WATERMARK FOR asked)
    WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;";

fn skippable(before: &str, set: &str) -> BTreeMap<String, u64> {
    let program = program(&format!("{QUESTIONS}\nCREATE FEATURE SERVICE one AS (customer_load);\n{before}\n{set}"));
    skippable_sources(&program.training_plan("t", Some(Epoch(1)), None).unwrap())
}

fn asking(time: &str, from: &str) -> String {
    format!(
        "CREATE TRAINING SET t ID (id) TIME ({time}) LABEL (good) AS SELECT q.id, q.asked, q.other, q.good, f.* FROM {from}
         LEFT JOIN FEATURES(one) AS OF arrival(q) AS f USING (customer)"
    )
}

#[test]
fn a_source_that_only_feeds_windows_may_begin_one_horizon_before_the_range() {
    assert_eq!(skippable("", &asking("asked", "questions q")), BTreeMap::from([("orders".to_string(), 2 * 86_400_000)]));
}

/// A lookup at TIME itself is within the range, one at another column may ask before it.
#[test]
fn at_a_column_something_is_skipped_only_if_the_column_is_time() {
    let set = |column: &str| asking("asked", "questions q").replace("arrival(q)", &format!("q.{column}"));
    assert_eq!(skippable("", &set("asked")), BTreeMap::from([("orders".to_string(), 2 * 86_400_000)]));
    assert!(skippable("", &set("other")).is_empty());
}

/// TIME is no bound of the instant that is asked for, unless it is the watermark of the rows that ask.
#[test]
fn nothing_is_skipped_where_time_says_nothing_about_arrival() {
    assert!(skippable("", &asking("other", "questions q")).is_empty());
    let arriving = "CREATE SOURCE told (id BIGINT, customer VARCHAR, asked TIMESTAMP(3), other TIMESTAMP(3), good BOOLEAN, WATERMARK FOR asked, ARRIVAL FOR other)
        WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;";
    assert!(skippable(arriving, &asking("asked", "told q")).is_empty());
    let other = "CREATE TRAINING SET t ID (id) TIME (asked) LABEL (good) AS SELECT q.id, q.asked, q.good, f.*
        FROM questions q JOIN customers c ON q.customer = c.customer LEFT JOIN FEATURES(one) AS OF arrival(c) AS f ON f.customer = c.customer";
    assert!(skippable("", other).is_empty());
}

#[test]
fn nothing_is_skipped_of_a_source_that_is_read_otherwise() {
    let joined = "CREATE TRAINING SET t ID (id) TIME (asked) LABEL (good) AS SELECT q.id, q.asked, q.good, f.*
        FROM questions q JOIN orders o ON q.id = o.id LEFT JOIN FEATURES(one) AS OF arrival(q) AS f ON f.customer = q.customer";
    assert!(skippable("", joined).is_empty());
    let streamed = "CREATE TRAINING SET t ID (id) TIME (asked) LABEL (good) AS SELECT q.id, q.asked, q.good, f.*, l.orders_1h AS now
        FROM questions q JOIN customer_load l ON q.customer = l.customer LEFT JOIN FEATURES(one) AS OF arrival(q) AS f ON f.customer = q.customer";
    assert!(skippable("", streamed).is_empty());
}

#[test]
fn nothing_is_skipped_of_a_source_whose_rows_are_remembered_or_told_late() {
    let view = |name: &str, of: &str, time: &str, clause: &str, select: &str| {
        format!(
            "CREATE FEATURE VIEW {name} ENTITY (customer) TIMESTAMP {time} {clause} AS SELECT customer, {select} FROM {of};
             CREATE FEATURE SERVICE other AS ({name});"
        )
    };
    let asked = "CREATE TRAINING SET t ID (id) TIME (asked) LABEL (good) AS SELECT q.id, q.asked, q.good, f.* FROM questions q
        LEFT JOIN FEATURES(other) AS OF arrival(q) AS f USING (customer)";
    let of = |text: String| skippable(&text, asked);
    assert_eq!(
        of(view("w", "orders WHERE amount > 1", "ts", "TTL INTERVAL '1 hour'", "amount")),
        BTreeMap::from([("orders".to_string(), 7_200_000)])
    );
    // Without TTL the last row counts for ever.
    assert!(of(view("w", "orders", "ts", "", "amount")).is_empty());
    // Retractions would find nothing.
    assert!(of(view("w", "customers", "since", "TTL INTERVAL '1 hour'", "score")).is_empty());
    // Another time may lie after the row's epoch.
    let twice = "CREATE SOURCE trips (customer VARCHAR, made TIMESTAMP(3), planned TIMESTAMP(3), WATERMARK FOR made) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;";
    assert!(of(format!("{twice}{}", view("w", "trips", "planned", "TTL INTERVAL '1 hour'", "made"))).is_empty());
    assert_eq!(
        of(format!("{twice}{}", view("w", "trips", "made", "TTL INTERVAL '1 hour'", "planned"))),
        BTreeMap::from([("trips".to_string(), 7_200_000)])
    );
}
