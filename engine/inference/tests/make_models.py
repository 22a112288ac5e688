"""Makes the models of the tests, and what Python's ONNX Runtime answers for 1,000 rows.

In: a folder. Out: in it, NAME.onnx, NAME.f32 (the expected scores, little endian) and rows.f64 (1,000 rows of 3 columns, some NaN);
on stdout, the path of ONNX Runtime's shared library.
"""

import pathlib
import sys

import lightgbm
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS = 1000
random = np.random.default_rng(7)


def save(folder, name, nodes, inputs, outputs, constants=()):
    value = lambda spec: helper.make_tensor_value_info(*spec)
    initializers = [numpy_helper.from_array(array, key) for key, array in constants]
    graph = helper.make_graph(nodes, name, list(map(value, inputs)), list(map(value, outputs)), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / f"{name}.onnx")


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def make_matrix_models(folder):
    """One input x [N, 3]."""
    x = [("x", FLOAT, ["N", 3])]
    weights = lambda *shape: random.normal(size=shape).astype(np.float32)
    layers = [
        node("Gemm", "x w1 b1", "h1"),
        node("Relu", "h1", "h2"),
        node("Gemm", "h2 w2 b2", "h3"),
        node("Sigmoid", "h3", "score"),
    ]
    constants = [("w1", weights(3, 33)), ("b1", weights(33)), ("w2", weights(33, 1)), ("b2", weights(1))]
    save(folder, "mlp", layers, x, [("score", FLOAT, ["N", 1])], constants)
    wide = [("w1", weights(4, 33)), *constants[1:]]
    save(folder, "wide", layers, [("x", FLOAT, ["N", 4])], [("score", FLOAT, ["N", 1])], wide)
    save(folder, "fixed", layers, [("x", FLOAT, [1, 3])], [("score", FLOAT, [1, 1])], constants)
    save(folder, "open_shapes", layers, [("x", FLOAT, ["N", "F"])], [("score", FLOAT, ["N", "M"])], constants)
    axis = lambda number: [("axis", np.array([number], dtype=np.int64))]
    centred = [node("ReduceMean", "x axis0", "mean", keepdims=1), node("Sub", "x mean", "rest"), node("ReduceSum", "rest axis", "score", keepdims=0)]
    save(folder, "centred", centred, x, [("score", FLOAT, ["N"])], [("axis0", np.array([0], dtype=np.int64)), *axis(1)])
    missing = [node("IsNaN", "x", "nan"), node("Cast", "nan", "ones", to=FLOAT), node("ReduceSum", "ones axis", "score", keepdims=0)]
    save(folder, "missing", missing, x, [("score", FLOAT, ["N"])], axis(1))
    split = [node("ReduceSum", "x axis", "low", keepdims=0), node("ReduceMax", "x axis", "high", keepdims=1), node("ReduceMin", "x axis", "rest")]
    save(folder, "several", split, x, [("rest", FLOAT, ["N", 1]), ("high", FLOAT, ["N", 1]), ("low", FLOAT, ["N"])], axis(1))
    save(folder, "pair", [node("Identity", "x", "y")], x, [("y", FLOAT, ["N", 3])])
    total = [node("ReduceSum", "x axis", "score", keepdims=0)]
    save(folder, "total", total, x, [("score", FLOAT, [None])], [("axis", np.array([0, 1], dtype=np.int64))])
    save(folder, "text", [node("StringNormalizer", "x", "y")], [("x", TensorProto.STRING, ["N"])], [("y", TensorProto.STRING, ["N"])])


def make_column_models(folder):
    """One input per column, in another order than the columns, each of another type."""
    inputs = [("d", TensorProto.INT32, ["N"]), ("b", TensorProto.DOUBLE, ["N", 1]), ("a", FLOAT, ["N"]), ("c", INT64, ["N"]), ("e", TensorProto.BOOL, ["N"])]
    cast = lambda name: node("Cast", name, name + "_double", to=TensorProto.DOUBLE)
    nodes = [*map(cast, "acde"), node("Squeeze", "b axis", "b_double")]
    nodes += [node("Add", "a_double b_double", "s1"), node("Add", "s1 c_double", "s2"), node("Add", "s2 d_double", "s3"), node("Add", "s3 e_double", "total")]
    save(folder, "columns", nodes, inputs, [("total", TensorProto.DOUBLE, ["N"])], [("axis", np.array([1], dtype=np.int64))])
    table = [("table", np.array([10, 20, 30], dtype=np.int64))]
    save(folder, "gather", [node("Gather", "table c", "picked")], [("c", INT64, ["N"])], [("picked", INT64, ["N"])], table)


def make_trees(folder, rows):
    known = np.nan_to_num(rows)
    label = (known[:, 0] + known[:, 1] * known[:, 2] + random.normal(size=ROWS) > 0).astype(int)
    settings = dict(n_estimators=100, num_leaves=31, deterministic=True, force_row_wise=True, n_jobs=1, seed=1, verbose=-1)
    classifier = lightgbm.LGBMClassifier(**settings).fit(rows, label)
    types = [("input", FloatTensorType([None, 3]))]
    onnx.save(convert_lightgbm(classifier, initial_types=types, zipmap=False, target_opset=15), folder / "trees.onnx")
    onnx.save(convert_lightgbm(classifier, initial_types=types, zipmap=True, target_opset=15), folder / "zipmap.onnx")
    regressor = lightgbm.LGBMRegressor(**settings).fit(rows, known[:, 0] + known[:, 1])
    onnx.save(convert_lightgbm(regressor, initial_types=types, target_opset=15), folder / "regressor.onnx")


def answer(folder, name, rows, output):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})[output]
    np.ascontiguousarray(scores[:, -1]).astype("<f4").tofile(folder / f"{name}.f32")


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = random.normal(scale=[1.0, 3.0, 40.0], size=(ROWS, 3))
    rows[random.random(rows.shape) < 0.05] = np.nan
    rows.astype("<f8").tofile(folder / "rows.f64")
    make_matrix_models(folder)
    make_column_models(folder)
    make_trees(folder, rows)
    for name, output in [("mlp", 0), ("trees", 1), ("regressor", 0)]:
        answer(folder, name, rows, output)
    (folder / "truncated.onnx").write_bytes((folder / "mlp.onnx").read_bytes()[:300])
    (folder / "prose.onnx").write_text("This is no model.\n" * 20)
    (folder / "empty.onnx").write_bytes(b"")
    print(next((pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))


main()
