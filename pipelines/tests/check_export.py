#!/usr/bin/env python3
"""Compares an exported training set with the vectors the stream looked up and wrote, bit for bit.

In: the folder that prepare.py wrote, predictions.jsonl, the export (Parquet). Out: exit code 0 and a count, or 1 with the first difference.
Columns `origin_worst_*`, which no stream had, are computed again from the departures. Python 3.10 or later.
"""

import bisect
import json
import pathlib
import sys

from pyarrow import parquet

HOUR = 3_600_000
WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR}
NOT_FEATURES = {"flight_id", "ask_time", "month", "p_late", "model_version", "p_late_frozen"}


def main():
    data, predictions, export = map(pathlib.Path, sys.argv[1:4])
    stream = {}
    for line in predictions.open():
        row = json.loads(line)["after"]
        stream[row["flight_id"]] = row
    features = [name for name in next(iter(stream.values())) if name not in NOT_FEATURES]
    delays = {row["flight_id"]: row["arr_delay"] for row in read(data, "arrivals")}
    origins = {row["flight_id"]: row["origin"] for row in read(data, "schedules")}
    rows = read_file(export)
    more = [name for name in rows[0] if name not in (*features, "flight_id", "ask_time", "late")]
    worst = Worst(data) if more else None

    expected = {flight for flight in stream if flight in delays}
    found = [row["flight_id"] for row in rows]
    if len(found) != len(set(found)) or set(found) - expected:
        raise SystemExit(f"{export} has flights twice, or without an arrival: {len(found)} rows, {len(expected)} expected")
    labelled = {flight for flight in expected if delays[flight] is not None}
    if labelled - set(found):
        raise SystemExit(f"{export} lacks {len(labelled - set(found))} labelled flights")
    for row in rows:
        flight = row["flight_id"]
        for name in features:
            if not same(row[name], stream[flight][name]):
                raise SystemExit(f"{flight}: {name} is {row[name]!r}, the stream looked up {stream[flight][name]!r}")
        delay = delays[flight]
        if row["late"] != (None if delay is None else delay > 15):
            raise SystemExit(f"{flight}: late is {row['late']!r}, the flight came {delay} minutes late")
        for name in more:
            wanted = worst.value(origins[flight], row["ask_time"], name.removeprefix("origin_worst_"))
            if not same(row[name], wanted):
                raise SystemExit(f"{flight}: {name} is {row[name]!r}, expected {wanted!r}")
    print(f"{len(rows):,} rows of {len(features)} features equal, {len(more)} more columns")


def same(a, b):
    return (a is None) == (b is None) and a == b


class Worst:
    """The greatest delay of an origin's departures in (q - w, q), by brute force."""

    def __init__(self, data):
        self.rows = {}
        for row in read(data, "departures"):
            times, delays = self.rows.setdefault(row["origin"], ([], []))
            times.append(row["dep_time"])
            delays.append(row["dep_delay"])

    def value(self, origin, q, suffix):
        times, delays = self.rows[origin]
        inside = delays[bisect.bisect_right(times, q - WINDOWS[suffix]) : bisect.bisect_left(times, q)]
        return max(inside, default=None)


def read(folder, name):
    return read_file(folder / f"{name}.parquet")


def read_file(path):
    """Rows as dictionaries, timestamps as milliseconds."""
    import pyarrow

    table = parquet.read_table(path)
    for index, field in enumerate(table.schema):
        if pyarrow.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(pyarrow.timestamp("ms")).cast(pyarrow.int64()))
    return table.to_pylist()


if __name__ == "__main__":
    main()
