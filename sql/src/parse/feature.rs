//! `CREATE FEATURE VIEW` and `CREATE FEATURE SERVICE`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::{Result, source};
use crate::ast::{CreateFeatureService, CreateFeatureView, Duration, Ident, OptionEntry, OptionValue, Place, ServiceItem, Stmt, normal_name};
use crate::options;

/// Options of a feature view; a bare name is true.
const VIEW_OPTIONS: [&str; 2] = ["include_now", "history"];

/// Clauses after TIMESTAMP, in any order, each once.
#[derive(Default)]
struct Clauses {
    ttl: Option<Duration>,
    windows: Vec<Duration>,
    hop: Option<Duration>,
    options: Vec<OptionEntry>,
}

pub fn parse_view(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["FEATURE", "VIEW"]);
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the feature view")?;
    if cursor.word(0) != "ENTITY" {
        return Err(cursor.error_expected("ENTITY").help("name the key of the features: ENTITY (column, …) TIMESTAMP column"));
    }
    cursor.expect("ENTITY")?;
    let entity = cursor.names("entity column")?;
    if cursor.word(0) != "TIMESTAMP" {
        return Err(cursor.error_expected("TIMESTAMP").help("name the column with the time of the events: TIMESTAMP column"));
    }
    cursor.expect("TIMESTAMP")?;
    let bracket = cursor.eat_token(&Token::LParen);
    let timestamp = cursor.name("a column")?;
    if bracket {
        cursor.expect_token(&Token::RParen)?;
    }
    let clauses = clauses(cursor)?;
    cursor.expect("AS")?;
    let query = cursor.query()?;
    let Clauses { ttl, windows, hop, options } = clauses;
    Ok(Stmt::CreateFeatureView(CreateFeatureView { name, if_not_exists, entity, timestamp, ttl, windows, hop, options, query }))
}

fn clauses(cursor: &mut Cursor) -> Result<Clauses> {
    let mut clauses = Clauses::default();
    loop {
        let place = cursor.place();
        let word = cursor.word(0);
        let twice = match word.as_str() {
            "TTL" => clauses.ttl.is_some(),
            "WINDOWS" => !clauses.windows.is_empty(),
            "HOP" => clauses.hop.is_some(),
            "WITH" => !clauses.options.is_empty(),
            "AS" => return Ok(clauses),
            _ => {
                let error = cursor.error_expected("TTL, WINDOWS, HOP, WITH or AS");
                return Err(match crate::error::nearest(&word, ["TTL", "WINDOWS", "HOP", "WITH"]) {
                    Some(close) => error.help(format!("did you mean {close}?")),
                    None => error.help("the query follows AS"),
                });
            }
        };
        if twice {
            return Err(cursor.error_here(format!("{word} stands twice")).help("leave one of them out"));
        }
        match word.as_str() {
            "WITH" => clauses.options = view_options(cursor)?,
            "WINDOWS" => {
                cursor.next_token();
                clauses.windows = windows(cursor)?;
            }
            "HOP" => {
                cursor.next_token();
                clauses.hop = Some(positive(cursor, "HOP", place)?);
            }
            _ => {
                cursor.next_token();
                clauses.ttl = Some(options::duration(cursor, "TTL")?);
            }
        }
    }
}

fn view_options(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    cursor.expect("WITH")?;
    let found = options::entries(cursor, true)?;
    options::require_known(cursor, &found, &VIEW_OPTIONS)?;
    if let Some(wrong) = found.iter().find(|option| option.name == "include_now" && !matches!(option.value, OptionValue::Boolean(_))) {
        return Err(cursor.error_at(wrong.value_place, format!("include_now cannot be {}", wrong.value)).help("it is true or false"));
    }
    Ok(found)
}

fn windows(cursor: &mut Cursor) -> Result<Vec<Duration>> {
    let windows = cursor.list(|cursor| {
        let place = cursor.place();
        positive(cursor, "a window", place)
    })?;
    for (index, window) in windows.iter().enumerate() {
        if let Some(same) = windows[..index].iter().find(|earlier| earlier.suffix() == window.suffix()) {
            return Err(cursor.error_at(window.place, format!("window {} stands twice", same.text())).help("leave one of them out"));
        }
    }
    Ok(windows)
}

fn positive(cursor: &mut Cursor, what: &str, place: Place) -> Result<Duration> {
    let length = options::duration(cursor, what)?;
    if length.ms() == 0 {
        return Err(cursor.error_at(place, format!("{what} has no length")).help("it is at least one millisecond long"));
    }
    Ok(length)
}

pub fn parse_service(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["FEATURE", "SERVICE"]);
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the feature service")?;
    let mut request = Vec::new();
    if cursor.eat(&["REQUEST"]) {
        request = cursor.list(source::request_column)?;
        cursor.unique(request.iter().map(|column| &column.name), "request column")?;
    }
    if cursor.word(0) != "AS" {
        let wanted = if request.is_empty() { "REQUEST or AS" } else { "AS" };
        return Err(cursor.error_expected(wanted).help(format!("write CREATE FEATURE SERVICE {name} AS (view, …)")));
    }
    cursor.expect("AS")?;
    if cursor.word(0) == "SELECT" {
        return Err(cursor.error_here("a feature service is a list, not a query").help("write AS (view, view.column AS name, …)"));
    }
    let requested: Vec<String> = request.iter().map(|column| normal_name(&column.name)).collect();
    let items = cursor.list(|cursor| item(cursor, &requested))?;
    Ok(Stmt::CreateFeatureService(CreateFeatureService { name, if_not_exists, request, items }))
}

fn item(cursor: &mut Cursor, requested: &[String]) -> Result<ServiceItem> {
    let name = cursor.name("a view, view.column or a request column")?;
    if cursor.eat_token(&Token::Period) {
        if *cursor.token() == Token::Mul {
            return Err(cursor.error_here(format!("{name}.* is not needed")).help(format!("{name} alone takes all its features")));
        }
        let column = cursor.name("a column of the view")?;
        let alias = alias(cursor)?;
        return Ok(ServiceItem::Feature { view: name, column, alias });
    }
    if requested.contains(&normal_name(&name)) {
        let alias = alias(cursor)?;
        return Ok(ServiceItem::Request { column: name, alias });
    }
    if cursor.word(0) == "AS" {
        let error = cursor.error_here(format!("{name} is a view: it cannot be renamed as a whole"));
        return Err(error.help(format!("rename single features: {name}.column AS name; a request column is declared in REQUEST")));
    }
    Ok(ServiceItem::View(name))
}

fn alias(cursor: &mut Cursor) -> Result<Option<Ident>> {
    if cursor.eat(&["AS"]) { Ok(Some(cursor.name("a name")?)) } else { Ok(None) }
}
