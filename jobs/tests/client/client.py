"""Talks to a running pipeline as users do: pyarrow.flight and ADBC. Argument: the Flight address. Prints one line per check that held."""
import json
import sys

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.flight as flight

ADDRESS = sys.argv[1]
# The last event is at 11:15; now() stays 1 ms after it.
END = 1735730100001
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


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters) if parameters is not None else cursor.execute(sql)
    return cursor.fetch_arrow_table().to_pylist()


with adbc.connect(ADDRESS, autocommit=True) as connection, connection.cursor() as cursor:
    check("select", rows(cursor, "SELECT city, rides FROM by_city ORDER BY city"), [{"city": "Bern", "rides": 3}, {"city": "Genf", "rides": 1}])
    check("two views at one epoch", rows(cursor, "SELECT (SELECT sum(rides) FROM by_city) AS a, (SELECT sum(rides) FROM by_driver) AS b"), [{"a": 4, "b": 4}])
    cursor.execute("SELECT city FROM by_city WHERE rides > 99")
    check("no rows keep the schema", cursor.fetch_arrow_table().schema.names, ["city"])
    check("question mark", rows(cursor, "SELECT rides FROM by_city WHERE city = ?", ("Genf",)), [{"rides": 1}])
    check("two parameters", rows(cursor, "SELECT city FROM by_city WHERE city = $1 OR rides = $2 ORDER BY city", ("Genf", 3)), [{"city": "Bern"}, {"city": "Genf"}])
    many = pa.record_batch({"city": ["Bern", "Genf"]})
    check("parameter rows are concatenated", rows(cursor, "SELECT rides FROM by_city WHERE city = ?", many), [{"rides": 3}, {"rides": 1}])
    fails("unknown column", lambda: rows(cursor, "SELECT nope FROM by_city"), "nope", "1:8")
    fails("ddl is refused", lambda: cursor.execute("CREATE VIEW v AS SELECT 1"))
    fails("ingest is refused", lambda: cursor.adbc_ingest("t", pa.table({"k": [1]}), mode="create"))
    fails("one parameter too few", lambda: rows(cursor, "SELECT city FROM by_city WHERE city = ? AND rides = ?", ("Bern",)), "2 parameters")

    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    schemas = {schema["db_schema_name"]: {table["table_name"] for table in schema["db_schema_tables"] or []} for schema in objects[0]["catalog_db_schemas"]}
    check("catalog", objects[0]["catalog_name"], "freshet")
    check("views are tables", {"by_city", "by_driver", "city_load"} <= schemas["public"], True)
    check("services are a schema", schemas["features"], {"ride_features"})
    check("table types", "FEATURE VIEW" in connection.adbc_get_table_types(), True)
    check("table schema", connection.adbc_get_table_schema("by_city", db_schema_filter="public").names, ["city", "rides", "fares"])
    check("server name", connection.adbc_get_info()["vendor_name"], "freshet")

with adbc.connect(ADDRESS, autocommit=True, db_kwargs={"username": "u", "password": "p"}) as connection, connection.cursor() as cursor:
    check("handshake", rows(cursor, "SELECT 1 AS one"), [{"one": 1}])


# --- Flight SQL by hand, so that FlightInfo and DoGet can be compared

def number(value):
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(tag, data):
    return number(tag << 3 | 2) + number(len(data)) + data


def command(name, data):
    return field(1, b"type.googleapis.com/arrow.flight.protocol.sql." + name) + field(2, data)


info = client.get_flight_info(flight.FlightDescriptor.for_command(command(b"CommandStatementQuery", field(1, b"SELECT city, rides, fares FROM by_city"))))
reader = client.do_get(info.endpoints[0].ticket)
check("one schema for info and rows", reader.schema.equals(info.schema), True)
first = reader.read_all()
check("the info counts the rows", info.total_records, 2)
check("a ticket can be used again at its epoch", client.do_get(info.endpoints[0].ticket).read_all().equals(first), True)
for name in [b"CommandGetXdbcTypeInfo", b"CommandGetSqlInfo", b"CommandGetCatalogs", b"CommandGetDbSchemas", b"CommandGetTableTypes"]:
    metadata = client.get_flight_info(flight.FlightDescriptor.for_command(command(name, b"")))
    table = client.do_get(metadata.endpoints[0].ticket).read_all()
    check(name.decode(), table.schema.equals(metadata.schema) and table.num_rows > 0, True)
for name in [b"CommandGetExportedKeys", b"CommandGetImportedKeys"]:
    metadata = client.get_flight_info(flight.FlightDescriptor.for_command(command(name, field(3, b"by_city"))))
    check(name.decode(), client.do_get(metadata.endpoints[0].ticket).read_all().num_rows, 0)
keys = client.get_flight_info(flight.FlightDescriptor.for_command(command(b"CommandGetPrimaryKeys", field(3, b"city_load"))))
check("entities are primary keys", client.do_get(keys.endpoints[0].ticket).read_all()["column_name"].to_pylist(), ["city"])

