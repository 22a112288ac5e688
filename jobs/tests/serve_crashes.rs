use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{all, tests_folder, text};
use crate::serving::{Serving, kill, rows, write_rides};

const BY_CITY: &str = "SELECT city, rides FROM by_city ORDER BY city";
const RIDES: &str = "SELECT sum(rides) AS rides FROM by_city";
/// Far below what a person would call a pause; an answer through a new process of the command line takes a part of it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Submits `count` rides that are replayed at this rate.
fn submit_replay(serving: &Serving, name: &str, folder: &std::path::Path, count: usize, rate: &str) {
    write_rides(folder, count);
    let (pipeline, data) = (tests_folder().join("pipeline"), format!("data={}", folder.display()));
    let submitted = serving.ask(&["submit", name, pipeline.to_str().unwrap(), "--var", &data, "--events-per-second", rate, "--no-wait"]);
    assert!(submitted.status.success(), "{}", all(&submitted));
}

/// Asks pipeline `name` again and again while `work` goes on; every answer must be there, right and prompt. How many there were.
fn undisturbed(serving: &Serving, name: &str, work: impl FnOnce()) -> u32 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                let started = Instant::now();
                assert_eq!(rows(&serving.sql(Some(name), BY_CITY)), ["Bern,3", "Genf,1"]);
                assert!(started.elapsed() < ANSWER_MAX, "an answer took {:?}", started.elapsed());
                answers += 1;
            }
            answers
        });
        // The asking ends whether the work succeeds or not.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let answers = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answers
    })
}

#[test]
fn a_killed_pipeline_goes_on_from_its_checkpoint_and_disturbs_no_other() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], None);
    assert!(serving.submit_rides("a").status.success());
    serving.wait_for_state("a", "finished");
    submit_replay(&serving, "b", data.path(), 24_000, "2000");
    let answers = undisturbed(&serving, "a", || {
        let shown = serving.wait_until("b", "past its first checkpoint", |shown| shown["durable"].is_u64());
        kill("-KILL", shown["pid"].as_u64().unwrap());
        let crashed = serving.wait_for_state("b", "restarting");
        assert!(crashed["reason"].as_str().unwrap().contains("killed by SIGKILL"), "{crashed}");
        let away = serving.sql(Some("b"), RIDES);
        assert!(text(&away.stderr).contains("pipeline b is") || text(&away.stderr).contains("does not answer"), "{}", all(&away));
        let finished = serving.wait_for_state("b", "finished");
        assert_eq!((&finished["generation"], &finished["restarts"], &finished["events"]), (&2.into(), &1.into(), &24_000.into()));
        assert_eq!(rows(&serving.sql(Some("b"), RIDES)), ["24000"]);
        assert!(serving.logs("b").contains("resumed at 2025-01-01"), "{}", serving.logs("b"));
    });
    assert!(answers > 5, "{answers}");
    assert_eq!((&serving.shown("a")["generation"], &serving.shown("a")["restarts"]), (&1.into(), &0.into()));
}

#[test]
fn a_panicking_pipeline_ends_in_a_crash_loop_that_names_the_record_and_can_be_skipped() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], Some("b:panic@rides:0:15000"));
    assert!(serving.submit_rides("a").status.success());
    serving.wait_for_state("a", "finished");
    submit_replay(&serving, "b", data.path(), 20_000, "2000");
    let answers = undisturbed(&serving, "a", || {
        let looping = serving.wait_for_state("b", "crash_looping");
        let reason = looping["reason"].as_str().unwrap();
        assert!(reason.contains("3 crashes without progress") && reason.contains("aborted (SIGABRT)"), "{reason}");
        assert!(reason.contains("source rides, partition 0, offset 15000") && reason.contains("a fault on purpose"), "{reason}");
        let last = looping["crashes"].as_array().unwrap().last().unwrap();
        assert_eq!(last["batch"], serde_json::json!([{ "source": "rides", "partition": 0, "from": 15_000, "to": 15_000 }]));

        // The last state answers, and /readyz tells.
        serving.wait_until("b", "serving its last state", |shown| shown["flight"].is_string());
        let kept: u64 = rows(&serving.sql(Some("b"), RIDES))[0].parse().unwrap();
        assert!((1..15_000).contains(&kept), "{kept}");
        let ready = serving.get("/readyz");
        assert!(ready.0 == 503 && ready.1.contains("\"state\":\"crash_looping\"") && ready.1.contains("offset 15000"), "{ready:?}");
        assert!(text(&serving.ask(&["pause", "b"]).stderr).contains("its last state is served already"));

        let resumed = serving.ask(&["resume", "b", "--skip-offsets", "rides:0:15000"]);
        assert!(resumed.status.success(), "{}", all(&resumed));
        let finished = serving.wait_for_state("b", "finished");
        assert_eq!(finished["skips"].as_array().unwrap().len(), 1);
        assert_eq!(rows(&serving.sql(Some("b"), RIDES)), ["19999"]);
        let letters = rows(&serving.sql(Some("b"), "SELECT * FROM dead_letters(rides)"));
        assert!(letters.len() == 1 && letters[0].contains("skipped by the operator"), "{letters:?}");
    });
    assert!(answers > 5, "{answers}");
    assert_eq!(serving.get("/readyz").0, 200, "{}", serving.get("/readyz").1);
}

