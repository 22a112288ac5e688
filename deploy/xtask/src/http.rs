//! One HTTP request to a server on this machine. In: address and path. Out: status and body; each call waits a bounded time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// A local server that has not answered by then is not well.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Status and body of an answer.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

fn request(address: SocketAddr, text: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT_MAX).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.write_all(text.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("reading the answer of {address}"))?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of its header")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("the answer has no status")?;
    let chunked = head.lines().any(|line| line.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked");
    let body = if chunked { unchunked(body)? } else { body.to_string() };
    Ok(Answer { status, body })
}

fn unchunked(mut text: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").context("a chunk has no size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("reading a chunk's size")?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..size).context("a chunk is cut short")?);
        text = rest[size..].trim_start_matches("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let plain = parse("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "no"));
        let chunked = parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n").unwrap();
        assert_eq!((chunked.status, chunked.body.as_str()), (200, "abcd"));
        assert!(parse("garbage").is_err());
    }
}
