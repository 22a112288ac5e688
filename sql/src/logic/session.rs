//! What a file does, statement by statement. In: its records. Out: segments, each a script that only grows, with the rows its tables had and the
//! queries asked on the way; a DROP ends one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use freshet_core::{Connectors, Epoch};

use crate::ast::normal_name;
use crate::compile::{Program, Script, compile};
use crate::logic::declaration::{self, Declared, DeclaredColumn, name_of, quoted_name};
use crate::logic::feed::Feeds;
use crate::logic::record::{Failure, Record, TestFile, Wanted, read};
use crate::logic::run::{self, Engines, Segment};
use crate::logic::table::{Table, Tables};
use crate::tokens;

/// 2000-01-01: the instant before the first statement.
const START_MS: u64 = 946_684_800_000;

/// Statements that wait for what has happened here already, or that say nothing to one session.
const NOTHING_TO_DO: [&str; 7] = ["FLUSH", "BEGIN", "COMMIT", "START", "ANALYZE", "WAIT", "RECOVER"];

/// The settings of a script; others belong to other systems.
const SETTINGS: [&str; 3] = ["CLOCK", "WORKERS", ""];

/// What a file's run came to.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub records: usize,
    /// Answers of a running pipeline that were compared with the file.
    pub answers: usize,
    /// Answers of the batch oracle that were compared with the engine's.
    pub oracle: usize,
    /// Queries that cannot be maintained, with the reason: they were only asked of the content.
    pub refused: Vec<String>,
}

/// A query or a statement that asks, with when.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub record: Record,
    /// How many pieces of the script stand before it.
    pub pieces: usize,
    /// The epoch of the last write before it.
    pub clock: u64,
    /// The view that maintains it.
    pub view: Option<String>,
}

/// One statement of the script, as the pipeline has it.
#[derive(Debug, Clone)]
struct Piece {
    declares: Option<String>,
    script: Script,
}

/// Reads and runs a file. Errors: the first record that does not hold.
pub fn run_file(path: &Path, variables: &BTreeMap<String, String>, connectors: &dyn Connectors, engines: &dyn Engines) -> Result<Counts, Failure> {
    let file = read(path)?;
    let mut session = Session::new(&path.display().to_string(), variables.clone(), connectors, &file)?;
    for record in &file.records {
        session.take(record)?;
    }
    session.close();
    let mut counts = Counts { records: file.records.len(), refused: session.refused, ..Counts::default() };
    for segment in &session.segments {
        let (answers, oracle) = run::check(segment, &session.variables, connectors, engines)?;
        counts.answers += answers;
        counts.oracle += oracle;
    }
    Ok(counts)
}

