//! One request to the server's HTTP. In: method, path, JSON. Out: JSON, or the server's own sentence with the exit code it deserves.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::exit::Failure;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A pipeline is given 10 s to end before it is dropped, a script a minute to compile.
const ANSWER_MAX: Duration = Duration::from_secs(75);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a server listens: `http://host:port` or `host:port`.
pub struct HttpClient {
    address: String,
}

impl HttpClient {
    pub fn new(server: &str) -> Result<HttpClient, Failure> {
        let address = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
        if address.contains("://") || !address.contains(':') {
            return Err(Failure::wrong(anyhow!("server {server} is not understood; write http://host:port")));
        }
        Ok(HttpClient { address: address.to_string() })
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::DELETE, path, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let absent = || Failure::failed(anyhow!("nothing answers at http://{}; is `freshet serve` up, and is this its HTTP address?", self.address));
        let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(&self.address)).await.map_err(|_| absent())?.map_err(|_| absent())?;
        let exchange = tokio::time::timeout(ANSWER_MAX, self.exchange(stream, method, path, body)).await;
        let (status, bytes) = exchange.with_context(|| format!("{} did not answer within {} s", self.address, ANSWER_MAX.as_secs()))??;
        let answer: Value = serde_json::from_slice(&bytes).with_context(|| format!("{} does not answer as a freshet server does", self.address))?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["error"]["message"].as_str().unwrap_or("no reason given").to_string();
        let error = anyhow!(message);
        Err(if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS { Failure::wrong(error) } else { Failure::failed(error) })
    }

    async fn exchange(&self, stream: TcpStream, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speaking HTTP")?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, &self.address);
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(serde_json::to_vec(body)?)),
            None => request.body(Body::empty()),
        };
        let response = sender.send_request(request.context("making a request")?).await.context("waiting for an answer")?;
        let status = response.status();
        let bytes = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await.context("reading the answer")?;
        Ok((status, bytes.to_vec()))
    }
}
