//! HTTP connections. In: a listener and the router. Out: answers, until told to stop; a bounded number of connections, each of which must
//! send its headers in time.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use crate::http::unread::read_to_the_end;
use crate::limits::{DRAIN_MAX, HTTP_CONNECTIONS_MAX, HTTP_HEADER_TIMEOUT};

/// Serves until `stop` changes, then lets open requests end for at most `DRAIN_MAX`.
pub async fn listen(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let router = router.layer(from_fn(read_to_the_end));
    let permits = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        tokio::select! {
            (connection, permit) = accepted => match connection {
                Ok((stream, _)) => drop(tokio::spawn(connection_task(stream, router.clone(), stop.clone(), permit))),
                Err(error) => {
                    warn!(%error, "an HTTP connection could not be accepted");
                    tokio::task::yield_now().await;
                }
            },
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let all = permits.acquire_many(HTTP_CONNECTIONS_MAX as u32);
    if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
        debug!("HTTP requests were still open at the stop");
    }
}

async fn connection_task(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>, permit: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "an HTTP connection ended early");
    }
    drop(permit);
}
