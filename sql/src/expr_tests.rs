//! Expressions on rows alone: overflow, bad casts and guards concern their own row (C4).

use arrow::array::{AsArray, Int32Array};
use arrow::datatypes::Field;
use datafusion::common::ToDFSchema;
use datafusion::logical_expr::{col, lit};

use super::*;

fn schema() -> DFSchema {
    arrow::datatypes::Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)]).to_dfschema().unwrap()
}

#[test]
fn columns_and_literals_are_no_physical_expressions() {
    let schema = schema();
    assert_eq!(compile(&col("b").alias("c"), &schema).unwrap().as_column(), Some(1));
    let text = compile(&lit("it's"), &schema).unwrap();
    assert_eq!((text.sql().as_str(), text.columns().len()), ("'it''s'", 0));
}

#[test]
fn an_expression_names_its_columns_and_type() {
    let schema = schema();
    let sum = compile(&(col("b") + col("a") + col("b")), &schema).unwrap();
    assert_eq!((sum.columns(), sum.data_type()), (vec![0, 1], DataType::Int32));
    let batch = RecordBatch::try_new(
        Arc::new(schema.as_arrow().clone()),
        vec![Arc::new(Int32Array::from(vec![Some(1), None])), Arc::new(Int32Array::from(vec![2, 3]))],
    )
    .unwrap();
    let values = sum.evaluate(&batch).unwrap();
    let values = values.as_primitive::<arrow::datatypes::Int32Type>();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(5), None]);
}

#[test]
fn a_placeholder_without_a_value_is_refused() {
    let refusal = compile(&(col("a") + datafusion::logical_expr::placeholder("$1")), &schema()).unwrap_err();
    assert!(refusal.message.contains("$1"), "{}", refusal.message);
}
