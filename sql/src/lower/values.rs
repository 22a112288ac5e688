//! VALUES and queries without FROM: rows that the script itself holds.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{EmptyRelation, Values};
use freshet_core::{NodeId, Op};

use super::Lowering;
use crate::expr::compile;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    /// Errors: an expression that fails, which no row could be blamed for.
    pub(super) fn values(&mut self, values: &Values) -> Result<NodeId> {
        let schema = nullable(values.schema.as_ref());
        let one_row = empty_rows(1)?;
        let none = DFSchema::empty();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let cells = values
                .values
                .iter()
                .map(|row| {
                    let value = compile(&row[index], &none)?.evaluate(&one_row).map_err(|error| Refusal::new(error.to_string()))?;
                    arrow::compute::cast(&value, field.data_type()).map_err(|error| Refusal::new(error.to_string()))
                })
                .collect::<Result<Vec<ArrayRef>>>()?;
            let cells: Vec<&dyn arrow::array::Array> = cells.iter().map(|cell| cell.as_ref()).collect();
            columns.push(concat(&cells).map_err(|error| Refusal::new(error.to_string()))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(values.values.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| Refusal::new(error.to_string()))?;
        Ok(self.push(Op::Values { rows }, Vec::new(), schema))
    }

    /// One row without columns, or no row: a condition that is never true.
    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Result<NodeId> {
        let schema = nullable(empty.schema.as_ref());
        let rows = match empty.produce_one_row {
            false => RecordBatch::new_empty(schema.clone()),
            true => {
                let columns = schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), 1)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(1));
                RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| Refusal::new(error.to_string()))?
            }
        };
        Ok(self.push(Op::Values { rows }, Vec::new(), schema))
    }
}

fn nullable(schema: &DFSchema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn empty_rows(count: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).map_err(|error| Refusal::new(error.to_string()))
}
