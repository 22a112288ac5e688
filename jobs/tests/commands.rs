use std::fs;
use std::path::Path;
use std::process::Output;

use crate::running::{all, freshet, tests_folder, text};

/// Runs the test pipeline over `data` to its end.
fn run_over(data: &Path, state: &Path, extra: &[&str]) -> Output {
    let mut command = freshet();
    command.arg("run").arg(tests_folder().join("pipeline")).args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--var").arg(format!("data={}", data.display())).arg("--data-dir").arg(state).args(extra).output().unwrap()
}

#[test]
fn a_bounded_run_ends_by_itself_with_zero_and_a_summary() {
    let state = tempfile::tempdir().unwrap();
    let output = run_over(&tests_folder().join("pipeline/input"), state.path(), &["--progress"]);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(text(&output.stdout).contains("grpc://127.0.0.1:"), "{}", all(&output));
    assert!(text(&output.stderr).contains("4 events in"), "{}", all(&output));
}

#[test]
fn the_selects_of_a_script_are_answered_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let last = folder.path().join("ask.sql");
    fs::write(&last, "SELECT city, fares FROM by_city ORDER BY city;").unwrap();
    let output = run_over(&tests_folder().join("pipeline/input"), &folder.path().join("state"), &[last.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(text(&output.stdout).contains("city  fares\n----  -----\nBern   60.5\nGenf   5.25\n(2 rows)"), "{}", all(&output));
}

#[test]
fn wrong_sql_wrong_paths_and_wrong_flags_exit_with_two_and_say_where() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("bad.sql");
    fs::write(&script, "SET clock = 'event';\nCREATE MATERIALIZED VIEW v AS SELECT x FROM nowhere;\n").unwrap();
    let bad = freshet().arg("run").arg(&script).output().unwrap();
    assert_eq!(bad.status.code(), Some(2), "{}", all(&bad));
    assert!(text(&bad.stderr).contains(&format!("error: {}:2:", script.display())), "{}", all(&bad));

    let missing = freshet().args(["run", "no/such.sql"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("reading no/such.sql"), "{}", all(&missing));

    let state = folder.path().join("state");
    for (extra, words) in [
        (&["--flight", "0.0.0.0:0"][..], "is not loopback"),
        (&["--workers", "0"], "workers must be at least 1"),
        (&["--colour"], "unexpected argument"),
    ] {
        let output = freshet()
            .arg("run")
            .arg(tests_folder().join("pipeline"))
            .arg("--var")
            .arg("data=.")
            .arg("--data-dir")
            .arg(&state)
            .args(extra)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", all(&output));
        assert!(text(&output.stderr).contains(words), "{}", all(&output));
    }
}

#[test]
fn a_missing_input_file_stops_the_run_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_over(folder.path(), &folder.path().join("state"), &[]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{}", all(&output));
    assert!(text(&output.stderr).contains("rides.jsonl"), "{}", all(&output));
}

#[test]
fn a_bad_record_is_a_dead_letter_and_does_not_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(tests_folder().join("pipeline/input/rides.jsonl")).unwrap();
    fs::write(folder.path().join("rides.jsonl"), format!("not json\n{good}")).unwrap();
    let output = run_over(folder.path(), &folder.path().join("state"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(text(&output.stderr).contains("source rides: 1 dead letters"), "{}", all(&output));
}

#[test]
fn a_bad_record_under_bad_data_fail_exits_with_three() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rows.jsonl"), "{\"a\": \"x\"}\n").unwrap();
    let script = folder.path().join("strict.sql");
    let text_of_script = "SET clock = 'event';\nCREATE SOURCE r (a BIGINT, at TIMESTAMP(3), WATERMARK FOR at)\nWITH (connector = 'file', path = '${data}/rows.jsonl', bad_data = 'fail') FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT a FROM r;\n";
    fs::write(&script, text_of_script).unwrap();
    let output = freshet()
        .arg("run")
        .arg(&script)
        .args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--var"])
        .arg(format!("data={}", folder.path().display()))
        .arg("--data-dir")
        .arg(folder.path().join("state"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
}

#[test]
fn explain_shows_every_stage() {
    for (stage, words) in [("ast", "by_city"), ("plan", "Aggregate"), ("dataflow", "by_city")] {
        let output = freshet().args(["explain", "--stage", stage, "--var", "data=."]).arg(tests_folder().join("pipeline")).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        assert!(text(&output.stdout).contains(words), "{stage}: {}", all(&output));
    }
    let one = freshet().args(["explain", "--view", "by_city", "--var", "data=."]).arg(tests_folder().join("pipeline")).output().unwrap();
    assert!(text(&one.stdout).contains("view by_city") && !text(&one.stdout).contains("driver_last"), "{}", all(&one));
}

#[test]
fn test_runs_fixtures_and_sqllogictest_files_and_notices_a_wrong_row() {
    let good = freshet().arg("test").arg(tests_folder().join("pipeline")).output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", all(&good));
    assert!(text(&good.stdout).ends_with("1 passed, 0 failed\n"), "{}", all(&good));

    let folder = tempfile::tempdir().unwrap();
    fs::copy(tests_folder().join("pipeline/input/rides.jsonl"), folder.path().join("rides.jsonl")).unwrap();
    let sources = fs::read_to_string(tests_folder().join("pipeline/sources.sql")).unwrap().replace("${data}", "${here}");
    let file = format!(
        "statement ok\nSET clock = 'event';\n\nstatement ok\n{sources}\nstatement ok\nCREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM rides\n\nstatement error missing_column\nCREATE MATERIALIZED VIEW m AS SELECT missing_column FROM rides\n\nquery I\nSELECT n FROM n\n----\n4\n"
    );
    fs::write(folder.path().join("count.slt"), &file).unwrap();
    let right = freshet().arg("test").arg(folder.path()).output().unwrap();
    assert_eq!(right.status.code(), Some(0), "{}", all(&right));
    fs::write(folder.path().join("count.slt"), file.replace("\n4\n", "\n5\n")).unwrap();
    let wrong = freshet().arg("test").arg(folder.path()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{}", all(&wrong));
    assert!(text(&wrong.stdout).contains("other rows than expected") && text(&wrong.stdout).contains("0 passed, 1 failed"), "{}", all(&wrong));
}

/// Copies a folder and what lies in it.
fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copied(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

#[test]
fn test_shows_what_differs_in_every_file_of_a_pipeline_folder() {
    let folder = tempfile::tempdir().unwrap();
    copied(&tests_folder().join("pipeline"), folder.path());
    fs::write(folder.path().join("expected/by_city.csv"), "city,rides,fares\nBern,3,60.5\nChur,2,1\nGenf,2,5.25\n").unwrap();
    fs::write(folder.path().join("expected/by_town.csv"), "town\n").unwrap();
    let output = freshet().arg("test").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    let wanted = "expected/by_city.csv differs (- expected, + found)
    city,rides,fares
    Bern,3,60.5
  - Chur,2,1
  - Genf,2,5.25
  + Genf,1,5.25
expected/by_town.csv is neither a file that a sink wrote nor a view
";
    assert!(text(&output.stdout).contains(wanted), "{}", all(&output));
    assert!(text(&output.stdout).ends_with("0 passed, 1 failed\n"), "{}", all(&output));
}
