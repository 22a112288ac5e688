//! One request to a registry of the Confluent kind. In: an id or a schema. Out: a schema or its id. Blocks; never on a thread that polls.

use std::sync::Arc;
use std::time::Duration;

use freshet_core::{Error, Result};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::{RegisteredSchema, RegistryOptions, SchemaKind};

/// A registry answers from memory; one that takes longer is as good as away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer schemas are refused: 4 MiB is far above what registries take.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// How deep schemas may import each other.
const REFERENCE_DEPTH_MAX: usize = 16;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Where a sink's schema is kept, as TopicNameStrategy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    Key(&'a str),
    Value(&'a str),
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Key(topic) => write!(f, "{topic}-key"),
            Subject::Value(topic) => write!(f, "{topic}-value"),
        }
    }
}

pub struct RegistryClient {
    options: RegistryOptions,
    client: Client,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Serialize)]
struct Registration<'a> {
    schema: &'a str,
    /// Left out for Avro, which is what registries take for granted.
    #[serde(rename = "schemaType", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    message: String,
    #[serde(default)]
    error_code: u32,
}

/// Codes by which registries say that they have no such subject, version or schema. A 404 without one is of something else at the address.
const UNKNOWN_CODES: std::ops::Range<u32> = 40_400..40_500;

impl RegistryClient {
    /// Errors: Internal if no client can be built.
    pub fn new(options: RegistryOptions) -> Result<RegistryClient> {
        // Both fail only if a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build();
        let client = client.map_err(|error| Error::internal(format!("cannot build an HTTP client: {error}")))?;
        Ok(RegistryClient { options, client })
    }

    /// Errors: Data if the registry has no such schema, Unavailable if it cannot be asked now, Invalid if it refuses us.
    pub fn schema(&self, id: u32) -> Result<RegisteredSchema> {
        let answer = self.ask(self.client.get(format!("{}/schemas/ids/{id}", self.options.url)), &format!("schema {id}"))?;
        self.read_schema(&answer, 0)
    }

    /// The id of this schema, new or not. Errors: Unavailable if the registry cannot be asked now, Invalid if it refuses the schema.
    pub fn register(&self, subject: Subject, kind: SchemaKind, schema: &str) -> Result<u32> {
        let url = format!("{}/subjects/{}/versions", self.options.url, escaped(&subject.to_string()));
        let registration = Registration { schema, kind: (kind != SchemaKind::Avro).then_some(kind.name()) };
        let body = serde_json::to_string(&registration).map_err(|error| Error::internal(error.to_string()))?;
        let answer = self.ask(self.client.post(url).header("Content-Type", CONTENT_TYPE).body(body), &format!("subject {subject}"))?;
        let answer: IdAnswer = serde_json::from_str(&answer).map_err(|error| self.not_understood(&error))?;
        Ok(answer.id)
    }

    fn read_schema(&self, answer: &str, depth: usize) -> Result<RegisteredSchema> {
        let answer: SchemaAnswer = serde_json::from_str(answer).map_err(|error| self.not_understood(&error))?;
        let kind = match answer.kind.as_deref() {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some("JSON") => SchemaKind::Json,
            Some(other) => return Err(Error::data(format!("the registry at {} has a schema of kind {other}, which is unknown", self.options.url))),
        };
        if depth > REFERENCE_DEPTH_MAX {
            return Err(Error::data(format!("schemas import each other more than {REFERENCE_DEPTH_MAX} deep")));
        }
        let mut references = Vec::new();
        for Reference { name, subject, version } in answer.references {
            let url = format!("{}/subjects/{}/versions/{version}", self.options.url, escaped(&subject));
            let answer = self.ask(self.client.get(url), &format!("subject {subject} version {version}"))?;
            references.push((name, Arc::new(self.read_schema(&answer, depth + 1)?)));
        }
        Ok(RegisteredSchema { kind, text: answer.schema, references })
    }

    fn ask(&self, request: RequestBuilder, what: &str) -> Result<String> {
        let url = &self.options.url;
        let request = request.header("Accept", CONTENT_TYPE);
        let request = match &self.options.login {
            Some((username, password)) => request.basic_auth(username, Some(password)),
            None => request,
        };
        let away = |error: &dyn std::error::Error| Error::unavailable(format!("the schema registry at {url} does not answer: {}", root(error)));
        let response = request.send().map_err(|error| away(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        let read = std::io::Read::read_to_end(&mut std::io::Read::take(response, ANSWER_BYTES_MAX), &mut body);
        read.map_err(|error| away(&error))?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(body);
        }
        let (told, code) = match serde_json::from_str::<ErrorAnswer>(&body) {
            Ok(answer) => (answer.message, answer.error_code),
            Err(_) => (status.to_string(), 0),
        };
        let message = format!("the schema registry at {url} says of {what}: {told}");
        Err(match status {
            StatusCode::NOT_FOUND if UNKNOWN_CODES.contains(&code) => Error::data(message),
            StatusCode::NOT_FOUND => Error::unavailable(format!("{message}; is schema.registry the address of a registry, with its path?")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::invalid(format!("{message}; check schema.registry.username and schema.registry.password"))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Error::unavailable(message),
            status if status.is_server_error() => Error::unavailable(message),
            _ => Error::invalid(message),
        })
    }

    fn not_understood(&self, error: &serde_json::Error) -> Error {
        Error::unavailable(format!("the schema registry at {} gives an answer that cannot be read: {error}", self.options.url))
    }
}

/// The innermost cause says what happened; those around it say that something did.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A subject as part of a path.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
