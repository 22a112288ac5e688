//! One test per trap of DataFusion and sqlparser that this landing meets: silent wrong answers, hidden clocks, panics.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use freshet_core::{Connectors, Evaluated, ExprRef, FeatureSpec, Op, OptionError, Sink, SinkDef, Source, SourceDef, evaluate_rows};

use crate::given::{compiled, plan_of, program, refused, script};

/// Rows of `orders`: amount and items vary, the rest does not matter.
fn orders(amounts: &[f64], items: &[i32]) -> RecordBatch {
    let rows = amounts.len();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("customer", Arc::new(StringArray::from(vec![None::<&str>; rows]))),
        ("shop", Arc::new(StringArray::from(vec!["s"; rows]))),
        ("amount", Arc::new(Float64Array::from(amounts.to_vec()))),
        ("items", Arc::new(Int32Array::from(items.to_vec()))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0; rows]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// The expression of `SELECT … AS x FROM orders`, over the columns it needs.
fn expression(text: &str) -> Over {
    let program = program(&format!("CREATE MATERIALIZED VIEW v AS SELECT {text} AS x FROM orders"));
    let node = program.plan.node(program.plan.view("v").unwrap().node);
    let Op::Project { exprs } = &node.op else { panic!("{text} is no projection") };
    let input = &program.plan.node(node.inputs[0]).schema;
    Over { expr: exprs[0].clone(), columns: input.fields().iter().map(|field| field.name().clone()).collect() }
}

struct Over {
    expr: ExprRef,
    columns: Vec<String>,
}

impl Over {
    fn rows(&self, rows: &RecordBatch) -> RecordBatch {
        let indexes: Vec<usize> = self.columns.iter().map(|name| rows.schema().index_of(name).unwrap()).collect();
        rows.project(&indexes).unwrap()
    }

    fn value(&self, rows: &RecordBatch) -> ArrayRef {
        self.expr.evaluate(&self.rows(rows)).unwrap()
    }

    fn evaluated(&self, rows: &RecordBatch) -> Evaluated {
        evaluate_rows(&*self.expr, &self.rows(rows))
    }
}

#[test]
fn trap_intersect_all_and_except_all_are_not_semi_joins() {
    for operation in ["INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"] {
        let plan = plan_of(&format!("CREATE MATERIALIZED VIEW v AS SELECT shop FROM orders {operation} SELECT city FROM customers"));
        assert!(plan.contains(&format!("SetOperation {operation} ")), "{plan}");
        assert!(!plan.contains("Join"), "{plan}");
    }
}

#[test]
fn trap_scalar_subquery_of_many_rows_does_not_multiply() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE amount > (SELECT score FROM customers)");
    assert!(plan.contains("SingleRow"), "{plan}");
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id, (SELECT score FROM customers) AS score FROM orders");
    assert!(plan.contains("SingleRow") && !plan.contains("LeftJoin"), "{plan}");
    // An aggregate has one row by itself.
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE amount > (SELECT max(score) FROM customers)");
    assert!(plan.contains("Join []") && !plan.contains("SingleRow"), "{plan}");
}

/// DataFusion's marks are true or false, and `NOT false` would keep a row of which nothing is known.
#[test]
fn trap_in_under_or_is_three_valued() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE items = 1 OR customer NOT IN (SELECT city FROM customers)");
    assert!(plan.contains("InMarkJoin"), "{plan}");
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE customer NOT IN (SELECT city FROM customers)");
    assert!(plan.contains("NotInJoin"), "{plan}");
}

/// Grouped by what correlates it, an aggregate has no row where it had one of zero.
#[test]
fn trap_an_aggregate_in_a_subquery_always_has_a_row() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT id FROM orders o WHERE EXISTS (SELECT count(*) FROM customers c WHERE c.customer = o.customer)";
    assert!(!plan_of(text).contains("Join"));
    let text =
        "CREATE MATERIALIZED VIEW v AS SELECT id FROM orders o WHERE items NOT IN (SELECT count(*) FROM customers c WHERE c.customer = o.customer)";
    let plan = plan_of(text);
    assert!(plan.contains("LeftJoin") && !plan.contains("NotInJoin"), "{plan}");
}

#[test]
fn trap_for_system_time_on_a_table_is_not_ignored() {
    let plan =
        plan_of("CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o JOIN customers FOR SYSTEM_TIME AS OF o.ts AS c ON o.customer = c.customer");
    assert!(plan.contains("LookupJoin [#1 = #0] at #"), "{plan}");
    let error = refused("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders FOR SYSTEM_TIME AS OF now()");
    assert!(error.contains("FOR SYSTEM_TIME"), "{error}");
}

