//! Text to tokens, once per script; variables filled in; spellings that sqlparser does not know turned into those it does.
//!
//! In: a script's text. Out: the tokens of each statement. An inserted token carries the span of the one it stands for, so that every
//! error points into the user's text; without the special words the pass changes nothing.

mod brackets;
mod slips;

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::dialect::FreshetDialect;
use crate::error::SqlError;
use crate::variables;

/// Longer texts are refused before anything is read.
pub const SCRIPT_BYTES_MAX: usize = 4 << 20;

/// Each operator may deepen the expression tree by one level, and planners recurse: 2,000 comparisons with AND between them still plan
/// on a stack of 64 MiB, within a second.
pub const OPERATORS_MAX: usize = 4_000;

/// Brackets and CASEs within each other, and NOTs in a row.
pub const NESTING_MAX: usize = 100;

/// The tokens of the whole script, without white space and comments.
pub fn tokenize(file: &str, text: &str, values: Option<&BTreeMap<String, String>>) -> Result<Vec<TokenWithSpan>, SqlError> {
    if text.len() > SCRIPT_BYTES_MAX {
        let message = format!("the text has {} bytes; at most {SCRIPT_BYTES_MAX} are read", text.len());
        return Err(SqlError::new(file, Location::new(1, 1), message).help("split it into several scripts"));
    }
    let found = Tokenizer::new(&FreshetDialect, text).tokenize_with_location();
    let mut tokens = found.map_err(|error| SqlError::new(file, error.location, lower_first(&error.message)))?;
    tokens.retain(|found| !matches!(found.token, Token::Whitespace(_)));
    if let Some(values) = values {
        fill_variables(file, &mut tokens, values)?;
    }
    Ok(tokens)
}

/// The statements' tokens, cut at semicolons; empty statements are dropped. Errors: too many operators in one of them, brackets that do
/// not match or nest too deeply, and slips that sqlparser would take for names.
pub fn split(file: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<Vec<TokenWithSpan>>, SqlError> {
    let mut statements = vec![Vec::new()];
    let mut operators = 0;
    for found in tokens {
        if found.token == Token::SemiColon {
            operators = 0;
            statements.push(Vec::new());
            continue;
        }
        operators += usize::from(is_operator(&found.token));
        if operators > OPERATORS_MAX {
            let message = format!("the statement has more than {OPERATORS_MAX} operators");
            return Err(SqlError::new(file, found.span.start, message).help("use IN (…) for long lists, or split it into several views"));
        }
        statements.last_mut().expect("there is always a last statement").push(found);
    }
    statements.retain(|statement| !statement.is_empty());
    for statement in &statements {
        brackets::check(file, statement)?;
        slips::check(file, statement)?;
    }
    Ok(statements)
}

/// The one answer to everything that nests.
pub fn too_deep(file: &str, at: Location) -> SqlError {
    let error = SqlError::new(file, at, format!("the statement nests deeper than {NESTING_MAX} levels"));
    error.help("move inner queries into views, or shorten the expression")
}

/// The token pass over one statement.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut written = Vec::with_capacity(tokens.len() + 8);
    let mut left_asof = false;
    let mut index = 0;
    while let Some(current) = tokens.get(index) {
        let span = current.span;
        let before = |distance: usize| index.checked_sub(distance).and_then(|at| tokens.get(at));
        let after = |distance: usize| tokens.get(index + distance);
        match word(current).as_str() {
            // FEATURES(service) reads as the table `service` of schema `features`: sqlparser wants a version before the arguments.
            "FEATURES" if starts_relation(before(1)) && is_features(&tokens[index..]) => {
                written.push(TokenWithSpan { token: Token::make_word("features", None), span });
                written.push(TokenWithSpan { token: Token::Period, span: tokens[index + 1].span });
                written.push(tokens[index + 2].clone());
                index += 4;
                continue;
            }
            // JOIN b AS OF time is short for JOIN b FOR SYSTEM_TIME AS OF time.
            "AS" if is_word(after(1), "OF") && !is_word(before(1), "SYSTEM_TIME") && starts_expression(after(2)) => {
                written.push(TokenWithSpan { token: Token::make_word("FOR", None), span });
                written.push(TokenWithSpan { token: Token::make_word("SYSTEM_TIME", None), span });
            }
            // TUMBLE(TABLE t, DESCRIPTOR(c), …) and DATA => TABLE t: the word says nothing.
            "TABLE" if is_table_argument(before(1), before(2)) && matches!(after(1), Some(TokenWithSpan { token: Token::Word(_), .. })) => {
                index += 1;
                continue;
            }
            // SESSION(TABLE t PARTITION BY k, …) has the keys as an argument of their own.
            "PARTITION" if is_word(after(1), "BY") && is_session_argument(&tokens[..index]) => {
                let punctuation = |token| TokenWithSpan { token, span };
                written.extend([punctuation(Token::Comma), punctuation(Token::make_word("partition_by", None))]);
                index += 2;
                if tokens.get(index).is_some_and(|next| next.token != Token::LParen) {
                    written.push(punctuation(Token::LParen));
                    while tokens.get(index).is_some_and(|next| matches!(next.token, Token::Word(_) | Token::Period)) {
                        written.push(tokens[index].clone());
                        index += 1;
                    }
                    written.push(punctuation(Token::RParen));
                }
                continue;
            }
            // LEFT ASOF JOIN, or ASOF LEFT JOIN: the condition says it instead.
            "LEFT" if is_word(after(1), "ASOF") || is_word(before(1), "ASOF") => {
                left_asof = true;
                index += 1;
                continue;
            }
            "OUTER" if left_asof && (is_word(after(1), "ASOF") || is_word(after(1), "JOIN")) => {
                index += 1;
                continue;
            }
            "MATCH_CONDITION" if left_asof && after(1).is_some_and(|next| next.token == Token::LParen) => {
                left_asof = false;
                let Some(end) = closing(&tokens, index + 1) else { continue };
                written.push(current.clone());
                for token in [Token::LParen, Token::make_word(crate::temporal::LEFT, None)] {
                    written.push(TokenWithSpan { token, span });
                }
                written.extend(tokens[index + 1..=end].iter().cloned());
                written.push(tokens[end].clone());
                index = end + 1;
                continue;
            }
            "ROW" if after(1).is_some_and(|next| next.token == Token::Lt) => {
                written.push(TokenWithSpan { token: Token::make_word("STRUCT", None), span });
                index += 1;
                continue;
            }
            _ => {}
        }
        written.push(current.clone());
        index += 1;
    }
    written
}

