//! One case of the random queries: runs it, and says whether engine, interpreter and DataFusion agree on its rows and its error rows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use freshet_core::{Epoch, NodeId, Op, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::{Program, batch, compile};
use freshet_testkit::compare::{content_of, roughly_same, show};
use freshet_testkit::faults::{Changes, Errors, Fault};
use freshet_testkit::queries::Case;
use freshet_testkit::{Interpreter, MemoryConnectors, RawRecord};

use crate::given::script;
use crate::three_way::{changes, interpreter, tables_at};

/// No case is so large that it takes longer, unless it hangs.
const FINISH_MAX: Duration = Duration::from_secs(30);
/// Of epochs that DataFusion is asked about.
const BATCH_EPOCHS_MAX: usize = 3;
/// Of epochs at which error rows are compared.
const ERROR_EPOCHS_MAX: usize = 4;
/// All of it is kept, so that any epoch can be asked about at the end.
const HISTORY_MS: u64 = 1 << 40;

pub enum Outcome {
    Refused(String),
    /// What else was compared: whether DataFusion was asked, and how many error rows there were.
    Held {
        with_batch: bool,
        errors: usize,
    },
    Failed(String),
}

/// What a view and its error rows are.
#[derive(Clone)]
struct Found {
    changes: Changes,
    errors: Errors,
}

/// Compiled with a sink on the view.
pub fn program_of(case: &Case) -> Result<Program, String> {
    compile(&[script("case.sql", &case.script())], &BTreeMap::new(), &MemoryConnectors::new(0)).map_err(|error| error.message)
}

fn connectors(case: &Case, records: &BTreeMap<String, Vec<RawRecord>>) -> MemoryConnectors {
    records.iter().fold(MemoryConnectors::new(case.seed), |connectors, (name, records)| connectors.with_source(name, records.clone()))
}

/// A case with its program, and the answer of the interpreter.
pub struct Asked {
    program: Program,
    input: MemoryConnectors,
    interpreter: Interpreter,
    expected: Found,
}

/// Makes the records of a case where it has none yet. Errors: it is refused, or something is wrong already.
pub fn ask(case: &mut Case) -> Result<Asked, Outcome> {
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let program = program_of(case).map_err(|reason| match reason.contains("the planner failed") {
            true => Outcome::Failed(reason),
            false => Outcome::Refused(reason),
        })?;
        if case.records.is_empty() {
            case.fill(&program.plan);
        }
        let input = connectors(case, &case.records);
        let interpreter = interpreter(&program.plan, &input);
        let view = program.plan.view("v").unwrap().node;
        let epochs = asked_epochs(&interpreter, view, ERROR_EPOCHS_MAX);
        let errors = epochs.iter().map(|epoch| (*epoch, expected_errors(&interpreter, view, *epoch))).collect();
        let expected = Found { changes: interpreter.history(view), errors };
        Ok(Asked { program, input, interpreter, expected })
    }));
    asked.unwrap_or_else(|panic| Err(Outcome::Failed(words_of(panic))))
}

/// Whether all agree.
pub fn outcome(case: &mut Case) -> Outcome {
    match ask(case) {
        Ok(asked) => catch_unwind(AssertUnwindSafe(|| asked.outcome(case))).unwrap_or_else(|panic| Outcome::Failed(words_of(panic))),
        Err(outcome) => outcome,
    }
}

/// What is found of a mistake in the engine, if anything.
pub fn seen(case: &Case, asked: &Asked, fault: Fault) -> Option<String> {
    let seen = catch_unwind(AssertUnwindSafe(|| asked.seen(case, fault)));
    seen.unwrap_or_else(|panic| Some(words_of(panic)))
}

fn words_of(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    format!("a panic: {}", text.unwrap_or_default())
}

