//! `POST /v1/ingest/{source}`: rows by HTTP. In: JSON lines, a JSON array, CSV, an Arrow stream, or one record in the source's own encoding,
//! perhaps gzipped, perhaps signed. Out: the position behind them; 429 while the queue is full.

use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use flate2::read::MultiGzDecoder;
use freshet_core::{Encode, Error, Ingress, Kind, Push, PushBody, PushSource, Pushed};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::Semaphore;

use crate::error::HttpError;
use crate::foreign::{check_lengths, read_foreign};
use crate::http::HttpState;
use crate::http::lines::lines_of_json;
use crate::limits::{INGEST_BODY_BYTES_MAX, INGEST_INLINE_BYTES_MAX, INGEST_REQUESTS_CONCURRENT_MAX, INGEST_RETRY_AFTER_SECONDS};
use crate::pushing::pushed_json;
use crate::replaying::from_hexadecimal;

/// The client's name of its rows; a repeat is answered like the first and changes nothing. The second is the usual word for it.
const ID_HEADERS: [&str; 2] = ["x-freshet-batch-id", "idempotency-key"];
/// `sha256=` and the HMAC-SHA256 of the body as sent, in hexadecimal.
const SIGNATURE_HEADER: &str = "x-freshet-signature";

const TYPES: &str = "application/x-ndjson, application/json, text/csv, application/vnd.apache.arrow.stream, \
                     application/octet-stream for one record in the source's ENCODE";

/// At most so many bodies in memory at once.
pub async fn bounded_bodies(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Result<Response, HttpError> {
    let Ok(_permit) = permits.try_acquire() else {
        return Err(busy(format!("{INGEST_REQUESTS_CONCURRENT_MAX} pushes are in work already; try again")));
    };
    Ok(next.run(request).await)
}

pub async fn ingest(
    State(state): State<HttpState>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, HttpError> {
    let (ingress, source) = state.doors.open(&source).map_err(|error| match error.kind {
        Kind::Invalid => HttpError::new(StatusCode::NOT_FOUND, "invalid", error.message),
        _ => error.into(),
    })?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => HttpError::new(status, "invalid", rejection.body_text()),
    })?;
    check_signature(&source, &headers, &body)?;
    let push = Posted { source, id: id_of(&headers)?, form: Form::of(&headers)?, gzip: is_gzip(&headers)?, body };
    let name = push.source.name.clone();
    let pushed = if push.body.len() <= INGEST_INLINE_BYTES_MAX && !push.gzip {
        push.run(ingress.as_ref())?
    } else {
        // Decoding takes CPU time: the connection's task must not be held by it.
        let running = tokio::task::spawn_blocking(move || push.run(ingress.as_ref()));
        running.await.map_err(|error| Error::internal(format!("a push did not end: {error}")))??
    };
    Ok(Json(pushed_json(&name, &pushed)))
}

/// A request that has passed the checks of its head.
struct Posted {
    source: PushSource,
    id: Option<String>,
    form: Form,
    gzip: bool,
    body: Bytes,
}

impl Posted {
    fn run(self, ingress: &dyn Ingress) -> Result<Pushed, HttpError> {
        let bytes = if self.gzip { unpacked(&self.body)? } else { self.body.to_vec() };
        let invalid = |reason: String| Error::invalid(format!("source {}: {reason}", self.source.name));
        let body = match self.form {
            Form::Lines => PushBody::Bytes(Encode::Json, bytes),
            Form::Json => PushBody::Bytes(Encode::Json, lines_of_json(&bytes).map_err(invalid)?),
            Form::Csv => PushBody::Bytes(Encode::Csv, bytes),
            Form::Arrow => PushBody::Rows(arrow_rows(&bytes).map_err(invalid)?),
            Form::Record => PushBody::Bytes(self.source.encode, bytes),
        };
        ingress.push(Push { source: self.source.name, id: self.id, body }).map_err(|error| match error.kind {
            Kind::Unavailable => busy(error.message),
            _ => error.into(),
        })
    }
}

/// How the body reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    /// An array of objects, or one object.
    Json,
    Csv,
    Arrow,
    Record,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Form, HttpError> {
        let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(Form::Lines),
            "application/json" => Ok(Form::Json),
            "text/csv" => Ok(Form::Csv),
            "application/vnd.apache.arrow.stream" => Ok(Form::Arrow),
            "application/octet-stream" | "application/x-protobuf" | "application/protobuf" | "application/avro" | "avro/binary" => Ok(Form::Record),
            _ => {
                let message = format!("the content type {given:?} is not understood; send {TYPES}");
                Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", message))
            }
        }
    }
}

fn busy(message: String) -> HttpError {
    let error = HttpError::new(StatusCode::TOO_MANY_REQUESTS, "unavailable", message);
    HttpError { retry_after: Some(INGEST_RETRY_AFTER_SECONDS), ..error }
}

fn too_large() -> HttpError {
    let message = format!("a push has at most {INGEST_BODY_BYTES_MAX} bytes, also unpacked; split it");
    HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid", message)
}