#[test]
fn trap_distinct_on_does_not_panic_and_mixes_no_rows() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT DISTINCT ON (shop) shop, amount, items FROM orders ORDER BY shop, ts DESC");
    assert!(plan.contains("row_number 1..=1"), "{plan}");
    assert!(!plan.contains("Aggregate"), "{plan}");
}

#[test]
fn trap_a_filter_on_the_right_of_an_asof_join_is_not_pushed_into_it() {
    let plan = plan_of(
        "CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o ASOF JOIN customers c MATCH_CONDITION (o.ts >= c.since) ON o.customer = c.customer
         WHERE c.vip",
    );
    let (asof, filter) = (plan.find("= Asof").unwrap(), plan.find("= Filter").unwrap());
    assert!(asof < filter, "{plan}");
}

#[test]
fn trap_a_flipped_match_condition_is_the_same_join() {
    let of = |condition: &str| {
        plan_of(&format!(
            "CREATE MATERIALIZED VIEW v AS SELECT o.id, c.city FROM orders o ASOF JOIN customers c MATCH_CONDITION ({condition}) ON o.customer = c.customer"
        ))
    };
    assert_eq!(of("o.ts >= c.since"), of("c.since <= o.ts"));
}

#[test]
fn trap_a_limit_stays_with_its_order() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT shop FROM orders ORDER BY amount DESC LIMIT 3");
    assert!(plan.contains("Top by [] order [#") && plan.contains("desc nulls first] row_number 1..=3"), "{plan}");
}

#[test]
fn trap_common_subexpressions_do_not_hide_now() {
    let text = "CREATE FEATURE VIEW v ENTITY (shop) TIMESTAMP ts AS SELECT shop,
        count(*) FILTER (WHERE ts > now() - INTERVAL '1 hour') AS a, sum(amount) FILTER (WHERE ts > now() - INTERVAL '1 hour') AS b,
        avg(amount) FILTER (WHERE ts BETWEEN now() - INTERVAL '2 hours' AND now() - INTERVAL '1 hour') AS c FROM orders GROUP BY shop";
    let program = program(text);
    let Op::Feature { spec: FeatureSpec::Rolling(spec), .. } = &program.plan.node(program.plan.view("v").unwrap().node).op else {
        panic!("no rolling view")
    };
    let lowers: Vec<i64> = spec.aggregates.iter().map(|aggregate| aggregate.window.lower.unwrap().offset_ms).collect();
    assert_eq!(lowers, [3_600_000, 3_600_000, 7_200_000]);
    let between = spec.aggregates[2].window;
    assert!(between.lower.unwrap().inclusive && between.upper.unwrap().inclusive);
}

#[test]
fn trap_25_hours_are_not_less_than_1_day() {
    assert!(refused("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE INTERVAL '25 hours' < INTERVAL '1 day'").contains("interval"));
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE now() - ts < INTERVAL '25 hours'");
    assert!(plan.contains("+ 90000000000000 ns > now"), "{plan}");
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE INTERVAL '1 day' >= now() - ts");
    assert!(plan.contains("+ 86400000000000 ns >= now"), "{plan}");
}

#[test]
fn trap_intervals_are_added_as_integers() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE ts + INTERVAL '1 day' > now() + INTERVAL '1 hour'");
    assert!(plan.contains("+ 82800000000000 ns > now"), "{plan}");
}

#[test]
fn trap_exponent_literal_does_not_panic() {
    let expr = expression("amount > 1e3");
    assert!(expr.value(&orders(&[999.0, 1001.0], &[1, 1])).as_boolean().value(1));
}

#[test]
fn trap_decimal_literals_stay_double() {
    let expr = expression("amount * 0.1");
    assert_eq!(expr.expr.data_type(), DataType::Float64);
    assert!(expr.value(&orders(&[f64::NAN], &[1])).as_primitive::<Float64Type>().value(0).is_nan());
}

#[test]
fn trap_coalesce_is_simplified_before_it_runs() {
    let values = expression("coalesce(customer, shop)").value(&orders(&[1.0], &[1]));
    assert_eq!(values.as_string::<i32>().value(0), "s");
}

