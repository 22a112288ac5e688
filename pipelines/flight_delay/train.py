#!/usr/bin/env python3
"""Trains the demo's model: will this flight arrive more than 15 minutes late?

In: what a retraining job hands over in the environment: FRESHET_TRAIN (Parquet, label included), FRESHET_HOLDOUT (Parquet, without it),
FRESHET_SCHEMA (JSON: name, type and role of each column), FRESHET_SEED. Out: model.onnx and metrics.json in the folder FRESHET_OUTPUT, and
a JSON line of progress on stdout now and then. The same input gives the same bytes. Exit code 0, or 1 with one sentence on stderr.
The trainer never judges itself: the job scores its model on the holdout, whose labels it does not get.
"""

import json
import os
import pathlib
import sys

PACKAGES = ("lightgbm==4.7.0", "onnxmltools==1.16.0", "onnx==1.23.2", "pyarrow==21.0.0")
TREES = 100
PROGRESS_EVERY_TREES = 20
# LightGBM's own defaults, made repeatable. A gentler fit (smaller trees, slower steps) is a better first model and gains less by training again.
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 31,
    # The same trees on every machine, whatever its cores.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
# What ONNX Runtime 1.31 and the converter both know for tree ensembles.
OPSET = 15


class Failure(Exception):
    """A sentence for the user, with its remedy."""


def main():
    try:
        check_packages()
        train()
    except Failure as failure:
        print(f"train.py: {failure}", file=sys.stderr)
        return 1
    return 0


def check_packages():
    missing = []
    for package in PACKAGES:
        try:
            __import__(package.split("==")[0])
        except ImportError:
            missing.append(package)
    if missing:
        raise Failure(f"missing Python packages; install them with: {sys.executable} -m pip install {' '.join(missing)}")


def train():
    output = pathlib.Path(setting("FRESHET_OUTPUT"))
    features, label = columns(pathlib.Path(setting("FRESHET_SCHEMA")))
    rows, late = read(setting("FRESHET_TRAIN"), features, label)
    positive_share = float(late.mean())
    progress(step="read", rows=len(rows), features=len(features), positive_share=round(positive_share, 4))

    booster = fit(rows, late, features, int(setting("FRESHET_SEED")))
    metrics = {"rows": len(rows), "positive_share": positive_share, "trees": TREES, "log_loss_train": log_loss(booster.predict(rows), late)}
    replace(output / "model.onnx", convert(booster, len(features)))
    replace(output / "metrics.json", json.dumps(metrics, indent=2).encode() + b"\n")
    progress(step="written", **metrics)


def setting(name):
    value = os.environ.get(name, "")
    if not value:
        raise Failure(f"{name} is not set: a retraining job runs this script; see its RUN COMMAND in pipeline.sql")
    return value


def columns(path):
    """The features in the order the model takes them, and the label."""
    schema = json.loads(path.read_text())
    names = {role: [column["name"] for column in schema if column["role"] == role] for role in ("feature", "label")}
    if not names["feature"] or len(names["label"]) != 1:
        raise Failure(f"{path} must name features and one label, found {len(names['feature'])} and {len(names['label'])}")
    return names["feature"], names["label"][0]


def read(path, features, label):
    """A float matrix [rows, features] in which NULL is NaN, and the labels as 0 and 1."""
    import numpy
    from pyarrow import compute, float32, float64, parquet

    table = parquet.read_table(path, columns=[*features, label])
    late = table[label].cast("int8").to_numpy()
    if len(set(late.tolist())) < 2:
        raise Failure(f"{path} has {table.num_rows} rows with one label only; nothing can be learnt from them")
    # float32, as the model will see them.
    column = lambda name: compute.fill_null(table[name].cast(float64()).cast(float32(), safe=False), float("nan")).to_numpy()
    return numpy.column_stack([column(name) for name in features]), late


def fit(rows, late, features, seed):
    import lightgbm

    def show(environment):
        done = environment.iteration + 1
        if done % PROGRESS_EVERY_TREES == 0:
            progress(step="fit", trees=done, of=TREES)

    # LightGBM takes 31 bits.
    parameters = {**PARAMETERS, "seed": seed % 2**31}
    data = lightgbm.Dataset(rows, late, feature_name=features)
    return lightgbm.train(parameters, data, num_boost_round=TREES, callbacks=[show])


def log_loss(scores, late):
    import numpy

    scores = numpy.clip(scores, 1e-15, 1 - 1e-15)
    return float(-numpy.mean(late * numpy.log(scores) + (1 - late) * numpy.log(1 - scores)))


def convert(booster, width):
    """The bytes of the model: one float input [N, F], probabilities [N, 2]."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    # Without a name the graph would get a random one.
    inputs = [("features", FloatTensorType([None, width]))]
    model = convert_lightgbm(booster, name="arrival_delay", initial_types=inputs, target_opset=OPSET, zipmap=False)
    # The converter lists them in the order of a set.
    model.opset_import.sort(key=lambda opset: opset.domain)
    return model.SerializeToString(deterministic=True)


def replace(path, content):
    """A reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)


def progress(**values):
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())
