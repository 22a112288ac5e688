//! Arrow arrays to tensors and back. In: columns of numbers or BOOLEAN. Out: row-major tensors; NULL is NaN where there is one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use freshet_core::{Error, ModelDef, Result};
use ort::session::{SessionInputValue, SessionOutputs};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use crate::binding::{Element, Inputs, Output};

/// The inputs of one run, in the order of the session. Errors: Data for a value that the model's type cannot hold.
pub fn input_values(def: &ModelDef, inputs: &Inputs, columns: &[ArrayRef]) -> Result<Vec<SessionInputValue<'static>>> {
    match inputs {
        Inputs::Matrix(element) => {
            let all: Vec<usize> = (0..columns.len()).collect();
            Ok(vec![value(def, *element, &all, columns, true)?])
        }
        Inputs::Columns(bound) => bound.iter().map(|input| value(def, input.element, &[input.column], columns, input.is_matrix)).collect(),
    }
}

fn value(def: &ModelDef, element: Element, picked: &[usize], columns: &[ArrayRef], is_matrix: bool) -> Result<SessionInputValue<'static>> {
    match element {
        Element::F32 => tensor::<f32>(def, picked, columns, is_matrix),
        Element::F64 => tensor::<f64>(def, picked, columns, is_matrix),
        Element::I64 => tensor::<i64>(def, picked, columns, is_matrix),
        Element::I32 => tensor::<i32>(def, picked, columns, is_matrix),
        Element::Bool => tensor::<bool>(def, picked, columns, is_matrix),
    }
}

/// Some columns side by side, [N, count], or one as [N].
fn tensor<T: Number>(def: &ModelDef, picked: &[usize], columns: &[ArrayRef], is_matrix: bool) -> Result<SessionInputValue<'static>> {
    let (rows, width) = (columns[0].len(), picked.len());
    let mut elements = vec![T::default(); rows * width];
    for (at, column) in picked.iter().enumerate() {
        fill(&columns[*column], &mut elements, at, width).map_err(|error| Error::data(format!("column {}: {error}", def.inputs[*column].name())))?;
    }
    let shape = if is_matrix { vec![rows as i64, width as i64] } else { vec![rows as i64] };
    let tensor = Tensor::from_array((shape, elements)).map_err(|error| Error::internal(format!("a tensor cannot be made: {error}")))?;
    Ok(tensor.into())
}

/// Writes a column into every `stride`-th element from `offset` on.
fn fill<T: Number>(column: &ArrayRef, elements: &mut [T], offset: usize, stride: usize) -> Result<()> {
    let targets = elements[offset..].iter_mut().step_by(stride);
    match column.data_type() {
        DataType::Boolean => each(column.as_boolean().iter(), targets, |value| Some(T::of_bool(value))),
        DataType::Float32 => each(column.as_primitive::<Float32Type>().iter(), targets, |value| T::of_float(f64::from(value))),
        DataType::Float64 => each(column.as_primitive::<Float64Type>().iter(), targets, T::of_float),
        DataType::Int64 => each(column.as_primitive::<Int64Type>().iter(), targets, T::of_integer),
        // Exact in 64 bits.
        data_type if data_type.is_integer() && *data_type != DataType::UInt64 => fill(&cast(column, &DataType::Int64)?, elements, offset, stride),
        DataType::Float16 | DataType::Decimal128(..) => fill(&cast(column, &DataType::Float64)?, elements, offset, stride),
        data_type => Err(Error::internal(format!("{data_type} is no number"))),
    }
}

fn each<'a, V: Copy + std::fmt::Debug, T: Number + 'a>(
    values: impl Iterator<Item = Option<V>>,
    targets: impl Iterator<Item = &'a mut T>,
    convert: impl Fn(V) -> Option<T>,
) -> Result<()> {
    for (value, target) in values.zip(targets) {
        *target = match value {
            Some(value) => convert(value).ok_or_else(|| Error::data(format!("{value:?} is outside of what the model takes")))?,
            None => T::MISSING.ok_or_else(|| Error::data("NULL, and the model's type has no NaN"))?,
        };
    }
    Ok(())
}

/// An element of a tensor, from what columns hold.
trait Number: PrimitiveTensorElementType + Copy + Default + std::fmt::Debug + 'static {
    const MISSING: Option<Self>;
    fn of_float(value: f64) -> Option<Self>;
    fn of_integer(value: i64) -> Option<Self>;
    fn of_bool(value: bool) -> Self;
}

macro_rules! float {
    ($type:ty) => {
        impl Number for $type {
            const MISSING: Option<Self> = Some(<$type>::NAN);
            fn of_float(value: f64) -> Option<Self> {
                Some(value as $type)
            }
            fn of_integer(value: i64) -> Option<Self> {
                Some(value as $type)
            }
            fn of_bool(value: bool) -> Self {
                f32::from(u8::from(value)).into()
            }
        }
    };
}

macro_rules! integer {
    ($type:ty) => {
        impl Number for $type {
            const MISSING: Option<Self> = None;
            fn of_float(_: f64) -> Option<Self> {
                None
            }
            fn of_integer(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn of_bool(value: bool) -> Self {
                Self::from(value)
            }
        }
    };
}

float!(f32);
float!(f64);
integer!(i32);
integer!(i64);

impl Number for bool {
    const MISSING: Option<Self> = None;
    fn of_float(_: f64) -> Option<Self> {
        None
    }
    fn of_integer(_: i64) -> Option<Self> {
        None
    }
    fn of_bool(value: bool) -> Self {
        value
    }
}

/// The bound outputs of a run over `rows` rows, in declared order and type. Errors: Data for shapes that are not those of the binding, and
/// for values that the declared type cannot hold.
pub fn output_arrays(def: &ModelDef, outputs: &[Output], found: &SessionOutputs, rows: usize) -> Result<Vec<ArrayRef>> {
    let array = |(output, field): (&Output, &arrow::datatypes::Field)| {
        let wrong = |reason: String| Error::data(format!("output {} of model {}: {reason}", field.name(), def.name));
        let value = found.values().nth(output.index).ok_or_else(|| wrong("it is missing".to_string()))?;
        let array = extract(&value, output, rows).map_err(wrong)?;
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&array, field.data_type(), &options).map_err(|error| wrong(error.to_string()))
    };
    outputs.iter().zip(&def.outputs).map(array).collect()
}

fn extract(value: &DynValue, output: &Output, rows: usize) -> Result<ArrayRef, String> {
    Ok(match output.element {
        Element::F32 => Arc::new(Float32Array::from(elements::<f32>(value, output, rows)?)),
        Element::F64 => Arc::new(Float64Array::from(elements::<f64>(value, output, rows)?)),
        Element::I64 => Arc::new(Int64Array::from(elements::<i64>(value, output, rows)?)),
        Element::I32 => Arc::new(Int32Array::from(elements::<i32>(value, output, rows)?)),
        Element::Bool => Arc::new(BooleanArray::from(elements::<bool>(value, output, rows)?)),
    })
}

fn elements<T: Number>(value: &DynValue, output: &Output, rows: usize) -> Result<Vec<T>, String> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(|error| error.to_string())?;
    let fits = shape.first() == Some(&(rows as i64)) && elements.len() == rows * output.width;
    if !fits {
        return Err(format!("{rows} row(s) gave a tensor of shape {shape}"));
    }
    Ok(elements.iter().skip(output.at).step_by(output.width).copied().collect())
}
