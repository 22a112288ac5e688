//! How the columns of a model's definition meet the inputs and outputs of a file. In: both. Out: a binding, or everything that was found
//! and wanted in one sentence.

use arrow::datatypes::{DataType, Field};
use freshet_core::{Missing, ModelDef};
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::version::{Signature, TensorSignature};

/// What elements of tensors can be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F32,
    F64,
    I64,
    I32,
    Bool,
}

impl Element {
    fn of(element: TensorElementType) -> Option<Element> {
        match element {
            TensorElementType::Float32 => Some(Element::F32),
            TensorElementType::Float64 => Some(Element::F64),
            TensorElementType::Int64 => Some(Element::I64),
            TensorElementType::Int32 => Some(Element::I32),
            TensorElementType::Bool => Some(Element::Bool),
            _ => None,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Element::F32 | Element::F64)
    }

    fn name(self) -> &'static str {
        match self {
            Element::F32 => "float",
            Element::F64 => "double",
            Element::I64 => "int64",
            Element::I32 => "int32",
            Element::Bool => "bool",
        }
    }
}

/// How columns become the inputs of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// One tensor [N, F], columns in declared order.
    Matrix(Element),
    /// One tensor per column, in the order of the session.
    Columns(Vec<ColumnInput>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInput {
    /// Index of the column in the definition.
    pub column: usize,
    pub element: Element,
    /// [N, 1] instead of [N].
    pub is_matrix: bool,
}

/// Where the value of an OUTPUT column stands: of the rows of an output of `width` numbers each, the one at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub index: usize,
    pub element: Element,
    pub width: usize,
    pub at: usize,
}

/// What a file says of itself.
pub fn signature(session: &Session) -> Signature {
    let tensors = |outlets: &[Outlet]| outlets.iter().map(|outlet| tensor_signature(outlet.name(), outlet.dtype())).collect();
    Signature { inputs: tensors(session.inputs()), outputs: tensors(session.outputs()) }
}

fn tensor_signature(name: &str, value: &ValueType) -> TensorSignature {
    let (element, shape) = match value {
        ValueType::Tensor { ty, shape, .. } => {
            (Element::of(*ty).map_or_else(|| ty.to_string(), |element| element.name().to_string()), shape.to_vec())
        }
        ValueType::Sequence(of) if matches!(of.as_ref(), ValueType::Map { .. }) => ("sequence of maps".to_string(), Vec::new()),
        ValueType::Sequence(_) => ("sequence".to_string(), Vec::new()),
        ValueType::Map { .. } => ("map".to_string(), Vec::new()),
        ValueType::Optional(_) => ("optional value".to_string(), Vec::new()),
    };
    TensorSignature { name: name.to_string(), element, shape }
}

/// Binds all columns of INPUT. Errors: the reason, as text.
pub fn bind_inputs(def: &ModelDef, outlets: &[Outlet]) -> Result<Inputs, String> {
    if def.inputs.is_empty() {
        return Err("it has no INPUT columns".to_string());
    }
    let inputs = columns(def, outlets).or_else(|| matrix(def, outlets)).ok_or_else(|| {
        let names: Vec<&str> = def.inputs.iter().map(|field| field.name().as_str()).collect();
        let (width, names) = (names.len(), names.join(", "));
        format!("wanted one input [N, {width}] of ({names}), or one input [N] or [N, 1] per column with these names, of float, double, int64, int32 or bool")
    })?;
    for (column, field) in def.inputs.iter().enumerate() {
        fits(field, inputs.element_of(column), def.missing)?;
    }
    Ok(inputs)
}

impl Inputs {
    /// What the values of a column become.
    pub fn element_of(&self, column: usize) -> Element {
        match self {
            Inputs::Matrix(element) => *element,
            Inputs::Columns(columns) => columns.iter().find(|input| input.column == column).expect("every column has its input").element,
        }
    }
}

/// One input [N, F]; its width may be left open by the file.
fn matrix(def: &ModelDef, outlets: &[Outlet]) -> Option<Inputs> {
    let [outlet] = outlets else { return None };
    match tensor(outlet.dtype())? {
        (element, [-1, width]) if *width == -1 || *width == def.inputs.len() as i64 => Some(Inputs::Matrix(element)),
        _ => None,
    }
}

/// One input per column, by name.
fn columns(def: &ModelDef, outlets: &[Outlet]) -> Option<Inputs> {
    if outlets.len() != def.inputs.len() {
        return None;
    }
    let bind = |outlet: &Outlet| {
        let column = def.inputs.iter().position(|field| field.name() == outlet.name())?;
        match tensor(outlet.dtype())? {
            (element, [-1]) => Some(ColumnInput { column, element, is_matrix: false }),
            (element, [-1, 1 | -1]) => Some(ColumnInput { column, element, is_matrix: true }),
            _ => None,
        }
    };
    outlets.iter().map(bind).collect::<Option<Vec<_>>>().map(Inputs::Columns)
}

