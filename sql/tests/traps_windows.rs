//! One test per trap that windows meet on their way through sqlparser and DataFusion.

use freshet_core::{Op, Plan, Windows};

use crate::given::{program, refused};

fn plan(query: &str) -> Plan {
    program(&format!("CREATE MATERIALIZED VIEW v AS {query}")).plan
}

/// The place of the first node of this kind on the way down from the view, and the plan.
fn is_above(plan: &Plan, upper: impl Fn(&Op) -> bool, lower: impl Fn(&Op) -> bool) -> bool {
    let place = |wanted: &dyn Fn(&Op) -> bool| plan.nodes.iter().position(|node| wanted(&node.op)).unwrap();
    place(&upper) > place(&lower)
}

/// A call with constants only would be folded, or dropped from GROUP BY.
#[test]
fn trap_a_window_of_constants_reaches_no_optimiser() {
    let plan = plan("SELECT tumble(INTERVAL '10 seconds')['start'] AS s, count(*) AS n FROM orders GROUP BY tumble(INTERVAL '10 seconds')");
    let tumble = Windows::Hop { size: 10_000, slide: 10_000, offset: 0 };
    assert!(plan.nodes.iter().any(|node| matches!(&node.op, Op::Windows { windows, .. } if *windows == tumble)), "{plan:?}");
}

/// A row that a condition drops may be the one that holds a session together.
#[test]
fn trap_no_condition_is_pushed_below_a_session() {
    let plan = plan("SELECT id, window_end FROM SESSION(orders, ts, INTERVAL '1 minute') WHERE amount > 1");
    assert!(is_above(&plan, |op| matches!(op, Op::Filter { .. }), |op| matches!(op, Op::Session { .. })));
}

#[test]
fn trap_conditions_on_rows_are_pushed_below_fixed_windows_and_those_on_windows_are_not() {
    let rows = plan("SELECT id, window_end FROM TUMBLE(orders, ts, INTERVAL '1 minute') WHERE amount > 1");
    assert!(is_above(&rows, |op| matches!(op, Op::Windows { .. }), |op| matches!(op, Op::Filter { .. })));
    let windows = plan("SELECT id FROM TUMBLE(orders, ts, INTERVAL '1 minute') WHERE window_end > TIMESTAMP '2025-01-01'");
    assert!(is_above(&windows, |op| matches!(op, Op::Filter { .. }), |op| matches!(op, Op::Windows { .. })));
}

/// Without a word from the node every column of the input would be kept.
#[test]
fn trap_scans_are_pruned_through_windows() {
    for window in ["TUMBLE(orders, ts, INTERVAL '1 minute')", "SESSION(orders, ts, INTERVAL '1 minute')"] {
        let plan = plan(&format!("SELECT window_start, count(*) AS n FROM {window} GROUP BY window_start, window_end"));
        let wide = plan.nodes.iter().find(|node| matches!(node.op, Op::Windows { .. } | Op::Session { .. })).unwrap();
        assert!(plan.node(wide.inputs[0]).schema.fields().len() <= 2, "{plan:?}");
    }
}

#[test]
fn trap_session_keys_stand_between_table_and_comma() {
    let plan = plan("SELECT shop, window_start FROM TABLE(SESSION(TABLE orders PARTITION BY (shop, customer), DESCRIPTOR(ts), INTERVAL '1' MINUTE))");
    assert!(plan.nodes.iter().any(|node| matches!(&node.op, Op::Session { keys, .. } if keys.len() == 2)), "{plan:?}");
}

#[test]
fn t22_calendar_units_make_no_windows() {
    for text in ["TUMBLE(orders, ts, INTERVAL '1 month')", "SESSION(orders, ts, INTERVAL '1 year')"] {
        let message = refused(&format!("CREATE MATERIALIZED VIEW v AS SELECT * FROM {text}"));
        assert!(message.contains("months and years have no exact length") && message.contains("1:"), "{message}");
    }
}
