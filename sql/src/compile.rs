//! Scripts → one program. In: the text of a pipeline and the connectors of this build. Out: the plan, settings and explanations, or the
//! first error with file, line and column.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::tokenizer::Location;
use freshet_core::{ClockKind, Connectors, Plan};

use crate::ast::{Explain, ExplainSubject, Statement, Stmt};
use crate::error::SqlError;
use crate::explain::{self, ExplainOutput};
use crate::growth;
use crate::parse::parse_script;
use crate::pipeline::Pipeline;
use crate::refusal::{Refusal, Result};
use crate::retraining::check_wall_clock;
use crate::tables::{Survey, Tables, kept_after};
use crate::training::TrainingSets;

/// Planning recurses; a deep expression must not end the process.
const STACK_BYTES: usize = 64 << 20;

/// A piece of a pipeline's text. `name` is the path shown in errors.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: String,
    pub text: String,
}

/// What SET says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    pub clock: ClockKind,
    /// None: the command line or the machine decides.
    pub workers: Option<usize>,
}

/// A compiled pipeline.
#[derive(Debug, Clone)]
pub struct Program {
    pub plan: Plan,
    pub settings: Settings,
    /// All statements of all scripts, in order.
    pub statements: Vec<Statement>,
    pub explains: Vec<ExplainOutput>,
    pub warnings: Vec<SqlError>,
    /// What statements of clients may change.
    pub tables: Tables,
    pub(crate) training: TrainingSets,
}

/// Compiles the scripts as if they were one. Runs on a thread of its own, named `freshet-sql`, with a stack of 64 MiB; a panic of the
/// planner becomes an error.
pub fn compile(scripts: &[Script], variables: &BTreeMap<String, String>, connectors: &dyn Connectors) -> Result<Program, SqlError> {
    let file = scripts.first().map_or("", |script| script.name.as_str());
    on_large_stack(|| compile_here(scripts, variables, connectors))
        .unwrap_or_else(|reason| Err(SqlError::new(file, Location { line: 1, column: 1 }, format!("the planner failed: {reason}"))))
}

/// Runs `work` with room for deep recursion. Errors: its panic, as text.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::result::Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("freshet-sql".into()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match thread {
            Ok(thread) => thread.join().map_err(|panic| reason_of(panic.as_ref())),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// A panic of the planner is told where its statement begins.
fn guarded(apply: impl FnOnce() -> Result<()>) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply)).unwrap_or_else(|panic| {
        let refusal = Refusal::new(format!("the planner failed: {}", reason_of(panic.as_ref())));
        Err(refusal.help("that is a bug of Freshet; writing the statement another way may help"))
    })
}

pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason given").to_string()
}

fn compile_here(scripts: &[Script], variables: &BTreeMap<String, String>, connectors: &dyn Connectors) -> Result<Program, SqlError> {
    let mut parsed: Vec<(&str, Statement)> = Vec::new();
    for script in scripts {
        parsed.extend(parse_script(&script.name, &script.text, variables)?.into_iter().map(|statement| (script.name.as_str(), statement)));
    }
    let survey = Survey::of(parsed.iter().map(|(_, statement)| statement));
    let mut pipeline = Pipeline::new(connectors);
    pipeline.survey = survey.clone();
    let mut statements: Vec<Statement> = Vec::new();
    let mut files: Vec<&str> = Vec::new();
    let mut warnings = Vec::new();
    let mut wanted: Vec<(Explain, String, Location)> = Vec::new();
    let mut explains = Vec::new();
    for (file, statement) in parsed {
        let start = statement.place.start();
        let placed = |refusal: Refusal| refusal.into_error(file, start);
        match &statement.body {
            Stmt::Explain(explain) => match &explain.subject {
                // Of what the whole pipeline is in the end.
                ExplainSubject::Name(_) => wanted.push((explain.clone(), file.to_string(), start)),
                ExplainSubject::Statement(_) => explains.push(explain::statement(explain, &pipeline).map_err(placed)?),
            },
            Stmt::Drop(dropped) => {
                if let Some(kept) = kept_after(&statements, dropped).map_err(placed)? {
                    let keep = |index: &usize| kept[*index];
                    files = (0..files.len()).filter(keep).map(|index| files[index]).collect();
                    statements = (0..statements.len()).filter(keep).map(|index| statements[index].clone()).collect();
                    pipeline = pipeline.again(&statements).map_err(placed)?;
                }
                continue;
            }
            _ => guarded(|| pipeline.apply(&statement)).map_err(placed)?,
        }
        warnings.extend(pipeline.take_warnings().into_iter().map(placed));
        statements.push(statement);
        files.push(file);
    }
    let settings = pipeline.settings();
    if settings.clock == ClockKind::Wall {
        for (statement, file) in statements.iter().zip(&files) {
            check_wall_clock(&statement.body).map_err(|refusal| refusal.into_error(file, statement.place.start()))?;
        }
    }
    pipeline.fill_tables();
    let training = pipeline.training_sets();
    let tables = Tables::new(&pipeline.stored);
    let plan = pipeline.finish();
    plan.validate().map_err(|error| SqlError::new("", Location { line: 1, column: 1 }, format!("{error}; that is a bug of Freshet")))?;
    if settings.clock == ClockKind::Wall {
        let mut warned = BTreeSet::new();
        for (statement, file) in statements.iter().zip(&files) {
            let warning = growth::warning(&statement.body, &plan, &mut warned);
            warnings.extend(warning.map(|warning| warning.into_error(file, statement.place.start())));
        }
    }
    let mut warned = BTreeSet::new();
    for (statement, file) in statements.iter().zip(&files) {
        let warning = growth::all_pairs(&statement.body, &plan, &mut warned);
        warnings.extend(warning.map(|warning| warning.into_error(file, statement.place.start())));
    }
    for (explain, file, start) in wanted {
        explains.push(explain::named(&explain, &plan, &training, &statements).map_err(|refusal| refusal.into_error(&file, start))?);
    }
    Ok(Program { plan, settings, statements, explains, warnings, training, tables })
}
