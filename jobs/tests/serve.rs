use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::clients::python;
use crate::running::{all, freshet, post, tests_folder, text};
use crate::serving::{Serving, rows, wait_for_end};

const BY_CITY: &str = "SELECT city, rides FROM by_city ORDER BY city";

#[test]
fn a_submitted_pipeline_is_listed_and_answers_through_the_server() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(data.path(), &[], None);
    let empty = serving.sql(None, "SELECT 1");
    assert!(text(&empty.stderr).contains("no pipeline runs"), "{}", all(&empty));

    let submitted = serving.submit_rides("taxi");
    assert!(submitted.status.success(), "{}", all(&submitted));
    serving.wait_for_state("taxi", "finished");
    assert_eq!(rows(&serving.sql(None, BY_CITY)), ["Bern,3", "Genf,1"]);
    assert_eq!(rows(&serving.sql(Some("taxi"), BY_CITY)), ["Bern,3", "Genf,1"]);
    let features = freshet()
        .args(["features", "get", "ride_features", "--keys", "city=Bern,driver=7,hour=11", "--pipeline", "taxi", "--address", &serving.flight])
        .output()
        .unwrap();
    assert!(text(&features.stdout).contains("PRESENT"), "{}", all(&features));

    // Clients that know nothing of servers, through its Flight port.
    let client = Command::new(python()).arg(tests_folder().join("client/client.py")).arg(&serving.flight).output().unwrap();
    assert!(client.status.success(), "{}", all(&client));

    let table = serving.ask(&["pipelines"]);
    let shown = text(&table.stdout);
    assert!(shown.lines().nth(2).is_some_and(|line| line.starts_with("taxi  finished")), "{}", all(&table));
    let one = serving.ask(&["pipelines", "taxi", "--format", "json"]);
    let one: Value = serde_json::from_str(&text(&one.stdout)).unwrap();
    assert_eq!((&one["generation"], &one["restarts"], &one["events"]), (&1.into(), &0.into(), &4.into()));
    // Its own addresses answer too.
    let direct = freshet().args(["sql", "--address", one["flight"].as_str().unwrap(), "--format", "csv", BY_CITY]).output().unwrap();
    assert_eq!(rows(&direct), ["Bern,3", "Genf,1"]);

    // What a server left behind that died while it dropped a pipeline is not taken over by the next one of that name.
    let left = data.path().join("pipelines/tram/checkpoints");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("manifest-00000000000000000007.json"), "{").unwrap();
    let second = serving.submit_rides("tram");
    assert!(second.status.success(), "{}", all(&second));
    let unnamed = serving.sql(None, BY_CITY);
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(text(&unnamed.stderr).contains("several pipelines run: taxi, tram; name one with --pipeline"), "{}", all(&unnamed));
    let unknown = serving.sql(Some("bus"), BY_CITY);
    assert!(text(&unknown.stderr).contains("there is no pipeline bus; known: taxi, tram"), "{}", all(&unknown));
    let again = serving.submit_rides("tram");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("there is a pipeline tram already, and it is this one"), "{}", all(&again));
    let changed = data.path().join("pipeline.sql");
    fs::write(&changed, "SET clock = 'event';\nCREATE SOURCE r (a INT) WITH (connector = 'file', path = 'x') FORMAT PLAIN ENCODE JSON;\n").unwrap();
    let other = serving.ask(&["submit", "tram", changed.to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(2));
    let said = text(&other.stderr);
    assert!(said.contains("pipeline.sql") && said.contains("submit the new one under another name") && said.contains("freshet drop tram"), "{said}");
    serving.wait_for_state("tram", "finished");

    let dropped = serving.ask(&["drop", "tram"]);
    assert!(dropped.status.success(), "{}", all(&dropped));
    assert_eq!(rows(&serving.sql(None, BY_CITY)).len(), 2);
    assert!(!data.path().join("pipelines/tram").exists() && !data.path().join("catalog/tram").exists());
}

#[test]
fn what_does_not_compile_starts_nothing_and_names_file_line_and_column() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], None);
    let script = data.path().join("bad.sql");
    fs::write(&script, "SET clock = 'event';\nCREATE MATERIALIZED VIEW v AS SELECT x FROM nowhere;\n").unwrap();
    let bad = serving.ask(&["submit", "bad", script.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2), "{}", all(&bad));
    assert!(text(&bad.stderr).contains(&format!("error: {}:2:", script.display())), "{}", all(&bad));
    fs::write(&script, "SET clock = 'event';\n").unwrap();
    let empty = serving.ask(&["submit", "empty", script.to_str().unwrap()]);
    assert_eq!(empty.status.code(), Some(2), "{}", all(&empty));
    assert!(text(&empty.stderr).contains("declares no source and no view"), "{}", all(&empty));
    assert_eq!(serving.get("/v1/pipelines").1, "{\"pipelines\":[]}");

    let folder = tests_folder().join("loop");
    let variables = ["--var", "data=.", "--var", "out=.", "--var", "python=python3", "--var", "mode=learn"];
    let submit = ["submit", "loop", folder.to_str().unwrap()];
    let commands = serving.ask(&[&submit[..], &variables].concat());
    assert_eq!(commands.status.code(), Some(2), "{}", all(&commands));
    assert!(text(&commands.stderr).contains("runs a command on this machine; start the server with --allow-commands"), "{}", all(&commands));

    for (arguments, words) in [
        (&["submit", "a/b", "x"][..], "is not understood"),
        (&["stop", "nobody"], "there is no pipeline nobody; there is none yet"),
        (&["pause", "a/b"], "there is no pipeline \"a/b\""),
        (&["resume", "nobody", "--skip-offsets", "rides"], "is not SOURCE:PARTITION:FROM-TO"),
    ] {
        let script = data.path().join("x");
        fs::write(&script, "SELECT 1;").unwrap();
        let output = freshet().current_dir(data.path()).args(arguments).args(["--server", &serving.http]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", all(&output));
        assert!(text(&output.stderr).contains(words), "{}", all(&output));
    }
    let nobody = freshet().args(["pipelines", "--server", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("nothing answers at http://127.0.0.1:1; is `freshet serve` up"), "{}", all(&nobody));
}

#[test]
fn relative_paths_begin_where_submit_was_called() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("input")).unwrap();
    fs::copy(tests_folder().join("pipeline/input/rides.jsonl"), data.path().join("input/rides.jsonl")).unwrap();
    for file in ["sources.sql", "pipeline.sql"] {
        fs::copy(tests_folder().join("pipeline").join(file), data.path().join(file)).unwrap();
    }
    let serving = Serving::start(&data.path().join("state"), &[], None);
    let arguments = ["submit", "taxi", "sources.sql", "pipeline.sql", "--var", "data=input", "--server", &serving.http];
    let submitted = freshet().current_dir(data.path()).args(arguments).output().unwrap();
    assert!(submitted.status.success(), "{}", all(&submitted));
    // The scripts are copied: what becomes of the files does not matter any more.
    fs::remove_file(data.path().join("pipeline.sql")).unwrap();
    serving.wait_for_state("taxi", "finished");
    assert!(serving.ask(&["stop", "taxi"]).status.success());
    assert!(serving.ask(&["resume", "taxi"]).status.success());
    serving.wait_for_state("taxi", "finished");
    assert_eq!(rows(&serving.sql(None, BY_CITY)), ["Bern,3", "Genf,1"]);
}

