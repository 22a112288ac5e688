//! Keeps rows whose conjuncts are all true. A row is an error only if a conjunct fails on it and no other is false (C4).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use freshet_core::{Batch, ExprRef, evaluate_rows};

use crate::operators::{ErrorRows, Output};

/// The operator's action on one batch.
pub fn filter(name: String, conjuncts: Vec<ExprRef>, sources: Arc<[String]>) -> impl FnMut(Batch, &mut Output) {
    move |batch, out| {
        let mut masks: Vec<BooleanArray> = Vec::new();
        let mut failed: BTreeMap<usize, (usize, String)> = BTreeMap::new();
        for (index, conjunct) in conjuncts.iter().enumerate() {
            let evaluated = evaluate_rows(conjunct.as_ref(), batch.rows());
            masks.push(evaluated.values.as_boolean().clone());
            for (row, reason) in evaluated.errors {
                failed.entry(row).or_insert((index, reason));
            }
        }
        let mask: BooleanArray = (0..batch.len()).map(|row| Some(masks.iter().all(|mask| mask.is_valid(row) && mask.value(row)))).collect();
        out.rows.push(batch.filter(&mask));
        failed.retain(|row, _| !masks.iter().any(|mask| mask.is_valid(*row) && !mask.value(*row)));
        let mut errors = ErrorRows::new(&name, sources.clone());
        for (row, (index, reason)) in &failed {
            errors.push(&batch, *row, &conjuncts[*index].sql(), reason);
        }
        out.errors.extend(errors.finish());
    }
}
