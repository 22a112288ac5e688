//! The live line of a run. In: the pipeline's status, a few times a second, and what is watched beside it. Out: on a terminal one line that
//! is written over, elsewhere a line every few seconds.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use freshet_core::PipelineStatus;
use freshet_serving::epoch_date;

use crate::watch::Watched;

/// How often the line is written: often enough to look alive, and now and then in a log.
const EVERY_ON_TERMINAL: Duration = Duration::from_millis(250);
const EVERY_IN_LOG: Duration = Duration::from_secs(5);

pub struct Progress {
    terminal: bool,
    shown: bool,
    started: Instant,
    watched: Watched,
}

impl Progress {
    /// None if nobody looks: stderr is no terminal and `wanted` is false.
    pub fn new(wanted: bool, watched: Watched) -> Option<Progress> {
        let terminal = std::io::stderr().is_terminal();
        (terminal || wanted).then(|| Progress { terminal, shown: false, started: Instant::now(), watched })
    }

    pub fn every(&self) -> Duration {
        if self.terminal { EVERY_ON_TERMINAL } else { EVERY_IN_LOG }
    }

    pub fn show(&mut self, status: &PipelineStatus, events_per_second: f64) {
        let mut texts = vec![line(status, self.started.elapsed(), events_per_second)];
        texts.extend(self.watched.texts());
        let line = texts.join(" · ");
        let mut out = std::io::stderr().lock();
        // Line wrap is off meanwhile: a line longer than the terminal is cut, for a wrapped one cannot be written over.
        // A terminal that is gone is no reason to stop the pipeline.
        let _ = if self.terminal { write!(out, "\r\x1b[2K\x1b[?7l{line}\x1b[?7h") } else { writeln!(out, "{line}") };
        let _ = out.flush();
        self.shown = true;
    }

    /// Leaves the line standing, so that what follows begins on its own.
    pub fn end(&self) {
        if self.terminal && self.shown {
            eprintln!();
        }
    }
}

/// A line on stderr from elsewhere. On a terminal it takes the place of the live line, which comes again below it.
pub fn print_apart(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{}", apart(text, out.is_terminal()));
}

fn apart(text: &str, terminal: bool) -> String {
    if terminal { format!("\r\x1b[K{text}") } else { text.to_string() }
}

/// `1,018,758 events · 2013-12-31 23:59 · 123,456/s · 12 s · finished · arrival_delay v7 · 11 runs, 7 promoted`.
fn line(status: &PipelineStatus, elapsed: Duration, events_per_second: f64) -> String {
    let closed = status.views.iter().map(|view| view.closed).min().flatten().unwrap_or(status.epoch);
    let date = epoch_date(closed).map_or_else(|| "no date yet".to_string(), |date| date[..16].replace('T', " "));
    let waiting = status.sources.iter().filter(|source| !source.ended).count();
    let state = if status.finished { "finished".to_string() } else { format!("{waiting} of {} sources open", status.sources.len()) };
    let mut line =
        format!("{} events · {date} · {}/s · {} s · {state}", grouped(status.events), grouped(events_per_second as u64), elapsed.as_secs());
    for model in &status.models {
        let live = model.live.map_or_else(|| "no version yet".to_string(), |version| format!("v{version}"));
        line.push_str(&format!(" · {} {live}", model.name));
    }
    for job in &status.jobs {
        let noun = if job.runs == 1 { "run" } else { "runs" };
        line.push_str(&format!(" · {} {noun}, {} promoted", job.runs, job.promoted));
        if let Some(since) = job.running.and_then(epoch_date) {
            line.push_str(&format!(", training as of {}", &since[..10]));
        }
    }
    line
}

/// Says that a run does not begin at the beginning, so that nobody wonders where the events went.
pub fn resumption(status: &PipelineStatus, data_dir: &std::path::Path) -> Option<String> {
    let (epoch, before) = status.resumed?;
    let date = epoch_date(epoch).map_or_else(|| epoch.to_string(), |date| date[..16].replace('T', " "));
    Some(format!("resumed at {date}, after {} events; state in {} (delete it to begin anew)", grouped(before), data_dir.display()))
}

/// What a person wants to know at the end, one fact a line.
pub fn summary(status: &PipelineStatus, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let events = status.events - status.resumed.map_or(0, |(_, before)| before);
    let mut text = format!("{} events in {seconds:.1} s ({}/s)\n", grouped(events), grouped((events as f64 / seconds.max(1e-3)) as u64));
    for source in &status.sources {
        for (reason, count) in &source.dead_letters {
            text.push_str(&format!("source {}: {} dead letters: {reason}\n", source.name, grouped(*count)));
        }
        if source.late_rows > 0 {
            text.push_str(&format!("source {}: {} rows came too late\n", source.name, grouped(source.late_rows)));
        }
    }
    for view in status.views.iter().filter(|view| view.errors > 0) {
        text.push_str(&format!("view {}: {} error rows\n", view.name, grouped(view.errors)));
    }
    text
}

/// 1018758 as 1,018,758.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use freshet_core::{Epoch, JobStatus, ModelStatus, SourceStatus, ViewStatus};

    use super::*;

    #[test]
    fn the_line_tells_events_date_rate_and_what_is_open() {
        let status = PipelineStatus {
            events: 1_018_758,
            views: vec![ViewStatus { closed: Some(Epoch(1_357_034_400_000)), ..ViewStatus::default() }],
            sources: vec![SourceStatus { name: "rides".into(), dead_letters: vec![("not JSON".into(), 2)], ..SourceStatus::default() }],
            ..PipelineStatus::default()
        };
        assert_eq!(line(&status, Duration::from_secs(12), 1234.0), "1,018,758 events · 2013-01-01 10:00 · 1,234/s · 12 s · 1 of 1 sources open");
        assert_eq!(summary(&status, Duration::from_secs(10)), "1,018,758 events in 10.0 s (101,875/s)\nsource rides: 2 dead letters: not JSON\n");
    }

    #[test]
    fn a_line_from_elsewhere_clears_the_live_line_of_a_terminal_only() {
        assert_eq!(apart("run r-1: first", true), "\r\x1b[Krun r-1: first");
        assert_eq!(apart("run r-1: first", false), "run r-1: first");
    }

    #[test]
    fn models_and_jobs_tell_what_is_live_and_what_runs() {
        let mut status = PipelineStatus {
            models: vec![ModelStatus { name: "delay".into(), ..ModelStatus::default() }],
            jobs: vec![JobStatus { name: "retrain".into(), runs: 2, promoted: 1, running: Some(Epoch(1_357_034_400_000)), ..JobStatus::default() }],
            ..PipelineStatus::default()
        };
        let text = |status: &PipelineStatus| line(status, Duration::ZERO, 0.0);
        assert!(text(&status).ends_with(" · delay no version yet · 2 runs, 1 promoted, training as of 2013-01-01"), "{}", text(&status));
        (status.models[0].live, status.jobs[0].running) = (Some(3), None);
        assert!(text(&status).ends_with(" · delay v3 · 2 runs, 1 promoted"), "{}", text(&status));
    }
}
