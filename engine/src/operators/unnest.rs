//! Lists into rows. In: a batch. Out: for each row as many rows as its longest list has elements, each list's n-th element in the n-th; none where
//! all lists are empty or NULL. Linear: a retraction takes back what its insertion gave.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use freshet_core::{Batch, ExprRef, evaluate_rows};

use crate::operators::{ErrorRows, Origins, Output};

/// The operator's action on one batch. `lists` are the expressions that are lists.
pub fn unnest(name: String, (exprs, lists): (Vec<ExprRef>, Vec<usize>), schema: SchemaRef, origins: Origins) -> impl FnMut(Batch, &mut Output) {
    move |batch, out| {
        let mut failed: BTreeMap<usize, (usize, String)> = BTreeMap::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(exprs.len() + 1);
        for (index, expr) in exprs.iter().enumerate() {
            let evaluated = evaluate_rows(expr.as_ref(), batch.rows());
            columns.push(if lists.contains(&index) { as_list(&evaluated.values) } else { evaluated.values });
            for (row, reason) in evaluated.errors {
                failed.entry(row).or_insert((index, reason));
            }
        }
        let mut errors = ErrorRows::new(&name, origins.clone());
        for (row, (index, reason)) in &failed {
            errors.push(&batch, *row, schema.field(*index).name(), reason);
        }
        out.errors.extend(errors.finish());
        let length = |row: usize| lists.iter().map(|list| elements(&columns[*list], row).1).max().unwrap_or(0);
        let (mut rows, mut places): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        for row in (0..batch.len()).filter(|row| !failed.contains_key(row)) {
            for place in 0..length(row) {
                rows.push(row as u32);
                places.push(place);
            }
        }
        if rows.is_empty() {
            return;
        }
        let indexes = UInt32Array::from(rows.clone());
        let mut shown: Vec<ArrayRef> = Vec::with_capacity(columns.len() + 1);
        for (index, column) in columns.iter().enumerate() {
            shown.push(match lists.contains(&index) {
                false => take(column, &indexes, None).expect("the rows are there"),
                true => {
                    let element = |(row, place): (&u32, &usize)| {
                        let (start, count) = elements(column, *row as usize);
                        (*place < count).then_some((start + *place) as u32)
                    };
                    let places: UInt32Array = rows.iter().zip(&places).map(element).collect();
                    take(column.as_list::<i32>().values(), &places, None).expect("the elements are there")
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let shown = RecordBatch::try_new_with_options(schema.clone(), shown, &options).expect("the planner fixed the schema");
        out.rows.push(batch.take(&rows).with_rows(shown));
    }
}

fn as_list(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::ListView(field) => {
            cast(column, &DataType::List(field.clone())).expect("a list of another layout has the same elements")
        }
        _ => column.clone(),
    }
}

/// Where the elements of a row begin, and how many there are.
fn elements(column: &ArrayRef, row: usize) -> (usize, usize) {
    let Some(list) = column.as_list_opt::<i32>() else { return (0, 0) };
    if list.is_null(row) {
        return (0, 0);
    }
    (list.value_offsets()[row] as usize, list.value_length(row) as usize)
}
