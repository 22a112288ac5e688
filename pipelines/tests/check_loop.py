#!/usr/bin/env python3
"""Checks a finished run of the flight_delay loop against what numpy, scikit-learn and ONNX Runtime's own Python compute from its files.

In: the folder that prepare.py wrote, the run's data directory, its predictions.jsonl, and a folder with the answers quality.jsonl,
runs.jsonl and drift.jsonl (rows of `quality`, `runs(retrain_delay)` and `delay_drift` as JSON lines). Out: exit code 0 and one line per
check, or 1 with the first difference. Shares nothing with the engine; the features themselves are the business of check_features.py.
Python 3.10 or later.
"""

import argparse
import calendar
import json
import pathlib
import re
import sys

import numpy
import onnxruntime
from pyarrow import parquet
from sklearn.metrics import log_loss, roc_auc_score

DAY = 86_400_000
MODEL = "arrival_delay"
NOT_FEATURES = ("flight_id", "ask_time", "month", "p_late", "model_version", "p_late_frozen")
# Sums of many floats in another order differ in the last places; nothing else is allowed.
TOLERANCE = 1e-12
# The rows of pipeline.sql: RETRAINING JOB … LAST, HOLDOUT LAST, and DRIFT MONITOR … WINDOW, MIN ROWS, DRIFTED WHEN.
LAST, HOLDOUT, WINDOW, ROWS_MIN = 120 * DAY, 7 * DAY, 28 * DAY, 5_000


class Difference(Exception):
    """What differs, and where."""


def main():
    arguments = parse_arguments()
    try:
        loop = Loop(arguments)
        for check in (check_versions, check_scores, check_quality, check_training, check_validation, check_drift):
            print(f"{check.__name__.removeprefix('check_')}: {check(loop)}")
    except Difference as difference:
        print(f"DIFFERENT: {difference}")
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="Checks a finished run of the flight_delay loop with numpy, scikit-learn and onnxruntime.")
    parser.add_argument("data", type=pathlib.Path, help="folder written by prepare.py")
    parser.add_argument("state", type=pathlib.Path, help="the run's data directory")
    parser.add_argument("predictions", type=pathlib.Path, help="predictions.jsonl")
    parser.add_argument("answers", type=pathlib.Path, help="folder with quality.jsonl, runs.jsonl and drift.jsonl")
    return parser.parse_args()


def expect(truth, text):
    if not truth:
        raise Difference(text)


class Loop:
    """Everything the run left behind, as arrays with one place per prediction, in the order of the file."""

    def __init__(self, arguments):
        self.read_predictions(arguments.predictions)
        self.read_outcomes(arguments.data)
        self.state = arguments.state
        answers = {name: [json.loads(line) for line in (arguments.answers / f"{name}.jsonl").open()] for name in ("quality", "runs", "drift")}
        self.quality, self.drift = answers["quality"], answers["drift"]
        self.runs = sorted(answers["runs"], key=lambda run: run["decided_at"])
        for run in self.runs:
            run["d"] = milliseconds(run["decided_at"])
        self.sessions = {}

    def read_predictions(self, path):
        self.flights, self.asked, self.months, live, frozen, versions, features = [], [], [], [], [], [], []
        with path.open() as lines:
            for number, line in enumerate(lines, 1):
                change = json.loads(line)
                expect(change["op"] == "c", f"{path}:{number}: op {change['op']}; predictions are never retracted here")
                row = change["after"]
                if number == 1:
                    self.features = [name for name in row if name not in NOT_FEATURES]
                self.flights.append(row["flight_id"])
                self.asked.append(milliseconds(row["ask_time"]))
                self.months.append(row["month"])
                live.append(nan(row["p_late"]))
                frozen.append(nan(row["p_late_frozen"]))
                versions.append(row["model_version"] or 0)
                features.append([nan(row[name]) for name in self.features])
        self.asked, self.months, self.versions = numpy.array(self.asked), numpy.array(self.months), numpy.array(versions)
        self.live, self.frozen, self.x = numpy.array(live), numpy.array(frozen), numpy.array(features, dtype=numpy.float64)
        self.place = {flight: place for place, flight in enumerate(self.flights)}
        expect(len(self.place) == len(self.flights), "a flight is predicted twice")

    def read_outcomes(self, data):
        """Per prediction: when the flight arrived (never: the end of time), its delay (unknown: NaN)."""
        table = parquet.read_table(data / "arrivals.parquet")
        arrived = table["arr_time"].cast("timestamp[ms]").cast("int64").to_numpy()
        delays = table["arr_delay"].to_numpy(zero_copy_only=False).astype(numpy.float64)
        self.arrived = numpy.full(len(self.flights), numpy.iinfo(numpy.int64).max)
        self.delay = numpy.full(len(self.flights), numpy.nan)
        for flight, time, delay in zip(table["flight_id"].to_pylist(), arrived, delays):
            place = self.place.get(flight)
            if place is not None:
                self.arrived[place], self.delay[place] = time, delay
        self.late = self.delay > 15

    def score(self, version, places):
        """What the registry's file says about these predictions, as the DOUBLE that SQL sees."""
        if version not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            file = self.state / "models" / MODEL / str(version) / "model.onnx"
            self.sessions[version] = onnxruntime.InferenceSession(str(file), options)
        inputs = self.x[places].astype(numpy.float32)
        return self.sessions[version].run(["probabilities"], {"features": inputs})[0][:, 1].astype(numpy.float64)

    def known(self, run, begin, end):
        """The labelled rows of a training set as of the run's decision, in the order of its files: places of the predictions."""
        d = run["d"]
        chosen = (self.arrived < d) & ~numpy.isnan(self.delay) & (self.asked >= begin) & (self.asked < end)
        return sorted(numpy.flatnonzero(chosen).tolist(), key=lambda place: (self.asked[place], self.flights[place]))

    def holdout(self, run):
        return self.known(run, run["d"] - HOLDOUT, run["d"])

    def live_at(self, time):
        """The version a row of this epoch is scored by; 0: none."""
        promoted = [run["version"] for run in self.runs if run["result"] == "promoted" and run["d"] < time]
        return promoted[-1] if promoted else 0


