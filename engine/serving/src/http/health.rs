//! Whether the process lives (`/healthz`) and whether its answers can be trusted (`/readyz`, with reasons).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::{ObjectState, PipelineStatus, State as Health};
use serde_json::{Value, json};

use crate::http::HttpState;

/// One minute: a wall-clock view further behind than this serves the past.
const READY_LAG_MS_MAX: u64 = 60_000;

/// The process answers; nothing else is claimed.
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 if every view has an answer, nothing failed and nothing that is needed is away, else 503 with the reasons.
pub async fn readyz(State(state): State<HttpState>) -> (StatusCode, Json<Value>) {
    let status = state.reader.status();
    let reasons: Vec<String> = reasons_not_ready(&status).into_iter().chain(troubles(&status)).collect();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

/// Why the pipeline's answers are not to be used yet; empty if they are. In event clock a lag is simulated time and no reason.
pub fn reasons_not_ready(status: &PipelineStatus) -> Vec<String> {
    let mut reasons: Vec<String> = status.failure.iter().map(|failure| format!("the pipeline has failed: {failure}")).collect();
    for view in &status.views {
        if view.closed.is_none() {
            reasons.push(format!("view {} has no complete epoch yet", view.name));
        } else if status.clock == "wall" && view.lag_ms > READY_LAG_MS_MAX {
            reasons.push(format!("view {} is {} ms behind, more than {READY_LAG_MS_MAX}", view.name, view.lag_ms));
        }
    }
    reasons
}

/// What tries again, or has given up: the rest of the pipeline goes on with what there is.
fn troubles(status: &PipelineStatus) -> Vec<String> {
    let sources = status.sources.iter().map(|source| (format!("source {}", source.name), &source.state));
    let sinks = status.sinks.iter().map(|sink| (format!("sink {}", sink.name), &sink.state));
    let checkpoints = status.checkpoints.iter().map(|state| ("checkpoints".to_string(), state));
    let trouble = |(what, object): (String, &ObjectState)| {
        let reason = object.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        matches!(object.state, Health::Retrying | Health::Failed).then(|| format!("{what} is {}{reason}", object.state.name()))
    };
    sources.chain(sinks).chain(checkpoints).filter_map(trouble).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet_core::{Epoch, SourceStatus, ViewStatus};

    #[test]
    fn what_is_away_is_named() {
        let state = ObjectState { state: Health::Retrying, reason: Some("no broker can be reached".into()), ..ObjectState::default() };
        let source = SourceStatus { name: "rides".into(), state, ..SourceStatus::default() };
        let mut status = PipelineStatus { sources: vec![source], ..PipelineStatus::default() };
        assert_eq!(troubles(&status), ["source rides is retrying: no broker can be reached"]);
        status.sources[0].state = ObjectState { state: Health::Idle, ..ObjectState::default() };
        assert_eq!(troubles(&status), Vec::<String>::new());
    }

    #[test]
    fn readiness_names_each_reason() {
        let view = |closed, lag_ms| ViewStatus { name: "delays".into(), closed, lag_ms, ..ViewStatus::default() };
        let mut status = PipelineStatus { clock: "wall", views: vec![view(None, 0)], ..PipelineStatus::default() };
        assert_eq!(reasons_not_ready(&status), ["view delays has no complete epoch yet"]);
        status.views = vec![view(Some(Epoch(5)), 70_000)];
        assert_eq!(reasons_not_ready(&status), ["view delays is 70000 ms behind, more than 60000"]);
        status.clock = "event";
        assert_eq!(reasons_not_ready(&status), Vec::<String>::new());
        status.failure = Some("disk full".into());
        assert_eq!(reasons_not_ready(&status), ["the pipeline has failed: disk full"]);
    }
}
