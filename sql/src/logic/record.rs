//! A sqllogictest file, read. In: its path. Out: its tags and records in order, each with its place, includes taken in and conditions decided.

use std::fmt;
use std::path::{Path, PathBuf};

/// Files may include files, but not themselves for ever.
const INCLUDES_MAX: usize = 16;
/// What `onlyif` and `skipif` call us.
const OURSELVES: &str = "freshet";
/// What they call the batch oracle: a record that is not for it is not asked of it.
const ORACLE: &str = "datafusion";

/// What does not hold, and where.
#[derive(Debug, Clone)]
pub struct Failure {
    pub file: String,
    pub line: usize,
    /// The SQL of the record; may be empty.
    pub sql: String,
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}", self.file, self.line, self.message)?;
        if self.sql.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.sql.trim().replace('\n', "\n  ")) }
    }
}

impl std::error::Error for Failure {}

/// A file and all it includes.
#[derive(Debug, Clone, Default)]
pub struct TestFile {
    /// From its first line, `# tags: a, b`.
    pub tags: Vec<String>,
    pub(crate) records: Vec<Record>,
}

impl TestFile {
    /// Queries with rows, and errors: what shows something.
    pub fn case_count(&self) -> usize {
        self.records.iter().filter(|record| matches!(record.wanted, Wanted::Rows(_) | Wanted::Error(_))).count()
    }
}

/// A statement or query with what is expected of it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub file: String,
    /// Of the first line of SQL, from 1.
    pub line: usize,
    pub sql: String,
    pub wanted: Wanted,
    /// The batch oracle answers it too.
    pub for_oracle: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    Ok,
    /// So many rows are changed.
    Count(u64),
    /// A regular expression or a part of the message; empty: any error.
    Error(String),
    Rows(Rows),
}

/// The answer that a query must give.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rows {
    /// One letter a column; empty: not said.
    pub types: String,
    pub sort: Sort,
    /// Queries with one label have one answer.
    pub label: Option<String>,
    /// As they stand in the file.
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sort {
    #[default]
    None,
    Rows,
    Values,
}

impl Sort {
    fn named(word: &str) -> Option<Sort> {
        match word {
            "nosort" => Some(Sort::None),
            "rowsort" => Some(Sort::Rows),
            "valuesort" => Some(Sort::Values),
            _ => None,
        }
    }
}

/// Reads a file. Errors: a file that is not there, a line that begins no record.
pub fn read(path: &Path) -> Result<TestFile, Failure> {
    let mut reader = Reader { file: TestFile::default(), sort: Sort::None, halted: false };
    reader.include(path, 0, None)?;
    Ok(reader.file)
}

struct Reader {
    file: TestFile,
    /// Of queries that do not say.
    sort: Sort,
    halted: bool,
}

/// The lines of one file.
struct Lines<'a> {
    name: &'a str,
    folder: PathBuf,
    lines: Vec<&'a str>,
    depth: usize,
}

impl Lines<'_> {
    fn wrong(&self, at: usize, message: impl Into<String>) -> Failure {
        Failure { file: self.name.to_string(), line: at + 1, sql: String::new(), message: message.into() }
    }

    /// Lines from `at` on up to an empty one, or to `----`.
    fn until(&self, at: usize, divided: bool) -> Vec<String> {
        let ends = |line: &&str| line.trim().is_empty() || (divided && line.trim() == "----");
        self.lines[at.min(self.lines.len())..].iter().take_while(|line| !ends(line)).map(|line| line.to_string()).collect()
    }

    fn is_divider(&self, at: usize) -> bool {
        self.lines.get(at).is_some_and(|line| line.trim() == "----")
    }
}

/// What stands before a record.
#[derive(Clone, Copy)]
struct Conditions {
    taken: bool,
    for_oracle: bool,
}

