//! Slips of queries that sqlparser takes for names or reports at the wrong token: `FROM WHERE`, `a, FROM`, `FOR SYSTEM_TIME` without AS OF.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::word;
use crate::error::SqlError;

/// Looks only behind the first SELECT: before it, any word may name a column.
pub fn check(file: &str, statement: &[TokenWithSpan]) -> Result<(), SqlError> {
    let Some(first) = statement.iter().position(|found| word(found) == "SELECT") else { return Ok(()) };
    for pair in statement[first..].windows(2) {
        let (before, found) = (&pair[0], &pair[1]);
        let fail = |wanted: &str| Err(SqlError::new(file, found.span.start, format!("expected {wanted}, found {}", found.token)));
        match (word(before).as_str(), word(found).as_str()) {
            ("FROM" | "JOIN", "WHERE" | "GROUP" | "HAVING" | "ORDER" | "FROM" | "JOIN" | "ON" | "USING" | "LIMIT" | "UNION") => {
                return fail("a table");
            }
            ("SELECT" | "DISTINCT", "FROM" | "WHERE") if !is_comparison(statement, first, before) => return fail("an expression"),
            ("", "FROM" | "WHERE" | "HAVING") if before.token == Token::Comma => return fail("an expression or a table"),
            ("SYSTEM_TIME", "AS") => {}
            ("SYSTEM_TIME", _) => return fail("AS OF after FOR SYSTEM_TIME"),
            _ => {}
        }
    }
    check_as_of(file, statement)
}

/// `FOR SYSTEM_TIME AS` without OF.
fn check_as_of(file: &str, statement: &[TokenWithSpan]) -> Result<(), SqlError> {
    for triple in statement.windows(3) {
        if word(&triple[0]) == "SYSTEM_TIME" && word(&triple[1]) == "AS" && word(&triple[2]) != "OF" {
            let message = format!("expected OF after FOR SYSTEM_TIME AS, found {}", triple[2].token);
            return Err(SqlError::new(file, triple[2].span.start, message).help("write FOR SYSTEM_TIME AS OF now() AS f"));
        }
    }
    Ok(())
}

/// `a IS [NOT] DISTINCT FROM b`.
fn is_comparison(statement: &[TokenWithSpan], first: usize, distinct: &TokenWithSpan) -> bool {
    let index = statement.iter().position(|found| found.span == distinct.span).unwrap_or(first);
    index > 0 && matches!(word(&statement[index - 1]).as_str(), "IS" | "NOT")
}
