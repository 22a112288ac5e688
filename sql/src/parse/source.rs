//! `CREATE SOURCE (…) WITH (…) FORMAT … ENCODE …`, its other spelling `CREATE TABLE … WITH (connector = …)`, and tables without connector.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Spanned};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use super::metadata;
use super::spelling::{self, Spelled};
use crate::ast::{
    Column, ColumnValue, CreateSource, DataType, Duration, Encode, Encoding, Expr, Ident, Included, OptionEntry, OptionValue, Place, Query, Role,
    Stmt, Watermark, find_option, normal_name,
};
use crate::error::{SqlError, nearest};
use crate::options;

/// What stands between the brackets, in the order the user likes.
#[derive(Default)]
struct Elements {
    /// Of a CREATE TABLE: a key need not say that it is not enforced, and columns may have a default.
    table: bool,
    columns: Vec<Column>,
    metadata: Vec<Included>,
    primary_key: Vec<Ident>,
    watermark: Option<Watermark>,
    lateness: Option<Duration>,
    arrival: Option<Ident>,
    computed: Vec<ColumnValue>,
    defaults: Vec<(ColumnValue, Place)>,
}

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("SOURCE")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the source")?;
    let elements = elements(cursor, &name, false)?;
    if cursor.word(0) != "WITH" {
        return Err(cursor.error_expected("WITH").help("say where its rows are: WITH (connector = 'file', …)"));
    }
    let options = options::list(cursor)?;
    options::require_connector(cursor, &options, &name, "source")?;
    let encoding = options::encoding(cursor)?;
    refuse_defaults(cursor, &elements)?;
    finish(cursor, CreateSource { options, encoding, ..source(name, if_not_exists, Role::Source, elements) })
}

/// Flink's and Arroyo's spelling of sources and sinks, and tables of our own.
pub fn parse_table(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("TABLE")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the table")?;
    let elements = match cursor.word(0).as_str() {
        "WITH" | "AS" => Elements { table: true, ..Elements::default() },
        _ => elements(cursor, &name, true)?,
    };
    skip_comment(cursor)?;
    let partitioned = partitioned_by(cursor)?;
    skip_comment(cursor)?;
    if cursor.word(0) != "WITH" {
        if let Some((_, place)) = partitioned {
            let error = cursor.error_at(place, "a table without connector is not partitioned");
            return Err(error.help("leave it out; the files of a sink are: WITH (connector = 'filesystem', …)"));
        }
        let mut created = source(name, if_not_exists, Role::Stored, elements);
        created.query = created_as(cursor)?;
        if created.columns.is_empty() && created.query.is_none() {
            return Err(cursor.error_expected("(, WITH or AS").help(format!("a table declares its columns: {} (column TYPE, …)", created.name)));
        }
        return finish(cursor, created);
    }
    let mut options = options::list(cursor)?;
    let spelled = spelling::translate(cursor, &mut options)?;
    options::require_connector(cursor, &options, &name, "table")?;
    if let Some((columns, place)) = partitioned {
        partition(cursor, &mut options, &elements, (&columns, place), spelled.role)?;
    }
    let from_option = options::take_format_option(cursor, &mut options)?.map(|encoding| match spelled.unstructured {
        true => Encoding { encode: Encode::Bytes, ..encoding },
        false => encoding,
    });
    let encoding = match (from_option, options::encoding(cursor)?) {
        (Some(_), Some(clause)) => {
            return Err(cursor.error_at(clause.place, "FORMAT stands twice: as an option and as a clause").help("leave one of them out"));
        }
        (option, clause) => option.or(clause),
    };
    refuse_defaults(cursor, &elements)?;
    let mut created = CreateSource { options, encoding, ..source(name, if_not_exists, spelled.role, elements) };
    created.query = created_as(cursor)?;
    if created.query.is_some() {
        created.role = Role::Sink;
    }
    event_time_option(cursor, &mut created, &spelled)?;
    finish(cursor, created)
}