def nan(value):
    return numpy.nan if value is None else value


def milliseconds(text):
    """'2013-01-01T09:15:00.000Z' as milliseconds since 1970; a missing fraction is 0."""
    parts = re.fullmatch(r"(\d+)-(\d+)-(\d+)[T ](\d+):(\d+):(\d+)(?:\.(\d{1,3}))?Z?", text).groups()
    year, month, day, hour, minute, second = map(int, parts[:6])
    return calendar.timegm((year, month, day, hour, minute, second)) * 1000 + int((parts[6] or "0").ljust(3, "0"))


def same(a, b):
    """Bit for bit, where all NaN are one."""
    return (a.view(numpy.int64) == b.view(numpy.int64)) | (numpy.isnan(a) & numpy.isnan(b))


# --- the checks, each of which returns what it has seen


def check_versions(loop):
    """Every row carries the version that was live at its epoch, which is its ask_time: the files are in that order."""
    expected = numpy.zeros(len(loop.flights), dtype=numpy.int64)
    for run in loop.runs:
        if run["result"] == "promoted":
            expected[loop.asked > run["d"]] = run["version"]
    wrong = numpy.flatnonzero(expected != loop.versions)
    expect(len(wrong) == 0, first_of(wrong, loop, expected, loop.versions, "version"))
    return f"{len(loop.flights):,} rows, versions {sorted(set(loop.versions.tolist()))}"


def first_of(wrong, loop, expected, found, what):
    if len(wrong) == 0:
        return ""
    first = wrong[0]
    return f"{what} of {loop.flights[first]} is {found[first]!r}, expected {expected[first]!r}; {len(wrong):,} differ"


def check_scores(loop):
    expected, frozen = numpy.full(len(loop.flights), numpy.nan), numpy.full(len(loop.flights), numpy.nan)
    for version in sorted(set(loop.versions.tolist()) - {0}):
        places = numpy.flatnonzero(loop.versions == version)
        expected[places] = loop.score(version, places)
    first = [run["d"] for run in loop.runs if run["version"] == 1]
    if first:
        places = numpy.flatnonzero(loop.asked > first[0])
        frozen[places] = loop.score(1, places)
    for name, wanted, found in (("p_late", expected, loop.live), ("p_late_frozen", frozen, loop.frozen)):
        wrong = numpy.flatnonzero(~same(wanted, found))
        expect(len(wrong) == 0, first_of(wrong, loop, wanted, found, name))
    return f"{numpy.count_nonzero(~numpy.isnan(expected)):,} of p_late and {numpy.count_nonzero(~numpy.isnan(frozen)):,} of p_late_frozen equal bit for bit"


def check_quality(loop):
    judged = ~numpy.isnan(loop.live) & ~numpy.isnan(loop.delay)
    expect(sorted(row["month"] for row in loop.quality) == sorted(set(loop.months[judged].tolist())), "quality has other months")
    values = 0
    for row in loop.quality:
        chosen = judged & (loop.months == row["month"])
        expect(row["flights"] == numpy.count_nonzero(chosen), f"month {row['month']} has {row['flights']} flights, expected {numpy.count_nonzero(chosen)}")
        for suffix, scores in (("live", loop.live), ("frozen", loop.frozen)):
            for metric, function in (("auc", roc_auc_score), ("log_loss", log_loss)):
                wanted, found = float(function(loop.late[chosen], scores[chosen])), row[f"{metric}_{suffix}"]
                expect(abs(wanted - found) <= TOLERANCE, f"{metric}_{suffix} of month {row['month']} is {found!r}, expected {wanted!r}")
                values += 1
    return f"{values} values of {len(loop.quality)} months equal scikit-learn's to {TOLERANCE}"


