//! Columns of a client become columns of the declared types. In: a batch, columns by name. Out: the same rows under the declared schema, or
//! the column that does not fit: nothing is taken then.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, MutableArrayData, RecordBatch, RecordBatchOptions, Scalar, make_array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_core::{Error, Result};

use crate::decode::{Rows, check_types, sql_name};
use crate::source::cast;

/// The column, or member of a JSON object, that marks a row of FORMAT UPSERT as the end of its key.
pub const DELETED: &str = "__deleted";

/// The rows of a client under the declared schema. `deleted` are rows that need no more than the columns of `key`.
/// Errors: Invalid, naming the column and, where it is one value, the row.
pub fn conform(rows: &RecordBatch, schema: &SchemaRef, deleted: Option<&BooleanArray>, key: &[usize]) -> Result<RecordBatch> {
    if rows.schema_ref() == schema && deleted.is_none() {
        return Ok(rows.clone());
    }
    let mut used = 0;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let found = rows.column_by_name(field.name());
        used += usize::from(found.is_some());
        let optional = deleted.filter(|_| !key.contains(&index));
        columns.push(column(found, field, rows, optional)?);
    }
    if used == 0 {
        return Err(Error::invalid(format!("the rows have none of its columns; they have {}", names(rows))));
    }
    if used < rows.num_columns() {
        // What was left out would keep the memory of the whole message.
        columns = columns.iter().map(owned).collect::<Result<_>>()?;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Which rows end their key; None if the rows say nothing of it.
pub fn deleted_rows(rows: &RecordBatch) -> Result<Option<BooleanArray>> {
    let Some(column) = rows.column_by_name(DELETED) else { return Ok(None) };
    if column.data_type() != &DataType::Boolean {
        return Err(Error::invalid(format!("column {DELETED} is BOOLEAN, the rows have {}", column.data_type())));
    }
    let marks = column.as_boolean();
    Ok((marks.true_count() > 0).then(|| marks.iter().map(|mark| Some(mark == Some(true))).collect()))
}

/// A copy with buffers of its own.
pub fn owned(column: &ArrayRef) -> Result<ArrayRef> {
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}

fn column(found: Option<&ArrayRef>, field: &Field, rows: &RecordBatch, deleted: Option<&BooleanArray>) -> Result<ArrayRef> {
    let (name, wanted) = (field.name(), sql_name(field.data_type()));
    let Some(found) = found else {
        let missing = new_null_array(field.data_type(), rows.num_rows());
        if field.is_nullable() || missing.is_empty() {
            return Ok(missing);
        }
        return zeroed(missing, field, deleted)
            .ok_or_else(|| Error::invalid(format!("column {name} is NOT NULL and the rows do not have it; they have {}", names(rows))));
    };
    if !cast::is_possible(found.data_type(), field.data_type()) {
        return Err(Error::invalid(format!("column {name} is {wanted}, the rows have {}; cast it before sending", found.data_type())));
    }
    let fitted = cast::cast(found, field.data_type()).map_err(|error| Error::invalid(format!("column {name} is {wanted}: {error}")))?;
    let nulls = fitted.null_count();
    if nulls > found.logical_null_count() {
        let before = found.logical_nulls();
        let row = (0..fitted.len()).find(|row| fitted.is_null(*row) && before.as_ref().is_none_or(|nulls| nulls.is_valid(*row)));
        return Err(Error::invalid(format!("column {name} is {wanted}, the value of row {} does not fit", row.unwrap_or_default())));
    }
    if nulls == 0 || field.is_nullable() {
        return Ok(fitted);
    }
    let row = (0..fitted.len()).find(|row| fitted.is_null(*row) && deleted.is_none_or(|deleted| !deleted.value(*row)));
    match row {
        None => zeroed(fitted, field, deleted).ok_or_else(|| Error::invalid(format!("column {name} is NOT NULL, a deleted row has NULL"))),
        Some(row) => Err(Error::invalid(format!("column {name} is NOT NULL, row {row} has NULL"))),
    }
}

/// The column with a zero wherever it is NULL in a deleted row; None if a NULL is left.
fn zeroed(column: ArrayRef, field: &Field, deleted: Option<&BooleanArray>) -> Option<ArrayRef> {
    let filled: BooleanArray = (0..column.len()).map(|row| Some(column.is_null(row) && deleted.is_some_and(|deleted| deleted.value(row)))).collect();
    let zero = Scalar::new(zero_of(field)?);
    let column = zip(&filled, &zero, &column).ok()?;
    (column.null_count() == 0).then_some(column)
}

/// What stands in a NOT NULL column where no value matters.
fn zero_of(field: &Field) -> Option<ArrayRef> {
    let schema = Arc::new(Schema::new(vec![field.clone().with_nullable(false)]));
    check_types(&schema).ok()?;
    let mut rows = Rows::new(schema);
    rows.end_key_row(&[], 1, 0).ok()?;
    Some(rows.finish(0, 1).ok()?.rows.column(0).clone())
}

fn names(rows: &RecordBatch) -> String {
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "no column".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("city", DataType::Utf8, true),
            Field::new("name", DataType::Utf8, false),
        ]))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn ints(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn reason(columns: Vec<(&str, ArrayRef)>) -> String {
        conform(&batch(columns), &schema(), None, &[]).unwrap_err().message
    }

    #[test]
    fn columns_are_taken_by_name_and_missing_ones_are_null() {
        let rows = batch(vec![("name", texts(&[Some("a")])), ("extra", ints(&[9])), ("id", ints(&[7]))]);
        let taken = conform(&rows, &schema(), None, &[]).unwrap();
        assert_eq!(taken.schema(), schema());
        assert_eq!(taken.column(0).as_primitive::<Int32Type>().value(0), 7);
        assert!(taken.column(1).is_null(0));
    }

    #[test]
    fn what_does_not_fit_names_its_column() {
        let name = || ("name", texts(&[Some("a"), Some("b")]));
        assert_eq!(reason(vec![name()]), "column id is NOT NULL and the rows do not have it; they have name");
        assert_eq!(reason(vec![("id", ints(&[1, 3_000_000_000])), name()]), "column id is INT, the value of row 1 does not fit");
        assert_eq!(reason(vec![("id", texts(&[Some("1"), None])), name()]), "column id is INT, the rows have Utf8; cast it before sending");
        assert_eq!(reason(vec![("id", ints(&[1, 2])), ("name", texts(&[Some("a"), None]))]), "column name is NOT NULL, row 1 has NULL");
        assert_eq!(reason(vec![("x", ints(&[1]))]), "column id is NOT NULL and the rows do not have it; they have x");
    }

    #[test]
    fn a_deleted_row_needs_its_key_only() {
        let marks: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None]));
        let rows = batch(vec![("id", ints(&[1, 2])), ("name", texts(&[None, Some("b")])), (DELETED, marks)]);
        let deleted = deleted_rows(&rows).unwrap().unwrap();
        assert_eq!(deleted.iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
        let taken = conform(&rows, &schema(), Some(&deleted), &[0]).unwrap();
        assert_eq!(taken.column(2).as_string::<i32>().iter().collect::<Vec<_>>(), [Some(""), Some("b")]);
    }
}
