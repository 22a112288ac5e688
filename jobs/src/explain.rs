//! `freshet explain`: what a pipeline becomes, stage by stage, without running it.

use std::path::PathBuf;

use anyhow::Context;
use freshet_connectors::BuiltIn;
use freshet_sql::ast::ExplainKind;
use freshet_sql::{Script, compile, explain_plan};

use crate::exit::{Failure, Outcome};
use crate::scripts::{read_scripts, variables};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// What the text says
    Ast,
    /// The incremental plan
    Plan,
    /// The operators that run it
    Dataflow,
    /// What they keep
    State,
}

pub struct ExplainOptions {
    pub paths: Vec<PathBuf>,
    pub stage: Stage,
    pub view: Option<String>,
    pub variables: Vec<String>,
}

pub fn run(options: ExplainOptions) -> Outcome {
    let mut scripts = read_scripts(&options.paths).map_err(Failure::wrong)?.scripts;
    let variables = variables(&options.variables).map_err(Failure::wrong)?;
    let program = compile(&scripts, &variables, &BuiltIn).map_err(Failure::wrong)?;
    program.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let kind = match options.stage {
        Stage::Ast => ExplainKind::Ast,
        Stage::Plan => ExplainKind::Plan,
        Stage::Dataflow => ExplainKind::Dataflow,
        Stage::State => ExplainKind::State,
    };
    let names: Vec<String> = match &options.view {
        Some(name) => vec![name.clone()],
        None if options.stage == Stage::Ast => {
            program.statements.iter().filter_map(|statement| statement.body.declares().map(|name| name.to_string())).collect()
        }
        None => {
            println!("{}", explain_plan(kind, &program.plan).trim_end());
            return Ok(0);
        }
    };
    // The explanations are the script's own EXPLAIN statements, so that both ways say the same.
    let own = program.explains.len();
    let text: String = names.iter().map(|name| format!("EXPLAIN ({}) {name};\n", word(options.stage))).collect();
    scripts.push(Script { name: "--view".into(), text });
    let explained = compile(&scripts, &variables, &BuiltIn).map_err(Failure::wrong)?;
    for explain in explained.explains.get(own..).context("EXPLAIN gave nothing")? {
        println!("-- {}\n{}", explain.title, explain.text.trim_end());
    }
    Ok(0)
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Ast => "AST",
        Stage::Plan => "PLAN",
        Stage::Dataflow => "DATAFLOW",
        Stage::State => "STATE",
    }
}