/// `PARTITIONED BY (column, …)`.
fn partitioned_by(cursor: &mut Cursor) -> Result<Option<(Vec<Ident>, Place)>> {
    let place = cursor.place();
    if !cursor.eat(&["PARTITIONED"]) {
        return Ok(None);
    }
    cursor.expect("BY")?;
    let columns = cursor.names("column")?;
    Ok(Some((columns, cursor.place_since(place))))
}

/// A partitioned table is a sink of files, whose connector is told the columns.
fn partition(cursor: &Cursor, options: &mut Vec<OptionEntry>, elements: &Elements, (columns, place): (&[Ident], Place), role: Role) -> Result<()> {
    if find_option(options, "connector").is_some_and(|connector| connector.value.text() != "file") {
        let error = cursor.error_at(place, "only files are written in partitions");
        return Err(error.help("leave it out, or write WITH (connector = 'filesystem', …)"));
    }
    if role == Role::Source {
        let error = cursor.error_at(place, "a source is not partitioned: what folders are called is not read into columns");
        return Err(error.help("leave it out; the path may have wildcards for folders: path = 'lake/day=*/*.json'"));
    }
    let known: Vec<String> = elements.columns.iter().map(|column| normal_name(&column.name)).collect();
    if let Some(unknown) = columns.iter().find(|column| !known.is_empty() && !known.contains(&normal_name(column))) {
        let error = cursor.error_at(Place(unknown.span), format!("column {unknown} is not declared here"));
        return Err(match nearest(&normal_name(unknown), known.iter().map(String::as_str)) {
            Some(close) => error.help(format!("did you mean {close}?")),
            None => error.help(format!("columns are {}", known.join(", "))),
        });
    }
    let names: Vec<String> = columns.iter().map(normal_name).collect();
    options.push(OptionEntry { name: "partition.by".into(), value: OptionValue::Text(names.join(",")), place, value_place: place });
    Ok(())
}

/// `AS query`.
fn created_as(cursor: &mut Cursor) -> Result<Option<Box<Query>>> {
    if cursor.eat(&["AS"]) { cursor.query().map(Some) } else { Ok(None) }
}

/// Arroyo's `event_time_field` and `watermark_field` are a WATERMARK.
fn event_time_option(cursor: &Cursor, created: &mut CreateSource, spelled: &Spelled) -> Result<()> {
    // As it stands, or as a name that is not quoted.
    let exact = |name: &Ident| match created.columns.iter().any(|column| normal_name(&column.name) == name.value) {
        true => Ident { quote_style: Some('"'), ..name.clone() },
        false => name.clone(),
    };
    let Some(column) = spelled.event_time.as_ref().map(exact) else {
        return match &spelled.watermark {
            Some(name) => {
                Err(cursor.error_at(Place(name.span), "watermark_field goes with event_time_field").help("name the column of the times, too"))
            }
            None => Ok(()),
        };
    };
    if let Some(watermark) = &created.watermark {
        if normal_name(&watermark.column) == normal_name(&column) {
            return Ok(());
        }
        let message = format!("event_time_field is {column} and WATERMARK FOR {} is another column", watermark.column);
        return Err(cursor.error_at(Place(column.span), message).help("a source has one event time; leave one of them out"));
    }
    let delay = match &spelled.watermark {
        None => None,
        Some(name) => {
            let computed = created.computed.iter().find(|one| normal_name(&created.columns[one.column].name) == normal_name(name));
            let delay = computed.and_then(|one| delay_behind(&one.expr, &column));
            let wrong = || cursor.error_at(Place(name.span), format!("{name} is no computed column of the form {column} - INTERVAL '…'"));
            Some(delay.ok_or_else(|| wrong().help(format!("or write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'")))?)
        }
    };
    created.watermark = Some(Watermark { column, delay });
    Ok(())
}

/// `column - INTERVAL '…'`, as the length of the interval.
fn delay_behind(expr: &Expr, column: &Ident) -> Option<Duration> {
    match expr {
        Expr::Nested(inner) => delay_behind(inner, column),
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } => {
            let Expr::Identifier(base) = left.as_ref() else { return None };
            let Expr::Interval(interval) = right.as_ref() else { return None };
            let Expr::Value(value) = interval.value.as_ref() else { return None };
            let number = value.value.clone().into_string()?;
            let unit = interval.leading_field.as_ref().map_or(String::new(), |unit| format!(" {}", unit.to_string().to_lowercase()));
            let parts = options::parse_duration(&format!("{number}{unit}")).ok()?;
            (normal_name(base) == normal_name(column)).then(|| Duration { parts, place: Place(right.span()) })
        }
        _ => None,
    }
}

