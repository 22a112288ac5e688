//! WITH options of a webhook as typed values.

use std::path::PathBuf;
use std::time::Duration;

use freshet_core::{Encode, Format, OptionError, SinkDef};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::encode;
use crate::options::{self, wrong};
use crate::reject::{ON_REJECT, Rejects};
use crate::tls::TlsFiles;

const OPTIONS: [&str; 8] = ["url", "batch", "secret", "timeout", "tls.ca", ON_REJECT, "primary_key", SCOPE];
/// What tells the idempotency keys of this pipeline from those of others that post to the same receiver.
pub const SCOPE: &str = "idempotency_scope";
const HEADER: &str = "header.";
/// Rows of one request, at most.
const BATCH_ROWS_MAX: usize = 10_000;
/// From the first byte sent to the last one received.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Set by us.
const OUR_HEADERS: [&str; 6] = ["content-type", "content-length", "host", "idempotency-key", "x-freshet-epoch", "x-freshet-signature"];

#[derive(Debug, Clone)]
pub struct WebhookSettings {
    pub url: Url,
    /// Rows of one request; 1: a request per row, whose body is the row.
    pub batch_rows: usize,
    pub secret: Option<Vec<u8>>,
    pub timeout: Duration,
    pub headers: HeaderMap,
    /// Part of every idempotency key.
    pub scope: String,
    pub tls: TlsFiles,
    pub rejects: Rejects,
}

impl WebhookSettings {
    pub fn parse(def: &SinkDef) -> Result<WebhookSettings, OptionError> {
        let text = options::required("webhook", &def.options, "url", "where to POST: 'https://host/path'")?;
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| wrong("url", format!("url is 'https://host/path' or 'http://host/path', found '{text}'")))?;
        let batch_rows = match def.options.get("batch").map(|text| (text, text.parse::<usize>())) {
            None => 1,
            Some((_, Ok(rows))) if (1..=BATCH_ROWS_MAX).contains(&rows) => rows,
            Some((text, _)) => return Err(wrong("batch", format!("batch is a number of rows from 1 to {BATCH_ROWS_MAX}, found '{text}'"))),
        };
        if batch_rows > 1 && def.encode != Encode::Json {
            return Err(wrong("batch", "several rows are one JSON array; use ENCODE JSON, or leave out batch"));
        }
        if def.format == Format::Upsert && def.encode != Encode::Json {
            return Err(OptionError {
                option: None,
                message: "a webhook writes FORMAT UPSERT with ENCODE JSON only, so that a deletion can be told".into(),
            });
        }
        let timeout = options::duration(&def.options, "timeout", TIMEOUT)?;
        if timeout.is_zero() {
            return Err(wrong("timeout", "timeout is longer than nothing"));
        }
        let secret = match def.options.get("secret") {
            Some(secret) if secret.is_empty() => return Err(wrong("secret", "secret is empty; leave it out, or give it a value")),
            secret => secret.map(|secret| secret.as_bytes().to_vec()),
        };
        let scope = match def.options.get(SCOPE) {
            Some(scope) if scope.is_empty() => return Err(wrong(SCOPE, "idempotency_scope is empty; leave it out, or give it a name")),
            scope => scope.cloned().unwrap_or_default(),
        };
        Ok(WebhookSettings {
            url,
            batch_rows,
            secret,
            timeout,
            headers: headers(def)?,
            scope,
            tls: TlsFiles { ca: def.options.get("tls.ca").map(PathBuf::from), client: None },
            rejects: Rejects::parse(&def.name, &def.options)?,
        })
    }
}

/// Options `header.NAME`.
fn headers(def: &SinkDef) -> Result<HeaderMap, OptionError> {
    let mut headers = HeaderMap::new();
    for (option, value) in &def.options {
        let Some(name) = option.strip_prefix(HEADER) else { continue };
        if OUR_HEADERS.contains(&name) {
            return Err(wrong(option, format!("the header {name} is set by the sink itself")));
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(option, format!("'{name}' is no name of a header")))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong(option, format!("the value of {name} cannot stand in a header")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    let known = [&OPTIONS[..], &encode::sink_options(def.format, def.encode)].concat();
    options::check_names("webhook", def.options.keys().filter(|name| !name.starts_with(HEADER)), &known)?;
    WebhookSettings::parse(def)?;
    encode::check_sink(def)
}
