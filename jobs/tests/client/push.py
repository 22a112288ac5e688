"""Pushes rows into a running pipeline as users do. Arguments: the Flight and the HTTP address. Prints one line per check that held."""
import datetime
import gzip
import hashlib
import hmac
import io
import json
import sys
import time
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.flight as flight

ADDRESS, HTTP = sys.argv[1], "http://" + sys.argv[2]
SCHEMA = pa.schema([("ride_id", pa.int64()), ("city", pa.string()), ("fare", pa.float64()), ("at", pa.timestamp("ms"))])
client = flight.connect(ADDRESS)


def check(name, found, expected):
    assert found == expected, f"{name}: found {found!r}, expected {expected!r}"
    print(f"ok {name}")


def fails(name, action, *parts):
    try:
        found = action()
    except Exception as error:  # every client library has its own kinds
        for part in parts:
            assert part in str(error), f"{name}: {part!r} is not in {error}"
        print(f"ok {name}")
        return
    raise AssertionError(f"{name}: no error but {found!r}")


def rides(city, *ids):
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    return pa.record_batch([[*ids], [city] * len(ids), [1.5] * len(ids), [now] * len(ids)], schema=SCHEMA)


def put(descriptor, batches, schema=SCHEMA, notes=()):
    writer, reader = client.do_put(descriptor, schema)
    answers = []
    with writer:
        for index, batch in enumerate(batches):
            if index < len(notes):
                writer.write_with_metadata(batch, json.dumps(notes[index]).encode())
            else:
                writer.write_batch(batch)
            answers.append(json.loads(reader.read().to_pybytes()))
        writer.done_writing()
    return answers