impl Asked {
    fn outcome(&self, case: &Case) -> Outcome {
        let errors = self.expected.errors.last().map_or(0, |(_, errors)| errors.len());
        let compared = engine_answer(case, self.program.plan.clone(), &case.records, &self.expected, None)
            .and_then(|found| self.expected.compare(&found))
            .and_then(|()| batch_differs(case, &self.program, &self.interpreter, &self.input));
        match compared {
            Ok(with_batch) => Outcome::Held { with_batch, errors },
            Err(reason) => Outcome::Failed(reason),
        }
    }

    fn seen(&self, case: &Case, fault: Fault) -> Option<String> {
        let (mut plan, mut records) = (self.program.plan.clone(), case.records.clone());
        let runs = fault == Fault::LostCheckpointEntry || fault.in_plan(&mut plan) || fault.in_input(&self.program.plan, &mut records);
        let mut found = match runs {
            true => match engine_answer(case, plan, &records, &self.expected, Some(fault)) {
                Ok(found) => found,
                Err(reason) => return Some(reason),
            },
            false => self.expected.clone(),
        };
        fault.in_output(&mut found.changes);
        fault.in_errors(&mut found.errors);
        found.changes.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        self.expected.compare(&found).err()
    }
}

impl Found {
    fn compare(&self, found: &Found) -> Result<(), String> {
        if self.changes != found.changes {
            return Err(difference(&self.changes, &found.changes));
        }
        match self.errors.iter().zip(&found.errors).find(|(expected, found)| expected != found) {
            Some(((epoch, expected), (_, found))) => Err(format!("error rows differ: at {epoch} expected {expected:?}, found {found:?}")),
            None => Ok(()),
        }
    }
}

/// So many epochs at which the view may change, the last among them.
fn asked_epochs(interpreter: &Interpreter, view: NodeId, count: usize) -> Vec<Epoch> {
    let epochs: Vec<Epoch> = interpreter.relevant_epochs(view).into_iter().filter(|epoch| *epoch <= interpreter.end()).collect();
    let stride = (epochs.len() / count).max(1);
    let mut asked: Vec<Epoch> = epochs.iter().rev().step_by(stride).copied().collect();
    asked.reverse();
    asked
}

/// What failed in a view's operators: an operator that two others read is counted for each.
fn expected_errors(interpreter: &Interpreter, node: NodeId, epoch: Epoch) -> BTreeMap<(String, String), i64> {
    let mut errors = BTreeMap::new();
    let mut count = |field: String, message: String, times: i64| *errors.entry((field, message)).or_insert(0) += times;
    for (error, times) in interpreter.errors(node, epoch) {
        count(error.field, error.message, times);
    }
    let definition = interpreter.plan().node(node);
    if let Op::Source { source } = definition.op {
        let stray = interpreter.unmatched(source).iter().filter(|(_, at)| *at <= epoch).count();
        (0..stray).for_each(|_| count(String::new(), "a retraction found no live row to take out".into(), 1));
    }
    for input in &definition.inputs {
        for ((field, message), times) in expected_errors(interpreter, *input, epoch) {
            count(field, message, times);
        }
    }
    errors
}

/// The error rows of the view at an epoch, as readers see them.
fn errors_at(engine: &Engine, epoch: Epoch) -> BTreeMap<(String, String), i64> {
    let snapshot = engine.reader().snapshot(&["errors(v)"], Some(epoch)).unwrap();
    let mut errors = BTreeMap::new();
    for row in snapshot.views[0].iter().flat_map(|batch| Value::rows_of(&batch.project(&[1, 2]).unwrap()).unwrap()) {
        let text = |value: &Value| if let Value::Text(text) = value { text.clone() } else { String::new() };
        *errors.entry((text(&row[0]), text(&row[1]))).or_insert(0) += 1;
    }
    errors
}