#[test]
fn a_pipeline_without_memory_dies_alone() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], Some("b:memory@rides:0:100"));
    assert!(serving.submit_rides("a").status.success());
    serving.wait_for_state("a", "finished");
    submit_replay(&serving, "b", data.path(), 1_000, "100000");
    undisturbed(&serving, "a", || {
        let looping = serving.wait_for_state("b", "crash_looping");
        let reason = looping["reason"].as_str().unwrap();
        assert!(reason.contains("memory allocation of") && reason.contains("offset 100"), "{reason}");
    });
}

#[test]
fn a_pipeline_that_takes_more_memory_than_it_may_is_ended_alone_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], Some("b:swell@rides:0:100"));
    assert!(serving.submit_rides("a").status.success());
    serving.wait_for_state("a", "finished");
    write_rides(data.path(), 1_000);
    let (pipeline, folder) = (tests_folder().join("pipeline"), format!("data={}", data.path().display()));
    let submit = ["submit", "b", pipeline.to_str().unwrap(), "--var", &folder, "--no-wait", "--memory"];
    let wrong = serving.ask(&[&submit[..], &["much"]].concat());
    assert!(wrong.status.code() == Some(2) && text(&wrong.stderr).contains("is no number of bytes"), "{}", all(&wrong));
    let submitted = serving.ask(&[&submit[..], &["400MiB"]].concat());
    assert!(submitted.status.success(), "{}", all(&submitted));
    undisturbed(&serving, "a", || {
        let looping = serving.wait_for_state("b", "crash_looping");
        let reason = looping["reason"].as_str().unwrap();
        assert!(reason.contains("more than the 400 MiB of --memory") && reason.contains("offset 100"), "{reason}");
    });
    let metrics = serving.get("/metrics").1;
    assert!(metrics.contains("freshet_pipeline_memory_limit_bytes{pipeline=\"b\"} 419430400\n"), "{metrics}");
    assert!(metrics.contains("freshet_pipeline_resident_memory_bytes{pipeline=\"a\"} "), "{metrics}");
}

#[test]
fn a_pipeline_that_hangs_is_started_again() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &["--stuck-after", "5"], Some("b:hang@rides:0:100"));
    submit_replay(&serving, "b", data.path(), 1_000, "1000");
    let stuck = |crash: &Value| crash["status"].as_str().is_some_and(|status| status.contains("it had not got on for 5 s"));
    let restarted = serving.wait_until("b", "started again", |shown| shown["crashes"].as_array().is_some_and(|crashes| crashes.iter().any(stuck)));
    let crash = restarted["crashes"].as_array().unwrap().iter().find(|crash| stuck(crash)).unwrap();
    assert_eq!(crash["batch"][0]["source"], "rides");
}

#[test]
fn a_source_that_cannot_be_opened_is_said_and_can_be_mended() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data.path().join("state"), &[], None);
    let (pipeline, folder) = (tests_folder().join("pipeline"), format!("data={}", data.path().display()));
    let submitted = serving.ask(&["submit", "b", pipeline.to_str().unwrap(), "--var", &folder]);
    assert!(matches!(submitted.status.code(), Some(0 | 1)), "{}", all(&submitted));
    let said = serving.wait_until("b", "telling what is missing", |shown| shown.to_string().contains("rides.jsonl"));
    write_rides(data.path(), 10);
    if said["state"] == "failed" {
        let resumed = serving.ask(&["resume", "b"]);
        assert!(resumed.status.success(), "{}", all(&resumed));
    }
    serving.wait_for_state("b", "finished");
    assert_eq!(rows(&serving.sql(Some("b"), RIDES)), ["10"]);
}