fn refuse_defaults(cursor: &Cursor, elements: &Elements) -> Result<()> {
    match elements.defaults.first() {
        Some((_, place)) => Err(cursor.error_at(*place, "DEFAULT of a source's column is not supported yet").help("leave it out")),
        None => Ok(()),
    }
}

fn source(name: Ident, if_not_exists: bool, role: Role, elements: Elements) -> CreateSource {
    let Elements { columns, metadata, primary_key, watermark, lateness, arrival, computed, defaults, .. } = elements;
    let defaults = defaults.into_iter().map(|(value, _)| value).collect();
    CreateSource {
        name,
        if_not_exists,
        role,
        columns,
        metadata,
        primary_key,
        watermark,
        lateness,
        arrival,
        computed,
        defaults,
        options: Vec::new(),
        encoding: None,
        query: None,
    }
}

/// Every name that a clause uses must be a column.
fn finish(cursor: &Cursor, source: CreateSource) -> Result<Stmt> {
    cursor.unique(source.columns.iter().map(|column| &column.name), "column")?;
    let used = source.primary_key.iter().chain(source.watermark.iter().map(|watermark| &watermark.column)).chain(&source.arrival);
    for name in used {
        let known: Vec<String> = source.columns.iter().map(|column| normal_name(&column.name)).collect();
        if !known.contains(&normal_name(name)) {
            let error = cursor.error_at(Place(name.span), format!("column {name} is not declared in {}", source.name));
            return Err(match nearest(&normal_name(name), known.iter().map(String::as_str)) {
                Some(close) => error.help(format!("did you mean {close}?")),
                None => error.help(format!("columns are {}", known.join(", "))),
            });
        }
    }
    Ok(Stmt::CreateSource(source))
}

fn elements(cursor: &mut Cursor, name: &Ident, table: bool) -> Result<Elements> {
    if *cursor.token() != Token::LParen {
        let help = format!("a source declares its columns: {name} (column TYPE, …)");
        return Err(cursor.error_expected("(").help(help));
    }
    let start = cursor.place();
    let mut elements = Elements { table, ..Elements::default() };
    cursor.open_list(|cursor| element(cursor, &mut elements))?;
    if elements.columns.is_empty() {
        return Err(cursor.error_at(start, format!("{name} has no columns")).help("declare at least one: column TYPE"));
    }
    metadata::includes(cursor, &mut elements.columns, &mut elements.metadata)?;
    Ok(elements)
}

fn element(cursor: &mut Cursor, elements: &mut Elements) -> Result<()> {
    match (cursor.word(0).as_str(), cursor.word(1).as_str()) {
        ("WATERMARK", "FOR") => watermark(cursor, elements)?,
        ("LATENESS", "INTERVAL") => {}
        ("LATENESS", "") if matches!(cursor.found_nth(1).chars().next(), Some('\'')) => {}
        ("ARRIVAL", "FOR") => {}
        ("PRIMARY", "KEY") => return primary_key(cursor, elements),
        ("UNIQUE" | "CHECK" | "FOREIGN" | "CONSTRAINT", _) if !matches!(cursor.found_nth(1).as_str(), "," | ")") => {
            return Err(cursor.error_here(format!("{} is not supported for a source", cursor.word(0))).help("leave it out; filter in a view"));
        }
        _ => return column_element(cursor, elements),
    }
    // LATENESS and ARRIVAL FOR follow the watermark directly or stand as elements of their own.
    loop {
        let place = cursor.place();
        if cursor.eat(&["LATENESS"]) {
            once(cursor, elements.lateness.is_some(), place, "LATENESS")?;
            elements.lateness = Some(options::duration(cursor, "LATENESS")?);
        } else if cursor.eat(&["ARRIVAL"]) {
            cursor.expect("FOR")?;
            once(cursor, elements.arrival.is_some(), place, "ARRIVAL FOR")?;
            elements.arrival = Some(cursor.name("a column")?);
        } else {
            return Ok(());
        }
    }
}

