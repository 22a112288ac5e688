//! Files that come while a pipeline runs, from a folder and over an S3 server, through kills of the process and of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::python;
use crate::running::{Running, all, freshet, text};
use crate::s3_server::{Server, shared};

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

fn sql(running: &Running, query: &str) -> String {
    text(&freshet().args(["sql", "--address", &running.flight, "--format", "csv", query]).output().unwrap().stdout)
}

fn wait_for(running: &Running, query: &str, rows: &str) {
    running.wait_until(&format!("{query} is {rows}"), || sql(running, query).lines().skip(1).collect::<Vec<_>>().join(";") == rows);
}

/// What all parts in a folder hold, in order.
fn parts(folder: &Path) -> Vec<u64> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder).map_or(Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect());
    names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("part-"));
    names.sort();
    let text: String = names.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap()).collect()
}

const COUNTS: &str = "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT name) AS files FROM kept";

#[test]
fn files_of_a_folder_are_read_once_over_a_kill_and_parts_hold_each_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let (input, data, out) = (folder.path().join("in"), folder.path().join("state"), folder.path().join("out"));
    fs::create_dir(&input).unwrap();
    let pipeline = script(
        folder.path(),
        "pipeline.sql",
        &format!(
            "SET clock = 'wall';
CREATE SOURCE events (id BIGINT NOT NULL) INCLUDE file AS name INCLUDE modified INCLUDE row AS line
  WITH (connector = 'file', path = '{}/*.jsonl', discovery.interval = '50ms') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW kept AS SELECT id, name, modified, line FROM events;
CREATE SINK copied FROM kept WITH (connector = 'file', path = '{}/', roll.size = '1MiB') FORMAT PLAIN ENCODE JSON;",
            input.display(),
            out.display()
        ),
    );
    fs::write(input.join("b.jsonl"), lines(0..2_000)).unwrap();
    fs::write(input.join("torn.jsonl"), "{\"id\":1\n{\"id\":5000}\n").unwrap();
    let mut running = Running::endless(&pipeline, &data);
    wait_for(&running, COUNTS, "2001,2001,2");
    running.wait_until("a checkpoint has been taken", || parts(&out).len() == 2_001);
    fs::write(input.join("a.jsonl"), lines(2_000..2_500)).unwrap();
    wait_for(&running, COUNTS, "2501,2501,3");
    fs::write(input.join("0.jsonl"), lines(2_500..5_000)).unwrap();
    running.signal("-KILL");
    running.end();
    fs::write(input.join("c.jsonl"), lines(5_001..5_010)).unwrap();
    let mut running = Running::endless(&pipeline, &data);
    wait_for(&running, COUNTS, "5010,5010,5");
    wait_for(&running, "SELECT max(line) AS line FROM kept WHERE id < 2000", "1999");
    wait_for(&running, "SELECT origin LIKE '%/torn.jsonl' AS torn FROM \"dead_letters(events)\"", "t");
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    let mut ids = parts(&out);
    ids.sort_unstable();
    assert_eq!(ids, (0..5_010).collect::<Vec<_>>());
}

/// The keys come from the environment and from a secret.
fn with_keys(server: &Server, path: &str) -> String {
    format!(
        "path = '{path}', s3.endpoint = '{}', s3.region = '{}', s3.access_key = '{}', s3.secret_key = SECRET s3_key, s3.allow_http = 'true'",
        server.endpoint, server.region, server.access_key
    )
}

