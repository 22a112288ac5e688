//! `DROP kind [IF EXISTS] name [CASCADE | RESTRICT]`.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{Drop, Stmt};
use crate::error::nearest;

/// What can be dropped, by its words; two-word kinds stand before what they begin with.
pub const KINDS: [&str; 13] = [
    "MATERIALIZED VIEW",
    "FEATURE VIEW",
    "FEATURE SERVICE",
    "TRAINING SET",
    "DRIFT MONITOR",
    "RETRAINING JOB",
    "SOURCE",
    "TABLE",
    "VIEW",
    "SERVICE",
    "MODEL",
    "SINK",
    "SECRET",
];

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("DROP")?;
    let kind = KINDS.into_iter().find(|kind| cursor.eat(&kind.split(' ').collect::<Vec<_>>()));
    let Some(kind) = kind else {
        let error = cursor.error_here(format!("DROP {} is unknown", cursor.found()));
        return Err(match nearest(&cursor.word(0), KINDS.into_iter().filter(|kind| !kind.contains(' '))) {
            Some(close) => error.help(format!("did you mean DROP {close}?")),
            None => error.help(format!("DROP takes {}", KINDS.join(", "))),
        });
    };
    let if_exists = cursor.eat(&["IF", "EXISTS"]);
    let name = cursor.single_name("the name of what is dropped")?;
    let cascade = cursor.eat(&["CASCADE"]);
    if !cascade {
        cursor.eat(&["RESTRICT"]);
    }
    let kind = if kind == "SERVICE" { "FEATURE SERVICE" } else { kind };
    Ok(Stmt::Drop(Drop { kind, name, if_exists, cascade }))
}