fn once(cursor: &Cursor, given: bool, place: Place, clause: &str) -> Result<()> {
    if given { Err(cursor.error_at(place, format!("{clause} stands twice")).help("a source has one; leave the other out")) } else { Ok(()) }
}

/// `WATERMARK FOR column [AS column - INTERVAL '…']`.
fn watermark(cursor: &mut Cursor, elements: &mut Elements) -> Result<()> {
    let place = cursor.place();
    cursor.eat(&["WATERMARK", "FOR"]);
    once(cursor, elements.watermark.is_some(), place, "WATERMARK")?;
    let column = cursor.name("a column")?;
    let mut delay = None;
    if cursor.eat(&["AS"]) {
        let place = cursor.place();
        let wrong = |cursor: &Cursor| -> SqlError {
            let error = cursor.error_at(place, format!("the watermark of {column} is not {column} or {column} - INTERVAL"));
            error.help(format!("write WATERMARK FOR {column} AS {column} - INTERVAL '5 minutes'"))
        };
        let bracket = cursor.eat_token(&Token::LParen);
        match cursor.token() {
            Token::Word(_) => {}
            _ => return Err(wrong(cursor)),
        }
        let base = cursor.name("a column")?;
        if normal_name(&base) != normal_name(&column) {
            return Err(wrong(cursor));
        }
        if cursor.eat_token(&Token::Minus) {
            delay = Some(options::duration(cursor, "the watermark's delay")?);
        }
        if bracket && !cursor.eat_token(&Token::RParen) {
            return Err(wrong(cursor));
        }
        if !matches!(cursor.token(), Token::Comma | Token::RParen) && !matches!(cursor.word(0).as_str(), "LATENESS" | "ARRIVAL") {
            return Err(wrong(cursor));
        }
    }
    elements.watermark = Some(Watermark { column, delay });
    Ok(())
}

fn primary_key(cursor: &mut Cursor, elements: &mut Elements) -> Result<()> {
    let place = cursor.place();
    cursor.eat(&["PRIMARY", "KEY"]);
    once(cursor, !elements.primary_key.is_empty(), place, "PRIMARY KEY")?;
    elements.primary_key = cursor.names("column")?;
    not_enforced(cursor, elements.table)
}

fn not_enforced(cursor: &mut Cursor, table: bool) -> Result<()> {
    if cursor.eat(&["NOT", "ENFORCED"]) || table {
        return Ok(());
    }
    Err(cursor.error_expected("NOT ENFORCED after PRIMARY KEY").help("a source's key is not checked, and says so: PRIMARY KEY (…) NOT ENFORCED"))
}

