//! Length of functions. In: code without text. Out: a notice above 80 lines, a failure above 200; the longest `match` does not count.

use super::Report;
use super::code::{line_of, words};

const LINES_NOTICED: usize = 80;
const LINES_MAX: usize = 200;

pub fn check(path: &str, code: &str, report: &mut Report) {
    for function in functions(code) {
        let place = format!("{path}:{}", function.line);
        if function.lines > LINES_MAX {
            report.fail(&place, format!("function {} has {} lines, at most {LINES_MAX} are allowed; split it", function.name, function.lines));
        } else if function.lines > LINES_NOTICED {
            report.notice(&place, format!("function {} has {} lines", function.name, function.lines));
        }
    }
}

struct Function {
    name: String,
    line: usize,
    /// Without the longest `match` of the body: a table of arms is easier to read in one piece.
    lines: usize,
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut words = words(code).peekable();
    while let Some((start, word)) = words.next() {
        if word != "fn" {
            continue;
        }
        // A function pointer type has no name: its parenthesis comes first.
        let Some((name_at, name)) = words.peek().copied() else { break };
        if !code[start + 2..name_at].trim().is_empty() {
            continue;
        }
        let Some((open, close)) = block_after(code, name_at) else { continue };
        let lines = line_of(code, close) - line_of(code, start) + 1;
        found.push(Function { name: name.to_string(), line: line_of(code, start), lines: lines - longest_match(&code[open..close]) });
    }
    found
}

/// The next braced block at the same level of parentheses; none if a semicolon comes first.
fn block_after(code: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = code.as_bytes();
    let mut depth = 0usize;
    let mut open = None;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match (byte, open) {
            (b'(' | b'[', None) => depth += 1,
            (b')' | b']', None) => depth = depth.saturating_sub(1),
            (b';', None) if depth == 0 => return None,
            (b'{', None) if depth == 0 => {
                open = Some(at);
                depth = 1;
            }
            (b'{', Some(_)) => depth += 1,
            (b'}', Some(start)) => {
                depth -= 1;
                if depth == 0 {
                    return Some((start, at));
                }
            }
            _ => {}
        }
    }
    None
}

/// Lines of the longest `match` block, less its first, which is a line of the function.
fn longest_match(body: &str) -> usize {
    let blocks = words(body).filter(|(_, word)| *word == "match").filter_map(|(at, _)| block_after(body, at));
    blocks.map(|(open, close)| line_of(body, close) - line_of(body, open)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(statements: usize) -> String {
        format!("fn long(a: [u8; 3]) -> u8 where u8: Copy {{\n{}}}\n", "    step();\n".repeat(statements))
    }

    #[test]
    fn a_long_function_is_noticed_and_a_very_long_one_fails() {
        let mut report = Report::default();
        check("a.rs", &function(20), &mut report);
        assert!(report.notices.is_empty());
        check("a.rs", &function(100), &mut report);
        assert_eq!((report.notices.len(), report.failures.len()), (1, 0));
        check("a.rs", &function(199), &mut report);
        assert_eq!(report.failures, ["a.rs:1: function long has 201 lines, at most 200 are allowed; split it"]);
    }

    #[test]
    fn one_match_does_not_count() {
        let arms = "        1 => {}\n".repeat(300);
        let mut report = Report::default();
        check("a.rs", &format!("fn table(x: u8) {{\n    match x {{\n{arms}    }}\n}}\n"), &mut report);
        assert!(report.failures.is_empty() && report.notices.is_empty());
    }

    #[test]
    fn declarations_and_pointer_types_have_no_body() {
        assert!(functions("trait T { fn a(&self); }\ntype F = fn(u8) -> u8;\nstruct S { f: fn() }").is_empty());
    }
}
