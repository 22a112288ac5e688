//! PREDICT and MODEL_VERSION: how arguments find their inputs, where calls may stand, and what plan they make.

use freshet_core::{Op, PredictCall, PredictOutput, PredictRoute};

use crate::given::{plan_of, program, refused};

const MODELS: &str = "CREATE FEATURE SERVICE one REQUEST (items INT) AS (customer_load, items);
CREATE MODEL late INPUT FEATURES one OUTPUT (p DOUBLE);
CREATE MODEL two INPUT (amount DOUBLE, items INT) OUTPUT (low DOUBLE, high DOUBLE);
CREATE MODEL pair INPUT (a DOUBLE, b DOUBLE) OUTPUT (c DOUBLE);";

fn calls(text: &str) -> Vec<PredictCall> {
    let program = program(&format!("{MODELS}\n{text}"));
    program.plan.validate().unwrap();
    let found = program.plan.nodes.iter().filter_map(|node| if let Op::Predict { calls } = &node.op { Some(calls.clone()) } else { None });
    found.flatten().collect()
}

/// For each argument of the only call, the name of the column it is.
fn arguments(text: &str) -> Vec<String> {
    let program = program(&format!("{MODELS}\n{text}"));
    let node = program.plan.nodes.iter().find(|node| matches!(node.op, Op::Predict { .. })).unwrap();
    let Op::Predict { calls } = &node.op else { unreachable!() };
    assert_eq!(calls.len(), 1, "{}", freshet_core::explain(&program.plan));
    let schema = &program.plan.node(node.inputs[0]).schema;
    calls[0].arguments.iter().map(|column| schema.field(*column).name().clone()).collect()
}

fn columns(text: &str) -> Vec<String> {
    let program = program(&format!("{MODELS}\n{text}"));
    program.plan.view("v").unwrap().schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
}

fn refusal(text: &str) -> String {
    refused(&format!("{MODELS}\n{text}"))
}

const LOOKUP: &str = "FROM orders o LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF now() AS f USING (customer, items)";

#[test]
fn all_features_of_a_lookup_are_one_argument() {
    let text = format!("CREATE MATERIALIZED VIEW v AS SELECT o.id, f.*, PREDICT(late, f.*) AS score, MODEL_VERSION(late) AS version {LOOKUP}");
    let found = calls(&text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].output, found[0].arguments.len(), found[0].route), (PredictOutput::Score, 5, PredictRoute::Live));
    assert_eq!((found[1].output, found[1].arguments.len()), (PredictOutput::Version, 0));
    assert!(columns(&text).ends_with(&["score Float64".to_string(), "version Int64".to_string()]));
}

#[test]
fn arguments_bind_by_name_and_by_position_only_if_none_has_one() {
    let by_name = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(two, o.items, o.amount)['low'] AS low FROM orders o";
    assert_eq!(arguments(by_name), ["amount", "items"]);
    let written = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(pair, b => amount, a => items)  FROM orders";
    assert_eq!(arguments(written), ["#6", "amount"]);
    assert_eq!(columns(written), ["c Float64"]);
    let by_position = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(pair, amount, items + 1) AS s FROM orders";
    assert_eq!(arguments(by_position), ["amount", "#6"]);
    let star = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(two, *)['high'] AS high FROM orders";
    assert_eq!(arguments(star), ["amount", "items"]);
    let mixed = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(two, amount, items => CAST(1 + id AS INT))['high'] AS high FROM orders";
    assert_eq!(arguments(mixed), ["amount", "#6"]);
}

#[test]
fn a_version_and_an_alias_pin_the_route() {
    let found = calls(&format!(
        "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(late, f.*, version => 3) AS a, PREDICT(late, f.*, alias => 'challenger') AS b,
         PREDICT(late, f.*, alias => 'champion') AS c, MODEL_VERSION(late, alias => 'challenger') AS d {LOOKUP}"
    ));
    let routes: Vec<PredictRoute> = found.iter().map(|call| call.route).collect();
    assert_eq!(routes, [PredictRoute::Version(3), PredictRoute::Challenger, PredictRoute::Live, PredictRoute::Challenger]);
}

#[test]
fn equal_calls_are_computed_once_and_in_one_operator() {
    let twice = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(pair, amount, items) AS a, PREDICT(pair, amount, items) * 2 AS b,
        MODEL_VERSION(pair) AS v FROM orders WHERE PREDICT(pair, amount, items) > 0.5";
    let plan = plan_of(&format!("{MODELS}\n{twice}"));
    assert_eq!(plan.matches("pair of [").count(), 1, "{plan}");
}

