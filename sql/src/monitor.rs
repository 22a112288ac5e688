//! CREATE DRIFT MONITOR → what its operator does. In: the statement, the view it watches and the models. Out: the specification, or a refusal
//! at the part that is wrong.

use arrow::datatypes::{DataType, Schema};
use datafusion::sql::sqlparser::ast::Ident;
use freshet_core::{DriftCondition, DriftSpec, ModelDef, Plan, ViewDef, ViewKind};

use crate::ast::{CreateDriftMonitor, DriftedWhen, normal_name};
use crate::model::is_measurable;
use crate::refusal::{Refusal, Result};

/// 200 rows: ten bins of twenty, below which PSI says more about chance than about drift.
const ROWS_MIN: u64 = 200;

pub(crate) fn define(monitor: &CreateDriftMonitor, view: &ViewDef, plan: &Plan) -> Result<DriftSpec> {
    if view.kind == ViewKind::Feature {
        return Err(Refusal::new(format!("{} is a feature view, which holds the state of each entity and not what happened", view.name))
            .help("monitor a materialized view of what was asked: … LEFT JOIN FEATURES(service) FOR SYSTEM_TIME AS OF now() AS f …")
            .at(monitor.view.span));
    }
    let model = model_index(&monitor.model, plan)?;
    let columns: Vec<usize> = monitor.columns.iter().map(|column| measured(column, view, &plan.models[model])).collect::<Result<_>>()?;
    let names: Vec<String> = monitor.columns.iter().map(normal_name).collect();
    let conditions = monitor.conditions.iter().map(|condition| fires(condition, &names)).collect();
    let scores = names.iter().map(|name| plan.models[model].outputs.iter().any(|output| output.name() == name)).collect();
    Ok(DriftSpec {
        columns,
        scores,
        time: time_column(&monitor.time, view)?,
        methods: monitor.methods.clone(),
        model,
        window_ms: monitor.window.ms(),
        every_ms: monitor.every.ms(),
        rows_min: monitor.rows_min.unwrap_or(ROWS_MIN),
        conditions,
        names,
    })
}

/// The model of this name. Errors: there is none.
pub(crate) fn model_index(ident: &Ident, plan: &Plan) -> Result<usize> {
    let name = normal_name(ident);
    plan.models.iter().position(|model| model.name == name).ok_or_else(|| {
        let known = plan.models.iter().map(|model| model.name.as_str());
        Refusal::new(format!("there is no model named {name}")).nearest(&name, known).at(ident.span)
    })
}

fn column_of(ident: &Ident, view: &ViewDef) -> Result<usize> {
    let name = normal_name(ident);
    view.schema.index_of(&name).map_err(|_| {
        let refusal = Refusal::new(format!("the view {} has no column {name}", view.name)).at(ident.span);
        refusal.nearest(&name, names(&view.schema))
    })
}

/// A column that is measured, and that the model's reference has.
fn measured(ident: &Ident, view: &ViewDef, model: &ModelDef) -> Result<usize> {
    let column = column_of(ident, view)?;
    let field = view.schema.field(column);
    if !is_measurable(field.data_type()) {
        let refusal = Refusal::new(format!("column {} is {}; drift is measured of numbers and BOOLEAN", field.name(), field.data_type()));
        return Err(match field.data_type() {
            DataType::Decimal128(_, _) => refusal.help(format!("make it a DOUBLE in the view: CAST({0} AS DOUBLE) AS {0}", field.name())),
            _ => refusal.help("leave it out, or count it in the view as a number"),
        }
        .at(ident.span));
    }
    let known = || model.inputs.iter().chain(&model.outputs).map(|field| field.name().as_str());
    if !known().any(|name| name == field.name()) {
        return Err(Refusal::new(format!(
            "{} is neither an input nor an output of the model {}, so there is no reference for it",
            field.name(),
            model.name
        ))
        .nearest(field.name(), known())
        .at(ident.span));
    }
    Ok(column)
}

fn time_column(ident: &Ident, view: &ViewDef) -> Result<usize> {
    let column = column_of(ident, view)?;
    match view.schema.field(column).data_type() {
        DataType::Timestamp(_, _) => Ok(column),
        other => Err(Refusal::new(format!("TIME needs a TIMESTAMP column, {} is {other}", normal_name(ident)))
            .help("name the column that says when a row happened")
            .at(ident.span)),
    }
}

fn fires(condition: &DriftedWhen, names: &[String]) -> DriftCondition {
    let wanted = normal_name(&condition.column);
    DriftCondition {
        method: condition.method,
        column: names.iter().position(|name| *name == wanted).expect("the parser takes only columns of the monitor"),
        threshold: condition.threshold,
        inclusive: condition.inclusive,
        evaluations: condition.evaluations,
    }
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|field| field.name().as_str())
}