/// `?` becomes `$1`, `$2`, … in order of appearance: drivers write the one, DataFusion reads the other.
pub fn number_placeholders(file: &str, tokens: &mut [TokenWithSpan]) -> Result<(), SqlError> {
    let mut count = 0;
    let mut dollars = false;
    for found in tokens {
        let Token::Placeholder(name) = &mut found.token else { continue };
        if name == "?" {
            count += 1;
            *name = format!("${count}");
        } else if name.strip_prefix('$').is_some_and(|number| number.parse::<u16>().is_ok_and(|number| number > 0)) {
            dollars = true;
        } else {
            let error = SqlError::new(file, found.span.start, format!("{name} is no parameter"));
            return Err(error.help("write ? for each parameter, or $1, $2, …"));
        }
        if dollars && count > 0 {
            let error = SqlError::new(file, found.span.start, "? and $n are mixed");
            return Err(error.help("write all parameters as ? or all as $1, $2, …"));
        }
    }
    Ok(())
}

/// The bare word in upper case; empty for anything else, quoted names included.
pub fn word(found: &TokenWithSpan) -> String {
    match &found.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    }
}

/// The text from the start of the span to its end; the tokenizer's ends lie behind the last character.
pub fn slice(text: &str, span: Span) -> String {
    let mut lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index as u64 + 1;
        if number < span.start.line || number > span.end.line {
            continue;
        }
        let from = if number == span.start.line { span.start.column as usize - 1 } else { 0 };
        let until = if number == span.end.line { span.end.column as usize - 1 } else { usize::MAX };
        lines.push(line.chars().take(until).skip(from).collect::<String>());
    }
    lines.join("\n")
}