#[test]
fn a_pipeline_writes_parquet_to_a_bucket_and_another_one_and_pyarrow_read_it() {
    let server = shared();
    server.command("bucket lake");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.jsonl"), lines(0..1_000)).unwrap();
    let key = script(folder.path(), "key", &server.secret_key);
    let head = format!("SET clock = 'wall';\nCREATE SECRET s3_key FROM FILE '{}';\n", key.display());
    let writes = script(
        folder.path(),
        "writes.sql",
        &format!(
            "{head}CREATE SOURCE events (id BIGINT NOT NULL) WITH (connector = 'file', path = '{}', discovery.interval = '50ms') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW kept AS SELECT id FROM events;
CREATE SINK lake FROM kept WITH (connector = 'file', {}) FORMAT PLAIN ENCODE PARQUET;",
            input.display(),
            with_keys(&server, "s3://lake/events/")
        ),
    );
    let reads = script(
        folder.path(),
        "reads.sql",
        &format!(
            "{head}CREATE SOURCE events (id BIGINT NOT NULL) INCLUDE file AS name
  WITH (connector = 'file', {}, match_pattern = '*.parquet', discovery.interval = '50ms') FORMAT PLAIN ENCODE PARQUET;
CREATE MATERIALIZED VIEW kept AS SELECT id, name FROM events;",
            with_keys(&server, "s3://lake/events/")
        ),
    );
    let writer = Running::endless(&writes, &folder.path().join("writer"));
    let reader = Running::endless(&reads, &folder.path().join("reader"));
    wait_for(&reader, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM kept", "1000,1000");
    fs::write(input.join("b.jsonl"), lines(1_000..1_500)).unwrap();
    wait_for(&reader, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM kept", "1500,1500");
    drop(writer);
    let check = "import sys, pyarrow.dataset as d, pyarrow.fs as f
s3 = f.S3FileSystem(endpoint_override=sys.argv[1], region=sys.argv[2], access_key=sys.argv[3], secret_key=sys.argv[4], scheme='http')
print(sorted(d.dataset('lake/events', filesystem=s3, format='parquet').to_table()['id'].to_pylist()) == list(range(1500)))";
    let address = server.endpoint.trim_start_matches("http://");
    let output = Command::new(python()).args(["-c", check, address, &server.region, &server.access_key, &server.secret_key]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "True", "{}", all(&output));
}

#[test]
fn a_bucket_that_is_away_is_told_as_the_state_of_its_source_and_sink() {
    let server = Server::start();
    server.command("bucket lake");
    server.command("kill");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.jsonl"), lines(0..10)).unwrap();
    let key = script(folder.path(), "key", &server.secret_key);
    let pipeline = script(
        folder.path(),
        "pipeline.sql",
        &format!(
            "SET clock = 'wall';
CREATE SECRET s3_key FROM FILE '{}';
CREATE SOURCE local (id BIGINT NOT NULL) WITH (connector = 'file', path = '{}', discovery.interval = '50ms') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW sent AS SELECT id FROM local;
CREATE SINK out FROM sent WITH (connector = 'file', {lake}) FORMAT PLAIN ENCODE JSON;
CREATE SOURCE back (id BIGINT NOT NULL) WITH (connector = 'file', {lake}, discovery.interval = '50ms') FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW returned AS SELECT count(*) AS n FROM back;",
            key.display(),
            input.display(),
            lake = with_keys(&server, "s3://lake/events/")
        ),
    );
    let running = Running::endless(&pipeline, &folder.path().join("state"));
    let state = "SELECT name, state FROM freshet_objects WHERE kind IN ('source', 'sink') AND name IN ('back', 'out') ORDER BY name";
    wait_for(&running, state, "back,retrying;out,retrying");
    assert!(sql(&running, "SELECT reason FROM freshet_objects WHERE name = 'back'").contains("cannot read s3://lake/events"));
    wait_for(&running, "SELECT count(*) AS n FROM sent", "10");
    server.command("start");
    wait_for(&running, "SELECT n FROM returned", "10");
    server.command("kill");
    wait_for(&running, "SELECT state FROM freshet_objects WHERE name = 'back'", "retrying");
    server.command("start");
    fs::write(input.join("b.jsonl"), lines(10..25)).unwrap();
    wait_for(&running, "SELECT n FROM returned", "25");
    wait_for(&running, state, "back,running;out,running");
}

#[test]
fn wrong_options_of_files_are_told_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let source = |options: &str| format!("CREATE SOURCE s (a BIGINT)\n  WITH (connector = 'file', {options})\n  FORMAT PLAIN ENCODE JSON;");
    for (statement, wanted) in [
        (source("path = 'gs://b/x'"), "2:29: gs:// is not in this build; use a local path, file:// or s3://"),
        (source("path = 'x', discovery.interval = 'often'"), "2:41: discovery.interval is a length of time"),
        (source("path = 'x/*.json', match_pattern = '*.json'"), "2:48: path 'x/*.json' has a pattern already"),
        (source("path = 'x', s3.region = 'eu'"), "2:41: option s3.region is for paths such as s3://bucket/folder/"),
        (source("path = 's3://bkt/x', s3.endpoint = 'http://h'"), "2:50: s3.endpoint is http"),
        (
            source("path = 'x', discovry.interval = '1s'"),
            "2:41: the file connector has no option discovry.interval; did you mean discovery.interval?",
        ),
        (
            "CREATE SOURCE s (a BIGINT)\n  INCLUDE topic WITH (connector = 'file', path = 'x') FORMAT PLAIN ENCODE JSON;".into(),
            "2:11: a record of a file has no metadata topic; it has file, modified, row and offset",
        ),
        (
            format!(
                "{}\nCREATE MATERIALIZED VIEW v AS SELECT a FROM s;\nCREATE SINK o FROM v WITH (connector = 'file', path = 'x/', roll.size = 'big') FORMAT PLAIN ENCODE JSON;",
                source("path = 'x'")
            ),
            "5:61: roll.size is a size such as '64MiB'",
        ),
    ] {
        let path = script(folder.path(), "wrong.sql", &statement);
        let output = freshet().arg("explain").arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", all(&output));
        assert!(text(&output.stderr).contains(&format!("{}:{wanted}", path.display())), "{wanted}\n{}", all(&output));
    }
}
