//! One column per expression. In: rows. Out: rows of the projected schema; a row on which an expression fails goes to the errors (C4).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, ExprRef, evaluate_rows};

use crate::operators::{ErrorRows, Origins, Output};

/// The operator's action on one batch.
pub fn project(name: String, exprs: Vec<ExprRef>, schema: SchemaRef, origins: Origins) -> impl FnMut(Batch, &mut Output) {
    move |batch, out| {
        let mut failed: BTreeMap<usize, (usize, String)> = BTreeMap::new();
        let columns = exprs
            .iter()
            .enumerate()
            .map(|(index, expr)| match expr.as_column() {
                Some(column) => batch.column(column).clone(),
                None => {
                    let evaluated = evaluate_rows(expr.as_ref(), batch.rows());
                    for (row, reason) in evaluated.errors {
                        failed.entry(row).or_insert((index, reason));
                    }
                    evaluated.values
                }
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
        // Rows that failed hold a NULL even where the schema has none; they leave before anyone reads it.
        let nullable = if failed.is_empty() { schema.clone() } else { Arc::new(all_nullable(&schema)) };
        let rows = match RecordBatch::try_new_with_options(nullable, columns, &options) {
            Ok(rows) => batch.with_rows(rows),
            Err(error) => panic!("the planner fixed the types of {name}: {error}"),
        };
        if failed.is_empty() {
            out.rows.push(rows);
            return;
        }
        let mut errors = ErrorRows::new(&name, origins.clone());
        for (row, (index, reason)) in &failed {
            errors.push(&batch, *row, schema.field(*index).name(), reason);
        }
        out.errors.extend(errors.finish());
        let kept = rows.filter(&(0..batch.len()).map(|row| Some(!failed.contains_key(&row))).collect::<BooleanArray>());
        let columns = kept.rows().columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        out.rows.push(kept.with_rows(RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the failed rows are gone")));
    }
}

fn all_nullable(schema: &SchemaRef) -> arrow::datatypes::Schema {
    arrow::datatypes::Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}