#[test]
fn a_call_within_a_call_is_computed_first() {
    let plan = plan_of(&format!("{MODELS}\nCREATE MATERIALIZED VIEW v AS SELECT PREDICT(pair, PREDICT(pair, amount, id), id) AS c FROM orders"));
    assert_eq!(plan.matches("= Predict").count(), 2, "{plan}");
}

/// The version live at a row's epoch scores it, and a join's row has an epoch of its own.
#[test]
fn c1b_a_condition_is_not_moved_below_the_prediction_it_is_about() {
    let plan = plan_of(&format!(
        "{MODELS}\nCREATE MATERIALIZED VIEW v AS SELECT s.id, s.p FROM (SELECT o.id, o.shop, o.ts, PREDICT(pair, o.amount, o.items) AS p FROM orders o
         JOIN customers c ON o.customer = c.customer) s WHERE s.p > 0.5 AND s.ts > now() - INTERVAL '1 day'"
    ));
    let place = |what: &str| plan.find(what).unwrap_or_else(|| panic!("{what} is not in\n{plan}"));
    assert!(place("= Join") < place("= Predict"), "{plan}");
    assert!(place("= Predict") < place("= Filter") && place("= Predict") < place("= TemporalFilter"), "{plan}");
}

#[test]
fn a_condition_about_a_prediction_leaves_the_others_where_they_join() {
    let plan = plan_of(&format!(
        "{MODELS}\nCREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o, customers c
         WHERE o.customer = c.customer AND PREDICT(pair, o.amount, c.score) > 0.5 AND o.shop = 'a' AND o.ts > now() - INTERVAL '1 day'"
    ));
    let place = |what: &str| plan.find(what).unwrap_or_else(|| panic!("{what} is not in\n{plan}"));
    assert!(place("= Filter") < place("= Join") && place("= Join") < place("= Predict"), "{plan}");
    assert!(place("= Predict") < place("= TemporalFilter"), "{plan}");
}

#[test]
fn predictions_stand_over_groups_in_subqueries_and_in_inlined_views() {
    let text = "CREATE VIEW scored AS SELECT id, shop, PREDICT(pair, amount, items) AS score FROM orders;
        CREATE MATERIALIZED VIEW v AS WITH big AS (SELECT shop, PREDICT(pair, sum(amount), count(*)) AS s FROM orders GROUP BY shop HAVING count(*) > 1)
        SELECT a.id, a.score, big.s FROM scored a JOIN big ON a.shop = big.shop WHERE a.id IN (SELECT id FROM scored WHERE score > 0.5)";
    // The inlined view stands there twice and is scored once.
    assert_eq!(calls(text).len(), 2);
    assert_eq!(columns(text), ["id Int64", "score Float64", "s Float64"]);
}

#[test]
fn several_outputs_are_a_struct_whose_fields_are_columns() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT id, s['low'] AS low, s['high'] AS high FROM (SELECT id, PREDICT(two, amount, items) AS s FROM orders) x";
    assert_eq!(calls(text).len(), 1);
    assert_eq!(columns(text), ["id Int64", "low Float64", "high Float64"]);
}

#[test]
fn numbers_and_booleans_become_the_type_of_their_input() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT PREDICT(two, items => items, amount => vip)['low'] AS x FROM orders o JOIN customers c ON o.customer = c.customer";
    let plan = plan_of(&format!("{MODELS}\n{text}"));
    assert!(plan.contains("CAST(") && plan.contains("= Predict"), "{plan}");
}

#[test]
fn a_wrong_argument_is_refused_at_its_place() {
    for (call, place, expected) in [
        ("PREDICT(pairs, amount, items)", "5:43", "there is no model named pairs"),
        ("PREDICT('pair', amount, items)", "5:43", "PREDICT takes a model first"),
        ("PREDICT()", "5:35", "PREDICT takes a model first"),
        ("PREDICT(pair)", "5:35", "pair needs a value for a, b"),
        ("PREDICT(pair, a => amount)", "5:35", "pair needs a value for b"),
        ("PREDICT(pair, a => amount, bb => items)", "5:62", "pair has no input bb"),
        ("PREDICT(pair, a => amount, a => items)", "5:62", "the input a is given twice"),
        ("PREDICT(pair, a => amount, items + 1)", "5:62", "this argument has no name"),
        ("PREDICT(pair, amount)", "5:35", "pair takes 2 inputs, and 1 are given"),
        ("PREDICT(two, amount, items, shop)['low']", "5:63", "two has no input shop"),
        ("PREDICT(pair, amount, shop)", "5:57", "pair takes b as Float64, and orders.shop is Utf8"),
        ("PREDICT(pair, amount, items, version => 0)", "5:64", "version is a number that counts from 1"),
        ("PREDICT(pair, amount, items, alias => 'canary')", "5:64", "alias is 'champion' or 'challenger'"),
        ("PREDICT(pair, amount, items, version => 1, alias => 'champion')", "5:78", "version and alias exclude each other"),
        ("PREDICT(DISTINCT pair, amount, items)", "5:35", "takes arguments only"),
        ("MODEL_VERSION(pair, amount)", "5:55", "MODEL_VERSION takes a model and no inputs"),
        ("avg(PREDICT(pair, amount, items))", "5:39", "PREDICT cannot stand in an aggregate"),
    ] {
        let found = refusal(&format!("CREATE MATERIALIZED VIEW v AS SELECT {call} AS x FROM orders"));
        assert!(found.contains(expected) && found.contains("help: "), "{call}: {found}");
        let (line, column) = place.split_once(':').unwrap();
        let column: usize = column.parse::<usize>().unwrap() + 3;
        assert!(found.starts_with(&format!("{line}:{column}: ")), "{call}: {found}");
    }
}

