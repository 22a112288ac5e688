//! Ad-hoc queries over a running engine: all of batch SQL, parameters, one instant, features by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::pretty::pretty_format_batches;
use freshet_core::{Reader, Value};
use freshet_engine::{Engine, EngineConfig};
use freshet_sql::{compile, query};
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::given::{PRELUDE, script};

const START_MS: i64 = 1_735_689_600_000;

fn order(id: i64, customer: &str, shop: &str, amount: f64) -> RawRecord {
    let text = |value: &str| Value::Text(value.into());
    let ts = Value::Int(i128::from(START_MS + id * 1_000));
    RawRecord::insert(id as u64, vec![Value::Int(i128::from(id)), text(customer), text(shop), Value::Float(amount), Value::Int(1), ts])
}

/// Four orders, one a second.
fn engine() -> Engine {
    let connectors = MemoryConnectors::new(1)
        .with_source("orders", vec![order(0, "ann", "a", 1.0), order(1, "bob", "a", 2.0), order(2, "ann", "b", 4.0), order(3, "eve", "b", 8.0)])
        .with_source("customers", Vec::new());
    let program = compile(&[script("adhoc.sql", PRELUDE)], &BTreeMap::new(), &connectors).unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::start(program.plan, EngineConfig::default(), &connectors).unwrap();
    engine.wait().unwrap();
    engine
}

fn answer(reader: &dyn Reader, text: &str, parameters: Option<&RecordBatch>) -> (query::Planned, Vec<RecordBatch>) {
    let planned = query::plan(text, reader).unwrap_or_else(|error| panic!("{error}"));
    let (schema, batches, _) = query::run(&planned, parameters, reader).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(schema, planned.schema);
    assert!(batches.iter().all(|batch| batch.schema() == schema));
    (planned, batches)
}

fn one(batches: &[RecordBatch]) -> RecordBatch {
    arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
}

#[test]
fn all_of_batch_sql_is_there() {
    let engine = engine();
    let reader = engine.reader();
    let text = "SELECT a.shop, a.total, sum(a.total) OVER (ORDER BY a.shop) AS running, b.shop AS other
        FROM shop_totals a LEFT JOIN shop_totals b ON b.total > a.total ORDER BY a.total DESC LIMIT 1";
    let (planned, batches) = answer(&*reader, text, None);
    assert_eq!(planned.views, ["shop_totals"]);
    let rows = one(&batches);
    assert_eq!(rows.num_rows(), 1, "{}", pretty_format_batches(&batches).unwrap());
    assert_eq!(rows.column(0).as_string::<i32>().value(0), "b");
    assert_eq!(rows.column(2).as_primitive::<Float64Type>().value(0), 15.0);
    engine.shutdown().unwrap();
}

#[test]
fn a_query_over_nothing_is_answered() {
    let engine = engine();
    let (_, batches) = answer(&*engine.reader(), "SELECT 1 AS one, 'x' AS text", None);
    assert_eq!(one(&batches).column(0).as_primitive::<Int64Type>().value(0), 1);
    engine.shutdown().unwrap();
}

#[test]
fn now_is_the_epoch_of_the_answer() {
    let engine = engine();
    let reader = engine.reader();
    let planned = query::plan("SELECT now() AS at, count(*) AS n FROM shop_totals", &*reader).unwrap();
    let (_, batches, point) = query::run(&planned, None, &*reader).unwrap();
    let rows = one(&batches);
    assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), point.q.0 as i64 * 1_000);
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().value(0), 2);
    engine.shutdown().unwrap();
}

