//! The webhook sink. In: changes. Out: requests, one after the other, each until it has been answered; the position is how many rows were.

use std::time::{Duration, Instant};

use freshet_core::{Batch, Encode, Epoch, Error, Result, Sink, SinkDef};

use super::body::{Body, BodyEncoder};
use super::client::{Outcome, WebhookClient};
use super::settings::WebhookSettings;
use crate::encode::RecordEncoder;

/// How long one write goes on trying before the engine hears that the receiver is away.
const WRITE_WAIT: Duration = Duration::from_secs(4);
/// Between two tries, at first and at most; Retry-After may ask for more.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

pub struct WebhookSink {
    name: String,
    settings: WebhookSettings,
    content_type: &'static str,
    encoder: BodyEncoder,
    /// Built by the first request, on the thread that sends.
    client: Option<WebhookClient>,
    /// What a write has left over: the engine brings the same changes again.
    unsent: Option<Unsent>,
    pause: Duration,
    not_before: Option<Instant>,
    rows: u64,
}

/// A write that is not done.
struct Unsent {
    /// Of its changes: the first epoch and the count.
    changes: (Epoch, usize),
    bodies: Vec<Body>,
    done: usize,
}

impl WebhookSink {
    /// Nothing is sent yet. Errors: Invalid, naming the sink.
    pub fn open(def: &SinkDef) -> Result<WebhookSink> {
        let settings = WebhookSettings::parse(def).map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        if settings.url.scheme() == "https" {
            settings.tls.client_config().map_err(|error| Error::invalid(format!("sink {}: {}", def.name, error.message)))?;
        }
        let text_keys = match def.options.get("key.encode").map(|text| text.to_ascii_lowercase()) {
            None => def.key.len() == 1,
            Some(encode) => encode == "text",
        };
        let encoder = BodyEncoder {
            scope: settings.scope.clone(),
            sink: def.name.clone(),
            format: def.format,
            json_keys: !text_keys,
            batch_rows: settings.batch_rows,
            records: RecordEncoder::open(def)?,
        };
        let content_type = match def.encode {
            Encode::Json => "application/json",
            Encode::Csv => "text/csv",
            Encode::Avro => "application/avro",
            Encode::Protobuf => "application/protobuf",
            Encode::Parquet | Encode::Bytes => "application/octet-stream",
        };
        Ok(WebhookSink {
            name: def.name.clone(),
            settings,
            content_type,
            encoder,
            client: None,
            unsent: None,
            pause: PAUSE_MIN,
            not_before: None,
            rows: 0,
        })
    }

    /// Delivers what is left. Errors: Unavailable, and the rest is left; Data for a body that is rejected.
    fn deliver(&mut self, unsent: &mut Unsent) -> Result<()> {
        let deadline = Instant::now() + WRITE_WAIT;
        while let Some(body) = unsent.bodies.get(unsent.done) {
            match self.post(body, deadline)? {
                Outcome::Delivered => {}
                Outcome::Rejected(reason) => {
                    let rows = body.rows;
                    let what =
                        if rows == 1 { format!("a row of epoch {}", body.epoch) } else { format!("a batch of {rows} rows of epoch {}", body.epoch) };
                    self.settings.rejects.reject(&what, &format!("{} {reason}", self.settings.url))?;
                }
                Outcome::Later(reason, after) => {
                    let pause = after.unwrap_or(self.pause);
                    self.not_before = Some(Instant::now() + pause);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                    if Instant::now() + pause > deadline {
                        return Err(self.away(&reason, unsent));
                    }
                    continue;
                }
            }
            self.rows += body.rows;
            (self.pause, self.not_before) = (PAUSE_MIN, None);
            unsent.done += 1;
        }
        Ok(())
    }

    /// Waits until it may be tried, at most to the deadline.
    fn post(&mut self, body: &Body, deadline: Instant) -> Result<Outcome> {
        if let Some(not_before) = self.not_before {
            let until = not_before.min(deadline);
            while Instant::now() < until {
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            if Instant::now() < not_before {
                let left = not_before.saturating_duration_since(Instant::now());
                return Ok(Outcome::Later(format!("it asked to be left alone for another {} s", left.as_secs() + 1), Some(left)));
            }
        }
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(WebhookClient::open(&self.settings)?),
        };
        Ok(client.post(&self.settings, self.content_type, body))
    }

    fn away(&self, reason: &str, unsent: &Unsent) -> Error {
        let waiting = unsent.bodies.len() - unsent.done;
        Error::unavailable(format!("sink {}: {}: {reason}; {waiting} requests wait", self.name, self.settings.url))
    }
}

impl Sink for WebhookSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let identity = (changes.epoch(0), changes.len());
        let mut unsent = match self.unsent.take().filter(|unsent| unsent.changes == identity) {
            Some(unsent) => unsent,
            None => Unsent { changes: identity, bodies: self.encoder.encode(changes)?, done: 0 },
        };
        let result = self.deliver(&mut unsent);
        if result.is_err() {
            self.unsent = Some(unsent);
        }
        result
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        Ok(self.rows)
    }

    /// What was sent cannot be taken back: after a crash the requests behind the position come again, with the same idempotency keys.
    fn restore(&mut self, position: u64) -> Result<()> {
        self.rows = position;
        Ok(())
    }
}
