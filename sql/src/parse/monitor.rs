//! `CREATE DRIFT MONITOR name ON view (c, …) TIME (c) USING … REFERENCE MODEL m WINDOW i EVERY i [MIN ROWS n] [DRIFTED WHEN …]`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateDriftMonitor, DriftMethod, DriftedWhen, Duration, Ident, Place, Stmt, normal_name};
use crate::error::nearest;
use crate::options;

const ORDER: &str = "clauses follow as ON view (column, …) TIME (column) USING psi, ks REFERENCE MODEL model WINDOW … EVERY … [MIN ROWS n] \
                     [DRIFTED WHEN psi(column) > 0.1 FOR 3 EVALUATIONS]";

const METHODS: [DriftMethod; 2] = [DriftMethod::Psi, DriftMethod::Ks];

/// Methods that may come one day.
const METHODS_LATER: [&str; 14] =
    ["js", "jensen_shannon", "chi_square", "chi2", "wasserstein", "hellinger", "kl", "adwin", "page_hinkley", "ddm", "eddm", "hddm", "kswin", "mmd"];

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["DRIFT", "MONITOR"]);
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the drift monitor")?;
    cursor.clause(&["ON"], ORDER)?;
    let view = cursor.single_name("the name of a view")?;
    if *cursor.token() != Token::LParen {
        return Err(cursor.error_expected("(").help(format!("name the columns to measure: ON {view} (column, …)")));
    }
    let columns = cursor.names("column")?;
    cursor.clause(&["TIME"], ORDER)?;
    let time = cursor.bracketed_name("TIME")?;
    cursor.clause(&["USING"], ORDER)?;
    let methods = methods(cursor)?;
    let model = reference(cursor)?;
    let (window, every) = window_and_every(cursor)?;
    let rows_min = if cursor.word(0) == "MIN" { Some(rows_min(cursor, ORDER)?) } else { None };
    let conditions = conditions(cursor, &methods, &columns)?;
    let wanted: &[&str] = match (rows_min, &conditions[..]) {
        (_, [_, ..]) => &["OR"],
        (Some(_), []) => &["DRIFTED WHEN"],
        (None, []) => &["MIN ROWS", "DRIFTED WHEN"],
    };
    cursor.clauses_end(wanted, ORDER)?;
    Ok(Stmt::CreateDriftMonitor(CreateDriftMonitor { name, if_not_exists, view, columns, time, methods, model, window, every, rows_min, conditions }))
}

fn methods(cursor: &mut Cursor) -> Result<Vec<DriftMethod>> {
    let mut methods = Vec::new();
    loop {
        let method = method(cursor)?;
        if methods.contains(&method) {
            return Err(cursor.error_here(format!("method {} stands twice", method.sql())).help("leave one of them out"));
        }
        methods.push(method);
        cursor.next_token();
        if !cursor.eat_token(&Token::Comma) {
            return Ok(methods);
        }
    }
}

/// The method that is next, not yet taken.
fn method(cursor: &Cursor) -> Result<DriftMethod> {
    let word = cursor.word(0).to_lowercase();
    if let Some(method) = METHODS.into_iter().find(|method| method.sql() == word) {
        return Ok(method);
    }
    if METHODS_LATER.contains(&word.as_str()) {
        return Err(cursor.error_here(format!("method {word} is not supported yet")).help("psi and ks are"));
    }
    let error = cursor.error_expected("psi or ks");
    Err(match nearest(&word, METHODS.map(DriftMethod::sql)) {
        Some(close) => error.help(format!("did you mean {close}?")),
        None => error.help("psi and ks say how far a column's distribution is from that of the training rows"),
    })
}

fn reference(cursor: &mut Cursor) -> Result<Ident> {
    cursor.clause(&["REFERENCE"], ORDER)?;
    if matches!(cursor.word(0).as_str(), "TRAINING" | "FROM" | "TRAILING") {
        let error = cursor.error_here(format!("REFERENCE {} is not supported yet", cursor.word(0)));
        return Err(error.help("REFERENCE MODEL model compares with the training rows of the version that is live"));
    }
    cursor.clause(&["MODEL"], ORDER)?;
    cursor.single_name("the name of a model")
}

