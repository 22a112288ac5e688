use std::path::Path;

use arrow::datatypes::DataType;
use freshet_core::{Kind, Missing, ModelDef};
use freshet_inference::OnnxRuntime;

use crate::rig::{Rig, abc, def};

/// Refused at open as Invalid, in a sentence that names the file and says all of `says`.
fn refused(def: &ModelDef, name: &str, says: &[&str]) {
    let error = Rig::get().load(def, name).expect_err(name);
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(error.message.contains(&format!("{name}.onnx cannot be used as model m: ")), "{error}");
    for text in says {
        assert!(error.message.contains(text), "{text} is not in: {error}");
    }
}

#[test]
fn a_file_that_is_no_model_is_refused_by_name() {
    for name in ["truncated", "prose"] {
        refused(&abc(Missing::Nan), name, &["it is not an ONNX model that ONNX Runtime can load", "export it again"]);
    }
    refused(&abc(Missing::Nan), "empty", &["it is empty"]);
    refused(&abc(Missing::Nan), "nowhere", &["No such file"]);
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_both_sides() {
    let wanted = "wanted one input [N, 3] of (a, b, c)";
    refused(&abc(Missing::Nan), "wide", &[wanted, "found inputs (x: float [N, 4]), outputs (score: float [N, 1])"]);
    refused(&abc(Missing::Nan), "text", &[wanted, "found inputs (x: String [N])"]);
    refused(&abc(Missing::Nan), "columns", &[wanted, "d: int32 [N]; b: double [N, 1]"]);
    // Its batch is fixed at one row.
    refused(&abc(Missing::Nan), "fixed", &[wanted, "found inputs (x: float [1, 3])"]);
    let doubles = def(&[("c", DataType::Float64)], &[("picked", DataType::Int64)], Missing::Null);
    refused(&doubles, "gather", &["column c is Float64, the model takes int64"]);
    let text = def(&[("a", DataType::Utf8), ("b", DataType::Float64), ("c", DataType::Float64)], &[("score", DataType::Float64)], Missing::Nan);
    refused(&text, "mlp", &["column a is Utf8, the model takes float"]);
}

#[test]
fn outputs_that_do_not_fit_are_refused_with_both_sides() {
    let zip_map = ["convert it with zipmap=False", "sequence of maps"];
    refused(&abc(Missing::Nan), "zipmap", &zip_map);
    refused(&abc(Missing::Nan), "pair", &["wanted outputs [N] or [N, 1] named (score)", "y: float [N, 3]"]);
    // One number for the whole batch.
    refused(&abc(Missing::Nan), "total", &["wanted outputs [N] or [N, 1]"]);
    let three = [("a", DataType::Float64), ("b", DataType::Float64), ("c", DataType::Float64)];
    refused(&def(&three, &[("score", DataType::Int64)], Missing::Nan), "mlp", &["OUTPUT column score is Int64, the model gives float"]);
    refused(&def(&three, &[("x", DataType::Float64), ("y", DataType::Float64)], Missing::Nan), "mlp", &["named (x, y)"]);
}

#[test]
fn a_library_that_is_none_is_refused_with_the_remedy() {
    let rig = Rig::get();
    for library in [Path::new("/nowhere/libonnxruntime.so"), &rig.file("prose.onnx")] {
        let error = OnnxRuntime::open(library).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.starts_with(&format!("ONNX Runtime cannot be loaded from {}", library.display())), "{error}");
        assert!(error.message.contains("pip install onnxruntime==1.31.1"), "{error}");
    }
    OnnxRuntime::open(&rig.library).unwrap();
    OnnxRuntime::open(&rig.library).unwrap();
    let other = rig.file("libonnxruntime.so");
    std::fs::copy(&rig.library, &other).unwrap();
    let error = OnnxRuntime::open(&other).unwrap_err();
    assert!(error.message.contains("is loaded already, and a process loads one"), "{error}");
}
