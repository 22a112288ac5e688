//! What a file does, statement by statement. In: its records. Out: segments, each a script that only grows, with the rows its tables had and the
//! queries asked on the way; a DROP ends one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, TokenWithSpan};
use freshet_core::{ClockKind, Connectors, Epoch};

use crate::ast::{Column, Ident, Place, normal_name};
use crate::compile::{Program, Script, compile};
use crate::context::Catalog;
use crate::logic::answer::Answer;
use crate::logic::declaration::{self, Declared, name_of, quoted_name};
use crate::logic::feed::Feeds;
use crate::logic::record::{Failure, Record, TestFile, Wanted, read};
use crate::logic::run::{self, Engines, Segment};
use crate::logic::table::{Done, Table, Tables};
use crate::refusal::Refusal;
use crate::tables::Stored;
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
        let outcome = match &record.wanted {
            Wanted::Rows(_) if !writes(&record.sql) => {
                self.ask(record);
                return Ok(());
            }
            _ => self.execute_all(record),
        };
        match (&record.wanted, outcome) {
            // RETURNING.
            (Wanted::Rows(rows), Ok(Some(Done { returned: Some(returned), .. }))) => {
                let answer = Answer::of(&returned.schema(), &[returned]).map_err(failed)?;
                answer.check(rows, false).map_err(failed)
            }
            (Wanted::Rows(_), Ok(_)) => Err(failed("the statement answers no rows; ask for them with RETURNING".into())),
            (Wanted::Error(wanted), Err(message)) => run::expect_error(wanted, &message).map_err(failed),
            // Queries fail when they run.
            (Wanted::Error(_), Ok(None)) => Ok(()),
            (Wanted::Error(wanted), Ok(Some(_))) => Err(failed(format!("no error, expected one with: {wanted}"))),
            (_, Err(message)) => Err(failed(message)),
            (Wanted::Count(wanted), Ok(Some(found))) if *wanted != found.count as u64 => {
                Err(failed(format!("{} rows are changed, expected {wanted}", found.count)))
            }
            (_, Ok(_)) => Ok(()),
        }
    }

    /// Every statement of the record. None: it asks, and the answer comes later.
    fn execute_all(&mut self, record: &Record) -> Result<Option<Done>, String> {
        let found = tokens::tokenize(&record.file, &record.sql, Some(&self.variables)).and_then(|found| tokens::split(&record.file, found));
        let mut done = Done::default();
        for statement in found.map_err(|error| error.to_string())? {
            let words: Vec<String> = statement.iter().take(8).map(tokens::word).collect();
            if matches!(words[0].as_str(), "SELECT" | "VALUES" | "WITH") || statement[0].token.to_string() == "(" {
                self.ask(record);
                return Ok(None);
            }
            let one = self.execute(record, &statement, &words)?;
            done = Done { count: done.count + one.count, returned: one.returned.or(done.returned) };
        }
        Ok(Some(done))
    }

    fn execute(&mut self, record: &Record, statement: &[TokenWithSpan], words: &[String]) -> Result<Done, String> {
        let (first, last) = (statement[0].span, statement[statement.len() - 1].span);
        let text = tokens::slice(&record.sql, datafusion::sql::sqlparser::tokenizer::Span::new(first.start, last.end));
        let line = record.line + first.start.line as usize - 1;
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match word(0) {
            "INSERT" | "UPDATE" | "DELETE" => {
                if let Some((schema, name)) = self.written_table(statement, words) {
                    // The lines before it keep their number.
                    let place = |token: &TokenWithSpan| token.span.start;
                    let before = tokens::slice(&record.sql, Span::new(first.start, place(&statement[schema])));
                    let rest = tokens::slice(&record.sql, Span::new(place(&statement[name]), last.end));
                    return self.tables.write(&format!("{before}{rest}"), &self.program);
                }
            }
            "DROP" => return self.drop(statement, words).map(|()| Done::default()),
            "SET" if !SETTINGS.contains(&word(1)) && !matches!(record.wanted, Wanted::Error(_)) => return Ok(Done::default()),
            done if NOTHING_TO_DO.contains(&done) => return Ok(Done::default()),
            _ => {}
        }
        if let Some(declared) = declaration::table(&text, &tokens::tokenize(&record.file, &text, None).map_err(|error| error.to_string())?)? {
            return self.create_table(declared, &record.file, line).map(Done::of);
        }
        let script = Script { name: record.file.clone(), text: "\n".repeat(line.saturating_sub(1)) + &text };
        self.add(script).map(|()| Done::default())
    }

    /// Where the name of the table begins, and where it stands without its schema. None: it is no table of these.
    fn written_table(&self, statement: &[TokenWithSpan], words: &[String]) -> Option<(usize, usize)> {
        let first = 1 + words[1..].iter().take_while(|word| matches!(word.as_str(), "INTO" | "FROM" | "ONLY" | "TABLE")).count();
        let has_schema = statement.get(first + 1).is_some_and(|next| next.token.to_string() == ".");
        let name = if has_schema { first + 2 } else { first };
        let known = name_of(statement.get(name)?).is_ok_and(|name| self.tables.named.contains_key(&name));
        known.then_some((first, name))
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
        if self.tables.named.contains_key(&declared.name()) && declared.create.if_not_exists {
            return Ok(0);
        }
        let query = declared.create.query.take();
        let schema = match &query {
            Some(query) if declared.create.columns.is_empty() => Some(self.tables.schema_of(query, &self.program)?),
            _ => None,
        };
        let stored = Stored::define(&declared.create, schema, &Catalog::default(), (ClockKind::Wall, false));
        let placed = |refusal: Refusal| refusal.into_error(file, Location { line: line as u64, column: 1 }).to_string();
        let stored = stored.map_err(placed)?;
        let fields = stored.def.schema.fields();
        if declared.create.columns.is_empty() {
            let place = Place(declared.create.name.span);
            let column = |field: &Arc<Field>| Column {
                name: Ident::with_quote('"', field.name()),
                data_type: crate::ast::DataType::Unspecified,
                data_type_place: place,
                not_null: false,
            };
            declared.create.columns = fields.iter().map(column).collect();
        }
        let types = fields.iter().map(|field| sql_type(field.data_type())).collect::<Result<Vec<_>, _>>()?;
        self.add(Script { name: file.to_string(), text: "\n".repeat(line.saturating_sub(1)) + &declared.script(&types) })?;
        let source =
            self.program.plan.sources.iter().find(|source| source.name == declared.source()).ok_or("the table's source is not in the plan")?;
        let name = declared.name();
        let table = Table::new(declared, stored, source.schema.clone(), source.event_time);
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

/// Whether the record changes rows, whatever it answers.
fn writes(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
    matches!(first.as_str(), "INSERT" | "UPDATE" | "DELETE")
}

fn view_of(name: &str, record: &Record) -> Script {
    let text = format!("CREATE MATERIALIZED VIEW {} AS\n{}", quoted_name(name), record.sql.trim().trim_end_matches(';'));
    Script { name: record.file.clone(), text: "\n".repeat(record.line.saturating_sub(2)) + &text }
}

/// The type's name in a declaration.
fn sql_type(data_type: &DataType) -> Result<String, String> {
    Ok(match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int16 => "SMALLINT".into(),
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
        DataType::Struct(fields) => {
            let field = |field: &Arc<Field>| Ok(format!("{} {}", quoted_name(field.name()), sql_type(field.data_type())?));
            format!("STRUCT<{}>", fields.iter().map(field).collect::<Result<Vec<String>, String>>()?.join(", "))
        }
        DataType::Int8 => "TINYINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        other => return Err(format!("a table cannot have a column of type {other}")),
    })
}