pub fn lower_first(message: &str) -> String {
    let mut letters = message.chars();
    match letters.next() {
        // An abbreviation or keyword keeps its case.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => first.to_lowercase().chain(letters).collect(),
        _ => message.to_string(),
    }
}

fn fill_variables(file: &str, tokens: &mut [TokenWithSpan], values: &BTreeMap<String, String>) -> Result<(), SqlError> {
    for index in 0..tokens.len() {
        let start = tokens[index].span.start;
        let brace_follows = tokens.get(index + 1).is_some_and(|next| next.token == Token::LBrace);
        match &mut tokens[index].token {
            Token::SingleQuotedString(value) => match variables::fill(value, values) {
                Ok(filled) => *value = filled,
                Err(error) => {
                    let at = place_in_literal(start, value, error.offset);
                    return Err(SqlError { help: error.help, ..SqlError::new(file, at, error.message) });
                }
            },
            Token::Placeholder(name) if name == "$" && brace_follows => {
                let error = SqlError::new(file, start, "a variable outside a string literal");
                return Err(error.help("variables stand in single quotes: '${NAME}'"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the character `offset` of a literal's value stands in the text. A quote in the value is two characters there.
fn place_in_literal(start: Location, value: &str, offset: usize) -> Location {
    let mut at = Location::new(start.line, start.column + 1);
    for letter in value.chars().take(offset) {
        match letter {
            '\n' => at = Location::new(at.line + 1, 1),
            '\'' => at.column += 2,
            _ => at.column += 1,
        }
    }
    at
}

/// Whether it may make a tree deeper. Names, literals, commas and brackets do not: brackets are the parser's recursion limit.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => matches!(
            word.value.to_ascii_uppercase().as_str(),
            "AND"
                | "OR"
                | "XOR"
                | "NOT"
                | "IS"
                | "IN"
                | "LIKE"
                | "ILIKE"
                | "BETWEEN"
                | "SIMILAR"
                | "COLLATE"
                | "AT"
                | "UNION"
                | "EXCEPT"
                | "INTERSECT"
                | "JOIN"
        ),
        Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::Placeholder(_) => false,
        Token::Comma | Token::Period | Token::LParen | Token::RParen | Token::LBrace | Token::RBrace | Token::EOF => false,
        _ => true,
    }
}

/// Where the bracket that opens here is closed.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, found) in tokens.iter().enumerate().skip(open) {
        match found.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

fn is_word(found: Option<&TokenWithSpan>, expected: &str) -> bool {
    found.is_some_and(|found| word(found) == expected)
}

fn starts_relation(previous: Option<&TokenWithSpan>) -> bool {
    previous.is_some_and(|previous| matches!(previous.token, Token::Comma | Token::LParen) || matches!(word(previous).as_str(), "FROM" | "JOIN"))
}

fn is_features(tokens: &[TokenWithSpan]) -> bool {
    let shape: Vec<&Token> = tokens.iter().take(4).map(|found| &found.token).collect();
    matches!(shape[..], [_, Token::LParen, Token::Word(_), Token::RParen])
}

fn starts_expression(found: Option<&TokenWithSpan>) -> bool {
    let Some(found) = found else { return false };
    match &found.token {
        Token::LParen | Token::SingleQuotedString(_) | Token::Placeholder(_) => true,
        Token::Word(_) => !matches!(
            word(found).as_str(),
            "ON" | "USING"
                | "WHERE"
                | "FROM"
                | "JOIN"
                | "LEFT"
                | "RIGHT"
                | "FULL"
                | "INNER"
                | "CROSS"
                | "NATURAL"
                | "GROUP"
                | "ORDER"
                | "HAVING"
                | "LIMIT"
                | "UNION"
        ),
        _ => false,
    }
}

fn is_table_argument(previous: Option<&TokenWithSpan>, before_previous: Option<&TokenWithSpan>) -> bool {
    match previous.map(|previous| &previous.token) {
        Some(Token::RArrow) => true,
        Some(Token::LParen) => before_previous.is_some_and(|name| matches!(word(name).as_str(), "TUMBLE" | "HOP" | "SESSION" | "CUMULATE")),
        _ => false,
    }
}

/// `SESSION([DATA =>] [TABLE] name` stands before.
fn is_session_argument(before: &[TokenWithSpan]) -> bool {
    let mut rest =
        before.iter().rev().skip_while(|found| matches!(&found.token, Token::Word(_) | Token::Period) && word(found) != "TABLE").peekable();
    rest.next_if(|found| word(found) == "TABLE");
    if rest.next_if(|found| found.token == Token::RArrow).is_some() {
        rest.next_if(|found| word(found) == "DATA");
    }
    rest.next().is_some_and(|found| found.token == Token::LParen) && rest.next().is_some_and(|found| word(found) == "SESSION")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let tokens = rewrite(tokenize("q", text, None).unwrap());
        tokens.iter().map(|found| found.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn trap_version_before_arguments() {
        let text = "FROM s LEFT JOIN FEATURES(svc) FOR SYSTEM_TIME AS OF now() AS f";
        assert_eq!(rewritten(text), "FROM s LEFT JOIN features . svc FOR SYSTEM_TIME AS OF now ( ) AS f");
    }

    #[test]
    fn trap_short_as_of_gets_its_long_form() {
        assert_eq!(rewritten("JOIN b AS OF d.ts AS f"), "JOIN b FOR SYSTEM_TIME AS OF d . ts AS f");
        assert_eq!(rewritten("SELECT a AS of FROM b"), "SELECT a AS of FROM b");
    }

    #[test]
    fn trap_left_asof_join_is_said_in_its_condition() {
        let expected = "a ASOF JOIN b MATCH_CONDITION ( __left ( a . t >= ( b . t ) ) ) USING ( k )";
        assert_eq!(rewritten("a LEFT ASOF JOIN b MATCH_CONDITION (a.t >= (b.t)) USING (k)"), expected);
        assert_eq!(rewritten("a ASOF LEFT JOIN b MATCH_CONDITION (a.t >= (b.t)) USING (k)"), expected);
        assert_eq!(rewritten("a LEFT JOIN b ON match_condition (1)"), "a LEFT JOIN b ON match_condition ( 1 )");
    }

    #[test]
    fn trap_table_word_before_an_argument() {
        assert_eq!(rewritten("TUMBLE(TABLE t, DESCRIPTOR(c))"), "TUMBLE ( t , DESCRIPTOR ( c ) )");
        assert_eq!(rewritten("HOP(DATA => TABLE t)"), "HOP ( DATA => t )");
        assert_eq!(rewritten("x IN (TABLE t)"), "x IN ( TABLE t )");
        assert_eq!(rewritten("SESSION(TABLE t PARTITION BY k, x)"), "SESSION ( t , partition_by ( k ) , x )");
        assert_eq!(rewritten("SESSION(DATA => TABLE a.t PARTITION BY (k, l), x)"), "SESSION ( DATA => a . t , partition_by ( k , l ) , x )");
        assert_eq!(rewritten("sum(x) OVER (w PARTITION BY k)"), "sum ( x ) OVER ( w PARTITION BY k )");
    }

    #[test]
    fn trap_question_marks_are_numbered() {
        let mut tokens = tokenize("q", "? AND ?", None).unwrap();
        number_placeholders("q", &mut tokens).unwrap();
        assert_eq!(tokens[2].token, Token::Placeholder("$2".into()));
        let mut mixed = tokenize("q", "? + $1", None).unwrap();
        assert_eq!(number_placeholders("q", &mut mixed).unwrap_err().column, 5);
    }

    #[test]
    fn inserted_tokens_point_into_the_text() {
        let tokens = rewrite(tokenize("q", "JOIN FEATURES(svc) AS OF x", None).unwrap());
        let columns: Vec<u64> = tokens.iter().map(|found| found.span.start.column).collect();
        assert_eq!(columns, [1, 6, 14, 15, 20, 20, 20, 23, 26]);
    }

    #[test]
    fn text_of_a_statement_counts_characters_not_bytes() {
        let text = "SET a = 'é';\nSET b =\n  'ü' ;";
        let tokens = split("q", tokenize("q", text, None).unwrap()).unwrap();
        let span = Span::new(tokens[1][0].span.start, tokens[1].last().unwrap().span.end);
        assert_eq!(slice(text, span), "SET b =\n  'ü'");
    }
}