#[test]
fn a_prediction_is_refused_where_no_row_of_a_view_is_scored() {
    for (text, expected) in [
        ("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM orders GROUP BY PREDICT(pair, amount, items)", "cannot stand in GROUP BY"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o JOIN customers c ON o.customer = c.customer AND PREDICT(pair, o.amount, o.items) > 0.5",
            "cannot stand in a join's condition",
        ),
        (
            "CREATE FEATURE VIEW v ENTITY (shop) TIMESTAMP ts AS SELECT shop, PREDICT(pair, amount, items) AS p FROM orders",
            "cannot stand in a feature view",
        ),
        ("SELECT PREDICT(pair, total, orders) FROM shop_totals", "scores rows as they come, not when they are read"),
        (
            "CREATE TRAINING SET t ID (id) TIME (ts) LABEL (items) AS SELECT id, ts, items, PREDICT(pair, amount, items) AS p FROM orders",
            "a training set is made of features",
        ),
        (
            "CREATE MATERIALIZED VIEW s AS SELECT id, ts, items, PREDICT(pair, amount, items) AS p FROM orders;
             CREATE TRAINING SET t ID (id) TIME (ts) LABEL (items) AS SELECT id, ts, items, p FROM s",
            "cannot read a view with predictions",
        ),
    ] {
        let found = refusal(text);
        assert!(found.contains(expected) && found.contains("help: "), "{text}: {found}");
    }
}

#[test]
fn scores_are_judged_by_auc_log_loss_and_brier() {
    let text =
        "CREATE MATERIALIZED VIEW v AS SELECT city, auc(score, vip) AS a, auc(score, vip) FILTER (WHERE score > 0) AS f, log_loss(score, vip) AS l,
        brier(score, vip) AS b FROM customers GROUP BY city";
    let plan = plan_of(text);
    assert!(plan.contains("auc(#") && plan.contains("avg(#") && plan.contains("logarithmic_loss(") && plan.contains("squared_error("), "{plan}");
    for (call, expected) in [
        ("auc(DISTINCT score, vip)", "auc takes no DISTINCT"),
        ("auc(score)", "auc takes a score and a label"),
        ("log_loss(city, vip)", "log_loss takes a number as its score"),
        ("brier(score, score)", "brier takes a BOOLEAN as its label"),
    ] {
        let found = refused(&format!("CREATE MATERIALIZED VIEW v AS SELECT {call} AS x FROM customers"));
        assert!(found.contains(expected), "{call}: {found}");
    }
    let windowed =
        "CREATE FEATURE VIEW v ENTITY (city) TIMESTAMP since WINDOWS ('1 day') AS SELECT city, log_loss(score, vip) AS l, brier(score, vip) AS b
        FROM customers GROUP BY city";
    assert!(plan_of(windowed).contains("Rolling"), "{windowed}");
    let found = refused("CREATE FEATURE VIEW v ENTITY (city) TIMESTAMP since AS SELECT city, auc(score, vip) AS a FROM customers GROUP BY city");
    assert!(found.contains("auc over a window is not supported yet"), "{found}");
}

#[test]
fn c5_columns_that_tell_rows_apart_stay_below_predictions_and_lookups() {
    // Without id two orders of one customer would be equal below the operator, and a retraction could take the other one's answer.
    let text = format!("{MODELS}\nCREATE MATERIALIZED VIEW v AS SELECT f.items, PREDICT(late, f.*) AS p {LOOKUP}");
    let program = program(&text);
    let width = program.plan.sources.iter().find(|source| source.name == "orders").unwrap().schema.fields().len();
    for node in program.plan.nodes.iter().filter(|node| matches!(node.op, Op::Predict { .. } | Op::Lookup { .. })) {
        let input = &program.plan.node(node.inputs[0]).schema;
        assert!(input.fields().len() >= width && input.column_with_name("id").is_some(), "{}", freshet_core::explain(&program.plan));
    }
}
