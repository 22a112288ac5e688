//! One POST and what its answer means. In: a body. Out: delivered, rejected for good, or to be tried again.

use std::error::Error as _;
use std::time::Duration;

use freshet_core::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use sha2::Sha256;

use super::body::{Body, hex};
use super::settings::WebhookSettings;
use crate::tls;

/// The longest pause that Retry-After may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Of an answer, what is told.
const ANSWER_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// The other side will never take it.
    Rejected(String),
    /// Later, and if it said so, not before this.
    Later(String, Option<Duration>),
}

/// Lives on the sink's thread.
pub struct WebhookClient {
    client: Client,
}

impl WebhookClient {
    pub fn open(settings: &WebhookSettings) -> Result<WebhookClient> {
        let builder = Client::builder()
            .timeout(settings.timeout)
            // A redirected POST may become a GET: the receiver's address is to be mended instead.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("freshet/", env!("CARGO_PKG_VERSION")))
            .default_headers(settings.headers.clone());
        let builder = if settings.url.scheme() == "https" {
            builder.use_preconfigured_tls(settings.tls.client_config()?)
        } else {
            tls::install_provider();
            builder.tls_built_in_root_certs(false)
        };
        let client = builder.build().map_err(|error| Error::internal(format!("the HTTP client cannot be built: {}", chain(&error))))?;
        Ok(WebhookClient { client })
    }

    pub fn post(&self, settings: &WebhookSettings, content_type: &str, body: &Body) -> Outcome {
        let mut request = self
            .client
            .post(settings.url.clone())
            .header(CONTENT_TYPE, content_type)
            .header("Idempotency-Key", &body.idempotency_key)
            .header("X-Freshet-Epoch", body.epoch.0);
        if let Some(secret) = &settings.secret {
            request = request.header("X-Freshet-Signature", signature(secret, &body.bytes));
        }
        match request.body(body.bytes.clone()).send() {
            Ok(response) => outcome(response),
            Err(error) => Outcome::Later(chain(&error), None),
        }
    }
}

/// `sha256=` and the HMAC of the body in hexadecimal digits.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

fn outcome(response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    let patience = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    let later = status.is_server_error() || patience;
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
    let text = response.text().unwrap_or_default();
    let text: String = text.trim().chars().take(ANSWER_CHARS_MAX).collect();
    let reason = if text.is_empty() { format!("it answers {status}") } else { format!("it answers {status}: {text}") };
    if later { Outcome::Later(reason, after) } else { Outcome::Rejected(reason) }
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
            (until.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The library's own sentence says little: its causes do.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
