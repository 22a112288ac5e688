//! `SUBSCRIBE [TO] view [WITH (SNAPSHOT, PROGRESS)] [AS OF epoch] [UP TO epoch]`: asked of a running pipeline, not part of a script.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{OptionEntry, Subscribe};
use crate::error::nearest;
use crate::options;

const ORDER: &str = "clauses follow as SUBSCRIBE TO view [WITH (SNAPSHOT = false, PROGRESS)] [AS OF epoch] [UP TO epoch]";
const FLAGS: [&str; 2] = ["snapshot", "progress"];

pub fn parse(cursor: &mut Cursor) -> Result<Subscribe> {
    cursor.expect("SUBSCRIBE")?;
    cursor.eat(&["TO"]);
    if *cursor.token() == Token::LParen || cursor.starts_query() {
        let error = cursor.error_here("SUBSCRIBE to a query is not supported yet");
        return Err(error.help("declare it in the pipeline, CREATE MATERIALIZED VIEW name AS SELECT …, and SUBSCRIBE TO name"));
    }
    let mut subscribe = Subscribe { view: view(cursor)?, snapshot: true, progress: false, as_of: None, up_to: None };
    if cursor.word(0) == "ENVELOPE" {
        let error = cursor.error_here("ENVELOPE is not supported yet");
        return Err(error.help("leave it out: an update is a row with diff -1 and one with diff 1, of one epoch"));
    }
    if cursor.eat(&["WITH"]) {
        for option in options::entries(cursor, true)? {
            let value = flag(cursor, &option)?;
            match option.name.as_str() {
                "snapshot" => subscribe.snapshot = value,
                _ => subscribe.progress = value,
            }
        }
    }
    if cursor.word(0) == "FOR" {
        // What is no number reads as the FOR SYSTEM_TIME AS OF of a join.
        let error = cursor.error_here("AS OF takes an epoch in milliseconds since 1970 here");
        return Err(error.help("answers name their epoch; without AS OF a subscription begins at the last complete one"));
    }
    if cursor.eat(&["AS", "OF"]) {
        subscribe.as_of = Some(cursor.count("AS OF, an epoch in milliseconds since 1970")?);
    }
    if cursor.eat(&["UP", "TO"]) {
        subscribe.up_to = Some(cursor.count("UP TO, an epoch in milliseconds since 1970")?);
    }
    let wanted: &[&str] = match (subscribe.as_of, subscribe.up_to) {
        (_, Some(_)) => &[],
        (Some(_), None) => &["UP TO"],
        (None, None) => &["WITH", "AS OF", "UP TO"],
    };
    cursor.clauses_end(wanted, ORDER)?;
    Ok(subscribe)
}

/// `name`, or `errors(name)` and its like.
fn view(cursor: &mut Cursor) -> Result<String> {
    let name = crate::ast::normal_name(&cursor.single_name("the name of a view")?);
    if *cursor.token() != Token::LParen {
        return Ok(name);
    }
    let of = cursor.bracketed_name(&name)?;
    Ok(format!("{name}({})", crate::ast::normal_name(&of)))
}

fn flag(cursor: &Cursor, option: &OptionEntry) -> Result<bool> {
    if !FLAGS.contains(&option.name.as_str()) {
        let error = cursor.error_at(option.place, format!("SUBSCRIBE has no option {}", option.name));
        return Err(match nearest(&option.name, FLAGS) {
            Some(close) => error.help(format!("did you mean {close}?")),
            None => error.help("options are SNAPSHOT and PROGRESS"),
        });
    }
    match option.value.text().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(cursor.error_at(option.value_place, format!("{} cannot be {other}", option.name)).help("it is true or false")),
    }
}
