//! When a job decides: grid, triggers, cooldown and first runs, case by case.

use super::*;

const DAY: u64 = 86_400_000;

fn job() -> RetrainingDef {
    RetrainingDef {
        name: "j".into(),
        model: 0,
        training_set: 0,
        last_ms: 10 * DAY,
        holdout_ms: DAY,
        gap_ms: 0,
        delay_ms: 0,
        rows_min: 1,
        command: "true".into(),
        timeout_ms: 1000,
        heartbeat_ms: None,
        first_at: Some(Epoch(5 * DAY + 5)),
        triggers: vec![RetrainingTrigger::Every { ms: 20 * DAY }, RetrainingTrigger::Drift { monitor: "m".into() }],
        cooldown_ms: 4 * DAY,
        validation: None,
        grids_ms: vec![DAY],
    }
}

/// What a world of alarms does with a job: the points of its runs and their causes. `result` says how the run of a point ends.
fn runs(def: &RetrainingDef, days: u64, alarms: &[u64], result: impl Fn(Epoch) -> Result<bool, ()>) -> Vec<(Epoch, String)> {
    let (mut state, mut champion, mut found) = (JobState::default(), false, Vec::new());
    let mut at = Epoch(1);
    while let Some(point) = next_point(std::slice::from_ref(def), at).filter(|point| point.0 <= days * DAY) {
        at = point;
        assert!(is_point(def, point));
        let alarm = alarms.contains(&(point.0 / DAY)).then(|| "drift m: it moved".to_string());
        let sight = Sight { begun: Epoch(1), champion, alarms: &[None, alarm] };
        let (next, start) = state.step(def, Event::Point { at: point, sight });
        state = next;
        if let Some(start) = start {
            found.push((point, start.cause));
            let result = result(point);
            champion |= result == Ok(true);
            (state, _) = state.step(def, Event::Ended { skipped: result.is_err() });
        }
    }
    found
}

fn at(points: &[(Epoch, String)]) -> Vec<u64> {
    points.iter().map(|(point, _)| point.0).collect()
}

#[test]
fn the_first_run_is_at_its_instant_and_the_next_at_a_trigger() {
    let found = runs(&job(), 60, &[2, 30, 31, 32], |_| Ok(true));
    let expected = [5 * DAY + 5, 26 * DAY, 30 * DAY, 50 * DAY];
    // 26: twenty days after 5 and a bit; 30: four days later, the cooldown is over, and an alarm; 31 and 32 fall into a cooldown.
    assert_eq!(at(&found), expected);
    let causes: Vec<&str> = found.iter().map(|(_, cause)| cause.as_str()).collect();
    assert_eq!(causes, ["first", "every 20 days", "drift m: it moved", "every 20 days"]);
}

#[test]
fn both_triggers_are_named_and_drift_comes_first() {
    let found = runs(&job(), 26, &[26], |_| Ok(true));
    assert_eq!(found.last().unwrap().1, "drift m: it moved; every 20 days");
}

#[test]
fn a_failed_first_run_is_tried_again_after_the_cooldown_a_skipped_one_at_the_next_point() {
    assert_eq!(at(&runs(&job(), 14, &[], |_| Ok(false))), [5 * DAY + 5, 10 * DAY, 14 * DAY]);
    assert_eq!(at(&runs(&job(), 8, &[], |_| Err(()))), [5 * DAY + 5, 6 * DAY, 7 * DAY, 8 * DAY]);
}

#[test]
fn without_first_at_any_trigger_begins_and_every_counts_from_the_beginning() {
    let job = RetrainingDef { first_at: None, ..job() };
    assert_eq!(at(&runs(&job, 22, &[], |_| Ok(true))), [21 * DAY], "the input begins at 1, so day 20 is one millisecond short");
    assert_eq!(at(&runs(&job, 22, &[3], |_| Ok(true))), [3 * DAY]);
}

#[test]
fn runs_never_lie_closer_than_the_cooldown_and_never_overlap() {
    for cooldown in [0, 1, 3, 7] {
        let job = RetrainingDef { cooldown_ms: cooldown * DAY, ..job() };
        let every_day: Vec<u64> = (0..100).collect();
        let found = at(&runs(&job, 100, &every_day, |point| Ok(point.0 % 3 == 0)));
        assert!(found.windows(2).all(|pair| pair[1] - pair[0] >= cooldown * DAY), "{found:?}");
        assert!(found.len() as u64 >= 94 / cooldown.max(1), "a trigger is only ever held back by the cooldown: {found:?}");
    }
    let busy = JobState { last: None, running: Some(Epoch(DAY)) };
    let sight = Sight { begun: Epoch(1), champion: true, alarms: &[None, Some("drift".into())] };
    assert_eq!(busy.step(&job(), Event::Point { at: Epoch(40 * DAY), sight }), (busy, None));
}

#[test]
fn points_are_the_union_of_the_grids_and_the_first_instants() {
    let jobs =
        [RetrainingDef { grids_ms: vec![6, 10], first_at: Some(Epoch(7)), ..job() }, RetrainingDef { first_at: None, grids_ms: vec![15], ..job() }];
    let mut found = vec![];
    let mut after = Epoch(0);
    while let Some(point) = next_point(&jobs, after).filter(|point| point.0 < 31) {
        found.push(point.0);
        after = point;
    }
    assert_eq!(found, [6, 7, 10, 12, 15, 18, 20, 24, 30]);
    assert!(is_point(&jobs[0], Epoch(7)) && !is_point(&jobs[1], Epoch(7)) && !is_point(&jobs[0], Epoch(15)) && is_point(&jobs[1], Epoch(30)));
    assert_eq!(next_point(&[], Epoch(0)), None);
}

#[test]
fn lengths_read_in_the_largest_unit_that_divides() {
    assert_eq!([DAY, 60 * DAY, 5_400_000, 1_500].map(length), ["1 day", "60 days", "90 minutes", "1500 milliseconds"]);
}