def post(source, body, content_type="application/x-ndjson", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{HTTP}/v1/ingest/{source}", data=body, headers={"Content-Type": content_type, **names})
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise RuntimeError(f"{error.code} {error.read().decode()}") from error
            assert error.headers["Retry-After"] == "1"
            time.sleep(0.05)
    raise RuntimeError("429 for half a minute")


def lookup(city, position):
    keys = {"features": "ride_features", "keys": {"city": [city]}, "min_position": {"source": "rides", "partition": 0, "position": position}}
    return client.do_get(flight.Ticket(json.dumps(keys))).read_all().to_pylist()[0]


path = flight.FlightDescriptor.for_path("rides")
answers = put(path, [rides("Bern", 1, 2), rides("Bern", 3)])
check("one answer per batch", [(a["position"], a["records"], a["duplicate"]) for a in answers], [(2, 2, False), (3, 1, False)])
check("an answer names its place", (answers[0]["source"], answers[0]["partition"], answers[0]["durable"]), ("rides", 0, False))
check("a lookup sees what was put", lookup("Bern", 3)["rides_1h"], 3)
check("the other path", put(flight.FlightDescriptor.for_path("source", "rides"), [rides("Bern", 4)])[0]["position"], 4)
named = flight.FlightDescriptor.for_command(json.dumps({"source": "rides", "id": "morning"}))
check("a stream with a name", put(named, [rides("Genf", 5), rides("Genf", 6)])[-1]["position"], 6)
check("comes again", [(a["position"], a["duplicate"]) for a in put(named, [rides("Genf", 5), rides("Genf", 6)])], [(5, True), (6, True)])
notes = [{"id": "x"}, {"id": "x"}]
check("batches with names", [a["duplicate"] for a in put(path, [rides("Genf", 7), rides("Genf", 7)], notes=notes)], [False, True])
check("other columns are left out", put(path, [pa.record_batch({"ride_id": [8], "city": ["Genf"], "more": [1]})], pa.schema([("ride_id", pa.int64()), ("city", pa.string()), ("more", pa.int64())]))[0]["position"], 8)
words = pa.schema([("ride_id", pa.string()), ("city", pa.string())])
fails("a wrong type names source and column", lambda: put(path, [pa.record_batch([["1"], ["Bern"]], schema=words)], words), "source rides", "column ride_id is BIGINT")
cities = pa.schema([("city", pa.string())])
fails("a missing column", lambda: put(path, [pa.record_batch([["Bern"]], schema=cities)], cities), "column ride_id is NOT NULL")
fails("an unknown source", lambda: put(flight.FlightDescriptor.for_path("taxis"), [rides("Bern", 1)]), "there is no push source taxis; known: rides, tips")
fails("a signed source takes no DoPut", lambda: put(flight.FlightDescriptor.for_path("tips"), [rides("Bern", 1)]), "X-Freshet-Signature")

writer, reader = client.do_exchange(flight.FlightDescriptor.for_path("features", "ride_features"))
with writer:
    keys = pa.record_batch({"city": ["Zug"]})
    writer.begin(keys.schema)
    for index in range(10):
        position = put(path, [rides("Zug", 100 + index)])[0]["position"]
        note = {"min_position": {"source": "rides", "position": position}}
        writer.write_with_metadata(keys, json.dumps(note).encode())
        found = reader.read_chunk().data.to_pylist()[0]
        assert (found["ride_id"], found["rides_1h"]) == (100 + index, index + 1), found
print("ok an exchange waits batch by batch")

with adbc.connect(ADDRESS, autocommit=True) as connection, connection.cursor() as cursor:
    taken = cursor.adbc_ingest("rides", pa.Table.from_batches([rides("Chur", 200, 201), rides("Chur", 202)]), mode="append")
    check("adbc appends", taken, 3)
    last = put(path, [rides("Chur", 203)])[0]["position"]
    cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.call_header.x-freshet-min-position": f"rides:0:{last}"})
    cursor.execute("SELECT rides FROM by_city WHERE city = 'Chur'")
    check("a SELECT waits for a position", cursor.fetch_arrow_table().to_pylist(), [{"rides": 4}])
with adbc.connect(ADDRESS, autocommit=True) as connection, connection.cursor() as cursor:
    fails("adbc does not create", lambda: cursor.adbc_ingest("rides", rides("Chur", 1), mode="create"), "append")
    fails("adbc does not replace", lambda: cursor.adbc_ingest("rides", rides("Chur", 1), mode="replace"), "append")
    fails("adbc appends to sources only", lambda: cursor.adbc_ingest("by_city", rides("Chur", 1), mode="append"), "there is no push source by_city")

line = b'{"ride_id": 300, "city": "Biel"}\n'
now = datetime.datetime.now(datetime.timezone.utc).isoformat().encode()
line = b'{"ride_id": 300, "city": "Biel", "at": "' + now + b'"}\n'
first = post("rides", line * 2)
check("lines by http", (first["records"], first["dead_letters"], first["duplicate"]), (2, 0, False))
check("an array", post("rides", b"[" + line.strip() + b",\n" + line.strip() + b"]", "application/json")["records"], 2)
check("csv", post("rides", b"city,ride_id,at\nBiel,301," + now + b"\n", "text/csv")["records"], 1)
check("gzip", post("rides", gzip.compress(line * 100), content_encoding="gzip")["records"], 100)
out = io.BytesIO()
with pa.ipc.new_stream(out, SCHEMA) as stream:
    stream.write_batch(rides("Biel", 302, 303))
    stream.write_batch(rides("Biel", 304))
arrow = post("rides", out.getvalue(), "application/vnd.apache.arrow.stream", idempotency_key="arrow")
check("arrow", (arrow["records"], arrow["position"] - first["position"]), (3, 106))
check("arrow again", post("rides", out.getvalue(), "application/vnd.apache.arrow.stream", idempotency_key="arrow"), {**arrow, "duplicate": True})
check("http and flight meet", lookup("Biel", arrow["position"])["rides_1h"], 108)
request = {"feature_service": "ride_features", "entities": {"city": ["Biel"]}, "min_position": [{"source": "rides", "position": arrow["position"]}]}
with urllib.request.urlopen(urllib.request.Request(f"{HTTP}/get-online-features", data=json.dumps(request).encode())) as answer:
    check("a lookup by http waits too", json.load(answer)["results"][1]["values"], [108])
fails("no rows of another kind", lambda: post("rides", b"x", "text/plain"), "415", "application/x-ndjson")
fails("no such source", lambda: post("taxis", b"{}"), "404", "known: rides, tips")

tip = b'{"ride_id": 1, "tip": 2.5}'
sign = lambda secret: "sha256=" + hmac.new(secret, tip, hashlib.sha256).hexdigest()
check("a good signature", post("tips", tip, x_freshet_signature=sign(b"correct horse"))["records"], 1)
fails("a bad signature", lambda: post("tips", tip, x_freshet_signature=sign(b"battery")), "401", "does not fit")
fails("no signature", lambda: post("tips", tip), "401", "missing")
