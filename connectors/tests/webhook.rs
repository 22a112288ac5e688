//! Webhooks against a real HTTP server that fails as told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use freshet_connectors::{BuiltIn, PipelineConnectors};
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, Sink, SinkDef};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::oneshot;

use crate::mqtt_broker::{free_port, until};
use crate::setup::{batch, row, schema};

#[derive(Debug, Clone)]
struct Request {
    headers: HeaderMap,
    body: String,
    at: Instant,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Answers with what it is told, then with 200.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<(u16, Option<&'static str>)>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

struct Server {
    port: u16,
    script: Script,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(answers: &[(u16, Option<&'static str>)]) -> Server {
        Server::start_at(0, answers)
    }

    fn start_at(port: u16, answers: &[(u16, Option<&'static str>)]) -> Server {
        let script = Script { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), ..Script::default() };
        let (stop, stopped) = oneshot::channel();
        let (port_tx, port_rx) = std::sync::mpsc::channel();
        let app = Router::new().route("/hook", post(answer)).with_state(script.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
                port_tx.send(listener.local_addr().unwrap().port()).unwrap();
                tokio::select! {
                    result = axum::serve(listener, app) => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Server { port: port_rx.recv().unwrap(), script, stop: Some(stop), thread: Some(thread) }
    }

    fn requests(&self) -> Vec<Request> {
        self.script.requests.lock().unwrap().clone()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn answer(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> Response {
    script.requests.lock().unwrap().push(Request { headers, body: String::from_utf8(body.to_vec()).unwrap(), at: Instant::now() });
    let next = script.answers.lock().unwrap().pop_front();
    match next {
        None => StatusCode::OK.into_response(),
        Some((status, None)) => (StatusCode::from_u16(status).unwrap(), "as told").into_response(),
        Some((status, Some(after))) => (StatusCode::from_u16(status).unwrap(), [("retry-after", after)], "as told").into_response(),
    }
}

fn sink(url: &str, format: Format, options: &[(&str, &str)]) -> SinkDef {
    let mut all: Vec<(&str, &str)> = vec![("url", url)];
    all.extend(options);
    SinkDef {
        name: "hook".into(),
        node: freshet_core::NodeId(0),
        from: "totals".into(),
        schema: schema(),
        connector: "webhook".into(),
        options: all.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        format,
        encode: Encode::Json,
        key: if format == Format::Upsert { vec![0] } else { Vec::new() },
    }
}

fn open(url: &str, format: Format, options: &[(&str, &str)]) -> Box<dyn Sink> {
    BuiltIn.open_sink(&sink(url, format, options)).unwrap()
}

fn changes(rows: &[(i128, &str, u64, i64)]) -> Batch {
    let values: Vec<_> = rows.iter().map(|(id, name, _, _)| row(*id, Some(name), None, None)).collect();
    let epochs: Vec<u64> = rows.iter().map(|(_, _, epoch, _)| *epoch).collect();
    let diffs: Vec<i64> = rows.iter().map(|(_, _, _, diff)| *diff).collect();
    Batch::new(batch(&values), Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0))
}

#[test]
fn each_row_is_a_request_with_its_epoch_and_signature() {
    let server = Server::start(&[]);
    let mut sink = open(&server.url(), Format::Plain, &[("secret", "s3cret"), ("header.authorization", "Bearer abc")]);
    sink.write(&changes(&[(1, "a", 5, 1), (2, "b", 5, 1), (3, "c", 7, 1)])).unwrap();
    assert_eq!(sink.flush(Epoch(7)).unwrap(), 3);
    let requests = server.requests();
    let bodies: Vec<&str> = requests.iter().map(|request| request.body.as_str()).collect();
    let body = |id: u64, name: &str| format!("{{\"id\":{id},\"name\":\"{name}\",\"at\":null,\"amount\":null}}");
    assert_eq!(bodies, [body(1, "a"), body(2, "b"), body(3, "c")]);
    let epochs: Vec<&str> = requests.iter().map(|request| request.header("x-freshet-epoch")).collect();
    assert_eq!(epochs, ["5", "5", "7"]);
    for request in &requests {
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer abc");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(request.body.as_bytes());
        let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(request.header("x-freshet-signature"), format!("sha256={expected}"));
    }
    let mut keys: Vec<&str> = requests.iter().map(|request| request.header("idempotency-key")).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

#[test]
fn a_batch_is_one_array_and_never_of_two_epochs() {
    let server = Server::start(&[]);
    let mut sink = open(&server.url(), Format::Upsert, &[("batch", "2")]);
    sink.write(&changes(&[(1, "a", 5, 1), (2, "b", 5, 1), (3, "c", 5, 1), (1, "a", 6, -1), (2, "b", 6, -1), (2, "x", 6, 1)])).unwrap();
    let requests = server.requests();
    let bodies: Vec<serde_json::Value> = requests.iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect();
    let value = |id: u64, name: &str| serde_json::json!({"key": id.to_string(), "value": {"id": id, "name": name, "at": null, "amount": null}});
    assert_eq!(bodies[0], serde_json::json!([value(1, "a"), value(2, "b")]));
    assert_eq!(bodies[1], serde_json::json!([value(3, "c")]));
    assert_eq!(bodies[2], serde_json::json!([{"key": "1", "value": null}, value(2, "x")]));
    assert_eq!(requests.len(), 3);
}

#[test]
fn a_server_that_fails_now_and_then_gets_everything_once_and_in_order() {
    let answers = [(503, None), (200, None), (429, Some("1")), (500, None), (200, None), (408, None)];
    let server = Server::start(&answers);
    let mut sink = open(&server.url(), Format::Upsert, &[]);
    let all = changes(&[(1, "a", 5, 1), (2, "b", 5, 1), (3, "c", 5, 1)]);
    until("all are delivered", || match sink.write(&all) {
        Ok(()) => Some(()),
        Err(error) => {
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
            None
        }
    });
    assert_eq!(sink.flush(Epoch(5)).unwrap(), 3);
    let requests = server.requests();
    assert_eq!(requests.len(), 7);
    let ids: Vec<char> = requests.iter().map(|request| request.body.chars().nth(8).unwrap()).collect();
    assert_eq!(ids, ['1', '1', '2', '2', '2', '3', '3'], "what was delivered is not sent again");
    let keys: Vec<&str> = requests.iter().map(|request| request.header("idempotency-key")).collect();
    assert!(keys[0] == keys[1] && keys[2] == keys[4] && keys[1] != keys[2]);
    assert!(requests[3].at - requests[2].at >= Duration::from_millis(990), "Retry-After is honoured");
    // A new run sends the same rows under the same keys.
    let mut again = open(&server.url(), Format::Upsert, &[]);
    again.write(&all).unwrap();
    assert_eq!(server.requests()[7].header("idempotency-key"), keys[0]);
}

#[test]
fn a_server_that_is_away_is_unavailable_and_gets_the_rest_later() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/hook");
    let mut sink = open(&url, Format::Plain, &[]);
    let all = changes(&[(1, "a", 5, 1), (2, "b", 5, 1)]);
    let error = sink.write(&all).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.starts_with(&format!("sink hook: {url}: ")) && error.message.ends_with("2 requests wait"), "{}", error.message);
    let server = Server::start_at(port, &[]);
    until("both are delivered", || sink.write(&all).ok());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn what_is_refused_stops_the_sink_or_is_dropped() {
    let server = Server::start(&[(422, None), (422, None), (302, None)]);
    let all = changes(&[(1, "a", 5, 1), (2, "b", 5, 1)]);
    let error = open(&server.url(), Format::Plain, &[]).write(&all).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("it answers 422 Unprocessable Entity: as told; mend it, or set on_reject = 'drop'"), "{}", error.message);
    let mut lenient = open(&server.url(), Format::Plain, &[("on_reject", "drop")]);
    lenient.write(&all).unwrap();
    lenient.write(&changes(&[(3, "c", 6, 1)])).unwrap();
    assert_eq!(server.requests().len(), 4, "a redirect is no delivery and is not followed");
}

#[test]
fn two_pipelines_with_sinks_of_one_name_post_under_different_keys_and_each_under_its_own_again() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let post = |pipeline: &str, options: &[(&str, &str)]| {
        let connectors = PipelineConnectors::new(Some(&folder.path().join(pipeline)));
        let mut out = connectors.open_sink(&sink(&server.url(), Format::Upsert, options)).unwrap();
        out.write(&changes(&[(1, "a", 5, 1)])).unwrap();
        server.requests().last().unwrap().header("idempotency-key").to_string()
    };
    let (first, second) = (post("first", &[]), post("second", &[]));
    assert_ne!(first, second);
    assert_eq!(post("first", &[]), first);
    // A name of its own goes with a pipeline that moves to another place.
    let named = [("idempotency_scope", "orders")];
    assert_eq!(post("first", &named), post("second", &named));
    let refused = BuiltIn.check_sink(&sink("https://h/x", Format::Plain, &[("idempotency_scope", "")])).unwrap_err();
    assert_eq!(refused.message, "idempotency_scope is empty; leave it out, or give it a name");
}

#[test]
fn mistakes_in_a_declaration_name_the_way_out() {
    let refuse = |options: &[(&str, &str)]| BuiltIn.check_sink(&sink("https://h/x", Format::Plain, options)).unwrap_err();
    assert_eq!(refuse(&[("batch", "0")]).message, "batch is a number of rows from 1 to 10000, found '0'");
    assert_eq!(refuse(&[("url", "h/x")]).option.as_deref(), Some("url"));
    assert_eq!(refuse(&[("timeout", "0s")]).option.as_deref(), Some("timeout"));
    assert_eq!(refuse(&[("header.idempotency-key", "x")]).message, "the header idempotency-key is set by the sink itself");
    assert_eq!(refuse(&[("secrets", "x")]).message, "the webhook connector has no option secrets; did you mean secret?");
    assert!(BuiltIn.check_sink(&sink("https://h/x", Format::Plain, &[("header.x-trace", "1")])).is_ok());
}
