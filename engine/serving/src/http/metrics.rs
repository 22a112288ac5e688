//! `/metrics` in Prometheus' text format. In: the pipeline's status, the lookup histogram, the process. Out: `freshet_<thing>_<unit>`.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use freshet_core::{PipelineStatus, PushSource, SourceStatus};

use crate::histogram::Distribution;
use crate::http::HttpState;
use crate::pulse::resident_bytes;

pub async fn metrics(State(state): State<HttpState>) -> Response {
    let text = exposition(
        &state.reader.status(),
        &state.doors.sources(),
        &state.lookups.seconds().distribution(),
        state.pulse.events_per_second(),
        resident_bytes(),
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn exposition(status: &PipelineStatus, doors: &[PushSource], lookups: &Distribution, events_per_second: f64, resident_bytes: Option<u64>) -> String {
    let mut page = Page::default();
    pipeline(&mut page, status, events_per_second);
    sources(&mut page, status);
    pushes(&mut page, doors);
    page.family("freshet_closed_lag_ms", "gauge", "How far the last complete epoch of a view is behind the newest one.");
    status.views.iter().for_each(|view| page.sample("freshet_closed_lag_ms", &[("view", &view.name)], view.lag_ms as f64));
    page.family("freshet_view_rows", "gauge", "Rows of a view.");
    status.views.iter().for_each(|view| page.sample("freshet_view_rows", &[("view", &view.name)], view.rows as f64));
    page.family("freshet_view_errors", "gauge", "Live error rows of a view.");
    status.views.iter().for_each(|view| page.sample("freshet_view_errors", &[("view", &view.name)], view.errors as f64));
    page.family("freshet_operator_rows", "gauge", "Rows in the state of an operator.");
    status.operators.iter().for_each(|operator| page.sample("freshet_operator_rows", &[("operator", &operator.name)], operator.rows as f64));
    page.family("freshet_operator_bytes", "gauge", "Bytes of the state of an operator.");
    status.operators.iter().for_each(|operator| page.sample("freshet_operator_bytes", &[("operator", &operator.name)], operator.bytes as f64));
    models(&mut page, status);
    sinks(&mut page, status);
    page.histogram("freshet_lookup_seconds", "Time of a feature lookup, without the network.", lookups);
    if let Some(bytes) = resident_bytes {
        page.family("process_resident_memory_bytes", "gauge", "Resident memory of the process.");
        page.sample("process_resident_memory_bytes", &[], bytes as f64);
    }
    page.text
}

fn pipeline(page: &mut Page, status: &PipelineStatus, events_per_second: f64) {
    page.single("freshet_events_total", "counter", "Events taken in by all sources.", status.events as f64);
    page.single("freshet_events_per_second", "gauge", "Events per second, over the last seconds.", events_per_second);
    page.single("freshet_epoch_ms", "gauge", "The last epoch handed to the workers.", status.epoch.0 as f64);
    page.single(
        "freshet_clock_jumps_total",
        "counter",
        "Jumps of the machine's clock above 1 s; epochs do not follow them.",
        status.clock_jumps as f64,
    );
    page.single("freshet_clock_offset_ms", "gauge", "How far epochs are ahead of the machine's clock.", status.clock_offset_ms as f64);
    page.single("freshet_workers", "gauge", "Worker threads.", status.workers as f64);
    page.single(
        "freshet_finished",
        "gauge",
        "1 once every bounded source has ended and every view is complete.",
        f64::from(u8::from(status.finished)),
    );
    page.single("freshet_failed", "gauge", "1 once the pipeline has failed.", f64::from(u8::from(status.failure.is_some())));
    page.single("freshet_queue_depth", "gauge", "Steps handed to the workers and not complete.", status.queue_depth as f64);
    page.single("freshet_queue_limit", "gauge", "Steps that may be open; sources wait above it.", status.queue_limit as f64);
    page.single("freshet_checkpoint_bytes", "gauge", "Size of the last checkpoint.", status.checkpoint_bytes as f64);
    if let Some(age) = status.checkpoint_age_ms {
        page.single("freshet_checkpoint_age_ms", "gauge", "Machine time since the last checkpoint.", age as f64);
    }
}

fn sources(page: &mut Page, status: &PipelineStatus) {
    page.family("freshet_source_rows_total", "counter", "Rows read from a source.");
    status.sources.iter().for_each(|source| page.sample("freshet_source_rows_total", &[("source", &source.name)], source.rows as f64));
    page.family("freshet_source_lag_ms", "gauge", "How far a source's last epoch is behind the newest one of the pipeline.");
    status.sources.iter().for_each(|source| page.sample("freshet_source_lag_ms", &[("source", &source.name)], source.lag_ms as f64));
    page.family("freshet_dead_letters_total", "counter", "Records that could not be decoded, by reason.");
    for source in &status.sources {
        for (reason, count) in &source.dead_letters {
            page.sample("freshet_dead_letters_total", &[("source", &source.name), ("reason", reason)], *count as f64);
        }
    }
    type Count = (&'static str, &'static str, &'static str, fn(&SourceStatus) -> u64);
    let counts: [Count; 4] = [
        ("freshet_dead_letters_kept", "gauge", "Dead letters that are kept now.", |source| source.letters_kept),
        ("freshet_dead_letters_bytes", "gauge", "Bytes of the dead letters that are kept.", |source| source.letters_bytes),
        ("freshet_dead_letters_dropped_total", "counter", "Dead letters that made room for others or grew too old.", |source| source.letters_dropped),
        ("freshet_dead_letters_replayed_total", "counter", "Dead letters that came in again.", |source| source.letters_replayed),
    ];
    for (name, kind, help, count) in counts {
        page.family(name, kind, help);
        status.sources.iter().for_each(|source| page.sample(name, &[("source", &source.name)], count(source) as f64));
    }
    page.family("freshet_late_rows_total", "counter", "Rows later than LATENESS allows.");
    status.sources.iter().for_each(|source| page.sample("freshet_late_rows_total", &[("source", &source.name)], source.late_rows as f64));
}

fn models(page: &mut Page, status: &PipelineStatus) {
    page.family("freshet_model_version", "gauge", "The version of a model that scores rows now.");
    for model in &status.models {
        if let Some(live) = model.live {
            page.sample("freshet_model_version", &[("model", &model.name)], f64::from(live));
        }
    }
    page.family("freshet_infer_rows_total", "counter", "Rows scored by the versions of a model.");
    status.models.iter().for_each(|model| page.sample("freshet_infer_rows_total", &[("model", &model.name)], model.rows as f64));
    page.family("freshet_infer_errors_total", "counter", "Rows whose scoring failed.");
    status.models.iter().for_each(|model| page.sample("freshet_infer_errors_total", &[("model", &model.name)], model.errors as f64));
    page.family("freshet_retraining_runs_total", "counter", "Finished runs of a retraining job.");
    status.jobs.iter().for_each(|job| page.sample("freshet_retraining_runs_total", &[("job", &job.name)], job.runs as f64));
    page.family("freshet_retraining_promoted_total", "counter", "Runs whose version went live.");
    status.jobs.iter().for_each(|job| page.sample("freshet_retraining_promoted_total", &[("job", &job.name)], job.promoted as f64));
    page.family("freshet_retraining_running", "gauge", "1 while a run of the job is under way.");
    status.jobs.iter().for_each(|job| page.sample("freshet_retraining_running", &[("job", &job.name)], f64::from(u8::from(job.running.is_some()))));
}

fn sinks(page: &mut Page, status: &PipelineStatus) {
    page.family("freshet_sink_rows_total", "counter", "Changes written by a sink.");
    status.sinks.iter().for_each(|sink| page.sample("freshet_sink_rows_total", &[("sink", &sink.name)], sink.rows as f64));
    page.family("freshet_sink_queue_depth", "gauge", "Changes that wait for a sink.");
    status.sinks.iter().for_each(|sink| page.sample("freshet_sink_queue_depth", &[("sink", &sink.name)], sink.queue_depth as f64));
    page.family("freshet_sink_queue_limit", "gauge", "Changes that may wait for a sink.");
    status.sinks.iter().for_each(|sink| page.sample("freshet_sink_queue_limit", &[("sink", &sink.name)], sink.queue_limit as f64));
}

/// The text as it grows; writing to a string cannot fail.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes every write");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.text, "{name}{labels} {value}").expect("a string takes every write");
    }

    fn histogram(&mut self, name: &str, help: &str, distribution: &Distribution) {
        self.family(name, "histogram", help);
        for (bound, count) in &distribution.buckets {
            let bound = if bound.is_infinite() { "+Inf".to_string() } else { bound.to_string() };
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], *count as f64);
        }
        self.sample(&format!("{name}_sum"), &[], distribution.sum_seconds);
        self.sample(&format!("{name}_count"), &[], distribution.count() as f64);
    }
}