# --- plain Flight

paths = {tuple(part.decode() for part in info.descriptor.path) for info in client.list_flights()}
check("list_flights", {("by_city",), ("features", "ride_features")} <= paths, True)
check("get_schema by path", client.get_schema(flight.FlightDescriptor.for_path("by_city")).schema.names, ["city", "rides", "fares"])
check("plain ticket with SQL", client.do_get(flight.Ticket(b"SELECT count(*) AS n FROM by_city")).read_all().to_pylist(), [{"n": 2}])
by_path = client.get_flight_info(flight.FlightDescriptor.for_path("by_city"))
check("view by path", client.do_get(by_path.endpoints[0].ticket).read_all().num_rows, 2)
view = client.do_get(flight.Ticket(json.dumps({"view": "by_city"}))).read_chunk()
check("view says where it was read", json.loads(view.app_metadata.to_pybytes()), {"q": END, "s": END})
fails("unknown view", lambda: client.do_get(flight.Ticket(b'{"view": "by_town"}')), "there is no view by_town", "by_city")
fails("unknown ticket", lambda: client.do_get(flight.Ticket(b'{"vue": 1}')), "a JSON ticket has")

# --- lookups

ask = {"features": "ride_features", "keys": {"city": ["Bern", "Rom"], "driver": [7, 7], "hour": [11, 12]}, "status": True}
chunk = client.do_get(flight.Ticket(json.dumps(ask))).read_chunk()
answer = chunk.data.to_pylist()
check("lookup by ticket", [row["rides_1h"] for row in answer], [2, None])
check("status columns", [row["rides_1h__status"] for row in answer], ["PRESENT", "NOT_FOUND"])
point = json.loads(chunk.app_metadata.to_pybytes())
check("a lookup says where it was read", (point["mode"], point["q"], point["s"], point["lag_ms"]), ("fresh", END, END, 0))
fails("missing key column", lambda: client.do_get(flight.Ticket(b'{"features": "ride_features", "keys": {"city": "Bern"}}')), "column driver is missing")

schema = pa.schema([("city", pa.large_string()), ("driver", pa.int32()), ("hour", pa.int64())])


def exchange(path, batches):
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_path(*path))
    found = []
    with writer:
        writer.begin(schema)
        for batch in batches:
            writer.write_batch(pa.record_batch(batch, schema=schema))
            found.append(reader.read_chunk())
        writer.done_writing()
    return found


batches = [{"city": ["Bern"], "driver": [8], "hour": [1]}, {"city": [], "driver": [], "hour": []}, {"city": ["Genf", None], "driver": [7, 9], "hour": [2, 3]}]
answers = exchange(["features", "ride_features"], batches)
check("one answer per batch, in order", [chunk.data.num_rows for chunk in answers], [1, 0, 2])
check("the output list in declared order", answers[0].data.schema.names, ["rides_1h", "fare_mean_1h", "fare", "hour"])
check("values", answers[2].data.to_pylist(), [{"rides_1h": 1, "fare_mean_1h": 5.25, "fare": 30.0, "hour": 2}, {"rides_1h": None, "fare_mean_1h": None, "fare": None, "hour": 3}])
check("mode by path", json.loads(exchange(["features", "ride_features", "mode=consistent", "status"], batches[:1])[0].app_metadata.to_pybytes())["mode"], "consistent")
past = exchange(["features", "ride_features", f"as_of={END - 60000}"], batches[:1])[0]
check("as_of", (json.loads(past.app_metadata.to_pybytes())["lag_ms"], past.data["rides_1h"].to_pylist()), (60000, [1]))
fails("unknown service", lambda: exchange(["features", "taxi"], batches[:1]), "there is no feature service taxi", "ride_features")
fails("an exchange on a view", lambda: exchange(["by_city"], batches[:1]), "an exchange is for lookups")

# SUBSCRIBE: the content at one epoch, then the end of a pipeline whose sources have ended.
told = client.do_get(flight.Ticket(b'{"subscribe": "by_city", "progress": true}')).read_all()
check("a subscription's columns", told.schema.names[:5], ["epoch", "diff", "progress", "city", "rides"])
rows = [row for row in told.to_pylist() if not row["progress"]]
check("a subscription begins with the content", sorted((row["city"], row["rides"], row["diff"]) for row in rows), [("Bern", 3, 1), ("Genf", 1, 1)])
check("and says how far it is", [row["epoch"] for row in told.to_pylist() if row["progress"]][-1], END)
fails("an unknown view", lambda: client.do_get(flight.Ticket(b'{"subscribe": "nothing"}')).read_all(), "there is no view nothing", "by_city")
fails("a feature view", lambda: client.do_get(flight.Ticket(b'{"subscribe": "city_load"}')).read_all(), "subscribe to a materialized view")
