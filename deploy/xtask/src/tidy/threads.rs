//! Threads meet in one place of the engine. In: code without text. Out: a failure for each channel, lock, atomic or thread named elsewhere.

use super::Report;
use super::code::{line_of, words};

const WORDS: [&str; 11] =
    ["Mutex", "RwLock", "Condvar", "Barrier", "JoinHandle", "mpsc", "sync_channel", "crossbeam", "crossbeam_channel", "parking_lot", "OnceLock"];

pub fn check(path: &str, code: &str, report: &mut Report) {
    if !path.starts_with("engine/src/") || path.starts_with("engine/src/bridge/") || path == "engine/src/metrics.rs" {
        return;
    }
    for (at, word) in words(code) {
        if WORDS.contains(&word) || word.starts_with("Atomic") || is_thread_module(code, at, word) {
            let place = format!("{path}:{}", line_of(code, at));
            report.fail(&place, format!("`{word}`: threads, channels, locks and atomics live in engine/src/bridge and engine/src/metrics.rs only"));
        }
    }
}

/// `std::thread` or `thread::…`, not a variable of that name.
fn is_thread_module(code: &str, at: usize, word: &str) -> bool {
    word == "thread" && (code[..at].ends_with("::") || code[at + word.len()..].starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(path: &str, code: &str) -> usize {
        let mut report = Report::default();
        check(path, code, &mut report);
        report.failures.len()
    }

    #[test]
    fn operators_name_no_lock_atomic_channel_or_thread() {
        for code in ["use std::sync::Mutex;", "let n = AtomicU64::new(0);", "std::sync::mpsc::channel()", "use std::thread;", "thread::spawn(f)"] {
            assert_eq!(failures("engine/src/operators/join.rs", code), 1, "{code}");
        }
    }

    #[test]
    fn the_bridge_the_metrics_and_other_crates_may() {
        for path in ["engine/src/bridge/ingest.rs", "engine/src/metrics.rs", "jobs/src/node.rs"] {
            assert_eq!(failures(path, "use std::sync::Mutex;"), 0, "{path}");
        }
        assert_eq!(failures("engine/src/worker.rs", "let thread = 1;"), 0);
    }
}
