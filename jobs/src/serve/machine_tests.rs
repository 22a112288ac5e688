//! The life of a served pipeline as a pure machine: events in, actions out, no process and no clock.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::serve::order::ScriptText;

const STUCK: u64 = 60_000;

fn record() -> Record {
    Record {
        submission: Submission {
            name: "taxi".into(),
            directory: PathBuf::from("/"),
            scripts: vec![ScriptText { name: "pipeline.sql".into(), text: "SELECT 1".into() }],
            variables: BTreeMap::new(),
            workers: None,
            events_per_second: None,
            memory_bytes: None,
        },
        desired: Desired::Running,
        generation: 0,
        restarts: 0,
        skips: Vec::new(),
        halt: None,
        crashes: Vec::new(),
        flight: None,
        http: None,
    }
}

fn offsets(from: u64, to: u64) -> Offsets {
    Offsets { source: "rides".into(), partition: 0, from, to }
}

fn left(open: Offsets) -> Left {
    Left { resumed_events: Some(0), batch: vec![open] }
}

fn ready() -> Event {
    Event::Reported(Report::Ready { flight: ([127, 0, 0, 1], 1).into(), http: ([127, 0, 0, 1], 2).into() })
}

fn beat(change: impl FnOnce(&mut Beat)) -> Event {
    let mut beat = Beat { clock: "wall".into(), ..Beat::default() };
    change(&mut beat);
    Event::Reported(Report::Beat(Box::new(beat)))
}

fn killed() -> Event {
    killed_from(Some(0))
}

fn killed_from(resumed_events: Option<u64>) -> Event {
    let left = Left { resumed_events, batch: vec![offsets(120, 340)] };
    Event::Exited(Ending { status: "killed by SIGKILL".into(), words: "the end".into(), left, cause: Cause::Crash })
}

fn exited() -> Event {
    Event::Exited(Ending { status: "exit code 0".into(), words: String::new(), left: Left::default(), cause: Cause::Clean })
}

