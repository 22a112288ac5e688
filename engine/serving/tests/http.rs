use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::moving::{Running, start};

pub async fn get(running: &Running, path: &str) -> (u16, String) {
    let (head, body) = send(&running.http, &format!("GET {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n"), &[]).await;
    (status(&head), body)
}

/// Head and body of the answer.
pub async fn post(running: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (String, String) {
    post_to(&running.http, path, headers, body).await
}

pub async fn post_to(http: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (String, String) {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    send(http, &head, body).await
}

pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn send(http: &str, head: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_turns_from_503_with_a_reason_to_200() {
    let running = start().await;
    let (code, body) = get(&running, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("view counts has no complete epoch yet"), "{body}");
    assert_eq!(get(&running, "/healthz").await.0, 200);
    running.reader.advance(10, &[("a", 1)]);
    assert_eq!(get(&running, "/readyz").await.0, 200);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_listeners() {
    let running = start().await;
    assert_eq!(get(&running, "/v1/status").await.0, 200);
    let address = running.http.clone();
    running.server.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_much_still_gets_the_answer() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1)]);
    for (path, code) in [("/get-online-features", 413), ("/nowhere", 404), ("/healthz", 405), ("/v1/ingest/taxis", 404)] {
        // More than the buffers of both sockets hold.
        for size in [5 << 20, 20 << 20] {
            let (head, body) = post(&running, path, &[], &vec![b' '; size]).await;
            assert_eq!(status(&head), code, "{path}: {body}");
        }
    }
    running.server.shutdown().await;
}