#[test]
fn paused_pipelines_answer_and_the_catalog_survives_a_killed_server() {
    let data = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(data.path(), &[], None);
    for name in ["runs", "pauses", "stops"] {
        let submitted = serving.submit_rides(name);
        assert!(submitted.status.success(), "{}", all(&submitted));
        serving.wait_for_state(name, "finished");
    }
    let paused = serving.ask(&["pause", "pauses"]);
    assert_eq!(text(&paused.stdout).split(',').next(), Some("pauses: paused"), "{}", all(&paused));
    assert_eq!(rows(&serving.sql(Some("pauses"), BY_CITY)), ["Bern,3", "Genf,1"]);
    let stopped = serving.ask(&["stop", "stops"]);
    assert_eq!(text(&stopped.stdout), "stops: stopped\n", "{}", all(&stopped));
    let away = serving.sql(Some("stops"), BY_CITY);
    assert!(text(&away.stderr).contains("pipeline stops is stopped and does not answer"), "{}", all(&away));
    assert_eq!(serving.get("/readyz").0, 200, "what an operator wants is no trouble: {}", serving.get("/readyz").1);

    let second = freshet().args(["serve", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(data.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{}", all(&second));
    assert!(text(&second.stderr).contains("is in use by process"), "{}", all(&second));

    let children = ["runs", "pauses"].map(|name| serving.shown(name)["pid"].as_u64().unwrap());
    serving.signal("-KILL");
    serving.end();
    let mut serving = Serving::start(data.path(), &[], None);
    children.into_iter().for_each(wait_for_end);
    let runs = serving.wait_for_state("runs", "finished");
    assert_eq!((&runs["generation"], &runs["restarts"]), (&2.into(), &0.into()), "{runs}");
    serving.wait_until("pauses", "paused and answering", |shown| shown["state"] == "paused" && shown["flight"].is_string());
    let pushed = post(serving.shown("pauses")["http"].as_str().unwrap(), "/v1/ingest/rides", &[], "{}");
    assert!(pushed.0 != 200 && pushed.1.contains("\"unavailable\"") && pushed.1.contains("takes no rows"), "{pushed:?}");
    assert_eq!(serving.shown("stops")["state"], "stopped");
    for name in ["runs", "pauses"] {
        assert_eq!(rows(&serving.sql(Some(name), BY_CITY)), ["Bern,3", "Genf,1"], "{name}");
    }
    for name in ["pauses", "stops"] {
        let resumed = serving.ask(&["resume", name]);
        assert!(resumed.status.success(), "{}", all(&resumed));
        serving.wait_for_state(name, "finished");
        assert_eq!(rows(&serving.sql(Some(name), BY_CITY)), ["Bern,3", "Genf,1"], "{name}");
    }

    let children = ["runs", "pauses", "stops"].map(|name| serving.shown(name)["pid"].as_u64().unwrap());
    serving.signal("-TERM");
    let (code, took) = serving.end();
    assert_eq!(code, Some(143));
    assert!(took < Duration::from_secs(10), "{took:?}");
    children.into_iter().for_each(wait_for_end);
}

#[test]
fn health_metrics_and_the_page_tell_of_all_pipelines() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(data.path(), &[], None);
    assert!(serving.submit_rides("taxi").status.success());
    serving.wait_for_state("taxi", "finished");
    assert_eq!(serving.get("/healthz").0, 200);
    let metrics = serving.get("/metrics").1;
    for line in ["freshet_pipeline_state{pipeline=\"taxi\",state=\"finished\"} 1", "freshet_pipeline_restarts_total{pipeline=\"taxi\"} 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let (page, own) = (serving.get("/").1, serving.shown("taxi")["http"].as_str().unwrap().to_string());
    assert!(page.contains(&format!("<a href=\"http://{own}/\">taxi</a>")), "{page}");
    let nowhere = serving.get("/nowhere");
    assert!(nowhere.0 == 404 && nowhere.1.contains("/v1/pipelines"), "{nowhere:?}");
}
