//! Computed columns of a source. In: batches as its connector gives them. Out: the same with every declared column; a record whose value cannot
//! be computed is a dead letter (C3).

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter;
use freshet_core::{DeadLetter, Result, SourceBatch, SourceDef, evaluate_rows};

use crate::bridge::letter_of_row;

/// The batch with the columns of `def`, which has computed ones.
pub fn complete(def: &SourceDef, batch: SourceBatch) -> Result<SourceBatch> {
    if def.computed.is_empty() {
        return Ok(batch);
    }
    let count = batch.rows.num_rows();
    // A deletion by key has nothing to compute from.
    let is_deletion = |row: usize| !def.key.is_empty() && batch.diffs.as_ref().is_some_and(|diffs| diffs[row] < 0);
    let mut faults: BTreeMap<u64, (usize, String, String)> = BTreeMap::new();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; def.schema.fields().len()];
    for (place, column) in def.carried_columns().into_iter().enumerate() {
        columns[column] = Some(batch.rows.column(place).clone());
    }
    for computed in &def.computed {
        let field = def.schema.field(computed.column);
        let found = evaluate_rows(computed.expr.as_ref(), &batch.rows);
        let null = |row: usize| !field.is_nullable() && found.values.is_null(row);
        let missing = (0..count).filter(|row| null(*row)).map(|row| (row, "the computed value is NULL, the column is NOT NULL".to_string()));
        for (row, reason) in found.errors.iter().cloned().chain(missing).filter(|(row, _)| !is_deletion(*row)) {
            faults.entry(batch.offsets[row]).or_insert_with(|| (row, field.name().clone(), reason));
        }
        columns[computed.column] = Some(found.values);
    }
    let columns: Vec<ArrayRef> = columns.into_iter().map(|column| column.expect("a column is carried or computed")).collect();
    // A record is whole or a letter, and a letter keeps its row as its connector gave it.
    let SourceBatch { partition, rows, diffs, offsets, mut dead_letters, next_offset } = batch;
    for (offset, (row, field, reason)) in &faults {
        let whole = offsets.iter().filter(|known| *known == offset).count() == 1 && diffs.as_ref().is_none_or(|diffs| diffs[*row] == 1);
        let letter = letter_of_row(&rows, *row, whole);
        dead_letters.push(DeadLetter { partition, offset: *offset, field: field.clone(), reason: reason.clone(), ..letter });
    }
    dead_letters.sort_by_key(|letter| letter.offset);
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    if faults.is_empty() {
        let rows = RecordBatch::try_new_with_options(def.schema.clone(), columns, &options)?;
        return Ok(SourceBatch { partition, rows, diffs, offsets, dead_letters, next_offset });
    }
    let kept: BooleanArray = offsets.iter().map(|offset| Some(!faults.contains_key(offset))).collect();
    let is_kept = |row: &usize| kept.value(*row);
    let diffs = diffs.map(|diffs| (0..count).filter(is_kept).map(|row| diffs[row]).collect());
    let left: Vec<u64> = (0..count).filter(is_kept).map(|row| offsets[row]).collect();
    let columns = columns.iter().map(|column| Ok(filter(column, &kept)?)).collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_new(def.schema.clone(), columns)?;
    Ok(SourceBatch { partition, rows, diffs, offsets: left, dead_letters, next_offset })
}