fn tensor(value: &ValueType) -> Option<(Element, &[i64])> {
    match value {
        ValueType::Tensor { ty, shape, .. } => Some((Element::of(*ty)?, shape)),
        _ => None,
    }
}

/// Whether the values of a column can become elements without a change of meaning.
fn fits(field: &Field, element: Element, missing: Missing) -> Result<(), String> {
    let (name, data_type) = (field.name(), field.data_type());
    let numbers = "write the number it stands for, e.g. CAST(… AS DOUBLE)";
    let fitting = match data_type {
        DataType::Boolean => true,
        DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => element.is_float(),
        data_type if data_type.is_integer() => element != Element::Bool && *data_type != DataType::UInt64,
        _ => false,
    };
    if !fitting {
        return Err(format!("column {name} is {data_type}, the model takes {}; {numbers}", element.name()));
    }
    if !element.is_float() && field.is_nullable() && missing == Missing::Nan {
        return Err(format!(
            "column {name} may be NULL, but {} has no NaN; declare the model WITH (missing = 'null'), or export it with a float input",
            element.name()
        ));
    }
    Ok(())
}

/// Binds all columns of OUTPUT to what a run over `rows` rows gave: by name; else the one output with a number per row; else the second
/// column of a classifier's probabilities. Errors: the reason, as text.
pub fn bind_outputs(def: &ModelDef, found: &[(&str, &ValueType)], rows: usize) -> Result<Vec<Output>, String> {
    let candidate = |index: usize| output(index, found[index].1, rows);
    let position = |field: &Field| found.iter().position(|(name, _)| name == field.name());
    let by_name: Option<Vec<usize>> = def.outputs.iter().map(position).collect();
    let bound: Option<Vec<Output>> = match (by_name, found.len()) {
        (Some(indices), _) => indices.into_iter().map(|index| candidate(index).or_else(|| probability(found, rows, index))).collect(),
        (None, 1) if def.outputs.len() == 1 => candidate(0).or_else(|| probability(found, rows, 0)).map(|output| vec![output]),
        (None, 2) if def.outputs.len() == 1 => (0..2).find_map(|index| probability(found, rows, index)).map(|output| vec![output]),
        _ => None,
    };
    let bound = bound.ok_or_else(|| wanted_outputs(def, found))?;
    for (field, output) in def.outputs.iter().zip(&bound) {
        if !gives(output.element, field.data_type()) {
            return Err(format!(
                "OUTPUT column {} is {}, the model gives {}; declare it as such",
                field.name(),
                field.data_type(),
                output.element.name()
            ));
        }
    }
    Ok(bound)
}

fn wanted_outputs(def: &ModelDef, found: &[(&str, &ValueType)]) -> String {
    let names: Vec<&str> = def.outputs.iter().map(|field| field.name().as_str()).collect();
    let zip_map = found.iter().any(|(_, value)| !matches!(value, ValueType::Tensor { .. }));
    let remedy = if zip_map { "; convert it with zipmap=False, so that probabilities are a tensor" } else { "" };
    format!(
        "wanted outputs [N] or [N, 1] named ({}), or a single output [N] or [N, 1], or a classifier's label with its probabilities [N, 2]{remedy}",
        names.join(", ")
    )
}

/// An output with one number per row.
fn output(index: usize, value: &ValueType, rows: usize) -> Option<Output> {
    match tensor(value)? {
        (element, [count] | [count, 1]) if *count == rows as i64 => Some(Output { index, element, width: 1, at: 0 }),
        _ => None,
    }
}

/// The probability of the second of two classes, if the other output, where there is one, can be the label.
fn probability(found: &[(&str, &ValueType)], rows: usize, index: usize) -> Option<Output> {
    let is_label = |value: &ValueType| match value {
        ValueType::Tensor { ty, shape, .. } => {
            matches!(ty, TensorElementType::Int64 | TensorElementType::Int32 | TensorElementType::Bool | TensorElementType::String)
                && shape.len() == 1
        }
        _ => false,
    };
    let others_are_labels = found.iter().enumerate().all(|(other, (_, value))| other == index || is_label(value));
    match tensor(found[index].1)? {
        (element, [count, 2]) if element.is_float() && *count == rows as i64 && others_are_labels => Some(Output { index, element, width: 2, at: 1 }),
        _ => None,
    }
}

fn gives(element: Element, declared: &DataType) -> bool {
    match element {
        Element::F32 | Element::F64 => matches!(declared, DataType::Float32 | DataType::Float64),
        Element::I64 | Element::I32 => declared.is_integer() || matches!(declared, DataType::Float32 | DataType::Float64),
        Element::Bool => *declared == DataType::Boolean,
    }
}