fn window_and_every(cursor: &mut Cursor) -> Result<(Duration, Duration)> {
    cursor.clause(&["WINDOW"], ORDER)?;
    let window = options::duration(cursor, "WINDOW")?;
    cursor.clause(&["EVERY"], ORDER)?;
    let every = options::duration(cursor, "EVERY")?;
    if every.ms() == 0 {
        return Err(cursor.error_at(every.place, "EVERY has no length").help("it is at least one millisecond long"));
    }
    if window.ms() == 0 || !window.ms().is_multiple_of(every.ms()) {
        let error = cursor.error_at(window.place, format!("WINDOW {} is no multiple of EVERY {}", window.text(), every.text()));
        return Err(error.help("counts are kept per EVERY and added up, for example WINDOW INTERVAL '28 days' EVERY INTERVAL '1 day'"));
    }
    Ok((window, every))
}

/// `MIN ROWS n`.
pub fn rows_min(cursor: &mut Cursor, order: &str) -> Result<u64> {
    cursor.clause(&["MIN", "ROWS"], order)?;
    cursor.count("the number of rows")
}

fn conditions(cursor: &mut Cursor, methods: &[DriftMethod], columns: &[Ident]) -> Result<Vec<DriftedWhen>> {
    let mut conditions: Vec<DriftedWhen> = Vec::new();
    if !cursor.eat(&["DRIFTED"]) {
        return Ok(conditions);
    }
    cursor.clause(&["WHEN"], ORDER)?;
    loop {
        let place = cursor.place();
        let condition = condition(cursor, methods, columns)?;
        let same = |other: &DriftedWhen| other.method == condition.method && normal_name(&other.column) == normal_name(&condition.column);
        if conditions.iter().any(same) {
            let error = cursor.error_at(place, format!("{}({}) has two conditions", condition.method.sql(), condition.column));
            return Err(error.help("each method and column has one threshold: keep the lower one"));
        }
        conditions.push(condition);
        if cursor.word(0) == "AND" {
            return Err(cursor.error_here("conditions joined by AND are not supported").help("join them by OR: any of them makes the monitor fire"));
        }
        if !cursor.eat(&["OR"]) {
            return Ok(conditions);
        }
    }
}

/// `method(column) > threshold [FOR n EVALUATIONS]`.
fn condition(cursor: &mut Cursor, methods: &[DriftMethod], columns: &[Ident]) -> Result<DriftedWhen> {
    let method = method(cursor)?;
    if !methods.contains(&method) {
        let error = cursor.error_here(format!("the monitor does not use {}", method.sql()));
        return Err(
            error.help(format!("name it: USING {}", methods.iter().chain([&method]).map(|method| method.sql()).collect::<Vec<_>>().join(", ")))
        );
    }
    cursor.next_token();
    let column = cursor.bracketed_name("a column")?;
    let known: Vec<String> = columns.iter().map(normal_name).collect();
    if !known.contains(&normal_name(&column)) {
        let error = cursor.error_at(Place(column.span), format!("column {column} is not measured"));
        return Err(match nearest(&normal_name(&column), known.iter().map(String::as_str)) {
            Some(close) => error.help(format!("did you mean {close}?")),
            None => error.help(format!("add it to the columns: ON … ({}, {column})", known.join(", "))),
        });
    }
    let inclusive = match cursor.token() {
        Token::Gt => false,
        Token::GtEq => true,
        _ => return Err(cursor.error_expected("> or >=").help("drift grows from 0: a condition is a threshold, such as psi(column) > 0.1")),
    };
    cursor.next_token();
    let threshold = cursor.number("a threshold")?;
    let evaluations = if cursor.eat(&["FOR"]) { evaluations(cursor)? } else { 1 };
    Ok(DriftedWhen { method, column, inclusive, threshold, evaluations })
}

fn evaluations(cursor: &mut Cursor) -> Result<u32> {
    let place = cursor.place();
    let count = cursor.count("the number of evaluations")?;
    if !cursor.eat(&["EVALUATIONS"]) && !cursor.eat(&["EVALUATION"]) {
        return Err(cursor.error_expected("EVALUATIONS").help("write FOR 3 EVALUATIONS: so many in a row"));
    }
    u32::try_from(count).map_err(|_| cursor.error_at(place, format!("{count} evaluations are too many")).help("the most is 4294967295"))
}
