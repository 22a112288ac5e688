//! What a child process tells the supervisor, one JSON object a line. In: the status of the pipeline. Out: `Report`s, several a second.

use std::net::SocketAddr;

use freshet_core::{Epoch, Kind, ObjectState, PipelineStatus, State};
use freshet_serving::reasons_not_ready;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It lives, and is not up yet.
    Starting,
    /// It answers at these addresses.
    Ready {
        flight: SocketAddr,
        http: SocketAddr,
    },
    Beat(Box<Beat>),
    /// It has written a checkpoint, reads nothing more and still answers.
    Paused,
    /// It ends because of this.
    Failed {
        kind: String,
        message: String,
    },
}

/// How a pipeline fares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    pub clock: String,
    /// The last epoch handed to the workers, and the last one that every view has closed.
    pub epoch: u64,
    pub closed: Option<u64>,
    pub events: u64,
    pub durable: Option<u64>,
    pub open_steps: u64,
    /// How often sources have been asked for rows.
    pub polls: u64,
    pub finished: bool,
    /// Something it needs is away, or it waits for a trainer or writes a checkpoint: then time may stand still.
    pub waits: bool,
    pub lag_ms: u64,
    /// None: unknown.
    pub lag_rows: Option<u64>,
    /// Why its answers are not to be used yet.
    pub reasons: Vec<String>,
    pub objects: Vec<ObjectReport>,
}

/// A source, view, sink, model or job of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectReport {
    pub kind: String,
    pub name: String,
    pub state: String,
    pub reason: Option<String>,
    /// By the machine's clock, in ms since 1970.
    pub since: u64,
    pub progress: Option<u64>,
    pub lag_ms: Option<u64>,
    pub lag_rows: Option<u64>,
}

impl ObjectReport {
    /// It does what it is there for, or has nothing to do.
    pub fn is_well(&self) -> bool {
        ["running", "idle", "ended"].contains(&self.state.as_str())
    }
}

impl Beat {
    pub fn of(status: &PipelineStatus) -> Beat {
        let objects = objects(status);
        let lag_rows = status.sources.iter().map(|source| source.lag_rows).sum::<Option<u64>>().filter(|_| !status.sources.is_empty());
        let lags = status.views.iter().map(|view| view.lag_ms).chain(status.sources.iter().map(|source| source.lag_ms));
        let states = objects.iter().any(|object| object.state == State::Retrying.name());
        Beat {
            clock: status.clock.to_string(),
            epoch: status.epoch.0,
            closed: status.views.iter().map(|view| view.closed).min().flatten().map(|epoch| epoch.0),
            events: status.events,
            durable: status.checkpoint_epoch.or(status.resumed.map(|(epoch, _)| epoch)).map(|epoch| epoch.0),
            open_steps: status.queue_depth,
            polls: 0,
            finished: status.finished,
            waits: states || status.checkpointing || status.jobs.iter().any(|job| job.running.is_some()),
            lag_ms: lags.max().unwrap_or(0),
            lag_rows,
            reasons: reasons_not_ready(status),
            objects,
        }
    }
}

fn objects(status: &PipelineStatus) -> Vec<ObjectReport> {
    let object = |kind: &str, name: &str, state: &ObjectState| ObjectReport {
        kind: kind.to_string(),
        name: name.to_string(),
        state: state.state.name().to_string(),
        reason: state.reason.clone(),
        since: state.since.0,
        progress: state.progress.map(|epoch| epoch.0),
        lag_ms: None,
        lag_rows: None,
    };
    let sources = status.sources.iter().map(|source| ObjectReport {
        lag_ms: Some(source.lag_ms),
        lag_rows: source.lag_rows,
        ..object("source", &source.name, &source.state)
    });
    let views = status.views.iter().map(|view| ObjectReport { lag_ms: Some(view.lag_ms), ..object("view", &view.name, &view.state) });
    let sinks = status.sinks.iter().map(|sink| ObjectReport {
        lag_ms: Some(sink.lag_ms),
        lag_rows: Some(sink.lag_rows),
        ..object("sink", &sink.name, &sink.state)
    });
    let models = status.models.iter().map(|model| object("model", &model.name, &model.state));
    let jobs = status.jobs.iter().map(|job| object("job", &job.name, &job.state));
    let checkpoints =
        status.checkpoints.iter().map(|state| ObjectReport { lag_ms: status.checkpoint_age_ms, ..object("checkpoints", "checkpoints", state) });
    sources.chain(views).chain(sinks).chain(models).chain(jobs).chain(checkpoints).collect()
}

/// The kind of an error, as it travels.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::Unavailable => "unavailable",
        Kind::Data => "data",
        Kind::Fenced => "fenced",
        Kind::Internal => "internal",
    }
}

/// Now, by the machine's clock.
#[allow(clippy::disallowed_methods, reason = "operators ask since when, by the clock on the wall; no result depends on it")]
pub fn machine_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// An instant of the machine's clock, as people read it.
pub fn date(ms: u64) -> String {
    freshet_serving::epoch_date(Epoch(ms)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use freshet_core::{SourceStatus, ViewStatus};

    use super::*;

    #[test]
    fn a_beat_sums_up_and_survives_the_wire() {
        let source = |name: &str, lag_rows| SourceStatus { name: name.into(), lag_rows, lag_ms: 7, ..SourceStatus::default() };
        let view = |closed| ViewStatus { closed: Some(Epoch(closed)), lag_ms: 3, ..ViewStatus::default() };
        let mut status =
            PipelineStatus { sources: vec![source("a", Some(2)), source("b", Some(3))], views: vec![view(9), view(5)], ..PipelineStatus::default() };
        let beat = Beat::of(&status);
        assert_eq!((beat.closed, beat.lag_rows, beat.lag_ms, beat.waits), (Some(5), Some(5), 7, false));
        status.sources[0].lag_rows = None;
        status.sources[1].state.state = State::Retrying;
        let beat = Beat::of(&status);
        assert_eq!((beat.lag_rows, beat.waits), (None, true));
        status.sources[1].state.state = State::Running;
        status.checkpointing = true;
        assert!(Beat::of(&status).waits, "a checkpoint takes as long as it takes");
        let report = Report::Beat(Box::new(beat));
        assert_eq!(serde_json::from_str::<Report>(&serde_json::to_string(&report).unwrap()).unwrap(), report);
    }
}
