//! Columns that come from outside. In: Arrow columns or JSON values of a client. Out: columns of exactly the types asked for;
//! a value that does not fit is an error naming its column, never another value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use freshet_core::{Error, Result};
use serde_json::Value;

/// The column in the type asked for. Errors: Invalid if a value would change.
pub fn cast_exactly(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let refuse =
        |why: &str| Error::invalid(format!("column {} is {}, the request has {}: {why}", field.name(), field.data_type(), column.data_type()));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let converted = cast_with_options(column, field.data_type(), &options).map_err(|error| refuse(&error.to_string()))?;
    if column.data_type().is_floating() && !field.data_type().is_floating() && !field.data_type().is_string() {
        let (before, after) = (cast(column, &DataType::Float64)?, cast(&converted, &DataType::Float64)?);
        if before.as_primitive::<Float64Type>() != after.as_primitive::<Float64Type>() {
            return Err(refuse("a value has a fraction"));
        }
    }
    Ok(converted)
}

/// The columns of `schema` out of a client's batch, by name. Others are ignored. Errors: Invalid, naming what is missing.
pub fn pick(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let column = rows.column_by_name(field.name()).ok_or_else(|| missing(field.name(), schema))?;
            cast_exactly(column, field)
        })
        .collect::<Result<Vec<_>>>()?;
    batch_of(schema, columns, rows.num_rows())
}

/// The columns of `schema` out of JSON lists by name; a single value is a list of one. All lists have one length.
pub fn from_json(values: &serde_json::Map<String, Value>, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut rows = None;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let value = values.get(field.name()).ok_or_else(|| missing(field.name(), schema))?;
        let list = match value {
            Value::Array(list) => list.as_slice(),
            single => std::slice::from_ref(single),
        };
        if *rows.get_or_insert(list.len()) != list.len() {
            return Err(Error::invalid(format!("column {} has {} values, others have {}", field.name(), list.len(), rows.unwrap_or_default())));
        }
        columns.push(json_column(list, field)?);
    }
    batch_of(schema, columns, rows.unwrap_or_default())
}

fn missing(name: &str, schema: &SchemaRef) -> Error {
    let all: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    Error::invalid(format!("column {name} is missing; a request brings ({})", all.join(", ")))
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn json_column(values: &[Value], field: &Field) -> Result<ArrayRef> {
    let wrong = |value: &Value| Error::invalid(format!("column {} is {}, a value is {value}", field.name(), field.data_type()));
    let present = || values.iter().filter(|value| !value.is_null());
    let column: ArrayRef = if present().next().is_none() {
        new_null_array(field.data_type(), values.len())
    } else if present().all(Value::is_string) {
        Arc::new(values.iter().map(Value::as_str).collect::<StringArray>())
    } else if present().all(Value::is_i64) {
        Arc::new(values.iter().map(Value::as_i64).collect::<Int64Array>())
    } else if present().all(Value::is_number) {
        Arc::new(values.iter().map(Value::as_f64).collect::<Float64Array>())
    } else if present().all(Value::is_boolean) {
        Arc::new(values.iter().map(Value::as_bool).collect::<BooleanArray>())
    } else {
        return Err(wrong(present().find(|value| value.is_array() || value.is_object()).unwrap_or(&values[0])));
    };
    let number_as_text = column.data_type().is_numeric() && field.data_type().is_string();
    let flag_mismatch = (column.data_type() == &DataType::Boolean) != (field.data_type() == &DataType::Boolean);
    if number_as_text || (flag_mismatch && column.null_count() < column.len()) {
        return Err(wrong(present().next().unwrap_or(&Value::Null)));
    }
    cast_exactly(&column, field)
}

/// One cell as JSON. NaN and the infinities are strings, as in protobuf's JSON; times are RFC 3339; bytes are hexadecimal digits, as in tables;
/// what JSON has no word for is text.
pub fn to_json(column: &ArrayRef) -> Result<Vec<Value>> {
    let data_type = column.data_type();
    if data_type.is_integer() {
        if data_type == &DataType::UInt64 {
            let values = column.as_primitive::<arrow::datatypes::UInt64Type>();
            return Ok(values.iter().map(|value| value.map_or(Value::Null, Value::from)).collect());
        }
        let values = cast(column, &DataType::Int64)?;
        return Ok(values.as_primitive::<arrow::datatypes::Int64Type>().iter().map(|value| value.map_or(Value::Null, Value::from)).collect());
    }
    if data_type.is_floating() {
        let values = cast(column, &DataType::Float64)?;
        return Ok(values.as_primitive::<Float64Type>().iter().map(|value| value.map_or(Value::Null, float_json)).collect());
    }
    if data_type == &DataType::Boolean {
        return Ok(column.as_boolean().iter().map(|value| value.map_or(Value::Null, Value::from)).collect());
    }
    if data_type.is_binary() {
        return Ok(hexadecimal(&cast(column, &DataType::Binary)?));
    }
    let texts = match data_type {
        DataType::Timestamp(unit, None) => cast(&cast(column, &DataType::Timestamp(*unit, Some("+00:00".into())))?, &DataType::Utf8)?,
        _ => cast(column, &DataType::Utf8)?,
    };
    Ok(texts.as_string::<i32>().iter().map(|value| value.map_or(Value::Null, Value::from)).collect())
}

fn hexadecimal(column: &ArrayRef) -> Vec<Value> {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    column.as_binary::<i32>().iter().map(|value| value.map_or(Value::Null, |bytes| Value::from(digits(bytes)))).collect()
}

fn float_json(value: f64) -> Value {
    if value.is_nan() {
        Value::from("NaN")
    } else if value.is_infinite() {
        Value::from(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        Value::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("origin", DataType::Utf8, true), Field::new("hour", DataType::Int32, true)]))
    }

    fn parse(text: Value) -> Result<RecordBatch> {
        from_json(text.as_object().unwrap(), &schema())
    }

    #[test]
    fn json_lists_and_single_values_become_columns_of_the_declared_types() {
        let batch = parse(json!({"origin": ["EWR", null], "hour": [7, 8], "more": [1]})).unwrap();
        assert_eq!(batch.column(1).data_type(), &DataType::Int32);
        assert!(batch.column(0).is_null(1));
        assert_eq!(parse(json!({"origin": "EWR", "hour": 7})).unwrap().num_rows(), 1);
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_their_column() {
        for (request, expected) in [
            (json!({"origin": ["EWR"]}), "column hour is missing; a request brings (origin Utf8, hour Int32)"),
            (json!({"origin": ["EWR"], "hour": [7, 8]}), "column hour has 2 values, others have 1"),
            (json!({"origin": [7], "hour": [7]}), "column origin is Utf8, a value is 7"),
            (json!({"origin": ["EWR"], "hour": [7.5]}), "a value has a fraction"),
            (json!({"origin": ["EWR"], "hour": [99999999999i64]}), "column hour is Int32"),
            (json!({"origin": ["EWR"], "hour": [[7]]}), "column hour is Int32, a value is [7]"),
            (json!({"origin": ["EWR"], "hour": [true]}), "column hour is Int32, a value is true"),
        ] {
            let message = parse(request).unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn floats_without_a_json_word_are_strings() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-f64::INFINITY), Some(1.5), None]));
        assert_eq!(to_json(&column).unwrap(), vec![json!("NaN"), json!("-Infinity"), json!(1.5), Value::Null]);
    }
}
