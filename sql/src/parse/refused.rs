//! Statements that peers have or that are still to come: each is refused at its keyword, with what to write instead.

use super::cursor::Cursor;
use crate::error::SqlError;

/// What may follow CREATE one day, and what to do until then.
const CREATED_LATER: [(&[&str], &str); 7] = [
    (&["CONNECTION"], "write its options into each source and sink: WITH (connector = …)"),
    (&["INDEX"], "leave it out: a feature view is found by its ENTITY; make one if the view is to be asked by key"),
    (&["SUBSCRIPTION"], "SUBSCRIBE TO view, asked of the running pipeline, tells every change"),
    (&["SCHEMA"], "leave it out: the names of a pipeline have one part"),
    (&["DATABASE"], "leave it out: a pipeline is a script of its own"),
    (&["TEMPORARY", "VIEW"], "write CREATE VIEW, which is only a name for a query"),
    (&["EXTERNAL", "TABLE"], "write CREATE SOURCE name (column TYPE, …) WITH (connector = 'file', path = …) FORMAT PLAIN ENCODE PARQUET"),
];

const DECLARE: &str = "a pipeline is what its script declares: change the CREATE statements and start it again";
const WRITTEN: &str = "INSERT, UPDATE and DELETE change a table; an INSERT into a table with a PRIMARY KEY replaces the row of its key";
const LISTED: &str = "EXPLAIN (AST) name prints what made it; a running pipeline lists its tables over Flight SQL";
const READ: &str = "leave it out: one query sees one epoch of everything it reads";

/// Statements that may come one day, and what to do until then.
const LATER: [(&str, &str); 8] = [
    ("ALTER", DECLARE),
    ("SHOW", LISTED),
    ("DESCRIBE", LISTED),
    ("MERGE", WRITTEN),
    ("TRUNCATE", WRITTEN),
    ("COPY", "CREATE SOURCE reads files, CREATE SINK writes them"),
    ("BEGIN", READ),
    ("COMMIT", READ),
];

/// None if the word is not one we know.
pub fn statement(cursor: &Cursor) -> Option<SqlError> {
    let first = cursor.word(0);
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
