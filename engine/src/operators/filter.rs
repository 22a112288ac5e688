//! Keeps rows whose conjuncts are all true. A row is an error only if a conjunct fails on it and no other is false (C4).

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use freshet_core::{Batch, ExprRef, evaluate_rows};

use crate::operators::{ErrorRows, Origins, Output};

/// The operator's action on one batch.
pub fn filter(name: String, conjuncts: Vec<ExprRef>, origins: Origins) -> impl FnMut(Batch, &mut Output) {
    move |batch, out| {
        let Judged { mask, failed } = judge(&conjuncts, &batch);
        out.rows.push(batch.filter(&mask));
        if failed.is_empty() {
            return;
        }
        let mut errors = ErrorRows::new(&name, origins.clone());
        for (row, (index, reason)) in &failed {
            errors.push(&batch, *row, &conjuncts[*index].sql(), reason);
        }
        out.errors.extend(errors.finish());
    }
}

/// What conjuncts say of the rows of a batch.
pub struct Judged {
    /// True where all of them are; no NULLs.
    pub mask: BooleanArray,
    /// By row: the first conjunct that failed, and why. Only rows of which no other conjunct is false.
    pub failed: BTreeMap<usize, (usize, String)>,
}

pub fn judge(conjuncts: &[ExprRef], batch: &Batch) -> Judged {
    let mut masks: Vec<BooleanArray> = Vec::with_capacity(conjuncts.len());
    let mut failed: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    for (index, conjunct) in conjuncts.iter().enumerate() {
        let evaluated = evaluate_rows(conjunct.as_ref(), batch.rows());
        masks.push(evaluated.values.as_boolean().clone());
        for (row, reason) in evaluated.errors {
            failed.entry(row).or_insert((index, reason));
        }
    }
    let kept = masks.iter().map(true_bits).reduce(|left, right| &left & &right);
    let mask = BooleanArray::new(kept.unwrap_or_else(|| BooleanBuffer::new_set(batch.len())), None);
    failed.retain(|row, _| !masks.iter().any(|mask| mask.is_valid(*row) && !mask.value(*row)));
    Judged { mask, failed }
}

/// Where it is true; NULL is not.
fn true_bits(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(valid) => mask.values() & valid.inner(),
    }
}
