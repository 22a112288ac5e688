//! C6: logical time stops for decisions, at the same instants whatever the cut, and a decision sees exactly what lies before it.

use std::sync::{Arc, Mutex};

use freshet_core::{ClockKind, Control, ControlOutput, Epoch, Plan, Reader, Result};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_testkit::compare::{assert_same, content_of};
use freshet_testkit::generate::Shape;
use freshet_testkit::interpreter::Content;

use crate::plans::{add_source, source};
use crate::running::{assert_histories, connectors, interpreter, observed};

const GRID_MS: u64 = 10_000;
const CUTS: [StepCut; 4] = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::Rows(16), StepCut::All];

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Decided(Epoch, Content),
    Settled(Epoch),
}

/// Writes down what it could read at each point, and has a run of `delay_ms` at every third.
struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    delay_ms: u64,
    pending: Vec<Epoch>,
}

fn content(reader: &dyn Reader) -> Result<Content> {
    content_of(&reader.snapshot(&["v0"], None)?.views[0])
}

impl Control for Witness {
    fn start(&mut self, _: Option<Epoch>) -> Result<ControlOutput> {
        Ok(ControlOutput::default())
    }

    fn next_point(&self, after: Epoch) -> Option<Epoch> {
        Some(Epoch((after.0 / GRID_MS + 1) * GRID_MS))
    }

    fn decide(&mut self, point: Epoch, reader: &dyn Reader) -> Result<ControlOutput> {
        assert_eq!(reader.frontier(&["v0"])?, point, "everything before the point is complete, the point is not");
        self.seen.lock().unwrap().push(Seen::Decided(point, content(reader)?));
        if (point.0 / GRID_MS).is_multiple_of(3) {
            self.pending.push(Epoch(point.0 + self.delay_ms));
        }
        Ok(ControlOutput::default())
    }

    fn pending(&self) -> Option<Epoch> {
        self.pending.first().copied()
    }

    fn running(&self) -> Vec<(String, Epoch)> {
        Vec::new()
    }

    fn settle(&mut self, epoch: Epoch, _: &dyn Fn() -> bool) -> Result<Option<ControlOutput>> {
        assert_eq!(self.pending.remove(0), epoch);
        self.seen.lock().unwrap().push(Seen::Settled(epoch));
        Ok(Some(ControlOutput::default()))
    }
}