fn column_element(cursor: &mut Cursor, elements: &mut Elements) -> Result<()> {
    let column = declared_name(cursor)?;
    if cursor.word(0) == "AS" {
        let data_type_place = cursor.place();
        cursor.eat(&["AS"]);
        let expr = cursor.expression()?;
        skip_comment(cursor)?;
        elements.computed.push(ColumnValue { column: elements.columns.len(), expr, untyped: true });
        elements.columns.push(Column { name: column, data_type: DataType::Unspecified, data_type_place, not_null: false });
        return Ok(());
    }
    let (data_type, data_type_place) = cursor.data_type(&column).map_err(|error| match normal_name(&column).as_str() {
        clause @ ("watermark" | "arrival") => error.help(format!("if it is no column, write {} FOR column", clause.to_uppercase())),
        "lateness" => error.help("if it is no column, write LATENESS INTERVAL '1 hour'"),
        _ => error,
    })?;
    let (mut not_null, mut computed) = (false, false);
    let (mut filled_by, index) = (None, elements.columns.len());
    loop {
        let place = cursor.place();
        if cursor.word(0) == "METADATA" {
            once(cursor, filled_by.is_some(), place, "METADATA")?;
            filled_by = metadata::suffix(cursor, &column)?;
        } else if cursor.eat(&["NOT", "NULL"]) {
            not_null = true;
        } else if cursor.eat(&["NULL"]) {
            // The default, said aloud.
        } else if cursor.eat(&["GENERATED"]) {
            once(cursor, computed, place, "GENERATED")?;
            computed = true;
            let order = "a computed column is written c TYPE GENERATED ALWAYS AS (expression) STORED";
            cursor.clause(&["ALWAYS", "AS"], order)?;
            if *cursor.token() != Token::LParen {
                return Err(cursor.error_expected("(").help(order));
            }
            let expr = match cursor.expression()? {
                Expr::Nested(inner) => *inner,
                other => other,
            };
            if !cursor.eat(&["STORED"]) {
                cursor.eat(&["VIRTUAL"]);
            }
            elements.computed.push(ColumnValue { column: index, expr, untyped: false });
        } else if cursor.eat(&["DEFAULT"]) {
            let expr = cursor.expression()?;
            elements.defaults.push((ColumnValue { column: index, expr, untyped: false }, place));
        } else if cursor.eat(&["PRIMARY", "KEY"]) {
            once(cursor, !elements.primary_key.is_empty(), place, "PRIMARY KEY")?;
            elements.primary_key = vec![column.clone()];
            not_enforced(cursor, elements.table)?;
        } else {
            break;
        }
    }
    skip_comment(cursor)?;
    if matches!(cursor.word(0).as_str(), "CHECK" | "UNIQUE" | "REFERENCES" | "COLLATE") {
        let word = cursor.word(0);
        return Err(cursor.error_here(format!("{word} of a source's column is not supported yet")).help("leave it out"));
    }
    if cursor.word(0) == "VIRTUAL" {
        let error = cursor.error_here("VIRTUAL is said of METADATA only");
        return Err(error.help(format!("write {column} {data_type} METADATA VIRTUAL, or leave it out")));
    }
    elements.metadata.extend(filled_by.map(|name| Included { column: elements.columns.len(), name }));
    elements.columns.push(Column { name: column, data_type, data_type_place, not_null });
    Ok(())
}

/// Flink's `COMMENT '…'`.
fn skip_comment(cursor: &mut Cursor) -> Result<()> {
    if cursor.eat(&["COMMENT"]) { cursor.text("the comment", "COMMENT 'what it is'").map(|_| ()) } else { Ok(()) }
}

/// A column may have any name but one that would read as another element, so TIMESTAMP and WINDOWS are fine here.
fn declared_name(cursor: &mut Cursor) -> Result<Ident> {
    match cursor.token() {
        Token::Word(word) if !matches!(cursor.word(1).as_str(), "FOR" | "INTERVAL") || cursor.word(0).is_empty() => {
            let word = word.clone();
            Ok(word.into_ident(cursor.next_token().span))
        }
        Token::Word(_) => {
            let error = cursor.error_here(format!("{} {} starts no element of a source", cursor.word(0), cursor.word(1)));
            Err(match nearest(&cursor.word(0), ["WATERMARK", "LATENESS", "ARRIVAL"]) {
                Some(close) => error.help(format!("did you mean {close}?")),
                None => error.help("elements are columns, WATERMARK FOR, LATENESS, ARRIVAL FOR and PRIMARY KEY"),
            })
        }
        _ => cursor.name("a column"),
    }
}

/// `name TYPE` of a REQUEST list.
pub fn request_column(cursor: &mut Cursor) -> Result<Column> {
    typed_column(cursor, "a request column", "a column that the request leaves out is NULL")
}

/// `name TYPE` of `what`, which may be NULL for the reason given.
pub fn typed_column(cursor: &mut Cursor, what: &str, why_null: &str) -> Result<Column> {
    let name = declared_name(cursor)?;
    let (data_type, data_type_place) = cursor.data_type(&name)?;
    if cursor.word(0) == "NOT" {
        return Err(cursor.error_here(format!("NOT NULL of {what} is not supported")).help(why_null));
    }
    Ok(Column { name, data_type, data_type_place, not_null: false })
}
