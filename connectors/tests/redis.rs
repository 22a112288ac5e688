//! Redis sinks against a real server.

use std::process::{Child, Command, Stdio};

use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, Sink, SinkDef};
use redis::{Commands, Connection};
use tempfile::{TempDir, tempdir};

use crate::mqtt_broker::{binary, certificates, free_port, until};
use crate::setup::{batch, row, schema};

struct Server {
    port: u16,
    tls_port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Server {
    fn start() -> Server {
        let mut server = Server { port: free_port(), tls_port: free_port(), folder: tempdir().unwrap(), child: None };
        certificates(server.folder.path());
        server.restart();
        server
    }

    fn restart(&mut self) {
        let folder = self.folder.path().display().to_string();
        let file = |name: &str| format!("{folder}/{name}");
        let child = Command::new(binary("redis-server"))
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir", &folder, "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--requirepass", "right", "--tls-port", &self.tls_port.to_string(), "--tls-auth-clients", "no"])
            .args(["--tls-ca-cert-file", &file("ca.pem"), "--tls-cert-file", &file("server.pem"), "--tls-key-file", &file("server.key")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed; ./dev setup installs it"));
        let mut connection = until("redis answers", || {
            assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "redis-server has ended");
            self.connection()
        });
        let _: String = redis::cmd("PING").query(&mut connection).unwrap();
    }

    fn connection(&self) -> Option<Connection> {
        let client = redis::Client::open(format!("redis://:right@127.0.0.1:{}/", self.port)).unwrap();
        let mut connection = client.get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    fn connect(&self) -> Connection {
        self.connection().unwrap()
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn sink(url: &str, options: &[(&str, &str)]) -> SinkDef {
    let mut all: Vec<(&str, &str)> = vec![("url", url), ("password", "right")];
    all.extend(options);
    SinkDef {
        name: "features".into(),
        node: freshet_core::NodeId(0),
        from: "totals".into(),
        schema: schema(),
        connector: "redis".into(),
        options: all.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        format: Format::Upsert,
        encode: Encode::Json,
        key: vec![0],
    }
}

fn open(url: &str, options: &[(&str, &str)]) -> Box<dyn Sink> {
    BuiltIn.open_sink(&sink(url, options)).unwrap()
}

fn changes(rows: &[(i128, Option<&str>, u64, i64)]) -> Batch {
    let values: Vec<_> = rows.iter().map(|(id, name, _, _)| row(*id, *name, None, Some(0.5))).collect();
    let epochs: Vec<u64> = rows.iter().map(|(_, _, epoch, _)| *epoch).collect();
    let diffs: Vec<i64> = rows.iter().map(|(_, _, _, diff)| *diff).collect();
    Batch::new(batch(&values), Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0))
}

fn fields(connection: &mut Connection, key: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = connection.hgetall::<_, std::collections::HashMap<String, String>>(key).unwrap().into_iter().collect();
    found.sort();
    found
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[test]
fn rows_are_hashes_and_deletions_take_them_away() {
    let server = Server::start();
    let mut sink = open(&server.url(), &[]);
    let mut connection = server.connect();
    sink.write(&changes(&[(1, Some("a"), 5, 1), (2, Some("b"), 5, 1)])).unwrap();
    assert_eq!(fields(&mut connection, "features:1"), pairs(&[("__epoch", "5"), ("amount", "0.5"), ("id", "1"), ("name", "a")]));
    sink.write(&changes(&[(1, Some("a"), 6, -1), (1, None, 6, 1), (2, Some("b"), 6, -1)])).unwrap();
    assert_eq!(fields(&mut connection, "features:1"), pairs(&[("__epoch", "6"), ("amount", "0.5"), ("id", "1")]));
    assert!(!connection.exists::<_, bool>("features:2").unwrap());
    assert_eq!(sink.flush(Epoch(6)).unwrap(), 4);
}

#[test]
fn rows_are_json_texts_with_a_lifetime_under_keys_of_a_template() {
    let server = Server::start();
    let mut sink = open(&server.url(), &[("value", "json"), ("key", "row:{id}:x"), ("ttl", "1h")]);
    let mut connection = server.connect();
    sink.write(&changes(&[(1, Some("a"), 5, 1)])).unwrap();
    let text: String = connection.get("row:1:x").unwrap();
    assert_eq!(text, r#"{"__epoch":5,"id":1,"name":"a","at":null,"amount":0.5}"#);
    let left: i64 = connection.ttl("row:1:x").unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
    sink.write(&changes(&[(1, Some("old"), 4, 1)])).unwrap();
    assert_eq!(connection.get::<_, String>("row:1:x").unwrap(), text);
}

#[test]
fn an_older_epoch_never_overwrites_a_newer_one() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut sink = open(&server.url(), &[]);
    sink.write(&changes(&[(1, Some("new"), 9, 1)])).unwrap();
    let mut straggler = open(&server.url(), &[]);
    straggler.write(&changes(&[(1, Some("old"), 8, 1), (1, Some("old"), 8, -1)])).unwrap();
    straggler.write(&changes(&[(1, Some("old"), 7, -1)])).unwrap();
    assert_eq!(connection.hget::<_, _, String>("features:1", "name").unwrap(), "new");
    straggler.write(&changes(&[(1, Some("again"), 9, 1)])).unwrap();
    assert_eq!(connection.hget::<_, _, String>("features:1", "name").unwrap(), "again", "the same epoch may come again");
}

#[test]
fn a_server_that_is_killed_gets_the_rest_when_it_is_back() {
    let mut server = Server::start();
    let mut sink = open(&server.url(), &[]);
    let rows: Vec<_> = (0..2000).map(|id| (id, Some("a"), 5, 1)).collect();
    sink.write(&changes(&rows)).unwrap();
    server.kill();
    let later: Vec<_> = (1000..3000).map(|id| (id, Some("b"), 6, 1)).collect();
    let error = sink.write(&changes(&later)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.starts_with(&format!("sink features: 127.0.0.1:{}: ", server.port)), "{}", error.message);
    server.restart();
    sink.write(&changes(&later)).unwrap();
    let mut connection = server.connect();
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap(), 3000);
    assert_eq!(connection.hget::<_, _, String>("features:999", "name").unwrap(), "a");
    assert_eq!(connection.hget::<_, _, String>("features:1000", "name").unwrap(), "b");
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection).unwrap();
    sink.write(&changes(&[(7, Some("c"), 7, 1)])).unwrap();
    assert_eq!(connection.hget::<_, _, String>("features:7", "name").unwrap(), "c", "a forgotten script is told again");
}

#[test]
fn passwords_are_checked_and_tls_trusts_its_own_authority() {
    let server = Server::start();
    let error = open(&server.url(), &[("password", "wrong")]).write(&changes(&[(1, None, 5, 1)])).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.to_lowercase().contains("password"), "{}", error.message);
    let url = format!("rediss://localhost:{}/0", server.tls_port);
    let ca = server.folder.path().join("ca.pem").display().to_string();
    open(&url, &[("tls.ca", &ca)]).write(&changes(&[(1, Some("a"), 5, 1)])).unwrap();
    assert!(server.connect().exists::<_, bool>("features:1").unwrap());
    assert_eq!(open(&url, &[]).write(&changes(&[(2, None, 5, 1)])).unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn a_key_that_holds_something_else_stops_the_sink_or_is_dropped() {
    let server = Server::start();
    let mut connection = server.connect();
    let _: () = connection.rpush("features:1", "x").unwrap();
    let both = changes(&[(1, Some("a"), 5, 1), (2, Some("b"), 5, 1)]);
    let error = open(&server.url(), &[]).write(&both).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("the key features:1 cannot be delivered") && error.message.contains("list"), "{}", error.message);
    open(&server.url(), &[("on_reject", "drop")]).write(&both).unwrap();
    assert!(connection.exists::<_, bool>("features:2").unwrap());
}

#[test]
fn mistakes_in_a_declaration_name_the_way_out() {
    let refuse = |change: &dyn Fn(&mut SinkDef)| {
        let mut def = sink("redis://h", &[]);
        change(&mut def);
        BuiltIn.check_sink(&def).unwrap_err().message
    };
    let option = |def: &mut SinkDef, name: &str, value: &str| _ = def.options.insert(name.into(), value.into());
    assert!(refuse(&|def| def.format = Format::Plain).contains("use FORMAT UPSERT ENCODE JSON with primary_key"));
    assert!(refuse(&|def| option(def, "url", "http://h")).starts_with("url is 'redis://host:6379/0'"));
    assert!(refuse(&|def| option(def, "key", "{name}:{id}")).contains("key has name"));
    assert!(refuse(&|def| option(def, "key", "fixed")).contains("rows that differ in id would share a key"));
    assert!(refuse(&|def| option(def, "value", "text")).starts_with("value is 'hash' or 'json'"));
    let touching = refuse(&|def| {
        def.key = vec![0, 1];
        option(def, "key", "{id}{name}");
    });
    assert!(touching.contains("put a character between them"), "{touching}");
}
