"""Writes tables of a running pipeline through ADBC: statements, parameters, ingest. Prints a line for each thing that holds."""

import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa


def holds(what, found, expected):
    assert found == expected, f"{what}: {found!r} is not {expected!r}"
    print("ok", what)


connection = flightsql.connect(sys.argv[1].replace("grpc://", "grpc+tcp://"), autocommit=True)
cursor = connection.cursor()
cursor.execute("INSERT INTO accounts (id, owner, balance) VALUES (10, 'kim', 1)")
holds("execute writes once", cursor.fetchall(), [(1,)])
holds("executemany", cursor.executemany("INSERT INTO accounts (id, owner, balance) VALUES (?, ?, ?)", [(11, "kim", 2), (12, "lee", 3)]), None)
cursor.execute("SELECT id, owner, balance FROM accounts WHERE id >= 10 ORDER BY id")
holds("rows are there", cursor.fetchall(), [(10, "kim", 1), (11, "kim", 2), (12, "lee", 3)])
cursor.executemany("DELETE FROM accounts WHERE owner = ?", [("kim",)])
holds("a deletion tells how many", cursor.rowcount, 2)
cursor.execute("INSERT INTO accounts (id, owner, balance) VALUES (?, 'max', 1), (15, 'eva', 2) RETURNING id, upper(owner) AS owner", (14,))
holds("rows that an INSERT returns", cursor.fetchall(), [(14, "MAX"), (15, "EVA")])
cursor.execute("INSERT INTO accounts (id, owner, balance) VALUES (14, 'tom', 9) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance RETURNING *")
holds("rows that a conflict changes", [row[:3] for row in cursor.fetchall()], [(14, "max", 10)])
cursor.executemany("UPDATE accounts SET balance = balance + ? WHERE id >= ?", [(1, 14), (1, 14), (5, 15)])
cursor.execute("UPDATE accounts a SET owner = t.owner FROM totals t WHERE t.total = a.balance AND a.id = 14 RETURNING balance, a.owner")
holds("rows that an UPDATE returns", cursor.fetchall(), [(12, "max")])
cursor.execute("DELETE FROM accounts WHERE id IN (14, 15) RETURNING id, balance")
holds("rows that a DELETE returns", sorted(cursor.fetchall()), [(14, 12), (15, 9)])
table = pa.table({"id": pa.array([20], pa.int32()), "owner": ["zoe"], "balance": pa.array([9], pa.int64())})
holds("ingest", cursor.adbc_ingest("accounts", table, mode="append"), 1)
cursor.execute("FLUSH")
cursor.execute("SELECT id, balance FROM accounts WHERE id >= 10 ORDER BY id")
holds("all of it in order", cursor.fetchall(), [(12, 3), (20, 9)])
