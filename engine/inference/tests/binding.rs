use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int16Array, Int64Array};
use arrow::datatypes::DataType;
use freshet_core::{Kind, Missing, Model};

use crate::rig::{Rig, abc, def, doubles, values};

#[test]
fn columns_meet_inputs_by_name_whatever_their_order_and_type() {
    let inputs = [("a", DataType::Float32), ("b", DataType::Float64), ("c", DataType::Int64), ("d", DataType::Int16), ("e", DataType::Boolean)];
    let model = Rig::get().load(&def(&inputs, &[("sum", DataType::Float64)], Missing::Null), "columns").unwrap();
    let rows: [ArrayRef; 5] = [
        Arc::new(Float32Array::from(vec![0.5, 1.5])),
        doubles([Some(10.25), Some(20.25)]),
        Arc::new(Int64Array::from(vec![100, 200])),
        Arc::new(Int16Array::from(vec![1000, -2000])),
        Arc::new(BooleanArray::from(vec![true, false])),
    ];
    assert_eq!(values(&model.predict(&rows).unwrap()[0]), [Some(1111.75), Some(-1778.25)]);
    assert!(model.batch_invariant());
    let inputs: Vec<String> = model.signature().inputs.iter().map(ToString::to_string).collect();
    assert_eq!(inputs, ["d: int32 [N]", "b: double [N, 1]", "a: float [N]", "c: int64 [N]", "e: bool [N]"]);
}

#[test]
fn an_integer_too_big_for_the_model_is_an_error_of_the_row() {
    let inputs = [("a", DataType::Float64), ("b", DataType::Float64), ("c", DataType::Int64), ("d", DataType::Int64), ("e", DataType::Boolean)];
    let model = Rig::get().load(&def(&inputs, &[("sum", DataType::Float64)], Missing::Null), "columns").unwrap();
    let number = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let rows = |d: i64| [doubles([Some(0.0)]), doubles([Some(0.0)]), number(0), number(d), Arc::new(BooleanArray::from(vec![true])) as ArrayRef];
    assert_eq!(values(&model.predict(&rows(41)).unwrap()[0]), [Some(42.0)]);
    let error = model.predict(&rows(1 << 40)).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Data, "column d: 1099511627776 is outside of what the model takes"));
}

#[test]
fn outputs_bind_by_name_in_declared_order() {
    let three = [("a", DataType::Float64), ("b", DataType::Float64), ("c", DataType::Float64)];
    let outputs = [("low", DataType::Float64), ("high", DataType::Float64)];
    let rows = [doubles([Some(1.0), Some(-1.0)]), doubles([Some(2.0), Some(-2.0)]), doubles([Some(3.0), Some(-3.0)])];
    let rig = Rig::get();
    let named = rig.load(&def(&three, &outputs, Missing::Null), "several").unwrap().predict(&rows).unwrap();
    assert_eq!(named.iter().map(values).collect::<Vec<_>>(), [[Some(6.0), Some(-6.0)], [Some(3.0), Some(-1.0)]]);
    // A name picks one output of several; without one there is no telling which.
    assert!(rig.load(&def(&three, &outputs[1..], Missing::Null), "several").is_ok());
    let unnamed = rig.load(&abc(Missing::Null), "several").unwrap_err();
    assert!(unnamed.message.contains("wanted outputs [N] or [N, 1] named (score)"), "{unnamed}");
}

#[test]
fn shapes_that_a_file_leaves_open_are_known_after_a_run() {
    let rig = Rig::get();
    let model = rig.load(&abc(Missing::Nan), "open_shapes").unwrap();
    let closed = rig.load(&abc(Missing::Nan), "mlp").unwrap();
    assert_eq!(model.signature().inputs[0].to_string(), "x: float [N, ?]");
    assert_eq!(values(&model.predict(&rig.rows()[..]).unwrap()[0])[0], values(&closed.predict(&rig.rows()).unwrap()[0])[0]);
}

#[test]
fn a_column_without_nan_needs_missing_null() {
    let gather = |missing| Rig::get().load(&def(&[("c", DataType::Int64)], &[("picked", DataType::Float64)], missing), "gather");
    assert!(gather(Missing::Null).is_ok());
    let error = gather(Missing::Nan).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("column c may be NULL, but int64 has no NaN; declare the model WITH (missing = 'null')"), "{error}");
}