impl Reader {
    fn include(&mut self, path: &Path, depth: usize, from: Option<Failure>) -> Result<(), Failure> {
        let name = path.display().to_string();
        let place = from.unwrap_or(Failure { file: name.clone(), line: 1, sql: String::new(), message: String::new() });
        if depth > INCLUDES_MAX {
            return Err(Failure { message: format!("includes are nested more than {INCLUDES_MAX} deep"), ..place });
        }
        let text = std::fs::read_to_string(path).map_err(|error| Failure { message: format!("{name} cannot be read: {error}"), ..place })?;
        if depth == 0 {
            let tags = text.lines().next().and_then(|line| line.strip_prefix('#')).and_then(|line| line.trim().strip_prefix("tags:"));
            self.file.tags = tags.map_or(Vec::new(), |tags| tags.split(',').map(|tag| tag.trim().to_string()).collect());
        }
        let folder = path.parent().map_or(PathBuf::new(), Path::to_path_buf);
        self.records(&Lines { name: &name, folder, lines: text.lines().collect(), depth })
    }

    fn records(&mut self, lines: &Lines<'_>) -> Result<(), Failure> {
        let open = Conditions { taken: true, for_oracle: true };
        let mut conditions = open;
        let mut at = 0;
        while at < lines.lines.len() && !self.halted {
            let words: Vec<&str> = lines.lines[at].split_whitespace().collect();
            match words.as_slice() {
                [] => at += 1,
                [first, ..] if first.starts_with('#') => at += 1,
                ["onlyif", name, ..] => {
                    conditions.taken &= *name == OURSELVES;
                    conditions.for_oracle &= *name == ORACLE;
                    at += 1;
                }
                ["skipif", name, ..] => {
                    conditions.taken &= *name != OURSELVES;
                    conditions.for_oracle &= *name != ORACLE;
                    at += 1;
                }
                ["statement", rest @ ..] => {
                    at = self.statement(lines, at, rest, conditions)?;
                    conditions = open;
                }
                ["query", rest @ ..] => {
                    at = self.query(lines, at, rest, conditions)?;
                    conditions = open;
                }
                ["include", wanted] => {
                    self.includes(lines, at, wanted)?;
                    at += 1;
                }
                ["halt"] => {
                    self.halted = conditions.taken;
                    at += 1;
                    conditions = open;
                }
                ["control", "sortmode", mode] => {
                    self.sort = Sort::named(mode).ok_or_else(|| lines.wrong(at, format!("{mode} is no sort mode: nosort, rowsort or valuesort")))?;
                    at += 1;
                }
                // Of one pipeline there is one connection, nothing needs time, and answers show whether they are hashed.
                ["control" | "subtest" | "hash-threshold" | "connection" | "sleep", ..] => at += 1,
                ["system", ..] => return Err(lines.wrong(at, "commands of the machine are not run in tests")),
                _ => {
                    let found = lines.lines[at];
                    return Err(lines.wrong(at, format!("a record begins with `statement ok`, `statement error TEXT` or `query`, found: {found}")));
                }
            }
        }
        Ok(())
    }

    fn includes(&mut self, lines: &Lines<'_>, at: usize, wanted: &str) -> Result<(), Failure> {
        let mut paths = vec![lines.folder.join(wanted)];
        if let Some((before, after)) = wanted.rsplit('/').next().and_then(|name| name.split_once('*')) {
            let folder = lines.folder.join(wanted).parent().map_or(PathBuf::new(), Path::to_path_buf);
            let entries = std::fs::read_dir(&folder).map_err(|error| lines.wrong(at, format!("{} cannot be read: {error}", folder.display())))?;
            let fits = |path: &PathBuf| {
                let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            };
            paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(fits).collect();
            paths.sort();
        }
        paths.iter().try_for_each(|path| self.include(path, lines.depth + 1, Some(lines.wrong(at, ""))))
    }

