//! Brackets and CASE … END, checked before parsing: the parser would report an open one far away from where it stands.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{NESTING_MAX, too_deep, word};
use crate::error::SqlError;

/// Errors: a bracket that is not closed or closes nothing, a CASE without END, nesting beyond the limit.
pub fn check(file: &str, statement: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut open: Vec<&TokenWithSpan> = Vec::new();
    let mut nots = 0;
    for (index, found) in statement.iter().enumerate() {
        nots = if word(found) == "NOT" { nots + 1 } else { 0 };
        match &found.token {
            Token::LParen | Token::LBracket => open.push(found),
            Token::RParen | Token::RBracket => close(file, &mut open, found)?,
            Token::Word(_) if word(found) == "CASE" && statement.get(index + 1).is_some_and(|next| word(next) == "WHEN") => open.push(found),
            // A column may be called end, so an END is the end of a CASE only where one is open.
            Token::Word(_) if word(found) == "END" && open.last().is_some_and(|opened| word(opened) == "CASE") => drop(open.pop()),
            _ => {}
        }
        if open.len() > NESTING_MAX || nots > NESTING_MAX {
            return Err(too_deep(file, found.span.start));
        }
    }
    match open.last() {
        Some(opened) => Err(not_closed(file, opened)),
        None => Ok(()),
    }
}

fn close(file: &str, open: &mut Vec<&TokenWithSpan>, found: &TokenWithSpan) -> Result<(), SqlError> {
    let wanted = if found.token == Token::RParen { Token::LParen } else { Token::LBracket };
    match open.pop() {
        Some(opened) if opened.token == wanted => Ok(()),
        Some(opened) => Err(not_closed(file, opened)),
        None => Err(SqlError::new(file, found.span.start, format!("{} closes nothing", found.token)).help("leave it out, or open it before")),
    }
}

fn not_closed(file: &str, opened: &TokenWithSpan) -> SqlError {
    let remedy = match opened.token {
        Token::LParen => "close it with )",
        Token::LBracket => "close it with ]",
        _ => "end it with END",
    };
    SqlError::new(file, opened.span.start, format!("{} is not closed", opened.token)).help(remedy)
}
