//! `freshet serve`: bind, take the data directory, start what the catalog knows, answer, wait for a signal, end the children. In: settings.
//! Out: an exit code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use freshet_serving::{Listeners, listen};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;
use crate::exit::{Failure, INTERRUPTED, Outcome, TERMINATED};
use crate::serve::api::router;
use crate::serve::catalog::Catalog;
use crate::serve::keeper::Common;
use crate::serve::pipelines::Pipelines;
use crate::serve::proxy::serve_flight;

/// The children have 9.5 s; then they are killed, and the supervisor ends within its 10 s.
const LEAVE_MAX: Duration = Duration::from_millis(9_800);

pub struct ServeOptions {
    pub config: Config,
    pub allow_commands: bool,
    /// Without progress for so long, a generation is replaced.
    pub stuck_after: Duration,
}

/// Runs the server until it is asked to stop.
pub fn serve(options: ServeOptions) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime").map_err(Failure::failed)?;
    let outcome = runtime.block_on(supervise(options));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn supervise(options: ServeOptions) -> Outcome {
    let open = |kind| signal(kind).context("installing signal handlers").map_err(Failure::failed);
    let (mut interrupt, mut terminate) = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?);
    let config = options.config;
    let catalog = Catalog::open(&config.data_dir).map_err(Failure::wrong)?;
    let listeners = Listeners::bind(config.flight, config.http).await.map_err(Failure::wrong)?;
    let (flight, http) = (listeners.flight(), listeners.http());
    let drafts = config.data_dir.canonicalize().context("finding the data directory")?.join("catalog");
    let stuck_ms = options.stuck_after.as_millis() as u64;
    let common = Arc::new(Common { catalog, onnxruntime: config.onnxruntime, stuck_ms });
    let pipelines = Arc::new(Pipelines::open(common, options.allow_commands, drafts).map_err(Failure::wrong)?);
    let (stop, stopped) = watch::channel(false);
    let (flight_listener, http_listener) = listeners.into_parts();
    let servers = [
        tokio::spawn(listen(http_listener, router(pipelines.clone()), stopped.clone())),
        tokio::spawn(serve_flight(flight_listener, pipelines.clone(), stopped)),
    ];
    crate::node::announce(&format!("Flight  grpc://{flight}\nHTTP    http://{http}"));
    let code = tokio::select! {
        _ = interrupt.recv() => INTERRUPTED,
        _ = terminate.recv() => TERMINATED,
    };
    let left = tokio::select! {
        left = tokio::time::timeout(LEAVE_MAX, pipelines.leave()) => left.is_ok(),
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
    };
    stop.send_replace(true);
    if !left {
        // Their stdin ends with this process; they take care of the rest.
        return Err(Failure::failed(anyhow!("pipelines were still ending; their last checkpoints stand")));
    }
    servers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(code)
}

/// The default of `--data-dir`, `--flight` and `--http` is that of a run.
pub fn options(config: Config, allow_commands: bool, stuck_seconds: u64) -> Result<ServeOptions, Failure> {
    if stuck_seconds == 0 {
        return Err(Failure::wrong(anyhow!("--stuck-after must be at least 1 second")));
    }
    Ok(ServeOptions { config, allow_commands, stuck_after: Duration::from_secs(stuck_seconds) })
}

/// Where a path lies, whatever directory the server runs in.
pub fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().context("finding the working directory").map_err(Failure::failed)
}
