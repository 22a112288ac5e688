//! Tables of a running pipeline, written by statements of clients, by pushes and by the script, and what survives its end.

use std::path::PathBuf;
use std::process::Command;

use crate::clients::python;
use crate::running::{Running, all, freshet, tests_folder, text};

const SCRIPT: &str = "
CREATE TABLE accounts (id INT PRIMARY KEY, owner VARCHAR NOT NULL, balance BIGINT DEFAULT 0, twice AS balance * 2);
CREATE TABLE log (what VARCHAR, at TIMESTAMP);
INSERT INTO accounts VALUES (1, 'ann', 10), (2, 'bob', 20);
CREATE MATERIALIZED VIEW totals AS SELECT owner, count(*) AS n, sum(balance) AS total FROM accounts GROUP BY owner;
";

fn pipeline(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("tables.sql");
    std::fs::write(&path, SCRIPT).unwrap();
    path
}

fn sql(running: &Running, statement: &str) -> String {
    let output = freshet().args(["sql", "--address", &running.flight, "--format", "csv", statement]).output().unwrap();
    assert!(output.status.success(), "{statement}\n{}", all(&output));
    text(&output.stdout).lines().skip(1).collect::<Vec<_>>().join(" ")
}

fn refused(running: &Running, statement: &str) -> String {
    let output = freshet().args(["sql", "--address", &running.flight, statement]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{statement}\n{}", all(&output));
    text(&output.stderr)
}

#[test]
fn statements_change_tables_of_a_running_pipeline_and_see_each_other() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(&data), &data.path().join("state"));
    assert_eq!(sql(&running, "SELECT * FROM totals ORDER BY owner"), "ann,1,10 bob,1,20");
    assert_eq!(sql(&running, "INSERT INTO accounts VALUES (3, 'ann', 5), (2, 'eve', 7)"), "2");
    assert_eq!(sql(&running, "SELECT * FROM totals ORDER BY owner"), "ann,2,15 eve,1,7");
    assert_eq!(sql(&running, "UPDATE accounts SET balance = balance + 100 WHERE owner = 'ann'"), "2");
    assert_eq!(sql(&running, "SELECT id, balance, twice FROM accounts ORDER BY id"), "1,110,220 2,7,14 3,105,210");
    assert_eq!(sql(&running, "INSERT INTO log SELECT owner, TIMESTAMP '2025-01-01 00:00:00' FROM accounts"), "3");
    assert_eq!(sql(&running, "DELETE FROM log WHERE what = 'ann'"), "2");
    assert_eq!(sql(&running, "INSERT INTO accounts (id, owner) VALUES (1, 'x'), (9, 'y') ON CONFLICT DO NOTHING"), "1");
    assert_eq!(sql(&running, "DELETE FROM accounts WHERE id IN (SELECT id FROM accounts WHERE owner = 'eve')"), "1");
    assert_eq!(sql(&running, "SELECT what, at FROM log"), "eve,2025-01-01 00:00:00");
    assert_eq!(sql(&running, "FLUSH"), "0");

    assert!(refused(&running, "INSERT INTO accounts VALUES (4, NULL, 1)").contains("1:33: column owner of accounts is NOT NULL"));
    assert!(refused(&running, "UPDATE totals SET n = 1").contains("there is no table named totals that statements can change"));
    assert!(refused(&running, "DROP TABLE accounts").contains("write it into the pipeline's script"));

    let row = "{\"id\": 7, \"owner\": \"zoe\", \"balance\": 3}";
    assert_eq!(running.post_with("/v1/ingest/accounts", &[("Content-Type", "application/x-ndjson")], row).0, 200);
    sql(&running, "FLUSH");
    assert_eq!(sql(&running, "SELECT id, owner, balance, twice FROM accounts ORDER BY id"), "1,ann,110,220 3,ann,105,210 7,zoe,3,6 9,y,0,0");
}

#[test]
fn what_statements_wrote_survives_the_end_of_the_process() {
    let data = tempfile::tempdir().unwrap();
    let (path, state) = (pipeline(&data), data.path().join("state"));
    let mut running = Running::endless(&path, &state);
    sql(&running, "INSERT INTO accounts VALUES (3, 'ann', 5)");
    sql(&running, "DELETE FROM accounts WHERE id = 2");
    running.signal("-TERM");
    running.end();
    let running = Running::endless(&path, &state);
    assert_eq!(sql(&running, "SELECT id, balance FROM accounts ORDER BY id"), "1,10 3,5");
    assert_eq!(sql(&running, "UPDATE accounts SET balance = 6 WHERE id = 3"), "1");
    assert_eq!(sql(&running, "SELECT owner, total FROM totals"), "ann,16");
}

#[test]
fn adbc_writes_with_parameters_and_is_told_how_many_rows() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(&data), &data.path().join("state"));
    let output = Command::new(python()).arg(tests_folder().join("client/tables.py")).arg(&running.flight).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with("ok ")).count(), 10, "{}", all(&output));
}
