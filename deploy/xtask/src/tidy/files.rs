//! Rules of one file: its name, header and length, and no paths of somebody's machine. In: path and text. Out: findings.

use super::Report;

const LINES_NOTICED: usize = 600;
const LINES_MAX: usize = 1_200;
/// Names that say nothing about what is inside.
const NAMES_BANNED: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "misc", "manager"];
/// Folders that exist on a developer's machine only; the slash is added below, so that this file passes its own rule.
const HOMES: [&str; 2] = ["/root", "/work"];

/// Generated and golden files are not written by hand, so the rules on length do not hold for them.
pub fn is_generated(path: &str, text: &str) -> bool {
    path.contains("/golden/") || text.lines().take(3).any(|line| line.starts_with("// @generated"))
}

pub fn check_header(path: &str, text: &str, report: &mut Report) {
    let name = file_name(path);
    let exempt = matches!(name, "mod.rs" | "main.rs" | "build.rs") || name.ends_with("_tests.rs") || path.split('/').any(|part| part == "tests");
    if !exempt && !text.trim_start().starts_with("//!") {
        report.fail(path, "has no `//!` header; say in one line what it is, what enters, what leaves and which invariant it keeps");
    }
}

pub fn check_length(path: &str, text: &str, report: &mut Report) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        report.fail(path, format!("has {lines} lines, at most {LINES_MAX} are allowed; split it by purpose"));
    } else if lines > LINES_NOTICED {
        report.notice(path, format!("has {lines} lines"));
    }
}

pub fn check_name(path: &str, report: &mut Report) {
    for part in path.split('/') {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        let last_word = stem.rsplit('_').next().unwrap_or(stem);
        let banned = NAMES_BANNED.contains(&stem) || (stem != last_word && NAMES_BANNED.contains(&last_word) && last_word != "common");
        if banned {
            report.fail(path, format!("`{stem}` is a banned name; name the thing the code is about"));
        }
    }
}

pub fn check_machine_paths(path: &str, text: &str, report: &mut Report) {
    for (index, line) in text.lines().enumerate() {
        for home in HOMES {
            let prefix = format!("{home}/");
            let starts_a_path = |found: usize| found == 0 || !is_path_byte(line.as_bytes()[found - 1]);
            if line.match_indices(&prefix).any(|(found, _)| starts_a_path(found)) {
                report.fail(&format!("{path}:{}", index + 1), format!("names a path of one machine ({prefix}…); make it relative or configurable"));
            }
        }
    }
}

/// A byte after which the slash continues a path or address instead of beginning one.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'}' | b'~' | b'*' | b'>')
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(rule: impl Fn(&mut Report)) -> Vec<String> {
        let mut report = Report::default();
        rule(&mut report);
        report.failures
    }

    #[test]
    fn a_file_without_header_fails_unless_it_is_exempt() {
        let check = |path: &str, text: &str| failures(|report| check_header(path, text, report)).len();
        assert_eq!(check("engine/src/edge.rs", "use std::fmt;\n"), 1);
        assert_eq!(check("engine/src/edge.rs", "//! Edges.\nuse std::fmt;\n"), 0);
        assert_eq!(check("engine/src/main.rs", "fn main() {}"), 0);
        assert_eq!(check("engine/tests/oracle.rs", "fn main() {}"), 0);
        assert_eq!(check("engine/src/edge_tests.rs", "use super::*;"), 0);
    }

    #[test]
    fn a_long_file_is_noticed_and_a_very_long_one_fails() {
        let mut report = Report::default();
        check_length("a.rs", &"x\n".repeat(601), &mut report);
        assert_eq!((report.notices.len(), report.failures.len()), (1, 0));
        check_length("a.rs", &"x\n".repeat(1_201), &mut report);
        assert_eq!(report.failures, ["a.rs: has 1201 lines, at most 1200 are allowed; split it by purpose"]);
    }

    #[test]
    fn names_that_say_nothing_fail() {
        let check = |path: &str| failures(|report| check_name(path, report)).len();
        for path in ["sql/src/util.rs", "sql/src/common/mod.rs", "sql/src/state_manager.rs", "sql/tests/helpers.rs"] {
            assert_eq!(check(path), 1, "{path}");
        }
        assert_eq!(check("sql/src/lower/aggregate.rs"), 0);
        assert_eq!(check("sql/src/common_table_expression.rs"), 0);
    }

    #[test]
    fn a_path_of_one_machine_fails() {
        let check = |text: &str| failures(|report| check_machine_paths("a.md", text, report)).len();
        assert_eq!(check(&format!("see {}/data", HOMES[0])), 1);
        assert_eq!(check(&format!("{}/x", HOMES[1])), 1);
        assert_eq!(check(&format!("https://example.org/src{}/x", HOMES[1])), 0);
    }

    #[test]
    fn golden_and_generated_files_are_known() {
        assert!(is_generated("sql/tests/golden/a.rs", ""));
        assert!(is_generated("sql/src/a.rs", "// @generated by protoc\n"));
        assert!(!is_generated("sql/src/a.rs", "//! A.\n"));
    }
}