def check_training(loop):
    """What each run was trained on are the vectors the stream looked up, bit for bit, and no row more or less."""
    rows = 0
    for run in loop.runs:
        if run["train_rows"] is None:
            continue
        places = loop.known(run, run["d"] - LAST, run["d"] - HOLDOUT)
        compare_file(loop, loop.state / "runs" / run["run_id"] / "train.parquet", places, label="late")
        held = loop.holdout(run)
        compare_file(loop, loop.state / "runs" / run["run_id"] / "holdout.parquet", held, label=None)
        expect((run["train_rows"], run["holdout_rows"]) == (len(places), len(held)), f"{run['run_id']} counts other rows: {run}")
        rows += len(places) + len(held)
    return f"{rows:,} rows of {len(loop.runs)} runs equal the stream's vectors bit for bit"


def compare_file(loop, path, places, label):
    table = parquet.read_table(path)
    expect(table["flight_id"].to_pylist() == [loop.flights[place] for place in places], f"{path} holds other flights, or in another order")
    expect((label is None) == ("late" not in table.column_names), f"{path}: the label is where it must not be, or missing")
    if label:
        expect(table[label].to_pylist() == loop.late[places].tolist(), f"{path}: labels differ")
    for column, name in enumerate(loop.features):
        found = table[name].to_numpy(zero_copy_only=False).astype(numpy.float64)
        wrong = numpy.flatnonzero(~same(found, loop.x[places, column]))
        expect(len(wrong) == 0, f"{path}: {len(wrong)} values of {name} differ from the stream's")


def check_validation(loop):
    """The champion is beaten or kept on the same holdout, and each version's value is what scikit-learn says."""
    for run in loop.runs:
        if run["challenger_value"] is None:
            continue
        places = loop.holdout(run)
        wanted = {"challenger_value": roc_auc_score(loop.late[places], loop.score(run["version"], places)), "champion_value": None}
        if run["champion"] is not None:
            expect(run["champion"] == loop.live_at(run["d"]), f"{run['run_id']} names champion {run['champion']}")
            wanted["champion_value"] = roc_auc_score(loop.late[places], loop.score(run["champion"], places))
        for name, value in wanted.items():
            expect((value is None) == (run[name] is None) and (value is None or abs(value - run[name]) <= TOLERANCE), f"{name} of {run['run_id']} is {run[name]!r}, expected {value!r}")
        better = run["champion"] is None or wanted["challenger_value"] > wanted["champion_value"]
        expect(better == (run["result"] == "promoted"), f"{run['run_id']} was {run['result']}, but {wanted}")
    return f"{sum(run['challenger_value'] is not None for run in loop.runs)} verdicts"


def check_drift(loop):
    """psi(p_late) of every evaluation, against the scores of the live version on its holdout."""
    by_version = {run["version"]: run for run in loop.runs if run["version"] is not None}
    values = 0
    for row in loop.drift:
        if (row["method"], row["column_name"]) != ("psi", "p_late"):
            continue
        d = milliseconds(row["evaluated_at"])
        version = loop.live_at(d)
        expect((row["model_version"] or 0) == version, f"at {row['evaluated_at']} drift compares with version {row['model_version']}, expected {version}")
        window = loop.live[(loop.asked >= d - WINDOW) & (loop.asked < d)]
        # A NULL score says that no version was live, not that the scores have moved.
        window = window[~numpy.isnan(window)]
        state = "no_reference" if version == 0 else "too_few_rows" if len(window) < ROWS_MIN else "measured"
        expect(row["state"] == state and (row["value"] is None) == (state != "measured"), f"at {row['evaluated_at']} drift is {row}, expected {state}")
        if state != "measured":
            continue
        scores = loop.score(version, loop.holdout(by_version[version]))
        wanted = psi(scores, window)
        expect(abs(wanted - row["value"]) <= 1e-9, f"psi at {row['evaluated_at']} is {row['value']!r}, expected {wanted!r}")
        values += 1
    return f"{values} values of psi(p_late) equal"


def psi(reference, window):
    """Ten bins at the reference's quantiles; shares below 1e-4 count as 1e-4."""
    edges = numpy.unique(numpy.quantile(reference, numpy.arange(1, 10) / 10))
    shares = []
    for scores in (reference, window):
        counts = numpy.bincount(numpy.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
        shares.append(numpy.maximum(counts / counts.sum(), 1e-4))
    return float(numpy.sum((shares[1] - shares[0]) * numpy.log(shares[1] / shares[0])))


if __name__ == "__main__":
    sys.exit(main())
