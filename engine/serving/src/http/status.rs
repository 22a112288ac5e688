//! The status of the pipeline: as JSON for programs, and as one page that polls it for people.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use chrono::{DateTime, SecondsFormat};
use freshet_core::{Epoch, EventTime, PipelineStatus};
use serde_json::{Value, json};

use crate::http::{HttpState, reasons_not_ready};
use crate::pulse::resident_bytes;

pub async fn page() -> Html<&'static str> {
    Html(include_str!("../../ui/index.html"))
}

pub async fn script() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../../ui/page.js"))
}

pub async fn style() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../ui/page.css"))
}

pub async fn status(State(state): State<HttpState>) -> Json<Value> {
    let status = state.reader.status();
    let lookups = state.lookups.seconds().distribution();
    let mut answer = pipeline_json(&status);
    answer["pipeline"] = json!(&*state.pipeline);
    answer["events_per_second"] = json!(state.pulse.events_per_second());
    answer["resident_bytes"] = json!(resident_bytes());
    answer["services"] = state.lookups.services().map(|service| json!(&service.name)).collect();
    answer["lookups"] = json!({ "count": lookups.count(), "p50_ms": lookups.quantile_ms(0.5), "p99_ms": lookups.quantile_ms(0.99) });
    Json(answer)
}

/// The instant of an epoch as a date; None if there is none in the calendar.
pub fn epoch_date(epoch: Epoch) -> Option<String> {
    let date = DateTime::from_timestamp_millis(i64::try_from(epoch.0).ok()?)?;
    Some(date.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// An event time as a date.
pub fn event_date(time: EventTime) -> String {
    DateTime::from_timestamp_nanos(time.0).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn pipeline_json(status: &PipelineStatus) -> Value {
    let reasons = reasons_not_ready(status);
    json!({
        "clock": status.clock,
        "workers": status.workers,
        "finished": status.finished,
        "failure": status.failure,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "epoch": status.epoch.0,
        "date": epoch_date(status.epoch),
        "events": status.events,
        "queue": { "depth": status.queue_depth, "limit": status.queue_limit },
        "checkpoint": {
            "epoch": status.checkpoint_epoch.map(|epoch| epoch.0),
            "age_ms": status.checkpoint_age_ms,
            "bytes": status.checkpoint_bytes,
        },
        "sources": status.sources.iter().map(|source| json!({
            "name": source.name, "rows": source.rows, "ended": source.ended, "lag_ms": source.lag_ms,
            "watermark": source.watermark.map(|epoch| epoch.0), "late_rows": source.late_rows,
            "complete_since": source.complete_since.map(|epoch| epoch.0), "dead_letters_kept": source.letters_kept,
            "dead_letters_dropped": source.letters_dropped, "dead_letters_replayed": source.letters_replayed,
            "dead_letters": source.dead_letters.iter().map(|(reason, count)| json!({ "reason": reason, "count": count })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "views": status.views.iter().map(|view| json!({
            "name": view.name, "closed": view.closed.map(|epoch| epoch.0), "date": view.closed.and_then(epoch_date),
            "lag_ms": view.lag_ms, "rows": view.rows, "errors": view.errors,
        })).collect::<Vec<_>>(),
        "operators": status.operators.iter().map(|operator| json!({
            "name": operator.name, "rows": operator.rows, "bytes": operator.bytes,
        })).collect::<Vec<_>>(),
        "models": status.models.iter().map(|model| json!({
            "name": model.name, "live": model.live, "versions": model.versions, "rows": model.rows, "errors": model.errors,
        })).collect::<Vec<_>>(),
        "jobs": status.jobs.iter().map(|job| json!({
            "name": job.name, "runs": job.runs, "promoted": job.promoted, "running": job.running.and_then(epoch_date),
        })).collect::<Vec<_>>(),
        "sinks": status.sinks.iter().map(|sink| json!({
            "name": sink.name, "rows": sink.rows, "queue_depth": sink.queue_depth, "queue_limit": sink.queue_limit,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_exact_to_the_unit_they_have() {
        assert_eq!(epoch_date(Epoch(1_357_034_400_123)).unwrap(), "2013-01-01T10:00:00.123Z");
        assert_eq!(epoch_date(Epoch::MAX), None);
        assert_eq!(event_date(EventTime(1_357_034_400_000_000_000)), "2013-01-01T10:00:00Z");
    }
}
