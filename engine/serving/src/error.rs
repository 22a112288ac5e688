//! Errors at the edge. In: the core's error with its kind. Out: a gRPC status or an HTTP answer that says the same.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use freshet_core::{Error, Kind};
use tonic::Status;

/// The gRPC status of an error; the message is kept, the kind decides the code.
pub fn grpc_status(error: Error) -> Status {
    match error.kind {
        Kind::Invalid => Status::invalid_argument(error.message),
        Kind::Unavailable => Status::unavailable(error.message),
        Kind::Data => Status::failed_precondition(error.message),
        Kind::Fenced => Status::aborted(error.message),
        Kind::Internal => Status::internal(error.message),
    }
}

/// An error as an HTTP answer: `{"error": {"kind": …, "message": …}}`.
#[derive(Debug)]
pub struct HttpError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub message: String,
    /// Seconds until a second try may succeed.
    pub retry_after: Option<u64>,
}

impl HttpError {
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> HttpError {
        HttpError { status, kind, message: message.into(), retry_after: None }
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> HttpError {
        let (status, kind) = match error.kind {
            Kind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Kind::Data => (StatusCode::UNPROCESSABLE_ENTITY, "data"),
            Kind::Fenced => (StatusCode::CONFLICT, "fenced"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        HttpError::new(status, kind, error.message)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "kind": self.kind, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
