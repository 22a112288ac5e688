//! The two listeners of a pipeline. In: a reader, a planner of queries, two loopback addresses. Out: Flight and HTTP until `shutdown`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arrow_flight::flight_service_server::FlightServiceServer;
use freshet_core::{Error, Ingress, Reader, Replay, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic::transport::server::TcpIncoming;

use crate::flight::Front;
use crate::http::{HttpState, listen, router};
use crate::limits::{DRAIN_MAX, MESSAGE_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};
use crate::lookup::Lookups;
use crate::pulse::{Pulse, SAMPLE_EVERY};
use crate::pushing::Doors;
use crate::query::Queries;

/// The two bound addresses, before anything is served: a taken port is found before a pipeline starts.
pub struct Listeners {
    flight: (TcpListener, SocketAddr),
    http: (TcpListener, SocketAddr),
}

impl Listeners {
    /// Port 0 takes a free one. Errors: Invalid for an address that is not loopback (there is no authentication yet), Unavailable for one
    /// that is taken.
    pub async fn bind(flight: SocketAddr, http: SocketAddr) -> Result<Listeners> {
        Ok(Listeners { flight: bind("Flight", flight).await?, http: bind("HTTP", http).await? })
    }

    /// The address of Flight, with its real port.
    pub fn flight(&self) -> SocketAddr {
        self.flight.1
    }

    /// The address of HTTP, with its real port.
    pub fn http(&self) -> SocketAddr {
        self.http.1
    }

    /// The listeners of Flight and of HTTP, for a server of another kind.
    pub fn into_parts(self) -> (TcpListener, TcpListener) {
        (self.flight.0, self.http.0)
    }
}

/// A running server.
pub struct Server {
    pulse: Arc<Pulse>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves on the current runtime, without sources to push to. `pipeline` is the name the status page shows.
    pub fn start(listeners: Listeners, pipeline: &str, reader: Arc<dyn Reader>, queries: Arc<dyn Queries>) -> Server {
        Server::start_with(listeners, pipeline, reader, queries, None, None)
    }

    /// As `start`; what clients push goes to `ingress`, dead letters come in again by `replay`.
    pub fn start_with(
        listeners: Listeners,
        pipeline: &str,
        reader: Arc<dyn Reader>,
        queries: Arc<dyn Queries>,
        ingress: Option<Arc<dyn Ingress>>,
        replay: Option<Arc<dyn Replay>>,
    ) -> Server {
        let doors = Doors::new(ingress, replay);
        let lookups = Arc::new(Lookups::new(reader.clone()));
        let pulse = Arc::new(Pulse::default());
        let (stop, stopped) = watch::channel(false);
        let state =
            HttpState { pipeline: pipeline.into(), reader: reader.clone(), lookups: lookups.clone(), pulse: pulse.clone(), doors: doors.clone() };
        let tasks = vec![
            tokio::spawn(serve_flight(listeners.flight.0, Front::new(reader.clone(), queries, lookups, doors), stopped.clone())),
            tokio::spawn(listen(listeners.http.0, router(state), stopped.clone())),
            tokio::spawn(sample(reader, pulse.clone(), stopped)),
        ];
        Server { pulse, stop, tasks }
    }

    /// Over the last ten seconds.
    pub fn events_per_second(&self) -> f64 {
        self.pulse.events_per_second()
    }

    /// Takes no new connections, lets open requests end for a bounded time, and returns.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(DRAIN_MAX * 2, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

async fn bind(what: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    if !address.ip().is_loopback() {
        return Err(Error::invalid(format!("the {what} address {address} is not loopback; use 127.0.0.1, there is no authentication yet")));
    }
    let taken =
        |error: std::io::Error| Error::unavailable(format!("{what} cannot listen at {address}: {error}; choose another port, 0 for a free one"));
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let local = listener.local_addr().map_err(taken)?;
    Ok((listener, local))
}

async fn serve_flight(listener: TcpListener, front: Front, mut stop: watch::Receiver<bool>) {
    let service = FlightServiceServer::new(front).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(usize::MAX);
    // Small answers must not wait for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut stopped = stop.clone();
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move { drop(stopped.changed().await) });
    let drained = async {
        drop(stop.changed().await);
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served { tracing::error!(%error, "the Flight server has stopped") },
        () = drained => tracing::debug!("Flight streams were still open at the stop"),
    }
}

async fn sample(reader: Arc<dyn Reader>, pulse: Arc<Pulse>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => pulse.sample(Instant::now(), reader.status().events),
            _ = stop.changed() => return,
        }
    }
}