/// A pipeline that answers, at time 0.
fn running() -> Machine {
    let mut machine = Machine::new(record(), STUCK, 0);
    assert_eq!(machine.step(Event::Begin, 0).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
    assert_eq!(machine.phase, Phase::Starting);
    machine.step(ready(), 0).unwrap();
    assert_eq!(machine.phase, Phase::Running);
    machine
}

#[test]
fn a_crash_is_followed_by_a_restart_after_one_second() {
    let mut machine = running();
    assert_eq!(machine.step(killed(), 100).unwrap(), [Action::Save]);
    assert_eq!(machine.phase, Phase::Restarting);
    assert_eq!(machine.reason.as_deref(), Some("killed by SIGKILL, while computing source rides, partition 0, offsets 120–340: the end"));
    assert!(machine.step(Event::Tick, 1_099).unwrap().is_empty());
    assert_eq!(machine.step(Event::Tick, 1_100).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
    assert_eq!((machine.record.generation, machine.record.restarts), (2, 1));
    assert_eq!(machine.suspects(), (vec![offsets(120, 340)], Some(64)));
}

#[test]
fn three_crashes_without_progress_are_a_crash_loop_that_serves_the_last_state() {
    let mut machine = running();
    let mut now = 0;
    for crash in 1..=3_u64 {
        assert_eq!(machine.record.restarts, crash - 1);
        let actions = machine.step(killed(), now).unwrap();
        if crash == 3 {
            assert_eq!(actions, [Action::Save, Action::Start(Mode::ServeOnly)]);
            break;
        }
        now += BACKOFF_MS_MAX;
        assert_eq!(machine.step(Event::Tick, now).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
        assert_eq!(machine.suspects().1, Some(if crash == 1 { 64 } else { 1 }));
        machine.step(ready(), now).unwrap();
    }
    assert_eq!(machine.phase, Phase::CrashLooping);
    assert!(machine.reason.as_deref().unwrap().contains("3 crashes without progress"));
    assert!(machine.step(Event::Pause, now).unwrap_err().contains("crash_looping"));
    machine.step(ready(), now).unwrap();
    assert_eq!(machine.phase, Phase::CrashLooping);

    // A supervisor that starts anew leaves it as it is.
    let mut again = Machine::new(machine.record.clone(), STUCK, now + 9);
    assert_eq!(again.step(Event::Begin, now + 9).unwrap(), [Action::Save, Action::Start(Mode::ServeOnly)]);
    assert_eq!((again.phase, again.since), (Phase::CrashLooping, now));

    // The operator takes the batch out.
    assert_eq!(machine.step(Event::Resume(vec![offsets(120, 340)]), now).unwrap(), [Action::Save, Action::TellStop]);
    assert_eq!(machine.step(exited(), now).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
    assert_eq!((machine.phase, machine.record.skips.clone()), (Phase::Starting, vec![offsets(120, 340)]));
    assert_eq!(machine.suspects(), (Vec::new(), None));
}

#[test]
fn progress_or_a_minute_of_health_begins_the_count_anew() {
    for healthy in [false, true] {
        let mut machine = running();
        let mut now = 0;
        for crash in 0..10_u64 {
            now += if healthy { HEALTHY_MS } else { 0 };
            machine.step(killed_from(Some(if healthy { 0 } else { crash })), now).unwrap();
            assert_eq!(machine.phase, Phase::Restarting, "{healthy} {crash}");
            now += BACKOFF_MS_MAX;
            machine.step(Event::Tick, now).unwrap();
            machine.step(ready(), now).unwrap();
        }
    }
}

#[test]
fn a_crash_before_anything_was_restored_is_no_progress_and_hides_none() {
    let mut machine = running();
    let mut now = 0;
    for (resumed, phase) in [(None, Phase::Restarting), (Some(600), Phase::Restarting), (None, Phase::CrashLooping)] {
        machine.step(killed_from(resumed), now).unwrap();
        assert_eq!(machine.phase, phase);
        now += BACKOFF_MS_MAX;
        machine.step(Event::Tick, now).unwrap();
    }
    let mut machine = running();
    for (crash, resumed) in [Some(600), None, Some(601), None, Some(602)].into_iter().enumerate() {
        machine.step(killed_from(resumed), now).unwrap();
        assert_eq!(machine.phase, Phase::Restarting, "{crash}");
        now += BACKOFF_MS_MAX;
        machine.step(Event::Tick, now).unwrap();
    }
}

#[test]
fn what_is_away_at_the_start_is_tried_for_ever_with_growing_waits() {
    let mut machine = Machine::new(record(), STUCK, 0);
    machine.step(Event::Begin, 0).unwrap();
    let mut now = 0;
    for (tries, wait) in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].into_iter().enumerate() {
        machine.step(Event::Reported(Report::Failed { kind: "unavailable".into(), message: "no broker".into() }), now).unwrap();
        machine
            .step(Event::Exited(Ending { status: "exit code 1".into(), words: "no broker".into(), left: Left::default(), cause: Cause::Crash }), now)
            .unwrap();
        assert_eq!(machine.phase, Phase::Restarting, "{tries}");
        assert!(machine.step(Event::Tick, now + wait - 1).unwrap().is_empty());
        assert!(!machine.step(Event::Tick, now + wait).unwrap().is_empty());
        now += wait;
    }
}

#[test]
fn what_would_end_the_same_way_is_not_started_again() {
    let mut machine = running();
    let wrong = Ending { status: "exit code 2".into(), words: "error: no such column".into(), left: Left::default(), cause: Cause::Final };
    assert_eq!(machine.step(Event::Exited(wrong), 5).unwrap(), [Action::Save, Action::Start(Mode::ServeOnly)]);
    assert_eq!(machine.phase, Phase::Failed);
    // It cannot even serve: a few tries, then the reason says so.
    let mut now = 5;
    for _ in 0..3 {
        machine.step(exited(), now).unwrap();
        now += BACKOFF_MS_MAX;
        machine.step(Event::Tick, now).unwrap();
    }
    assert!(machine.child.is_none());
    assert!(machine.reason.as_deref().unwrap().contains("its last state cannot be served"), "{:?}", machine.reason);
}

#[test]
fn a_paused_pipeline_keeps_its_child_and_a_resumed_one_gets_a_new_generation() {
    let mut machine = running();
    assert_eq!(machine.step(Event::Pause, 1).unwrap(), [Action::Save, Action::TellPause]);
    machine.step(Event::Reported(Report::Paused), 2).unwrap();
    assert_eq!((machine.phase, machine.child.is_some()), (Phase::Paused, true));
    assert!(machine.step(Event::Pause, 3).unwrap().is_empty());
    assert_eq!(machine.step(Event::Resume(Vec::new()), 4).unwrap(), [Action::Save, Action::TellStop]);
    assert_eq!(machine.step(exited(), 5).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
    assert_eq!(machine.record.generation, 2);

    // Paused, it survives its child and its supervisor.
    let mut machine = running();
    machine.step(Event::Pause, 1).unwrap();
    assert_eq!(machine.step(killed(), 2).unwrap(), [Action::Save, Action::Start(Mode::ServeOnly)]);
    assert_eq!(machine.phase, Phase::Paused);
    let mut again = Machine::new(machine.record, STUCK, 9);
    assert_eq!(again.step(Event::Begin, 9).unwrap(), [Action::Save, Action::Start(Mode::ServeOnly)]);
    assert_eq!(again.phase, Phase::Paused);
}

#[test]
fn stop_and_leave_end_the_child_and_only_stop_is_remembered() {
    let mut machine = running();
    assert_eq!(machine.step(Event::Leave, 1).unwrap(), [Action::Save, Action::TellStop]);
    assert_eq!(machine.step(exited(), 2).unwrap(), [Action::Done]);
    assert_eq!(machine.record.desired, Desired::Running);

    let mut machine = running();
    assert_eq!(machine.step(Event::Stop, 1).unwrap(), [Action::Save, Action::TellStop]);
    assert_eq!(machine.step(Event::Stop, 1).unwrap(), [Action::Save], "told twice it would end without a checkpoint");
    assert_eq!(machine.step(Event::Tick, STOP_MS_MAX + 1).unwrap(), [Action::Kill]);
    assert!(machine.step(Event::Tick, STOP_MS_MAX + 2).unwrap().is_empty());
    machine.step(killed(), STOP_MS_MAX + 3).unwrap();
    assert_eq!((machine.phase, machine.record.desired), (Phase::Stopped, Desired::Stopped));
    assert!(machine.reason.as_deref().unwrap().contains("without its last checkpoint: killed by SIGKILL"), "{:?}", machine.reason);
    assert_eq!(machine.step(Event::Leave, 9).unwrap(), [Action::Done]);

    let mut machine = running();
    machine.step(Event::Stop, 1).unwrap();
    machine.step(exited(), 2).unwrap();
    assert_eq!((machine.phase, machine.reason), (Phase::Stopped, None));
}

#[test]
fn nobody_takes_a_pipeline_for_stopped_before_it_has_begun() {
    let before = |desired| Machine::new(Record { desired, ..record() }, STUCK, 0).phase;
    assert_eq!([Desired::Running, Desired::Paused, Desired::Stopped].map(before), [Phase::Starting, Phase::Paused, Phase::Stopped]);
}

#[test]
fn a_clock_that_is_set_and_a_supervisor_that_was_stopped_kill_nobody() {
    for jump in [3_600_000, -3_600_000] {
        let mut machine = running();
        let start = 10_000_000;
        machine.step(Event::Jumped(start), start as u64).unwrap();
        let now = (start + jump) as u64;
        machine.step(Event::Jumped(jump), now).unwrap();
        assert!(machine.step(Event::Tick, now + STUCK - 1).unwrap().is_empty(), "{jump}");
        assert_eq!(machine.step(Event::Tick, now + STUCK).unwrap(), [Action::Kill], "{jump}");
        // And what waits for its restart waits no longer than before.
        machine.step(killed(), now + STUCK).unwrap();
        machine.step(Event::Jumped(-jump), start as u64 + STUCK).unwrap();
        assert!(machine.step(Event::Tick, start as u64 + STUCK + BACKOFF_MS_MIN - 1).unwrap().is_empty());
        assert_eq!(machine.step(Event::Tick, start as u64 + STUCK + BACKOFF_MS_MIN).unwrap(), [Action::Save, Action::Start(Mode::Run)]);
    }
}

#[test]
fn a_system_that_gives_no_process_is_no_crash_of_the_pipeline() {
    let refused = || {
        let status = "it cannot be started: no space left on device".to_string();
        Event::Exited(Ending { status, words: String::new(), left: Left::default(), cause: Cause::NotStarted })
    };
    for begun in [record(), Record { desired: Desired::Paused, ..record() }] {
        let mut machine = Machine::new(begun, STUCK, 0);
        machine.step(Event::Begin, 0).unwrap();
        for now in (0..10).map(|time| time * BACKOFF_MS_MAX) {
            machine.step(refused(), now).unwrap();
            assert!(matches!(machine.phase, Phase::Restarting | Phase::Paused), "{:?}", machine.phase);
            assert!(machine.child.is_none());
            machine.step(Event::Tick, now + BACKOFF_MS_MAX).unwrap();
            assert!(machine.child.is_some(), "it is tried again for ever");
        }
    }
}

#[test]
fn a_generation_that_is_silent_or_does_not_get_on_is_replaced() {
    let mut silent = running();
    assert!(silent.step(Event::Tick, STUCK - 1).unwrap().is_empty());
    assert_eq!(silent.step(Event::Tick, STUCK).unwrap(), [Action::Kill]);
    silent.step(killed(), STUCK).unwrap();
    assert!(silent.reason.as_deref().unwrap().contains("had not been heard of for 60 s"), "{:?}", silent.reason);

    for (waits, killed) in [(false, true), (true, false)] {
        let mut machine = running();
        let mut actions = Vec::new();
        for second in 0..=60 {
            machine.step(beat(|beat| (beat.open_steps, beat.closed, beat.waits) = (3, Some(7), waits)), second * 1_000).unwrap();
            actions = machine.step(Event::Tick, second * 1_000).unwrap();
        }
        assert_eq!(actions.contains(&Action::Kill), killed);
    }
    // In event clock nothing happens without input, but it is asked for.
    for asks in [true, false] {
        let mut idle = running();
        let mut killed = false;
        for second in 0..=90 {
            let polls = if asks { second } else { 0 };
            idle.step(beat(|beat| (beat.clock, beat.closed, beat.polls) = ("event".into(), Some(7), polls)), second * 1_000).unwrap();
            killed |= idle.step(Event::Tick, second * 1_000).unwrap().contains(&Action::Kill);
        }
        assert_eq!(killed, !asks);
    }

    let mut slow = Machine::new(record(), STUCK, 0);
    slow.step(Event::Begin, 0).unwrap();
    for second in 0..=600 {
        slow.step(Event::Reported(Report::Starting), second * 1_000).unwrap();
        assert_eq!(slow.step(Event::Tick, second * 1_000).unwrap() == [Action::Kill], second == 600, "{second}");
    }
}

#[test]
fn a_generation_that_takes_more_memory_than_it_may_is_ended_once_and_says_so() {
    let mut record = record();
    record.submission.memory_bytes = Some(256 << 20);
    let mut machine = Machine::new(record, STUCK, 0);
    machine.step(Event::Begin, 0).unwrap();
    machine.step(ready(), 10).unwrap();
    assert_eq!(machine.step(Event::Resident(256 << 20), 20).unwrap(), []);
    assert_eq!(machine.step(Event::Resident(300 << 20), 30).unwrap(), [Action::Kill]);
    assert_eq!(machine.step(Event::Resident(310 << 20), 40).unwrap(), [], "it is being ended");
    let ending = Ending { status: "killed by SIGKILL".into(), words: String::new(), left: left(offsets(3, 9)), cause: Cause::Crash };
    machine.step(Event::Exited(ending), 50).unwrap();
    let reason = machine.reason.clone().unwrap();
    assert_eq!(machine.phase, Phase::Restarting);
    assert!(reason.contains("it took 300 MiB of memory, more than the 256 MiB of --memory") && reason.contains("offsets 3–9"), "{reason}");
}
