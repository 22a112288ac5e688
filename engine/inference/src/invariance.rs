//! Whether the bits of a row depend on its batch (C7). In: a way to score rows. Out: yes or no, from 256 made-up rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use freshet_core::{Missing, ModelDef, Result};

use crate::binding::{Element, Inputs};

/// C7: enough rows for the kernels of big batches, quick to score one by one.
pub const SAMPLE_ROWS: usize = 256;

/// One row, a batch that fits no vector register evenly, and all.
const BATCHES: [usize; 3] = [1, 7, SAMPLE_ROWS];

/// One float in 16 is missing, where that is NaN.
const MISSING_ONE_IN: u64 = 16;

/// Scores the sample in batches of 1, 7 and 256 rows and compares the bits of all outputs. Errors: those of `score`.
pub fn is_batch_invariant(sample: &[ArrayRef], score: impl Fn(&[ArrayRef]) -> Result<Vec<ArrayRef>>) -> Result<bool> {
    let mut answers = Vec::new();
    for batch in BATCHES {
        let mut parts: Vec<Vec<ArrayRef>> = Vec::new();
        for start in (0..SAMPLE_ROWS).step_by(batch) {
            let rows = batch.min(SAMPLE_ROWS - start);
            let columns: Vec<ArrayRef> = sample.iter().map(|column| column.slice(start, rows)).collect();
            parts.push(score(&columns)?);
        }
        answers.push(joined(&parts)?);
    }
    Ok(answers.windows(2).all(|pair| same_bits(&pair[0], &pair[1])))
}

/// The outputs of all batches, one array per output.
fn joined(parts: &[Vec<ArrayRef>]) -> Result<Vec<ArrayRef>> {
    let outputs = parts.first().map_or(0, Vec::len);
    let column = |output: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part[output].as_ref()).collect();
        Ok(concat(&arrays)?)
    };
    (0..outputs).map(column).collect()
}

/// NaN equals itself here, 0 and −0 differ.
fn same_bits(left: &[ArrayRef], right: &[ArrayRef]) -> bool {
    let bytes = |array: &ArrayRef| array.to_data().buffers().iter().map(|buffer| buffer.as_slice().to_vec()).collect::<Vec<_>>();
    left.iter().zip(right).all(|(left, right)| bytes(left) == bytes(right) && left.nulls() == right.nulls())
}

/// Rows as inputs might be: small and large, whole and not, some missing. The same for the same definition.
pub fn sample(def: &ModelDef, inputs: &Inputs) -> Result<Vec<ArrayRef>> {
    let mut random = Random(0x0046_7265_7368_6574);
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, field) in def.inputs.iter().enumerate() {
        let has_nan = def.missing == Missing::Nan && inputs.element_of(index).is_float();
        let element = inputs.element_of(index);
        let column: ArrayRef = match field.data_type() {
            DataType::Boolean => Arc::new((0..SAMPLE_ROWS).map(|_| Some(random.below(2) == 1)).collect::<BooleanArray>()),
            data_type if data_type.is_integer() => Arc::new((0..SAMPLE_ROWS).map(|_| Some(integer(&mut random, element))).collect::<Int64Array>()),
            _ => Arc::new((0..SAMPLE_ROWS).map(|_| float(&mut random, has_nan)).collect::<Float64Array>()),
        };
        columns.push(cast(&column, field.data_type())?);
    }
    Ok(columns)
}

/// An integer of an integer input is often the index of a category, of which there may be few.
fn integer(random: &mut Random, element: Element) -> i64 {
    let below = if element.is_float() { 100 } else { 2 };
    random.below(below) as i64
}

fn float(random: &mut Random, has_nan: bool) -> Option<f64> {
    if has_nan && random.below(MISSING_ONE_IN) == 0 {
        return None;
    }
    let scale = [1.0, 10.0, 100.0, 1000.0][random.below(4) as usize];
    let value = scale * (random.below(1 << 30) as f64 / (1u64 << 29) as f64 - 1.0);
    Some(if random.below(3) == 0 { value.round() } else { value })
}

/// splitmix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
