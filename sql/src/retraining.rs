//! CREATE TRAINING SET and CREATE RETRAINING JOB → definitions of core. In: the statements and what exists. Out: definitions, or a refusal at
//! the part that is wrong.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::sql::sqlparser::ast::Ident;
use freshet_core::{DriftSpec, Epoch, ModelDef, Op, Plan, RetrainingDef, RetrainingTrigger, TrainingMode, TrainingSetDef, Validation};

use crate::ast::{CreateRetrainingJob, CreateTrainingSet, Duration, OptionEntry, Place, Stmt, Trigger, Validate, find_option, normal_name};
use crate::monitor::model_index;
use crate::options::parse_duration;
use crate::refusal::{Refusal, Result};

/// 10 minutes: fifty times what the demo's trainer takes.
const TIMEOUT_MS: u64 = 600_000;

/// Without a monitor decisions are taken once a day (C6).
const DAY_MS: u64 = 86_400_000;

/// `schema` is that of the set's query.
pub(crate) fn training_set(set: &CreateTrainingSet, schema: SchemaRef) -> Result<TrainingSetDef> {
    let column = |role: &str, ident: &Ident| {
        let name = normal_name(ident);
        match schema.field_with_name(&name) {
            Ok(field) => Ok((name, field.data_type().clone())),
            Err(_) => Err(Refusal::new(format!("{role} ({name}) is no column of the query"))
                .nearest(&name, schema.fields().iter().map(|field| field.name().as_str()))
                .at(ident.span)),
        }
    };
    let (id, _) = column("ID", &set.id)?;
    let (time, time_type) = column("TIME", &set.time)?;
    let (label, label_type) = column("LABEL", &set.label)?;
    if !matches!(time_type, DataType::Timestamp(_, _)) {
        return Err(Refusal::new(format!("TIME needs a TIMESTAMP, {time} is {time_type}"))
            .help("name the column that says when the question was asked")
            .at(set.time.span));
    }
    if label_type != DataType::Boolean && !label_type.is_numeric() {
        return Err(Refusal::new(format!("LABEL needs a BOOLEAN or a number, {label} is {label_type}"))
            .help(format!("say what is to be learnt: … = 'yes' AS {label}"))
            .at(set.label.span));
    }
    Ok(TrainingSetDef { name: normal_name(&set.name), id, time, label, mode: set.mode(), schema })
}

pub(crate) fn job(job: &CreateRetrainingJob, plan: &Plan) -> Result<RetrainingDef> {
    let model = model_index(&job.model, plan)?;
    let training_set = training_set_index(&job.training_set, plan)?;
    check_inputs(&plan.models[model], &plan.training_sets[training_set], job)?;
    if let Some(validate) = &job.validation {
        check_validation(validate, &plan.models[model], &plan.training_sets[training_set])?;
    }
    let mut grids_ms = Vec::new();
    let mut triggers = Vec::new();
    for trigger in &job.triggers {
        triggers.push(match trigger {
            Trigger::Every(length) => RetrainingTrigger::Every { ms: length.ms() },
            Trigger::Drift(monitor) => {
                grids_ms.push(firing_monitor(monitor, plan)?.every_ms);
                RetrainingTrigger::Drift { monitor: normal_name(monitor) }
            }
        });
    }
    if grids_ms.is_empty() {
        grids_ms.push(DAY_MS);
    }
    grids_ms.sort_unstable();
    grids_ms.dedup();
    let length = |clause: &Option<Duration>| clause.as_ref().map_or(0, Duration::ms);
    Ok(RetrainingDef {
        name: normal_name(&job.name),
        model,
        training_set,
        last_ms: job.last.ms(),
        holdout_ms: job.holdout.ms(),
        gap_ms: length(&job.gap),
        delay_ms: length(&job.delay),
        rows_min: job.rows_min.unwrap_or(1),
        command: job.command.value.clone(),
        timeout_ms: option_ms(&job.options, "timeout").unwrap_or(TIMEOUT_MS),
        heartbeat_ms: option_ms(&job.options, "heartbeat"),
        first_at: job.first_at.as_ref().map(|first| Epoch(first.ms)),
        triggers,
        cooldown_ms: length(&job.cooldown),
        validation: job.validation.as_ref().map(|validate| Validation { metric: validate.metric, margin: validate.margin }),
        grids_ms,
    })
}