fn pushes(page: &mut Page, doors: &[PushSource]) {
    page.family("freshet_push_queue_bytes", "gauge", "Bytes that clients have pushed and the pipeline has not read.");
    doors.iter().for_each(|door| page.sample("freshet_push_queue_bytes", &[("source", &door.name)], door.queue_bytes as f64));
    page.family("freshet_push_queue_bytes_max", "gauge", "How many there may be; then clients wait.");
    doors.iter().for_each(|door| page.sample("freshet_push_queue_bytes_max", &[("source", &door.name)], door.queue_bytes_max as f64));
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use freshet_core::{Encode, JobStatus, ModelStatus, ViewStatus};

    #[test]
    fn exposition_has_every_family_once_and_escapes_labels() {
        let status = PipelineStatus {
            sources: vec![SourceStatus { name: "rides".into(), dead_letters: vec![("not \"JSON\"".into(), 2)], ..SourceStatus::default() }],
            views: vec![ViewStatus { name: "delays".into(), lag_ms: 7, ..ViewStatus::default() }],
            checkpoint_age_ms: Some(3),
            clock_jumps: 2,
            clock_offset_ms: -4,
            models: vec![ModelStatus { name: "late".into(), live: Some(2), versions: 3, rows: 9, errors: 1, ..ModelStatus::default() }],
            jobs: vec![JobStatus { name: "retrain".into(), runs: 4, promoted: 2, ..JobStatus::default() }],
            ..PipelineStatus::default()
        };
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::empty());
        let push = PushSource { name: "rides".into(), schema, position: 0, encode: Encode::Json, secret: None, queue_bytes: 7, queue_bytes_max: 64 };
        let histogram = Histogram::default();
        histogram.record(std::time::Duration::from_micros(40));
        let text = exposition(&status, &[push], &histogram.distribution(), 1.5, Some(1024));
        for line in [
            "freshet_closed_lag_ms{view=\"delays\"} 7",
            "freshet_dead_letters_total{source=\"rides\",reason=\"not \\\"JSON\\\"\"} 2",
            "freshet_lookup_seconds_bucket{le=\"0.00005\"} 1",
            "freshet_lookup_seconds_bucket{le=\"+Inf\"} 1",
            "freshet_lookup_seconds_count 1",
            "freshet_push_queue_bytes{source=\"rides\"} 7",
            "freshet_push_queue_bytes_max{source=\"rides\"} 64",
            "freshet_checkpoint_age_ms 3",
            "freshet_clock_jumps_total 2",
            "freshet_clock_offset_ms -4",
            "freshet_dead_letters_dropped_total{source=\"rides\"} 0",
            "freshet_model_version{model=\"late\"} 2",
            "freshet_infer_rows_total{model=\"late\"} 9",
            "freshet_retraining_promoted_total{job=\"retrain\"} 2",
            "process_resident_memory_bytes 1024",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let mut families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = families.len();
        families.dedup();
        assert_eq!(families.len(), all);
    }
}