fn id_of(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    let Some((name, value)) = ID_HEADERS.iter().find_map(|name| headers.get(*name).map(|value| (name, value))) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::invalid(format!("the header {name} is no text")))?;
    Ok(Some(text.to_string()))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, HttpError> {
    match headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "identity") => Ok(false),
        Some("gzip" | "x-gzip") => Ok(true),
        Some(other) => {
            let message = format!("the content encoding {other:?} is not understood; send gzip or none");
            Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", message))
        }
    }
}

/// Compares in constant time, over the body as it came.
fn check_signature(source: &PushSource, headers: &HeaderMap, body: &[u8]) -> Result<(), HttpError> {
    let Some(secret) = &source.secret else { return Ok(()) };
    let refuse = |what: &str| {
        let message = format!("source {}: {what}; {SIGNATURE_HEADER} is sha256=<HMAC-SHA256 of the body by its secret, in hexadecimal>", source.name);
        HttpError::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    };
    let given = headers.get(SIGNATURE_HEADER).ok_or_else(|| refuse("the signature is missing"))?;
    let given = given.to_str().ok().and_then(|text| text.trim().strip_prefix("sha256=")).and_then(from_hexadecimal);
    let given = given.ok_or_else(|| refuse("the signature cannot be read"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|error| Error::internal(format!("HMAC: {error}")))?;
    mac.update(body);
    mac.verify_slice(&given).map_err(|_| refuse("the signature does not fit the body"))
}

/// Stops at the limit of a body: a small one may unpack to any size.
fn unpacked(body: &[u8]) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(body).take(INGEST_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::invalid(format!("the body is not gzip: {error}")))?;
    if bytes.len() > INGEST_BODY_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

/// All batches of the stream as one: a push enters whole.
fn arrow_rows(bytes: &[u8]) -> Result<RecordBatch, String> {
    let read = || {
        let reader = StreamReader::try_new(bytes, None)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?;
        concat_batches(&schema, &batches)
    };
    let broken = |error: &dyn std::fmt::Display| format!("the body is not an Arrow IPC stream: {error}");
    check_lengths(bytes).map_err(|error| broken(&error))?;
    read_foreign(read).map_err(|error| broken(&error))?.map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::ipc::writer::StreamWriter;
    use axum::http::HeaderValue;

    use super::*;

    fn head(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn content_types_are_read_without_their_parameters() {
        assert_eq!(Form::of(&head("content-type", "Text/CSV; charset=utf-8")).unwrap(), Form::Csv);
        assert_eq!(Form::of(&head("content-type", "application/json")).unwrap(), Form::Json);
        let refused = Form::of(&HeaderMap::new()).unwrap_err();
        assert!(refused.status == 415 && refused.message.contains("application/x-ndjson"), "{}", refused.message);
        assert!(is_gzip(&head("content-encoding", "gzip")).unwrap());
        assert_eq!(is_gzip(&head("content-encoding", "br")).unwrap_err().status, 415);
    }

    #[test]
    fn signatures_follow_rfc_4231() {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let secret = Some(b"Jefe".to_vec());
        let source = PushSource { name: "rides".into(), schema, position: 0, encode: Encode::Json, secret, queue_bytes: 0, queue_bytes_max: 1 };
        let check =
            |headers: &HeaderMap, body: &[u8]| check_signature(&source, headers, body).map_err(|error| (error.status.as_u16(), error.message));
        let good = head(SIGNATURE_HEADER, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(check(&good, b"what do ya want for nothing?"), Ok(()));
        for (headers, words) in [(&good, "does not fit"), (&HeaderMap::new(), "missing"), (&head(SIGNATURE_HEADER, "sha256=zz"), "cannot be read")] {
            let (status, message) = check(headers, b"something else").unwrap_err();
            assert!(status == 401 && message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_unpacks_to_more_than_a_body_is_refused() {
        let pack = |bytes: usize| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(&vec![b' '; bytes]).unwrap();
            out.finish().unwrap()
        };
        assert_eq!(unpacked(&pack(1000)).unwrap().len(), 1000);
        assert_eq!(unpacked(&pack(INGEST_BODY_BYTES_MAX + 1)).unwrap_err().status, 413);
        assert_eq!(unpacked(b"plain").unwrap_err().status, 400);
    }

    #[test]
    fn a_broken_arrow_stream_is_refused_whatever_byte_is_broken() {
        let columns =
            [("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef), ("s", Arc::new(StringArray::from(vec!["a", "bc"])) as ArrayRef)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
        (0..2).for_each(|_| writer.write(&batch).unwrap());
        let good = writer.into_inner().unwrap();
        assert_eq!(arrow_rows(&good).unwrap().num_rows(), 4);
        for at in 0..good.len() {
            // Whether it still reads or not, it must not panic.
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = good.clone();
                broken[at] ^= flip;
                drop(arrow_rows(&broken));
            }
            drop(arrow_rows(&good[..at]));
        }
    }
}
