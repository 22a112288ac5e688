use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use freshet_core::{Kind, Missing, Model};

use crate::rig::{Rig, abc, def, doubles, values};

fn bits(array: &ArrayRef) -> Vec<u64> {
    values(array).into_iter().map(|value| value.unwrap().to_bits()).collect()
}

#[test]
fn a_thousand_rows_score_bit_for_bit_as_in_python() {
    let rig = Rig::get();
    for name in ["mlp", "trees", "regressor"] {
        let model = rig.load(&abc(Missing::Nan), name).unwrap();
        let expected: Vec<u64> = rig.expected(name).into_iter().map(|value| f64::from(value).to_bits()).collect();
        assert_eq!(expected.len(), 1000);
        assert_eq!(bits(&model.predict(&rig.rows()).unwrap()[0]), expected, "{name}");
        let floats =
            def(&[("a", DataType::Float64), ("b", DataType::Float64), ("c", DataType::Float64)], &[("score", DataType::Float32)], Missing::Nan);
        assert_eq!(rig.load(&floats, name).unwrap().predict(&rig.rows()).unwrap()[0].data_type(), &DataType::Float32);
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_a_model_that_differs_is_known() {
    let rig = Rig::get();
    for name in ["mlp", "trees", "regressor"] {
        let model = rig.load(&abc(Missing::Nan), name).unwrap();
        assert!(model.batch_invariant(), "{name}");
        let rows = rig.rows();
        let whole = bits(&model.predict(&rows).unwrap()[0]);
        for size in [1, 3, 64, 999] {
            let mut parts = Vec::new();
            for start in (0..1000).step_by(size) {
                let part: Vec<ArrayRef> = rows.iter().map(|column| column.slice(start, size.min(1000 - start))).collect();
                parts.extend(bits(&model.predict(&part).unwrap()[0]));
            }
            assert_eq!(parts, whole, "{name} in batches of {size}");
        }
        let many: Vec<ArrayRef> = rows.iter().map(|column| arrow::compute::concat(&[column.as_ref(), column, column]).unwrap()).collect();
        assert_eq!(bits(&model.predict(&many).unwrap()[0]), [whole.as_slice(); 3].concat(), "{name} in more than one run");
    }
    assert!(!rig.load(&abc(Missing::Null), "centred").unwrap().batch_invariant());
}

#[test]
fn null_is_nan_or_leaves_its_row_without_a_prediction() {
    let rig = Rig::get();
    let rows = [doubles([Some(1.0), None, None, Some(4.0)]), doubles([Some(1.0), Some(2.0), None, Some(f64::NAN)]), doubles([Some(1.0); 4])];
    let counted = rig.load(&abc(Missing::Nan), "missing").unwrap();
    assert_eq!(values(&counted.predict(&rows).unwrap()[0]), [Some(0.0), Some(1.0), Some(2.0), Some(1.0)]);
    // NaN is a value, NULL is none.
    let skipped = rig.load(&abc(Missing::Null), "missing").unwrap();
    assert_eq!(values(&skipped.predict(&rows).unwrap()[0]), [Some(0.0), None, None, Some(1.0)]);
    let none = [doubles([None; 3]), doubles([None; 3]), doubles([None; 3])];
    assert_eq!(values(&skipped.predict(&none).unwrap()[0]), [None; 3]);
}

#[test]
fn no_rows_have_no_predictions() {
    let model = Rig::get().load(&abc(Missing::Nan), "trees").unwrap();
    let empty = [doubles([]), doubles([]), doubles([])];
    let scores = model.predict(&empty).unwrap();
    assert_eq!((scores.len(), scores[0].len(), scores[0].data_type()), (1, 0, &DataType::Float64));
}

#[test]
fn four_threads_score_one_model() {
    let rig = Rig::get();
    let model: Arc<dyn Model> = Arc::new(rig.load(&abc(Missing::Nan), "trees").unwrap());
    let expected = bits(&model.predict(&rig.rows()).unwrap()[0]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (model, expected) = (model.clone(), &expected);
            scope.spawn(move || {
                let rows = rig.rows();
                for round in 0..20 {
                    let start = thread * 100 + round;
                    let part: Vec<ArrayRef> = rows.iter().map(|column| column.slice(start, 500)).collect();
                    assert_eq!(bits(&model.predict(&part).unwrap()[0]), expected[start..start + 500]);
                }
            });
        }
    });
}

#[test]
fn wrong_calls_and_impossible_rows_are_errors_and_later_rows_still_score() {
    let rig = Rig::get();
    let model = rig.load(&abc(Missing::Nan), "mlp").unwrap();
    assert_eq!(model.predict(&rig.rows()[..2]).unwrap_err().kind, Kind::Internal);
    let uneven = [doubles([Some(1.0)]), doubles([Some(1.0)]), doubles([Some(1.0), None])];
    assert_eq!(model.predict(&uneven).unwrap_err().kind, Kind::Internal);

    let gather = rig.load(&def(&[("c", DataType::Int64)], &[("picked", DataType::Int64)], Missing::Null), "gather").unwrap();
    let column = |value: i64| -> ArrayRef { Arc::new(arrow::array::Int64Array::from(vec![value])) };
    let outside = gather.predict(&[column(7)]).unwrap_err();
    assert_eq!(outside.kind, Kind::Data);
    assert!(outside.message.contains("gather.onnx failed"), "{outside}");
    assert_eq!(gather.predict(&[column(2)]).unwrap()[0].as_ref(), column(30).as_ref());
}
