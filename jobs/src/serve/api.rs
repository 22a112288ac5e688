//! The server over HTTP: submit, list, stop, pause, resume, drop as JSON; health, metrics, and a page for people.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::serve::keeper::Shown;
use crate::serve::machine::{Event, Phase};
use crate::serve::order::{Offsets, Submission};
use crate::serve::pipelines::{Pipelines, Refusal};
use crate::serve::report::{date, machine_ms};

/// Scripts are text that people write; 4 MiB are far more than any. Larger: 413.
const BODY_BYTES_MAX: usize = 4 << 20;

type Server = State<Arc<Pipelines>>;

pub fn router(pipelines: Arc<Pipelines>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/v1/pipelines", get(list).post(submit))
        .route("/v1/pipelines/{name}", get(one).delete(remove))
        .route("/v1/pipelines/{name}/{verb}", post(change))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(pipelines)
}

async fn submit(State(pipelines): Server, body: Result<Bytes, BytesRejection>) -> Result<(StatusCode, Json<Value>), Refused> {
    let (shown, warnings) = pipelines.submit(parsed::<Submission>(body)?).await?;
    let mut answer = json!(shown);
    answer["warnings"] = json!(warnings);
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn list(State(pipelines): Server) -> Json<Value> {
    Json(json!({ "pipelines": pipelines.shown() }))
}

async fn one(State(pipelines): Server, Path(name): Path<String>) -> Result<Json<Shown>, Refused> {
    Ok(Json(pipelines.one(&name)?))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// `SOURCE:PARTITION:FROM-TO`.
    #[serde(default)]
    skip_offsets: Vec<String>,
}

async fn change(
    State(pipelines): Server,
    Path((name, verb)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Shown>, Refused> {
    let event = match verb.as_str() {
        "stop" => Event::Stop,
        "pause" => Event::Pause,
        "resume" => {
            let empty = body.as_ref().is_ok_and(|body| body.is_empty());
            let resume: Resume = if empty { Resume::default() } else { parsed(body)? };
            let skips = resume.skip_offsets.iter().map(|text| text.parse::<Offsets>()).collect::<anyhow::Result<Vec<_>>>();
            Event::Resume(skips.map_err(|error| Refusal::Invalid(format!("{error:#}")))?)
        }
        other => return Err(Refusal::Unknown(format!("there is no {other}; known: stop, pause, resume")).into()),
    };
    Ok(Json(pipelines.ask(&name, event).await?))
}

async fn remove(State(pipelines): Server, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    pipelines.remove(&name).await?;
    Ok(Json(json!({ "dropped": name })))
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 if every pipeline that is to run does and its answers can be used, else 503 with every object that is not ready.
async fn readyz(State(pipelines): Server) -> (StatusCode, Json<Value>) {
    let not_ready: Vec<Value> = pipelines.shown().iter().flat_map(not_ready).collect();
    let code = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": not_ready.is_empty(), "not_ready": not_ready })))
}

fn not_ready(shown: &Shown) -> Vec<Value> {
    match shown.state {
        // That is what somebody wanted.
        Phase::Paused | Phase::Pausing | Phase::Stopped | Phase::Stopping => return Vec::new(),
        Phase::Running | Phase::Finished => {}
        _ => return vec![json!({ "pipeline": shown.name, "state": shown.state, "reason": shown.reason, "since": shown.since })],
    }
    let reasons = shown.reasons.iter().map(|reason| json!({ "pipeline": shown.name, "state": shown.state, "reason": reason, "since": shown.since }));
    let objects = shown.objects.iter().filter(|object| !object.is_well()).map(|object| {
        json!({ "pipeline": shown.name, "object": object.name, "kind": object.kind, "state": object.state, "reason": object.reason,
                "since": date(object.since) })
    });
    reasons.chain(objects).collect()
}

async fn metrics(State(pipelines): Server) -> String {
    exposition(&pipelines.shown(), machine_ms())
}

fn exposition(all: &[Shown], now: u64) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        // A string takes every write.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in &samples {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    // Names are letters, digits, _ and -: nothing to escape.
    let each = |value: &dyn Fn(&Shown) -> Option<f64>| {
        all.iter().filter_map(|shown| Some((format!("pipeline=\"{}\"", shown.name), value(shown)?))).collect::<Vec<_>>()
    };
    let states = all.iter().map(|shown| (format!("pipeline=\"{}\",state=\"{}\"", shown.name, shown.state.name()), 1.0)).collect();
    family("freshet_pipeline_state", "gauge", "The state a pipeline is in.", states);
    family("freshet_pipeline_generation", "gauge", "The number of its generation.", each(&|shown| Some(shown.generation as f64)));
    family("freshet_pipeline_restarts_total", "counter", "Ends of a generation that nobody asked for.", each(&|shown| Some(shown.restarts as f64)));
    let heard = |shown: &Shown| shown.heard_ms.map(|heard| now.saturating_sub(heard) as f64 / 1000.0);
    family("freshet_pipeline_heartbeat_age_seconds", "gauge", "Since its process was last heard of.", each(&heard));
    family("freshet_pipeline_events_total", "counter", "Events it has taken in.", each(&|shown| Some(shown.events as f64)));
    family("freshet_pipeline_lag_seconds", "gauge", "How far its answers are behind.", each(&|shown| shown.lag_seconds));
    family("freshet_pipeline_lag_rows", "gauge", "Records that wait to be read.", each(&|shown| shown.lag_rows.map(|rows| rows as f64)));
    family(
        "freshet_pipeline_resident_memory_bytes",
        "gauge",
        "Memory its process takes.",
        each(&|shown| shown.resident_bytes.map(|bytes| bytes as f64)),
    );
    family(
        "freshet_pipeline_memory_limit_bytes",
        "gauge",
        "Memory its process may take.",
        each(&|shown| shown.memory_bytes.map(|bytes| bytes as f64)),
    );
    text
}

/// A table that renews itself, with links to the pages of the pipelines themselves.
async fn page(State(pipelines): Server) -> Html<String> {
    let mut rows = String::new();
    for shown in pipelines.shown() {
        let name = match shown.http {
            Some(http) => format!("<a href=\"http://{http}/\">{}</a>", escaped(&shown.name)),
            None => escaped(&shown.name),
        };
        let cells = [
            name,
            shown.state.name().to_string(),
            escaped(&shown.since),
            shown.generation.to_string(),
            shown.restarts.to_string(),
            shown.events.to_string(),
            escaped(shown.closed_date.as_deref().unwrap_or("–")),
            shown.lag_rows.map_or("–".to_string(), |rows| rows.to_string()),
            shown.lag_seconds.map_or("–".to_string(), |seconds| format!("{seconds:.1}")),
            escaped(shown.reason.as_deref().unwrap_or("")),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(rows, "<tr class=\"{}\">{cells}</tr>", shown.state.name());
    }
    Html(include_str!("page.html").replace("{rows}", &rows))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn nowhere(request: Request) -> Refused {
    Refusal::Unknown(format!("there is no {}; known: /, /v1/pipelines, /healthz, /readyz, /metrics", request.uri().path())).into()
}

fn parsed<T: serde::de::DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refused> {
    let body = body.map_err(|rejection| Refused { code: rejection.status(), kind: "invalid", text: rejection.body_text() })?;
    serde_json::from_slice(&body).map_err(|error| Refusal::Invalid(format!("the request is not understood: {error}")).into())
}

/// An answer that is an error.
struct Refused {
    code: StatusCode,
    kind: &'static str,
    text: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let (code, kind) = match &refusal {
            Refusal::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Refusal::Unknown(_) => (StatusCode::NOT_FOUND, "invalid"),
            Refusal::Conflict(_) => (StatusCode::CONFLICT, "invalid"),
            Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "invalid"),
            Refusal::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Refused { code, kind, text: refusal.text().to_string() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.code, Json(json!({ "error": { "kind": self.kind, "message": self.text } }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::report::ObjectReport;

    fn shown(state: Phase) -> Shown {
        Shown {
            name: "taxi".into(),
            state,
            reason: Some("why".into()),
            since: date(5),
            since_ms: 5,
            generation: 3,
            restarts: 2,
            pid: None,
            flight: None,
            http: None,
            closed: None,
            closed_date: None,
            durable: None,
            events: 9,
            lag_rows: None,
            lag_seconds: Some(1.5),
            heard_ms: Some(1_000),
            reasons: vec!["view v has no complete epoch yet".into()],
            objects: vec![
                ObjectReport { kind: "source".into(), name: "rides".into(), state: "retrying".into(), since: 7, ..ObjectReport::default() },
                ObjectReport { kind: "view".into(), name: "v".into(), state: "running".into(), ..ObjectReport::default() },
            ],
            crashes: Vec::new(),
            skips: Vec::new(),
            clock: "wall".into(),
            resident_bytes: None,
            memory_bytes: Some(7),
        }
    }

    #[test]
    fn what_is_not_ready_is_named_unless_an_operator_wanted_it() {
        assert!(not_ready(&shown(Phase::Paused)).is_empty());
        assert_eq!(not_ready(&shown(Phase::CrashLooping))[0]["reason"], "why");
        let running = not_ready(&shown(Phase::Running));
        assert_eq!(running.len(), 2);
        assert_eq!((&running[1]["object"], &running[1]["since"]), (&json!("rides"), &json!("1970-01-01T00:00:00.007Z")));
    }

    #[test]
    fn metrics_leave_out_what_is_unknown() {
        let text = exposition(&[shown(Phase::Running)], 3_000);
        for line in [
            "freshet_pipeline_state{pipeline=\"taxi\",state=\"running\"} 1",
            "freshet_pipeline_restarts_total{pipeline=\"taxi\"} 2",
            "freshet_pipeline_heartbeat_age_seconds{pipeline=\"taxi\"} 2",
            "freshet_pipeline_lag_seconds{pipeline=\"taxi\"} 1.5",
            "freshet_pipeline_memory_limit_bytes{pipeline=\"taxi\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("freshet_pipeline_lag_rows{"));
    }
}
