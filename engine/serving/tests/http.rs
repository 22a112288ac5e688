use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::moving::{Running, start};

async fn get(running: &Running, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&running.http).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
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
