//! What a request refused early leaves unread. In: a request and its answer. Out: the same answer, once the rest of the body has been read
//! and thrown away: a connection closed over unread bytes is reset, and the client loses the answer that says what was wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::poll_fn;

use crate::limits::{UNREAD_BYTES_MAX, UNREAD_WAIT_MAX};

pub async fn read_to_the_end(request: Request, next: Next) -> Response {
    // A client that asks before it sends need not send for an answer that is an error.
    let asks_first = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let shared = Arc::new(Mutex::new(body.into_data_stream()));
    let read = shared.clone();
    let body = Body::from_stream(poll_fn(move |context| lock(&read).poll_next_unpin(context)));
    let response = next.run(Request::from_parts(head, body)).await;
    if !response.status().is_success() && !asks_first {
        let _ = tokio::time::timeout(UNREAD_WAIT_MAX, discard(&shared)).await;
    }
    response
}

async fn discard(body: &Mutex<BodyDataStream>) {
    let mut bytes = 0;
    while let Some(Ok(chunk)) = poll_fn(|context| lock(body).poll_next_unpin(context)).next().await {
        bytes += chunk.len();
        if bytes > UNREAD_BYTES_MAX {
            break;
        }
    }
}

fn lock(body: &Mutex<BodyDataStream>) -> MutexGuard<'_, BodyDataStream> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}
