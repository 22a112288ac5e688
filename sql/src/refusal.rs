//! Why a statement is refused, before it is known which file it stands in. In: our reasons and DataFusion's errors. Out: a `SqlError`.

use datafusion::common::{DataFusionError, Diagnostic};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use crate::error::{SqlError, nearest};
use crate::quality::Quality;

/// A reason with its place, if known, and its remedy.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub place: Option<Location>,
    pub message: String,
    pub help: Option<String>,
    /// The reason is a now() that stands where it may not; expressions know no places, so that the text is searched for it.
    pub about_now: bool,
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    pub fn new(message: impl Into<String>) -> Refusal {
        Refusal { place: None, message: message.into(), help: None, about_now: false }
    }

    pub fn help(mut self, help: impl Into<String>) -> Refusal {
        self.help = Some(help.into());
        self
    }

    /// With the known name that was probably meant, else with all of them.
    pub fn nearest<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Refusal {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(name, known.iter().copied()) {
            Some(close) => self.help(format!("did you mean {close}?")),
            None => match known[..] {
                [] => self,
                [only] => self.help(format!("there is {only}")),
                _ => self.help(format!("there are {}", known.join(", "))),
            },
        }
    }

    /// At the start of this piece of text, unless it is empty.
    pub fn at(mut self, span: Span) -> Refusal {
        if span != Span::empty() {
            self.place = Some(span.start);
        }
        self
    }

    /// At the first column of the expression that knows its place.
    pub fn at_expr(mut self, expr: &Expr) -> Refusal {
        if self.place.is_none() {
            self.place = expr.column_refs().into_iter().filter_map(|column| column.spans().first()).map(|span| location(&span)).min();
        }
        self
    }

    pub fn about_now(mut self) -> Refusal {
        self.about_now = true;
        self
    }

    /// `fallback` is where the statement begins.
    pub fn into_error(self, file: &str, fallback: Location) -> SqlError {
        let place = self.place.unwrap_or(fallback);
        SqlError { file: file.to_string(), line: place.line, column: place.column, message: self.message, help: self.help }
    }
}

fn location(span: &datafusion::common::Span) -> Location {
    Location { line: span.start.line, column: span.start.column }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Refusal {
        match error.diagnostic() {
            Some(diagnostic) => from_diagnostic(diagnostic, &error),
            None => in_our_words(plain(&error)),
        }
    }
}

/// What DataFusion says at length or by its own names.
fn in_our_words(message: String) -> Refusal {
    if message.starts_with("Schema contains") || message.starts_with("Projections require unique expression names") {
        // Projections put the expression into quotes and go on with advice; schemas end with the name.
        let quoted = message.split('"').nth(1).filter(|_| message.starts_with("Projections"));
        let last = || message.split(['"', ' ', '.']).rfind(|word| !word.is_empty() && !["ambiguous", "be", "would", "which"].contains(word));
        let name = quoted.or_else(last).unwrap_or_default();
        return Refusal::new(format!("two columns are called {name}")).help("give each its own name: … AS other");
    }
    if let Some((function, _)) = message.strip_prefix("Function '").and_then(|rest| rest.split_once('\'')) {
        // Of our own functions, which say what they take.
        let own = Quality::named(function).and_then(|_| message.split("Error during planning: ").nth(1));
        return match own.and_then(|own| own.trim_end_matches('"').split_once("; ")) {
            Some((wrong, help)) => Refusal::new(wrong).help(help),
            None => Refusal::new(format!("{function}() does not take arguments of these types")).help("CAST them to what it takes"),
        };
    }
    if message.starts_with("Correlated scalar subquery") {
        return Refusal::new("this subquery is used as a value, and may have more than one row for a row of the query")
            .help("aggregate it: (SELECT max(…) …); or LEFT JOIN LATERAL (SELECT … LIMIT 1) AS t ON true");
    }
    if let Some(unknown) = message.strip_prefix("No field named ") {
        let name = unknown.split(". ").next().unwrap_or_default().split(".\n").next().unwrap_or_default().trim_end_matches('.');
        let columns: Vec<&str> = unknown.split("Valid fields are ").nth(1).map_or(Vec::new(), |known| known.split(", ").collect());
        let own = |column: &&str| column.rsplit('.').next().unwrap_or_default().to_string();
        let short = own(&name);
        let known: Vec<String> = columns.iter().map(own).collect();
        let refusal = Refusal::new(format!("column '{name}' not found"));
        let close = nearest(&short, known.iter().map(String::as_str)).and_then(|close| columns.iter().find(|column| own(column) == close));
        return match close {
            Some(close) => refusal.help(format!("possible column {close}")),
            None => refusal,
        };
    }
    if let Some((columns, names)) = message.strip_prefix("Source table contains ").and_then(|rest| rest.split_once(" columns but only ")) {
        let names = names.split(' ').next().unwrap_or_default();
        return Refusal::new(format!("{names} names or values stand beside {columns} columns"))
            .help("as many as there are columns: … AS t (a, b); (a, b) IN (SELECT c, d …)");
    }
    // Syntax trees printed for developers.
    Refusal::new(message.split(" { ").next().unwrap_or_default().trim_end_matches(" Substring").to_string())
}

fn from_diagnostic(diagnostic: &Diagnostic, error: &DataFusionError) -> Refusal {
    // The text of an unknown relation is better in our own words; a diagnostic only adds its place.
    let own = plain(error);
    let message = if own.starts_with("there is no ") || own.starts_with("FEATURES(") { own } else { diagnostic.message.clone() };
    let helps: Vec<String> =
        diagnostic.notes.iter().map(|note| note.message.clone()).chain(diagnostic.helps.iter().map(|help| help.message.clone())).collect();
    let place = diagnostic.span.as_ref().map(location);
    if message.starts_with("Too many columns!") {
        let refusal = Refusal::new("IN compares one value with one column").help("compare several by EXISTS (SELECT 1 FROM … WHERE a = … AND b = …)");
        return Refusal { place, ..refusal };
    }
    let help = if helps.is_empty() { None } else { Some(helps.join("; ")) };
    Refusal { place, message, help, about_now: false }
}

/// The sentence without DataFusion's prefixes, its talk of bugs and its list of candidate signatures.
fn plain(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let text = text.split("\nThis issue was likely caused").next().unwrap_or_default();
    let prefixes = [
        "Error during planning: ",
        "Internal error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "type_coercion\ncaused by\n",
    ];
    let mut text = text.trim();
    while let Some(rest) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim();
    }
    text.trim_end_matches('.').to_string()
}
