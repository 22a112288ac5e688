//! What the text says about when to train is what happens: another EVERY, COOLDOWN or threshold makes other runs.

use serde_json::Value;

use crate::small_loop::{Month, RUNS};

#[test]
fn another_schedule_cooldown_or_threshold_in_the_text_makes_other_runs() {
    let month = Month::open();
    let runs = |name: &str, edits: &[(&str, &str)]| month.setting(name, edits).run(&[RUNS]).remove(0);
    let base = runs("base", &[]);
    assert_eq!(base[0]["cause"], "first");
    assert!(causes(&base).any(|cause| cause.contains("psi(p_late)")), "{base:?}");
    assert!(gaps(&base).iter().all(|gap| *gap >= 3), "{base:?}");

    let quiet = runs("quiet", &[("psi(p_late) > 0.1 FOR 3", "psi(p_late) > 1000 FOR 3")]);
    assert!(causes(&quiet).skip(1).all(|cause| cause.contains("every")), "{quiet:?}");
    assert!(quiet.len() >= 2 && gaps(&quiet).iter().all(|gap| *gap >= 6), "{quiet:?}");

    let often = runs("often", &[("psi(p_late) > 0.1 FOR 3", "psi(p_late) > 1000 FOR 3"), ("EVERY INTERVAL '7 days'", "EVERY INTERVAL '4 days'")]);
    assert!(often.len() > quiet.len(), "{often:?}");

    let patient = runs("patient", &[("COOLDOWN INTERVAL '3 days'", "COOLDOWN INTERVAL '10 days'")]);
    assert!(patient.len() < base.len() && gaps(&patient).iter().all(|gap| *gap >= 9), "{patient:?}");
}

fn causes(runs: &[Value]) -> impl Iterator<Item = &str> {
    runs.iter().map(|run| run["cause"].as_str().unwrap())
}

/// Whole days between one run and the next: all are in January.
fn gaps(runs: &[Value]) -> Vec<i64> {
    let day = |run: &Value| run["decided_at"].as_str().unwrap()[8..10].parse::<i64>().unwrap();
    runs.windows(2).map(|pair| day(&pair[1]) - day(&pair[0])).collect()
}
