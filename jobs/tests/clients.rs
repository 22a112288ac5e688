use std::path::PathBuf;
use std::process::Command;

use crate::running::{Running, all, freshet, tests_folder, text};

/// Python with pyarrow and ADBC, as `./dev setup` installs it.
#[allow(clippy::disallowed_methods, reason = "where the test clients are is told by the environment")]
pub fn python() -> PathBuf {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(PathBuf::from);
    let found = variable("FRESHET_PYTHON").unwrap_or_else(|| {
        let cache = variable("FRESHET_CACHE").or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("freshet")));
        let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache/freshet"))).expect("HOME is set");
        cache.join("venv/bin/python")
    });
    let ready = Command::new(&found).args(["-c", "import pyarrow.flight, adbc_driver_flightsql.dbapi"]).output();
    assert!(ready.is_ok_and(|output| output.status.success()), "{} has no pyarrow and ADBC; run ./dev setup, or set FRESHET_PYTHON", found.display());
    found
}

#[test]
fn python_clients_query_look_up_and_are_refused_clearly() {
    let running = Running::start(&[]);
    let output = Command::new(python()).arg(tests_folder().join("client/client.py")).arg(&running.flight).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    assert!(text(&output.stdout).lines().filter(|line| line.starts_with("ok ")).count() >= 45, "{}", all(&output));
}

#[test]
fn own_client_prints_tables_json_csv_and_features() {
    let running = Running::start(&[]);
    let sql = |arguments: &[&str]| freshet().args(["sql", "--address", &running.flight]).args(arguments).output().unwrap();
    let table = sql(&["SELECT city, rides FROM by_city ORDER BY city"]);
    assert_eq!(text(&table.stdout), "city  rides\n----  -----\nBern      3\nGenf      1\n(2 rows)\n");
    assert_eq!(text(&sql(&["--format", "json", "SELECT city, fares FROM by_city WHERE rides = 1"]).stdout), "{\"city\":\"Genf\",\"fares\":5.25}\n");
    assert_eq!(text(&sql(&["--format", "csv", "SELECT rides FROM by_city WHERE city = 'Bern'; SELECT 1 AS one"]).stdout), "rides\n3\none\n1\n");
    let wrong = sql(&["SELECT nope FROM by_city"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("1:8"), "{}", all(&wrong));

    let changes = text(&sql(&["SUBSCRIBE TO by_city"]).stdout);
    assert!(changes.starts_with("epoch\tdiff\tprogress\tcity\trides"), "{changes}");
    assert_eq!(changes.lines().filter(|line| line.contains("\t1\tf\t")).count(), 2, "{changes}");
    assert_eq!(text(&sql(&["--format", "json", "SUBSCRIBE TO by_city WITH (SNAPSHOT = false)"]).stdout), "");
    let wrong = sql(&["SUBSCRIBE TO by_city WITH (SNAPSHOTS)"]);
    assert!(text(&wrong.stderr).contains("1:28: SUBSCRIBE has no option snapshots"), "{}", all(&wrong));
    let wrong = sql(&["SUBSCRIBE TO by_city AS OF now()"]);
    assert!(text(&wrong.stderr).contains("1:22: AS OF takes an epoch in milliseconds"), "{}", all(&wrong));
    let shown = text(&sql(&["--format", "csv", "SHOW VIEWS"]).stdout);
    assert!(shown.lines().any(|line| line.starts_with("by_city,view,")), "{shown}");
    assert!(text(&sql(&["DESCRIBE by_city"]).stdout).contains("rides"), "the columns of a view");
    assert!(text(&sql(&["DESCRIBE rides"]).stdout).contains("ride_id"), "the columns of a source");
    let unknown = sql(&["DESCRIBE by_town"]);
    assert!(text(&unknown.stderr).contains("there is no source, view or service named by_town"), "{}", all(&unknown));

    let keys = ["--keys", "city=Bern,driver=7,hour=11", "--keys", "city=Rom,driver=,hour=12"];
    let features = freshet().args(["features", "get", "ride_features", "--address", &running.flight]).args(keys).output().unwrap();
    let shown = text(&features.stdout);
    assert!(features.status.success(), "{}", all(&features));
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["rides_1h", "2", "PRESENT"])), "{shown}");
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["rides_1h", "NULL", "NOT_FOUND"])), "{shown}");
    assert!(shown.contains("mode fresh, q 1735730100001 (2025-01-01T11:15:00.001Z)"), "{shown}");
}

#[test]
fn a_client_without_server_says_where_it_looked() {
    let output = freshet().args(["sql", "--address", "grpc://127.0.0.1:1", "SELECT 1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing answers at grpc://127.0.0.1:1"), "{}", all(&output));
}
