//! The parsing half: goldens of errors and of printed statements, `parse(print(x)) == x`, and one test per trap of sqlparser met here.
//! `FRESHET_GOLDEN=update` rewrites the goldens.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use freshet_sql::SqlError;
use freshet_sql::ast::{CreateFeatureView, CreateSource, ExplainSubject, Format, ServiceItem, Statement, Stmt};
use freshet_sql::parse::{parse_query, parse_script};

const CASE: &str = "====\n";
const ANSWER: &str = "----\n";

fn variables() -> BTreeMap<String, String> {
    BTreeMap::from([("data".to_string(), "/tmp/data".to_string()), ("out".to_string(), "/tmp/out".to_string())])
}

fn parse(text: &str) -> Result<Vec<Statement>, SqlError> {
    parse_script("t.sql", text, &variables())
}

fn only(text: &str) -> Stmt {
    let mut statements = parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(statements.len(), 1);
    statements.remove(0).body
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn goldens(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parse");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Runs each case of a file (input, `----`, answer; cases end with `====`), compares or rewrites, and says how many there were.
#[allow(clippy::disallowed_methods, reason = "the one setting of the tests: whether goldens are rewritten")]
fn check(path: &Path, answer: impl Fn(&str) -> String) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    let mut written = String::new();
    let mut count = 0;
    for case in text.split(CASE).filter(|case| !case.trim().is_empty()) {
        let input = case.split(ANSWER).next().unwrap();
        write!(written, "{input}{ANSWER}{}{CASE}", answer(input)).unwrap();
        count += 1;
    }
    if std::env::var("FRESHET_GOLDEN").is_ok_and(|mode| mode == "update") {
        std::fs::write(path, written).unwrap();
    } else {
        assert_eq!(text, written, "{}: run again with FRESHET_GOLDEN=update and review the difference", path.display());
    }
    count
}

#[test]
fn every_broken_statement_is_answered_with_a_place() {
    for path in goldens("err") {
        let count = check(&path, |input| {
            let found = parse(input).expect_err(input);
            assert!(found.line > 0 && found.column > 0, "{found}");
            format!("{}\n", found.to_string().strip_prefix("t.sql:").unwrap())
        });
        assert!(count >= 5, "{} has {count} cases", path.display());
    }
}

#[test]
fn every_statement_prints_as_its_golden_says() {
    for path in goldens("ast") {
        check(&path, |input| {
            let statements = parse(input).unwrap_or_else(|error| panic!("{input}\n{error}"));
            statements.iter().map(|statement| format!("{statement};\n")).collect()
        });
    }
}

#[test]
fn parsing_what_a_statement_prints_gives_the_statement() {
    for path in goldens("ast") {
        let text = std::fs::read_to_string(&path).unwrap();
        for case in text.split(CASE).filter(|case| !case.trim().is_empty()) {
            let statements = parse(case.split(ANSWER).next().unwrap()).unwrap();
            for statement in statements {
                let printed = statement.to_string();
                let again = parse(&printed).unwrap_or_else(|error| panic!("{printed}\n{error}"));
                assert_eq!(again, [statement], "{printed}");
            }
        }
    }
}

#[test]
fn a_statement_keeps_its_own_text_and_place() {
    let statements = parse("SET clock = 'event';\n\n  CREATE VIEW ü AS -- why\n  SELECT 'é'  ; ").unwrap();
    assert_eq!(statements[1].text, "CREATE VIEW ü AS -- why\n  SELECT 'é'");
    assert_eq!((statements[1].place.start().line, statements[1].place.start().column), (3, 3));
    let Stmt::Explain(explain) = only("EXPLAIN (AST) CREATE VIEW v AS SELECT 1") else { panic!() };
    let ExplainSubject::Statement(inner) = explain.subject else { panic!() };
    assert_eq!(inner.text, "CREATE VIEW v AS SELECT 1");
}

#[test]
fn options_point_at_their_names_and_values() {
    let Stmt::CreateSource(CreateSource { options, .. }) = only("CREATE SOURCE s (a INT)\nWITH (connector = 'file',\n  'a.B' = -1)") else {
        panic!()
    };
    let option = &options[1];
    assert_eq!((option.name.as_str(), option.place.start().line, option.place.start().column), ("a.b", 3, 3));
    assert_eq!((option.value.text().as_str(), option.value_place.start().column), ("-1", 11));
}

#[test]
fn names_of_options_may_have_dashes_without_quotes() {
    let text = "CREATE SOURCE s (a INT) WITH (connector = 'kafka', scan.startup.specific-offsets = '0:5', header.X-Api-Key = 'k', limit = -1)";
    let Stmt::CreateSource(CreateSource { options, .. }) = only(text) else { panic!() };
    let names: Vec<&str> = options.iter().map(|option| option.name.as_str()).collect();
    assert_eq!(names, ["connector", "scan.startup.specific-offsets", "header.x-api-key", "limit"]);
    assert_eq!(options[3].value.text(), "-1");
}

#[test]
fn variables_are_filled_in_string_literals_and_only_there() {
    let Stmt::CreateSink(sink) = only("CREATE SINK s FROM v WITH (connector = 'file', path = '${out}/${name:-p}.jsonl')") else { panic!() };
    assert_eq!(sink.options[1].value.text(), "/tmp/out/p.jsonl");
    assert_eq!(
        error("SET clock =\n 'it''s ${clok}'"),
        "t.sql:2:9: variable clok is not defined\n  help: give it with --var clok=VALUE, or a default: ${clok:-default}"
    );
    assert!(error("SET clock = ${clock}").starts_with("t.sql:1:13: a variable outside a string literal"));
}

#[test]
fn table_spelling_is_the_source_it_stands_for() {
    let table = only("CREATE TABLE t (a INT) WITH ('connector' = 'file', 'path' = 'x', 'format' = 'debezium_json', 'type' = 'source')");
    assert_eq!(table, only("CREATE SOURCE t (a INT) WITH (connector = 'file', path = 'x') FORMAT DEBEZIUM ENCODE JSON"));
    let Stmt::CreateSource(source) = table else { panic!() };
    assert_eq!(source.encoding.unwrap().format, Format::Debezium);
}

#[test]
fn service_items_know_what_request_declares() {
    let Stmt::CreateFeatureService(service) = only("CREATE FEATURE SERVICE s REQUEST (Hour INT) AS (v, w.c AS d, hour)") else { panic!() };
    assert!(matches!(&service.items[..], [ServiceItem::View(_), ServiceItem::Feature { .. }, ServiceItem::Request { .. }]));
}

#[test]
fn windows_keep_the_unit_the_user_wrote() {
    let text = "CREATE FEATURE VIEW v ENTITY (k) TIMESTAMP t WINDOWS ('1 hour', '24 hours', '7 days', INTERVAL '90' MINUTE) AS SELECT k FROM s";
    let Stmt::CreateFeatureView(CreateFeatureView { windows, .. }) = only(text) else { panic!() };
    assert_eq!(windows.iter().map(|window| window.suffix()).collect::<Vec<_>>(), ["1h", "24h", "7d", "90m"]);
}

#[test]
fn trap_version_before_arguments() {
    let query = parse_query("SELECT f.* FROM s LEFT JOIN FEATURES(svc) FOR SYSTEM_TIME AS OF now() AS f USING (k)").unwrap();
    let printed = Stmt::Select(query.clone()).to_string();
    assert_eq!(printed, "SELECT f.* FROM s LEFT JOIN FEATURES(svc) FOR SYSTEM_TIME AS OF now() AS f USING(k)");
    assert_eq!(parse_query(&printed).unwrap(), query);
    let short = parse_query("SELECT f.* FROM s LEFT JOIN FEATURES(svc) AS OF now() AS f USING (k)").unwrap();
    assert_eq!(short, query);
}

#[test]
fn trap_question_marks_are_not_dollar_parameters() {
    let query = parse_query("SELECT * FROM v WHERE a = ? AND b > ?").unwrap();
    assert_eq!(query.to_string(), "SELECT * FROM v WHERE a = $1 AND b > $2");
    assert_eq!(
        parse_query("SELECT ? + $1").unwrap_err().to_string(),
        "query:1:12: ? and $n are mixed\n  help: write all parameters as ? or all as $1, $2, …"
    );
    assert!(error("CREATE VIEW v AS SELECT ?").starts_with("t.sql:1:25: a parameter in a script"));
}

#[test]
fn trap_emit_is_no_table_alias() {
    let message = error("CREATE VIEW v AS SELECT a FROM t EMIT ON WINDOW CLOSE");
    assert!(message.starts_with("t.sql:1:34: EMIT is for materialized views"), "{message}");
}

#[test]
fn trap_from_where_is_no_table() {
    let message = error("CREATE VIEW v AS SELECT a FROM WHERE a = 1");
    assert!(message.starts_with("t.sql:1:32: "), "{message}");
}

#[test]
fn trap_message_without_a_place_gets_one() {
    assert_eq!(error("CREATE VIEW v AS\nSELECT a FROM t LEFT b"), "t.sql:2:22: expected OUTER, SEMI, ANTI or JOIN after LEFT");
}

#[test]
fn trap_table_word_and_descriptor_in_arguments() {
    let query = parse_query("SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(c), INTERVAL '1 hour')").unwrap();
    assert_eq!(query.to_string(), "SELECT * FROM TUMBLE(t, DESCRIPTOR(c), INTERVAL '1 hour')");
}

#[test]
fn trap_back_ticks_and_missing_interval_units_are_accepted() {
    let query = parse_query("SELECT `dateTime` - INTERVAL '1 hour', count(*) FILTER (WHERE a > 1) FROM `T`").unwrap();
    assert_eq!(query.to_string(), "SELECT `dateTime` - INTERVAL '1 hour', count(*) FILTER (WHERE a > 1) FROM `T`");
}

#[test]
fn hostile_and_of_5000_terms_is_an_error_with_a_place() {
    let terms = vec!["a = 1"; 5_000].join(" AND ");
    let found = parse(&format!("CREATE VIEW v AS SELECT * FROM t WHERE {terms}")).unwrap_err();
    assert_eq!((found.line, found.message.as_str()), (1, "the statement has more than 4000 operators"));
    assert!(found.column > 0);
}

#[test]
fn hostile_chains_within_the_limit_neither_overflow_nor_hang() {
    for (operator, terms) in [("+", 3_900), ("AND", 3_900), ("||", 3_900)] {
        let text = format!("SELECT {}", vec!["a"; terms].join(&format!(" {operator} ")));
        let query = parse_query(&text).unwrap();
        assert_eq!(query.to_string().len(), text.len());
    }
    let casts = format!("SELECT a{}", "::INT".repeat(3_900));
    assert!(parse_query(&casts).is_ok());
    let unions = vec!["SELECT 1"; 3_900].join(" UNION ");
    assert!(parse_query(&unions).is_ok());
}

#[test]
fn hostile_nesting_is_an_error_with_a_place() {
    for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("CASE WHEN ", " THEN 1 END"), ("(SELECT ", ")"), ("f(", ")"), ("[", "]")] {
        let text = format!("SELECT\n {}a{}", open.repeat(2_000), close.repeat(2_000));
        let found = parse_query(&text).unwrap_err();
        assert_eq!((found.line, found.message.as_str()), (2, "the statement nests deeper than 100 levels"), "{open}");
    }
}