#[test]
fn trap_integer_arithmetic_does_not_wrap() {
    for text in ["items + items", "items * items", "-items"] {
        let found = expression(text).evaluated(&orders(&[1.0, 1.0, 1.0], &[1, i32::MIN, 3]));
        assert_eq!(found.errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1], "{text}: {:?}", found.errors);
    }
    let found = expression("id + 9223372036854775807").evaluated(&orders(&[1.0, 1.0], &[1, 1]));
    assert_eq!(found.errors.len(), 1);
    assert_eq!(found.values.as_primitive::<Int64Type>().value(0), i64::MAX);
}

#[test]
fn trap_a_guard_holds_whatever_the_other_rows_are() {
    let guarded = expression("items <> 0 AND 10 / items > 1");
    for passing in 0..=10 {
        let items: Vec<i32> = (0..10).map(|row| if row < passing { 2 } else { 0 }).collect();
        let found = guarded.evaluated(&orders(&[1.0; 10], &items));
        assert!(found.errors.is_empty(), "{passing}: {:?}", found.errors);
        assert_eq!(found.values.as_boolean().true_count(), passing as usize);
    }
    let text = "CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE items <> 0 AND 10 / items > 1";
    let conjuncts = program(text).plan.nodes.iter().find_map(|node| match &node.op {
        Op::Filter { conjuncts } => Some(conjuncts.len()),
        _ => None,
    });
    assert_eq!(conjuncts, Some(2));
}

#[test]
fn trap_a_bad_cast_or_division_concerns_its_row() {
    let found = expression("100 / items").evaluated(&orders(&[1.0, 1.0], &[0, 5]));
    assert_eq!(found.errors.len(), 1);
    assert_eq!(found.values.as_primitive::<Int64Type>().value(1), 20);
    let found = expression("CAST(shop AS INT)").evaluated(&orders(&[1.0], &[1]));
    assert_eq!(found.errors.len(), 1);
    assert!(found.values.is_null(0));
}

#[test]
fn trap_a_deep_condition_is_an_error_and_not_an_abort() {
    let many = |count: usize| (0..count).map(|term| format!("amount <> {term}")).collect::<Vec<_>>().join(" AND ");
    assert!(compiled(&format!("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE {}", many(5_000))).is_err());
    assert!(compiled(&format!("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE {}", many(1_900))).is_ok());
}

#[test]
fn trap_units_of_time_do_not_hide_the_column_from_now() {
    // ms and µs columns.
    assert!(plan_of("CREATE MATERIALIZED VIEW v AS SELECT id FROM orders WHERE ts > now() - INTERVAL '1 hour'").contains("TemporalFilter"));
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT city FROM customers WHERE since > now() - INTERVAL '1 hour'");
    assert!(plan.contains("TemporalFilter"), "{plan}");
    assert!(!plan.contains("CAST"), "{plan}");
}

#[test]
fn trap_distinct_and_plain_aggregates_stay_one_operator() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT shop, count(DISTINCT customer) AS c, sum(amount) AS s FROM orders GROUP BY shop");
    assert_eq!(plan.matches("Aggregate").count(), 1, "{plan}");
}

#[test]
fn trap_text_is_utf8_in_every_view() {
    let text =
        "CREATE MATERIALIZED VIEW v AS SELECT 'x' AS a, substr(shop, 1, 2) AS b, upper(shop) || '-' AS c, CAST(items AS VARCHAR) AS d FROM orders";
    for field in program(text).plan.view("v").unwrap().schema.fields() {
        assert_eq!(*field.data_type(), DataType::Utf8, "{}", field.name());
    }
}

#[test]
fn trap_a_primary_key_is_not_believed() {
    let text = "CREATE SOURCE keyed (k VARCHAR, v DOUBLE, PRIMARY KEY (k) NOT ENFORCED) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
        CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o JOIN keyed x ON o.shop = x.k;
        EXPLAIN (PLAN) v";
    let plan = &program(text).explains[0].text;
    assert!(plan.contains("Join [") && !plan.contains("Aggregate"), "{plan}");
}

#[test]
fn trap_an_outer_join_with_now_on_its_right_is_not_lost() {
    let join = "CREATE MATERIALIZED VIEW v AS SELECT o.id FROM orders o LEFT JOIN customers c ON o.customer = c.customer";
    let plan = plan_of(&format!("{join} WHERE c.since > now() - INTERVAL '1 day'"));
    assert!(plan.contains("TemporalFilter") && !plan.contains("LeftJoin"), "{plan}");
    // Of the right side alone, it says which rows may be partners.
    let plan = plan_of(&format!("{join} AND c.since > now() - INTERVAL '1 day'"));
    assert!(plan.contains("TemporalFilter") && plan.contains("LeftJoin"), "{plan}");
    let error = refused(&format!("{join} AND o.ts > now() - INTERVAL '1 day'"));
    assert!(error.contains("now()") && error.contains("help"), "{error}");
}

