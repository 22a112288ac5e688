"""A trainer for tests: one weight per feature, the difference of its means between late and other rides, as an ONNX model.

argv[1] is `learn`, or `wait`: as `learn`, but a run of a later point than the first waits until there is a file `go` beside the output; or
`stubborn`: as `wait`, and SIGTERM does not end it.
"""

import json
import os
import pathlib
import signal
import sys
import time

import numpy
import onnx
import pyarrow.parquet
from onnx import TensorProto, helper

# Read by ONNX Runtime 1.31 and far older ones.
OPSET, IR_VERSION = 15, 8

train = pyarrow.parquet.read_table(os.environ["FRESHET_TRAIN"])
holdout = pyarrow.parquet.read_table(os.environ["FRESHET_HOLDOUT"])
schema = json.loads(pathlib.Path(os.environ["FRESHET_SCHEMA"]).read_text())
output = pathlib.Path(os.environ["FRESHET_OUTPUT"])
features = [column["name"] for column in schema if column["role"] == "feature"]
label = next(column["name"] for column in schema if column["role"] == "label")
assert label in train.column_names and label not in holdout.column_names
assert os.environ["FRESHET_MODEL"] == "lateness" and int(os.environ["FRESHET_SEED"]) >= 0
assert os.environ["FRESHET_FLIGHT"].startswith("grpc://127.0.0.1:")
print(json.dumps({"rows": train.num_rows, "features": len(features)}), flush=True)

first = os.environ["FRESHET_CHAMPION"] == ""
if not first:
    onnx.checker.check_model(os.environ["FRESHET_CHAMPION"])
if sys.argv[1] in ("wait", "stubborn") and not first:
    if sys.argv[1] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (output.parent / "waiting").write_text(str(os.getpid()))
    while not (output.parent / "go").exists():
        time.sleep(0.02)

late = numpy.array(train[label].to_pylist(), dtype=bool)
columns = [numpy.nan_to_num(numpy.array(train[name].to_pylist(), dtype=float)) for name in features]
# Small enough that no score is 0 or 1 in 32 bits.
weights = [float((column[late].mean() - column[~late].mean()) / (10 + column.var())) for column in columns]
nodes = [
    helper.make_node("IsNaN", ["x"], ["missing"]),
    helper.make_node("Where", ["missing", "zero", "x"], ["filled"]),
    helper.make_node("MatMul", ["filled", "weights"], ["score"]),
    helper.make_node("Sigmoid", ["score"], ["p_late"]),
]
graph = helper.make_graph(
    nodes,
    "lateness",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(features)])],
    [helper.make_tensor_value_info("p_late", TensorProto.FLOAT, [None, 1])],
    [
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("weights", TensorProto.FLOAT, [len(features), 1], weights),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
onnx.save(model, output / "model.onnx")
(output / "metrics.json").write_text(json.dumps({"rows": train.num_rows, "weights": weights}))