/// What this build can do with event clock alone. SET clock may follow, so it is asked when the script ends.
pub(crate) fn check_wall_clock(statement: &Stmt) -> Result<()> {
    let (what, name, help) = match statement {
        Stmt::CreateTrainingSet(set) if set.mode() == TrainingMode::AsServed => {
            ("a training set as served", &set.name, "SET clock = 'event', or WITH (mode = 'event_time')")
        }
        Stmt::CreateRetrainingJob(job) => ("a retraining job", &job.name, "SET clock = 'event'"),
        _ => return Ok(()),
    };
    Err(Refusal::new(format!("{what} needs recorded input, which this build keeps only for clock = 'event'")).help(help).at(name.span))
}

fn training_set_index(ident: &Ident, plan: &Plan) -> Result<usize> {
    let name = normal_name(ident);
    plan.training_sets.iter().position(|set| set.name == name).ok_or_else(|| {
        let refusal = Refusal::new(format!("there is no training set named {name}")).at(ident.span);
        if plan.view(&name).is_some() {
            return refusal.help("that is a view; CREATE TRAINING SET … ID (…) TIME (…) LABEL (…) AS its query");
        }
        refusal.nearest(&name, plan.training_sets.iter().map(|set| set.name.as_str()))
    })
}

/// A model learns from the columns it will be asked with: equal names, equal types, and not what it is to say.
fn check_inputs(model: &ModelDef, set: &TrainingSetDef, job: &CreateRetrainingJob) -> Result<()> {
    let at = |refusal: Refusal| Err(refusal.at(job.training_set.span));
    for input in &model.inputs {
        let (name, wanted) = (input.name(), input.data_type());
        if *name == set.label {
            return at(Refusal::new(format!("{name} is an input of {} and the label of {}", model.name, set.name))
                .help("a model that is told the answer learns nothing: leave it out of the inputs"));
        }
        match set.schema.field_with_name(name) {
            Ok(field) if field.data_type() == wanted => {}
            Ok(field) => {
                return at(Refusal::new(format!("{name} is {} in {}, and the model {} takes {wanted}", field.data_type(), set.name, model.name))
                    .help(format!("select it as the model takes it, by CAST(… AS …) AS {name}")));
            }
            Err(_) => {
                let help = match &model.service {
                    Some(service) => format!("select f.* of LEFT JOIN FEATURES({service}) FOR SYSTEM_TIME AS OF arrival(…) AS f"),
                    None => format!("select it: … AS {name}"),
                };
                return at(
                    Refusal::new(format!("the training set {} has no column {name}, which the model {} takes", set.name, model.name)).help(help)
                );
            }
        }
    }
    Ok(())
}

/// auc and log_loss judge one probability against yes or no.
fn check_validation(validate: &Validate, model: &ModelDef, set: &TrainingSetDef) -> Result<()> {
    let metric = validate.metric.sql();
    let Place(place) = validate.place;
    let label = set.schema.field_with_name(&set.label).expect("the label was found when the set was defined").data_type();
    if *label != DataType::Boolean {
        return Err(Refusal::new(format!("{metric} needs a BOOLEAN label, {} of {} is {label}", set.label, set.name))
            .help(format!("make it one in the training set: (… > 0) AS {}", set.label))
            .at(place));
    }
    if model.outputs.len() != 1 {
        return Err(Refusal::new(format!("{metric} judges one output, and {} has {}", model.name, model.outputs.len()))
            .help("leave VALIDATE out, or give the model one output")
            .at(place));
    }
    Ok(())
}

fn firing_monitor<'a>(ident: &Ident, plan: &'a Plan) -> Result<&'a DriftSpec> {
    let name = normal_name(ident);
    let monitors = || {
        plan.views.iter().filter_map(|view| match &plan.node(view.node).op {
            Op::Drift { spec } => Some((view.name.as_str(), spec)),
            _ => None,
        })
    };
    let Some((_, spec)) = monitors().find(|(known, _)| *known == name) else {
        return Err(Refusal::new(format!("there is no drift monitor named {name}"))
            .nearest(&name, monitors().map(|(known, _)| known))
            .at(ident.span));
    };
    if spec.conditions.is_empty() {
        return Err(Refusal::new(format!("the monitor {name} never fires: it has no conditions"))
            .help(format!("add DRIFTED WHEN {}({}) > 0.1 to it", spec.methods[0].sql(), spec.names[0]))
            .at(ident.span));
    }
    Ok(spec)
}

fn option_ms(options: &[OptionEntry], name: &str) -> Option<u64> {
    let parts = parse_duration(&find_option(options, name)?.value.text()).expect("the parser has read the length of time");
    Some(parts.iter().map(|(amount, unit)| amount * unit.ms()).sum())
}
