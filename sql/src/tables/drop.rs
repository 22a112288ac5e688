//! DROP in a script. In: the statements so far and what is dropped. Out: which of them still count, or who depends on it.
//!
//! A script is compiled as if what it dropped had never been declared.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Query, Visit, Visitor};

use super::relations_in;
use crate::ast::{Drop, ModelInput, Role, ServiceItem, Statement, Stmt, normal_name};
use crate::error::nearest;
use crate::refusal::{Refusal, Result};

/// For each statement, whether it still counts. None: IF EXISTS, and there is nothing of that name.
pub(crate) fn kept_after(statements: &[Statement], dropped: &Drop) -> Result<Option<Vec<bool>>> {
    let name = normal_name(&dropped.name);
    let is_it = |statement: &&Statement| statement.body.declares().is_some_and(|declared| normal_name(declared) == name);
    let Some(declared) = statements.iter().rev().find(|statement| is_it(statement) && fits(&statement.body, dropped.kind)) else {
        return absent(statements, dropped, &name);
    };
    let kind = kind_of(&declared.body);
    let mut gone = BTreeSet::from([(space_of(kind), name.clone())]);
    let mut kept = vec![true; statements.len()];
    let mut dependents: Vec<String> = Vec::new();
    loop {
        let before = kept.iter().filter(|kept| **kept).count();
        for (index, statement) in statements.iter().enumerate() {
            if !kept[index] {
                continue;
            }
            let declares = statement.body.declares().map(|ident| (space_of(kind_of(&statement.body)), normal_name(ident)));
            if declares.as_ref().is_some_and(|known| gone.contains(known)) {
                kept[index] = false;
            } else if uses(&statement.body).iter().any(|used| gone.contains(used)) {
                kept[index] = false;
                gone.extend(declares.clone());
                let own_rows = matches!(&statement.body, Stmt::Write(write) if normal_name(&write.table) == name);
                if !own_rows {
                    dependents.push(match &declares {
                        Some((_, name)) => format!("{} {name}", kind_of(&statement.body).to_lowercase()),
                        None => format!("{} of line {}", statement.body.kind(), statement.place.start().line),
                    });
                }
            }
        }
        if kept.iter().filter(|kept| **kept).count() == before {
            break;
        }
    }
    if !dependents.is_empty() && !dropped.cascade {
        return Err(Refusal::new(format!("{name} cannot be dropped, since others need it: {}", dependents.join(", ")))
            .help(format!("DROP {} {name} CASCADE drops them, too", dropped.kind))
            .at(dropped.name.span));
    }
    Ok(Some(kept))
}

fn absent(statements: &[Statement], dropped: &Drop, name: &str) -> Result<Option<Vec<bool>>> {
    let named: Vec<(&'static str, String)> =
        statements.iter().filter_map(|statement| Some((kind_of(&statement.body), normal_name(statement.body.declares()?)))).collect();
    if let Some((kind, _)) = named.iter().find(|(_, known)| known == name) {
        return Err(Refusal::new(format!("{name} is a {}", kind.to_lowercase())).help(format!("DROP {kind} {name}")).at(dropped.name.span));
    }
    if dropped.if_exists {
        return Ok(None);
    }
    let refusal = Refusal::new(format!("there is no {} named {name}", dropped.kind.to_lowercase())).at(dropped.name.span);
    Err(match nearest(name, named.iter().map(|(_, known)| known.as_str())) {
        Some(close) => refusal.help(format!("did you mean {close}? DROP … IF EXISTS does nothing where there is none")),
        None => refusal.help("DROP … IF EXISTS does nothing where there is none"),
    })
}

/// As DROP spells it.
fn kind_of(statement: &Stmt) -> &'static str {
    match statement {
        Stmt::CreateSource(create) if create.role == Role::Source => "SOURCE",
        Stmt::CreateSource(_) => "TABLE",
        other => other.kind().strip_prefix("CREATE ").unwrap_or(""),
    }
}

/// PostgreSQL's words are strict; a table with a connector may be dropped as the source it is.
fn fits(statement: &Stmt, kind: &str) -> bool {
    let own = kind_of(statement);
    own == kind || (matches!(statement, Stmt::CreateSource(_)) && matches!(kind, "SOURCE" | "TABLE" | "SINK"))
}

/// Sinks, services, models, jobs and secrets have names of their own.
fn space_of(kind: &str) -> &'static str {
    match kind {
        "SINK" => "sink",
        "FEATURE SERVICE" => "service",
        "MODEL" => "model",
        "RETRAINING JOB" => "job",
        "SECRET" => "secret",
        _ => "relation",
    }
}

/// What a statement cannot do without.
fn uses(statement: &Stmt) -> BTreeSet<(&'static str, String)> {
    let mut used: BTreeSet<(&'static str, String)> = BTreeSet::new();
    let mut add = |space: &'static str, name: String| {
        used.insert((space, name));
    };
    let of_query = |query: &Query, add: &mut dyn FnMut(&'static str, String)| {
        relations_in(query).into_iter().for_each(|name| {
            add("service", name.clone());
            add("relation", name);
        });
        models_in(query).into_iter().for_each(|name| add("model", name));
    };
    match statement {
        Stmt::CreateSource(create) => {
            create.query.iter().for_each(|query| of_query(query, &mut add));
            for option in &create.options {
                if let crate::ast::OptionValue::Secret(name) = &option.value {
                    add("secret", normal_name(name));
                }
            }
        }
        Stmt::CreateView(view) => of_query(&view.query, &mut add),
        Stmt::CreateMaterializedView(view) => of_query(&view.query, &mut add),
        Stmt::CreateFeatureView(view) => of_query(&view.query, &mut add),
        Stmt::CreateTrainingSet(set) => of_query(&set.query, &mut add),
        Stmt::Select(query) => of_query(query, &mut add),
        Stmt::CreateFeatureService(service) => service.items.iter().for_each(|item| match item {
            ServiceItem::View(view) | ServiceItem::Feature { view, .. } => add("relation", normal_name(view)),
            ServiceItem::Request { .. } => {}
        }),
        Stmt::CreateSink(sink) => {
            add("relation", normal_name(&sink.from));
            for option in &sink.options {
                if let crate::ast::OptionValue::Secret(name) = &option.value {
                    add("secret", normal_name(name));
                }
            }
        }
        Stmt::CreateModel(model) => {
            if let ModelInput::Features(service) = &model.input {
                add("service", normal_name(service));
            }
        }
        Stmt::CreateDriftMonitor(monitor) => {
            add("relation", normal_name(&monitor.view));
            add("model", normal_name(&monitor.model));
        }
        Stmt::CreateRetrainingJob(job) => {
            add("model", normal_name(&job.model));
            add("relation", normal_name(&job.training_set));
        }
        Stmt::Write(write) => {
            add("relation", normal_name(&write.table));
            write.inserted().iter().for_each(|(query, _)| of_query(query, &mut add));
        }
        _ => {}
    }
    used
}

/// The models that PREDICT and its like name.
fn models_in(query: &Query) -> BTreeSet<String> {
    struct Models(BTreeSet<String>);
    impl Visitor for Models {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && let Some(ObjectNamePart::Identifier(name)) = function.name.0.last()
                && matches!(normal_name(name).as_str(), "predict" | "model_version")
                && let FunctionArguments::List(list) = &function.args
                && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(model)))) = list.args.first()
            {
                self.0.insert(normal_name(model));
            }
            ControlFlow::Continue(())
        }
    }
    let mut models = Models(BTreeSet::new());
    let _ = query.visit(&mut models);
    models.0
}
