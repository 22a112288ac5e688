//! The server's Flight port. In: any gRPC call, with the header `x-freshet-pipeline` if there is more than one pipeline. Out: the answer of that
//! pipeline's own Flight port, frame by frame: nothing is decoded here, and a slow reader slows only its own stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use freshet_serving::limits::{DRAIN_MAX, STREAMS_PER_CONNECTION_MAX};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};

use crate::serve::pipelines::Pipelines;

/// Names the pipeline of a call.
pub const HEADER: &str = "x-freshet-pipeline";
/// Connections to one child: each carries `STREAMS_PER_CONNECTION_MAX` calls at once; more wait.
const CONNECTIONS: usize = 4;
const CONNECT_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Proxy {
    pipelines: Arc<Pipelines>,
    channels: Arc<Mutex<BTreeMap<SocketAddr, Vec<Channel>>>>,
    turn: Arc<AtomicUsize>,
}

/// Serves until `stop` changes, then lets open calls end for a bounded time.
pub async fn serve_flight(listener: TcpListener, pipelines: Arc<Pipelines>, mut stop: watch::Receiver<bool>) {
    let proxy = Proxy { pipelines, channels: Arc::default(), turn: Arc::default() };
    let router = Router::new().fallback(forward).with_state(proxy);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut stopped = stop.clone();
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, async move { drop(stopped.changed().await) });
    let drained = async {
        drop(stop.changed().await);
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served { tracing::error!(%error, "the Flight server has stopped") },
        () = drained => tracing::debug!("Flight calls were still open at the stop"),
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let name = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).map(str::to_string);
    let answered = match proxy.channel(name.as_deref()) {
        Ok(channel) => call(channel, request).await,
        Err(status) => Err(status),
    };
    answered.unwrap_or_else(Status::into_http)
}

async fn call(mut channel: Channel, request: Request) -> Result<Response, Status> {
    let away =
        |error: tonic::transport::Error| Status::unavailable(format!("the pipeline does not answer: {error}; it may be restarting, try again"));
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(away)?;
    let response = channel.call(request.map(tonic::body::Body::new)).await.map_err(away)?;
    Ok(response.map(axum::body::Body::new))
}

impl Proxy {
    /// A connection to the pipeline's own port.
    fn channel(&self, name: Option<&str>) -> Result<Channel, Status> {
        let address = self.pipelines.flight_of(name)?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if !channels.contains_key(&address) {
            // Addresses of generations that are gone would pile up.
            let alive = self.pipelines.flights();
            channels.retain(|address, _| alive.contains(address));
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| Status::internal(error.to_string()))?;
            let endpoint = endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true).http2_adaptive_window(true);
            channels.insert(address, (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        channels.get(&address).and_then(|channels| channels.get(turn).cloned()).ok_or_else(|| Status::internal("a connection was inserted"))
    }
}