/// What the engine gives, in a way of running that the seed decides.
fn engine_answer(
    case: &Case,
    plan: freshet_core::Plan,
    records: &BTreeMap<String, Vec<RawRecord>>,
    expected: &Found,
    fault: Option<Fault>,
) -> Result<Found, String> {
    let (seed, connectors) = (case.seed as usize, connectors(case, records));
    let workers = |shift: usize| [1, 2, 4][(seed / 2 + shift) % 3];
    let cut = [StepCut::Epochs(1), StepCut::Epochs(7), StepCut::All, StepCut::Rows(10)][seed % 4];
    let config = EngineConfig { workers: workers(0), cut, history_ms: HISTORY_MS, ..EngineConfig::default() };
    let epochs: Vec<Epoch> = expected.changes.iter().map(|change| change.1).collect();
    let restored = seed.is_multiple_of(3) || fault == Some(Fault::LostCheckpointEntry);
    let stop = epochs.get(epochs.len() / 2).filter(|_| restored).copied();
    let folder = tempfile::tempdir().unwrap();
    let run = |config: EngineConfig, to_end: bool| -> Result<Errors, String> {
        let how = format!("with {} workers, {:?}", config.workers, config.cut);
        let engine = Engine::start(plan.clone(), config, &connectors).map_err(|error| format!("the engine does not start: {}", error.message))?;
        match engine.wait_timeout(FINISH_MAX) {
            Ok(false) if to_end => {
                // Its threads may never end; nobody waits for them.
                std::mem::forget(engine);
                Err(format!("the engine does not end, {how}"))
            }
            Ok(_) => {
                let asked = expected.errors.iter().filter(|_| to_end);
                let errors = asked.map(|(epoch, _)| (*epoch, errors_at(&engine, *epoch))).collect();
                engine.shutdown().map_err(|error| format!("the engine failed, {how}: {}", error.message))?;
                Ok(errors)
            }
            Err(error) => Err(format!("the engine failed, {how}: {}", error.message)),
        }
    };
    let errors = match stop {
        Some(stop) => {
            let config = EngineConfig { data_dir: Some(folder.path().to_path_buf()), ..config };
            run(EngineConfig { stop_after: Some(stop), ..config.clone() }, false)?;
            if let Some(fault) = fault {
                fault.in_checkpoint(folder.path());
            }
            run(EngineConfig { workers: workers(1), ..config }, true)?
        }
        None => run(config, true)?,
    };
    Ok(Found { changes: changes(&connectors), errors })
}

fn difference(history: &Changes, found: &Changes) -> String {
    let of = |changes: &Changes, row: &Vec<freshet_core::Value>| {
        changes.iter().filter(|change| change.0 == *row).map(|change| format!("{} at {}", change.2, change.1)).collect::<Vec<_>>().join(", ")
    };
    let first = history.iter().find(|change| !found.contains(change)).or_else(|| found.iter().find(|change| !history.contains(change)));
    let Some((row, ..)) = first else { return "changes come in another order".into() };
    format!("engine and interpreter differ: of ({}) expected [{}], found [{}]", show(row), of(history, row), of(found, row))
}

/// Whether DataFusion was asked. Errors: it says something else than the interpreter.
fn batch_differs(case: &Case, program: &Program, interpreter: &Interpreter, input: &MemoryConnectors) -> Result<bool, String> {
    let view = program.plan.view("v").unwrap().node;
    // What fails on one row fails whole there, and its floats and integers at the ends are not ours.
    if case.wild || !case.emit.is_empty() {
        return Ok(false);
    }
    let mut asked = false;
    for epoch in asked_epochs(interpreter, view, BATCH_EPOCHS_MAX) {
        let tables = tables_at(&program.plan, (interpreter, input), epoch);
        let Ok(answer) = batch::evaluate(program, "v", &tables, epoch) else { continue };
        asked = true;
        let expected = content_of([&answer]).unwrap();
        roughly_same(&expected, &interpreter.content(view, epoch)).map_err(|difference| format!("DataFusion (expected) at {epoch}: {difference}"))?;
    }
    Ok(asked)
}