#[test]
fn parameters_have_types_and_every_row_of_them_an_answer() {
    let engine = engine();
    let reader = engine.reader();
    let planned = query::plan("SELECT shop, total FROM shop_totals WHERE shop = ? AND orders >= ?", &*reader).unwrap();
    let types: Vec<DataType> = planned.parameters.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Int64]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("1", Arc::new(StringArray::from(vec!["b", "a", "x"]))), ("2", Arc::new(Int64Array::from(vec![1, 2, 0])))];
    let parameters = RecordBatch::try_from_iter(columns).unwrap();
    let (_, batches, _) = query::run(&planned, Some(&parameters), &*reader).unwrap();
    let rows = one(&batches);
    assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["b", "a"]);
    assert!(query::run(&planned, None, &*reader).unwrap_err().message.contains("2 parameters"));
    engine.shutdown().unwrap();
}

#[test]
fn features_are_looked_up_by_key() {
    let engine = engine();
    let reader = engine.reader();
    let text = "SELECT customer, orders_1h, last_amount, distance, status FROM FEATURES(order_features)
        WHERE customer IN ('ann', 'nobody') AND shop = $1 AND distance = 2.5 ORDER BY customer";
    let parameters = RecordBatch::try_from_iter([("1", Arc::new(StringArray::from(vec!["b"])) as ArrayRef)]).unwrap();
    let (planned, batches) = answer(&*reader, text, Some(&parameters));
    assert_eq!(planned.services, ["order_features"]);
    let rows = one(&batches);
    assert_eq!(rows.num_rows(), 2, "{}", pretty_format_batches(&batches).unwrap());
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(rows.column(2).as_primitive::<Float64Type>().value(0), 8.0);
    assert_eq!(rows.column(3).as_primitive::<Float64Type>().value(0), 2.5);
    assert_eq!(rows.column(4).as_string::<i32>().value(1), "NOT_FOUND");
    engine.shutdown().unwrap();
}

#[test]
fn a_feature_view_can_be_read_whole() {
    let engine = engine();
    let reader = engine.reader();
    let (_, batches) = answer(&*reader, "SELECT * FROM customer_load ORDER BY customer", None);
    let rows = one(&batches);
    assert_eq!(rows.num_rows(), 3);
    assert_eq!(rows.column_by_name("orders_24h").unwrap().as_primitive::<Int64Type>().value(0), 2);
    engine.shutdown().unwrap();
}

#[test]
fn a_wrong_query_says_where() {
    let engine = engine();
    let reader = engine.reader();
    let error = query::plan("SELECT shop,\n  totl FROM shop_totals", &*reader).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3), "{error}");
    engine.shutdown().unwrap();
}

#[test]
fn errors_and_dead_letters_are_tables() {
    let engine = engine();
    let reader = engine.reader();
    for table in ["errors(shop_totals)", "dead_letters(orders)", "late(orders)"] {
        let (_, batches) = answer(&*reader, &format!("SELECT count(*) AS n FROM {table}"), None);
        assert_eq!(one(&batches).column(0).as_primitive::<Int64Type>().value(0), 0, "{table}");
    }
    engine.shutdown().unwrap();
}

#[test]
fn scores_are_judged_when_they_are_read_too() {
    let engine = engine();
    let reader = engine.reader();
    let text = "SELECT auc(total, shop = 'b') AS a, log_loss(0.5, shop = 'b') AS l, brier(0.25, shop = 'b') AS b, auc(total, shop = 'x') AS none FROM shop_totals";
    let (_, batches) = answer(&*reader, text, None);
    let rows = one(&batches);
    let value = |column: usize| rows.column(column).as_primitive::<Float64Type>().value(0);
    assert_eq!((value(0), value(1), value(2)), (1.0, std::f64::consts::LN_2, 0.3125));
    assert_eq!(rows.column(3).null_count(), 1);
    engine.shutdown().unwrap();
}

#[test]
fn a_source_cannot_be_read_and_the_answer_says_what_can() {
    let engine = engine();
    let error = query::plan("SELECT * FROM orders", &*engine.reader()).unwrap_err();
    assert_eq!(error.message, "orders is a source, whose rows pass by and are not kept");
    assert!(error.help.unwrap().contains("CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders"));
    engine.shutdown().unwrap();
}