    fn statement(&mut self, lines: &Lines<'_>, at: usize, words: &[&str], conditions: Conditions) -> Result<usize, Failure> {
        let sql = lines.until(at + 1, true);
        if sql.is_empty() {
            return Err(lines.wrong(at, "the record has no SQL"));
        }
        let mut next = at + 1 + sql.len();
        let wanted = match words {
            ["ok", ..] => Wanted::Ok,
            ["count", count, ..] => Wanted::Count(count.parse().map_err(|_| lines.wrong(at, format!("{count} is no number of rows")))?),
            ["error", rest @ ..] => {
                let mut message = rest.join(" ");
                if lines.is_divider(next) {
                    let below = lines.until(next + 1, false);
                    next += 1 + below.len();
                    message = below.join("\n").trim().to_string();
                }
                Wanted::Error(message)
            }
            _ => return Err(lines.wrong(at, "a statement is `statement ok`, `statement count N` or `statement error TEXT`")),
        };
        self.push(lines, at, sql, wanted, conditions);
        Ok(next)
    }

    fn query(&mut self, lines: &Lines<'_>, at: usize, words: &[&str], conditions: Conditions) -> Result<usize, Failure> {
        let sql = lines.until(at + 1, true);
        if sql.is_empty() {
            return Err(lines.wrong(at, "the record has no SQL"));
        }
        let mut next = at + 1 + sql.len();
        if let ["error", rest @ ..] = words {
            self.push(lines, at, sql, Wanted::Error(rest.join(" ")), conditions);
            return Ok(next);
        }
        let mut rows = Rows { sort: self.sort, ..Rows::default() };
        for (index, word) in words.iter().enumerate() {
            match Sort::named(word) {
                Some(sort) => rows.sort = sort,
                None if index == 0 => rows.types = word.to_string(),
                None => rows.label = Some(word.to_string()),
            }
        }
        if lines.is_divider(next) {
            rows.lines = lines.until(next + 1, false);
            next += 1 + rows.lines.len();
        } else if rows.label.is_none() {
            return Err(lines.wrong(at, "a query is SQL, a line ----, and its rows"));
        }
        self.push(lines, at, sql, Wanted::Rows(rows), conditions);
        Ok(next)
    }

    fn push(&mut self, lines: &Lines<'_>, at: usize, sql: Vec<String>, wanted: Wanted, conditions: Conditions) {
        if conditions.taken {
            let sql = sql.join("\n");
            self.file.records.push(Record { file: lines.name.to_string(), line: at + 2, sql, wanted, for_oracle: conditions.for_oracle });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<TestFile, Failure> {
        let mut reader = Reader { file: TestFile::default(), sort: Sort::None, halted: false };
        let lines = Lines { name: "a.slt", folder: PathBuf::new(), lines: text.lines().collect(), depth: 0 };
        reader.records(&lines)?;
        Ok(reader.file)
    }

    #[test]
    fn records_keep_their_lines_and_expectations() {
        let text = "# a comment\nstatement ok\nSET clock = 'event'\n\nquery TI rowsort\nSELECT a,\n  b FROM t;\n----\nx  1\nNULL 2\n\nstatement error no such view\nSELECT 1\n";
        let records = read_text(text).unwrap().records;
        assert_eq!((records[0].line, records[0].sql.as_str()), (3, "SET clock = 'event'"));
        let rows = Rows { types: "TI".into(), sort: Sort::Rows, label: None, lines: vec!["x  1".into(), "NULL 2".into()] };
        assert_eq!((records[1].line, &records[1].wanted), (6, &Wanted::Rows(rows)));
        assert_eq!(records[2].wanted, Wanted::Error("no such view".into()));
        assert_eq!(read_text("select 1").unwrap_err().line, 1);
        assert!(read_text("query\nSELECT 1").is_err());
    }

    #[test]
    fn conditions_choose_records_and_halt_ends_the_file() {
        let text = "onlyif postgres\nstatement ok\na\n\nskipif datafusion\nstatement ok\nb\n\nskipif freshet\nhalt\n\nstatement count 3\nc\n\nstatement error\nd\n----\nno\nway\n\nhalt\n\nstatement ok\ne\n";
        let records = read_text(text).unwrap().records;
        assert_eq!(records.iter().map(|record| record.sql.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(!records[0].for_oracle && records[1].for_oracle);
        assert_eq!(records[1].wanted, Wanted::Count(3));
        assert_eq!(records[2].wanted, Wanted::Error("no\nway".into()));
    }
}