#[test]
fn hostile_brackets_in_from_do_not_take_exponential_time() {
    for depth in [20, 90, 1_000] {
        let text = format!("SELECT * FROM {}t{}", "(".repeat(depth), ")".repeat(depth));
        let _ = parse_query(&text);
        let _ = parse_query(&format!("SELECT * FROM {}t", "(".repeat(depth)));
        let _ = parse_query(&format!("SELECT {}1", "(".repeat(depth)));
    }
}

#[test]
fn hostile_size_is_refused_before_reading() {
    let text = format!("SELECT '{}'", "x".repeat(5 << 20));
    assert!(parse_query(&text).unwrap_err().message.ends_with("at most 4194304 are read"));
}

#[test]
fn half_of_any_statement_is_an_error_or_a_statement_but_never_a_panic() {
    for path in goldens("ast") {
        let text = std::fs::read_to_string(&path).unwrap();
        for case in text.split(CASE) {
            let input = case.split(ANSWER).next().unwrap();
            for (at, _) in input.char_indices() {
                if let Err(found) = parse(&input[..at]) {
                    assert!(found.line > 0 && found.column > 0, "{found}\n{}", &input[..at]);
                }
            }
        }
    }
}

#[test]
fn an_ad_hoc_query_is_one_select() {
    assert!(parse_query("SELECT 1;").is_ok());
    assert_eq!(parse_query("  ").unwrap_err().message, "there is no query");
    assert_eq!(parse_query("SELECT 1; SELECT 2").unwrap_err().column, 11);
    assert_eq!(parse_query("DROP VIEW v").unwrap_err().message, "DROP is no query");
    assert_eq!(parse_query("WITH a AS (SELECT 1) INSERT INTO t SELECT 1").unwrap_err().message, "a query that writes");
}