/// One file on its way through.
pub struct Session<'a> {
    variables: BTreeMap<String, String>,
    connectors: &'a dyn Connectors,
    pieces: Vec<Piece>,
    program: Program,
    tables: Tables,
    asked: Vec<Asked>,
    segments: Vec<Segment>,
    refused: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(name: &str, variables: BTreeMap<String, String>, connectors: &'a dyn Connectors, file: &TestFile) -> Result<Session<'a>, Failure> {
        let says_clock = |record: &Record| record.sql.to_lowercase().split_whitespace().take(2).eq(["set", "clock"]);
        let setting = if file.records.iter().any(says_clock) { "" } else { "SET clock = 'event'" };
        let first = Piece { declares: None, script: Script { name: name.to_string(), text: setting.to_string() } };
        let feeds = Feeds { others: connectors, writes: BTreeMap::new() };
        let program = compile(std::slice::from_ref(&first.script), &variables, &feeds).map_err(|error| Failure {
            file: name.to_string(),
            line: 1,
            sql: String::new(),
            message: error.to_string(),
        })?;
        let tables = Tables { clock: START_MS, ..Tables::default() };
        Ok(Session { variables, connectors, pieces: vec![first], program, tables, asked: Vec::new(), segments: Vec::new(), refused: Vec::new() })
    }

    fn take(&mut self, record: &Record) -> Result<(), Failure> {
        let failed = |message: String| Failure { file: record.file.clone(), line: record.line, sql: record.sql.clone(), message };
        if let Wanted::Rows(_) = record.wanted {
            self.ask(record);
            return Ok(());
        }
        let outcome = self.execute_all(record);
        match (&record.wanted, outcome) {
            (Wanted::Error(wanted), Err(message)) => run::expect_error(wanted, &message).map_err(failed),
            // Queries fail when they run.
            (Wanted::Error(_), Ok(None)) => Ok(()),
            (Wanted::Error(wanted), Ok(Some(_))) => Err(failed(format!("no error, expected one with: {wanted}"))),
            (_, Err(message)) => Err(failed(message)),
            (Wanted::Count(wanted), Ok(Some(found))) if *wanted != found as u64 => {
                Err(failed(format!("{found} rows are changed, expected {wanted}")))
            }
            (_, Ok(_)) => Ok(()),
        }
    }

    /// Every statement of the record. None: it asks, and the answer comes later.
    fn execute_all(&mut self, record: &Record) -> Result<Option<usize>, String> {
        let found = tokens::tokenize(&record.file, &record.sql, Some(&self.variables)).and_then(|found| tokens::split(&record.file, found));
        let mut changed = 0;
        for statement in found.map_err(|error| error.to_string())? {
            let words: Vec<String> = statement.iter().take(8).map(tokens::word).collect();
            if matches!(words[0].as_str(), "SELECT" | "VALUES" | "WITH") || statement[0].token.to_string() == "(" {
                self.ask(record);
                return Ok(None);
            }
            changed += self.execute(record, &statement, &words)?;
        }
        Ok(Some(changed))
    }

    fn execute(&mut self, record: &Record, statement: &[TokenWithSpan], words: &[String]) -> Result<usize, String> {
        let (first, last) = (statement[0].span, statement[statement.len() - 1].span);
        let text = tokens::slice(&record.sql, datafusion::sql::sqlparser::tokenizer::Span::new(first.start, last.end));
        let line = record.line + first.start.line as usize - 1;
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match word(0) {
            "INSERT" | "UPDATE" | "DELETE" if self.writes_to_table(statement, words) => return self.tables.write(&text, &self.program),
            "DROP" => return self.drop(statement, words).map(|()| 0),
            "SET" if !SETTINGS.contains(&word(1)) && !matches!(record.wanted, Wanted::Error(_)) => return Ok(0),
            done if NOTHING_TO_DO.contains(&done) => return Ok(0),
            _ => {}
        }
        if let Some(declared) = declaration::table(&text, &tokens::tokenize(&record.file, &text, None).map_err(|error| error.to_string())?)? {
            return self.create_table(declared, &record.file, line);
        }
        let script = Script { name: record.file.clone(), text: "\n".repeat(line.saturating_sub(1)) + &text };
        self.add(script).map(|()| 0)
    }

    fn writes_to_table(&self, statement: &[TokenWithSpan], words: &[String]) -> bool {
        let skipped = 1 + words[1..].iter().take_while(|word| matches!(word.as_str(), "INTO" | "FROM" | "ONLY" | "TABLE")).count();
        let mut name = statement.get(skipped);
        // A schema's name stands before the table's.
        if statement.get(skipped + 1).is_some_and(|next| next.token.to_string() == ".") {
            name = statement.get(skipped + 2);
        }
        name.and_then(|token| name_of(token).ok()).is_some_and(|name| self.tables.named.contains_key(&name))
    }

    fn compiled(&self, pieces: &[Piece], more: &[Script]) -> Result<Program, String> {
        let scripts: Vec<Script> = pieces.iter().map(|piece| piece.script.clone()).chain(more.iter().cloned()).collect();
        let feeds = Feeds { others: self.connectors, writes: BTreeMap::new() };
        compile(&scripts, &self.variables, &feeds).map_err(|error| error.to_string())
    }

    fn add(&mut self, script: Script) -> Result<(), String> {
        self.program = self.compiled(&self.pieces, std::slice::from_ref(&script))?;
        let declares = self.program.statements.last().and_then(|statement| statement.body.declares()).map(normal_name);
        self.pieces.push(Piece { declares, script });
        Ok(())
    }

    fn create_table(&mut self, mut declared: Declared, file: &str, line: usize) -> Result<usize, String> {
        if self.tables.named.contains_key(&declared.name) && declared.if_not_exists {
            return Ok(0);
        }
        if let Some(query) = declared.query.as_ref().filter(|_| declared.columns.is_empty()) {
            let schema = self.tables.schema_of(query, &self.program)?;
            let column = |field: &Arc<arrow::datatypes::Field>| {
                Ok(DeclaredColumn { name: field.name().clone(), data_type: sql_type(field.data_type())?, ..DeclaredColumn::default() })
            };
            declared.columns = schema.fields().iter().map(column).collect::<Result<_, String>>()?;
        }
        self.add(Script { name: file.to_string(), text: "\n".repeat(line.saturating_sub(1)) + &declared.script() })?;
        let source =
            self.program.plan.sources.iter().find(|source| source.name == declared.source()).ok_or("the table's source is not in the plan")?;
        let (name, query) = (declared.name.clone(), declared.query.clone());
        let table = Table::new(declared, source.schema.clone(), source.event_time);
        self.tables.all.push(table);
        let index = self.tables.all.len() - 1;
        self.tables.named.insert(name, index);
        query.map_or(Ok(0), |query| self.tables.fill(index, &query, &self.program))
    }

    /// What depends on it goes too with CASCADE, and is in the way otherwise.
    fn drop(&mut self, statement: &[TokenWithSpan], words: &[String]) -> Result<(), String> {
        let kinds = [
            "MATERIALIZED",
            "FEATURE",
            "TRAINING",
            "DRIFT",
            "RETRAINING",
            "TABLE",
            "VIEW",
            "SOURCE",
            "SINK",
            "SERVICE",
            "MODEL",
            "SET",
            "MONITOR",
            "JOB",
            "SECRET",
        ];
        let kind = words[1..].iter().take_while(|word| kinds.contains(&word.as_str())).count();
        if kind == 0 {
            return Err(format!("DROP {} is not supported", words.get(1).map_or("", String::as_str)));
        }
        let if_exists = words.get(kind + 1).is_some_and(|word| word == "IF");
        let last = tokens::word(&statement[statement.len() - 1]);
        let (cascade, restrict) = (last == "CASCADE", last == "RESTRICT");
        let until = statement.len() - usize::from(cascade || restrict);
        let mut left = self.pieces.clone();
        for token in statement[kind + 1 + 2 * usize::from(if_exists)..until].iter().filter(|token| token.token.to_string() != ",") {
            let name = name_of(token)?;
            let before = left.len();
            left.retain(|piece| piece.declares.as_deref() != Some(name.as_str()));
            if left.len() == before && !if_exists {
                return Err(format!("there is no {} named {name}", words[1..=kind].join(" ").to_lowercase()));
            }
        }
        let mut kept: Vec<Piece> = Vec::new();
        for piece in left {
            match self.compiled(&kept, std::slice::from_ref(&piece.script)) {
                Ok(_) => kept.push(piece),
                Err(_) if cascade => {}
                Err(_) => {
                    let name = piece.declares.unwrap_or_default();
                    return Err(format!("{name} depends on it; DROP … CASCADE drops both"));
                }
            }
        }
        self.close();
        self.program = self.compiled(&kept, &[])?;
        self.pieces = kept;
        let pieces = &self.pieces;
        self.tables.named.retain(|name, _| pieces.iter().any(|piece| piece.declares.as_ref() == Some(name)));
        Ok(())
    }

    fn ask(&mut self, record: &Record) {
        let mut asked = Asked { record: record.clone(), pieces: self.pieces.len(), clock: self.tables.clock, view: None };
        if let Wanted::Rows(_) = record.wanted {
            let name = format!("query${}", self.segments.iter().map(|segment| segment.asked.len()).sum::<usize>() + self.asked.len());
            match self.compiled(&self.pieces, &[view_of(&name, record)]) {
                Ok(_) => asked.view = Some(name),
                Err(reason) => self.refused.push(format!("{}, line {}: {reason}", record.file, record.line)),
            }
        }
        self.asked.push(asked);
    }

    /// What has been asked so far is one segment.
    fn close(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut self.asked);
        let mut scripts = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            scripts.push(piece.script.clone());
            let here = asked.iter().filter(|asked| asked.pieces == index + 1);
            scripts.extend(here.filter_map(|asked| Some(view_of(asked.view.as_ref()?, &asked.record))));
        }
        let table = |index: &usize| {
            let table = &self.tables.all[*index];
            let empty = table.content_at(Epoch::ZERO);
            (table.declared.source(), (Arc::new(table.writes.clone()), empty))
        };
        self.segments.push(Segment { scripts, asked, tables: self.tables.named.values().map(table).collect() });
    }
}

fn view_of(name: &str, record: &Record) -> Script {
    let text = format!("CREATE MATERIALIZED VIEW {} AS\n{}", quoted_name(name), record.sql.trim().trim_end_matches(';'));
    Script { name: record.file.clone(), text: "\n".repeat(record.line.saturating_sub(2)) + &text }
}

/// The type's name in a declaration.
fn sql_type(data_type: &DataType) -> Result<String, String> {
    Ok(match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 | DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP(0)".into(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP(3)".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP(9)".into(),
        DataType::List(field) => format!("{}[]", sql_type(field.data_type())?),
        other => return Err(format!("a table cannot have a column of type {other} by CREATE TABLE … AS")),
    })
}
