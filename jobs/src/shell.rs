//! `freshet sql`: one statement, a file of them, or a prompt. In: SQL text. Out: rows on stdout; errors on stderr.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::rows::{RowFormat, format_changes, format_rows};

pub struct SqlOptions {
    pub query: Option<String>,
    pub address: String,
    pub pipeline: Option<String>,
    pub file: Option<PathBuf>,
    pub format: RowFormat,
}

/// Runs the statements in order; the first error ends it, except at a prompt.
pub fn run(options: SqlOptions) -> Outcome {
    block_on(async {
        let client = Client::connect(&options.address).await?.of_pipeline(options.pipeline.as_deref())?;
        let text = match (&options.query, &options.file) {
            (Some(query), _) => Some(query.clone()),
            (None, Some(file)) => Some(std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())).map_err(Failure::wrong)?),
            (None, None) => None,
        };
        match text {
            Some(text) => {
                for statement in statements(&text).0 {
                    answer(&client, &statement, options.format).await?;
                }
            }
            None => read_statements(&client, options.format).await?,
        }
        Ok(0)
    })
}

async fn answer(client: &Client, sql: &str, format: RowFormat) -> Result<(), Failure> {
    if sql.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("SUBSCRIBE")) {
        return follow(client, sql, format).await;
    }
    let received = client.query(sql).await?;
    let text = format_rows(&received.schema, &received.batches, format).map_err(Failure::failed)?;
    // A reader like `head` may have gone; that is its right.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// Prints changes as they come; whoever reads them may leave at any time.
async fn follow(client: &Client, sql: &str, format: RowFormat) -> Result<(), Failure> {
    let (mut begun, mut gone) = (false, false);
    let outcome = client
        .follow(sql, |schema, batch| {
            let text = format_changes(schema, &batch, format, !begun)?;
            begun = true;
            let mut out = std::io::stdout().lock();
            gone = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
            anyhow::ensure!(!gone, "nobody reads any more");
            Ok(())
        })
        .await;
    if gone { Ok(()) } else { outcome }
}

async fn read_statements(client: &Client, format: RowFormat) -> Result<(), Failure> {
    let (input, prompt) = (std::io::stdin().lock(), std::io::stdin().is_terminal());
    let mut pending = String::new();
    show_prompt(prompt, &pending);
    for line in input.lines() {
        pending.push_str(&line.context("reading standard input")?);
        pending.push('\n');
        let (complete, rest) = statements_closed(&pending);
        for statement in complete {
            match answer(client, &statement, format).await {
                Err(failure) if prompt => eprintln!("error: {:#}", failure.error),
                outcome => outcome?,
            }
        }
        pending = rest;
        show_prompt(prompt, &pending);
    }
    for statement in statements(&pending).0 {
        answer(client, &statement, format).await?;
    }
    Ok(())
}

fn show_prompt(wanted: bool, pending: &str) {
    if wanted {
        eprint!("{}", if pending.trim().is_empty() { "freshet> " } else { "    ...> " });
    }
}

/// All statements of the text; the last needs no semicolon.
fn statements(text: &str) -> (Vec<String>, String) {
    let (mut all, rest) = statements_closed(text);
    if has_content(&rest) {
        all.push(rest.trim().to_string());
    }
    (all, String::new())
}

/// The statements that a semicolon ends, and what follows them. Semicolons in quotes and comments end nothing.
fn statements_closed(text: &str) -> (Vec<String>, String) {
    let (mut closed, mut start, mut rest) = (Vec::new(), 0, text.char_indices().peekable());
    while let Some((at, symbol)) = rest.next() {
        let next = rest.peek().map(|(_, next)| *next);
        match symbol {
            '\'' | '"' => drop(rest.find(|(_, symbol_next)| *symbol_next == symbol)),
            '-' if next == Some('-') => drop(rest.find(|(_, symbol)| *symbol == '\n')),
            '/' if next == Some('*') => {
                let mut before = ' ';
                let _ = rest.by_ref().skip(1).find(|(_, symbol)| std::mem::replace(&mut before, *symbol) == '*' && *symbol == '/');
            }
            ';' => {
                if has_content(&text[start..at]) {
                    closed.push(text[start..at].trim().to_string());
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    (closed, text[start..].to_string())
}

fn has_content(text: &str) -> bool {
    text.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_semicolon_outside_quotes_and_comments_ends_a_statement() {
        let text = "SELECT ';' AS a; -- not; here\nSELECT \"x;y\", 'it''s;' /* nor; here */ FROM t ;\n; SELECT 3";
        let (closed, rest) = statements_closed(text);
        assert_eq!(closed, ["SELECT ';' AS a", "-- not; here\nSELECT \"x;y\", 'it''s;' /* nor; here */ FROM t"]);
        assert_eq!(rest, " SELECT 3");
        assert_eq!(statements(text).0.len(), 3);
        assert_eq!(statements("-- nothing\n;").0, Vec::<String>::new());
    }
}
