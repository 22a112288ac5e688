//! Reads tokens of one statement. In: rewritten tokens. Out: words, names, queries and types, or an error that always has a place.

use datafusion::sql::sqlparser::ast::SetExpr;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::Result;
use crate::ast::{DataType, Ident, Place, Query, Text};
use crate::dialect::FreshetDialect;
use crate::error::{SqlError, nearest};
use crate::tokens;

/// Levels of the parser's own recursion: a subquery takes three of them, so that the limit on brackets is met first.
const RECURSION_MAX: usize = 3 * tokens::NESTING_MAX + 20;

/// The types that columns are declared with, as help for a misspelt one.
const TYPES: [&str; 14] =
    ["BOOLEAN", "SMALLINT", "INT", "INTEGER", "BIGINT", "REAL", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR", "TEXT", "DATE", "TIMESTAMP", "BYTEA"];

/// Words that end a name's clause and so are no names, unless quoted.
pub const CLAUSE_WORDS: [&str; 8] = ["AS", "WITH", "FROM", "FORMAT", "ENCODE", "SELECT", "ENTITY", "WHERE"];

pub struct Cursor<'a> {
    file: &'a str,
    parser: Parser<'static>,
    /// Behind the last token.
    end: Location,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a str, mut found: Vec<TokenWithSpan>, end: Location) -> Cursor<'a> {
        found.push(TokenWithSpan { token: Token::EOF, span: Span::new(end, end) });
        let parser = Parser::new(&FreshetDialect).with_tokens_with_locations(found).with_recursion_limit(RECURSION_MAX);
        Cursor { file, parser, end }
    }

    pub fn file(&self) -> &'a str {
        self.file
    }

    /// The bare word `distance` tokens ahead in upper case; empty for anything else.
    pub fn word(&self, distance: usize) -> String {
        tokens::word(self.parser.peek_nth_token_ref(distance))
    }

    pub fn token(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    /// Of the next token.
    pub fn place(&self) -> Place {
        self.place_nth(0)
    }

    fn place_nth(&self, distance: usize) -> Place {
        let found = self.parser.peek_nth_token_ref(distance);
        Place(if found.span.start.line == 0 { Span::new(self.end, self.end) } else { found.span })
    }

    /// From `start` to the end of the last token read.
    pub fn place_since(&self, start: Place) -> Place {
        Place(Span::new(start.start(), self.parser.get_current_token().span.end))
    }

    /// The next token as messages show it.
    pub fn found(&self) -> String {
        self.found_nth(0)
    }

    pub fn found_nth(&self, distance: usize) -> String {
        match &self.parser.peek_nth_token_ref(distance).token {
            Token::EOF => "the end of the statement".into(),
            token => token.to_string(),
        }
    }

    pub fn error_here(&self, message: impl Into<String>) -> SqlError {
        self.error_nth(0, message)
    }

    pub fn error_nth(&self, distance: usize, message: impl Into<String>) -> SqlError {
        self.error_at(self.place_nth(distance), message)
    }

    pub fn error_at(&self, place: Place, message: impl Into<String>) -> SqlError {
        SqlError::new(self.file, place.start(), message)
    }

    pub fn error_expected(&self, wanted: &str) -> SqlError {
        self.error_here(format!("expected {wanted}, found {}", self.found()))
    }

    pub fn next_token(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    /// Takes these words if all of them are next.
    pub fn eat(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(distance, wanted)| self.word(distance) == *wanted);
        if all {
            words.iter().for_each(|_| drop(self.parser.next_token()));
        }
        all
    }

    pub fn expect(&mut self, wanted: &str) -> Result<()> {
        if self.eat(&[wanted]) { Ok(()) } else { Err(self.error_expected(wanted)) }
    }

    /// Takes the words that start a clause. Errors: another word stands there; `order` says how the clauses of the statement follow each other.
    pub fn clause(&mut self, words: &[&str], order: &str) -> Result<()> {
        if self.eat(words) {
            return Ok(());
        }
        let met = words.iter().enumerate().take_while(|(distance, wanted)| self.word(*distance) == **wanted).count();
        match met {
            0 => Err(self.error_clause(&words.join(" "), order)),
            met => {
                let message = format!("expected {} after {}, found {}", words[met], words[met - 1], self.found_nth(met));
                Err(self.error_nth(met, message).help(order))
            }
        }
    }

    /// None of the wanted clauses stands here: names the one that was meant, if it is only misspelt, else the order of all.
    pub fn error_clause(&self, wanted: &str, order: &str) -> SqlError {
        let error = self.error_expected(wanted);
        let found = self.word(0);
        let words = wanted.split([' ', ',']).filter(|word| !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_uppercase()));
        match nearest(&found, words).filter(|close| *close != found) {
            Some(close) => error.help(format!("did you mean {close}?")),
            None => error.help(order),
        }
    }

    /// Only `wanted` might have followed, if anything could. Errors: something else stands there.
    pub fn clauses_end(&self, wanted: &[&str], order: &str) -> Result<()> {
        match wanted {
            _ if self.at_end() => Ok(()),
            [] => Err(self.error_clause("the end of the statement", order)),
            wanted => Err(self.error_clause(&format!("{} or the end of the statement", wanted.join(", ")), order)),
        }
    }

    /// A whole number from 1 on.
    pub fn count(&mut self, what: &str) -> Result<u64> {
        let found = match self.token() {
            Token::Number(digits, _) => digits.parse::<u64>().ok().filter(|number| *number > 0),
            _ => None,
        };
        match found {
            Some(number) => {
                self.next_token();
                Ok(number)
            }
            None => Err(self.error_expected(what).help("it is a whole number from 1 on")),
        }
    }

    /// A number that is neither infinite nor NaN, with its sign.
    pub fn number(&mut self, what: &str) -> Result<f64> {
        let place = self.place();
        let sign = if self.eat_token(&Token::Minus) { -1.0 } else { 1.0 };
        let found = match self.token() {
            Token::Number(digits, _) => digits.parse::<f64>().ok().filter(|number| number.is_finite()),
            _ => None,
        };
        match found {
            Some(number) => {
                self.next_token();
                Ok(sign * number)
            }
            None => Err(self.error_at(place, format!("expected {what}, found {}", self.found())).help("it is a number, such as 0.1")),
        }
    }

    /// A string in single quotes.
    pub fn text(&mut self, what: &str, example: &str) -> Result<Text> {
        let place = self.place();
        match self.token().clone() {
            Token::SingleQuotedString(value) if !value.trim().is_empty() => {
                self.next_token();
                Ok(Text { value, place })
            }
            Token::SingleQuotedString(_) => Err(self.error_here(format!("{what} is empty")).help(format!("for example {example}"))),
            _ => Err(self.error_expected(&format!("{what} in single quotes")).help(format!("for example {example}"))),
        }
    }

    /// `(name)`.
    pub fn bracketed_name(&mut self, what: &str) -> Result<Ident> {
        self.expect_token(&Token::LParen)?;
        let name = self.name(what)?;
        if *self.token() == Token::Comma {
            return Err(self.error_here(format!("{what} is one column")).help("leave the others out"));
        }
        self.expect_token(&Token::RParen)?;
        Ok(name)
    }

    pub fn eat_token(&mut self, wanted: &Token) -> bool {
        self.parser.consume_token(wanted)
    }

    pub fn expect_token(&mut self, wanted: &Token) -> Result<()> {
        if self.eat_token(wanted) { Ok(()) } else { Err(self.error_expected(&wanted.to_string())) }
    }

    pub fn at_end(&self) -> bool {
        *self.token() == Token::EOF
    }

    /// Errors: anything left of the statement; clauses that peers have and we do not are named.
    pub fn expect_end(&self) -> Result<()> {
        if self.at_end() {
            return Ok(());
        }
        if self.word(0) == "EMIT" {
            let error = self.error_here("EMIT is for materialized views");
            return Err(error.help("CREATE MATERIALIZED VIEW … AS SELECT … EMIT ON WINDOW CLOSE"));
        }
        Err(self.error_expected("the end of the statement").help("statements end with a semicolon"))
    }

    /// A name, bare or in double quotes or back-ticks. `what` says whose.
    pub fn name(&mut self, what: &str) -> Result<Ident> {
        match self.token() {
            Token::Word(word) if word.quote_style.is_some() || !CLAUSE_WORDS.contains(&word.value.to_ascii_uppercase().as_str()) => {
                Ok(word.clone().into_ident(self.parser.next_token().span))
            }
            Token::Word(word) => {
                let error = self.error_here(format!("expected {what}, found the keyword {}", word.value.to_ascii_uppercase()));
                Err(error.help(format!("a name that is a keyword is quoted: \"{}\"", word.value)))
            }
            Token::SingleQuotedString(text) => {
                let help = format!("single quotes make a string; a quoted name is \"{text}\"");
                Err(self.error_expected(what).help(help))
            }
            _ => Err(self.error_expected(what)),
        }
    }

    /// A name of one part: pipelines have no schemas.
    pub fn single_name(&mut self, what: &str) -> Result<Ident> {
        let name = self.name(what)?;
        if *self.token() == Token::Period {
            let error = self.error_here(format!("{what} has one part"));
            return Err(error.help(format!("a pipeline has no schemas; write {name} alone")));
        }
        Ok(name)
    }

    /// `[IF NOT EXISTS]`.
    pub fn if_not_exists(&mut self) -> bool {
        self.eat(&["IF", "NOT", "EXISTS"])
    }

    /// `(item, …)` with at least one item.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut items = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(item(self)?);
        }
        if !self.eat_token(&Token::RParen) {
            return Err(self.error_expected(", or )"));
        }
        Ok(items)
    }

    /// `(item, …)`; a comma may stand behind the last one.
    pub fn open_list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let items = self.list(|cursor| {
            let ended = *cursor.token() == Token::RParen && cursor.parser.get_current_token().token == Token::Comma;
            if ended { Ok(None) } else { item(cursor).map(Some) }
        })?;
        Ok(items.into_iter().flatten().collect())
    }

    /// `(name, …)`, each once.
    pub fn names(&mut self, what: &str) -> Result<Vec<Ident>> {
        let names = self.list(|cursor| cursor.name(what))?;
        self.unique(names.iter(), what)?;
        Ok(names)
    }

    /// Errors: a name that stands twice, at its second place.
    pub fn unique<'n>(&self, names: impl Iterator<Item = &'n Ident>, what: &str) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            if !seen.insert(crate::ast::normal_name(name)) {
                return Err(self.error_at(Place(name.span), format!("{what} {name} stands twice")).help("leave one of them out or rename it"));
            }
        }
        Ok(())
    }

    pub fn data_type(&mut self, column: &Ident) -> Result<(DataType, Place)> {
        let start = self.place();
        if matches!(self.word(0).as_str(), "NOT" | "NULL" | "PRIMARY" | "AS" | "WATERMARK") || matches!(self.token(), Token::Comma | Token::RParen) {
            return Err(self.error_here(format!("expected the type of column {column}, found {}", self.found())));
        }
        let data_type = self.parsed(Parser::parse_data_type)?;
        if let DataType::Custom(name, _) = &data_type {
            let error = self.error_at(start, format!("type {name} is unknown"));
            return Err(match nearest(&name.to_string(), TYPES) {
                Some(known) => error.help(format!("did you mean {known}?")),
                None => error.help(format!("types are {}", TYPES.join(", "))),
            });
        }
        Ok((data_type, self.place_since(start)))
    }

    pub fn starts_query(&self) -> bool {
        matches!(self.word(0).as_str(), "SELECT" | "WITH" | "VALUES") || *self.token() == Token::LParen
    }

    pub fn query(&mut self) -> Result<Box<Query>> {
        if !self.starts_query() {
            return Err(self.error_expected("a query").help("a query starts with SELECT, WITH or VALUES"));
        }
        let start = self.place();
        let query = self.parsed(Parser::parse_query)?;
        match *query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(self.error_at(start, "a query that writes").help("views are written by their sources; start the query with SELECT"))
            }
            _ => Ok(query),
        }
    }

    /// INSERT, UPDATE or DELETE as sqlparser reads it.
    pub fn statement(&mut self) -> Result<datafusion::sql::sqlparser::ast::Statement> {
        self.parsed(Parser::parse_statement)
    }

    /// One expression.
    pub fn expression(&mut self) -> Result<crate::ast::Expr> {
        self.parsed(Parser::parse_expr)
    }

    fn parsed<T>(&mut self, parse: impl FnOnce(&mut Parser<'static>) -> std::result::Result<T, ParserError>) -> Result<T> {
        parse(&mut self.parser).map_err(|error| self.place_error(error))
    }

    /// sqlparser writes the place into the text of most messages and leaves it out of some: then the token it stopped at is the place.
    fn place_error(&self, error: ParserError) -> SqlError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return tokens::too_deep(self.file, self.place().start());
            }
        };
        let (message, at) = match split_place(&message) {
            Some((message, at)) => (message, at),
            None => (message.as_str(), self.place().start()),
        };
        let expected = message.strip_prefix("Expected: ").or_else(|| message.strip_prefix("Expected "));
        let message = match expected.and_then(|rest| rest.rsplit_once(", found: ")) {
            Some((wanted, "EOF")) => format!("expected {wanted}, found the end of the statement"),
            Some((wanted, found)) => format!("expected {wanted}, found {found}"),
            None => tokens::lower_first(message.trim_end_matches('.')),
        };
        SqlError::new(self.file, at, message)
    }
}

/// `… at Line: 1, Column: 39`.
fn split_place(message: &str) -> Option<(&str, Location)> {
    let (message, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((message, Location::new(line.parse().ok()?, column.parse().ok()?)))
}
