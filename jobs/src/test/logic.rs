//! sqllogictest files. In: `statement ok`, `statement error TEXT` and `query [TYPES] [rowsort]` records. Out: nothing, or the first record
//! that does not hold, with file and line.
//!
//! Statements build one script; a query runs it to its end, so statements after a query start a new run with more of the script.
//! `${here}` in a string literal is the file's folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use freshet_connectors::BuiltIn;
use freshet_sql::{Script, compile};

use crate::rows::cells;
use crate::test::embedded::Embedded;

#[derive(Debug, PartialEq)]
enum Expected {
    Ok,
    Error(String),
    Rows { rows: Vec<String>, sort: bool },
}

#[derive(Debug, PartialEq)]
struct Record {
    /// Of its first line of SQL, from 1.
    line: usize,
    sql: String,
    expected: Expected,
}

/// Runs the file and says how many records held.
pub fn run(path: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let records = parse(&text)?;
    ensure!(!records.is_empty(), "the file has no statement and no query");
    let here = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut session = Session {
        name: path.display().to_string(),
        script: String::new(),
        variables: BTreeMap::from([("here".into(), here.display().to_string())]),
        running: None,
    };
    for record in &records {
        session.check(record).with_context(|| format!("line {}: {}", record.line, record.sql))?;
    }
    Ok(records.len())
}

struct Session {
    name: String,
    /// All statements so far, each on the lines it has in the file, so that errors point there.
    script: String,
    variables: BTreeMap<String, String>,
    running: Option<Embedded>,
}

impl Session {
    fn check(&mut self, record: &Record) -> Result<()> {
        match &record.expected {
            Expected::Ok => {
                let script = self.with(record);
                compile(&[self.script_of(script.clone())], &self.variables, &BuiltIn)?;
                self.script = script;
                self.running = None;
                Ok(())
            }
            Expected::Error(wanted) => match compile(&[self.script_of(self.with(record))], &self.variables, &BuiltIn) {
                Ok(_) => bail!("no error, expected one with: {wanted}"),
                Err(error) => {
                    ensure!(error.to_string().contains(wanted.as_str()), "another error than expected\n  expected {wanted}\n  found    {error}");
                    Ok(())
                }
            },
            Expected::Rows { rows, sort } => self.check_rows(record, rows, *sort),
        }
    }

    fn check_rows(&mut self, record: &Record, wanted: &[String], sort: bool) -> Result<()> {
        if self.running.is_none() {
            self.running = Some(Embedded::run(&[self.script_of(self.script.clone())], &self.variables)?);
        }
        let answer = self.running.as_ref().context("the pipeline runs")?.query(&record.sql)?;
        let mut found: Vec<String> = cells(&answer.batches)?.iter().map(|row| row_text(row)).collect();
        let mut wanted = wanted.to_vec();
        if sort {
            found.sort_unstable();
            wanted.sort_unstable();
        }
        ensure!(wanted == found, "other rows than expected\n  expected\n    {}\n  found\n    {}", wanted.join("\n    "), found.join("\n    "));
        Ok(())
    }

    fn with(&self, record: &Record) -> String {
        let mut script = self.script.clone();
        let lines = script.lines().count();
        script.push_str(&"\n".repeat(record.line.saturating_sub(1).saturating_sub(lines)));
        script + record.sql.trim_end_matches(';') + ";\n"
    }

    fn script_of(&self, text: String) -> Script {
        Script { name: self.name.clone(), text }
    }
}

/// Values separated by one space; NULL and (empty) as in every sqllogictest.
fn row_text(row: &[Option<String>]) -> String {
    let cell = |cell: &Option<String>| match cell.as_deref() {
        None => "NULL".to_string(),
        Some("") => "(empty)".to_string(),
        Some(text) => text.to_string(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(" ")
}

fn parse(text: &str) -> Result<Vec<Record>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut records = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let words: Vec<&str> = lines[at].split_whitespace().collect();
        match words.as_slice() {
            [] => at += 1,
            [first, ..] if first.starts_with('#') => at += 1,
            ["statement", "ok"] => at = block(&lines, at, Expected::Ok, &mut records)?,
            ["statement", "error", rest @ ..] => at = block(&lines, at, Expected::Error(rest.join(" ")), &mut records)?,
            ["query", options @ ..] => at = query(&lines, at, options.contains(&"rowsort"), &mut records)?,
            _ => bail!("line {}: a record begins with `statement ok`, `statement error TEXT` or `query`, found: {}", at + 1, lines[at]),
        }
    }
    Ok(records)
}

/// The lines after `at` up to an empty one are SQL. Returns where the next record may begin.
fn block(lines: &[&str], at: usize, expected: Expected, records: &mut Vec<Record>) -> Result<usize> {
    let sql: Vec<&str> = lines[at + 1..].iter().take_while(|line| !line.trim().is_empty()).copied().collect();
    ensure!(!sql.is_empty(), "line {}: the record has no SQL", at + 1);
    records.push(Record { line: at + 2, sql: sql.join("\n"), expected });
    Ok(at + 1 + sql.len())
}

/// SQL up to `----`, then rows up to an empty line.
fn query(lines: &[&str], at: usize, sort: bool, records: &mut Vec<Record>) -> Result<usize> {
    let sql: Vec<&str> = lines[at + 1..].iter().take_while(|line| line.trim() != "----").copied().collect();
    let divider = at + 1 + sql.len();
    ensure!(divider < lines.len() && !sql.is_empty(), "line {}: a query is SQL, a line ----, and its rows", at + 1);
    let rows: Vec<String> = lines[divider + 1..]
        .iter()
        .take_while(|line| !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let next = divider + 1 + rows.len();
    records.push(Record { line: at + 2, sql: sql.join("\n").trim_end().trim_end_matches(';').to_string(), expected: Expected::Rows { rows, sort } });
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_lines_and_expectations() {
        let text = "# a comment\nstatement ok\nSET clock = 'event'\n\nquery TI rowsort\nSELECT a,\n  b FROM t;\n----\nx  1\nNULL 2\n\nstatement error no such view\nSELECT 1\n";
        let records = parse(text).unwrap();
        assert_eq!(records[0], Record { line: 3, sql: "SET clock = 'event'".into(), expected: Expected::Ok });
        let rows = vec!["x 1".to_string(), "NULL 2".to_string()];
        assert_eq!(records[1], Record { line: 6, sql: "SELECT a,\n  b FROM t".into(), expected: Expected::Rows { rows, sort: true } });
        assert_eq!(records[2].expected, Expected::Error("no such view".into()));
        assert!(parse("select 1").unwrap_err().to_string().starts_with("line 1: a record begins with"));
        assert!(parse("query\nSELECT 1").is_err());
    }
}
