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

#[test]
fn t22_a_constant_shift_of_a_time_is_an_addition_and_nothing_else() {
    use arrow::array::{TimestampMillisecondArray, TimestampSecondArray};
    use datafusion::common::ScalarValue;
    let times: [(ArrayRef, &str); 2] = [
        (Arc::new(TimestampMillisecondArray::from(vec![Some(5), None, Some(-86_400_001)])), "ms"),
        (Arc::new(TimestampSecondArray::from(vec![Some(7), None, Some(i64::MAX)])), "s"),
    ];
    for (column, name) in times {
        let batch = RecordBatch::try_from_iter([(name, column.clone())]).unwrap();
        let schema = batch.schema().as_ref().clone().to_dfschema().unwrap();
        for (days, nanoseconds) in [(0, 10_000_000_000), (3, 0), (0, -1_000_000), (0, 1), (-1, 5_000_000)] {
            let length = lit(ScalarValue::new_interval_mdn(0, days, nanoseconds));
            for written in [col(name) + length.clone(), col(name) - length.clone()] {
                let ours = freshet_core::evaluate_rows(compile(&written, &schema).unwrap().as_ref(), &batch);
                let plain = create_physical_expr(&written, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).unwrap();
                for row in 0..column.len() {
                    let alone = plain.evaluate(&batch.slice(row, 1)).and_then(|value| value.into_array(1));
                    match alone {
                        Ok(alone) => assert_eq!(&ours.values.slice(row, 1), &alone, "{written} of row {row}"),
                        // DataFusion goes through the calendar, which ends long before the type.
                        Err(_) => assert_eq!((name, row), ("s", 2), "{written}"),
                    }
                }
                if name == "s" && nanoseconds == 10_000_000_000 && written == col(name) + length.clone() {
                    assert!(ours.errors.iter().any(|(row, _)| *row == 2), "the greatest time has none behind it");
                }
            }
        }
    }
}
