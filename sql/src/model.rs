//! CREATE MODEL → a definition of core. In: the statement, the services and types that exist. Out: the definition, or a refusal at the part
//! that is wrong.

use arrow::datatypes::{DataType, Field};
use freshet_core::{Missing, ModelDef, Plan};

use crate::ast::{CreateModel, ModelInput, Place, find_option, normal_name};
use crate::context::Catalog;
use crate::define::fields_of;
use crate::refusal::{Refusal, Result};

/// What a model gives, as OUTPUT spells it.
const OUTPUTS: [(DataType, &str); 4] =
    [(DataType::Float64, "DOUBLE"), (DataType::Float32, "FLOAT"), (DataType::Int32, "INT"), (DataType::Int64, "BIGINT")];

pub(crate) fn define(model: &CreateModel, plan: &Plan, catalog: &Catalog) -> Result<ModelDef> {
    let (service, inputs) = inputs(model, plan, catalog)?;
    let outputs = fields_of(&model.outputs, catalog)?;
    for (field, column) in outputs.iter().zip(&model.outputs) {
        if !OUTPUTS.iter().any(|(data_type, _)| data_type == field.data_type()) {
            let known: Vec<&str> = OUTPUTS.iter().map(|(_, word)| *word).collect();
            return Err(Refusal::new(format!("a model cannot give {} as {}", field.name(), column.data_type))
                .help(format!("outputs are {}", known.join(", ")))
                .at(column.data_type_place.0));
        }
        // A drift monitor knows inputs and outputs by their names alone.
        if inputs.iter().any(|input| input.name() == field.name()) {
            return Err(Refusal::new(format!("{} is an input and an output", field.name()))
                .help("give the output a name of its own")
                .at(column.name.span));
        }
    }
    let missing = match find_option(&model.options, "missing") {
        Some(option) if option.value.text().eq_ignore_ascii_case("null") => Missing::Null,
        _ => Missing::Nan,
    };
    Ok(ModelDef {
        name: normal_name(&model.name),
        service,
        inputs,
        outputs: outputs.into_iter().map(|field| field.with_nullable(true)).collect(),
        missing,
        from: model.from.as_ref().map(|from| from.value.clone()),
        references: Vec::new(),
    })
}

/// The service, if it is one, and the inputs in order. Errors: an input that is no number.
fn inputs(model: &CreateModel, plan: &Plan, catalog: &Catalog) -> Result<(Option<String>, Vec<Field>)> {
    match &model.input {
        ModelInput::Columns(columns) => {
            let fields = fields_of(columns, catalog)?;
            for (field, column) in fields.iter().zip(columns) {
                check_input(field, "input", column.data_type_place)?;
            }
            Ok((None, fields))
        }
        ModelInput::Features(ident) => {
            let name = normal_name(ident);
            let Some(service) = plan.service(&name) else {
                let known = plan.services.iter().map(|service| service.name.as_str());
                return Err(Refusal::new(format!("there is no feature service named {name}")).nearest(&name, known).at(ident.span));
            };
            let fields: Vec<Field> = service.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
            fields.iter().try_for_each(|field| check_input(field, "feature", Place(ident.span)))?;
            Ok((Some(name), fields))
        }
    }
}

fn check_input(field: &Field, what: &str, place: Place) -> Result<()> {
    if is_measurable(field.data_type()) {
        return Ok(());
    }
    let refusal = Refusal::new(format!("the {what} {} is {}, and a model takes numbers and BOOLEAN", field.name(), field.data_type()));
    let help = match field.data_type() {
        DataType::Decimal128(_, _) => format!("make it a DOUBLE: CAST({0} AS DOUBLE) AS {0}", field.name()),
        _ => format!("encode it as a number, or leave {} out", field.name()),
    };
    Err(refusal.help(help).at(place.0))
}

/// Whether a model or a drift monitor can take the values as numbers.
pub(crate) fn is_measurable(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Boolean)
}
