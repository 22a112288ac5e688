//! Statements that peers have or that are still to come: each is refused at its keyword, with what to write instead.

use super::cursor::Cursor;
use crate::error::SqlError;

/// What may follow CREATE one day, and what to do until then.
const CREATED_LATER: [(&[&str], &str); 8] = [
    (&["CONNECTION"], "write its options into each source and sink: WITH (connector = …)"),
    (&["INDEX"], "leave it out: a feature view is found by its ENTITY; make one if the view is to be asked by key"),
    (&["FUNCTION"], "write the expression into a view and select from that"),
    (&["SUBSCRIPTION"], "SUBSCRIBE TO view, asked of the running pipeline, tells every change"),
    (&["SCHEMA"], "leave it out: the names of a pipeline have one part"),
    (&["DATABASE"], "leave it out: a pipeline is a script of its own"),
    (&["TEMPORARY", "VIEW"], "write CREATE VIEW, which is only a name for a query"),
    (&["EXTERNAL", "TABLE"], "write CREATE SOURCE name (column TYPE, …) WITH (connector = 'file', path = …) FORMAT PLAIN ENCODE PARQUET"),
];

const DECLARE: &str = "a pipeline is what its script declares: change the CREATE statements and start it again";
const WRITTEN: &str = "views are written by their sources: a change is a record of a source with FORMAT DEBEZIUM";
const LISTED: &str = "EXPLAIN (AST) name prints what made it; a running pipeline lists its tables over Flight SQL";
const READ: &str = "leave it out: one query sees one epoch of everything it reads";

/// Statements that may come one day, and what to do until then.
const LATER: [(&str, &str); 12] = [
    ("DROP", DECLARE),
    ("ALTER", DECLARE),
    ("FLUSH", "leave it out: rows become visible epoch by epoch"),
    ("SHOW", LISTED),
    ("DESCRIBE", LISTED),
    ("UPDATE", WRITTEN),
    ("DELETE", WRITTEN),
    ("MERGE", WRITTEN),
    ("TRUNCATE", WRITTEN),
    ("COPY", "CREATE SOURCE reads files, CREATE SINK writes them"),
    ("BEGIN", READ),
    ("COMMIT", READ),
];

/// None if the word is not one we know.
pub fn statement(cursor: &Cursor) -> Option<SqlError> {
    let first = cursor.word(0);
    if first == "INSERT" {
        let error = cursor.error_here("INSERT INTO is not supported");
        return Some(error.help("make the SELECT a materialized view, then CREATE SINK name FROM view WITH (…) FORMAT … ENCODE …"));
    }
    if first == "SUBSCRIBE" {
        let error = cursor.error_here("SUBSCRIBE is no statement of a script");
        return Some(error.help("ask it of the running pipeline: freshet sql 'SUBSCRIBE TO view'; CREATE SINK writes every change elsewhere"));
    }
    let (_, help) = LATER.iter().find(|(word, _)| *word == first)?;
    Some(cursor.error_here(format!("{first} is not supported yet")).help(*help))
}

/// The cursor stands behind CREATE.
pub fn created(cursor: &Cursor) -> Option<SqlError> {
    let is_next = |words: &[&str]| words.iter().enumerate().all(|(distance, wanted)| cursor.word(distance) == *wanted);
    let (words, help) = CREATED_LATER.iter().find(|(words, _)| is_next(words))?;
    Some(cursor.error_here(format!("CREATE {} is not supported yet", words.join(" "))).help(*help))
}
