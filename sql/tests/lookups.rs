//! FEATURES(service) beside a left row: which columns it shows, in which order, and in what company.

use crate::given::{plan_of, program};

const ONE: &str = "CREATE FEATURE SERVICE one AS (customer_load);";

fn columns(text: &str) -> Vec<String> {
    let program = program(&format!("{ONE}\n{text}"));
    program.plan.view("v").unwrap().schema.fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn a_star_shows_both_sides_and_hides_status_and_time() {
    let found = columns("CREATE MATERIALIZED VIEW v AS SELECT * FROM orders o LEFT JOIN FEATURES(one) AS OF now() AS f USING (customer)");
    assert_eq!(found, ["id", "customer", "shop", "amount", "items", "ts", "orders_1h", "orders_24h", "amount_1h", "amount_24h"]);
}

#[test]
fn status_and_event_time_can_be_named_and_filtered() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT o.id, f.status, one.event_time AS other, f.event_time
        FROM orders o LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF now() AS f USING (customer)
        LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF now() USING (customer) WHERE f.status = 'PRESENT'";
    assert_eq!(columns(text), ["id", "status", "other", "event_time"]);
    let plan = plan_of(&format!("{ONE}\n{text}"));
    assert_eq!(plan.matches("= Lookup").count(), 2, "{plan}");
}

#[test]
fn a_lookup_stands_among_joins() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT o.id, c.city, f.*, t.total FROM orders o
        JOIN customers c ON o.customer = c.customer
        LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF now() AS f ON f.customer = c.customer
        JOIN shop_totals t ON t.shop = o.shop";
    assert_eq!(columns(text), ["id", "city", "orders_1h", "orders_24h", "amount_1h", "amount_24h", "total"]);
}

#[test]
fn every_left_column_reaches_the_lookup_and_only_the_wanted_ones_leave_it() {
    let plan = plan_of(&format!(
        "{ONE}\nCREATE MATERIALIZED VIEW v AS SELECT o.id, f.orders_1h FROM orders o LEFT JOIN FEATURES(one) FOR SYSTEM_TIME AS OF now() AS f USING (customer)"
    ));
    assert!(plan.contains("%3 = Lookup [[1] -> [1, 2, 3, 4]] %0, %2"), "{plan}");
    assert!(plan.contains("Project [id#0, orders_1h#6] %3"), "{plan}");
}