#[test]
fn the_same_text_gives_the_same_plan_twice() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT o.id, f.* FROM orders o
        LEFT JOIN FEATURES(order_features) FOR SYSTEM_TIME AS OF now() AS f ON f.customer = o.customer AND f.shop = o.shop AND f.distance = 1.0
        WHERE o.amount > (SELECT avg(score) FROM customers) AND o.customer IN (SELECT customer FROM customers WHERE vip)";
    let once = program(text).plan;
    let twice = program(text).plan;
    assert_eq!(freshet_core::explain(&once), freshet_core::explain(&twice));
    assert_eq!(freshet_core::fingerprint(&once), freshet_core::fingerprint(&twice));
}

/// The generic dialect reads `f(a = b)` as an argument named a.
#[test]
fn an_equality_is_an_argument_and_not_a_name() {
    let plan = plan_of("CREATE MATERIALIZED VIEW v AS SELECT id, coalesce(shop = 'a', false) AS is_a FROM orders");
    assert!(plan.contains("shop@2 = a"), "{plan}");
}

/// Stands for a planner that panics on some input: it does so inside of the statement that names it.
#[derive(Debug)]
struct Panicking;

impl Connectors for Panicking {
    fn check_source(&self, source: &SourceDef) -> Result<(), OptionError> {
        assert!(source.name != "broken", "index out of bounds: the len is 1 but the index is 1");
        Ok(())
    }

    fn check_sink(&self, _: &SinkDef) -> Result<(), OptionError> {
        Ok(())
    }

    fn open_source(&self, _: &SourceDef) -> freshet_core::Result<Box<dyn Source>> {
        unreachable!("nothing runs")
    }

    fn open_sink(&self, _: &SinkDef) -> freshet_core::Result<Box<dyn Sink>> {
        unreachable!("nothing runs")
    }
}

#[test]
fn trap_planner_panics_are_caught() {
    let source = |name: &str| format!("CREATE SOURCE {name} (a INT) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;\n");
    let compile = |text: String| freshet_sql::compile(&[script("first.sql", ""), script("p.sql", &text)], &Default::default(), &Panicking);
    let error = compile(format!("{}  {}", source("sound"), source("broken"))).map(drop).unwrap_err();
    assert!(
        error.to_string().starts_with("p.sql:2:3: the planner failed: index out of bounds: the len is 1 but the index is 1\n  help: "),
        "{error}"
    );
    // The process goes on, and so does the next script.
    assert_eq!(compile(source("sound")).unwrap().plan.sources.len(), 1);
}

/// DataFusion's DML would ignore ON CONFLICT and RETURNING, and its UPDATE … FROM counts a row once for each partner.
#[test]
fn trap_clauses_of_dml_are_not_dropped_on_the_way() {
    let text = "CREATE TABLE t (id INT PRIMARY KEY, n INT); CREATE TABLE u (id INT, n INT);
        INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO u VALUES (1, 7), (1, 5), (3, 9);
        INSERT INTO t VALUES (1, 100) ON CONFLICT DO UPDATE SET n = t.n + excluded.n;
        UPDATE t SET n = t.n + u.n FROM u WHERE u.id = t.id";
    let program = program(text);
    let rows = &program.plan.sources.iter().find(|source| source.name == "t").unwrap().rows[0];
    assert_eq!(rows.column(0).as_primitive::<arrow::datatypes::Int32Type>().values(), &[2, 1]);
    assert_eq!(rows.column(1).as_primitive::<arrow::datatypes::Int32Type>().values(), &[2, 106]);
}

/// In a batch, DataFusion's values of several types take one of them for all rows.
#[test]
fn trap_values_are_cast_to_the_columns_one_by_one() {
    let error = refused("CREATE TABLE t (a SMALLINT, b VARCHAR); INSERT INTO t VALUES (1, 'x'), (70000, 'y')");
    assert!(error.starts_with("1:73: "), "{error}");
    let error = refused("CREATE TABLE t (a DATE); INSERT INTO t VALUES ('2024-02-29'), ('2023-02-29')");
    assert!(error.starts_with("1:64: "), "{error}");
}
