//! Statements that peers have or that are still to come: each is refused at its keyword, with what to write instead.

use super::cursor::Cursor;
use crate::error::SqlError;

/// What may follow CREATE one day.
const CREATED_LATER: [&[&str]; 13] = [
    &["MODEL"],
    &["TRAINING", "SET"],
    &["DRIFT", "MONITOR"],
    &["RETRAINING", "JOB"],
    &["SECRET"],
    &["CONNECTION"],
    &["INDEX"],
    &["FUNCTION"],
    &["SUBSCRIPTION"],
    &["SCHEMA"],
    &["DATABASE"],
    &["TEMPORARY", "VIEW"],
    &["EXTERNAL", "TABLE"],
];

/// Statements that may come one day.
const LATER: [&str; 13] =
    ["DROP", "ALTER", "SUBSCRIBE", "FLUSH", "SHOW", "DESCRIBE", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE", "BEGIN", "COMMIT"];

/// None if the word is not one we know.
pub fn statement(cursor: &Cursor) -> Option<SqlError> {
    let first = cursor.word(0);
    if first == "INSERT" {
        let error = cursor.error_here("INSERT INTO is not supported");
        return Some(error.help("make the SELECT a materialized view, then CREATE SINK name FROM view WITH (…) FORMAT … ENCODE …"));
    }
    LATER.contains(&first.as_str()).then(|| cursor.error_here(format!("{first} is not supported yet")))
}

/// The cursor stands behind CREATE.
pub fn created(cursor: &Cursor) -> Option<SqlError> {
    let is_next = |words: &&&[&str]| words.iter().enumerate().all(|(distance, wanted)| cursor.word(distance) == *wanted);
    CREATED_LATER.iter().find(is_next).map(|words| cursor.error_here(format!("CREATE {} is not supported yet", words.join(" "))))
}
