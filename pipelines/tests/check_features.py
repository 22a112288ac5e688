#!/usr/bin/env python3
"""Recomputes the features of a random sample of predictions by brute force and compares them with a predictions.jsonl.

In: the folder that prepare.py wrote, and the file of the sink `predictions_out` (Debezium JSON lines).
Out: exit code 0 if every sampled value is equal bit for bit, 1 with the first differences if not.
Shares nothing with the engine: a question at q counts the departures of its key with q - w < e < q, anew for every question.
Python 3.10 or later. A source's epochs equal its event times here, because every file is in event-time order and in whole milliseconds.
"""

import argparse
import bisect
import calendar
import json
import math
import pathlib
import random
import re
import sys

HOUR = 3_600_000
WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR}
# A key is forgotten when it has been silent for twice its longest window or TTL.
LOAD_HORIZON = 2 * 168 * HOUR
WEATHER_TTL = 6 * HOUR
LOADS = {"origin": "origin", "carrier": "carrier", "dest": "dest", "aircraft": "tailnum"}
WEATHER = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")
REQUEST = ("distance", "hour", "weekday")
DIFFERENCES_SHOWN = 10


def main():
    arguments = parse_arguments()
    schedules = {row["flight_id"]: row for row in read(arguments.data, "schedules")}
    departures = {column: by_key(read(arguments.data, "departures"), column) for column in LOADS.values()}
    weather = by_key(read(arguments.data, "weather"), "origin")
    predictions = read_predictions(arguments.predictions)

    failures = compare_keys(schedules, predictions)
    flight_ids = sorted(predictions.keys() & schedules.keys())
    sample = random.Random(arguments.seed).sample(flight_ids, min(arguments.sample, len(flight_ids)))
    values = 0
    for flight_id in sample:
        expected = features(schedules[flight_id], departures, weather)
        values += len(expected)
        failures += compare(flight_id, expected, predictions[flight_id])
    for failure in failures[:DIFFERENCES_SHOWN]:
        print(failure)
    verdict = f"{len(failures):,} differences" if failures else "all equal"
    print(f"{len(predictions):,} predictions, {len(sample):,} recomputed (seed {arguments.seed}), {values:,} values: {verdict}")
    return 1 if failures or not sample else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="Recomputes the features of a sample of predictions in plain Python.")
    parser.add_argument("data", type=pathlib.Path, help="folder written by prepare.py")
    parser.add_argument("predictions", type=pathlib.Path, help="predictions.jsonl")
    parser.add_argument("--sample", type=int, default=2000, help="predictions to recompute (default 2000)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def read(folder, name):
    """The rows of a file as dictionaries, timestamps as integer milliseconds. The only use of a library."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(folder / f"{name}.parquet")
    for index, field in enumerate(table.schema):
        if pyarrow.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(pyarrow.timestamp("ms")).cast(pyarrow.int64()))
    return table.to_pylist()


def by_key(rows, column):
    """The rows of each key, in file order, which is the order of event time."""
    groups = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def read_predictions(path):
    """What is left of the sink's changes, by flight."""
    live = {}
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            change = json.loads(line)
            row = change["after"] if change["op"] == "c" else change["before"]
            flight_id = row["flight_id"]
            if change["op"] == "c":
                if flight_id in live:
                    raise SystemExit(f"{path}:{number}: {flight_id} is inserted twice")
                live[flight_id] = row
            elif live.pop(flight_id, None) != row:
                raise SystemExit(f"{path}:{number}: {flight_id} is retracted, but not there")
    return live


def compare_keys(schedules, predictions):
    failures = [f"{flight_id}: no prediction" for flight_id in sorted(schedules.keys() - predictions.keys())]
    return failures + [f"{flight_id}: a prediction without a schedule" for flight_id in sorted(predictions.keys() - schedules.keys())]


def features(schedule, departures, weather):
    q = schedule["ask_time"]
    expected = {"month": schedule["month"], "ask_time": q}
    expected.update({name: schedule[name] for name in REQUEST})
    for name, column in LOADS.items():
        expected.update(load(name, schedule[column], q, departures[column]))
    reading = latest(schedule["origin"], q, weather)
    expected.update({name: None if reading is None else reading[name] for name in WEATHER})
    return expected


def load(name, key, q, departures):
    """Counts and mean delays of one key in each window. A key that is unknown or forgotten has only NULLs."""
    rows = departures.get(key, []) if key is not None else []
    end = bisect.bisect_left(rows, q, key=lambda row: row["dep_time"])
    known = end > 0 and q - rows[end - 1]["dep_time"] <= LOAD_HORIZON
    expected = {}
    for suffix, width in WINDOWS.items():
        begin = bisect.bisect_right(rows, q - width, key=lambda row: row["dep_time"])
        delays = [row["dep_delay"] for row in rows[begin:end]]
        expected[f"{name}_departures_{suffix}"] = len(delays) if known else None
        # fsum rounds once; the delays are whole minutes, so that the quotient is the correctly rounded mean.
        expected[f"{name}_delay_{suffix}"] = math.fsum(delays) / len(delays) if known and delays else None
    return expected


def latest(origin, q, weather):
    """The freshest reading before q that is not older than the TTL; of equal times the later in the file."""
    best = None
    for row in weather.get(origin, []):
        if row["observed_at"] < q and (best is None or row["observed_at"] >= best["observed_at"]):
            best = row
    return best if best is not None and q - best["observed_at"] <= WEATHER_TTL else None


def compare(flight_id, expected, found):
    failures = []
    for name, value in expected.items():
        if name not in found:
            failures.append(f"{flight_id}: column {name} is missing")
            continue
        answer = milliseconds(found[name]) if name == "ask_time" else found[name]
        if answer != value or (answer is None) != (value is None):
            failures.append(f"{flight_id}: {name} is {answer!r}, expected {value!r}")
    return failures


def milliseconds(text):
    """'2013-01-01T09:15:00.000Z' as milliseconds since 1970."""
    year, month, day, hour, minute, second, fraction = map(int, re.fullmatch(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d{3})Z", text).groups())
    return calendar.timegm((year, month, day, hour, minute, second)) * 1000 + fraction


if __name__ == "__main__":
    sys.exit(main())
