//! Rows with the windows their times are in: one row per window. In: changes. Out: the same changes, NULL times left out. Stateless, so it
//! follows any retraction.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use freshet_core::{Batch, Windows};

use crate::operators::{ErrorRows, Origins, Output};

/// `time` is a timestamp column of the input; `schema` has two columns more, of its type.
pub fn windows(name: String, (time, windows): (usize, Windows), schema: SchemaRef, origins: Origins) -> impl FnMut(Batch, &mut Output) + 'static {
    let data_type = schema.field(schema.fields().len() - 1).data_type().clone();
    move |batch, out| {
        let times = cast(batch.column(time), &DataType::Int64).expect("the planner lets only timestamps be times");
        let times = times.as_primitive::<Int64Type>();
        let (mut rows, mut starts, mut ends): (Vec<u32>, Vec<i64>, Vec<i64>) = Default::default();
        let mut errors = ErrorRows::new(&name, origins.clone());
        for row in (0..batch.len()).filter(|row| times.is_valid(*row)) {
            let before = rows.len();
            let fits = windows.each(times.value(row), |start, end| {
                rows.push(row as u32);
                starts.push(start);
                ends.push(end);
            });
            if !fits {
                rows.truncate(before);
                starts.truncate(before);
                ends.truncate(before);
                errors.push(&batch, row, "window_start", OUT_OF_RANGE);
            }
        }
        out.errors.extend(errors.finish());
        if rows.is_empty() {
            return;
        }
        let each_once = windows.tumble() && rows.len() == batch.len();
        let taken = if each_once { batch } else { batch.take(&rows) };
        let bound = |values: Vec<i64>| cast(&Int64Array::from(values), &data_type).expect("an integer is a timestamp of any unit");
        let columns: Vec<ArrayRef> = taken.rows().columns().iter().cloned().chain([bound(starts), bound(ends)]).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(taken.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the planner fixed the schema");
        out.rows.push(taken.with_rows(rows));
    }
}

const OUT_OF_RANGE: &str = "a window of this time begins or ends beyond the range of its type";