fn witnessed(plan: &Plan, seed: u64, config: EngineConfig, delay_ms: u64) -> Vec<Seen> {
    let input = connectors(plan, seed, &Shape::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let witness = Witness { seen: seen.clone(), delay_ms, pending: Vec::new() };
    let engine = Engine::start_with(plan.clone(), config, &input, Some(Box::new(witness))).unwrap();
    engine.wait().unwrap();
    engine.shutdown().unwrap();
    let seen = seen.lock().unwrap().clone();
    assert_histories("decisions change no rows", plan, &interpreter(plan, &input), &input);
    seen
}

fn plan() -> Plan {
    let mut plan = Plan { clock: ClockKind::Event, ..Plan::default() };
    add_source(&mut plan, source("s"));
    observed(plan)
}

#[test]
fn c6_a_decision_sees_what_lies_before_its_point_whatever_the_cut() {
    let plan = plan();
    for seed in 40..44 {
        let interpreter = interpreter(&plan, &connectors(&plan, seed, &Shape::default()));
        let epochs: Vec<Epoch> = interpreter.history(plan.views[0].node).iter().map(|change| change.1).collect();
        let (first, last) = (*epochs.first().unwrap(), *epochs.last().unwrap());
        let mut before = None;
        for (index, cut) in CUTS.into_iter().enumerate() {
            let config = EngineConfig { workers: [1, 2, 4][index % 3], cut, ..EngineConfig::default() };
            let seen = witnessed(&plan, seed, config, 0);
            let points: Vec<Epoch> = seen.iter().filter_map(|seen| if let Seen::Decided(point, _) = seen { Some(*point) } else { None }).collect();
            let expected = (first.0 / GRID_MS + 1..=(last.0 + 1) / GRID_MS).map(|step| Epoch(step * GRID_MS)).collect::<Vec<_>>();
            assert_eq!(points, expected, "seed {seed}, {cut:?}: every grid point between the first and the last epoch");
            for seen in &seen {
                if let Seen::Decided(point, found) = seen {
                    let expected = interpreter.content(plan.views[0].node, Epoch(point.0 - 1));
                    assert_same(&format!("at {point}, {cut:?}"), seed, &expected, found);
                }
            }
            assert_eq!(before.get_or_insert_with(|| seen.clone()), &seen, "seed {seed}, {cut:?}");
        }
    }
}

#[test]
fn c6_time_waits_for_a_delayed_command_and_goes_on_meanwhile() {
    let plan = plan();
    for cut in CUTS {
        let seen = witnessed(&plan, 45, EngineConfig { cut, ..EngineConfig::default() }, 15_000);
        let settled: Vec<usize> = (0..seen.len()).filter(|index| matches!(seen[*index], Seen::Settled(_))).collect();
        assert!(settled.len() > 2, "{seen:?}");
        for index in settled {
            let Seen::Settled(epoch) = seen[index] else { unreachable!("filtered") };
            // The next point was decided while the run was under way, the one after its epoch was not.
            let decided = |at: u64| seen[..index].iter().any(|seen| matches!(seen, Seen::Decided(point, _) if point.0 == at));
            assert!(decided(epoch.0 - 5_000) || index + 1 == seen.len(), "{cut:?}: time stood still before {epoch}");
            assert!(!decided(epoch.0 + 5_000), "{cut:?}: time went past {epoch}");
        }
    }
}

#[test]
fn only_rows_within_the_limits_are_input() {
    let plan = plan();
    let shape = Shape { late: 0.0, retractions: 0.0, ..Shape::default() };
    let interpreter = interpreter(&plan, &connectors(&plan, 46, &shape));
    let history = interpreter.history(plan.views[0].node);
    let (from, until) = (history[history.len() / 4].1, history[history.len() / 2].1);
    for cut in CUTS {
        let input = connectors(&plan, 46, &shape);
        let config = EngineConfig { cut, from: [("s".to_string(), from)].into(), until: Some(until), ..EngineConfig::default() };
        let engine = Engine::start(plan.clone(), config, &input).unwrap();
        engine.wait().unwrap();
        let found = content(engine.reader().as_ref()).unwrap();
        let mut expected = Content::new();
        for (row, _, diff) in history.iter().filter(|(_, epoch, _)| *epoch >= from && *epoch < until) {
            *expected.entry(row.clone()).or_default() += diff;
        }
        assert_same(&format!("{cut:?}"), 46, &expected, &found);
    }
}

/// Never finishes what it began.
struct Stuck;

impl Control for Stuck {
    fn start(&mut self, _: Option<Epoch>) -> Result<ControlOutput> {
        Ok(ControlOutput::default())
    }

    fn next_point(&self, after: Epoch) -> Option<Epoch> {
        Some(Epoch((after.0 / GRID_MS + 1) * GRID_MS))
    }

    fn decide(&mut self, _: Epoch, _: &dyn Reader) -> Result<ControlOutput> {
        Ok(ControlOutput::default())
    }

    fn pending(&self) -> Option<Epoch> {
        Some(Epoch::ZERO)
    }

    fn running(&self) -> Vec<(String, Epoch)> {
        vec![("stuck".into(), Epoch::ZERO)]
    }

    fn settle(&mut self, _: Epoch, stop: &dyn Fn() -> bool) -> Result<Option<ControlOutput>> {
        while !stop() {
            std::thread::yield_now();
        }
        Ok(None)
    }
}

#[test]
fn a_pipeline_that_waits_for_a_run_can_be_stopped() {
    let plan = plan();
    let input = connectors(&plan, 47, &Shape::default());
    let engine = Engine::start_with(plan.clone(), EngineConfig::default(), &input, Some(Box::new(Stuck))).unwrap();
    assert!(!engine.wait_timeout(std::time::Duration::from_millis(20)).unwrap(), "it waits");
    engine.shutdown().unwrap();
}
