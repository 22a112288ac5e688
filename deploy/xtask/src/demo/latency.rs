//! How fast the server answers. In: its HTTP address and a lookup. Out: latencies at a fixed rate over one kept connection, from the scheduled
//! sending on, whether or not the last answer had come (open loop); beside them how late a 1 ms timer fires on this machine just now.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

const LOOKUPS: u32 = 1_000;
const PER_SECOND: u32 = 200;
const TIMER: Duration = Duration::from_millis(1);
/// A local server that has not answered by then is not well.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What was measured, each ascending.
pub struct Latencies {
    pub lookups: Vec<Duration>,
    pub timer: Vec<Duration>,
}

impl Latencies {
    /// Posts the lookup 200 times a second for five seconds. Errors: the server is gone, or answers anything but 200.
    pub fn measure(address: SocketAddr, path: &str, json: &str) -> Result<Latencies> {
        let mut connection = Connection::open(address)?;
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}", json.len());
        // The first answer pays for what is set up once.
        connection.ask(&request)?;
        let begin = Instant::now();
        let end = begin + Duration::from_secs(1) * LOOKUPS / PER_SECOND;
        let timer = std::thread::spawn(move || lateness(end));
        let mut lookups = Vec::new();
        for number in 0..LOOKUPS {
            let scheduled = begin + Duration::from_secs(1) * number / PER_SECOND;
            wait_until(scheduled);
            connection.ask(&request)?;
            lookups.push(scheduled.elapsed());
        }
        let mut timer = timer.join().map_err(|_| anyhow!("the timer failed"))?;
        lookups.sort();
        timer.sort();
        Ok(Latencies { lookups, timer })
    }

    /// `lookups  p50 0.21 ms, p99 0.60 ms, …` in one line.
    pub fn line(&self) -> String {
        let ms = |times: &[Duration], share| percentile(times, share).as_secs_f64() * 1e3;
        format!(
            "p50 {:.2} ms, p99 {:.2} ms over HTTP after the replay, {PER_SECOND} a second; a {} ms timer beside it fires {:.2} ms late at its p99",
            ms(&self.lookups, 0.5),
            ms(&self.lookups, 0.99),
            TIMER.as_millis(),
            ms(&self.timer, 0.99)
        )
    }
}

/// The least value that so many are not above. `ascending` is not empty.
fn percentile(ascending: &[Duration], share: f64) -> Duration {
    let rank = (ascending.len() as f64 * share).ceil() as usize;
    ascending[rank.clamp(1, ascending.len()) - 1]
}

/// How late a thread wakes that wants to wake every millisecond: what this machine does to any latency just now.
fn lateness(end: Instant) -> Vec<Duration> {
    let mut late = Vec::new();
    while late.is_empty() || Instant::now() < end {
        let wanted = Instant::now() + TIMER;
        wait_until(wanted);
        late.push(wanted.elapsed());
    }
    late
}

fn wait_until(instant: Instant) {
    while let Some(left) = instant.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// An HTTP connection that stays open.
struct Connection {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_WAIT_MAX).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        // Otherwise the system waits for more to send.
        stream.set_nodelay(true)?;
        Ok(Connection { answers: BufReader::new(stream.try_clone()?), stream })
    }

    /// Sends and reads one answer to its end.
    fn ask(&mut self, request: &str) -> Result<()> {
        self.stream.write_all(request.as_bytes()).context("sending a lookup")?;
        let length = answer_length(&mut self.answers)?;
        let read = std::io::copy(&mut (&mut self.answers).take(length), &mut std::io::sink())?;
        ensure!(read == length, "an answer is cut short");
        Ok(())
    }
}

/// Reads the header of an answer. Out: how long its body is.
fn answer_length(answers: &mut impl BufRead) -> Result<u64> {
    let (mut line, mut length) = (String::new(), None);
    answers.read_line(&mut line).context("reading an answer")?;
    ensure!(line.starts_with("HTTP/1.1 200"), "a lookup was answered with {}", line.trim());
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            return length.context("an answer does not say how long it is");
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse().context("reading the length of an answer")?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(100));
        assert_eq!(percentile(&times, 0.99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 0.99), Duration::from_millis(1));
        let line = Latencies { lookups: times.clone(), timer: times }.line();
        assert!(line.starts_with("p50 100.00 ms, p99 198.00 ms"), "{line}");
    }

    #[test]
    fn answers_are_measured_by_their_header() {
        let length = |text: &str| answer_length(&mut text.as_bytes());
        assert_eq!(length("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").unwrap(), 12);
        assert!(length("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(format!("{:#}", length("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err()).contains("503"));
    }
}
