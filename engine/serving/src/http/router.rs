//! The paths of the HTTP server, and the limits that hold for each of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use freshet_core::Reader;
use tokio::sync::Semaphore;

use crate::error::HttpError;
use crate::http::{health, ingest, metrics, online, status};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_REQUEST_TIMEOUT, HTTP_REQUESTS_CONCURRENT_MAX, INGEST_BODY_BYTES_MAX, INGEST_REQUESTS_CONCURRENT_MAX};
use crate::lookup::Lookups;
use crate::pulse::Pulse;
use crate::pushing::Doors;
use crate::replaying;

/// What every handler may read.
#[derive(Clone)]
pub struct HttpState {
    pub pipeline: Arc<str>,
    pub reader: Arc<dyn Reader>,
    pub lookups: Arc<Lookups>,
    pub pulse: Arc<Pulse>,
    pub doors: Doors,
}

/// All paths. Everything but the page and the metrics speaks JSON, errors too.
pub fn router(state: HttpState) -> Router {
    let permits = Arc::new(Semaphore::new(HTTP_REQUESTS_CONCURRENT_MAX));
    let bodies = Arc::new(Semaphore::new(INGEST_REQUESTS_CONCURRENT_MAX));
    let ingest = post(ingest::ingest).layer(DefaultBodyLimit::max(INGEST_BODY_BYTES_MAX)).layer(from_fn_with_state(bodies, ingest::bounded_bodies));
    Router::new()
        .route("/", get(status::page))
        .route("/page.js", get(status::script))
        .route("/page.css", get(status::style))
        .route("/v1/status", get(status::status))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/get-online-features", post(online::get_online_features))
        .route("/v1/ingest/{source}", ingest)
        .route("/v1/dead-letters/{source}/replay", post(replaying::post))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(from_fn_with_state(permits, bounded))
        .with_state(state)
}

/// At most so many requests at once, each for at most so long.
async fn bounded(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Result<Response, HttpError> {
    let Ok(_permit) = permits.try_acquire() else {
        let message = format!("{HTTP_REQUESTS_CONCURRENT_MAX} requests are in work already; try again");
        return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message));
    };
    tokio::time::timeout(HTTP_REQUEST_TIMEOUT, next.run(request)).await.map_err(|_| {
        let message = format!("no answer within {} s; send a smaller request", HTTP_REQUEST_TIMEOUT.as_secs());
        HttpError::new(StatusCode::GATEWAY_TIMEOUT, "unavailable", message)
    })
}

async fn not_found(request: Request) -> HttpError {
    let message = format!(
        "there is no {}; known: /, /v1/status, /healthz, /readyz, /metrics, /get-online-features, /v1/ingest/{{source}}, /v1/dead-letters/{{source}}/replay",
        request.uri().path()
    );
    HttpError::new(StatusCode::NOT_FOUND, "invalid", message)
}

async fn wrong_method(request: Request) -> HttpError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", message)
}
